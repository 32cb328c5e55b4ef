"""Uploads: forms with a file in them, read as they come, the file into a temporary one, bounded.

RFC 7578. The part named `file` is the file, whatever else its header says: some clients send no
file name, many a wrong content type. Beyond a megabyte a file is kept in a temporary file without a
name, which is deleted with the form.

Bare samples cannot be recognised by their bytes: clients must declare them, by a content type such
as `audio/pcm;rate=16000` or a name such as call.pcm. What begins like a sound file is one.
"""

import asyncio
import errno
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast

import msgspec
from aiohttp import BodyPartReader, MultipartReader, web
from aiohttp.http_exceptions import HttpProcessingError

from vivavoce.api.requests import late, undecodable
from vivavoce.audio.formats import RATE, Format
from vivavoce.errors import AudioError, InvalidRequest
from vivavoce.media.decoding import Raw
from vivavoce.protocol.rest_audio import TranscriptionRequest
from vivavoce.runtime.concurrency import in_thread

log = logging.getLogger(__name__)

MAX_FILE_BYTES = 25 << 20
"""The default; OpenAI's limit."""
MAX_MEMORY_BYTES = 1 << 20
"""A file no larger stays in memory."""
START_BYTES = 16
MAX_FIELD_BYTES = 8 << 20
"""The most bytes of all other fields together: references of speakers are audio."""
MAX_PARTS = 100
READ_TIMEOUT_S = 600.0
"""For the whole form."""
_PIECE_BYTES = 1 << 16
_ENVELOPE_BYTES = 1 << 20  # boundaries, headers of parts, what stands before and behind them
_FILE = "file"
_FIELDS = TranscriptionRequest.__struct_fields__
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_BY_TYPE: dict[str, Format] = {
    "audio/pcm": "audio/pcm",
    "audio/raw": "audio/pcm",
    "audio/x-raw": "audio/pcm",
    "audio/pcmu": "audio/pcmu",
    "audio/pcma": "audio/pcma",
}
_BY_ENDING: dict[str, Format] = {
    "pcm": "audio/pcm",
    "raw": "audio/pcm",
    "s16le": "audio/pcm",
    "ulaw": "audio/pcmu",
    "alaw": "audio/pcma",
}
_HEADS = (
    *(b"RIFF", b"RF64", b"OggS", b"fLaC", b"ID3", b"FORM", b"caff", b".snd", b"riff"),
    *(b"\x1aE\xdf\xa3", b"#!AMR", b"FLV", b"0&\xb2u", b"PK\x03\x04"),
)
_MP4 = b"ftyp"  # from the fifth byte on


class Form(msgspec.Struct):
    """The form as it was received. The file is at its beginning; received() closes it."""

    file: BinaryIO
    size: int = 0
    """Bytes of the file."""
    name: str = ""
    """The client's name of the file; it is never opened by that name."""
    content_type: str = ""
    """The content type that the client declares, which is often wrong."""
    start: bytes = b""
    """The first bytes of the file, by which its kind is recognised."""
    fields: dict[str, list[str]] = msgspec.field(default_factory=dict)
    """Values of the other fields, in their order, without the `[]` of a list in the name."""
    misplaced: str | None = None
    """The name of another field that contains a file."""


@asynccontextmanager
async def received(
    request: web.Request, *, max_bytes: int = MAX_FILE_BYTES, timeout_s: float = READ_TIMEOUT_S
) -> AsyncGenerator[Form]:
    """The form of a request.

    Raises InvalidRequest, and an HTTPException: 408 not in time, 413 too large, 415 no form, 503 or
    507 it cannot be stored.
    """
    if request.content_type != "multipart/form-data":
        raise web.HTTPUnsupportedMediaType(
            text="Send the recording as multipart/form-data, in a field named file."
        )
    if (request.content_length or 0) > max_bytes + MAX_FIELD_BYTES + _ENVELOPE_BYTES:
        raise _too_large(max_bytes)
    with SpooledTemporaryFile(MAX_MEMORY_BYTES) as file:
        form = Form(cast(BinaryIO, file))  # it is one but for its type
        try:
            async with asyncio.timeout(timeout_s):
                await _FormReader(request, form, max_bytes).read()
        except TimeoutError as exc:
            raise late(timeout_s) from exc
        except web.RequestPayloadError as exc:
            raise undecodable(request) from exc
        except (ValueError, RuntimeError, AssertionError, HttpProcessingError) as exc:
            # aiohttp's errors for what is not a form
            raise InvalidRequest(
                "The body of the request is not a valid multipart form.",
                code="invalid_multipart",
            ) from exc
        await in_thread(file.seek, 0)
        yield form


