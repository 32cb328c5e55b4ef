"""The contract of engines. Implementations stand in one package each and are found by entry point.

An engine is an async context manager: entering it loads what it needs, leaving it ends every thread
and process and closes every file. An engine that blocks or holds the interpreter lock has a thread
or a process of its own (engines/host.py). Cancelling is closing the iterator. Every failure is an
EngineError, in one sentence that names the place and the remedy; an EngineLost where the engine
went away in the middle of its work and can do it when it is asked again. While the server lives, an
engine is never closed for good: what died is started again, and health() says so meanwhile.

Version 2 of the contract. New members get defaults in BaseEngine and Capabilities, so engines that
derive from BaseEngine stay valid within a version. `vivavoce.testing.conformance` checks an engine.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import (
    Any,
    ClassVar,
    Literal,
    Protocol,
    Self,
    TypeAlias,
    TypeVar,
    cast,
    runtime_checkable,
)

import msgspec
import numpy as np
from numpy.typing import NDArray

from vivavoce.protocol.items import FunctionTool, Item, ToolChoice

__all__ = [
    "CONTRACT_VERSION",
    "LLM",
    "OPENAI_VOICES",
    "STT",
    "TTS",
    "VAD",
    "AudioTurnModel",
    "BaseEngine",
    "CallDelta",
    "CallStarted",
    "Capabilities",
    "ChatEnded",
    "ChatEvent",
    "ChatRequest",
    "ChatUsage",
    "CleanStream",
    "Cleaner",
    "Engine",
    "Mark",
    "Residency",
    "Speech",
    "StreamingTTS",
    "TextDelta",
    "Transcript",
    "TurnModel",
    "Voice",
    "Word",
    "health_of",
    "is_loading",
    "residency_of",
    "streaming",
    "translator_of",
    "warm",
]

CONTRACT_VERSION = 2


class Capabilities(msgspec.Struct, frozen=True):
    """What an engine can do and what it needs, as data on its class."""

    languages: tuple[str, ...] | Literal["any"] = "any"
    """Language tags that it understands or speaks."""
    streaming_input: bool = True
    """STT: words come while audio still comes in. False: all work is done at its end."""
    decodes_pauses: bool = False
    """STT: it decodes all audio so far in a pause, so that the words at the end are there then. An
    early transcript would be the same work again."""
    streams_text: bool = False
    """TTS: it has synthesize_stream(), and gets the text of an answer as it is generated."""
    word_times: Literal["exact", "estimated", "none"] = "none"
    """STT: times of words. TTS: marks."""
    licence: str = ""
    """SPDX expression of what it is made of: the library and the weights."""
    extra: str = ""
    """The extra of its distribution that installs what it needs; "": nothing more is needed.

    The entry point names it, too: "tts:mine" = "my_engines:MyTTS [extra]".
    """
    models: str = ""
    """Which weights it uses, how large, and where they come from."""


class Residency(msgspec.Struct, frozen=True):
    """What an engine keeps in memory on this machine. Times are those of the event loop."""

    loaded: bool
    """False: its model is being loaded, or is loaded at its next use."""
    users: int = 0
    """Pieces of work under way and waiting."""
    loaded_at: float | None = None
    used_at: float | None = None
    """The end of the last work; None: it has done none."""
    memory_bytes: int | None = None
    """Of its processes; None: not known."""


class Engine(Protocol):
    """Common to all: `Settings` is a frozen msgspec Struct that forbids unknown fields."""

    Settings: Any
    capabilities: ClassVar[Capabilities]

    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *exc: object) -> None: ...

    def health(self) -> str | None:
        """None: it works; else one sentence with the reason and the remedy. Does not block."""
        ...


class BaseEngine:
    """Defaults of an engine that loads nothing and cannot go down."""

    capabilities: ClassVar[Capabilities] = Capabilities()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        pass

    def health(self) -> str | None:
        return None

    @property
    def loading(self) -> bool:
        """Whether a model is still being loaded: work that is asked for now waits for it."""
        return False

    @property
    def streams_text(self) -> bool:
        """Whether it is a StreamingTTS: what its capabilities say."""
        return self.capabilities.streams_text

    def warm(self) -> None:
        """Called when a session begins and when its user begins to speak: work will follow.

        An engine that speaks to a server opens a connection in the background. Never raises.
        """

    async def check(self, path: str) -> None:
        """Ask the server behind it whether it can serve; an engine without one has nothing to do.

        path: what is requested: below the base URL, or of the host where it begins with a slash.
        Raises EngineError: nothing answers, or the server says that it cannot serve.
        """

    def residency(self) -> Residency | None:
        """What it keeps in memory; None: nothing that could be freed. Does not block."""
        return None

    async def load(self) -> None:
        """Wait until its model is loaded. Raises EngineError."""

    async def unload(self) -> None:
        """Free the memory of its model; the next use loads it again.

        Raises EngineError: it is in use.
        """

    def for_model(self, name: str) -> Self | None:
        """STT, TTS: this engine with another of its models; None: it does not offer that one.

        What is returned shares everything with this engine, is ready for use, and is not entered.
        """
        return None

    def for_translation(self) -> Self | None:
        """STT: this engine, with transcripts in English whatever is spoken; None: it cannot.

        What is returned is as that of for_model().
        """
        return None


E = TypeVar("E")


def translator_of(engine: E) -> E | None:
    """The recogniser with transcripts in English, where it translates."""
    choose = getattr(engine, "for_translation", None)
    made: E | None = choose() if choose is not None else None
    return made


def warm(engine: object) -> None:
    """Its warm(), where it has one: an engine that does not derive from BaseEngine may not."""
    if (work := getattr(engine, "warm", None)) is not None:
        work()


def health_of(engine: object) -> str | None:
    """Its health(); None for an engine of version 1 of the contract, which has none."""
    health = getattr(engine, "health", None)
    return health() if health is not None else None


def residency_of(engine: object) -> Residency | None:
    """Its residency(); None for an engine that does not derive from BaseEngine."""
    residency = getattr(engine, "residency", None)
    return residency() if residency is not None else None


def is_loading(engine: object) -> bool:
    """Its `loading`; False for an engine that does not derive from BaseEngine."""
    return bool(getattr(engine, "loading", False))


class VAD(Engine, Protocol):
    """Voice activity detection, one window at a time, many streams in one call."""

    sample_rate: int
    """Hertz of the windows."""
    window_samples: int
    """Samples of one window."""
    max_batch: int
    """Most rows of one score() call; that many take less than 5 ms."""

    def open(self) -> int:
        """Begin a stream; return its number, valid until close()."""
        ...

    def close(self, stream: int) -> None:
        """End a stream; its number may be used again."""
        ...

    def score(self, windows: NDArray[np.float32], streams: NDArray[np.intp]) -> NDArray[np.float32]:
        """Probability of speech, 0..1, of each row.

        windows: [n, window_samples], samples in -1..1, each row the next window of its stream.
        streams: [n], no number twice. Returns [n]. Synchronous: it runs on the event loop.
        """
        ...


class TurnModel(Engine, Protocol):
    """Decides whether a user who pauses has finished the turn."""

    async def score(self, text: str, *, language: str | None) -> float:
        """Probability, 0..1, that `text`, the transcript so far, is a finished turn."""
        ...


@runtime_checkable
class AudioTurnModel(TurnModel, Protocol):
    """Reads the sound of the turn as well."""

    audio_seconds: float
    """How much of the turn it wants at the most: of its end."""

    async def score_audio(self, pcm: bytes, text: str, *, language: str | None) -> float:
        """Probability, 0..1, that the turn is finished, by its sound.

        The session joins it with that of score(). pcm: 16-bit mono at 24 kHz, with the pause that
        is to be judged at its end.
        """
        ...


class Word(msgspec.Struct, frozen=True):
    """A recognised word; milliseconds from the start of the audio."""

    text: str
    start_ms: int
    end_ms: int
    logprob: float | None = None
    """Natural logarithm of its probability, where the engine gives one."""


class Transcript(msgspec.Struct, frozen=True):
    """All words so far, not only the new ones.

    The first `stable` characters will not change any more: every later transcript of the same
    audio begins with them. In the final one all are stable.
    """

    text: str
    stable: int = 0
    final: bool = False
    words: tuple[Word, ...] = ()
    language: str | None = None


class STT(Engine, Protocol):
    """Speech to text."""

    sample_rate: int
    """Hertz of the 16-bit mono PCM that it takes."""

    def transcribe(
        self, audio: AsyncIterator[bytes], *, language: str | None, prompt: str
    ) -> AsyncGenerator[Transcript]:
        """Yield transcripts as audio comes in; after its end, exactly one that is final.

        `audio` yields 16-bit mono PCM of any length, whole samples. Where streaming_input is set,
        words are decoded while it still comes in, so that little is left to do at its end. Silence
        gives a final with text "". Raises EngineError; EngineLost: the same audio may be given
        again.
        """
        ...


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One request to a language model."""

    instructions: str
    items: tuple[Item, ...]
    tools: tuple[FunctionTool, ...] = ()
    tool_choice: ToolChoice = "auto"
    parallel_tool_calls: bool = True
    max_output_tokens: int | None = None
    language: str | None = None
    model: str = ""
    """The model that the client named; an engine that does not know it uses its own."""
    conversation_id: str = ""
    """Requests of one conversation begin alike, which a server's prompt cache makes use of."""


