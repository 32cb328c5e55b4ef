"""Checks of spoken input: turns, interruptions, transcriptions."""

from typing import Final

from vivavoce.audio.formats import BYTES_PER_MS
from vivavoce.check.items_behaviour import (
    CLIENT,
    EVENTS,
    FRAMES,
    SETTINGS,
    START,
)
from vivavoce.check.recording import (
    CheckList,
    CheckRecording,
    EventFields,
    NotApplicable,
    at,
    require,
)

_COMPLETED: Final = "conversation.item.input_audio_transcription.completed"
_STOPPED: Final = "input_audio_buffer.speech_stopped"
_COMMITTED: Final = "input_audio_buffer.committed"
checks = CheckList()


@checks.add("manual.append_is_silent", CLIENT, "manual_turn")
def _(recording: CheckRecording) -> None:
    """`input_audio_buffer.append` gets no answer."""
    updated, committed = recording.need("session.updated"), recording.need(_COMMITTED)
    between = recording.between(updated, committed)
    events = [e for e in between if not str(e.get("type")).startswith("conversation.item.input_")]
    require(not events, f"{at(events, 0, 'type')} came", *events)


@checks.add("manual.order", CLIENT, "manual_turn")
def _(recording: CheckRecording) -> None:
    """A commit is answered by `committed`, `conversation.item.added` and `.done`, in order."""
    key = recording.note("item")
    events = [
        str(e.get("type"))
        for e in recording.received
        if key in (e.get("item_id"), at(e, "item", "id"))
    ]
    kinds = [kind for kind in events if not kind.startswith("conversation.item.input_")][:3]
    wanted = [_COMMITTED, "conversation.item.added", "conversation.item.done"]
    require(kinds == wanted, f"the order is {kinds}")


@checks.add("manual.no_response", CLIENT, "manual_turn")
def _(recording: CheckRecording) -> None:
    """A commit creates no response."""
    early = recording.received[: recording.note("before_response")]
    created = [e for e in early if e.get("type") == "response.created"]
    require(not created, "a response was created", *created)


@checks.add("manual.transcript", EVENTS, "manual_turn")
def _(recording: CheckRecording) -> None:
    """The committed speech is transcribed, with its usage."""
    key = recording.note("item")
    event = recording.expect(_COMPLETED, "no transcript was completed", item_id=key)
    require(event.get("transcript"), "the transcript is empty", event)


@checks.add("manual.answered", CLIENT, "manual_turn")
def _(recording: CheckRecording) -> None:
    """`response.create` answers the committed speech."""
    done, _ = recording.response("manual")
    require(at(done, "response", "status") == "completed", "it is not completed", done)


@checks.add("manual.audio_retrieved", CLIENT, "manual_turn")
def _(recording: CheckRecording) -> None:
    """`conversation.item.retrieve` shows the committed audio, of the same length."""
    event, sent_ms = recording.note("retrieved"), recording.note("spoken_ms")
    audio = at(event, "item", "content", 0, "audio")
    require(isinstance(audio, str) and audio, "the audio is missing", event)
    ms = len(audio) * 3 // 4 // BYTES_PER_MS
    require(abs(ms - sent_ms) < 100, f"{ms} ms of {sent_ms} ms", event)


@checks.add("manual.clear_empties", CLIENT, "manual_turn")
def _(recording: CheckRecording) -> None:
    """After `input_audio_buffer.clear` there is nothing to commit."""
    event = recording.note("commit_after_clear")
    code = at(event, "error", "code")
    require(code == "input_audio_buffer_commit_empty", f"the code is {code!r}", event)


