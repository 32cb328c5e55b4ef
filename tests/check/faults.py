"""Deliberate faults, each a change of a right server's events."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from tests.check.fake import Fields, Mutate


@dataclass(frozen=True)
class DeliberateFault:
    """A fault, the scenario in which it occurs, and a check that has to find it."""

    name: str
    scenario: str
    found_by: str
    make: Callable[[], Mutate]


def on(kind: str, change: Callable[[Fields], list[Fields]]) -> Callable[[], Mutate]:
    """Change the events of one type."""
    return lambda: lambda event: change(event) if event["type"] == kind else [event]


def put(kind: str, value: Any, *path: str | int) -> Callable[[], Mutate]:
    """Put a value at a path of the events of one type."""

    def change(event: Fields) -> list[Fields]:
        holder: Any = event
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = value
        return [event]

    return on(kind, change)


def without(kind: str, *path: str) -> Callable[[], Mutate]:
    """Leave a field out."""

    def change(event: Fields) -> list[Fields]:
        holder = event
        for key in path[:-1]:
            holder = holder[key]
        holder.pop(path[-1], None)
        return [event]

    return on(kind, change)


def dropped(kind: str) -> Callable[[], Mutate]:
    return on(kind, lambda _: [])


def renamed(kind: str, name: str) -> Callable[[], Mutate]:
    return on(kind, lambda event: [{**event, "type": name}])


def doubled(kind: str) -> Callable[[], Mutate]:
    return on(kind, lambda event: [event, {**event, "event_id": event["event_id"] + "_again"}])


def after(kind: str, make: Callable[[Fields], Fields]) -> Callable[[], Mutate]:
    """Send one more event after those of one type."""
    return on(kind, lambda event: [event, {"event_id": event["event_id"] + "_more", **make(event)}])


def same_event_id() -> Mutate:
    return lambda event: [{**event, "event_id": "event_1"}]


def done_before_added() -> Mutate:
    held: list[Fields] = []

    def mutate(event: Fields) -> list[Fields]:
        if event["type"] == "conversation.item.added":
            held.append(event)
            return []
        if event["type"] == "conversation.item.done" and held:
            return [event, held.pop()]
        return [event]

    return mutate


def drop_first_delta(kind: str) -> Callable[[], Mutate]:
    def make() -> Mutate:
        dropped_ids: set[str] = set()

        def mutate(event: Fields) -> list[Fields]:
            if event["type"] == kind and event["item_id"] not in dropped_ids:
                dropped_ids.add(event["item_id"])
                return []
            return [event]

        return mutate

    return make


def late_audio() -> Mutate:
    last: list[Fields] = []

    def mutate(event: Fields) -> list[Fields]:
        if event["type"] == "response.output_audio.delta":
            last[:] = [event]
        if event["type"] == "input_audio_buffer.speech_started" and last:
            return [event, {**last[0], "event_id": event["event_id"] + "_late"}]
        return [event]

    return mutate


def other_ids() -> Mutate:
    def mutate(event: Fields) -> list[Fields]:
        if event["type"].startswith("conversation.item.") and "item" in event:
            event = deepcopy(event)
            event["item"]["id"] = "item_of_the_server_" + event["item"]["id"][-6:]
        return [event]

    return mutate


def continues_after_call() -> Mutate:
    def mutate(event: Fields) -> list[Fields]:
        output = event.get("item", {}).get("type") == "function_call_output"
        if event["type"] == "conversation.item.done" and output:
            response = {"id": "resp_unasked", "status": "in_progress", "output": []}
            return [event, {"type": "response.created", "event_id": "e_x", "response": response}]
        return [event]

    return mutate


def only_changed_settings(event: Fields) -> list[Fields]:
    return [{**event, "session": {"id": event["session"]["id"], "type": "realtime"}}]


def wrong_type(event: Fields) -> list[Fields]:
    event["part"]["type"] = f"output_{event['part']['type']}"
    return [event]


def null_name(event: Fields) -> list[Fields]:
    event["item"]["name"] = None
    return [event]


def audio_in_item(event: Fields) -> list[Fields]:
    for part in event["item"].get("content", ()):
        part["audio"] = "AAAA"
    return [event]


CREATED, DONE = "response.created", "response.done"
ADDED = "conversation.item.added"
COMPLETED = "conversation.item.input_audio_transcription.completed"
STARTED, STOPPED = "input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped"
ARGUMENTS = "response.function_call_arguments.done"
FAULTS = [
    DeliberateFault(*row)
    for row in (
        ("same event_id for all", "items", "stream.event_id_unique", same_event_id),
        ("no event_id", "items", "stream.event_id_present", without(ADDED, "event_id")),
        ("no greeting", "connect", "connect.greets_unasked", dropped("session.created")),
        ("two greetings", "connect", "stream.created_first", doubled("session.created")),
        (
            "item never done",
            "items",
            "stream.item_added_is_done",
            dropped("conversation.item.done"),
        ),
        ("done before added", "items", "stream.item_done_after_added", done_before_added),
        (
            "no predecessor",
            "items",
            "stream.previous_item_order",
            put("conversation.item.done", None, "previous_item_id"),
        ),
        (
            "unknown predecessor",
            "items",
            "stream.previous_item_known",
            put(ADDED, "item_unknown", "previous_item_id"),
        ),
        ("ids of its own", "items", "items.first", other_ids),
        ("null in items", "items", "shape.no_null_in_items", on(ADDED, null_name)),
        ("audio in items", "items", "stream.no_audio_in_items", on(ADDED, audio_in_item)),
        ("no usage", "text_response", "stream.response_usage", without(DONE, "response", "usage")),
        (
            "details of a completed response",
            "text_response",
            "stream.response_status_details",
            put(DONE, {"type": "failed"}, "response", "status_details"),
        ),
        (
            "metadata lost",
            "text_response",
            "text.metadata",
            put(DONE, None, "response", "metadata"),
        ),
        (
            "no output in the end",
            "text_response",
            "stream.response_output",
            put(DONE, [], "response", "output"),
        ),
        (
            "delta after the end",
            "text_response",
            "stream.response_done_last",
            after(
                DONE,
                lambda e: {
                    "type": "response.output_text.delta",
                    "delta": "x",
                    "response_id": e["response"]["id"],
                    "item_id": "item_1",
                    "output_index": 0,
                    "content_index": 0,
                },
            ),
        ),
        ("two ends", "text_response", "stream.response_ends", doubled(DONE)),
        (
            "delta lost",
            "text_response",
            "stream.deltas_are_the_whole",
            drop_first_delta("response.output_text.delta"),
        ),
        (
            "empty deltas",
            "text_response",
            "stream.no_empty_deltas",
            put("response.output_text.delta", "", "delta"),
        ),
        (
            "part never done",
            "text_response",
            "stream.content_part_closed",
            dropped("response.content_part.done"),
        ),
        (
            "long names of part types",
            "text_response",
            "shape.response.content_part.added",
            on("response.content_part.added", wrong_type),
        ),
        (
            "indexes from 1",
            "text_response",
            "stream.output_index",
            put("response.output_item.added", 1, "output_index"),
        ),
        (
            "limit not reported",
            "text_response",
            "text.limit",
            put(DONE, "completed", "response", "status"),
        ),
        (
            "names of the beta",
            "text_response",
            "shape.known_types",
            renamed("response.output_text.delta", "response.text.delta"),
        ),
        (
            "types of its own",
            "text_response",
            "shape.known_types",
            after(CREATED, lambda _: {"type": "server.debug", "note": "hello"}),
        ),
        (
            "audio that is not base64",
            "audio_response",
            "shape.response.output_audio.delta",
            put("response.output_audio.delta", "*audio*", "delta"),
        ),
        (
            "audio not retrieved",
            "audio_response",
            "audio.retrieved",
            put("conversation.item.retrieved", [], "item", "content"),
        ),
        (
            "two ends of the audio",
            "audio_response",
            "audio.done_once",
            doubled("response.output_audio.done"),
        ),
        (
            "name missing in the call",
            "tools",
            "tools.announced",
            without("response.output_item.added", "item", "name"),
        ),
        (
            "name missing in the arguments",
            "tools",
            "shape." + ARGUMENTS,
            without(ARGUMENTS, "name"),
        ),
        (
            "arguments of another call",
            "tools",
            "stream.arguments_of_the_call",
            put(ARGUMENTS, "call_other", "call_id"),
        ),
        ("continues after a call", "tools", "tools.waits_for_the_client", continues_after_call),
        (
            "out of band in the conversation",
            "out_of_band",
            "out_of_band.own_input",
            put(CREATED, "conv_1", "response", "conversation_id"),
        ),
        (
            "cancellation not reported",
            "cancellation",
            "stream.response_status",
            put(DONE, "stopped", "response", "status"),
        ),
        (
            "errors without event_id",
            "errors",
            "errors.unknown_type",
            put("error", None, "error", "event_id"),
        ),
        (
            "errors without code",
            "errors",
            "errors.commit_empty",
            put("error", None, "error", "code"),
        ),
        ("errors with a key too few", "errors", "shape.error", without("error", "error", "param")),
        (
            "only changed settings",
            "settings",
            "shape.session.updated",
            on("session.updated", only_changed_settings),
        ),
        (
            "fractions of milliseconds",
            "spoken_turn",
            "stream.speech_clock",
            put(STARTED, 10.5, "audio_start_ms"),
        ),
        (
            "no commit of a turn",
            "spoken_turn",
            "stream.speech_stopped_commits",
            dropped("input_audio_buffer.committed"),
        ),
        (
            "another item after the speech",
            "spoken_turn",
            "turn.order",
            put(STARTED, "item_other", "item_id"),
        ),
        ("stops twice", "spoken_turn", "stream.speech_alternates", doubled(STOPPED)),
        (
            "transcript without usage",
            "manual_turn",
            f"shape.{COMPLETED}",
            without(COMPLETED, "usage"),
        ),
        (
            "transcript delta lost",
            "manual_turn",
            "stream.transcript_deltas",
            drop_first_delta("conversation.item.input_audio_transcription.delta"),
        ),
        ("audio after the interruption", "interruption", "interruption.no_audio_after", late_audio),
        (
            "reason of the interruption",
            "interruption",
            "interruption.cancelled",
            put(
                DONE,
                {"type": "cancelled", "reason": "client_cancelled"},
                "response",
                "status_details",
            ),
        ),
        (
            "response in a transcription",
            "transcription",
            "transcription.no_responses",
            after(
                "input_audio_buffer.committed",
                lambda _: {"type": CREATED, "response": {"id": "resp_1"}},
            ),
        ),
    )
]
