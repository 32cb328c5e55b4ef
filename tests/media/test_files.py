import os
import subprocess
import sys
import wave
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pytest

from vivavoce.audio.formats import RATE
from vivavoce.errors import AudioError
from vivavoce.media.files import read, write_wav

FULL = Path("/dev/full")
TONE = (9_000 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)).astype("<i2")


def container(kind: str, codec: str, *, rate: int = RATE, channels: int = 1) -> bytes:
    """A second of sound in a file of that kind."""
    layout = "mono" if channels == 1 else "stereo"
    heard = 9_000 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    samples = np.repeat(heard.astype(np.int16), channels).reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(samples, format="s16", layout=layout)
    frame.sample_rate, frame.pts = rate, 0
    made = BytesIO()
    with av.open(made, "w", format=kind) as file:
        stream = file.add_stream(codec, rate=rate, layout=layout)
        assert isinstance(stream, av.AudioStream)
        planar = av.AudioResampler(format=stream.format, layout=layout, rate=rate)
        for piece in (*planar.resample(frame), None):
            file.mux(stream.encode(piece))
    return made.getvalue()


@pytest.mark.parametrize(
    ("kind", "codec", "rate", "channels"),
    [
        ("wav", "pcm_s16le", 24_000, 1),
        ("wav", "pcm_s16le", 44_100, 2),
        ("wav", "pcm_mulaw", 8_000, 1),
        ("flac", "flac", 16_000, 1),
        ("mp3", "mp3", 44_100, 2),
        ("ogg", "libopus", 48_000, 1),
        ("webm", "libopus", 48_000, 2),
        ("mp4", "aac", 48_000, 1),
        ("adts", "aac", 48_000, 1),
    ],
)
def test_containers_are_read_as_24_khz_mono(
    kind: str, codec: str, rate: int, channels: int
) -> None:
    pcm = read(container(kind, codec, rate=rate, channels=channels))
    assert len(pcm) / 2 / RATE == pytest.approx(1.0, abs=0.1)
    heard = np.frombuffer(pcm, "<i2").astype(float)[4_000:20_000]
    spectrum = np.abs(np.fft.rfft(heard))
    assert np.argmax(spectrum) * RATE / len(heard) == pytest.approx(440, abs=2)
    assert np.sqrt(2 * np.mean(heard**2)) == pytest.approx(9_000, rel=0.1)


def test_written_wav_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "tone.wav"
    write_wav(path, TONE.tobytes())
    assert read(path) == TONE.tobytes()
    assert read(path.read_bytes(), "upload") == TONE.tobytes()
    with wave.open(str(path)) as file:
        assert file.getparams()[:4] == (1, 2, RATE, RATE)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "question.wav is empty"),
        (b"hello" * 1000, "question.wav is not an audio file that can be read: Invalid data"),
        (b"RIFF\0\0\0\0WAVE", "question.wav is not an audio file that can be read: "),
        (container("wav", "pcm_s16le")[:78], "question.wav has no audio in it"),
    ],
)
def test_bytes_that_are_no_sound_are_refused_by_name(data: bytes, message: str) -> None:
    with pytest.raises(AudioError) as refusal:
        read(data, "question.wav")
    assert str(refusal.value).startswith(message)


def test_bytes_without_a_name_are_refused() -> None:
    with pytest.raises(AudioError, match=r"^the audio is empty$"):
        read(b"")


def test_picture_without_sound_is_refused() -> None:
    made = BytesIO()
    with av.open(made, "w", format="matroska") as file:
        stream = file.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        blank = av.VideoFrame.from_ndarray(np.zeros((48, 32), np.uint8), format="yuv420p")
        for picture in (blank, None):
            file.mux(stream.encode(picture))
    with pytest.raises(AudioError, match=r"^clip\.mkv has no audio stream$"):
        read(made.getvalue(), "clip.mkv")


def test_missing_file_and_directory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"^absent\.wav cannot be read: No such file"):
        read(tmp_path / "absent.wav")
    with pytest.raises(AudioError, match=r"^the folder cannot be read: Is a directory"):
        read(tmp_path, "the folder")


def test_sound_longer_than_allowed_is_refused() -> None:
    days_of_silence_in_little = container("flac", "flac")
    assert len(read(days_of_silence_in_little, max_seconds=1.0)) == 2 * RATE
    with pytest.raises(AudioError, match=r"^long\.flac lasts longer than 0 s$"):
        read(days_of_silence_in_little, "long.flac", max_seconds=0.5)


def test_list_that_names_another_file_opens_nothing(tmp_path: Path) -> None:
    secret = tmp_path / "secret.wav"
    write_wav(secret, TONE.tobytes())
    listed = f"ffconcat version 1.0\nfile {secret}\n".encode()
    # What is at stake: FFmpeg left to itself follows the list.
    bold = {"safe": "0", "protocol_whitelist": "file"}
    with av.open(BytesIO(listed), "r", options=bold) as followed:
        assert sum(frame.samples for frame in followed.decode(audio=0)) == RATE
    with pytest.raises(AudioError, match=r"^list\.txt is not an audio file"):
        read(listed, "list.txt")


@pytest.mark.parametrize("scheme", ["file://", "", "concat:", "http://127.0.0.1:9"])
def test_playlist_opens_nothing(tmp_path: Path, scheme: str) -> None:
    secret = tmp_path / "secret.wav"
    write_wav(secret, TONE.tobytes())
    listed = (
        "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n"
        f"{scheme}{secret}\n#EXT-X-ENDLIST\n"
    )
    (tmp_path / "list.m3u8").write_text(listed)
    for source in (tmp_path / "list.m3u8", listed.encode()):
        with pytest.raises(AudioError, match=r"is not an audio file that can be read"):
            read(source)


def test_unwritable_path_is_named_and_left_unchanged(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"^/.*/answer\.wav cannot be written: No such file"):
        write_wav(tmp_path / "absent" / "answer.wav", b"")
    taken = tmp_path / "taken.wav"
    taken.mkdir()
    with pytest.raises(AudioError, match=r"^/.*/taken\.wav cannot be written: Is a directory"):
        write_wav(taken, b"")
    assert list(tmp_path.iterdir()) == [taken]


def test_pipe_is_written_into_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "player"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE) as player:
        write_wav(pipe, TONE.tobytes())
        heard = player.communicate(timeout=20)[0]
    assert read(heard) == TONE.tobytes()
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


@pytest.mark.skipif(not FULL.is_char_device(), reason="there is no device that is always full")
def test_full_disk_is_an_audio_error(tmp_path: Path) -> None:
    disk = tmp_path / "answer.wav"
    disk.symlink_to(FULL)
    with pytest.raises(AudioError, match=r"^/.*/answer\.wav cannot be written: No space left"):
        write_wav(disk, TONE.tobytes())
    assert disk.is_symlink()


def test_pyav_is_not_loaded_before_a_file_is_read() -> None:
    program = "import sys, vivavoce.media.files; print('av' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("False\n", "")
