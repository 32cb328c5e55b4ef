"""Checks of every stream of events, whatever was requested: the order of events."""

from collections.abc import Iterator
from typing import Final

from vivavoce.check.recording import (
    CheckFailed,
    CheckList,
    CheckRecording,
    EventFields,
    NotApplicable,
    at,
    require,
    responses,
)

EVENTS: Final = "protocol.md: What the server sends"
WHOLES: Final = {
    "response.output_text": "text",
    "response.output_audio_transcript": "transcript",
    "response.function_call_arguments": "arguments",
}
STREAMS: Final = {*WHOLES, "response.output_audio"}
STATUSES: Final = ("completed", "cancelled", "incomplete", "failed")
CALLS: Final = ("ga", "webrtc")
checks = CheckList()


@checks.add("stream.created_first", EVENTS, dialects=CALLS)
def _(recording: CheckRecording) -> None:
    """The first event is `session.created`, and it comes once."""
    events = _events(recording)
    first = events[0]
    require(first.get("type") == "session.created", f"the first is {first.get('type')}", first)
    again = recording.all("session.created")[1:]
    require(not again, "session.created came twice", first, *again)


@checks.add("stream.event_id_present", EVENTS, dialects=("ga", "beta", "webrtc"))
def _(recording: CheckRecording) -> None:
    """Every event has an `event_id`, a text that is not empty."""
    for event in _events(recording):
        key = event.get("event_id")
        named = isinstance(key, str) and bool(key)
        require(
            named or event.get("type") == "input_audio_buffer.dtmf_event_received",
            f"event_id is {key!r}",
            event,
        )


@checks.add("stream.event_id_unique", EVENTS, dialects=("ga", "beta", "webrtc"))
def _(recording: CheckRecording) -> None:
    """No two events have the same `event_id`."""
    seen: dict[str, EventFields] = {}
    for event in _events(recording):
        key = event.get("event_id")
        if isinstance(key, str):
            require(key not in seen, f"{key} came twice", seen.get(key, event), event)
            seen[key] = event


@checks.add("stream.text_frames", "protocol.md: The Realtime protocol, as Vivavoce speaks it")
def _(recording: CheckRecording) -> None:
    """Frames are text, each one JSON object with a `type`."""
    for event in _events(recording):
        kind = event.get("type")
        require(isinstance(kind, str) and not kind.startswith("("), "a frame is no event", event)
    binary = recording.notes.get("binary_frames", 0)
    require(not binary, f"{binary} frames are binary")


@checks.add("stream.item_added_once", EVENTS, dialects=CALLS)
def _(recording: CheckRecording) -> None:
    """`conversation.item.added` comes once for an item."""
    _once(recording, "conversation.item.added")


@checks.add("stream.item_done_once", EVENTS, dialects=CALLS)
def _(recording: CheckRecording) -> None:
    """`conversation.item.done` comes once for an item."""
    _once(recording, "conversation.item.done")


@checks.add("stream.item_done_after_added", EVENTS, dialects=CALLS)
def _(recording: CheckRecording) -> None:
    """`conversation.item.done` follows the `conversation.item.added` of its item."""
    added: set[object] = set()
    recording.need("conversation.item.done")
    for event in recording.received:
        key = at(event, "item", "id")
        if event.get("type") == "conversation.item.added":
            added.add(key)
        elif event.get("type") == "conversation.item.done":
            require(key in added, f"{key} was not added", event)


@checks.add("stream.item_added_is_done", EVENTS, dialects=CALLS)
def _(recording: CheckRecording) -> None:
    """Every `conversation.item.added` is followed by `conversation.item.done`, unless deleted."""
    recording.need("conversation.item.added")
    ended = {at(e, "item", "id") for e in recording.all("conversation.item.done")}
    ended |= {e.get("item_id") for e in recording.all("conversation.item.deleted")}
    for event in recording.all("conversation.item.added"):
        require(at(event, "item", "id") in ended, "no conversation.item.done came", event)


@checks.add("stream.item_done_status", EVENTS, dialects=CALLS)
def _(recording: CheckRecording) -> None:
    """An item in `conversation.item.done` is not `in_progress`."""
    recording.need("conversation.item.done")
    for event in recording.all("conversation.item.done"):
        require(at(event, "item", "status") != "in_progress", "the item is in_progress", event)


