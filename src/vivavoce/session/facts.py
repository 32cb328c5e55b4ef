"""Facts: what has happened, as it is reported to a session. Names are in the past tense."""

from typing import Literal, NamedTuple, TypeAlias

from msgspec import Struct

from vivavoce.errors import InvalidRequest
from vivavoce.protocol.client import AnyClientEvent
from vivavoce.protocol.logprobs import ScoredWord
from vivavoce.protocol.upstream import UpstreamEvent

Stage: TypeAlias = Literal["stt", "llm", "tts"]
TurnSource: TypeAlias = Literal["words", "sound", "llm"]
"""Evidence that a turn may be over."""
FaultKind: TypeAlias = Literal[
    "unreachable",
    "refused",
    "rate_limited",
    "quota",
    "overloaded",
    "error",
    "expired",
    "closed",
    "silent",
    "slow",
    "held",
]
"""Why an upstream server cannot continue; held: it failed a moment ago, so no session connects."""
DisconnectCause: TypeAlias = Literal["client", "operator", "taken_over", "upstream", "shutdown"]
"""Who has ended a session; taken_over: another client has resumed its conversation."""


class TranscriptionKey(NamedTuple):
    """Which recording is transcribed: an item, and the index of the content part in it."""

    item_id: str
    content_index: int = 0


class Received(Struct, frozen=True):
    """The client sent an event."""

    event: AnyClientEvent
    raw: bytes | None = None
    """The frame of a GA event, unchanged: a relay passes it on as it is."""


class InvalidFrame(Struct, frozen=True):
    """The client sent a frame that is not a valid event."""

    problem: InvalidRequest


class AudioArrived(Struct, frozen=True):
    """Microphone audio from a media track: 16-bit mono PCM at 24 kHz."""

    audio: bytes


class VadScores(Struct, frozen=True):
    """The answer to RunVad: a probability of speech for each window from position `at` on."""

    at: int
    speech: tuple[float, ...]


class TurnScored(Struct, frozen=True):
    """An answer to ScoreTurn: the likelihood, 0..1, that the turn is finished."""

    item_id: str
    likelihood: float
    source: TurnSource = "words"
    tokens: "TokenCounts | None" = None
    """Tokens that a language model has counted."""


class SpeakerChecked(Struct, frozen=True):
    """An answer to CheckSpeaker: the similarity of the voice to the speaker's, a cosine."""

    item_id: str
    likeness: float
    same_voice: float
    """The cosine from which on two long clips count as one voice; -1: the voice could not be
    checked."""


class SpokenSegment(Struct, frozen=True):
    """What one speaker said in a recording, in milliseconds from its start."""

    speaker: str
    text: str
    start_ms: int
    end_ms: int


class TranscriptUpdated(Struct, frozen=True):
    """All words of a recording so far; the first `stable` characters will not change any more."""

    key: TranscriptionKey
    text: str
    stable: int
    final: bool
    words: tuple[ScoredWord, ...] = ()
    """Their probabilities, if the recogniser gives them."""
    segments: tuple[SpokenSegment, ...] = ()
    """What each speaker said, in a final transcript, if speakers are distinguished."""
    certainty: float | None = None
    """Log probability of the last word, if the recogniser gives it."""


class TokenCounts(Struct, frozen=True):
    """Tokens as the model counted them."""

    input: int
    output: int
    cached: int = 0


class DraftTranscribed(Struct, frozen=True):
    """The answer to DraftTranscript."""

    draft_id: str
    text: str


class AnticipationEnded(Struct, frozen=True):
    """A draft or a speculation has failed or was dropped; what a speculation has used."""

    id: str
    tokens: TokenCounts | None = None
    characters: int = 0
    """Characters of text that the model generated."""
    spoken_characters: int = 0
    samples: int = 0
    """Of speech."""
    refused: bool = False
    """Whether it was never begun, because the server is too busy."""


class ItemTranscriptionFailed(Struct, frozen=True):
    """The transcription of a recording failed."""

    key: TranscriptionKey
    reason: str


class GenerationProgress(Struct, frozen=True):
    """The model generates text of a spoken answer, but no clause is complete yet."""

    response_id: str
    writes: bool = True
    """False: a function of this server is running, and the model continues with its result."""


class TextGenerated(Struct, frozen=True):
    """More text of the answer. For a spoken answer: the clause that goes to the synthesiser."""

    response_id: str
    text: str


class ToolCallStarted(Struct, frozen=True):
    """The model began to call a function; `index` distinguishes the calls of an answer."""

    response_id: str
    index: int
    call_id: str
    name: str