class _FormReader:
    """Reads one form."""

    def __init__(self, request: web.Request, form: Form, max_bytes: int) -> None:
        self._parts = MultipartReader(request.headers, request.content)
        self._content = request.content
        self._form = form
        self._max_bytes = max_bytes
        self._fields_left = MAX_FIELD_BYTES
        self._refusal: Exception | None = None  # of a field

    async def read(self) -> None:
        count, had_file = 0, False
        while (part := await self._parts.next()) is not None:
            count += 1
            if count > MAX_PARTS or not isinstance(part, BodyPartReader):
                raise ValueError("too many parts, or one within another")
            name = (part.name or "").removesuffix("[]")
            if name != _FILE:
                await self._read_field(part, name)
            elif had_file:
                raise InvalidRequest("There is more than one file.", param=_FILE)
            else:
                had_file = True
                await self._keep_file(part)
            self._check_size()
        self._check_file(had_file)

    def _check_file(self, had_file: bool) -> None:
        if self._refusal is not None and (had_file or self._form.misplaced in _FIELDS):
            raise self._refusal
        if not had_file:
            message = "Missing required parameter: 'file'."
            if self._form.misplaced is not None:
                message += f" A file was sent in the field {self._form.misplaced[:100]!r}."
            raise InvalidRequest(message, code="missing_required_parameter", param=_FILE)
        if not self._form.size:
            raise InvalidRequest("The file is empty.", code="invalid_audio", param=_FILE)

    async def _keep_file(self, part: BodyPartReader) -> None:
        form = self._form
        form.name = part.filename or ""
        form.content_type = part.headers.get("Content-Type", "")
        while piece := await _piece(part):
            form.size += len(piece)
            form.start = form.start or piece[:START_BYTES]
            if form.size > self._max_bytes:
                raise _too_large(self._max_bytes)
            try:
                if form.size <= MAX_MEMORY_BYTES:
                    form.file.write(piece)
                else:
                    await in_thread(form.file.write, piece)
            except OSError as exc:
                raise _not_stored(exc) from exc

    async def _read_field(self, part: BodyPartReader, name: str) -> None:
        """Take the value of a field; of one that is a file, only the name."""
        value = bytearray()
        while piece := await _piece(part):
            self._check_size()
            if not part.filename and len(value) <= self._fields_left:
                value += piece
        if part.filename:
            self._form.misplaced = name
        elif len(value) > self._fields_left:
            self._form.misplaced, self._refusal = name, _too_large(self._max_bytes)
        else:
            self._fields_left -= len(value)
            try:
                self._form.fields.setdefault(name, []).append(value.decode())
            except UnicodeDecodeError:
                self._form.misplaced = name
                self._refusal = InvalidRequest(f"The value of {name!r} is not UTF-8.", param=name)

    def _check_size(self) -> None:
        if self._content.total_bytes > self._max_bytes + MAX_FIELD_BYTES + _ENVELOPE_BYTES:
            raise _too_large(self._max_bytes)


async def _piece(part: BodyPartReader) -> bytes:
    """The next piece of a part; b"" at its end."""
    while not part.at_eof():
        if piece := part.decode(await part.read_chunk(_PIECE_BYTES)):  # base64, if it says so
            return bytes(piece)
    return b""


def _too_large(max_bytes: int) -> web.HTTPRequestEntityTooLarge:
    return web.HTTPRequestEntityTooLarge(max_bytes, 0)


def _not_stored(exc: OSError) -> web.HTTPException:
    log.error("an upload cannot be stored: %s", exc)
    if exc.errno in _DISK_FULL:
        return web.HTTPInsufficientStorage(text="The server has no space left to store the file.")
    return web.HTTPServiceUnavailable(text="The server cannot store the file at present.")


def raw_audio(form: Form) -> Raw | None:
    """How the file is to be read if it is bare samples; else None. Raises InvalidRequest."""
    if form.start.startswith(_HEADS) or form.start[4:8] == _MP4:
        return None
    kind, *parameters = (part.strip() for part in form.content_type.lower().split(";"))
    ending = form.name.rpartition(".")[2].lower()
    format_ = _BY_TYPE.get(kind) or _BY_ENDING.get(ending)
    if format_ is None:
        return None
    rates = [part.removeprefix("rate=") for part in parameters if part.startswith("rate=")]
    rate = rates[0].strip('"') if rates else str(RATE)
    if not (rate.isascii() and rate.isdecimal() and len(rate) < 10):
        raise InvalidRequest(f"The rate {rate[:20]!r} is not a number of hertz.", param=_FILE)
    try:
        return Raw(format_, int(rate))
    except AudioError as exc:
        raise InvalidRequest(sentence(exc), code="invalid_audio", param=_FILE) from exc


def sentence(exc: AudioError) -> str:
    """The error as a sentence for an HTTP answer."""
    return f"{str(exc)[0].upper()}{str(exc)[1:]}."