@checks.add("stream.previous_item_known", EVENTS, dialects=CALLS)
def _(recording: CheckRecording) -> None:
    """`previous_item_id` is null or names an item of the conversation."""
    recording.need("conversation.item.added")
    for event, order in _orders(recording):
        previous = event.get("previous_item_id")
        require(previous is None or previous in order, f"there is no item {previous}", event)


@checks.add("stream.previous_item_order", EVENTS, dialects=CALLS)
def _(recording: CheckRecording) -> None:
    """`conversation.item.done` names the real predecessor of its item."""
    recording.need("conversation.item.done")
    for event, order in _orders(recording, "conversation.item.done"):
        key, named = at(event, "item", "id"), event.get("previous_item_id")
        if key in order and (named is None or named in order):
            place = order.index(key)
            previous = order[place - 1] if place else None
            require(named == previous, f"it stands behind {previous}, not {named}", event)


@checks.add("stream.no_audio_in_items", EVENTS, dialects=CALLS)
def _(recording: CheckRecording) -> None:
    """Items in events carry no audio; `conversation.item.retrieved` alone does."""
    recording.need("conversation.item.added")
    for event in recording.received:
        if event.get("type") != "conversation.item.retrieved":
            for part in at(event, "item", "content") or ():
                require(not at(part, "audio"), "the item carries audio", event)


@checks.add("stream.response_created_first", EVENTS, dialects=CALLS)
def _(recording: CheckRecording) -> None:
    """The first event of a response is `response.created`, `in_progress` and without output."""
    for _, events in _responses(recording):
        first = events[0]
        require(first.get("type") == "response.created", "it was not created", first)
        require(at(first, "response", "status") == "in_progress", "it is not in_progress", first)
        require(at(first, "response", "output") == [], "output is not []", first)


@checks.add("stream.response_ends", EVENTS, dialects=CALLS)
def _(recording: CheckRecording) -> None:
    """Every response ends with exactly one `response.done`."""
    for key, events in _responses(recording):
        ends = [e for e in events if e.get("type") == "response.done"]
        require(len(ends) == 1, f"{key} ended {len(ends)} times", *events[:1], *ends, *events[-1:])


@checks.add("stream.response_done_last", EVENTS, dialects=CALLS)
def _(recording: CheckRecording) -> None:
    """Nothing of a response comes after its `response.done`."""
    for _, events in _responses(recording):
        done = next((i for i, e in enumerate(events) if e.get("type") == "response.done"), None)
        if done is not None:
            require(
                done == len(events) - 1,
                "it goes on after response.done",
                events[done],
                *events[done + 1 :],
            )


@checks.add("stream.response_status", EVENTS, dialects=CALLS)
def _(recording: CheckRecording) -> None:
    """`response.done` is completed, cancelled, incomplete or failed."""
    for event in _ends(recording):
        status = at(event, "response", "status")
        require(status in STATUSES, f"the status is {status!r}", event)


@checks.add("stream.response_status_details", EVENTS, dialects=CALLS)
def _(recording: CheckRecording) -> None:
    """`status_details` is null of a completed response, and else has its status as `type`."""
    for event in _ends(recording):
        details = at(event, "response", "status_details")
        status = at(event, "response", "status")
        right = details is None or at(details, "type") == status
        require(
            right and (details is not None or status == "completed"),
            f"status {status}, status_details {details}",
            event,
        )


@checks.add("stream.response_usage", EVENTS, dialects=CALLS)
def _(recording: CheckRecording) -> None:
    """`response.done` has `usage`: whole numbers, and the total is their sum."""
    for event in _ends(recording):
        usage = at(event, "response", "usage")
        counts = [at(usage, f"{name}_tokens") for name in ("total", "input", "output")]
        require(all(type(count) is int for count in counts), f"usage is {usage}", event)
        total, input_tokens, output_tokens = counts
        require(total == input_tokens + output_tokens, f"the sum is wrong: {usage}", event)


@checks.add("stream.response_output", EVENTS, dialects=CALLS)
def _(recording: CheckRecording) -> None:
    """The output of `response.done` is the items of `response.output_item.done`, in order."""
    for _, events in _responses(recording):
        end = events[-1]
        if end.get("type") == "response.done":
            items = [
                at(e, "item", "id") for e in events if e.get("type") == "response.output_item.done"
            ]
            output = [at(item, "id") for item in at(end, "response", "output") or ()]
            require(output == items, f"output is {output}, the items are {items}", end)


