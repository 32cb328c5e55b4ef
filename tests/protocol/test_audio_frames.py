"""Audio frames are recognised by their bytes only where they say what the learnt one says."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.protocol import codec
from vivavoce.protocol.audio_frames import AudioFrames

AUDIO = bytes(range(256)) * 4
APPEND = "input_audio_buffer.append"
DELTA = "response.output_audio.delta"
PLACE = {"response_id": "r", "item_id": "a", "output_index": 0, "content_index": 0}


def append(audio: bytes = AUDIO, **fields: Any) -> bytes:
    text = base64.b64encode(audio).decode()
    return json.dumps({"type": APPEND, **fields, "audio": text}).encode()


def delta(audio: bytes = AUDIO, event_id: str = "event_1", **fields: Any) -> bytes:
    text = base64.b64encode(audio).decode()
    event = {"type": DELTA, "event_id": event_id, **PLACE, **fields, "delta": text}
    return json.dumps(event).encode()


def appends(learnt: bytes) -> AudioFrames:
    frames = AudioFrames("input_audio_buffer.append")
    frames.learn(learnt)
    return frames


def deltas(learnt: bytes) -> AudioFrames:
    frames = AudioFrames("response.output_audio.delta")
    frames.learn(learnt)
    return frames


@pytest.mark.parametrize(
    ("learnt", "later"),
    [
        (append(), append(b"\1\2\3")),
        (append(event_id="a"), append(event_id="another", audio=b"\1\2")),
        (json.dumps(json.loads(append()), indent=1).encode(),) * 2,
        (json.dumps(json.loads(append()), separators=(",", ":")).encode(),) * 2,
        (
            append().replace(b"{", b'{"event_id": "x", '),
            append().replace(b"{", b'{"event_id": "y", '),
        ),
        (b'{"audio":"AAAA","type":"input_audio_buffer.append"}',) * 2,
    ],
)
def test_append_like_the_learnt_one_gives_its_audio(learnt: bytes, later: bytes) -> None:
    assert appends(learnt).audio(later) == base64.b64decode(json.loads(later)["audio"])
    assert appends(learnt).append(later) == codec.decode(later)
    assert appends(learnt).append(later[:-1]) is None


@given(st.binary(min_size=1, max_size=400), st.text("abc_-. 1", min_size=1, max_size=40))
def test_delta_like_the_learnt_one_gives_its_audio(audio: bytes, event_id: str) -> None:
    assert deltas(delta()).audio(delta(audio, event_id)) == audio


@given(st.binary(min_size=1, max_size=400), st.sampled_from(["", "a", "event_17"]))
def test_frame_like_the_learnt_one_is_described_without_its_audio(audio: bytes, name: str) -> None:
    fields: dict[str, Any] = {"event_id": name} if name else {}
    frames = appends(append(**fields))
    assert frames.described(append(audio, **fields)) == (name.encode(), len(audio))
    assert frames.described(delta(audio)) is None
    before, after, tail = frames.learnt or (b"", b"", b"")
    text = base64.b64encode(audio)
    assert before + name.encode() + after + text + tail == append(audio, **fields)


def test_frame_that_ends_otherwise_or_has_other_fields_is_not_described() -> None:
    frames = appends(append(event_id="a"))
    assert frames.described(append(b"12", event_id="b")) == (b"b", 2)
    assert frames.described(append(event_id="a")[:-1]) is None
    assert frames.described(append(event_id="a", more=1)) is None
    assert AudioFrames("input_audio_buffer.append").described(append()) is None


@pytest.mark.parametrize(
    "later",
    [
        delta(item_id="b"),
        delta(response_id="s"),
        delta(content_index=1),
        delta(event_id=""),
        delta(event_id='x", "item_id": "b'),
        delta(event_id="é"),
        delta(event_id="x" * 513),
        delta(b""),
        delta(bytes(100_000)),
        delta(obfuscation="x"),
        delta()[:-1],
        delta()[1:],
        delta() + b" ",
        delta().replace(b'"delta": "', b'"delta": "*'),
        delta().replace(b'"delta": "', b'"delta": "="'),
        delta().replace(b'"event_id": "', b'"event_id": "\\'),
        delta().replace(b'"event_id": "', b'"event_id": "\n'),
        json.dumps({"type": "response.done"}).encode(),
        b"",
    ],
)
def test_frame_that_differs_in_more_than_id_and_audio_is_not_recognised(later: bytes) -> None:
    assert deltas(delta()).audio(later) == b""


@pytest.mark.parametrize(
    "frame",
    [
        append().replace(b"{", b'{"type": "session.update", '),  # a parser may take the last
        append().replace(b"{", b'{"audio": "AAAA", '),
        append(session={"instructions": "x"}),
        append(event_id=None),
        append(event_id='"'),
        append(event_id="a").replace(b"{", b'{"event_id": "b", '),
        append() + b"{}",
        append().replace(b'"}', b'", "type": "input_audio_buffer.append"}'),
        b'{"audio":"AAAA"}',
        append()[:-1],
        append().replace(b'"}', b'", "type": "session.update"}'),
        append().replace(b'"audio"', b'"delta"'),
        b"[]",
        delta(),
    ],
)
def test_frame_of_another_shape_is_not_learnt(frame: bytes) -> None:
    assert appends(frame).audio(frame) == b""


def test_nothing_is_recognised_before_a_frame_is_learnt_and_after_it_is_forgotten() -> None:
    frames = AudioFrames("response.output_audio.delta")
    assert frames.audio(delta()) == b""
    frames.learn(delta())
    assert frames.audio(delta()) == AUDIO
    frames.forget()
    assert frames.learnt is None
    assert frames.audio(delta()) == b""


def test_frame_of_another_shape_makes_the_learnt_one_forgotten() -> None:
    frames = deltas(delta())
    frames.learn(append())
    assert frames.audio(delta()) == b""
