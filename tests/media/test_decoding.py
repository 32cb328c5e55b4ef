import gc
import io
import socket
import struct
import subprocess
import sys
import zipfile
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from io import BytesIO
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any

import av
import numpy as np
import pytest

from tests.media.sound import alike, container, samples, sweep
from vivavoce.audio.formats import RATE, encode
from vivavoce.audio.resample import resample
from vivavoce.errors import AudioError
from vivavoce.media.decoding import Bounds, Raw, SoundFile
from vivavoce.media.encoding import FileEncoder
from vivavoce.media.files import streaming_header, write_wav

SOUND = sweep(3.0)
SOUND_48 = resample(SOUND, RATE, 48_000)
FLAC = container("flac", "flac", SOUND)
UPLOADED = Bounds(max_seconds=60.0, min_seconds=0.1, silence=False)


def decoded(data: bytes, **given: Any) -> bytes:
    return b"".join(SoundFile(BytesIO(data), "a.wav", **given).pieces())


def refusal(data: bytes, **given: Any) -> str:
    with pytest.raises(AudioError) as refused:
        decoded(data, **{"bounds": UPLOADED, **given})
    message = str(refused.value)
    assert "\n" not in message
    assert message.startswith("a.wav ")
    return message.removeprefix("a.wav ")


@pytest.mark.parametrize(
    ("kind", "codec", "rate", "channels", "seekable"),
    [
        ("wav", "pcm_s16le", 48_000, 2, True),
        ("wav", "pcm_mulaw", 48_000, 1, True),
        ("wav", "pcm_f32le", 48_000, 1, False),
        ("mp3", "libmp3lame", 48_000, 2, True),
        ("mp3", "libmp3lame", 48_000, 1, False),
        ("mp2", "mp2", 48_000, 1, True),
        ("mpeg", "mp2", 48_000, 1, True),
        ("ipod", "aac", 48_000, 1, True),
        ("mp4", "aac", 48_000, 2, True),
        ("mov", "pcm_s16le", 48_000, 2, True),
        ("adts", "aac", 48_000, 2, True),
        ("ogg", "libopus", 48_000, 1, True),
        ("ogg", "vorbis", 48_000, 2, True),
        ("ogg", "flac", 48_000, 1, True),
        ("flac", "flac", 48_000, 2, True),
        ("flac", "flac", 48_000, 1, False),
        ("webm", "libopus", 48_000, 2, True),
        ("webm", "libopus", 48_000, 1, False),
        ("matroska", "aac", 48_000, 1, True),
        ("aiff", "pcm_s16be", 48_000, 1, True),
        ("au", "pcm_s16be", 48_000, 1, True),
        ("caf", "pcm_s16le", 48_000, 1, True),
        ("w64", "pcm_s16le", 48_000, 1, True),
    ],
)
def test_every_container_decodes_to_the_same_sound(
    kind: str, codec: str, rate: int, channels: int, seekable: bool
) -> None:
    made = container(kind, codec, SOUND_48, rate=rate, channels=channels, seekable=seekable)
    file = SoundFile(BytesIO(made), bounds=UPLOADED)
    heard = b"".join(file.pieces())
    likeness, late = alike(SOUND, heard)
    assert likeness > 0.9
    assert late <= 1_200
    assert file.seconds == len(heard) / 2 / RATE == pytest.approx(3.0, abs=0.11)


@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 44_100])
def test_sound_is_decoded_at_the_requested_rate(rate: int) -> None:
    heard = decoded(FLAC, rate=rate)
    assert len(heard) / 2 / rate == pytest.approx(3.0, abs=0.001)
    assert alike(resample(SOUND, RATE, 8_000), resample(heard, rate, 8_000))[0] > 0.99


@pytest.mark.parametrize("seconds", [0.02, 0.5, 1.0, 2.5, 10.0])
def test_pieces_have_one_length_and_make_the_whole(seconds: float) -> None:
    pieces = list(SoundFile(BytesIO(FLAC)).pieces(seconds))
    assert {len(piece) for piece in pieces[:-1]} <= {int(2 * RATE * seconds)}
    assert 0 < len(pieces[-1]) <= 2 * RATE * seconds
    assert b"".join(pieces) == SOUND


def test_seconds_counts_what_was_decoded() -> None:
    file = SoundFile(BytesIO(FLAC))
    pieces = file.pieces(0.5)
    assert file.seconds == 0.0
    next(pieces)
    assert 0.5 <= file.seconds < 0.7


