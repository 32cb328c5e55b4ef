"""Checks of responses of the GA protocol: text, audio, cancellation, tools, out of band."""

from typing import Final

from vivavoce.audio.formats import BYTES_PER_MS
from vivavoce.check.items_behaviour import CLIENT, EVENTS, SETTINGS
from vivavoce.check.recording import (
    CheckList,
    CheckRecording,
    EventFields,
    NotApplicable,
    at,
    audio_of,
    require,
    require_type,
)
from vivavoce.check.scenarios import METADATA

MIN_TRUNCATED_MS: Final = 100
checks = CheckList()


@checks.add("text.completed", EVENTS, "text_response")
def _(recording: CheckRecording) -> None:
    """`response.create` without audio gives a written answer and no audio."""
    done, events = recording.response("text")
    status = at(done, "response", "status")
    require(status == "completed", f"the status is {status}", done)
    kinds = {str(e.get("type")) for e in events}
    require("response.output_text.delta" in kinds, "no text came", done)
    require("response.output_audio.delta" not in kinds, "audio came", done)


@checks.add("text.item_has_text", EVENTS, "text_response")
def _(recording: CheckRecording) -> None:
    """The item of a written answer has one `output_text` part with the text."""
    done, events = recording.response("text")
    part = at(done, "response", "output", 0, "content", 0)
    require(at(part, "type") == "output_text", f"the part is {part}", done)
    text = [e.get("text") for e in events if e.get("type") == "response.output_text.done"]
    require([at(part, "text")] == text, "the text is not what was streamed", done)


@checks.add("text.metadata", CLIENT, "text_response")
def _(recording: CheckRecording) -> None:
    """`metadata` is echoed in `response.created` and `response.done`."""
    done, events = recording.response("text")
    for event in (events[0], done):
        found = at(event, "response", "metadata")
        require(found == METADATA, f"metadata is {found!r}", event)


@checks.add("text.limit", CLIENT, "text_response")
def _(recording: CheckRecording) -> None:
    """`max_output_tokens` ends a response as `incomplete`, `max_output_tokens`."""
    done, _ = recording.response("limited")
    status = at(done, "response", "status")
    reason = at(done, "response", "status_details", "reason")
    right = status == "incomplete" and reason == "max_output_tokens"
    require(right, f"status {status}, reason {reason}", done)


@checks.add("audio.completed", EVENTS, "audio_response")
def _(recording: CheckRecording) -> None:
    """A response in an audio session has audio and its transcript."""
    done, events = recording.response("audio")
    require(at(done, "response", "status") == "completed", "it is not completed", done)
    require(len(audio_of(events)) > 0, "no audio came", done)
    transcript = [e for e in events if e.get("type") == "response.output_audio_transcript.done"]
    require(transcript and transcript[0].get("transcript"), "no transcript came", done)


@checks.add("audio.whole_samples", EVENTS, "audio_response")
def _(recording: CheckRecording) -> None:
    """The audio of an answer is whole samples of 16 bits, and not silent."""
    _, events = recording.response("audio")
    pcm = audio_of(events)
    require(len(pcm) % 2 == 0, f"{len(pcm)} bytes are not whole samples")
    require(pcm.strip(b"\0"), "the audio is silent")


@checks.add("audio.item_has_transcript", EVENTS, "audio_response")
def _(recording: CheckRecording) -> None:
    """The item of a spoken answer has one `output_audio` part with the transcript."""
    done, _ = recording.response("audio")
    part = at(done, "response", "output", 0, "content", 0)
    require(at(part, "type") == "output_audio", f"the part is {part}", done)
    require(isinstance(at(part, "transcript"), str), "the transcript is missing", done)


@checks.add("audio.done_once", EVENTS, "audio_response")
def _(recording: CheckRecording) -> None:
    """`response.output_audio.done` and that of the transcript come once for a part."""
    _, events = recording.response("audio")
    for kind in ("response.output_audio.done", "response.output_audio_transcript.done"):
        came = [e for e in events if e.get("type") == kind]
        require(len(came) == 1, f"{kind} came {len(came)} times", *came)


@checks.add("audio.retrieved", CLIENT, "audio_response")
def _(recording: CheckRecording) -> None:
    """`conversation.item.retrieve` of a spoken answer shows its audio."""
    recording.response("audio")
    event = recording.note("retrieved")
    require_type(event, "conversation.item.retrieved")
    require(at(event, "item", "content", 0, "audio"), "the audio is missing", event)


