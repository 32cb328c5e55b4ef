"""What an engine is. Implementations live one per file and are found by entry point.

Every engine is an async context manager: entering it loads what it needs, leaving it gives back
every thread, process and file. An engine that blocks or holds the GIL owns its thread or process.
Cancelling is closing the iterator. Whatever goes wrong comes out as EngineError, in one sentence
that names the place and the remedy; as EngineLost where it went away in the middle of its work and
may do it when asked again.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vivavoce.protocol.items import FunctionTool, Item, ToolChoice


class Engine(Protocol):
    """Common to all: `Settings` is a frozen msgspec Struct that forbids unknown fields."""

    Settings: Any

    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *exc: object) -> None: ...


def health_of(engine: object) -> str | None:
    """Its health(); None for an engine of version 1 of the contract, which has none."""
    health = getattr(engine, "health", None)
    return health() if health is not None else None


class VAD(Engine, Protocol):
    """Tells speech from other sound, one window at a time, many streams in one call."""

    sample_rate: int
    """Hertz of the windows."""
    window_samples: int
    """Samples of one window."""
    max_batch: int
    """Most rows of one judge() call; that many take less than 5 ms."""

    def open(self) -> int:
        """Begin a stream; return its number, to be given back with close()."""
        ...

    def close(self, stream: int) -> None:
        """Forget a stream."""
        ...

    def score(self, windows: NDArray[np.float32], streams: NDArray[np.intp]) -> NDArray[np.float32]:
        """Probability of speech, 0..1, of each row.

        windows: [n, window_samples], samples in -1..1, each row the next window of its stream.
        streams: [n], no number twice. Returns [n]. Synchronous: it runs on the event loop.
        """
        ...


class TurnModel(Engine, Protocol):
    """Judges whether a user who pauses has finished."""

    async def score(self, text: str, *, language: str | None) -> float:
        """Likelihood, 0..1, that `text`, the words so far, is a finished turn."""
        ...


@dataclass(frozen=True, slots=True)
class Word:
    """A word that was heard, and when, in milliseconds from the start of the audio."""

    text: str
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Transcript:
    """All words heard so far, not only the new ones.

    The first `stable` characters will not change any more: every later transcript of the same
    audio begins with them. In the final one all are stable.
    """

    text: str
    stable: int = 0
    final: bool = False
    words: tuple[Word, ...] = ()
    language: str | None = None


class STT(Engine, Protocol):
    """Speech in, words out."""

    sample_rate: int
    """Hertz of the 16-bit mono PCM it takes."""

    def transcribe(
        self, audio: AsyncIterator[bytes], *, language: str | None, prompt: str
    ) -> AsyncGenerator[Transcript]:
        """Yield transcripts as audio comes in; after its end, exactly one that is final.

        `audio` yields 16-bit mono PCM of any length, whole samples. Words are decoded while it
        still comes, so that little is left to do at its end. Silence gives a final with text "".
        """
        ...


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """All that a model is told for one answer."""

    instructions: str
    items: tuple[Item, ...]
    tools: tuple[FunctionTool, ...] = ()
    tool_choice: ToolChoice = "auto"
    parallel_tool_calls: bool = True
    max_output_tokens: int | None = None
    language: str | None = None
    model: str = ""
    """The model that the client named; an engine that does not know it uses its own."""


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The answer grew by this text."""

    text: str


@dataclass(frozen=True, slots=True)
class CallStarted:
    """The model calls a function. `index` tells the calls of one answer apart."""

    index: int
    call_id: str
    name: str


@dataclass(frozen=True, slots=True)
class CallDelta:
    """The arguments, JSON text, of that call grew."""

    index: int
    arguments: str


@dataclass(frozen=True, slots=True)
class ChatUsage:
    """Tokens as the model counted them; None: it did not say."""

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class ChatEnded:
    """The last thing a model yields."""

    reason: Literal["stop", "length", "content_filter"] = "stop"
    usage: ChatUsage | None = None


ChatEvent: TypeAlias = TextDelta | CallStarted | CallDelta | ChatEnded


class LLM(Engine, Protocol):
    """Conversation in, text and function calls out."""

    sees: bool
    """Whether it can be handed pictures."""

    def generate(self, request: ChatRequest) -> AsyncGenerator[ChatEvent]:
        """Yield the answer as it comes to mind, and ChatEnded once, last.

        A user's audio part stands in the items with its transcript. Text deltas concatenate to
        the whole text; a call's deltas come between its CallStarted and the next event of
        another index, or ChatEnded.
        """
        ...


@dataclass(frozen=True, slots=True)
class Voice:
    """A voice that an engine offers."""

    id: str
    languages: tuple[str, ...]
    description: str = ""


@dataclass(frozen=True, slots=True)
class Mark:
    """At sample `at` of the utterance, speaking reaches text[start:end]."""

    at: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Speech:
    """A piece of speech: 16-bit mono PCM, and the words that begin in it or later."""

    audio: bytes
    marks: tuple[Mark, ...] = ()


class TTS(Engine, Protocol):
    """Text in, speech out."""

    sample_rate: int
    """Hertz of the 16-bit mono PCM it makes."""
    voices: tuple[Voice, ...]
    default_voice: str

    def synthesize(
        self, text: str, *, voice: str, speed: float, language: str | None, instructions: str
    ) -> AsyncGenerator[Speech]:
        """Yield speech as it is made.

        A mark never comes later than its sound. An engine that knows no word times yields none.
        speed: 1.0 is normal. A voice that is not in `voices` is an EngineError.
        """
        ...


class CleanStream(Protocol):
    """One microphone. All sound is 16-bit mono PCM at 24 kHz, whole samples."""

    def process(self, pcm24: bytes) -> bytes:
        """What the microphone heard, cleaned: as many bytes, at most 10 ms late, silence first.

        Synchronous, as play() is: it runs on the event loop and takes less than 5 ms for half a
        second of sound. Raises EngineError: then the stream is good for close() alone.
        """
        ...

    def play(self, pcm24: bytes) -> None:
        """What is played while the next process() is heard, as long as that; told before it."""
        ...

    def close(self) -> None:
        """Give back what the stream holds."""
        ...


class Cleaner(Engine, Protocol):
    """Takes echo and noise out of what a microphone hears."""

    def open(self, field: Literal["near", "far"]) -> CleanStream:
        """Begin a stream. near: a microphone at the mouth; far: one across the room."""
        ...