class Counted(io.BytesIO):
    """A file with a name that leads astray, which counts the bytes that are read."""

    name = "playlist.m3u8"
    taken = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.taken += len(data)
        return data


def test_first_piece_reads_what_it_needs_after_the_scan_for_joined_files() -> None:
    source = Counted(container("flac", "flac", SOUND * 60))
    whole = len(source.getvalue())
    pieces = SoundFile(source).pieces()
    next(pieces)
    assert source.taken < whole * 1.1  # once whole, for joined files, and what the piece needs
    assert sum(map(len, pieces)) == len(SOUND * 60) - 2 * RATE


def test_closing_the_iterator_leaves_the_source_open() -> None:
    source = BytesIO(FLAC)
    pieces = SoundFile(source).pieces(0.1)
    next(pieces)
    pieces.close()
    assert list(pieces) == []
    assert not source.closed


class Watched(SoundFile):
    """Keeps what it reads with, so that nothing is given back by chance."""

    reader: Generator[bytes]

    def _decoded(self) -> Generator[bytes]:
        self.reader = super()._decoded()
        return self.reader


@pytest.mark.parametrize("bounds", [Bounds(), Bounds(max_seconds=0.05)])
def test_reader_is_closed_with_the_iterator_or_by_an_error(bounds: Bounds) -> None:
    file = Watched(BytesIO(FLAC), bounds=bounds)
    with suppress(AudioError), closing(file.pieces(0.01)) as pieces:
        next(pieces)
    assert next(file.reader, None) is None


def test_spooled_file_is_read_from_its_start() -> None:
    with SpooledTemporaryFile() as source:
        source.write(FLAC)
        assert b"".join(SoundFile(source).pieces()) == SOUND


@pytest.mark.parametrize("claim", ["wav", "opus"])
def test_streamed_file_is_read(claim: Any) -> None:
    encoder = FileEncoder(claim)
    made = encoder.feed(SOUND) + encoder.finish()
    assert alike(SOUND, decoded(made, bounds=UPLOADED))[0] > 0.99


def test_raw_sound_is_read_as_declared() -> None:
    assert decoded(SOUND, raw=Raw()) == SOUND
    assert decoded(SOUND_48, raw=Raw(rate=48_000)) == resample(SOUND_48, 48_000, RATE)
    assert decoded(SOUND, raw=Raw(), rate=16_000) == resample(SOUND, RATE, 16_000)
    for law in ("audio/pcmu", "audio/pcma"):
        heard = decoded(encode(SOUND, law), raw=Raw(law, 8_000))
        assert len(heard) == len(SOUND)
        assert alike(SOUND, heard)[0] > 0.99


@pytest.mark.parametrize("rate", [-1, 0, 3_999, 192_001, 10**9])
def test_raw_sound_of_an_impossible_rate_is_refused(rate: int) -> None:
    with pytest.raises(AudioError, match=rf"^raw audio of {rate} Hz cannot be read: 4000 to "):
        Raw(rate=rate)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (SOUND, "is not an audio file that can be read: Invalid data"),
        (b"Dear sir or madam,\n" * 1_000, "is not an audio file that can be read: Invalid data"),
        (b"\0" * 100_000, "is not an audio file that can be read: Invalid data"),
        (np.random.default_rng(1).bytes(100_000), "is not an audio file that can be read: Invalid"),
        (b"%PDF-1.7\n" + FLAC, "is not an audio file that can be read: it is a PDF document"),
        (b"\x89PNG\r\n\x1a\n" + FLAC, "is not an audio file that can be read: it is an image"),
        (streaming_header(RATE), "has no audio in it"),
        (streaming_header(RATE) + SOUND[:2_000], "is shorter than 0.1 s"),
        (streaming_header(RATE) + bytes(9_600), "is silent from its start to its end"),
        (container("mp3", "libmp3lame", bytes(48_000)), "is silent from its start to its end"),
        (container("ipod", "aac", bytes(48_000)), "is silent from its start to its end"),
        (container("flac", "flac", SOUND * 21), "lasts longer than 60 s"),
        (container("mp3", "libmp3lame", SOUND * 21), "lasts longer than 60 s"),
    ],
)
def test_unreadable_bytes_are_refused_with_a_reason(data: bytes, reason: str) -> None:
    assert refusal(data).startswith(reason)


def test_zip_of_sound_is_refused() -> None:
    made = BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("a.mp3", container("mp3", "libmp3lame", SOUND))
    assert refusal(made.getvalue()) == "is not an audio file that can be read: it is a zip archive"


