"""Checks of connections, settings, errors and items of the GA protocol."""

import time
from typing import Final

from vivavoce.check.recording import (
    CheckList,
    CheckRecording,
    at,
    require,
    require_type,
)

START: Final = "protocol.md: The Realtime protocol, as Vivavoce speaks it"
CLIENT: Final = "protocol.md: What a client may send"
EVENTS: Final = "protocol.md: What the server sends"
SETTINGS: Final = "protocol.md: Session settings"
ERRORS: Final = "protocol.md: Errors"
FRAMES: Final = "protocol.md: Limits of a frame"
checks = CheckList()


@checks.add("connect.greets_unasked", START, "connect")
def _(recording: CheckRecording) -> None:
    """`session.created` comes without any event of the client."""
    recording.expect("session.created", "no session.created came")


@checks.add("connect.subprotocol", FRAMES, "connect")
def _(recording: CheckRecording) -> None:
    """Of the subprotocols of a browser `realtime` is selected, and unknown ones are ignored."""
    selected = recording.note("subprotocol")
    require(selected == "realtime", f"the selected subprotocol is {selected!r}")


@checks.add("connect.session_type", SETTINGS, "connect")
def _(recording: CheckRecording) -> None:
    """The session of `?model=` has the type `realtime` and the object `realtime.session`."""
    event = recording.need("session.created")
    require(at(event, "session", "type") == "realtime", "the type is not realtime", event)
    require(at(event, "session", "object") == "realtime.session", "the object is wrong", event)


@checks.add("connect.expires_at", SETTINGS, "connect")
def _(recording: CheckRecording) -> None:
    """`expires_at` is a time in the future, in seconds."""
    event = recording.need("session.created")
    expires_at = at(event, "session", "expires_at")
    right = isinstance(expires_at, int) and expires_at > time.time()
    require(right, f"expires_at is {expires_at!r}", event)


@checks.add("connect.default_modality", SETTINGS, "connect")
def _(recording: CheckRecording) -> None:
    """`output_modalities` is `["audio"]` by default."""
    event = recording.need("session.created")
    found = at(event, "session", "output_modalities")
    require(found == ["audio"], f"output_modalities is {found!r}", event)


@checks.add("connect.default_turn_detection", SETTINGS, "connect")
def _(recording: CheckRecording) -> None:
    """Turn detection is `server_vad` by default, which creates and interrupts responses."""
    event = recording.need("session.created")
    found = at(event, "session", "audio", "input", "turn_detection")
    for key, value in (
        ("type", "server_vad"),
        ("create_response", True),
        ("interrupt_response", True),
    ):
        require(at(found, key) == value, f"turn_detection.{key} is {at(found, key)!r}", event)


@checks.add("connect.default_formats", SETTINGS, "connect")
def _(recording: CheckRecording) -> None:
    """Both formats are PCM at 24 kHz by default."""
    event = recording.need("session.created")
    for side in ("input", "output"):
        found = at(event, "session", "audio", side, "format")
        right = at(found, "type") == "audio/pcm" and at(found, "rate") in (24000, None)
        require(right, f"audio.{side}.format is {found!r}", event)


@checks.add("settings.keeps_the_rest", SETTINGS, "settings")
def _(recording: CheckRecording) -> None:
    """An update changes only what it mentions."""
    before, after = recording.note("before"), recording.note("after")
    require_type(before, "session.updated")
    require_type(after, "session.updated")
    for key in ("output_modalities", "audio", "tools", "tool_choice", "tracing"):
        same = at(before, "session", key) == at(after, "session", key)
        require(same, f"session.{key} has changed", before, after)


@checks.add("settings.bad_field_refuses_all", SETTINGS, "settings")
def _(recording: CheckRecording) -> None:
    """One bad field refuses the whole update."""
    refused, after = recording.note("refused"), recording.note("after")
    require_type(refused, "error")
    found = at(after, "session", "instructions")
    require(found == "First.", f"instructions is {found!r}, not 'First.'", refused, after)


@checks.add("settings.model_echoed", SETTINGS, "settings")
def _(recording: CheckRecording) -> None:
    """An update may contain the `model` that was requested."""
    require_type(recording.note("other_model"), "session.updated")


@checks.add("settings.one_answer", CLIENT, "settings")
def _(recording: CheckRecording) -> None:
    """`session.update` is answered by exactly one `session.updated` or `error`."""
    sent = sum(e.sent and e.event.get("type") == "session.update" for e in recording.entries)
    answers = [e for e in recording.received if e.get("type") in ("session.updated", "error")]
    recording.note("other_model")
    require(len(answers) == sent, f"{sent} updates have {len(answers)} answers", *answers[-2:])


@checks.add("errors.not_json", ERRORS, "errors")
def _(recording: CheckRecording) -> None:
    """A frame that is not JSON is answered by an error, and the session goes on."""
    _unnamed_error(recording, 3)


@checks.add("errors.not_an_object", ERRORS, "errors")
def _(recording: CheckRecording) -> None:
    """A frame that is not an object is answered by an error."""
    _unnamed_error(recording, 2)


@checks.add("errors.without_type", ERRORS, "errors")
def _(recording: CheckRecording) -> None:
    """An object without `type` is answered by an error."""
    recording.note("alive")
    found = [e for e in recording.all("error") if at(e, "error", "event_id") == "no_type"]
    nameless = [e for e in recording.all("error") if at(e, "error", "event_id") is None]
    require(found or len(nameless) >= 3, "no error came", *recording.tail())