class TextDelta(msgspec.Struct, frozen=True):
    """The answer grew by this text."""

    text: str


class CallStarted(msgspec.Struct, frozen=True):
    """The model calls a function. `index` is the number of the call within the answer."""

    index: int
    call_id: str
    name: str


class CallDelta(msgspec.Struct, frozen=True):
    """The arguments of that call, JSON text, grew by this."""

    index: int
    arguments: str


class ChatUsage(msgspec.Struct, frozen=True):
    """Tokens as the model counted them."""

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0


class ChatEnded(msgspec.Struct, frozen=True):
    """The last event of an answer. usage is None where the model did not report it."""

    reason: Literal["stop", "length", "content_filter"] = "stop"
    usage: ChatUsage | None = None


ChatEvent: TypeAlias = TextDelta | CallStarted | CallDelta | ChatEnded


class LLM(Engine, Protocol):
    """Conversation in, text and function calls out."""

    sees: bool
    """Whether it accepts images."""

    def generate(self, request: ChatRequest) -> AsyncGenerator[ChatEvent]:
        """Yield the answer as it is generated, and ChatEnded once, last.

        A user's audio part stands in the items with its transcript. Text deltas concatenate to
        the whole text; a call's deltas come between its CallStarted and the next event of
        another index, or ChatEnded.
        """
        ...


