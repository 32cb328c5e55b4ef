"""What the world tells a session. Names are facts, in the past tense."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from vivavoce.errors import InvalidRequest
from vivavoce.protocol.client import AnyClientEvent

Stage: TypeAlias = Literal["stt", "llm", "tts"]


@dataclass(frozen=True, slots=True)
class Received:
    """The client sent an event."""

    event: AnyClientEvent
    raw: bytes | None = None
    """The frame it came in, where it is a GA event as it stands: a relay passes it on unchanged."""


@dataclass(frozen=True, slots=True)
class InvalidFrame:
    """The client sent something that is no event."""

    problem: InvalidRequest


@dataclass(frozen=True, slots=True)
class AudioArrived:
    """The client's microphone went on: 16-bit mono PCM at 24 kHz, from a track of its own."""

    audio: bytes


@dataclass(frozen=True, slots=True)
class VadScores:
    """The answer to Judge: a probability of speech for each window from position `at` on."""

    at: int
    speech: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class TurnScored:
    """The answer to Assess: how likely it is, 0..1, that these words were all."""

    item_id: str
    likelihood: float


@dataclass(frozen=True, slots=True)
class TranscriptUpdated:
    """All words of an item so far; the first `stable` characters stay, all of them once final."""

    item_id: str
    text: str
    stable: int
    final: bool


@dataclass(frozen=True, slots=True)
class ItemTranscriptionFailed:
    """The words of an item will not come."""

    item_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class GenerationProgress:
    """Words of a spoken answer come, not enough yet for the voice. First of all at the first."""

    response_id: str


@dataclass(frozen=True, slots=True)
class TextGenerated:
    """The answer's text grew. Of a spoken answer: this much is on its way to the voice."""

    response_id: str
    text: str


@dataclass(frozen=True, slots=True)
class ToolCallStarted:
    """The model began to call a function; `index` tells the calls of an answer apart."""

    response_id: str
    index: int
    call_id: str
    name: str


@dataclass(frozen=True, slots=True)
class ToolCallArguments:
    """The arguments of a call, JSON text, grew."""

    response_id: str
    index: int
    arguments: str


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """What the model counted."""

    input: int
    output: int
    cached: int = 0


@dataclass(frozen=True, slots=True)
class GenerationFinished:
    """The model has said all it will; sound may still come."""

    response_id: str
    reason: Literal["stop", "length", "content_filter"]
    tokens: TokenCounts | None = None


@dataclass(frozen=True, slots=True)
class SpokenWord:
    """Text, with the space that follows, whose sound begins at sample `at` of the answer."""

    text: str
    at: int


@dataclass(frozen=True, slots=True)
class AudioGenerated:
    """The answer grew by a piece of sound: 16-bit mono PCM at 24 kHz, and words that begin."""

    response_id: str
    audio: bytes
    words: tuple[SpokenWord, ...] = ()
    ends: bool = False
    """Whether all text that was on its way to the voice has been spoken with this."""


@dataclass(frozen=True, slots=True)
class OutputFinished:
    """The answer is complete."""

    response_id: str


@dataclass(frozen=True, slots=True)
class GenerationFailed:
    """The answer broke off, and where."""

    response_id: str
    stage: Stage
    reason: str


@dataclass(frozen=True, slots=True)
class AudioPlayed:
    """So many samples of an item have left for the ear; only where the playout is ours."""

    item_id: str
    samples: int


@dataclass(frozen=True, slots=True)
class TimerFired:
    """The deadline asked for has passed."""


@dataclass(frozen=True, slots=True)
class DrainStarted:
    """The server shuts down: finish what is under way, begin nothing."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The client is gone."""


GenerationFact: TypeAlias = (
    GenerationProgress
    | TextGenerated
    | ToolCallStarted
    | ToolCallArguments
    | GenerationFinished
    | AudioGenerated
    | OutputFinished
    | GenerationFailed
)
Fact: TypeAlias = (
    Received
    | InvalidFrame
    | AudioArrived
    | VadScores
    | TurnScored
    | TranscriptUpdated
    | ItemTranscriptionFailed
    | GenerationFact
    | AudioPlayed
    | TimerFired
    | DrainStarted
    | Disconnected
)
