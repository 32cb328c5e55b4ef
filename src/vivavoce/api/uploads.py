"""Bodies of requests, bounded in length and in time. A file in a form goes to a temporary file.

Forms: RFC 7578. A part named `file` is the file, whatever else its header says: some clients send
no file name, many a wrong content type. Beyond a megabyte the file is kept on disk without a name,
and is deleted with the form.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast

from aiohttp import BodyPartReader, MultipartReader, web
from aiohttp.http_exceptions import HttpProcessingError

from vivavoce.errors import InvalidRequest
from vivavoce.runtime.blocking import blocking

MOST_BYTES = 25 << 20
"""Of the file, unless it is said otherwise: OpenAI's limit."""
MEMORY_BYTES = 1 << 20
"""A file no larger stays in memory."""
START_BYTES = 16
FIELD_BYTES = 1 << 20
"""All other fields together."""
MOST_PARTS = 100
READ_SECONDS = 600.0
"""For the whole form."""
_PIECE_BYTES = 1 << 16
_ENVELOPE_BYTES = 1 << 20  # boundaries, headers of parts, what stands before and behind them
_FILE = "file"


@dataclass(slots=True)
class Form:
    """What came. The file is at its beginning; it is closed by whoever opened the form."""

    file: BinaryIO
    size: int = 0
    """Bytes of the file."""
    name: str = ""
    """What the client calls the file; nothing is ever opened by it."""
    content_type: str = ""
    """What the client says that it is, which is often wrong."""
    start: bytes = b""
    """Its first bytes, by which one can tell."""
    fields: dict[str, list[str]] = field(default_factory=dict)
    """Values of the other fields, in their order; a name ends without the `[]` of a list."""


@asynccontextmanager
async def received(
    request: web.Request, *, most_bytes: int = MOST_BYTES, seconds: float = READ_SECONDS
) -> AsyncGenerator[Form]:
    """The form of a request.

    Raises InvalidRequest, and an HTTPException: 408 not in time, 413 too large, 415 no form.
    """
    if request.content_type != "multipart/form-data":
        raise web.HTTPUnsupportedMediaType(
            text="Send the recording as multipart/form-data, in a field named file."
        )
    if (request.content_length or 0) > most_bytes + FIELD_BYTES + _ENVELOPE_BYTES:
        raise _too_large(most_bytes)
    with SpooledTemporaryFile(MEMORY_BYTES) as file:
        form = Form(cast(BinaryIO, file))  # it is one but for its type
        try:
            async with asyncio.timeout(seconds):
                await _read(request, form, most_bytes)
        except TimeoutError as exc:
            raise web.HTTPRequestTimeout(
                text=f"The request did not come to its end within {seconds:g} s."
            ) from exc
        except (ValueError, RuntimeError, AssertionError, HttpProcessingError) as exc:
            # the ways in which aiohttp says that it is no form
            raise InvalidRequest(
                "The body of the request is not a valid multipart form.",
                code="invalid_multipart",
            ) from exc
        await blocking(file.seek, 0)
        yield form


async def _read(request: web.Request, form: Form, most_bytes: int) -> None:
    reader = MultipartReader(request.headers, request.content)
    parts, had_file, left = 0, False, FIELD_BYTES
    while (part := await reader.next()) is not None:
        parts += 1
        if parts > MOST_PARTS or not isinstance(part, BodyPartReader):
            raise ValueError("too many parts, or one within another")
        name = (part.name or "").removesuffix("[]")
        if name == _FILE:
            if had_file:
                raise InvalidRequest("There is more than one file.", param=_FILE)
            had_file = True
            form.name = part.filename or ""
            form.content_type = part.headers.get("Content-Type", "")
            await _keep(part, form, most_bytes)
        else:
            value = await _value(part, left, most_bytes)
            left -= len(value)
            form.fields.setdefault(name, []).append(_text(value, name))
        if request.content.total_bytes > most_bytes + FIELD_BYTES + _ENVELOPE_BYTES:
            raise _too_large(most_bytes)
    if not had_file:
        raise InvalidRequest(
            "Missing required parameter: 'file'.", code="missing_required_parameter", param=_FILE
        )
    if not form.size:
        raise InvalidRequest("The file is empty.", code="invalid_audio", param=_FILE)


async def _keep(part: BodyPartReader, form: Form, most_bytes: int) -> None:
    while piece := await _piece(part):
        form.size += len(piece)
        form.start = form.start or piece[:START_BYTES]
        if form.size > most_bytes:
            raise _too_large(most_bytes)
        if form.size <= MEMORY_BYTES:
            form.file.write(piece)
        else:
            await blocking(form.file.write, piece)


async def _value(part: BodyPartReader, left: int, most_bytes: int) -> bytes:
    value = bytearray()
    while piece := await _piece(part):
        value += piece
        if len(value) > left:
            raise _too_large(most_bytes)
    return bytes(value)


async def _piece(part: BodyPartReader) -> bytes:
    """Some more of a part; b"" is its end."""
    while not part.at_eof():
        if piece := part.decode(await part.read_chunk(_PIECE_BYTES)):  # base64, if it says so
            return bytes(piece)
    return b""


def _text(value: bytes, name: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as exc:
        raise InvalidRequest(f"The value of {name!r} is not UTF-8.", param=name) from exc


def _too_large(most_bytes: int) -> web.HTTPRequestEntityTooLarge:
    return web.HTTPRequestEntityTooLarge(most_bytes, 0)


async def read_body(request: web.Request, max_bytes: int, timeout_s: float) -> bytes:
    """The whole body. Raises HTTPRequestEntityTooLarge and HTTPRequestTimeout."""
    if (request.content_length or 0) > max_bytes:
        raise web.HTTPRequestEntityTooLarge(max_bytes, request.content_length or 0)
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            while part := await request.content.readany():
                body += part
                if len(body) > max_bytes:
                    raise web.HTTPRequestEntityTooLarge(max_bytes, len(body))
    except TimeoutError as exc:
        raise web.HTTPRequestTimeout(
            text=f"The request did not come to its end within {timeout_s:g} s."
        ) from exc
    return bytes(body)
