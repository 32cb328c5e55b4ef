"""The language model behind any OpenAI-compatible chat-completions endpoint."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from vivavoce.engines.base import Capabilities, ChatEvent, ChatRequest
from vivavoce.engines.http import HttpResponse, PositiveSeconds, ResponseTimeouts
from vivavoce.engines.openai import chat_messages, chat_stream
from vivavoce.engines.openai.chat_stream import ChatChunk, ChatStream
from vivavoce.engines.openai.discovery import chat_models
from vivavoce.engines.openai.endpoint import AZURE_HOSTS, Endpoint, EndpointEngine, EndpointSettings
from vivavoce.engines.openai.forward import CLIENT_TIMEOUT_S, ForwardedAnswer, is_operators_fault
from vivavoce.engines.remote import ServerKind
from vivavoce.engines.sse import SseReader
from vivavoce.errors import EngineError

TAIL_TIMEOUT_S = 1.0
"""Usage and [DONE] follow the last word at once, or never: the turn does not wait for them."""
MAX_ANSWER_BYTES = 1 << 22
"""Of an answer that is not streamed."""
OPENAI_HOST = "api.openai.com"

_KIND = ServerKind("LLM", "a chat completion")
_SSE_REMEDY = "is base_url that of a chat-completions server?"


class OpenAILLMSettings(EndpointSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which server and model, and how long to wait for them.

    `model` is used unless the server lists the one that the client names. Empty: the first that it
    lists.
    """

    temperature: Annotated[float, Meta(ge=0)] | None = None
    """None: the server's own."""
    first_token_seconds: PositiveSeconds = 30.0
    """From the question to the first token, be it of a thought."""
    max_tokens_field: Literal["auto", "max_tokens", "max_completion_tokens"] = "auto"
    """auto: max_completion_tokens for OpenAI and Azure, which want it; max_tokens for others."""
    sees: bool = True
    """Whether the model takes images."""