@checks.add("stream.one_response_at_a_time", EVENTS, dialects=CALLS)
def _(recording: CheckRecording) -> None:
    """At most one response of the conversation is active."""
    active: set[object] = set()
    recording.need("response.created")
    for event in recording.received:
        key = at(event, "response", "id")
        if event.get("type") == "response.created":
            if at(event, "response", "conversation_id") is not None:
                require(not active, f"{active} is active", event)
                active.add(key)
        elif event.get("type") == "response.done":
            active.discard(key)


@checks.add("stream.output_index", EVENTS, dialects=CALLS)
def _(recording: CheckRecording) -> None:
    """`response.output_item.added` counts `output_index` up from 0."""
    for _, events in _responses(recording):
        added = [e for e in events if e.get("type") == "response.output_item.added"]
        for index, event in enumerate(added):
            found = event.get("output_index")
            require(found == index, f"output_index is {found!r}, not {index}", event)


@checks.add("stream.output_item_done", EVENTS, dialects=CALLS)
def _(recording: CheckRecording) -> None:
    """Every `response.output_item.added` is followed by one `.done`, not `in_progress`."""
    for _, events in _responses(recording):
        for key in _ids(events, "response.output_item.added"):
            ends = [
                e
                for e in events
                if e.get("type") == "response.output_item.done" and at(e, "item", "id") == key
            ]
            require(len(ends) == 1, f"item {key} was done {len(ends)} times", *ends, events[-1])
            require(at(ends[0], "item", "status") != "in_progress", "it is in_progress", ends[0])


@checks.add("stream.output_item_known", EVENTS, dialects=CALLS)
def _(recording: CheckRecording) -> None:
    """Parts and deltas name an item that `response.output_item.added` has announced."""
    for _, events in _responses(recording):
        open_items: set[object] = set()
        for event in events:
            kind = event.get("type")
            if kind == "response.output_item.added":
                open_items.add(at(event, "item", "id"))
            elif kind == "response.output_item.done":
                open_items.discard(at(event, "item", "id"))
            elif "item_id" in event:
                require(event["item_id"] in open_items, "its item is not open", event)


@checks.add("stream.output_item_in_conversation", EVENTS, dialects=CALLS)
def _(recording: CheckRecording) -> None:
    """An item of a response of the conversation is added to it before its first part."""
    added: set[object] = set()
    beside: set[object] = set()
    recording.need("response.output_item.added")
    for event in recording.received:
        kind = event.get("type")
        if kind == "conversation.item.added":
            added.add(at(event, "item", "id"))
        elif kind == "response.created" and at(event, "response", "conversation_id") is None:
            beside.add(at(event, "response", "id"))
        elif kind == "response.content_part.added" and event.get("response_id") not in beside:
            require(event.get("item_id") in added, "the item is not in the conversation", event)


@checks.add("stream.content_part_closed", EVENTS, dialects=CALLS)
def _(recording: CheckRecording) -> None:
    """Every `response.content_part.added` is followed by one `.done` of the same type."""
    for _, events in _responses(recording):
        for event in events:
            if event.get("type") == "response.content_part.added":
                ends = [
                    e
                    for e in events
                    if e.get("type") == "response.content_part.done" and _place(e) == _place(event)
                ]
                require(len(ends) == 1, f"it was done {len(ends)} times", event, *ends)
                kinds = at(event, "part", "type"), at(ends[0], "part", "type")
                require(kinds[0] == kinds[1], f"{kinds[0]} became {kinds[1]}", event, ends[0])


@checks.add("stream.content_part_before_deltas", EVENTS, dialects=CALLS)
def _(recording: CheckRecording) -> None:
    """Text, audio and transcript come between the `added` and the `done` of their part."""
    for _, events in _responses(recording):
        open_parts: set[object] = set()
        for event in events:
            kind = str(event.get("type"))
            if kind == "response.content_part.added":
                open_parts.add(_place(event))
            elif kind == "response.content_part.done":
                open_parts.discard(_place(event))
            elif kind.startswith(("response.output_text.", "response.output_audio")):
                require(_place(event) in open_parts, "no such part is open", event)


@checks.add("stream.deltas_closed_once", EVENTS, dialects=CALLS)
def _(recording: CheckRecording) -> None:
    """Each stream of deltas of a part is closed by one `.done`, after its last delta."""
    for _, events in _responses(recording):
        for stream in STREAMS:
            closed: set[object] = set()
            for event in events:
                if event.get("type") in (f"{stream}.delta", f"{stream}.done"):
                    require(_place(event) not in closed, f"{stream} is closed already", event)
                    if event.get("type") == f"{stream}.done":
                        closed.add(_place(event))
            if at(events[-1], "response", "status") == "completed":
                for event in events:
                    if event.get("type") == f"{stream}.delta":
                        require(_place(event) in closed, f"no {stream}.done came", event)


