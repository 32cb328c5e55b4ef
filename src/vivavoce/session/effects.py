"""Effects: what a session asks the runtime to do. Names are orders, in the imperative.

Effects and facts are msgspec structs: they are built in C, several for each piece of audio.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias

from msgspec import Struct

from vivavoce.protocol.items import FunctionTool, Item, ToolChoice
from vivavoce.protocol.responses import DurationUsage, Usage
from vivavoce.protocol.server import (
    AnyServerEvent,
    ErrorBody,
    ErrorEvent,
    ItemTruncated,
    TurnDecision,
)
from vivavoce.session.facts import AccessEnded, FaultKind, TranscriptionKey

CALL_RUNS = '{"status":"running","note":"The result comes later, by itself."}'
"""The provisional result of a function that runs in the background."""
TOO_MANY_CALLS = '{"error":"too many functions run in the background"}'


class Send(Struct, frozen=True):
    """Send an event to the client."""

    event: AnyServerEvent


class SendRaw(Struct, frozen=True):
    """Send a GA server event from an upstream server to the client, as JSON, unchanged."""

    data: bytes


class RunVad(Struct, frozen=True):
    """Score whole windows of PCM from position `at` on. Report VadScores, in order."""

    at: int
    audio: bytes


class StartTranscription(Struct, frozen=True):
    """Begin to transcribe a recording.

    Report TranscriptUpdated as words come, the last one final, or ItemTranscriptionFailed once.
    """

    key: TranscriptionKey
    model: str
    language: str | None
    prompt: str
    asked_model: str = ""
    """The recogniser model that the client named, used if the engine offers it."""
    scored: bool = False
    """Whether to report the probabilities of words."""
    diarized: bool = False
    """Whether to report who said what."""


class FeedAudio(Struct, frozen=True):
    """More audio of that recording: 16-bit mono PCM at 24 kHz."""

    key: TranscriptionKey
    audio: bytes


class EndAudio(Struct, frozen=True):
    """All audio of that recording was fed: report the final TranscriptUpdated."""

    key: TranscriptionKey
    draft_id: str = ""
    """The draft that becomes the transcript, because only silence came after it.

    If the draft has failed, the recording is transcribed as usual.
    """
    begins: str = ""
    """The words already sent; a draft that begins otherwise counts as failed."""


class CancelTranscription(Struct, frozen=True):
    """Stop that transcription, and report nothing more about it."""

    key: TranscriptionKey


class DraftTranscript(Struct, frozen=True):
    """Transcribe the audio of a recording so far as if it were complete, beside the transcription
    itself.

    Report DraftTranscribed once, or AnticipationEnded where it fails or is not begun.
    """

    draft_id: str
    order: StartTranscription
    """The key of the transcription."""


class ScoreTurn(Struct, frozen=True):
    """Score how likely it is that this is a finished turn. Report TurnScored for the words, for
    the sound where there is some, and for a language model where it is asked.

    audio: the end of the turn, 16-bit mono PCM at 24 kHz, where the model wants it.
    """

    item_id: str
    text: str
    language: str | None
    audio: bytes = b""
    llm_timeout_s: float = 0.0
    """How long a language model may take to answer; 0: none is asked."""
    before: str = ""
    """For a language model: what was said before the turn."""


class CheckSpeaker(Struct, frozen=True):
    """Compare the voice in this speech, PCM at 24 kHz, with that of the speaker of the session.

    Report SpeakerChecked once; of several orders for one item, only for the last. If the session
    has no speaker yet, this voice becomes the speaker's.
    """

    item_id: str
    audio: bytes


@dataclass(frozen=True, slots=True)
class Prompt:
    """Everything that an answer is generated from."""

    model: str
    """The configured model."""
    instructions: str
    items: tuple[Item, ...]
    tools: tuple[FunctionTool, ...]
    tool_choice: ToolChoice
    parallel_tool_calls: bool
    max_output_tokens: int | None
    language: str | None
    spoken: bool
    voice: str
    speed: float
    asked_model: str = ""
    """The model that the client named; an engine uses it if its service has a model of that
    name."""
    speech_model: str = ""
    """The synthesis model that the client named, if any."""
    conversation_id: str = ""
    server_tools: tuple[FunctionTool, ...] = ()
    """Functions of this server, which the client does not see: the runtime answers their calls."""
    background_tools: frozenset[str] = frozenset()
    """Those of these functions that run in the background: their results come as
    BackgroundToolFinished. A prompt with any of them includes the results since the last such
    prompt."""


class Filler(Struct, frozen=True):
    """The filler, said first if the model gives nothing for that time."""

    text: str
    after_s: float


class Generate(Struct, frozen=True):
    """Generate an answer.

    Report GenerationProgress, TextGenerated, ToolCallStarted, ToolCallArguments and
    AudioGenerated as it comes, SpeechFailed once at the most, GenerationFinished when the model
    has ended, and OutputFinished or GenerationFailed once, last.
    """

    response_id: str
    prompt: Prompt
    begun: str = ""
    """The Speculate effect that generated this answer early: it continues, and its output so far is
    reported first. If it has ended, the answer is generated anew."""
    filler: Filler | None = None
    """The filler of a spoken answer that was not begun early."""
    text: str = ""
    """If given, this text is spoken as the answer, and no model is asked."""


class Speculate(Struct, frozen=True):
    """Generate an answer that may turn out not to be needed.

    Report nothing of it until a Generate names it; report AnticipationEnded if it fails, is not
    begun, or is dropped.
    """

    speculation_id: str
    prompt: Prompt
    speak: bool
    """Whether its first clause is synthesised early, too."""


class DropAnticipated(Struct, frozen=True):
    """Stop a draft or a speculation. Report nothing more about a draft."""

    id: str


class Say(Struct, frozen=True):
    """Speak this text as the answer, for the server itself and with any brain.

    Report AudioGenerated as it comes, and OutputFinished or GenerationFailed once, last.
    """

    order: Generate
    text: str


class CancelGeneration(Struct, frozen=True):
    """Stop generating that answer, and report nothing more about it."""

    response_id: str


class PlayAudio(Struct, frozen=True):
    """Play 16-bit mono PCM at 24 kHz after the audio that is queued.

    Report AudioPlayed as it is played.
    """

    item_id: str
    audio: bytes


class ClearPlayback(Struct, frozen=True):
    """Drop the audio that was not played yet."""


class DuckPlayback(Struct, frozen=True):
    """Play answers at a lower level from now on, or at full level again."""

    ducked: bool


class ConfigureCleaning(Struct, frozen=True):
    """Clean microphone audio from now on: echo, noise and gain; None: stop.

    Sent before the first CleanAudio, and again when the client changes the setting.
    """

    field: Literal["near_field", "far_field"] | None


class CleanAudio(Struct, frozen=True):
    """Clean microphone audio, PCM at 24 kHz. Report AudioCleaned at once, in order."""

    audio: bytes


class AddEchoReference(Struct, frozen=True):
    """Audio at 24 kHz, PCM, that the client plays next: it will be the source of an echo."""

    audio: bytes


class ClearEchoReference(Struct, frozen=True):
    """The client has stopped playing."""


class ConnectUpstream(Struct, frozen=True):
    """Connect to the upstream server of this model.

    Report UpstreamConnected once, UpstreamEvent for each frame, and UpstreamLost once when the
    connection cannot be made or ends.
    """

    model: str
    transcription: bool = False
    """Whether the session transcribes only."""
    settings: bytes = b""
    """JSON, without the model. For a call whose media does not pass through this server."""


class SendUpstream(Struct, frozen=True):
    """Send a GA client event, JSON, to the upstream server."""

    data: bytes


class HoldUpstream(Struct, frozen=True):
    """No session connects to the upstream server for this many seconds."""

    seconds: float
    kind: FaultKind


class DisconnectUpstream(Struct, frozen=True):
    """Close the connection to the upstream server, and report nothing more about it."""


class RequestFallback(Struct, frozen=True):
    """This brain cannot continue: attach the fallback of its model, or close the session."""

    reason: str
    close_code: int = 1011
    kind: FaultKind = "closed"


class RequestEnd(Struct, frozen=True):
    """Give the session this fact after the present one: its client may use nothing more."""

    reason: AccessEnded


class RunTool(Struct, frozen=True):
    """Call a function of this server. Report ToolFinished once."""

    call_id: str
    name: str
    arguments: str
    """JSON text, as the model generated it."""


class CancelTool(Struct, frozen=True):
    """The result of that call is no longer needed: report nothing about it."""

    call_id: str


class RecordUsage(Struct, frozen=True):
    """The usage of a response or a transcription. For observers: there is nothing to carry out."""

    id: str
    """Unique in the session: the id of the response, or of the item and its content part."""
    model: str
    """The configured model that served the request."""
    usage: Usage | DurationUsage
    kind: Literal["response", "transcription", "speculative"] = "response"
    """speculative: work that was begun early and not used."""
    characters: int = 0
    """Characters that were given to a synthesiser."""
    confirmed: bool = True
    """False: the upstream server has not reported the usage, and more may have been billed."""
    recogniser: str = ""
    """The upstream server's transcription model, which has a price of its own."""


