"""Server events of GA Realtime, one Struct each, and the union of all of them."""

from typing import Literal, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from vivavoce.protocol.items import Item
from vivavoce.protocol.logprobs import TokenLogprob
from vivavoce.protocol.responses import (
    DurationUsage,
    Response,
    SessionUsage,
    TranscriptionTokens,
)
from vivavoce.protocol.session import SessionObject


class ServerEvent(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Base of all server events but dtmf_event_received, which has no event_id."""

    event_id: str


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    """All five keys are always sent."""

    type: str = "invalid_request_error"
    code: str | None = None
    message: str
    param: str | None = None
    event_id: str | None = None


class ErrorEvent(ServerEvent, frozen=True, kw_only=True, tag="error"):
    """The client's event was refused, or the server failed. The session continues."""

    error: ErrorBody


class Resume(msgspec.Struct, frozen=True):
    """An extension: how a client that has lost its connection can come back."""

    token: str
    """Its `resume_token`: a secret."""
    grace_seconds: float
    """How long the session continues without its client after the connection was lost."""
    last_item_id: str | UnsetType | None = UNSET
    """If a stored conversation continues: its last item. Items after it are lost."""

    def __repr__(self) -> str:
        return f"Resume(token='***', grace_seconds={self.grace_seconds})"


class SessionCreated(ServerEvent, frozen=True, kw_only=True, tag="session.created"):
    """Always the first event."""

    session: SessionObject
    resumed: bool | UnsetType = UNSET
    """An extension: true if the client has come back to its conversation."""
    resume: Resume | UnsetType = UNSET


class SessionUpdated(ServerEvent, frozen=True, kw_only=True, tag="session.updated"):
    """The update was applied; the whole session."""

    session: SessionObject


class ConversationObject(msgspec.Struct, frozen=True):
    id: str
    object: Literal["realtime.conversation"] = "realtime.conversation"


class ConversationCreated(ServerEvent, frozen=True, kw_only=True, tag="conversation.created"):
    """Follows session.created in the beta dialect; GA does not send it."""

    conversation: ConversationObject


class ItemCreated(ServerEvent, frozen=True, kw_only=True, tag="conversation.item.created"):
    """The beta's single event for an added and a finished item."""

    previous_item_id: str | None
    item: Item


class ItemAdded(ServerEvent, frozen=True, kw_only=True, tag="conversation.item.added"):
    """An item was added to the conversation; an item of a response is still empty."""

    previous_item_id: str | None
    item: Item


class ItemDone(ServerEvent, frozen=True, kw_only=True, tag="conversation.item.done"):
    """The item is final."""

    previous_item_id: str | None
    item: Item


class ItemRetrieved(ServerEvent, frozen=True, kw_only=True, tag="conversation.item.retrieved"):
    """The item with its audio."""

    item: Item


class ItemTruncated(ServerEvent, frozen=True, kw_only=True, tag="conversation.item.truncated"):
    item_id: str
    content_index: int
    audio_end_ms: int


class ItemDeleted(ServerEvent, frozen=True, kw_only=True, tag="conversation.item.deleted"):
    item_id: str


class TranscriptionDelta(
    ServerEvent, frozen=True, kw_only=True, tag="conversation.item.input_audio_transcription.delta"
):
    """More of the transcript. All deltas together are its beginning."""

    item_id: str
    content_index: int = 0
    delta: str
    logprobs: tuple[TokenLogprob, ...] | UnsetType = UNSET
    """If the session includes them and the recogniser knows them."""


class TranscriptionCompleted(
    ServerEvent,
    frozen=True,
    kw_only=True,
    tag="conversation.item.input_audio_transcription.completed",
):
    """The final transcript."""

    item_id: str
    content_index: int = 0
    transcript: str
    usage: DurationUsage | TranscriptionTokens
    logprobs: tuple[TokenLogprob, ...] | UnsetType = UNSET


class TranscriptionError(msgspec.Struct, frozen=True):
    type: str
    code: str
    message: str


class TranscriptionFailed(
    ServerEvent, frozen=True, kw_only=True, tag="conversation.item.input_audio_transcription.failed"
):
    """The transcription of a user item failed."""

    item_id: str
    content_index: int = 0
    error: TranscriptionError


class InputTranscriptionSegment(
    ServerEvent,
    frozen=True,
    kw_only=True,
    tag="conversation.item.input_audio_transcription.segment",
):
    """A segment of one speaker; times in seconds. Only from diarizing engines."""

    item_id: str
    content_index: int = 0
    id: str
    text: str
    speaker: str
    start: float
    end: float


class InputAudioCommitted(
    ServerEvent, frozen=True, kw_only=True, tag="input_audio_buffer.committed"
):
    """The buffer became a user item, by commit, by turn detection or by the idle timeout."""

    previous_item_id: str | None
    item_id: str


class InputAudioCleared(ServerEvent, frozen=True, kw_only=True, tag="input_audio_buffer.cleared"):
    """The buffer is empty."""


class SpeechStarted(
    ServerEvent, frozen=True, kw_only=True, tag="input_audio_buffer.speech_started"
):
    """Speech started. Milliseconds of audio since the session began, padding included."""

    item_id: str
    audio_start_ms: int


class TurnDecision(msgspec.Struct, frozen=True, kw_only=True):
    """Why a turn was ended, and after how much silence: an extension."""

    waited_ms: int
    """Silence before the decision."""
    reason: str
    """A few words, such as "sentence incomplete"."""
    likelihood: float | UnsetType = UNSET
    """The probability that the turn was over, by all sources together; this and the following only
    under semantic_vad."""
    words: float | UnsetType = UNSET
    """By the words alone; absent: unknown."""
    certainty: float | UnsetType = UNSET
    """The probability that the recogniser gives to the last of them; absent: it gives none."""
    sound: float | UnsetType = UNSET
    """By the voice alone."""
    llm: float | UnsetType = UNSET
    """By a language model alone."""
    usual_pause_ms: int | UnsetType = UNSET
    """The usual pauses of this speaker within a turn."""


class SpeechStopped(
    ServerEvent, frozen=True, kw_only=True, tag="input_audio_buffer.speech_stopped"
):
    """The user stopped. The time includes the silence by which that was detected."""

    item_id: str
    audio_end_ms: int
    decision: TurnDecision | UnsetType = UNSET
    """If the client asked for it: `turn_detection.explain`."""


class TimeoutTriggered(
    ServerEvent, frozen=True, kw_only=True, tag="input_audio_buffer.timeout_triggered"
):
    """No speech for idle_timeout_ms; the silence between the two times becomes an item."""

    item_id: str
    audio_start_ms: int
    audio_end_ms: int


class RateLimit(msgspec.Struct, frozen=True):
    name: Literal["requests", "tokens"]
    limit: int
    remaining: int
    reset_seconds: float


class RateLimitsUpdated(ServerEvent, frozen=True, kw_only=True, tag="rate_limits.updated"):
    """Sent after response.done. Empty if the operator has set no limits."""

    rate_limits: tuple[RateLimit, ...] = ()


class ResponseCreated(ServerEvent, frozen=True, kw_only=True, tag="response.created"):
    """A response was created; sent before the model request."""

    response: Response


class ResponseDone(ServerEvent, frozen=True, kw_only=True, tag="response.done"):
    """Always the last event of a response, however it ends."""

    response: Response
    x_usage: SessionUsage | UnsetType = UNSET
    """If the client's session includes it."""


class OutputItemAdded(ServerEvent, frozen=True, kw_only=True, tag="response.output_item.added"):
    response_id: str
    output_index: int
    item: Item


class OutputItemDone(ServerEvent, frozen=True, kw_only=True, tag="response.output_item.done"):
    response_id: str
    output_index: int
    item: Item


class ShownPart(msgspec.Struct, frozen=True, kw_only=True):
    """A content part in part events: short type names, no audio, no null members."""

    type: Literal["text", "audio"]
    text: str | UnsetType = UNSET
    transcript: str | UnsetType = UNSET


class PartEvent(ServerEvent, frozen=True, kw_only=True):
    """Base of all events of one content part."""

    response_id: str
    item_id: str
    output_index: int
    content_index: int = 0


class ContentPartAdded(PartEvent, frozen=True, kw_only=True, tag="response.content_part.added"):
    part: ShownPart


class ContentPartDone(PartEvent, frozen=True, kw_only=True, tag="response.content_part.done"):
    part: ShownPart


class OutputTextDelta(PartEvent, frozen=True, kw_only=True, tag="response.output_text.delta"):
    delta: str


class OutputTextDone(PartEvent, frozen=True, kw_only=True, tag="response.output_text.done"):
    text: str


class OutputTranscriptDelta(
    PartEvent, frozen=True, kw_only=True, tag="response.output_audio_transcript.delta"
):
    delta: str


class OutputTranscriptDone(
    PartEvent, frozen=True, kw_only=True, tag="response.output_audio_transcript.done"
):
    transcript: str


class OutputAudioDelta(PartEvent, frozen=True, kw_only=True, tag="response.output_audio.delta"):
    delta: bytes  # base64 on the wire


class OutputAudioDone(PartEvent, frozen=True, kw_only=True, tag="response.output_audio.done"):
    """No more audio of this part."""


class FunctionArgumentsDelta(
    ServerEvent, frozen=True, kw_only=True, tag="response.function_call_arguments.delta"
):
    response_id: str
    item_id: str
    output_index: int
    call_id: str
    delta: str


class FunctionArgumentsDone(
    ServerEvent, frozen=True, kw_only=True, tag="response.function_call_arguments.done"
):
    response_id: str
    item_id: str
    output_index: int
    call_id: str
    name: str
    arguments: str


# Events of a call: what the server plays by itself, and the keys of a telephone. They are sent only
# where the server owns the playout, never on a Realtime WebSocket.


class DtmfReceived(
    msgspec.Struct, frozen=True, tag_field="type", tag="input_audio_buffer.dtmf_event_received"
):
    """A telephone key was pressed. The one event without an event_id."""

    event: str
    received_at: int  # unix seconds


class OutputAudioStarted(ServerEvent, frozen=True, kw_only=True, tag="output_audio_buffer.started"):
    """Playback of a response begins."""

    response_id: str


class OutputAudioStopped(ServerEvent, frozen=True, kw_only=True, tag="output_audio_buffer.stopped"):
    """Playback is complete; sent after response.done."""

    response_id: str


class OutputAudioCleared(ServerEvent, frozen=True, kw_only=True, tag="output_audio_buffer.cleared"):
    """Audio that was not played yet was dropped."""

    response_id: str


# Events about tools of an MCP server. This server runs no MCP tools and sends none of these;
# an upstream may.


class McpListToolsEvent(ServerEvent, frozen=True, kw_only=True):
    item_id: str


class McpListToolsInProgress(McpListToolsEvent, frozen=True, tag="mcp_list_tools.in_progress"):
    """The tools of an MCP server are being listed."""


class McpListToolsCompleted(McpListToolsEvent, frozen=True, tag="mcp_list_tools.completed"):
    """They were listed."""


class McpListToolsFailed(McpListToolsEvent, frozen=True, tag="mcp_list_tools.failed"):
    """Listing them failed."""


class McpArgumentsDelta(
    ServerEvent, frozen=True, kw_only=True, tag="response.mcp_call_arguments.delta"
):
    response_id: str
    item_id: str
    output_index: int
    delta: str
    obfuscation: str = ""


class McpArgumentsDone(
    ServerEvent, frozen=True, kw_only=True, tag="response.mcp_call_arguments.done"
):
    response_id: str
    item_id: str
    output_index: int
    arguments: str


class McpCallEvent(ServerEvent, frozen=True, kw_only=True):
    item_id: str
    output_index: int


class McpCallInProgress(McpCallEvent, frozen=True, tag="response.mcp_call.in_progress"):
    """An MCP tool is being called."""


class McpCallCompleted(McpCallEvent, frozen=True, tag="response.mcp_call.completed"):
    """The call succeeded."""


class McpCallFailed(McpCallEvent, frozen=True, tag="response.mcp_call.failed"):
    """The call failed."""


AnyServerEvent: TypeAlias = (
    ErrorEvent
    | SessionCreated
    | SessionUpdated
    | ConversationCreated
    | ItemCreated
    | ItemAdded
    | ItemDone
    | ItemRetrieved
    | ItemTruncated
    | ItemDeleted
    | TranscriptionDelta
    | TranscriptionCompleted
    | TranscriptionFailed
    | InputTranscriptionSegment
    | InputAudioCommitted
    | InputAudioCleared
    | SpeechStarted
    | SpeechStopped
    | TimeoutTriggered
    | DtmfReceived
    | OutputAudioStarted
    | OutputAudioStopped
    | OutputAudioCleared
    | RateLimitsUpdated
    | ResponseCreated
    | ResponseDone
    | OutputItemAdded
    | OutputItemDone
    | ContentPartAdded
    | ContentPartDone
    | OutputTextDelta
    | OutputTextDone
    | OutputTranscriptDelta
    | OutputTranscriptDone
    | OutputAudioDelta
    | OutputAudioDone
    | FunctionArgumentsDelta
    | FunctionArgumentsDone
    | McpListToolsInProgress
    | McpListToolsCompleted
    | McpListToolsFailed
    | McpArgumentsDelta
    | McpArgumentsDone
    | McpCallInProgress
    | McpCallCompleted
    | McpCallFailed
)