class ToolCallArguments(Struct, frozen=True):
    """More of the arguments of a call, JSON text."""

    response_id: str
    index: int
    arguments: str


class GenerationFinished(Struct, frozen=True):
    """The model has ended; audio may still come."""

    response_id: str
    reason: Literal["stop", "length", "content_filter"]
    tokens: TokenCounts | None = None


class SpokenWord(Struct, frozen=True, array_like=True):
    """Text with the space that follows it; its audio begins at sample `at` of the answer."""

    text: str
    at: int


class AudioGenerated(Struct, frozen=True):
    """More audio of the answer, 16-bit mono PCM at 24 kHz, and the words that begin in it."""

    response_id: str
    audio: bytes
    words: tuple[SpokenWord, ...] = ()
    ends: bool = False
    """Whether the synthesiser has spoken all text it was given so far."""


class SpeechFailed(Struct, frozen=True):
    """Speech synthesis failed: the rest of the answer comes as words without audio."""

    response_id: str
    reason: str


class OutputFinished(Struct, frozen=True):
    """The answer is complete."""

    response_id: str


class GenerationFailed(Struct, frozen=True):
    """Generating the answer failed at this stage."""

    response_id: str
    stage: Stage
    reason: str


class AudioPlayed(Struct, frozen=True):
    """This many more samples of an item were played; only if the server owns the playback."""

    item_id: str
    samples: int


class AudioCleaned(Struct, frozen=True):
    """The answer to CleanAudio: the same amount of microphone audio, cleaned."""

    audio: bytes


class UpstreamConnected(Struct, frozen=True):
    """The upstream server has begun a session."""

    expires_in: float = float("inf")
    """Seconds; infinite if the server does not say."""


class UpstreamEventReceived(Struct, frozen=True):
    """The upstream server sent an event; `raw` is its frame."""

    event: UpstreamEvent
    raw: bytes


class UpstreamLost(Struct, frozen=True):
    """The connection to the upstream server could not be made, or ended."""

    reason: str
    kind: FaultKind = "closed"
    close_code: int = 0
    """The close code of the WebSocket; 0: there was none."""
    status: int = 0
    """The status of the answer that refused the handshake; 0: there was none."""


class ToolFinished(Struct, frozen=True):
    """A function of this server has returned, or has failed."""

    call_id: str
    output: str
    """For the model."""


class BackgroundToolFinished(Struct, frozen=True):
    """A background function has returned, or has failed.

    The next answer from the conversation is generated with its result.
    """

    call_id: str


class TimerFired(Struct, frozen=True):
    """The session's deadline has passed."""


class DrainStarted(Struct, frozen=True):
    """The server is shutting down: finish what is in progress, begin nothing new."""


class AccessEnded(Struct, frozen=True):
    """The owner of the session may use nothing more, because a budget is spent or a key revoked."""

    code: str
    """The code of the `error` event: insufficient_quota, invalid_api_key, store_unavailable."""
    message: str
    close_code: int


class ContentBlocked(Struct, frozen=True):
    """Moderation does not allow what was said."""

    item_id: str
    """The user's item that holds the text; "": an answer holds it."""
    say: str
    """The sentence that the server says about it; "": none."""
    ends: bool = False
    """Whether the session ends."""


class BudgetLow(Struct, frozen=True):
    """Most of a budget of the owner is spent (`session.warn_at`)."""


class Disconnected(Struct, frozen=True):
    """The connection to the client is closed, or is to be closed."""

    code: int = 1000
    """The close code of the connection, as it was sent or received; 1006: it was lost."""
    cause: DisconnectCause = "client"


GenerationFact: TypeAlias = (
    GenerationProgress
    | TextGenerated
    | ToolCallStarted
    | ToolCallArguments
    | GenerationFinished
    | AudioGenerated
    | SpeechFailed
    | OutputFinished
    | GenerationFailed
)
CascadeFact: TypeAlias = (
    VadScores
    | TurnScored
    | SpeakerChecked
    | TranscriptUpdated
    | ItemTranscriptionFailed
    | DraftTranscribed
    | AnticipationEnded
    | GenerationFact
    | AudioCleaned
    | BackgroundToolFinished
)
RelayFact: TypeAlias = UpstreamConnected | UpstreamEventReceived | UpstreamLost | ToolFinished
BrainFact: TypeAlias = CascadeFact | RelayFact
"""What a performer reports.

A brain ignores reports of another kind, which are late results for the brain before it.
"""
Fact: TypeAlias = (
    Received
    | InvalidFrame
    | AudioArrived
    | BrainFact
    | AudioPlayed
    | TimerFired
    | DrainStarted
    | AccessEnded
    | ContentBlocked
    | BudgetLow
    | Disconnected
)