class RecordDroppedAudio(Struct, frozen=True):
    """This many frames of the client's audio were dropped.

    For observers: there is nothing to carry out.
    """

    frames: int


class RecordRefusal(Struct, frozen=True):
    """A rule of the operator forbids an event of the client. For observers."""

    event: str
    """Its type."""
    rule: str


class RecordTurn(Struct, frozen=True):
    """Why a turn was ended. For observers."""

    item_id: str
    decision: TurnDecision


class RecordModel(Struct, frozen=True):
    """Another configured model serves the session from now on. For observers."""

    model: str


class Close(Struct, frozen=True):
    """Close the connection. The session gets no further facts."""

    code: int
    reason: str


CascadeEffect: TypeAlias = (
    RunVad
    | StartTranscription
    | FeedAudio
    | EndAudio
    | CancelTranscription
    | DraftTranscript
    | ScoreTurn
    | CheckSpeaker
    | Speculate
    | DropAnticipated
    | Generate
    | CancelGeneration
    | ConfigureCleaning
    | CleanAudio
    | AddEchoReference
    | ClearEchoReference
)
"""The effects that the performer of a cascade carries out."""
RelayEffect: TypeAlias = ConnectUpstream | SendUpstream | HoldUpstream | DisconnectUpstream
"""The effects that the performer of a relay carries out."""
ShellEffect: TypeAlias = (
    Send
    | SendRaw
    | PlayAudio
    | ClearPlayback
    | DuckPlayback
    | Say
    | RunTool
    | CancelTool
    | RequestFallback
    | RequestEnd
    | Close
)
"""The effects that the runner carries out itself."""
ObserverEffect: TypeAlias = (
    RecordUsage | RecordDroppedAudio | RecordRefusal | RecordTurn | RecordModel
)
"""The effects that are for observers alone."""
Effect: TypeAlias = ShellEffect | ObserverEffect | CascadeEffect | RelayEffect


