import gc
import struct
import subprocess
import sys
import wave
from io import BytesIO
from typing import get_args

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.media.sound import alike, samples, sweep
from vivavoce.audio.formats import RATE
from vivavoce.audio.resample import resample
from vivavoce.errors import AudioError
from vivavoce.media.encoding import CONTENT_TYPES, FileEncoder, FileFormat
from vivavoce.media.files import read

FORMATS: tuple[FileFormat, ...] = get_args(FileFormat)
CODED = [each for each in FORMATS if each != "pcm"]
SOUND = sweep(2.0)


def encoded(pcm: bytes, kind: FileFormat, *, size: int = 4_800, rate: int = RATE) -> bytes:
    encoder = FileEncoder(kind, rate)
    made = b"".join(encoder.feed(pcm[at : at + size]) for at in range(0, len(pcm), size))
    return made + encoder.finish()


WHOLE = {kind: encoded(SOUND, kind) for kind in FORMATS}


@pytest.mark.parametrize("kind", CODED)
def test_encoded_sound_decodes_to_the_same_sound(kind: FileFormat) -> None:
    heard = read(WHOLE[kind])
    likeness, late = alike(SOUND, heard)
    assert likeness > 0.995
    # MP3 and AAC begin with what their filters need, and nothing in the stream says how much.
    begins = {"mp3": 1_105, "aac": 1_024}.get(kind, 0)
    frame = {"mp3": 576, "aac": 1_024}.get(kind, 0)
    assert late == begins
    assert 0 <= len(heard) // 2 - len(SOUND) // 2 - begins <= frame
    loud = samples(heard).std() / samples(SOUND).std()
    assert 0.93 < loud < 1.01  # LAME makes all sound 5 % quieter, and the ends are silent


@pytest.mark.parametrize("kind", ["flac", "wav"])
def test_lossless_formats_round_trip(kind: FileFormat) -> None:
    assert read(WHOLE[kind]) == SOUND
    assert WHOLE["pcm"] == SOUND


@pytest.mark.parametrize("kind", FORMATS)
@settings(max_examples=8)
@given(cuts=st.lists(st.integers(0, 2 * RATE), max_size=6))
def test_file_is_the_same_however_the_sound_is_cut(kind: FileFormat, cuts: list[int]) -> None:
    encoder = FileEncoder(kind)
    ends = sorted(2 * cut for cut in cuts)
    made = b"".join(
        encoder.feed(SOUND[start:end])
        for start, end in zip([0, *ends], [*ends, len(SOUND)], strict=True)
    )
    assert made + encoder.finish() == WHOLE[kind]


@pytest.mark.parametrize(
    ("kind", "fed_ms"), [("mp3", 100), ("opus", 80), ("aac", 100), ("flac", 100), ("wav", 20)]
)
def test_first_sound_decodes_before_more_is_fed(kind: FileFormat, fed_ms: int) -> None:
    encoder = FileEncoder(kind)
    made = b"".join(encoder.feed(SOUND[at * 48 : (at + 20) * 48]) for at in range(0, fed_ms, 20))
    assert len(read(made)) >= 480


@pytest.mark.parametrize("kind", CODED)
def test_second_of_sound_gives_most_of_a_second(kind: FileFormat) -> None:
    made = FileEncoder(kind).feed(SOUND[: 2 * RATE])
    assert len(read(made)) > 2 * RATE * 0.85


@pytest.mark.parametrize(
    ("kind", "rate"),
    [(kind, rate) for kind in CODED for rate in (16_000, 48_000)]
    + [("mp3", 44_100), ("wav", 8_000)],
)
def test_file_of_another_rate(kind: FileFormat, rate: int) -> None:
    heard = read(encoded(SOUND, kind, rate=rate))
    assert alike(SOUND, heard)[0] > (0.9 if rate == 8_000 else 0.98)
    assert len(heard) / len(SOUND) == pytest.approx(1.0, abs=0.1)


def test_raw_sound_of_another_rate() -> None:
    assert encoded(SOUND, "pcm", rate=16_000) == resample(SOUND, RATE, 16_000)


@pytest.mark.parametrize(
    ("kind", "rate", "message"),
    [
        ("opus", 44_100, "opus of 44100 Hz cannot be made: it can have 8000, 12000, 16000, "),
        ("mp3", 23_000, "mp3 of 23000 Hz cannot be made: it can have 8000, 11025, 12000, "),
        ("wav", 7_999, "wav of 7999 Hz cannot be made: 8000 to 48000 Hz can"),
        ("pcm", 96_000, "pcm of 96000 Hz cannot be made: 8000 to 48000 Hz can"),
    ],
)
def test_rate_that_a_format_lacks_is_refused(kind: FileFormat, rate: int, message: str) -> None:
    with pytest.raises(AudioError) as refusal:
        FileEncoder(kind, rate)
    assert str(refusal.value).startswith(message)


def test_streamed_wav_has_unknown_length() -> None:
    assert struct.unpack_from("<I", WHOLE["wav"], 4) == (0xFFFFFFFF,)
    assert struct.unpack_from("<4sI", WHOLE["wav"], 36) == (b"data", 0xFFFFFFFF)
    assert WHOLE["wav"][44:] == SOUND


@pytest.mark.parametrize("kind", FORMATS)
def test_encoder_may_be_dropped_before_its_end(kind: FileFormat) -> None:
    encoder = FileEncoder(kind)
    encoder.feed(SOUND[:4_800])
    del encoder
    assert gc.collect() >= 0


def test_every_format_has_a_content_type() -> None:
    assert CONTENT_TYPES == {
        "mp3": "audio/mpeg",
        "opus": "audio/opus",
        "aac": "audio/aac",
        "flac": "audio/flac",
        "wav": "audio/wav",
        "pcm": "audio/pcm",
    }


def test_pyav_is_not_loaded_for_wav() -> None:
    program = (
        "import sys; from vivavoce.media.encoding import FileEncoder; FileEncoder('wav').finish();"
        "print('av' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("False\n", "")


@pytest.mark.parametrize("kind", FORMATS)
def test_file_of_no_sound_is_a_short_silent_file(kind: FileFormat) -> None:
    made = encoded(b"", kind)
    heard = made if kind == "pcm" else read(made)
    assert 0.09 < len(heard) / 2 / RATE < 0.2
    assert np.abs(samples(heard)).max() <= 3


@pytest.mark.parametrize("kind", FORMATS)
def test_whole_file_says_its_length_where_the_format_can(kind: FileFormat) -> None:
    encoder = FileEncoder(kind)
    file = bytearray(encoder.feed(SOUND) + encoder.finish())
    streamed = bytes(file)
    encoder.write_length(file)
    match kind:
        case "wav":
            with wave.open(BytesIO(bytes(file))) as opened:
                assert opened.getnframes() == len(SOUND) // 2
        case "flac":
            with av.open(BytesIO(bytes(file))) as opened:
                assert opened.streams.audio[0].duration == len(SOUND) // 2
            with av.open(BytesIO(streamed)) as opened:
                assert opened.streams.audio[0].duration is None
        case _:
            assert file == streamed


def test_flac_with_its_length_opens_in_libsndfile() -> None:
    soundfile = pytest.importorskip("soundfile")
    encoder = FileEncoder("flac")
    file = bytearray(encoder.feed(SOUND) + encoder.finish())
    encoder.write_length(file)
    opened = soundfile.SoundFile(BytesIO(bytes(file)))
    assert (opened.samplerate, len(opened)) == (RATE, len(SOUND) // 2)
    assert opened.read(dtype="int16").tobytes() == SOUND
