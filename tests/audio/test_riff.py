import struct
from io import BytesIO
from pathlib import Path

import pytest

from vivavoce.audio.files import write_wav
from vivavoce.audio.riff import missing_seconds, streaming_header

HEAD = streaming_header(24_000)


def wav(length: int, sound: bytes, *, before: bytes = b"") -> BytesIO:
    return BytesIO(HEAD[:36] + before + b"data" + struct.pack("<I", length) + sound)


def chunk(name: bytes, inside: bytes) -> bytes:
    return name + struct.pack("<I", len(inside)) + inside + bytes(len(inside) % 2)


def test_the_head_of_a_stream_says_what_follows_and_not_how_much() -> None:
    assert struct.unpack("<4sI4s4sIHHIIHH4sI", HEAD) == (
        *(b"RIFF", 0xFFFFFFFF, b"WAVE"),
        *(b"fmt ", 16, 1, 1, 24_000, 48_000, 2, 16),
        *(b"data", 0xFFFFFFFF),
    )


@pytest.mark.parametrize(
    ("source", "seconds"),
    [
        (wav(48_000, bytes(48_000)), 0.0),
        (wav(48_000, bytes(50_000)), 0.0),
        (wav(48_000, bytes(24_000)), 0.5),
        (wav(48_000, bytes(24_000), before=chunk(b"LIST", b"odd")), 0.5),
        (wav(2_000_000_000, bytes(980)), (2_000_000_000 - 980) / 48_000),
        (wav(48_000, b""), 0.0),
    ],
)
def test_a_file_lacks_what_it_promises_and_does_not_have(source: BytesIO, seconds: float) -> None:
    assert missing_seconds(source) == seconds


@pytest.mark.parametrize("length", [0, 0x7FFFFFFF, 0x7FFFFFFF - 36, 0x80000000, 0xFFFFFFFF])
def test_a_length_that_stands_for_unknown_promises_nothing(length: int) -> None:
    assert missing_seconds(wav(length, bytes(100))) == 0.0


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"RIFF",
        b"RIFF\0\0\0\0AVI fmt ",
        b"OggS\0\0\0\0WAVEfmt ",
        HEAD[:12],
        HEAD[:30],
        HEAD[:12] + b"data" + struct.pack("<I", 1000) + bytes(10),  # no format
        HEAD[:28] + bytes(4) + HEAD[32:40] + struct.pack("<I", 1000) + bytes(10),  # of no rate
        HEAD[:12] + chunk(b"junk", b"") * 100 + HEAD[12:40] + struct.pack("<I", 1000) + bytes(10),
    ],
)
def test_what_cannot_be_judged_promises_nothing(data: bytes) -> None:
    assert missing_seconds(BytesIO(data)) == 0.0


def test_a_file_that_was_written_whole_lacks_nothing(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", bytes(4_800))
    with (tmp_path / "a.wav").open("rb") as source:
        assert missing_seconds(source) == 0.0
