"""Sound files: any container to the sound used inside, and that to WAV. Blocks: call from a thread.

Nothing is opened but the file itself, whatever its bytes say: see decoding.
"""

import wave
from contextlib import suppress
from io import BytesIO
from pathlib import Path

from vivavoce.audio.decoding import Bounds, SoundFile
from vivavoce.audio.formats import RATE
from vivavoce.errors import AudioError


def read(data: bytes | Path, name: str = "", *, max_seconds: float = 3600.0) -> bytes:
    """All sound of a file, or of its bytes, as PCM.

    `name` is what messages call it: by default the file's own name. Raises AudioError: the file is
    missing, is no sound that can be read, has no samples, or lasts longer than `max_seconds` (a few
    compressed bytes can be days of silence).
    """
    if isinstance(data, Path):
        name = name or data.name
        try:
            data = data.read_bytes()
        except OSError as exc:
            raise AudioError(f"{name} cannot be read: {exc.strerror}") from exc
    file = SoundFile(BytesIO(data), name or "the sound", bounds=Bounds(max_seconds=max_seconds))
    return b"".join(file.pieces())


def write_wav(path: Path, pcm24: bytes) -> None:
    """Write PCM as a WAV file, wholly or not at all. Raises AudioError.

    What is there and is no file, a device or a pipe, is written into and stays what it is.
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
        raise AudioError(f"{path.name} cannot be written: {exc.strerror}") from exc


def _wav(pcm24: bytes) -> bytes:
    made = BytesIO()
    with wave.open(made, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(pcm24)
    return made.getvalue()
