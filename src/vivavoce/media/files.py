"""Whole audio files: any container to PCM, and PCM to WAV. Blocks: call from a thread."""

import struct
import wave
from contextlib import suppress
from io import BytesIO
from pathlib import Path

from vivavoce.audio.formats import RATE
from vivavoce.errors import AudioError
from vivavoce.media.decoding import Bounds, SoundFile

UNKNOWN_LENGTH = 0xFFFFFFFF
"""The length in the header of a WAV file that is sent before its end is known."""


def streaming_header(rate: int) -> bytes:
    """The 44 bytes of a WAV file before 16-bit mono PCM of unknown length."""
    return b"".join(
        (
            struct.pack("<4sI4s", b"RIFF", UNKNOWN_LENGTH, b"WAVE"),
            struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16),
            struct.pack("<4sI", b"data", UNKNOWN_LENGTH),
        )
    )


def read(data: bytes | Path, name: str = "", *, max_seconds: float = 3600.0) -> bytes:
    """All audio of a file, or of its bytes, as PCM.

    Nothing but the file itself is opened, whatever its bytes refer to. `name`: the file in error
    messages, by default its own name. Raises AudioError: the file is missing, is not audio that can
    be read, has no samples, or is longer than `max_seconds` (a few compressed bytes can be days of
    silence).
    """
    if isinstance(data, Path):
        name = name or data.name
        try:
            data = data.read_bytes()
        except OSError as exc:
            raise AudioError(f"{name} cannot be read: {exc.strerror}") from exc
    file = SoundFile(BytesIO(data), name or "the audio", bounds=Bounds(max_seconds=max_seconds))
    return b"".join(file.pieces())


def write_wav(path: Path, pcm24: bytes) -> None:
    """Write PCM as a WAV file, completely or not at all. Raises AudioError.

    A device or a pipe is written to directly.
    """
    whole = path.is_file() or not path.exists()
    written = path.with_name(path.name + ".part") if whole else path
    try:
        with written.open("wb") as raw:
            raw.write(_wav(pcm24))
        if whole:
            written.replace(path)
    except OSError as exc:
        if whole:
            with suppress(OSError):
                written.unlink()
        raise AudioError(f"{path} cannot be written: {exc.strerror}") from exc


def _wav(pcm24: bytes) -> bytes:
    made = BytesIO()
    with wave.open(made, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(pcm24)
    return made.getvalue()
