import struct
from io import BytesIO

import numpy as np
import pytest

from tests.media.sound import alike, container, sweep
from vivavoce.audio.formats import RATE
from vivavoce.audio.resample import resample
from vivavoce.errors import AudioError
from vivavoce.media.decoding import SoundFile
from vivavoce.media.files import read, streaming_header
from vivavoce.media.joined import MAX_PARTS, FilePart, PartReader, parts

HEAD = streaming_header(RATE)
SOUND = sweep(1.0)
SOUND_48 = resample(SOUND, RATE, 48_000)


def wav(length: int, sound: bytes, *, before: bytes = b"") -> bytes:
    return HEAD[:36] + before + b"data" + struct.pack("<I", length) + sound


def chunk(name: bytes, inside: bytes) -> bytes:
    return name + struct.pack("<I", len(inside)) + inside + bytes(len(inside) % 2)


def sounds_of(data: bytes) -> list[bytes]:
    """The bytes of the file that each part has for its sound."""
    return [data[part.start : part.end] for part in parts(BytesIO(data))]


@pytest.mark.parametrize(
    "length",
    [
        0,
        len(SOUND) // 2,
        len(SOUND),
        len(SOUND) + 44,
        2 * len(SOUND),
        0x40000000,
        0x7FFFF000,
        0xFFFFFFFF,
    ],
)
def test_wav_with_wrong_length_has_all_sound_that_is_there(length: int) -> None:
    assert sounds_of(wav(length, SOUND)) == [SOUND]
    assert read(wav(length, SOUND)) == SOUND


@pytest.mark.parametrize(("bits", "channels"), [(16, 1), (24, 1), (24, 2), (16, 6)])
def test_wav_from_a_pipe_is_read_whole_whatever_its_placeholder(bits: int, channels: int) -> None:
    block = channels * bits // 8
    length = 0x7FFFF000 // block * block  # as SoX writes it
    fmt = struct.pack(
        "<HHIIHHHHI", 0xFFFE, channels, RATE, RATE * block, block, bits, 22, bits, 2**channels - 1
    ) + bytes.fromhex("0100000000001000800000aa00389b71")
    frames = np.repeat(np.frombuffer(SOUND, "<i2"), channels)
    data = frames.tobytes() if bits == 16 else b"".join(b"\0" + frame.tobytes() for frame in frames)
    file = b"RIFF\0\0\xff\x7fWAVE" + chunk(b"fmt ", fmt) + b"data" + struct.pack("<I", length)
    heard = read(file + data)
    assert len(heard) == len(SOUND)
    assert alike(SOUND, heard)[0] > 0.99


@pytest.mark.parametrize("padding", [b"", b"\0"])
def test_chunks_after_the_sound_are_not_sound(padding: bytes) -> None:
    odd = SOUND[:999]
    after = chunk(b"LIST", b"INFOISFT") + chunk(b"id3 ", b"odd")
    assert sounds_of(wav(999, odd + padding + after)) == [odd]
    assert sounds_of(wav(1000, SOUND[:1000], before=chunk(b"LIST", b"odd"))) == [SOUND[:1000]]


def test_less_than_a_chunk_after_the_sound_is_not_sound() -> None:
    assert sounds_of(wav(994, SOUND[:1000])) == [SOUND[:994]]


def test_wav_with_a_cut_off_chunk_after_it_keeps_that_as_sound() -> None:
    assert sounds_of(wav(4, b"soun" + b"LIST\xff\0\0\0abc")) == [b"soun" + b"LIST\xff\0\0\0abc"]


@pytest.mark.parametrize("streamed", [True, False])
def test_two_wavs_joined_are_two_parts_each_at_its_own_rate(streamed: bool) -> None:
    first = HEAD + SOUND if streamed else container("wav", "pcm_s16le", SOUND)
    second = container("wav", "pcm_s16le", SOUND_48, rate=48_000, channels=2)
    assert len(parts(BytesIO(first + second))) == 2
    heard = read(first + second)
    assert len(heard) == pytest.approx(2 * len(SOUND), abs=20)
    assert alike(SOUND + SOUND, heard)[0] > 0.99


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"RIFF",
        b"RIFF\0\0\0\0AVI fmt ",
        HEAD[:12],
        HEAD[:30],
        HEAD[:12] + b"data" + struct.pack("<I", 1000) + bytes(10),  # no format
        HEAD[:12] + chunk(b"junk", b"") * 100 + HEAD[12:40] + struct.pack("<I", 1000) + bytes(10),
        HEAD[:12] + chunk(b"fmt ", bytes(2_000)) + HEAD[36:],  # a format of too many bytes
        b"OggS",
    ],
)
def test_file_without_known_parts_is_one_part(data: bytes) -> None:
    assert parts(BytesIO(data)) == [FilePart(b"", 0, len(data))]


@pytest.mark.parametrize(
    ("kind", "codec", "channels"),
    [
        ("wav", "pcm_s16le", 1),
        ("mp3", "libmp3lame", 1),
        ("adts", "aac", 1),
        ("ogg", "libopus", 1),
        ("ogg", "vorbis", 2),
        ("ogg", "flac", 1),
        ("flac", "flac", 1),
        ("webm", "libopus", 1),
    ],
)
def test_joined_files_of_different_rates_and_channels_are_heard_whole(
    kind: str, codec: str, channels: int
) -> None:
    first = container(kind, codec, SOUND_48, rate=48_000, channels=channels)
    rate = 48_000 if codec == "libopus" else RATE
    then = SOUND_48 if codec == "libopus" else SOUND
    second = container(kind, codec, then, rate=rate, channels=2)
    for data, seconds in ((first + second, 2), (second + first, 2), (first + second + first, 3)):
        heard = read(data)
        assert len(heard) / 2 / RATE == pytest.approx(seconds, abs=0.1 * seconds)
        assert alike(SOUND, heard)[0] > 0.9
        assert alike(SOUND, heard[-len(SOUND) - 4_000 :])[0] > 0.9


@pytest.mark.parametrize("piece", [HEAD + SOUND[:200], container("ogg", "libopus", SOUND[:960])])
def test_file_of_too_many_joined_recordings_is_refused(piece: bytes) -> None:
    most = b"".join([piece] * MAX_PARTS)
    assert len(parts(BytesIO(most))) == MAX_PARTS
    with pytest.raises(AudioError, match=r"^the audio consists of more than 256 recordings$"):
        next(SoundFile(BytesIO(most + piece)).pieces())
    assert len(parts(BytesIO(most * 4))) == MAX_PARTS + 1


def test_pattern_on_the_border_of_two_blocks_is_found() -> None:
    for shift in range(-20, 4, 3):
        first = HEAD + bytes((1 << 20) + shift)
        assert len(parts(BytesIO(first + HEAD + SOUND))) == 2


def test_part_reader_reads_and_seeks_within_its_part() -> None:
    reader = PartReader(BytesIO(b"0123456789"), FilePart(b"ab", 3, 7))
    assert reader.read() == b"ab3456"
    assert reader.read(4) == b""
    assert (reader.seek(1), reader.read(3), reader.tell()) == (1, b"b34", 4)
    assert (reader.seek(-2, 2), reader.read(9)) == (4, b"56")
    assert (reader.seek(-3, 1), reader.read(1)) == (3, b"4")
    assert reader.seek(-9) == 0
