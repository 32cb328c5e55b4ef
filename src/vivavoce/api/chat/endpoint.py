"""Language models that are themselves a chat-completions endpoint, and are handed requests."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, runtime_checkable

from multidict import CIMultiDict

# RFC 9110, 7.6.1: what concerns one connection only
_HOP_BY_HOP = "connection keep-alive proxy-connection te trailer transfer-encoding upgrade"
_OF_THAT_SERVER = "alt-svc date server set-cookie strict-transport-security x-request-id"
_NOT_PASSED = frozenset(
    f"{_HOP_BY_HOP} {_OF_THAT_SERVER} proxy-authenticate proxy-authorization".split()
)
_NOT_PASSED_IF_CODED = frozenset(("content-encoding", "content-length"))


class EndpointAnswer(Protocol):
    """Its answer. Read it once, in one of three ways; all may raise EngineError."""

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
    """What such a model offers besides the contract of language models."""

    async def model(self) -> str:
        """The model that the settings mean. Raises EngineError."""
        ...

    def forward(
        self, body: bytes, *, spoken: bool = False
    ) -> AbstractAsyncContextManager[EndpointAnswer]:
        """Hand on a request. `spoken`: someone waits to hear the answer. Raises EngineError."""
        ...


def passed(headers: Mapping[str, str]) -> CIMultiDict[str]:
    """The headers of an answer that concern whoever asked us."""
    dropped = set(_NOT_PASSED)
    dropped.update(name.strip().lower() for name in headers.get("Connection", "").split(","))
    if headers.get("Content-Encoding", "identity") != "identity":
        dropped |= _NOT_PASSED_IF_CODED  # the client has decoded it
    return CIMultiDict(
        (name, value)
        for name, value in headers.items()
        if name.lower() not in dropped and not name.lower().startswith("access-control-")
    )
