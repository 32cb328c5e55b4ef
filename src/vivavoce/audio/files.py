"""Sound files: any container to the sound used inside, and that to WAV. Blocks: call from a thread.

Nothing is opened but the file itself, whatever its bytes say. FFmpeg, under PyAV, is handed bytes
in memory; it may use the demuxers listed here, none of which follows a reference, and no protocol.
"""

import wave
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from vivavoce.audio.formats import RATE
from vivavoce.errors import AudioError

if TYPE_CHECKING:
    from av.container import InputContainer

_CONTAINERS = "aac,ac3,aiff,amr,asf,au,caf,flac,flv,matroska,mov,mp3,ogg,w64,wav,webm"


def read(data: bytes | Path, name: str = "", *, max_seconds: float = 3600.0) -> bytes:
    """All sound of a file, or of its bytes, as PCM.

    `name` is what messages call it: by default the file's own name. Raises AudioError: the file is
    missing, is no sound that can be read, has no samples, or lasts longer than `max_seconds` (a few
    compressed bytes can be days of silence).
    """
    # Imported here because it takes 50 ms and 18 MB, and many a server never meets a file.
    import av

    if isinstance(data, Path):
        name = name or data.name
        try:
            data = data.read_bytes()
        except OSError as exc:
            raise AudioError(f"{name} cannot be read: {exc.strerror}") from exc
    name = name or "the sound"
    if not data:
        raise AudioError(f"{name} is empty")
    options = {"format_whitelist": _CONTAINERS, "protocol_whitelist": ""}
    try:
        with av.open(
            BytesIO(data), mode="r", options=options, metadata_errors="replace"
        ) as container:
            pcm = _decoded(container, name, int(2 * RATE * max_seconds))
    except av.FFmpegError as exc:
        raise AudioError(f"{name} is not a sound file that can be read: {exc.strerror}") from exc
    except ValueError as exc:  # the resampler was made for the first frame
        raise AudioError(f"{name} changes its rate or channels on the way") from exc
    if not pcm:
        raise AudioError(f"{name} has no sound in it")
    return pcm


def _decoded(container: "InputContainer", name: str, limit: int) -> bytes:
    import av  # here for the reason given above

    if not container.streams.audio:
        raise AudioError(f"{name} has no audio stream")
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
    pcm = bytearray()
    for frame in container.decode(audio=0):
        for piece in resampler.resample(frame):
            pcm += bytes(piece.planes[0])[: 2 * piece.samples]  # a plane is padded
        if len(pcm) > limit:
            raise AudioError(f"{name} lasts longer than {limit // (2 * RATE)} s")
    for piece in resampler.resample(None):
        pcm += bytes(piece.planes[0])[: 2 * piece.samples]
    return bytes(pcm)


def write_wav(path: Path, pcm24: bytes) -> None:
    """Write PCM as a WAV file, wholly or not at all. Raises AudioError."""
    written = path.with_name(path.name + ".part")
    try:
        with written.open("wb") as raw, wave.open(raw, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes(pcm24)
        written.replace(path)
    except OSError as exc:
        with suppress(OSError):
            written.unlink()
        raise AudioError(f"{path.name} cannot be written: {exc.strerror}") from exc
