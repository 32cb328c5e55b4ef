"""The language model behind any OpenAI-compatible chat-completions endpoint."""

import asyncio
import io
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Annotated, Any, Literal, Self

import aiohttp
import msgspec
from msgspec import Meta

from vivavoce.engines.base import ChatEvent, ChatRequest
from vivavoce.engines.openai import chat_messages, chat_stream, model_list
from vivavoce.engines.openai.chat_forward import PATIENCE_SECONDS, Forwarded, Patience, refuses_us
from vivavoce.engines.openai.chat_stream import ChatStream, Chunk
from vivavoce.engines.openai.endpoint import Endpoint, address
from vivavoce.engines.openai.sse import EventReader
from vivavoce.errors import EngineError
from vivavoce.secret import Secret, conceal

_TAIL_SECONDS = 1.0
"""Usage and [DONE] follow the last word at once, or never: the turn does not wait for them."""
_SETTLE_SECONDS = 0.1
_KEEP_SECONDS = 60.0
"""A pause in talk should not cost a new TLS handshake."""
_MAX_REFUSAL_BYTES = 1 << 16
_MAX_ANSWER_BYTES = 1 << 22

Seconds = Annotated[float, Meta(gt=0)]


class OpenAILLMSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which server and model, and how long to wait for them."""

    base_url: str = "https://api.openai.com/v1"
    model: str = ""
    """Empty: the first that the server lists."""
    api_key: str = ""
    temperature: Annotated[float, Meta(ge=0)] | None = None
    """None: the server's own."""
    connect_seconds: Seconds = 5.0
    first_token_seconds: Seconds = 30.0
    """From the question to the first token, be it of a thought."""
    gap_seconds: Seconds = 15.0
    """Longest silence between two chunks of an answer."""
    max_tokens_field: Literal["auto", "max_tokens", "max_completion_tokens"] = "auto"
    """auto: max_completion_tokens for api.openai.com, which wants it; max_tokens for others."""
    headers: dict[str, str] = {}
    """Sent along with every request."""
    sees: bool = True
    """Whether the model can be handed pictures."""
    extra: dict[str, Any] = {}
    """Merged into the body of the request. A null takes a field out."""

    def __post_init__(self) -> None:
        url = address(self.base_url)
        key = self.api_key.strip()  # a key that was read from a file ends its line
        msgspec.structs.force_setattr(self, "api_key", key)
        if url.user is not None and (key or "authorization" in map(str.lower, self.headers)):
            raise ValueError("an API key cannot be sent along with a user name in base_url")
        for text in (key, *self.headers, *self.headers.values()):
            if not (text.isascii() and text.isprintable()):
                raise ValueError("api_key and headers must be printable ASCII")
        conceal(self, "api_key", "headers")
        if url.user is not None or url.query_string:
            conceal(self, "base_url")  # it carries a password, or a key in its query


