"""A chat-completions server with scripted replies, on a real socket."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message as EmailMessage
from typing import Any, Self, TypeVar

import msgspec
from aiohttp import web

from vivavoce.engines.base import LLM, ChatEvent, ChatRequest
from vivavoce.engines.openai.llm import OpenAILLM, OpenAILLMSettings
from vivavoce.engines.openai.stt import OpenAISTT
from vivavoce.engines.openai.tts import OpenAITTS
from vivavoce.protocol.items import InputText, Message

E = TypeVar("E", OpenAISTT, OpenAITTS)
Reply = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Asked:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: Any
    connection: int
    """Connections are numbered as they come."""
    raw: bytes = b""

    @property
    def form(self) -> dict[str, bytes]:
        """The fields of a multipart form."""
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        parts = message_from_bytes(head + self.raw).get_payload()
        assert isinstance(parts, list)
        found = {}
        for part in parts:
            assert isinstance(part, EmailMessage)
            name = part.get_param("name", header="content-disposition")
            found[str(name)] = bytes(part.get_payload(decode=True) or b"")
        return found


def text(content: str, finish: str | None = None) -> str:
    """The data of a chunk."""
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish}
    return msgspec.json.encode({"choices": [choice]}).decode()


FINISH = text("", "stop")


def frame(*events: str) -> bytes:
    return "".join(f"data: {event}\n\n" for event in events).encode()


async def begin(request: web.Request, *events: str) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    await response.write(frame(*events))
    return response


def streams(*events: str) -> Reply:
    """A whole stream, ended as HTTP wants it."""

    async def reply(request: web.Request) -> web.StreamResponse:
        return await begin(request, *events)

    return reply


def says(*words: str) -> Reply:
    return streams(*map(text, words), FINISH, "[DONE]")


def gives(status: int, body: Any = b"", content_type: str = "", **headers: str) -> Reply:
    """One body; what is not bytes goes as JSON."""
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    kind = content_type or "application/json"
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    async def reply(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=raw, content_type=kind, headers=named)

    return reply


def lists(*names: str, owner: str = "library") -> Reply:
    return gives(200, {"data": [{"id": name, "owned_by": owner} for name in names]})


async def hangs(request: web.Request) -> web.StreamResponse:
    """Never answers; ends when the client goes away."""
    await asyncio.Event().wait()
    raise AssertionError


def falls_silent(*events: str) -> Reply:
    """Sends these, and then nothing more without ending."""

    async def reply(request: web.Request) -> web.StreamResponse:
        await begin(request, *events)
        return await hangs(request)

    return reply


def drops(*events: str) -> Reply:
    """Sends these and closes the connection in the middle of the body; before it, if none."""

    async def reply(request: web.Request) -> web.StreamResponse:
        response = await begin(request, *events) if events else web.Response()
        assert request.transport is not None
        request.transport.close()
        return response

    return reply


@dataclass
class ChatServer:
    """Gives one reply after another; the last one stays for all that follow."""

    replies: list[Reply]
    asked: list[Asked] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a request has come."""
    aborted: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a client goes away in the middle of an answer."""
    host: str = "127.0.0.1"
    port: int = 0
    _connections: list[Any] = field(default_factory=list)

    @property
    def base_url(self) -> str:
        return f"http://{self.host}:{self.port}/v1"

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=1 << 24)
        app.router.add_route("*", "/{path:.*}", self._reply)
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, self.host, 0).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._runner.cleanup()

    async def _reply(self, request: web.Request) -> web.StreamResponse:
        if request.transport not in self._connections:
            self._connections.append(request.transport)
        body = await request.read()
        self.asked.append(
            Asked(
                request.path_qs,
                dict(request.headers),
                msgspec.json.decode(body) if request.content_type == "application/json" else None,
                self._connections.index(request.transport),
                body,
            )
        )
        self.arrived.set()
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        try:
            return await reply(request)
        except asyncio.CancelledError:
            self.aborted.set()
            raise


HELLO = ChatRequest("Be kind.", (Message(role="user", content=(InputText("Hello."),)),))
KEY = "sk-abcdefgh1234"
TICK = 0.05
"""Seconds of a timeout of the engine that a test waits for."""


def engine(server: ChatServer, **options: Any) -> OpenAILLM:
    options = {"base_url": server.base_url, "model": "llama", **options}
    return OpenAILLM(msgspec.convert(options, OpenAILLMSettings))


async def collect(llm: LLM, request: ChatRequest = HELLO) -> list[ChatEvent]:
    async with aclosing(llm.generate(request)) as answer:
        return [event async for event in answer]


def serve(
    *replies: Reply,
    test: Callable[[ChatServer, OpenAILLM], Awaitable[Any]],
    **options: Any,
) -> ChatServer:
    """Run a test against a server that replies so."""

    async def main() -> ChatServer:
        async with ChatServer(list(replies)) as server, engine(server, **options) as llm:
            await test(server, llm)
        return server

    return asyncio.run(main())


def serve_engine(
    engine: type[E],
    *replies: Reply,
    test: Callable[[ChatServer, E], Awaitable[Any]],
    **options: Any,
) -> ChatServer:
    """Run a test with an engine that speaks to a server with these replies; return the server."""

    async def main() -> ChatServer:
        async with ChatServer(list(replies)) as server:
            given = {"base_url": server.base_url, "api_key": KEY, **options}
            async with engine(msgspec.convert(given, engine.Settings)) as entered:
                await test(server, entered)
        return server

    return asyncio.run(main())
