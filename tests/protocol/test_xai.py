"""xAI's frames, translated to those of a GA server."""

from typing import Any

import msgspec
import pytest

from vivavoce.protocol.xai import XaiTranslation


def frame(kind: str, **fields: Any) -> bytes:
    return msgspec.json.encode({"type": kind, **fields})


class Connection:
    def __init__(self) -> None:
        self.translation = XaiTranslation()
        self.replies: list[dict[str, Any]] = []

    def take(self, kind: str, **fields: Any) -> dict[str, Any] | None:
        """A frame of the server as the session gets it; None: it does not."""
        shown, reply = self.translation.received(frame(kind, **fields))
        if reply is not None:
            self.replies.append(msgspec.json.decode(reply))
        return None if shown is None else msgspec.json.decode(shown)

    def update(self, turn_detection: dict[str, Any] | None) -> None:
        audio = {"input": {"turn_detection": turn_detection}}
        self.translation.sent(frame("session.update", session={"audio": audio}))


def test_frame_that_needs_nothing_passes_byte_for_byte() -> None:
    for raw in (
        b'{ "type":"response.output_audio.delta","output_index":0,"content_index":1}',
        b'{ "type":"conversation.item.added","item":{"type":"message","role":"user"}}',
        b'{ "type":"error","error":{"event_id":"mine"}}',
        b"no json",
        b'{ "type":5}',
        b"[]",
    ):
        assert XaiTranslation().received(raw) == (raw, None)


def test_ping_is_dropped() -> None:
    assert Connection().take("ping") is None


def test_missing_places_role_and_usage_are_mended() -> None:
    connection = Connection()
    delta = connection.take("response.output_audio.delta", delta="AA")
    assert delta == {
        "type": "response.output_audio.delta",
        "delta": "AA",
        "output_index": 0,
        "content_index": 0,
    }
    call = {"type": "function_call", "role": "tool", "name": "f"}
    item = connection.take("response.output_item.done", item=call)
    assert item is not None
    assert item["item"] == {"type": "function_call", "name": "f"}
    assert item["output_index"] == 0
    assert "content_index" not in item
    done = connection.take("response.done", response={"id": "r", "usage": {}})
    assert done is not None
    assert done["response"]["usage"] is None


@pytest.mark.parametrize(
    ("kind", "done", "text"),
    [
        ("audio", "response.output_audio_transcript.done", "transcript"),
        ("text", "response.output_text.done", "text"),
    ],
)
def test_part_that_ends_without_its_content_has_what_was_said(
    kind: str, done: str, text: str
) -> None:
    connection = Connection()
    place = {"item_id": "i", "output_index": 0, "content_index": 0}
    connection.take("response.content_part.added", part={"type": kind}, **place)
    connection.take(done, **{text: "so"}, **place)
    ended = connection.take("response.content_part.done", **place)
    assert ended is not None
    assert ended["part"] == {"type": kind, text: "so"}
    again = connection.take("response.content_part.done", **place)
    assert again is not None
    assert again["part"] == {"type": "audio"}
    given = connection.take("response.content_part.done", part={"type": "text"}, **place)
    assert given is not None
    assert given["part"] == {"type": "text"}


def test_answer_that_the_client_does_not_want_is_cancelled_and_hidden() -> None:
    connection = Connection()
    connection.translation.sent(frame("input_audio_buffer.append", audio="AA"))
    connection.update({"type": "server_vad", "create_response": False})
    assert connection.take("response.created", response={"id": "r1"}) is None
    (cancel,) = connection.replies
    assert cancel["type"] == "response.cancel"
    own = {"event_id": cancel["event_id"], "code": "response_cancel_not_active"}
    assert connection.take("error", error=own) is None
    item = {"id": "a", "type": "message"}
    assert connection.take("response.output_item.added", response_id="r1", item=item) is None
    assert connection.take("conversation.item.added", item=item) is None
    assert connection.take("response.output_audio.delta", item_id="a") is None
    assert connection.take("response.output_item.done", response_id="r1", item=item) is None
    assert connection.replies[1]["item_id"] == "a"
    assert connection.take("response.done", response={"id": "r1"}) is None
    assert connection.take("input_audio_buffer.speech_started", item_id="u") is not None


def test_answer_that_was_requested_passes_whatever_the_turns_do() -> None:
    connection = Connection()
    connection.update({"type": "server_vad", "create_response": False})
    connection.translation.sent(frame("response.create"))
    assert connection.take("response.created", response={"id": "r1"}) is not None
    assert connection.take("response.created", response={"id": "r2"}) is None
    connection.update(None)
    assert connection.take("response.created", response={"id": "r3"}) is not None
    connection.translation.sent(frame("conversation.item.create", item="response.create"))
    assert connection.take("response.created", response="odd") is not None