class OpenAILLM:
    """Asks the server for one streamed completion an answer, on kept-alive connections."""

    Settings = OpenAILLMSettings

    def __init__(self, settings: OpenAILLMSettings) -> None:
        self.sees = settings.sees
        self._settings = settings
        self._endpoint = Endpoint(
            _plain(settings.base_url),
            _plain(settings.api_key),
            {name: _plain(value) for name, value in settings.headers.items()},
        )
        self._model = settings.model
        self._asking = asyncio.Lock()
        self._kept: aiohttp.ClientSession | None = None
        self._fresh: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._kept = self._session(force_close=False)
        self._fresh = self._session(force_close=True)
        return self

    async def __aexit__(self, *exc: object) -> None:
        for session in (self._kept, self._fresh):
            if session is not None:
                await session.close()
        self._kept = self._fresh = None

    async def generate(self, request: ChatRequest) -> AsyncGenerator[ChatEvent]:
        """As base.LLM has it. Closing it before its end closes the connection at once."""
        deadline = asyncio.get_running_loop().time() + self._settings.first_token_seconds
        response = await self._ask(request, deadline)
        stream = ChatStream()
        whole = False
        try:
            async with aclosing(self._chunks(response, stream, deadline)) as chunks:
                async for chunk in chunks:
                    for event in stream.feed(chunk):
                        yield event
            whole = True
            try:
                rest = stream.end()
            except ValueError as exc:
                raise self._endpoint.nonsense(str(exc)) from exc
            for event in rest:
                yield event
        finally:
            if whole:
                await _settle(response)
            else:
                response.close()

    async def model(self) -> str:
        """The model that is set, or the first that the server lists. Raises EngineError."""
        try:
            async with asyncio.timeout(self._settings.first_token_seconds):
                return await self._model_name()
        except aiohttp.ClientError as exc:
            raise self._endpoint.unreachable(exc) from exc
        except TimeoutError as exc:
            raise self._endpoint.late(self._settings.first_token_seconds) from exc

    @asynccontextmanager
    async def forward(self, body: bytes, *, spoken: bool = False) -> AsyncGenerator[Forwarded]:
        """Hand on a request for a chat completion as it stands; only key and headers are ours.

        `spoken`: someone waits to hear the answer, so it must come as soon as a turn's must.
        Raises EngineError: nothing answers, or we are not let in. Every other refusal is an
        answer. Leaving it before the answer's end closes the connection at once.
        """
        wait = Patience(self._settings.first_token_seconds, self._settings.gap_seconds)
        if not spoken:
            wait = Patience(PATIENCE_SECONDS, PATIENCE_SECONDS)
        try:
            async with asyncio.timeout(wait.first):
                response = await self._post(body)
        except aiohttp.ClientError as exc:
            raise self._endpoint.unreachable(exc) from exc
        except TimeoutError as exc:
            raise self._endpoint.late(wait.first) from exc
        answer = Forwarded(response, self._endpoint, wait)
        try:
            if refuses_us(response.status):
                raise await self._refusal(response, "forwarded")
            yield answer
        finally:
            if answer.read_to_end:
                await _settle(response)
            else:
                response.close()

    async def _ask(self, request: ChatRequest, deadline: float) -> aiohttp.ClientResponse:
        """The response to the request, its body unread; it is a completion."""
        try:
            async with asyncio.timeout_at(deadline):
                model = await self._model_name()
                body = msgspec.json.encode(self._body(request, model))
                response = await self._post(body)
        except aiohttp.ClientError as exc:
            raise self._endpoint.unreachable(exc) from exc
        except TimeoutError as exc:
            raise self._endpoint.late(self._settings.first_token_seconds) from exc
        if response.status == 200 and response.content_type != "text/html":
            return response
        try:
            if response.status == 200:
                raise self._endpoint.nonsense("a web page")
            if response.status == 404:
                self._model = self._settings.model  # if it was looked up, look again
            raise await self._refusal(response, model)
        finally:
            response.close()

    async def _post(self, body: bytes) -> aiohttp.ClientResponse:
        """A kept connection may have been closed by the peer meanwhile: then once more, on a new
        one. The server has not begun to answer, so nothing is said twice."""
        kept, fresh = self._sessions()
        url = self._endpoint.url("chat/completions")
        socket = _Socket()
        try:
            # io.BytesIO: a large body, a picture, is written in pieces.
            return await kept.post(
                url, data=io.BytesIO(body), allow_redirects=False, trace_request_ctx=socket
            )
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            if not socket.reused:
                raise
        return await fresh.post(url, data=io.BytesIO(body), allow_redirects=False)

    async def _chunks(
        self, response: aiohttp.ClientResponse, stream: ChatStream, deadline: float
    ) -> AsyncGenerator[Chunk]:
        """Up to the end of the answer. Raises EngineError where it should have gone on."""
        if response.content_type == "application/json":  # a server that does not stream
            yield await self._whole(response, deadline)
            return
        loop = asyncio.get_running_loop()
        reader = EventReader(f"the LLM at {self._endpoint.shown}")
        while events := await self._events(response, reader, stream, deadline):
            for data in events:
                if data.strip() == "[DONE]":
                    return
                if data.strip():
                    yield self._chunk(data)
            if stream.finished:
                deadline = loop.time() + min(_TAIL_SECONDS, self._settings.gap_seconds)
            elif stream.begun:
                deadline = loop.time() + self._settings.gap_seconds
        if not stream.finished:
            raise self._endpoint.broken_off()

    async def _events(
        self,
        response: aiohttp.ClientResponse,
        reader: EventReader,
        stream: ChatStream,
        deadline: float,
    ) -> list[str]:
        """The next few; none: it has ended, or what it still owes is not worth waiting for."""
        try:
            async with asyncio.timeout_at(deadline):
                while part := await response.content.readany():
                    if events := reader.feed(part):
                        return events
        except TimeoutError as exc:
            if stream.finished:
                return []
            if stream.begun:
                raise self._endpoint.silent(self._settings.gap_seconds) from exc
            raise self._endpoint.late(self._settings.first_token_seconds) from exc
        except aiohttp.ClientError as exc:
            if stream.finished:
                return []
            raise self._endpoint.broken_off() from exc
        return reader.close()

    async def _whole(self, response: aiohttp.ClientResponse, deadline: float) -> Chunk:
        try:
            async with asyncio.timeout_at(deadline):
                body = await _read(response, _MAX_ANSWER_BYTES)
        except TimeoutError as exc:
            raise self._endpoint.late(self._settings.first_token_seconds) from exc
        except aiohttp.ClientError as exc:
            raise self._endpoint.broken_off() from exc
        chunk = self._chunk(body)
        if chunk.choices is None:
            raise self._endpoint.nonsense("something else")
        return chunk

    def _chunk(self, data: str | bytes) -> Chunk:
        try:
            chunk = chat_stream.decode(data)
        except ValueError as exc:
            raise self._endpoint.nonsense("something else") from exc
        if (failure := chunk.failure) is not None:
            raise self._endpoint.failed(failure)
        return chunk

    async def _refusal(self, response: aiohttp.ClientResponse, model: str) -> EngineError:
        body = b""
        with suppress(TimeoutError, aiohttp.ClientError):  # the status says enough
            async with asyncio.timeout(self._settings.connect_seconds):
                body = await _read(response, _MAX_REFUSAL_BYTES)
        return self._endpoint.refused(response.status, response.headers, body, model)

    async def _model_name(self) -> str:
        """The one that is set, or the first that the server lists, asked for once."""
        async with self._asking:
            if not self._model:
                self._model = await self._first_model()
            return self._model

    async def _first_model(self) -> str:
        kept, _ = self._sessions()
        async with kept.get(self._endpoint.url("models"), allow_redirects=False) as response:
            if response.status != 200:
                raise await self._refusal(response, "")
            body = await _read(response, model_list.MAX_BYTES)
        try:
            names = model_list.chat_models(body)
        except ValueError as exc:
            raise self._endpoint.no_list() from exc
        if not names:
            raise self._endpoint.no_model()
        return names[0]

    def _body(self, request: ChatRequest, model: str) -> dict[str, Any]:
        field: str = self._settings.max_tokens_field
        if field == "auto":
            field = "max_completion_tokens" if self._endpoint.is_openai else "max_tokens"
        body: dict[str, Any] = {
            "model": model,
            "messages": chat_messages.messages(request.instructions, request.items, sees=self.sees),
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": self._settings.temperature,
            field: request.max_output_tokens,
        }
        if request.tools:
            body["tools"] = chat_messages.tools(request.tools)
            if request.tool_choice != "auto":
                body["tool_choice"] = chat_messages.tool_choice(request.tool_choice)
            if not request.parallel_tool_calls:
                body["parallel_tool_calls"] = False
        body |= self._settings.extra
        return {name: value for name, value in body.items() if value is not None}

    def _sessions(self) -> tuple[aiohttp.ClientSession, aiohttp.ClientSession]:
        if self._kept is None or self._fresh is None:
            raise EngineError("llm:openai was asked before it was entered, or after it was left")
        return self._kept, self._fresh

    def _session(self, *, force_close: bool) -> aiohttp.ClientSession:
        seconds = self._settings.connect_seconds
        # limit=0: how many talk at once is decided above, and a queue here would be unseen.
        connector = (
            aiohttp.TCPConnector(limit=0, force_close=True)
            if force_close
            else aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_SECONDS)
        )
        tracing = aiohttp.TraceConfig()
        tracing.on_connection_reuseconn.append(_note_reuse)
        return aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None, connect=seconds, sock_connect=seconds),
            headers=self._endpoint.headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            trace_configs=[tracing],
        )


class _Socket:
    """Of one request."""

    reused = False


async def _note_reuse(
    session: aiohttp.ClientSession, context: Any, params: aiohttp.TraceConnectionReuseconnParams
) -> None:
    if isinstance(context.trace_request_ctx, _Socket):
        context.trace_request_ctx.reused = True


async def _read(response: aiohttp.ClientResponse, most: int) -> bytes:
    """The body, or its first `most` bytes."""
    body = bytearray()
    while len(body) < most and (part := await response.content.readany()):
        body += part
    return bytes(body[:most])


async def _settle(response: aiohttp.ClientResponse) -> None:
    """Give the connection back. It can be used again only if the end of the body has come."""
    try:
        with suppress(TimeoutError, aiohttp.ClientError):
            async with asyncio.timeout(_SETTLE_SECONDS):
                while await response.content.readany():
                    pass
    finally:
        response.release()


def _plain(text: str) -> str:
    return text.reveal() if isinstance(text, Secret) else text