@pytest.mark.parametrize(
    ("kind", "codec", "share", "reason"),
    [
        ("flac", "flac", 0.5, "is cut off: its last 1."),
        ("webm", "libopus", 0.5, "is cut off: its last 1."),
        ("ipod", "aac", 0.5, "is not an audio file that can be read: Invalid data"),
        ("ogg", "libopus", 0.005, "is not an audio file that can be read: "),
    ],
)
def test_compressed_file_that_is_cut_off_is_refused(
    kind: str, codec: str, share: float, reason: str
) -> None:
    whole = container(kind, codec, SOUND_48, rate=48_000)
    assert refusal(whole[: int(len(whole) * share)]).startswith(reason)


@pytest.mark.parametrize("kind", ["libmp3lame", "flac"])
def test_damaged_frames_lose_only_themselves(kind: str) -> None:
    made = bytearray(container(kind.removeprefix("lib").removesuffix("lame"), kind, SOUND))
    middle = len(made) // 2
    made[middle : middle + 40] = b"\x55" * 40
    heard = decoded(bytes(made), bounds=UPLOADED)
    assert len(heard) / len(SOUND) == pytest.approx(1.0, abs=0.15)


def test_file_with_most_frames_damaged_is_refused() -> None:
    made = bytearray(container("adts", "aac", SOUND))
    for at in range(6_000, len(made) - 9, 1):
        if made[at] == 0xFF and made[at + 1] & 0xF6 == 0xF0:
            made[at + 7 : at + 60] = b"\x55" * 53
    assert refusal(bytes(made)) == "is damaged: most of it cannot be decoded"


def film(codec: str | None) -> bytes:
    """Moving pictures, with the sound or without."""
    made = BytesIO()
    with av.open(made, "w", format="matroska") as file:
        pictures = file.add_stream("mpeg4", rate=25)
        pictures.width, pictures.height, pictures.pix_fmt = 32, 32, "yuv420p"
        sound = None if codec is None else file.add_stream(codec, rate=RATE, layout="mono")
        blank = av.VideoFrame.from_ndarray(np.zeros((48, 32), np.uint8), format="yuv420p")
        for at in range(200):
            blank.pts = at
            file.mux(pictures.encode(blank))
        file.mux(pictures.encode(None))
        if isinstance(sound, av.AudioStream):
            frame = av.AudioFrame.from_ndarray(
                np.frombuffer(SOUND, "<i2").reshape(1, -1), format="s16", layout="mono"
            )
            frame.sample_rate, frame.pts = RATE, 0
            for piece in (*av.AudioResampler(sound.format, "mono", RATE).resample(frame), None):
                file.mux(sound.encode(piece))
    return made.getvalue()


def test_sound_of_a_film_is_decoded() -> None:
    assert alike(SOUND, decoded(film("aac"), bounds=UPLOADED))[0] > 0.99


def test_film_without_sound_or_with_a_rare_codec_is_refused() -> None:
    assert refusal(film(None)) == "has no audio stream"
    assert refusal(film("tta")) == "is not an audio file that can be read: it is tta"


