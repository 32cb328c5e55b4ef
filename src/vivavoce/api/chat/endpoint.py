"""Language models that are a chat-completions endpoint themselves, and get requests unchanged."""

import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any, Protocol, runtime_checkable

from aiohttp import web
from multidict import CIMultiDict

from vivavoce.api.sse import error_body, write
from vivavoce.errors import EngineError

log = logging.getLogger(__name__)

_MAX_WHOLE_BYTES = 1 << 20
"""An answer of known length, up to this one, is sent in one piece."""

# RFC 9110, 7.6.1: fields of one connection only
_HOP_BY_HOP = "connection keep-alive proxy-connection te trailer transfer-encoding upgrade"
_OF_THAT_SERVER = "alt-svc date server set-cookie strict-transport-security x-request-id"
_NOT_PASSED = frozenset(
    f"{_HOP_BY_HOP} {_OF_THAT_SERVER} proxy-authenticate proxy-authorization".split()
)
_NOT_PASSED_IF_CODED = frozenset(("content-encoding", "content-length"))


class EndpointAnswer(Protocol):
    """The answer of the endpoint. Read it once, in one of three ways; all may raise EngineError."""

    status: int
    headers: Mapping[str, str]

    def parts(self) -> AsyncGenerator[bytes]:
        """As it comes."""
        ...

    async def completion(self) -> dict[str, Any]:
        """A whole chat completion, to be spoken."""
        ...

    def chunks(self) -> AsyncGenerator[dict[str, Any]]:
        """A streamed one, to be spoken."""
        ...


@runtime_checkable
class ChatEndpoint(Protocol):
    """The methods that such a model has in addition to those of language models."""

    async def model(self) -> str:
        """The model that the settings mean. Raises EngineError."""
        ...

    def forward(
        self, body: bytes, *, spoken: bool = False
    ) -> AbstractAsyncContextManager[EndpointAnswer]:
        """Forward a request. `spoken`: the answer is spoken as it comes. Raises EngineError."""
        ...


def passed(headers: Mapping[str, str]) -> CIMultiDict[str]:
    """The headers of an answer that are passed on to our client."""
    dropped = set(_NOT_PASSED)
    dropped.update(name.strip().lower() for name in headers.get("Connection", "").split(","))
    if headers.get("Content-Encoding", "identity") != "identity":
        dropped |= _NOT_PASSED_IF_CODED  # the client has decoded it
    return CIMultiDict(
        (name, value)
        for name, value in headers.items()
        if name.lower() not in dropped and not name.lower().startswith("access-control-")
    )


async def pass_on(
    request: web.Request, answer: EndpointAnswer, seen: Callable[[bytes], None]
) -> web.StreamResponse:
    """Pass on the answer unchanged: status, headers, and the body as it comes. seen: called with
    each part."""
    headers = passed(answer.headers)
    length = headers.get("Content-Length", "")
    async with aclosing(answer.parts()) as parts:
        if length.isdecimal() and int(length) <= _MAX_WHOLE_BYTES:
            body = b"".join([part async for part in parts])
            seen(body)
            return web.Response(status=answer.status, headers=headers, body=body)
        response = web.StreamResponse(status=answer.status, headers=headers)
        await response.prepare(request)
        try:
            async for part in parts:
                seen(part)
                await write(request, response, part)
        except EngineError as exc:
            if response.content_type != "text/event-stream":
                # Too late for an error message; at least the answer must not look complete.
                log.warning("a chat completion failed: %s", exc)
                raise ConnectionResetError("the endpoint closed the stream early") from exc
            await write(request, response, b"\n\ndata: " + error_body(exc, request) + b"\n\n")
        await response.write_eof()
        return response
