"""That the laws every recorded stream is held against notice what breaks them."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.clients.laws import Frame, check

Change = Callable[[list[Frame]], Any]

MESSAGE = {"id": "item_2", "type": "message", "role": "assistant", "status": "completed"}
SPOKEN = {"type": "output_audio", "transcript": "Hi you"}
DONE_MESSAGE = MESSAGE | {"content": [SPOKEN]}
OPEN_MESSAGE = MESSAGE | {"content": [], "status": "in_progress"}
USER = {"id": "item_1", "type": "message", "role": "user", "status": "completed", "content": []}
CALL = {
    "id": "item_3",
    "type": "function_call",
    "status": "completed",
    "call_id": "call_1",
    "name": "go",
    "arguments": "{}",
}
OPEN_CALL = CALL | {"arguments": "", "status": "in_progress"}
RESPONSE = {"id": "resp_1", "conversation_id": "conv_1", "status_details": None}
WORDS = "conversation.item.input_audio_transcription"


def frame(kind: str, **fields: Any) -> Frame:
    return {"type": kind, **fields}


def put_out(kind: str, index: int = 0, **fields: Any) -> Frame:
    place = {"response_id": "resp_1", "output_index": index}
    return frame(f"response.{kind}", **place, **fields)


def a_good_stream() -> list[Frame]:
    """A spoken turn, answered in sound and with a call."""
    part: dict[str, Any] = {"item_id": "item_2"}
    arguments: dict[str, Any] = {"index": 1, "item_id": "item_3", "call_id": "call_1"}
    frames = [
        frame("session.created"),
        frame("input_audio_buffer.speech_started", item_id="item_1", audio_start_ms=100),
        frame(f"{WORDS}.delta", item_id="item_1", content_index=0, delta="hel"),
        frame("input_audio_buffer.speech_stopped", item_id="item_1", audio_end_ms=900),
        frame("input_audio_buffer.committed", item_id="item_1", previous_item_id=None),
        frame("conversation.item.added", item=USER, previous_item_id=None),
        frame("conversation.item.done", item=USER, previous_item_id=None),
        frame("response.created", response=RESPONSE | {"status": "in_progress", "output": []}),
        frame(f"{WORDS}.delta", item_id="item_1", content_index=0, delta="lo"),
        frame(f"{WORDS}.completed", item_id="item_1", content_index=0, transcript="hello"),
        put_out("output_item.added", item=OPEN_MESSAGE),
        frame("conversation.item.added", item=OPEN_MESSAGE, previous_item_id="item_1"),
        put_out("content_part.added", **part, part={"type": "audio", "transcript": ""}),
        put_out("output_audio_transcript.delta", **part, delta="Hi "),
        put_out("output_audio.delta", **part, delta="AAAA"),
        put_out("output_audio_transcript.delta", **part, delta="you"),
        put_out("output_audio.done", **part),
        put_out("output_audio_transcript.done", **part, transcript="Hi you"),
        put_out("content_part.done", **part, part={"type": "audio", "transcript": "Hi you"}),
        put_out("output_item.done", item=DONE_MESSAGE),
        frame("conversation.item.done", item=DONE_MESSAGE, previous_item_id="item_1"),
        put_out("output_item.added", index=1, item=OPEN_CALL),
        frame("conversation.item.added", item=OPEN_CALL, previous_item_id="item_2"),
        put_out("function_call_arguments.delta", **arguments, delta="{}"),
        put_out("function_call_arguments.done", **arguments, name="go", arguments="{}"),
        put_out("output_item.done", index=1, item=CALL),
        frame("conversation.item.done", item=CALL, previous_item_id="item_2"),
        frame(
            "response.done",
            response=RESPONSE
            | {"status": "completed", "output": [DONE_MESSAGE, CALL], "usage": {}},
        ),
        frame("rate_limits.updated", rate_limits=[]),
    ]
    return [one | {"event_id": f"event_{n}"} for n, one in enumerate(frames)]


def first(frames: list[Frame], kind: str) -> int:
    return next(n for n, one in enumerate(frames) if one["type"] == kind)


def without(kind: str) -> Change:
    return lambda frames: frames.pop(first(frames, kind))


def twice(kind: str) -> Change:
    def change(frames: list[Frame]) -> None:
        n = first(frames, kind)
        frames.insert(n + 1, frames[n] | {"event_id": "another"})

    return change


def at_the_end(kind: str) -> Change:
    return lambda frames: frames.append(frames.pop(first(frames, kind)))


def with_(kind: str, **fields: Any) -> Change:
    return lambda frames: frames[first(frames, kind)].update(fields)


def response_with(kind: str, **fields: Any) -> Change:
    return lambda frames: frames[first(frames, kind)]["response"].update(fields)


def test_laws_on_a_valid_stream_pass() -> None:
    check(a_good_stream())


def test_laws_on_an_aborted_stream_pass() -> None:
    for length in range(1, len(a_good_stream())):
        check(a_good_stream()[:length])


@pytest.mark.parametrize(
    ("change", "law"),
    [
        (without("session.created"), "greeted"),
        (twice("session.created"), "greeted"),
        (with_("response.created", event_id="event_1"), "event_id"),
        (twice("conversation.item.added"), "added twice"),
        (without("conversation.item.added"), "before it was added"),
        (twice("conversation.item.done"), "or twice"),
        (with_("conversation.item.done", previous_item_id="item_1"), "stands behind"),
        (with_("conversation.item.added", previous_item_id="item_9"), "no item item_9"),
        (without("input_audio_buffer.committed"), "no item came"),
        (with_("input_audio_buffer.committed", item_id="item_9"), "another item"),
        (twice("input_audio_buffer.speech_started"), "started twice"),
        (without("input_audio_buffer.speech_started"), "had not started"),
        (with_("input_audio_buffer.speech_stopped", audio_end_ms=99), "went back"),
        (with_("input_audio_buffer.speech_stopped", audio_end_ms=900.0), "whole"),
        (with_(f"{WORDS}.completed", transcript="hullo"), "not the transcript"),
        (twice(f"{WORDS}.completed"), "go on"),
        (without("response.created"), "unknown response"),
        (twice("response.created"), "created twice"),
        (response_with("response.created", status="completed"), "has ended"),
        (response_with("response.created", conversation_id=None), "out of band"),
        (without("response.output_item.added"), "not announced"),
        (without("response.content_part.added"), "no part of that kind"),
        (twice("response.content_part.added"), "two parts"),
        (without("response.output_audio.done"), "streams are not"),
        (twice("response.output_audio.done"), "closed goes on"),
        (at_the_end("response.output_audio.delta"), "done goes on"),
        (with_("response.output_audio_transcript.done", transcript="Hi"), "not the whole"),
        (without("response.content_part.done"), "its part is not"),
        (with_("response.function_call_arguments.done", arguments="{1}"), "not the whole"),
        (with_("response.function_call_arguments.delta", call_id="x"), "another call"),
        (without("response.output_item.done"), "is not done"),
        (response_with("response.done", output=[]), "not what was put out"),
        (response_with("response.done", usage=None), "usage is missing"),
        (response_with("response.done", status="failed"), "no reason"),
        (twice("response.done"), "done twice"),
    ],
)
def test_laws_on_an_invalid_stream_fail(change: Change, law: str) -> None:
    frames = copy.deepcopy(a_good_stream())
    change(frames)
    with pytest.raises(AssertionError, match=law):
        check(frames)


def test_laws_on_two_concurrent_responses_fail() -> None:
    frames = a_good_stream()[:8]
    second = {"id": "resp_2", "conversation_id": "c", "status": "in_progress", "output": []}
    frames.append(frame("response.created", event_id="event_x", response=second))
    with pytest.raises(AssertionError, match="under way"):
        check(frames)