@pytest.mark.parametrize(
    ("kind", "codec"), [("wav", "pcm_s16le"), ("aiff", "pcm_s16be"), ("au", "pcm_s16be")]
)
def test_uncompressed_file_that_is_cut_off_is_heard_as_far_as_it_goes(
    kind: str, codec: str
) -> None:
    whole = container(kind, codec, SOUND_48, rate=48_000)
    heard = decoded(whole[: len(whole) // 2], bounds=UPLOADED)
    assert len(heard) / len(SOUND) == pytest.approx(0.5, abs=0.01)
    assert alike(heard, SOUND)[0] > 0.99


def described(rate: int, bits: int) -> bytes:
    """A WAV file with that in its head."""
    head = struct.pack("<IHHIIHH", 16, 1, 1, rate, rate * bits // 8, max(1, bits // 8), bits)
    return b"RIFF\xff\xff\xff\xffWAVEfmt " + head + b"data\xff\xff\xff\xff" + SOUND[:32_000]


@pytest.mark.parametrize("rate", [1, 3_999, 192_001, 0x7FFFFFFF])
def test_file_of_a_rate_that_no_sound_has_is_refused(rate: int) -> None:
    assert "rate is" in (said := refusal(described(rate, 16))) or said.startswith("is not a sound")


def test_file_without_a_known_codec_is_refused() -> None:
    assert refusal(described(RATE, 0)) == (
        "is not an audio file that can be read: its codec is unknown"
    )


def playlists(secret: Path, port: int) -> Iterator[bytes]:
    hls = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"
    for scheme in ("", "file://", "file:", "concat:", "subfile,,start,0,end,0,,:", "crypto:"):
        yield hls.format(f"{scheme}{secret}").encode()
    yield hls.format(f"http://127.0.0.1:{port}/a.wav").encode()
    yield f"ffconcat version 1.0\nfile {secret}\n".encode()
    yield f"[playlist]\nFile1={secret}\nNumberOfEntries=1\n".encode()
    yield f"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=audio {port} RTP/AVP 0\n".encode()
    yield f'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011">{secret}'.encode()


def test_playlist_opens_neither_file_nor_address(tmp_path: Path) -> None:
    secret = tmp_path / "secret.wav"
    write_wav(secret, SOUND)
    with socket.create_server(("127.0.0.1", 0)) as place:
        place.setblocking(False)
        for listed in playlists(secret, place.getsockname()[1]):
            assert refusal(listed).startswith("is not an audio file that can be read: ")
        with pytest.raises(BlockingIOError):  # nobody came
            place.accept()
    assert list(tmp_path.iterdir()) == [secret]


ABYSS = {
    "wav": streaming_header(RATE)[:40] + struct.pack("<I", 2_000_000_000) + bytes(1),
    "mp4": b"\0\0\0\x18ftypM4A \0\0\0\0M4A mp42\x7f\xff\xff\xf0moov\x7f\xff\xff\xe0udta"
    + bytes(980),
    "id3": b"ID3\x04\0\0\x7f\x7f\x7f\x7fAPIC\x7f\x7f\x7f\x70\0\0" + bytes(980),
    "webm": bytes.fromhex("1a45dfa3874282847765626d1853806701000000800000001549a966")
    + bytes.fromhex("010000008000000063a20fffffff")
    + bytes(980),
    "flac": b"fLaC\x06\xff\xff\xff" + bytes(980),
    "aiff": b"FORM\x7f\xff\xff\xffAIFFCOMM\x7f\xff\xff\xf0" + bytes(980),
}


@pytest.mark.parametrize("kind", ABYSS)
def test_head_that_claims_two_gigabytes_is_refused(kind: str) -> None:
    reasons = ("is cut off", "is not an audio file that can be read", "has no")
    assert refusal(ABYSS[kind]).startswith(reasons)


def test_claims_of_two_gigabytes_cost_no_memory() -> None:
    program = """
import gc, resource, sys
from io import BytesIO
from tests.media.test_decoding import ABYSS, decoded
from vivavoce.errors import AudioError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for data in ABYSS.values():
    try:
        decoded(data)
    except AudioError:
        pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=root)
    assert done.stderr == ""
    assert int(done.stdout) < 32_000  # KiB


def test_hour_takes_no_more_memory_than_a_minute() -> None:
    program = """
import resource, sys
from io import BytesIO
from vivavoce.media.decoding import SoundFile
from vivavoce.media.encoding import FileEncoder
def hear(minutes):
    encoder = FileEncoder("flac", 8_000)
    data = encoder.feed(b"\\1\\0\\xff\\xff" * 24_000 * 30)
    data = bytearray(data)
    for _ in range(minutes - 1):
        data += encoder.feed(b"\\1\\0\\xff\\xff" * 24_000 * 30)
    data += encoder.finish()
    file = SoundFile(BytesIO(bytes(data)), rate=8_000)
    most = max(map(len, file.pieces()))
    assert abs(file.seconds - minutes * 60) < 0.1 and most == 16_000
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
first = hear(2)
print(hear(60) - first)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr == ""
    assert int(done.stdout) < 24_000  # KiB; an hour is 57,600 of PCM


def test_silence_is_accepted_unless_the_bounds_forbid_it() -> None:
    silent = streaming_header(RATE) + bytes(9_600)
    assert decoded(silent) == bytes(9_600)
    soft = streaming_header(RATE) + np.full(4_800, -4, "<i2").tobytes()
    assert decoded(soft, bounds=UPLOADED) == soft[44:]


def test_refusal_leaves_the_source_open() -> None:
    source = BytesIO(SOUND)
    with pytest.raises(AudioError, match=r"^the audio is not an audio file"):
        next(iter(SoundFile(source).pieces()))
    assert gc.collect() >= 0
    assert not source.closed
    assert samples(SOUND).any()