class Ids:
    """Ids that never repeat: each holds a given salt and a counter."""

    def __init__(self, salt: str) -> None:
        self._salt = salt
        self._count = 0

    def next(self, kind: str) -> str:
        self._count += 1
        return f"{kind}_{self._salt}{self._count:05x}"


class EffectBuffer:
    """Collects effects in order, and allocates ids."""

    def __init__(self, ids: Ids) -> None:
        self.ids = ids
        self.event_id: Callable[[], str] = partial(ids.next, "event")
        """Allocates the id of an event that is about to be sent."""
        self._effects: list[Effect] = []

    def send(self, event: AnyServerEvent) -> None:
        self._effects.append(Send(event))

    def add(self, effect: Effect) -> None:
        self._effects.append(effect)

    def error(
        self,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        cause: str | None = None,
    ) -> None:
        """Send an `error` event; `cause` is the event_id of the client event at fault."""
        body = ErrorBody(type=kind, code=code, message=message, param=param, event_id=cause)
        self.send(ErrorEvent(event_id=self.event_id(), error=body))

    def truncated(self, item_id: str, audio_end_ms: int, content_index: int = 0) -> None:
        """Send that only so much of the audio of an item was heard."""
        self.send(
            ItemTruncated(
                event_id=self.event_id(),
                item_id=item_id,
                content_index=content_index,
                audio_end_ms=audio_end_ms,
            )
        )

    def drain(self) -> list[Effect]:
        """Remove all effects and return them."""
        effects, self._effects = self._effects, []
        return effects
