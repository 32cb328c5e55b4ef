"""Audio frames are recognised by their bytes only where they say what the learnt one says."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.protocol import codec
from vivavoce.protocol.audio_frames import AudioFrames, framed, is_exact

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
    event = json.loads(later)
    event_id = event.get("event_id", "").encode()
    frames = appends(learnt)
    assert frames.read(later) == (frames.form, event_id, base64.b64decode(event["audio"]))
    assert appends(learnt).append(later) == codec.decode(later)
    assert appends(learnt).append(later[:-1]) is None


@given(st.binary(min_size=1, max_size=400), st.text("abc_-. 1", min_size=1, max_size=40))
def test_delta_like_the_learnt_one_gives_its_audio(audio: bytes, event_id: str) -> None:
    frames = deltas(delta())
    assert frames.read(delta(audio, event_id)) == (frames.form, event_id.encode(), audio)


@given(st.binary(min_size=1, max_size=400), st.sampled_from(["", "a", "event_17"]))
def test_frame_is_its_form_with_its_id_and_its_audio(audio: bytes, name: str) -> None:
    fields: dict[str, Any] = {"event_id": name} if name else {}
    frames = appends(append(**fields))
    assert frames.form
    assert framed((frames.form, name.encode(), audio)) == append(audio, **fields)


def test_frame_is_made_again_to_the_byte_where_its_base64_is_the_only_one() -> None:
    frames = deltas(delta())
    padded = delta(b"12").replace(b"MTI=", b"MTJ=")  # the bits behind the audio are not 0
    passed = frames.read(padded)
    assert passed == frames.read(delta(b"12"))
    assert passed
    assert not is_exact(passed[2])
    assert framed(passed) == delta(b"12")
    assert is_exact(b"123")


@pytest.mark.parametrize("text", ["AA==", "AAA=", "AAAA", "////", "+/+/"])
def test_audio_is_standard_base64_with_padding(text: str) -> None:
    frame = append().replace(base64.b64encode(AUDIO), text.encode())
    frames = appends(append())
    assert frames.read(frame) == (frames.form, b"", base64.b64decode(text))


@pytest.mark.parametrize(
    "text", ["", "A", "AA", "AAA", "AAAAA", "AA=A", "====", "AAAA AAAA", "AAA\\n", "____", "AAAé"]
)
def test_audio_that_is_not_standard_base64_is_not_recognised(text: str) -> None:
    frame = append().replace(base64.b64encode(AUDIO), text.encode())
    assert appends(append()).read(frame) is None


def test_frame_that_is_shorter_than_what_it_should_have_is_not_recognised() -> None:
    for frame in (append(b""), append(b"", event_id="a")):
        frames = appends(append(event_id="a") if b"event_id" in frame else append())
        for size in range(len(frame)):
            assert frames.read(frame[:size]) is None
            assert frames.read(frame[:size] + b'"}') is None


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
    assert deltas(delta()).read(later) is None


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
    assert appends(frame).read(frame) is None


def test_nothing_is_recognised_before_a_frame_is_learnt_and_after_it_is_forgotten() -> None:
    frames = AudioFrames("response.output_audio.delta")
    assert frames.read(delta()) is None
    assert frames.read(b"") is None
    frames.learn(delta())
    assert frames.read(delta()) == (frames.form, b"event_1", AUDIO)
    frames.forget()
    assert frames.form is None
    assert frames.read(delta()) is None


def test_frame_as_long_as_the_one_before_may_have_a_longer_id_and_less_audio() -> None:
    frames, short = deltas(delta()), AUDIO[: 1023 - 3]
    for event_id, audio in (("event_1", AUDIO[:1023]), ("event_10000", short), ("e", AUDIO[:1023])):
        frame = delta(audio, event_id)
        assert frames.read(frame) == (frames.form, event_id.encode(), audio)
    assert len(delta(short, "event_10000")) == len(delta(AUDIO[:1023], "event_1"))


@pytest.mark.parametrize("event_id", ["a\\\\b", 'a\\"b', "a\tbc"])
def test_frame_as_long_as_the_one_before_is_refused_if_its_id_has_escapes(event_id: str) -> None:
    frames = deltas(delta(event_id="abcd"))
    assert frames.read(delta(event_id="efgh")) is not None
    escaped = delta(event_id="efgh").replace(b"efgh", event_id.encode())
    assert len(escaped) == len(delta(event_id="efgh"))
    assert frames.read(escaped) is None


def test_frame_of_another_shape_makes_the_learnt_one_forgotten() -> None:
    frames = deltas(delta())
    frames.learn(append())
    assert frames.read(delta()) is None