OPENAI_VOICES = (
    *("alloy", "ash", "ballad", "cedar", "coral", "echo", "fable"),
    *("marin", "nova", "onyx", "sage", "shimmer", "verse"),
)
"""The voices of OpenAI's API, which its clients ask for."""


class Voice(msgspec.Struct, frozen=True):
    """A voice that an engine offers."""

    id: str
    languages: tuple[str, ...]
    description: str = ""
    alias_of: str = ""
    """The id of the voice that this is another name of."""


class Mark(msgspec.Struct, frozen=True):
    """At sample `at` of the utterance, speaking reaches text[start:end]."""

    at: int
    start: int
    end: int


class Speech(msgspec.Struct, frozen=True):
    """A piece of speech: 16-bit mono PCM, and marks of words that begin in it or later."""

    audio: bytes
    marks: tuple[Mark, ...] = ()


class TTS(Engine, Protocol):
    """Text to speech."""

    sample_rate: int
    """Hertz of the 16-bit mono PCM that it makes."""
    voices: tuple[Voice, ...]
    default_voice: str

    def synthesize(
        self, text: str, *, voice: str, speed: float, language: str | None, instructions: str
    ) -> AsyncGenerator[Speech]:
        """Yield speech as it is made.

        text: prose, without markdown (engines/speech_text.py). Text with nothing to speak, such as
        "...", gives no audio, or some silence. speed: 1.0 is normal. A mark never comes later than
        its sound; an engine without word times yields none. Raises EngineError: a voice that is not
        in `voices`; EngineLost: the same text may be given again.
        """
        ...


class StreamingTTS(TTS, Protocol):
    """Text to speech of a text that is still being written. Its `streams_text` is set."""

    def synthesize_stream(
        self,
        pieces: AsyncIterator[str],
        *,
        voice: str,
        speed: float,
        language: str | None,
        instructions: str,
    ) -> AsyncGenerator[Speech]:
        """Yield the speech of all pieces as one text, the first while later ones are awaited.

        pieces: whole words, prose as for synthesize(), with the spaces between them. Marks are
        places in all pieces together. Without a piece there is no speech. Closing it stops the
        speech, whatever was given. Raises as synthesize() does.
        """
        ...


def streaming(tts: TTS) -> StreamingTTS | None:
    """The engine, where it takes text as it comes."""
    return cast(StreamingTTS, tts) if getattr(tts, "streams_text", False) else None


class CleanStream(Protocol):
    """One microphone. All audio is 16-bit mono PCM at 24 kHz, whole samples."""

    def process(self, pcm24: bytes) -> bytes:
        """Clean microphone audio: as many bytes, at most 10 ms late, beginning with silence.

        Synchronous, as play() is: it runs on the event loop and takes less than 5 ms for half a
        second of audio. Raises EngineError: after that only close() may be called.
        """
        ...

    def play(self, pcm24: bytes) -> None:
        """What is played during the audio of the next process() call, as long as that."""
        ...

    def close(self) -> None:
        """Give back what the stream holds."""
        ...


class Cleaner(Engine, Protocol):
    """Removes echo and noise from microphone audio."""

    def open(self, field: Literal["near", "far"]) -> CleanStream:
        """Begin a stream. near: a headset or hand-held microphone; far: across the room."""
        ...