for _scenario, _prefix in (("spoken_turn", "turn"), ("semantic_turn", "semantic")):

    @checks.add(f"{_prefix}.order", EVENTS, _scenario)
    def _(recording: CheckRecording) -> None:
        """A turn: `speech_started`, `speech_stopped`, `committed`, `added`, `done`, of one item."""
        started = recording.expect("input_audio_buffer.speech_started", "no speech_started came")
        key = started.get("item_id")
        kinds = [
            str(e.get("type"))
            for e in recording.received
            if key in (e.get("item_id"), at(e, "item", "id"))
        ]
        kinds = [kind for kind in kinds if not kind.startswith("conversation.item.input_")]
        wanted = [
            "input_audio_buffer.speech_started",
            _STOPPED,
            _COMMITTED,
            "conversation.item.added",
            "conversation.item.done",
        ]
        require(kinds[:5] == wanted, f"the order is {kinds}", started)

    @checks.add(f"{_prefix}.answered", EVENTS, _scenario)
    def _(recording: CheckRecording) -> None:
        """A turn is answered without `response.create`, after its item was added."""
        created = recording.expect("response.created", "no response was created")
        done = recording.need("conversation.item.done")
        require(recording.place(created) > recording.place(done), "it came earlier", created)

    @checks.add(f"{_prefix}.transcript", EVENTS, _scenario)
    def _(recording: CheckRecording) -> None:
        """The turn is transcribed under the id of its item."""
        key = recording.need(_COMMITTED).get("item_id")
        event = recording.expect(_COMPLETED, "no transcript was completed", item_id=key)
        require(event.get("transcript"), "the transcript is empty", event)


@checks.add("turn.speech_times", EVENTS, "spoken_turn")
def _(recording: CheckRecording) -> None:
    """`audio_end_ms` is later than `audio_start_ms`, by about the length of the speech."""
    start = recording.need("input_audio_buffer.speech_started").get("audio_start_ms")
    stopped = recording.need(_STOPPED)
    end = stopped.get("audio_end_ms")
    require(
        isinstance(start, int) and isinstance(end, int) and end - start > 200,
        f"from {start} to {end} ms",
        stopped,
    )


@checks.add("turn.commits_once", EVENTS, "spoken_turn")
def _(recording: CheckRecording) -> None:
    """One turn is committed once."""
    stopped = recording.all(_STOPPED)
    committed = recording.all(_COMMITTED)
    require(len(committed) == len(stopped), f"{len(stopped)} turns", *committed)


@checks.add("turn.create_response_off", SETTINGS, "turn_without_response")
def _(recording: CheckRecording) -> None:
    """With `create_response: false` a turn is committed and not answered."""
    recording.need(_COMMITTED)
    created = recording.all("response.created")
    require(not created, "a response was created", *created)


@checks.add("interruption.cancelled", EVENTS, "interruption")
def _(recording: CheckRecording) -> None:
    """Speech ends the active response as `cancelled`, `turn_detected`."""
    done = _interrupted(recording)
    reason = at(done, "response", "status_details", "reason")
    require(at(done, "response", "status") == "cancelled", "it is not cancelled", done)
    require(reason == "turn_detected", f"the reason is {reason!r}", done)


@checks.add("interruption.no_audio_after", EVENTS, "interruption")
def _(recording: CheckRecording) -> None:
    """After `speech_started` no audio of the interrupted response comes."""
    done = _interrupted(recording)
    started = recording.need("input_audio_buffer.speech_started")
    late = [
        e
        for e in recording.between(started, done)
        if e.get("type") == "response.output_audio.delta"
    ]
    require(not late, f"{len(late)} deltas came", started, *late[:2])


@checks.add("interruption.items_incomplete", EVENTS, "interruption")
def _(recording: CheckRecording) -> None:
    """The items of the interrupted response are closed, as `incomplete`."""
    done = _interrupted(recording)
    for item in at(done, "response", "output") or ():
        require(at(item, "status") == "incomplete", f"an item is {at(item, 'status')}", done)


