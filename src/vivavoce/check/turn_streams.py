"""Checks of every stream of events: turns of the user, and their transcripts."""

from typing import Final

from vivavoce.check.recording import (
    CheckList,
    CheckRecording,
    EventFields,
    NotApplicable,
    at,
    require,
)
from vivavoce.check.streams import CALLS, EVENTS

_TRANSCRIPTION: Final = "conversation.item.input_audio_transcription"
checks = CheckList()


@checks.add("stream.speech_alternates", EVENTS, dialects=CALLS)
def _(recording: CheckRecording) -> None:
    """`speech_started` and `speech_stopped` alternate and name the same item."""
    recording.need("input_audio_buffer.speech_started")
    speaking: object = None
    for event in recording.received:
        kind, key = event.get("type"), event.get("item_id")
        if kind == "input_audio_buffer.speech_started":
            require(speaking is None, "speech started twice", event)
            speaking = key
        elif kind == "input_audio_buffer.speech_stopped":
            require(speaking == key, f"speech of {speaking} had started", event)
            speaking = None
        elif kind in ("input_audio_buffer.cleared", "session.updated"):
            speaking = None


@checks.add("stream.speech_clock", EVENTS, dialects=CALLS)
def _(recording: CheckRecording) -> None:
    """`audio_start_ms` and `audio_end_ms` are whole and do not go back."""
    recording.need("input_audio_buffer.speech_started")
    last = 0
    for event in recording.received:
        if str(event.get("type")).startswith("input_audio_buffer.speech_"):
            ms = event.get("audio_start_ms", event.get("audio_end_ms"))
            require(type(ms) is int, f"{ms!r} is not whole", event)
            require(isinstance(ms, int) and ms >= last, f"{ms} comes after {last}", event)
            last = ms if isinstance(ms, int) else last


@checks.add("stream.speech_stopped_commits", EVENTS, dialects=CALLS)
def _(recording: CheckRecording) -> None:
    """`speech_stopped` is followed by `committed` of the same item."""
    recording.need("input_audio_buffer.speech_stopped")
    for event in recording.all("input_audio_buffer.speech_stopped"):
        committed = recording.all("input_audio_buffer.committed", item_id=event.get("item_id"))
        after = [e for e in committed if recording.place(e) > recording.place(event)]
        require(after, "no input_audio_buffer.committed came", event)


@checks.add("stream.committed_becomes_item", EVENTS, dialects=CALLS)
def _(recording: CheckRecording) -> None:
    """`committed` is followed by `conversation.item.added` of the same item and predecessor."""
    recording.need("input_audio_buffer.committed")
    events = recording.received
    for place, event in enumerate(events):
        if event.get("type") == "input_audio_buffer.committed":
            added = [
                e
                for e in events[place:]
                if e.get("type") == "conversation.item.added"
                and at(e, "item", "id") == event.get("item_id")
            ]
            require(added, "no conversation.item.added came", event)
            require(
                added[0].get("previous_item_id") == event.get("previous_item_id"),
                "they name different predecessors",
                event,
                added[0],
            )


@checks.add("stream.transcript_ends_once", EVENTS, dialects=CALLS)
def _(recording: CheckRecording) -> None:
    """A transcription is completed or failed once, and no delta follows."""
    ended: set[object] = set()
    if not _transcription_events(recording):
        raise NotApplicable("no transcription came")
    for event in _transcription_events(recording):
        key = event.get("item_id"), event.get("content_index")
        require(key not in ended, "it had ended", event)
        if not str(event.get("type")).endswith(".delta"):
            ended.add(key)


@checks.add("stream.transcript_deltas", EVENTS, dialects=CALLS)
def _(recording: CheckRecording) -> None:
    """The deltas of a transcription add up to the transcript, if there are any."""
    recording.need(f"{_TRANSCRIPTION}.completed")
    for event in recording.all(f"{_TRANSCRIPTION}.completed"):
        deltas = "".join(
            str(e.get("delta"))
            for e in recording.all(f"{_TRANSCRIPTION}.delta", item_id=event.get("item_id"))
        )
        transcript = str(event.get("transcript"))
        require(not deltas or deltas.strip() == transcript.strip(), f"deltas: {deltas!r}", event)


@checks.add("stream.transcript_of_an_item", EVENTS, dialects=CALLS)
def _(recording: CheckRecording) -> None:
    """A transcript is completed after its item was added."""
    recording.need(f"{_TRANSCRIPTION}.completed")
    added: set[object] = set()
    for event in recording.received:
        if event.get("type") == "conversation.item.added":
            added.add(at(event, "item", "id"))
        elif event.get("type") == f"{_TRANSCRIPTION}.completed":
            require(event.get("item_id") in added, "its item was not added", event)


def _transcription_events(recording: CheckRecording) -> list[EventFields]:
    return [e for e in recording.received if str(e.get("type")).startswith(f"{_TRANSCRIPTION}.")]