@checks.add("audio.truncated", CLIENT, "audio_response")
def _(recording: CheckRecording) -> None:
    """`conversation.item.truncate` is answered by `truncated` with the same values."""
    _, events = recording.response("audio")
    if len(audio_of(events)) < MIN_TRUNCATED_MS * BYTES_PER_MS:
        raise NotApplicable("the answer is too short")
    event = recording.note("truncated")
    require_type(event, "conversation.item.truncated")
    found = event.get("content_index"), event.get("audio_end_ms")
    require(found == (0, MIN_TRUNCATED_MS), f"the values are {found}", event)


@checks.add("audio.truncated_too_far", CLIENT, "audio_response")
def _(recording: CheckRecording) -> None:
    """An answer cannot be truncated beyond its audio."""
    recording.response("audio")
    require_type(recording.note("too_far"), "error")


@checks.add("audio.pcmu", SETTINGS, "audio_response")
def _(recording: CheckRecording) -> None:
    """With `audio/pcmu` the audio is 8 bytes a millisecond: about 70 ms for a letter of text."""
    done, events = recording.response("pcmu")
    form = at(done, "response", "audio", "output", "format", "type")
    require(form == "audio/pcmu", f"the format of the response is {form!r}", done)
    _, first = recording.response("audio")
    rates = [len(audio_of(each)) / max(1, _letters(each)) for each in (first, events)]
    require(rates[1] < rates[0] / 2, f"bytes a letter: PCM {rates[0]:.0f}, G.711 {rates[1]:.0f}")


@checks.add("cancel.cancelled", CLIENT, "cancellation")
def _(recording: CheckRecording) -> None:
    """`response.cancel` ends a response as `cancelled`, `client_cancelled`."""
    done, _ = recording.response("cancelled")
    if at(done, "response", "status") == "completed":
        raise NotApplicable("the response was complete before it was cancelled")
    reason = at(done, "response", "status_details", "reason")
    require(at(done, "response", "status") == "cancelled", "it is not cancelled", done)
    require(reason == "client_cancelled", f"the reason is {reason!r}", done)


@checks.add("cancel.items_incomplete", CLIENT, "cancellation")
def _(recording: CheckRecording) -> None:
    """The items of a cancelled response are closed, as `incomplete`."""
    done, _ = recording.response("cancelled")
    _incomplete_items(done)


@checks.add("cancel.twice", CLIENT, "cancellation")
def _(recording: CheckRecording) -> None:
    """Cancelling without an active response is refused."""
    event = recording.note("cancelled_twice")
    require_type(event, "error")
    code = at(event, "error", "code")
    require(code == "response_cancel_not_active", f"the code is {code!r}", event)


@checks.add("cancel.second_response", CLIENT, "cancellation")
def _(recording: CheckRecording) -> None:
    """A second response of the conversation is refused while one is active."""
    error = recording.reply_to(recording.note("second")["event_id"])
    created = recording.all("response.created")
    done = recording.need("response.done")
    if error is None and len(created) > 1 and recording.place(created[1]) > recording.place(done):
        raise NotApplicable("the first response was complete before the second was requested")
    require(error is not None, "it was not refused", *created)
    code = at(error, "error", "code")
    require(code == "conversation_already_has_active_response", f"the code is {code!r}", *created)


for _name, _what in (
    ("own_input", "with `input` of its own"),
    ("reference", "with an `item_reference`"),
    ("no_input", "with `input: []`"),
):

    def _beside_judge(recording: CheckRecording, name: str = _name) -> None:
        done, events = recording.response(name)
        require(at(done, "response", "status") == "completed", "it is not completed", done)
        for event in (events[0], done):
            found = at(event, "response", "conversation_id")
            require(found is None, f"conversation_id is {found!r}", event)

    _beside_judge.__doc__ = f"A response out of band {_what} has the `conversation_id` null."
    checks.add(f"out_of_band.{_name}", CLIENT, "out_of_band")(_beside_judge)


@checks.add("out_of_band.no_items", CLIENT, "out_of_band")
def _(recording: CheckRecording) -> None:
    """A response out of band adds nothing to the conversation."""
    for name in ("own_input", "reference", "no_input"):
        done, _ = recording.response(name)
        ids = [at(item, "id") for item in at(done, "response", "output") or ()]
        added = [e for e in recording.all("conversation.item.added") if at(e, "item", "id") in ids]
        require(not added, "its item was added", *added)


@checks.add("out_of_band.not_retrievable", CLIENT, "out_of_band")
def _(recording: CheckRecording) -> None:
    """The items of a response out of band cannot be retrieved."""
    require_type(recording.note("retrieved"), "error")