@checks.add("errors.session_survives", ERRORS, "errors")
def _(recording: CheckRecording) -> None:
    """After all these errors the session still works."""
    recording.note("sent_all")
    require("alive" in recording.notes, "session.update was not answered", *recording.tail())
    require_type(recording.notes["alive"], "session.updated")


@checks.add("errors.one_each", ERRORS, "errors")
def _(recording: CheckRecording) -> None:
    """An event is refused with one error, not several."""
    seen: set[object] = set()
    recording.need("error")
    for event in recording.all("error"):
        key = at(event, "error", "event_id")
        require(key is None or key not in seen, f"two errors for {key}", event)
        seen.add(key)


@checks.add("errors.nothing_else", ERRORS, "errors")
def _(recording: CheckRecording) -> None:
    """A refused event has no other effect: no item, response or buffer event comes."""
    alive = recording.note("alive")
    first = recording.note("manual")
    allowed = ("error", "rate_limits.updated")
    others = [e for e in recording.between(first, alive) if e.get("type") not in allowed]
    require(not others, f"{at(others, 0, 'type')} came", *others)


@checks.add("errors.type", ERRORS, "errors")
def _(recording: CheckRecording) -> None:
    """The errors of a client's mistakes have the type `invalid_request_error`."""
    recording.need("error")
    for event in recording.all("error"):
        kind = at(event, "error", "type")
        require(kind == "invalid_request_error", f"the type is {kind!r}", event)


for _name, _previous, _what in (
    ("first", None, "The first item has the predecessor null"),
    ("last", "check_first", "An item without `previous_item_id` is added at the end"),
    ("root", None, "`previous_item_id` `root` is the beginning"),
    ("middle", "check_first", "`previous_item_id` places an item after that one"),
):

    def _place_judge(
        recording: CheckRecording, name: str = _name, previous: str | None = _previous
    ) -> None:
        event = recording.note(name)
        require_type(event, "conversation.item.done")
        key, found = at(event, "item", "id"), event.get("previous_item_id")
        require(key == f"check_{name}", f"the id is {key!r}, not the client's", event)
        require(found == previous, f"previous_item_id is {found!r}, not {previous!r}", event)

    _place_judge.__doc__ = f"{_what}, and keeps the id that the client gave."
    checks.add(f"items.{_name}", CLIENT, "items")(_place_judge)


for _name, _kind in (
    ("system", "message"),
    ("assistant", "message"),
    ("call", "function_call"),
    ("output", "function_call_output"),
):

    def _item_judge(recording: CheckRecording, name: str = _name, kind: str = _kind) -> None:
        event = recording.note(name)
        require_type(event, "conversation.item.done")
        require(at(event, "item", "type") == kind, f"the item is no {kind}", event)
        key = at(event, "item", "id")
        require(isinstance(key, str) and key, "the item has no id", event)

    _item_judge.__doc__ = f"An item ({_kind}, {_name}) is created, and given an id."
    checks.add(f"items.{_name}", CLIENT, "items")(_item_judge)


@checks.add("items.added_then_done", CLIENT, "items")
def _(recording: CheckRecording) -> None:
    """`conversation.item.create` is answered by `added` and `done`, each once."""
    sent = [
        e.event
        for e in recording.entries
        if e.sent and e.event.get("type") == "conversation.item.create"
    ]
    recording.note("output")
    for kind in ("conversation.item.added", "conversation.item.done"):
        came = recording.all(kind)
        require(len(came) == len(sent), f"{len(sent)} creates, {len(came)} {kind}", *came[-2:])


@checks.add("items.retrieved", CLIENT, "items")
def _(recording: CheckRecording) -> None:
    """`conversation.item.retrieve` is answered with the item."""
    event = recording.note("retrieved")
    require_type(event, "conversation.item.retrieved")
    require(at(event, "item", "content", 0, "text") == "Middle.", "the text is missing", event)


@checks.add("items.truncate_text_refused", CLIENT, "items")
def _(recording: CheckRecording) -> None:
    """A message of the user cannot be truncated."""
    require_type(recording.note("truncated_text"), "error")


@checks.add("items.deleted", CLIENT, "items")
def _(recording: CheckRecording) -> None:
    """`conversation.item.delete` is answered by `conversation.item.deleted`."""
    require_type(recording.note("deleted"), "conversation.item.deleted")


@checks.add("items.deleted_twice", CLIENT, "items")
def _(recording: CheckRecording) -> None:
    """An item cannot be deleted twice."""
    event = recording.note("deleted_twice")
    require_type(event, "error")
    code = at(event, "error", "code")
    require(code == "item_delete_invalid_item_id", f"the code is {code!r}", event)


@checks.add("items.deleted_is_gone", CLIENT, "items")
def _(recording: CheckRecording) -> None:
    """A deleted item cannot be retrieved."""
    require_type(recording.note("retrieved_deleted"), "error")


@checks.add("items.clear_empty_buffer", CLIENT, "items")
def _(recording: CheckRecording) -> None:
    """`input_audio_buffer.clear` is answered by `cleared`, also of an empty buffer."""
    require_type(recording.note("cleared"), "input_audio_buffer.cleared")


@checks.add("items.no_response", CLIENT, "items")
def _(recording: CheckRecording) -> None:
    """Items alone create no response."""
    recording.note("cleared")
    events = recording.all("response.created")
    require(not events, "a response was created", *events)


def _unnamed_error(recording: CheckRecording, count: int) -> None:
    recording.note("alive")
    found = [e for e in recording.all("error") if at(e, "error", "event_id") in (None, "no_type")]
    require(len(found) >= count, f"only {len(found)} of 3 such frames got an error", *found)