class OpenAILLM(EndpointEngine):
    """Asks the server for one streamed completion an answer, on kept-alive connections."""

    Settings = OpenAILLMSettings
    capabilities = Capabilities(models="those of the endpoint")

    def __init__(self, settings: OpenAILLMSettings) -> None:
        self.sees = settings.sees
        self._settings = settings
        self._timeouts = ResponseTimeouts(settings.first_token_seconds, settings.gap_seconds)
        self._endpoint = Endpoint(settings, _KIND, self._timeouts, chat_models)
        self._server = self._endpoint.server
        self._client = self._endpoint.client
        self._listed = self._endpoint.listed
        self._default = settings.model
        self._default_lookup = asyncio.Lock()

    @property
    def known_model(self) -> str:
        """The configured model, or the first of the server once it was needed; "": not known."""
        return self._default

    async def generate(self, request: ChatRequest) -> AsyncGenerator[ChatEvent]:
        """As base.LLM has it. Closing it before its end closes the connection at once."""
        deadline = asyncio.get_running_loop().time() + self._timeouts.first_s
        self._endpoint.used()
        model = await self._model_for(request.model, deadline)
        stream = ChatStream(self._server.name)
        async with self._client.request(
            "POST",
            "chat/completions",
            self._body(request, model),
            timeouts=self._timeouts,
            deadline=deadline,
        ) as response:
            await self._check(response, model)
            async with aclosing(self._chunks(response, stream, deadline)) as chunks:
                async for chunk in chunks:
                    for event in stream.feed(chunk):
                        yield event
            response.complete = True
            for event in stream.end():
                yield event

    async def model(self) -> str:
        """The model that is set, or the first that the server lists. Raises EngineError."""
        return await self._default_model(asyncio.get_running_loop().time() + self._timeouts.first_s)

    @asynccontextmanager
    async def forward(
        self, body: bytes, *, spoken: bool = False
    ) -> AsyncGenerator[ForwardedAnswer]:
        """Forward a request for a chat completion as it stands, with our key and headers.

        spoken: the answer is to be heard, so it must come as soon as that of a turn. Raises
        EngineError: nothing answers, or the key or address in the settings is refused. Every other
        refusal is an answer. Leaving it before the answer's end closes the connection at once.
        """
        timeouts = self._timeouts
        if not spoken:
            timeouts = ResponseTimeouts(CLIENT_TIMEOUT_S, CLIENT_TIMEOUT_S)
        async with self._client.request(
            "POST", "chat/completions", body, timeouts=timeouts
        ) as response:
            if is_operators_fault(response.status):
                raise await response.refusal(self._settings.connect_seconds, "forwarded")
            yield ForwardedAnswer(response, self._server, timeouts)

    async def _model_for(self, name: str, deadline: float) -> str:
        """The model that the client named if the server lists it, else the default one."""
        if name and name != self._default and await self._listed.has(name):
            return name
        return await self._default_model(deadline)

    async def _default_model(self, deadline: float) -> str:
        try:
            async with asyncio.timeout_at(deadline), self._default_lookup:
                if not self._default:
                    names = await self._endpoint.list_models()
                    if not names:
                        raise EngineError(
                            f"{self._server.name} lists no chat model; load one, or set model"
                        )
                    self._default = names[0]
                return self._default
        except TimeoutError as exc:
            raise self._server.late(self._timeouts.first_s) from exc

    async def _check(self, response: HttpResponse, model: str) -> None:
        """Raises EngineError: the response is not a completion."""
        if response.status == 200:
            if response.content_type == "text/html":
                raise self._server.unexpected("a web page")
            return
        if response.status == 404:
            self._default = self._settings.model  # if it was looked up, look again
            self._listed.remove(model)
        raise await response.refusal(self._settings.connect_seconds, model)

    async def _chunks(
        self, response: HttpResponse, stream: ChatStream, deadline: float
    ) -> AsyncGenerator[ChatChunk]:
        """Up to the end of the answer. Raises EngineError where it should have gone on."""
        if response.content_type == "application/json":  # a server that does not stream
            body = await response.read(MAX_ANSWER_BYTES, deadline)
            chunk = self._chunk(body.decode(errors="replace"))
            if chunk.choices is None:
                raise self._server.unexpected("something else")
            yield chunk
            return
        clock = asyncio.get_running_loop().time
        reader = SseReader(self._server.name, _SSE_REMEDY)
        while events := await self._events(response, reader, stream, deadline):
            for data in events:
                if data.strip() == "[DONE]":
                    return
                if data.strip():
                    yield self._chunk(data)
            if stream.finished:
                deadline = clock() + min(TAIL_TIMEOUT_S, self._timeouts.gap_s)
            elif stream.begun:
                deadline = clock() + self._timeouts.gap_s
        if not stream.finished:
            raise self._server.broken_off()

    async def _events(
        self, response: HttpResponse, reader: SseReader, stream: ChatStream, deadline: float
    ) -> list[str]:
        """The next few; none: it has ended, or what is missing is not worth waiting for."""
        while True:
            try:
                part = await response.part(deadline)
            except (TimeoutError, EngineError) as exc:
                if stream.finished:
                    return []
                if isinstance(exc, EngineError):
                    raise
                if stream.begun:
                    raise self._server.silent(self._timeouts.gap_s) from exc
                raise self._server.late(self._timeouts.first_s) from exc
            if not part:
                return reader.close()
            if events := reader.feed(part):
                return events

    def _chunk(self, data: str) -> ChatChunk:
        try:
            chunk = chat_stream.decode(data)
        except ValueError as exc:
            raise self._server.unexpected("something else") from exc
        if (failure := chunk.failure) is not None:
            raise self._server.failed(failure)
        return chunk

    def _body(self, request: ChatRequest, model: str) -> bytes:
        field: str = self._settings.max_tokens_field
        if field == "auto":
            host = self._server.host or ""
            is_openai = host == OPENAI_HOST or host.endswith(AZURE_HOSTS)
            field = "max_completion_tokens" if is_openai else "max_tokens"
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
        return msgspec.json.encode(
            {name: value for name, value in body.items() if value is not None}
        )