@checks.add("interruption.client_truncates", EVENTS, "interruption")
def _(recording: CheckRecording) -> None:
    """On a WebSocket the server truncates nothing by itself: the client plays the audio."""
    _interrupted(recording)
    for kind in ("conversation.item.truncated", "output_audio_buffer.cleared"):
        events = recording.all(kind)
        require(not events, f"{kind} came", *events)


@checks.add("interruption.next_turn_answered", EVENTS, "interruption")
def _(recording: CheckRecording) -> None:
    """The speech that interrupted is answered as a turn."""
    recording.need("input_audio_buffer.speech_started")
    done, _ = recording.response("next")
    require(at(done, "response", "status") == "completed", "it is not completed", done)


@checks.add("interruption.off", SETTINGS, "no_interruption")
def _(recording: CheckRecording) -> None:
    """With `interrupt_response: false` the response goes on."""
    started = recording.need("input_audio_buffer.speech_started")
    done, _ = recording.response("continued")
    require(at(done, "response", "status") == "completed", "it is not completed", started, done)


@checks.add("transcription.session", START, "transcription")
def _(recording: CheckRecording) -> None:
    """`?intent=transcription` opens a session of the type `transcription`."""
    event = recording.need("session.created")
    found = at(event, "session", "object")
    require(found == "realtime.transcription_session", f"object is {found!r}", event)


@checks.add("transcription.updated", SETTINGS, "transcription")
def _(recording: CheckRecording) -> None:
    """A transcription session is updated with `type: transcription`."""
    event = recording.note("updated")
    require(event.get("type") == "session.updated", "it was refused", event)
    found = at(event, "session", "audio", "input", "turn_detection")
    require(found is None, f"turn_detection is {found}", event)


@checks.add("transcription.completed", EVENTS, "transcription")
def _(recording: CheckRecording) -> None:
    """Committed audio is transcribed."""
    event = recording.expect(
        _COMPLETED, "no transcript was completed", item_id=recording.note("item")
    )
    require(event.get("transcript"), "the transcript is empty", event)


@checks.add("transcription.detected_turn", EVENTS, "transcription")
def _(recording: CheckRecording) -> None:
    """With `server_vad` a turn is committed and transcribed."""
    stopped = recording.need(_STOPPED)
    key = stopped.get("item_id")
    recording.expect(_COMPLETED, "the turn was not transcribed", item_id=key)


@checks.add("transcription.no_responses", EVENTS, "transcription")
def _(recording: CheckRecording) -> None:
    """A transcription session has no responses; `response.create` is refused."""
    events = [e for e in recording.received if str(e.get("type")).startswith("response.")]
    require(not events, f"{at(events, 0, 'type')} came", *events)
    event = recording.note("response_create")
    require(event.get("type") == "error", "response.create was not refused", event)


@checks.add("g711.commit", SETTINGS, "g711_turn")
def _(recording: CheckRecording) -> None:
    """The 100 ms of a commit are counted in the input format: 8 bytes a millisecond."""
    short, enough = recording.note("commit_40_ms"), recording.note("commit_500_ms")
    require(short.get("type") == "error", "40 ms were committed", short)
    require(enough.get("type") == _COMMITTED, "500 ms were refused", enough)


@checks.add("auth.wrong_key", FRAMES, "wrong_key")
def _(recording: CheckRecording) -> None:
    """A wrong key is refused: an `error` and a close with 3000, or status 401 or 403."""
    status, code = recording.notes.get("status"), recording.notes.get("close_code")
    require(status in (401, 403) or code == 3000, f"status {status}, close code {code}")
    if status is None:
        event = recording.need("error")
        require(at(event, "error", "code") == "invalid_api_key", "the code is wrong", event)


def _interrupted(recording: CheckRecording) -> EventFields:
    """The end of the interrupted response. Raises NotApplicable: it was complete before."""
    started = recording.need("input_audio_buffer.speech_started")
    done, _ = recording.response("interrupted")
    if recording.place(done) < recording.place(started):
        raise NotApplicable("the response was complete before the speech")
    return done