@checks.add("stream.deltas_are_the_whole", EVENTS, dialects=CALLS)
def _(recording: CheckRecording) -> None:
    """The deltas of text, transcript and arguments add up to what their `.done` has."""
    for _, events in _responses(recording):
        for stream, key in WHOLES.items():
            for end in events:
                if end.get("type") == f"{stream}.done":
                    deltas = "".join(
                        str(e.get("delta"))
                        for e in events
                        if e.get("type") == f"{stream}.delta" and _place(e) == _place(end)
                    )
                    require(end.get(key) == deltas, f"the deltas are {deltas!r}", end)


@checks.add("stream.no_empty_deltas", EVENTS, dialects=CALLS)
def _(recording: CheckRecording) -> None:
    """A delta is a text that is not empty."""
    for _, events in _responses(recording):
        for event in events:
            if str(event.get("type")).endswith(".delta"):
                delta = event.get("delta")
                require(isinstance(delta, str) and delta, f"the delta is {delta!r}", event)


@checks.add("stream.part_is_the_whole", EVENTS, dialects=CALLS)
def _(recording: CheckRecording) -> None:
    """`response.content_part.done` has the text or transcript that was streamed."""
    for _, events in _responses(recording):
        for end in events:
            if end.get("type") == "response.content_part.done":
                text = at(end, "part", "type") == "text"
                stream = "response.output_text" if text else "response.output_audio_transcript"
                key = WHOLES[stream]
                for event in events:
                    if event.get("type") == f"{stream}.done" and _place(event) == _place(end):
                        require(at(end, "part", key) == event.get(key), "they differ", event, end)


@checks.add("stream.arguments_of_the_call", EVENTS, dialects=CALLS)
def _(recording: CheckRecording) -> None:
    """Arguments name the `call_id` of the function call that their item is."""
    found = False
    for _, events in _responses(recording):
        calls = {
            at(e, "item", "id"): at(e, "item", "call_id")
            for e in events
            if e.get("type") == "response.output_item.added"
        }
        for event in events:
            if str(event.get("type")).startswith("response.function_call_arguments."):
                found = True
                call_id = calls.get(event.get("item_id"))
                require(event.get("call_id") == call_id, f"the call is {call_id}", event)
    if not found:
        raise NotApplicable("no function call came")


def _events(recording: CheckRecording) -> list[EventFields]:
    events = recording.received
    if not events:
        raise NotApplicable("no event came")
    return events


def _responses(recording: CheckRecording) -> list[tuple[str, list[EventFields]]]:
    found = list(responses(recording))
    if not found:
        raise NotApplicable("no response was created")
    return found


def _ends(recording: CheckRecording) -> list[EventFields]:
    recording.need("response.done")
    return recording.all("response.done")


def _ids(events: list[EventFields], kind: str) -> list[object]:
    return [at(e, "item", "id") for e in events if e.get("type") == kind]


def _place(event: EventFields) -> tuple[object, object, object]:
    return event.get("item_id"), event.get("output_index"), event.get("content_index")


def _once(recording: CheckRecording, kind: str) -> None:
    recording.need(kind)
    seen: dict[object, EventFields] = {}
    for event in recording.received:
        if event.get("type") == "conversation.item.deleted":
            seen.pop(event.get("item_id"), None)  # its id may be used again
        if event.get("type") == kind:
            key = at(event, "item", "id")
            if key in seen:
                raise CheckFailed(f"it came twice for {key}", seen[key], event)
            seen[key] = event


def _orders(
    recording: CheckRecording, kind: str = "conversation.item.added"
) -> Iterator[tuple[EventFields, list[object]]]:
    """Each event of a type, with the order of the items at that time."""
    order: list[object] = []
    for event in recording.received:
        if event.get("type") == "conversation.item.added":
            if kind == "conversation.item.added":
                yield event, order
            previous = event.get("previous_item_id")
            place = order.index(previous) + 1 if previous in order else 0
            order.insert(place, at(event, "item", "id"))
        elif event.get("type") == "conversation.item.deleted" and event.get("item_id") in order:
            order.remove(event.get("item_id"))
        elif event.get("type") == kind:
            yield event, order
