"""Facts: what has happened, as a session is given it. Names are in the past tense."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from vivavoce.errors import InvalidRequest
from vivavoce.protocol.client import AnyClientEvent
from vivavoce.protocol.upstream import UpstreamEvent

Stage: TypeAlias = Literal["stt", "llm", "tts"]


class TranscriptionKey(NamedTuple):
    """Which recording is transcribed: an item, and the index of the content part in it."""

    item_id: str
    content_index: int = 0


@dataclass(frozen=True, slots=True)
class Received:
    """The client sent an event."""

    event: AnyClientEvent
    raw: bytes | None = None
    """The frame it came in, where it is a GA event as it stands: a relay passes it on unchanged."""


@dataclass(frozen=True, slots=True)
class InvalidFrame:
    """The client sent a frame that is not a valid event."""

    problem: InvalidRequest


@dataclass(frozen=True, slots=True)
class AudioArrived:
    """Microphone audio from a media track: 16-bit mono PCM at 24 kHz."""

    audio: bytes


@dataclass(frozen=True, slots=True)
class VadScores:
    """The answer to RunVad: a probability of speech for each window from position `at` on."""

    at: int
    speech: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class TurnScored:
    """The answer to ScoreTurn: how likely it is, 0..1, that the turn is finished."""

    item_id: str
    likelihood: float


@dataclass(frozen=True, slots=True)
class TranscriptUpdated:
    """All words of a recording so far; the first `stable` characters will not change any more."""

    key: TranscriptionKey
    text: str
    stable: int
    final: bool


@dataclass(frozen=True, slots=True)
class ItemTranscriptionFailed:
    """The transcription of a recording failed."""

    key: TranscriptionKey
    reason: str


@dataclass(frozen=True, slots=True)
class GenerationProgress:
    """The model generates text of a spoken answer; no clause is complete yet."""

    response_id: str


@dataclass(frozen=True, slots=True)
class TextGenerated:
    """The answer's text grew. Of a spoken answer: this clause goes to the synthesiser."""

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
    """Tokens as the model counted them."""

    input: int
    output: int
    cached: int = 0


@dataclass(frozen=True, slots=True)
class GenerationFinished:
    """The model has ended; audio may still come."""

    response_id: str
    reason: Literal["stop", "length", "content_filter"]
    tokens: TokenCounts | None = None


@dataclass(frozen=True, slots=True)
class SpokenWord:
    """Text with the space that follows it; its audio begins at sample `at` of the answer."""

    text: str
    at: int


@dataclass(frozen=True, slots=True)
class AudioGenerated:
    """The answer grew by 16-bit mono PCM at 24 kHz, and by the words that begin in it."""

    response_id: str
    audio: bytes
    words: tuple[SpokenWord, ...] = ()
    ends: bool = False
    """Whether the synthesiser has spoken all text it was given so far."""


@dataclass(frozen=True, slots=True)
class OutputFinished:
    """The answer is complete."""

    response_id: str


@dataclass(frozen=True, slots=True)
class GenerationFailed:
    """Generating the answer failed, and at which stage."""

    response_id: str
    stage: Stage
    reason: str


@dataclass(frozen=True, slots=True)
class AudioPlayed:
    """So many further samples of an item were played; only where the server owns the playout."""

    item_id: str
    samples: int


@dataclass(frozen=True, slots=True)
class AudioCleaned:
    """The answer to CleanAudio: the same amount of microphone audio, cleaned."""

    audio: bytes


@dataclass(frozen=True, slots=True)
class UpstreamConnected:
    """The upstream server has begun a session."""

    expires_in: float = float("inf")
    """Seconds; infinite: it does not say."""


@dataclass(frozen=True, slots=True)
class UpstreamEventReceived:
    """The upstream server sent an event; `raw` is its frame."""

    event: UpstreamEvent
    raw: bytes


@dataclass(frozen=True, slots=True)
class UpstreamLost:
    """The connection to the upstream server could not be made, or ended."""

    reason: str


@dataclass(frozen=True, slots=True)
class TimerFired:
    """The session's deadline has passed."""


@dataclass(frozen=True, slots=True)
class DrainStarted:
    """The server shuts down: finish what is under way, begin nothing new."""


@dataclass(frozen=True, slots=True)
class AccessEnded:
    """Whoever pays for the session may use nothing more: a budget is spent, or a key revoked."""

    code: str
    """Of the `error` event: insufficient_quota, invalid_api_key."""
    message: str
    close_code: int


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
CascadeFact: TypeAlias = (
    VadScores
    | TurnScored
    | TranscriptUpdated
    | ItemTranscriptionFailed
    | GenerationFact
    | AudioCleaned
)
RelayFact: TypeAlias = UpstreamConnected | UpstreamEventReceived | UpstreamLost
BrainFact: TypeAlias = CascadeFact | RelayFact
"""What a performer reports. A brain ignores those of another kind: late results of the last."""
Fact: TypeAlias = (
    Received
    | InvalidFrame
    | AudioArrived
    | BrainFact
    | AudioPlayed
    | TimerFired
    | DrainStarted
    | AccessEnded
    | Disconnected
)