@checks.add("out_of_band.metadata", CLIENT, "out_of_band")
def _(recording: CheckRecording) -> None:
    """`metadata` tells responses out of band from each other."""
    done, events = recording.response("own_input")
    for event in (events[0], done):
        require(at(event, "response", "metadata") == METADATA, "metadata is missing", event)


@checks.add("out_of_band.default_conversation", EVENTS, "out_of_band")
def _(recording: CheckRecording) -> None:
    """A response of the conversation has a `conversation_id`."""
    done, _ = recording.response("default")
    found = at(done, "response", "conversation_id")
    require(isinstance(found, str) and found, f"conversation_id is {found!r}", done)


@checks.add("tools.called", EVENTS, "tools")
def _(recording: CheckRecording) -> None:
    """A `tool_choice` that names a function makes the response call it."""
    done, _ = recording.response("call")
    calls = _calls(done)
    require(calls, "no function was called", done)
    require(at(calls[0], "name") == "get_weather", "it is another function", done)


@checks.add("tools.announced", EVENTS, "tools")
def _(recording: CheckRecording) -> None:
    """`response.output_item.added` of a call has its name, its `call_id` and no arguments."""
    _, events = recording.response("call")
    added = [
        e
        for e in events
        if e.get("type") == "response.output_item.added"
        and at(e, "item", "type") == "function_call"
    ]
    if not added:
        raise NotApplicable("no function was called")
    for key in ("name", "call_id"):
        require(at(added[0], "item", key), f"item.{key} is missing", added[0])
    require(at(added[0], "item", "arguments") == "", "item.arguments is not ''", added[0])


@checks.add("tools.arguments", EVENTS, "tools")
def _(recording: CheckRecording) -> None:
    """`response.function_call_arguments.done` has the name and the arguments of the item."""
    done, events = recording.response("call")
    for call in _calls(done):
        ends = [
            e
            for e in events
            if e.get("type") == "response.function_call_arguments.done"
            and e.get("item_id") == at(call, "id")
        ]
        require(len(ends) == 1, f"it came {len(ends)} times", *ends)
        for key in ("name", "arguments", "call_id"):
            require(ends[0].get(key) == call.get(key), f"{key} differs", ends[0], done)


@checks.add("tools.item_completed", EVENTS, "tools")
def _(recording: CheckRecording) -> None:
    """The item of a call is `completed` when it is done."""
    done, _ = recording.response("call")
    for call in _calls(done):
        require(at(call, "status") == "completed", f"it is {at(call, 'status')}", done)


@checks.add("tools.waits_for_the_client", EVENTS, "tools")
def _(recording: CheckRecording) -> None:
    """After a call, and after its output, the server creates no response of its own."""
    recording.response("call")
    stop = recording.notes.get("after_output", recording.note("after_call"))
    created = [e for e in recording.received[:stop] if e.get("type") == "response.created"]
    require(len(created) == 1, "it created one more", *created)


@checks.add("tools.output_accepted", CLIENT, "tools")
def _(recording: CheckRecording) -> None:
    """The output of a function becomes an item."""
    require_type(recording.note("output"), "conversation.item.done")


@checks.add("tools.answer_after_output", CLIENT, "tools")
def _(recording: CheckRecording) -> None:
    """`response.create` after the output gives an answer."""
    done, _ = recording.response("answer")
    require(at(done, "response", "output"), "the output is empty", done)


@checks.add("tools.choice_none", SETTINGS, "tools")
def _(recording: CheckRecording) -> None:
    """With `tool_choice` `none` no function is called."""
    done, _ = recording.response("no_tools")
    require(not _calls(done), "a function was called", done)


@checks.add("tools.choice_required", SETTINGS, "tools")
def _(recording: CheckRecording) -> None:
    """With `tool_choice` `required` a function is called."""
    done, _ = recording.response("required")
    require(_calls(done), "no function was called", done)


def _calls(done: EventFields) -> list[EventFields]:
    output = at(done, "response", "output") or []
    return [item for item in output if at(item, "type") == "function_call"]


def _letters(events: list[EventFields]) -> int:
    return sum(
        len(str(e.get("transcript")))
        for e in events
        if e.get("type") == "response.output_audio_transcript.done"
    )


def _incomplete_items(done: EventFields) -> None:
    output = at(done, "response", "output") or []
    if at(done, "response", "status") != "cancelled" or not output:
        raise NotApplicable("no response was cancelled in the middle of an item")
    for item in output:
        require(at(item, "status") == "incomplete", f"an item is {at(item, 'status')}", done)
