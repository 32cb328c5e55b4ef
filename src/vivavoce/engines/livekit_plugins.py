"""Any plug-in of livekit-agents as an engine: `plugin = "deepgram.STT"`.

The plug-in is used as a library: no room, no server, no account of LiveKit.
https://docs.livekit.io/agents/models/
"""

import asyncio
import importlib
import inspect
import re
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Mapping
from contextlib import AsyncExitStack, aclosing
from typing import Any, Self

import aiohttp
import msgspec

from vivavoce.engines.base import (
    BaseEngine,
    CallDelta,
    CallStarted,
    Capabilities,
    ChatEnded,
    ChatEvent,
    ChatRequest,
    ChatUsage,
    Speech,
    TextDelta,
    Transcript,
    Voice,
)
from vivavoce.engines.speech_text import says_something
from vivavoce.errors import EngineError, SettingsError
from vivavoce.protocol.items import (
    FunctionCall,
    FunctionCallOutput,
    FunctionTool,
    InputAudio,
    InputText,
    Item,
    OutputAudio,
    OutputText,
    ToolName,
)
from vivavoce.secret import Secret

EXTRA = "livekit"
MIN_SECRET_CHARACTERS = 4
_SECRET_OPTION = re.compile(r"(?i)key|token|secret|password|credential")
_PLUGIN = re.compile(r"[a-z][a-z0-9_]*(\.[A-Za-z][A-Za-z0-9_]*)+\Z")


class LiveKitSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which plug-in, and what its class is made with."""

    plugin: str
    """Its package and class: `deepgram.STT` is livekit.plugins.deepgram.STT."""
    options: dict[str, Any] = {}
    """Keyword arguments of the class, as the documentation of the plug-in has them."""
    connect_seconds: float = 10.0
    sample_rate: int = 16_000
    """STT: hertz of the audio that it gets."""
    voice: str = "default"
    """TTS: the name under which clients know its voice; which voice that is, its options say."""

    def __post_init__(self) -> None:
        if not _PLUGIN.match(self.plugin):
            raise ValueError("plugin must be a package and a class, such as deepgram.STT")


class _Plugin(BaseEngine):
    """Loads the class, makes it, and turns its failures into EngineErrors."""

    Settings = LiveKitSettings
    capabilities = Capabilities(extra=EXTRA, models="those of the service")

    def __init__(self, settings: LiveKitSettings) -> None:
        self._settings = settings
        self._options = {name: _revealed(value) for name, value in settings.options.items()}
        self._secrets = [
            value
            for name, value in self._options.items()
            if isinstance(value, str)
            and len(value) >= MIN_SECRET_CHARACTERS
            and _SECRET_OPTION.search(name)
        ]
        self._class = _class_of(settings.plugin)
        self._stack = AsyncExitStack()
        self._plugin: Any = None
        self._agents: Any = None

    async def __aenter__(self) -> Self:
        self._agents = importlib.import_module("livekit.agents")
        options = dict(self._options)
        if "http_session" in inspect.signature(self._class).parameters:
            options["http_session"] = await self._stack.enter_async_context(aiohttp.ClientSession())
        try:
            self._plugin = self._class(**options)
        except Exception as exc:
            await self._stack.aclose()
            raise self._failed(exc) from exc
        self._stack.push_async_callback(self._plugin.aclose)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    def warm(self) -> None:
        self._plugin.prewarm()

    def _connect_options(self) -> Any:
        return self._agents.APIConnectOptions(max_retry=0, timeout=self._settings.connect_seconds)

    async def _fed(self, stream: Any, feed: Coroutine[Any, Any, None]) -> AsyncGenerator[Any]:
        """What a stream of the plug-in gives while `feed` gives it its input. Closes the stream.

        Raises EngineError.
        """
        feeding = asyncio.create_task(feed)
        try:
            async for event in stream:
                yield event
            await feeding
        except EngineError:
            raise
        except Exception as exc:
            raise self._failed(exc) from exc
        finally:
            feeding.cancel()
            await asyncio.wait((feeding,))
            await stream.aclose()

    def _failed(self, exc: Exception) -> EngineError:
        """One sentence with the cause, without secrets."""
        cause = exc
        while cause.__cause__ is not None and not str(cause):
            assert isinstance(cause.__cause__, Exception)
            cause = cause.__cause__
        text = " ".join((str(cause) or type(cause).__name__).split())
        for secret in self._secrets:
            text = text.replace(secret, "***")
        retryable = getattr(exc, "retryable", False)
        return EngineError(
            f"the plug-in {self._settings.plugin} failed: {text[:300].rstrip('.')}; "
            "check its options, and the service",
            retry_after_s=0.0 if retryable else None,
        )


class LiveKitSTT(_Plugin):
    """A recogniser; streamed where the plug-in streams."""

    capabilities = Capabilities(extra=EXTRA, models="those of the service")

    def __init__(self, settings: LiveKitSettings) -> None:
        super().__init__(settings)
        self.sample_rate = settings.sample_rate

    async def transcribe(
        self, audio: AsyncIterator[bytes], *, language: str | None, prompt: str
    ) -> AsyncGenerator[Transcript]:
        """As base.STT has it."""
        how = {"conn_options": self._connect_options()}
        if language:
            how["language"] = language
        if not self._plugin.capabilities.streaming:
            pcm = b"".join([piece async for piece in audio])
            text = ""
            if any(pcm):
                try:
                    event = await self._plugin.recognize([self._frame(pcm)], **how)
                except Exception as exc:
                    raise self._failed(exc) from exc
                text = _text_of(event)
            yield Transcript(text, len(text), final=True)
            return
        stream = self._plugin.stream(**how)
        done: list[str] = []
        async with aclosing(self._fed(stream, self._feed(stream, audio))) as events:
            async for event in events:
                kind, text = str(event.type.value), _text_of(event)
                if kind == "final_transcript" and text:
                    done.append(text)
                    known = " ".join(done)
                    yield Transcript(known, len(known))
                elif kind == "interim_transcript" and text:
                    known = " ".join(done)
                    yield Transcript(" ".join((*done, text)), len(known))
        text = " ".join(done)
        yield Transcript(text, len(text), final=True)

    async def _feed(self, stream: Any, audio: AsyncIterator[bytes]) -> None:
        async for piece in audio:
            stream.push_frame(self._frame(piece))
        stream.end_input()

    def _frame(self, pcm: bytes) -> Any:
        rtc = importlib.import_module("livekit.rtc")
        return rtc.AudioFrame(pcm, self.sample_rate, 1, len(pcm) // 2)


class LiveKitTTS(_Plugin):
    """A synthesiser with the voice that its options name."""

    def __init__(self, settings: LiveKitSettings) -> None:
        super().__init__(settings)
        self.voices: tuple[Voice, ...] = (Voice(settings.voice, ()),)
        self.default_voice = settings.voice
        self.sample_rate = 24_000

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self.sample_rate = self._plugin.sample_rate
        if self._plugin.num_channels != 1:
            await self._stack.aclose()
            raise EngineError(
                f"the plug-in {self._settings.plugin} makes stereo; only mono is used"
            )
        return self

    async def synthesize(
        self, text: str, *, voice: str, speed: float, language: str | None, instructions: str
    ) -> AsyncGenerator[Speech]:
        """As base.TTS has it; the speed is that of the options."""
        if voice != self.default_voice:
            raise EngineError(f"there is no voice {voice!r}; there is: {self.default_voice}")
        if not says_something(text):
            return
        stream = self._plugin.synthesize(text, conn_options=self._connect_options())
        try:
            async for audio in stream:
                yield Speech(bytes(audio.frame.data))
        except Exception as exc:
            raise self._failed(exc) from exc
        finally:
            await stream.aclose()

    @property
    def streams_text(self) -> bool:
        """Whether the plug-in does."""
        return self._plugin is not None and bool(self._plugin.capabilities.streaming)

    async def synthesize_stream(
        self,
        pieces: AsyncIterator[str],
        *,
        voice: str,
        speed: float,
        language: str | None,
        instructions: str,
    ) -> AsyncGenerator[Speech]:
        """As base.StreamingTTS has it; the speed is that of the options."""
        if voice != self.default_voice:
            raise EngineError(f"there is no voice {voice!r}; there is: {self.default_voice}")
        if (first := await anext(pieces, None)) is None:
            return
        stream = self._plugin.stream(conn_options=self._connect_options())
        stream.push_text(first)
        async with aclosing(self._fed(stream, _push_all(stream, pieces))) as spoken:
            async for audio in spoken:
                yield Speech(bytes(audio.frame.data))


async def _push_all(stream: Any, pieces: AsyncIterator[str]) -> None:
    async for piece in pieces:
        stream.push_text(piece)
    stream.end_input()


class LiveKitLLM(_Plugin):
    """A language model; tools and their calls included, pictures not."""

    sees = False

    async def generate(self, request: ChatRequest) -> AsyncGenerator[ChatEvent]:
        """As base.LLM has it."""
        llm = self._agents.llm
        how: dict[str, Any] = {"conn_options": self._connect_options()}
        if request.tools:
            how["tools"] = [_tool(llm, tool) for tool in request.tools]
            how["parallel_tool_calls"] = request.parallel_tool_calls
            how["tool_choice"] = _choice(request.tool_choice)
        if request.max_output_tokens is not None:
            how["extra_kwargs"] = {"max_completion_tokens": request.max_output_tokens}
        usage, calls = None, 0
        try:
            stream = self._plugin.chat(chat_ctx=_context(llm, request), **how)
        except Exception as exc:
            raise self._failed(exc) from exc
        try:
            async for chunk in stream:
                if chunk.usage is not None:
                    usage = ChatUsage(chunk.usage.prompt_tokens, chunk.usage.completion_tokens)
                if chunk.delta is None:
                    continue
                if chunk.delta.content:
                    yield TextDelta(chunk.delta.content)
                for call in chunk.delta.tool_calls:
                    yield CallStarted(calls, call.call_id, call.name)
                    yield CallDelta(calls, call.arguments or "{}")
                    calls += 1
        except Exception as exc:
            raise self._failed(exc) from exc
        finally:
            await stream.aclose()
        yield ChatEnded("stop", usage)


def _class_of(plugin: str) -> Any:
    """Raises SettingsError: it is not installed, or has no such class."""
    package, _, name = plugin.rpartition(".")
    try:
        module = importlib.import_module(f"livekit.plugins.{package}")
    except ImportError as exc:
        raise SettingsError(
            f"the plug-in {package} is not installed ({exc}); try: pip install "
            f"livekit-plugins-{package.partition('.')[0]}"
        ) from exc
    if not hasattr(module, name):
        raise SettingsError(f"plugin: livekit.plugins.{package} has no class {name!r}")
    return getattr(module, name)


def _revealed(value: Any) -> Any:
    return value.reveal() if isinstance(value, Secret) else value


def _text_of(event: Any) -> str:
    return str(event.alternatives[0].text).strip() if event.alternatives else ""


def _context(llm: Any, request: ChatRequest) -> Any:
    context = llm.ChatContext.empty()
    if request.instructions:
        context.add_message(role="system", content=request.instructions)
    for item in request.items:
        _add_item(llm, context, item)
    return context


def _add_item(llm: Any, context: Any, item: Item) -> None:
    match item:
        case FunctionCall(call_id=call_id, name=name, arguments=arguments):
            context.items.append(
                llm.FunctionCall(call_id=call_id, name=name, arguments=arguments or "{}")
            )
        case FunctionCallOutput(call_id=call_id, output=output):
            context.items.append(
                llm.FunctionCallOutput(call_id=call_id, output=output, is_error=False)
            )
        case _:
            texts = [_part_text(part) for part in item.content]
            if text := " ".join(filter(None, texts)):
                context.add_message(role=item.role, content=text)


def _part_text(part: object) -> str:
    match part:
        case InputText(text=text) | OutputText(text=text):
            return text
        case InputAudio(transcript=transcript) | OutputAudio(transcript=transcript):
            return transcript or ""
    return ""


def _tool(llm: Any, tool: FunctionTool) -> Any:
    async def unused(raw_arguments: Mapping[str, object]) -> None:
        """The client calls the function, not the plug-in."""

    schema = {
        "name": tool.name,
        "description": tool.description if isinstance(tool.description, str) else "",
        "parameters": tool.parameters
        if isinstance(tool.parameters, dict)
        else {"type": "object", "properties": {}},
    }
    return llm.function_tool(unused, raw_schema=schema)


def _choice(choice: Any) -> Any:
    if isinstance(choice, ToolName):
        return {"type": "function", "function": {"name": choice.name}}
    return choice
