"""The sound formats of chat completions, in and out."""

import asyncio
import struct
from base64 import b64decode
from io import BytesIO

from vivavoce.errors import AudioError
from vivavoce.media.decoding import Bounds, Raw, SoundFile
from vivavoce.media.encoding import FileEncoder, FileFormat

_PIECE = 1 << 20  # characters decoded at once: the interpreter lets others run in between
_WITHOUT_LIBRARY = ("pcm", "wav")
_RIFF_LENGTH, _DATA_LENGTH, _HEADER = 4, 40, 44  # places in a WAV file's head


async def encoder(format_: str) -> FileEncoder:
    """For one answer. FFmpeg takes a while to load, so it does that in a thread."""
    kind: FileFormat = "pcm" if format_ == "pcm16" else format_  # type: ignore[assignment]
    if kind in _WITHOUT_LIBRARY:
        return FileEncoder(kind)
    return await asyncio.to_thread(FileEncoder, kind)


def tell_length(wav: bytearray) -> None:
    """Put into the head of a WAV file, made as a stream, how long it has become."""
    struct.pack_into("<I", wav, _RIFF_LENGTH, len(wav) - 8)
    struct.pack_into("<I", wav, _DATA_LENGTH, len(wav) - _HEADER)


def decoded(data: str, format_: str, *, rate: int, max_seconds: float) -> bytes:
    """PCM of that rate from a recording in base64; a data URI will do. Blocks: use a thread.

    The container is what its bytes say; only pcm16, which has none, must be told. Raises
    AudioError.
    """
    file = SoundFile(
        BytesIO(_bytes(data)),
        "the recording",
        raw=Raw() if format_ == "pcm16" else None,
        rate=rate,
        bounds=Bounds(max_seconds=max_seconds, silence=False),
    )
    return b"".join(file.pieces())


def _bytes(data: str) -> bytes:
    if data.startswith("data:"):
        data = data.partition(",")[2]
    data = "".join(data.split())
    raw = bytearray()
    try:
        if "=" in data[:-2]:
            raise ValueError("base64 goes on after its end")
        for at in range(0, len(data), _PIECE):
            raw += b64decode(data[at : at + _PIECE], validate=True)
    except ValueError as exc:
        raise AudioError("the recording is not valid base64") from exc
    return bytes(raw)
