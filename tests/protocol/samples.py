"""One of every server event, and of what they carry."""

from typing import Any

from vivavoce.protocol.items import (
    FunctionCall,
    FunctionCallOutput,
    FunctionTool,
    InputAudio,
    InputImage,
    InputText,
    Message,
    OutputAudio,
    OutputText,
    ToolName,
)
from vivavoce.protocol.responses import (
    DurationUsage,
    Response,
    ResponseAudio,
    ResponseAudioOutput,
    ResponseError,
    StatusDetails,
    Usage,
)
from vivavoce.protocol.server import (
    AnyServerEvent,
    ContentPartAdded,
    ContentPartDone,
    ConversationCreated,
    ConversationObject,
    DtmfReceived,
    ErrorBody,
    ErrorEvent,
    FunctionArgumentsDelta,
    FunctionArgumentsDone,
    InputAudioCleared,
    InputAudioCommitted,
    InputTranscriptionSegment,
    ItemAdded,
    ItemCreated,
    ItemDeleted,
    ItemDone,
    ItemRetrieved,
    ItemTruncated,
    McpArgumentsDelta,
    McpArgumentsDone,
    McpCallCompleted,
    McpCallFailed,
    McpCallInProgress,
    McpListToolsCompleted,
    McpListToolsFailed,
    McpListToolsInProgress,
    OutputAudioCleared,
    OutputAudioDelta,
    OutputAudioDone,
    OutputAudioStarted,
    OutputAudioStopped,
    OutputItemAdded,
    OutputItemDone,
    OutputTextDelta,
    OutputTextDone,
    OutputTranscriptDelta,
    OutputTranscriptDone,
    RateLimit,
    RateLimitsUpdated,
    ResponseCreated,
    ResponseDone,
    SessionCreated,
    SessionUpdated,
    ShownPart,
    SpeechStarted,
    SpeechStopped,
    TimeoutTriggered,
    TranscriptionCompleted,
    TranscriptionDelta,
    TranscriptionError,
    TranscriptionFailed,
)
from vivavoce.protocol.session import (
    PCM,
    PCMA,
    PCMU,
    Audio,
    AudioInput,
    AudioOutput,
    NoiseReduction,
    RealtimeSession,
    SemanticVad,
    ServedBy,
    ServerVad,
    Transcription,
    TranscriptionAudio,
    TranscriptionSession,
)

EVENT: dict[str, Any] = {"event_id": "event_1"}
PLACE: dict[str, Any] = {**EVENT, "response_id": "resp_1", "item_id": "item_2", "output_index": 0}
TOOL = FunctionTool(name="dial", description="Dials.", parameters={"type": "object"})

PLAIN_SESSION = RealtimeSession(
    id="sess_1", model="gpt-realtime", expires_at=1_700_000_000, served_by=ServedBy("here", "here")
)
RICH_SESSION = RealtimeSession(
    id="sess_1",
    model="gpt-realtime",
    expires_at=1_700_000_000,
    output_modalities=("text",),
    instructions="Be brief.",
    tools=(TOOL, FunctionTool(name="hang_up")),
    tool_choice=ToolName("dial"),
    reasoning={"effort": "low"},
    max_output_tokens=100,
    tracing="auto",
    prompt={"id": "pmpt_1"},
    include=("item.input_audio_transcription.logprobs",),
    audio=Audio(
        input=AudioInput(
            format=PCMU(),
            transcription=Transcription(model="whisper-1", language="it", prompt="Roma"),
            noise_reduction=NoiseReduction(type="near_field"),
            turn_detection=SemanticVad(eagerness="low", create_response=False),
        ),
        output=AudioOutput(format=PCMA(), voice="ash", speed=1.25),
    ),
)
TRANSCRIPTION_SESSION = TranscriptionSession(
    id="sess_2",
    expires_at=1_700_000_000,
    audio=TranscriptionAudio(
        AudioInput(
            transcription=Transcription(model="whisper-1"),
            turn_detection=ServerVad(threshold=0.25),
        )
    ),
)

USER_AUDIO = Message(id="item_1", role="user", content=(InputAudio(),))
USER_MIX = Message(
    id="item_3",
    role="user",
    content=(
        InputText("Look:"),
        InputImage("data:image/png;base64,AAAA", detail="low"),
        InputAudio(audio=b"\x01\x02", transcript="Hello"),
    ),
)
EMPTY_ANSWER = Message(id="item_2", role="assistant", status="in_progress", content=())
SPOKEN_ANSWER = Message(id="item_2", role="assistant", content=(OutputAudio(transcript="Hi."),))
WRITTEN_ANSWER = Message(id="item_2", role="assistant", content=(OutputText("Hi."),))
HEARD_ANSWER = Message(
    id="item_2",
    role="assistant",
    status="incomplete",
    content=(OutputAudio(transcript="Hi.", audio=b"\x03\x04"),),
)
CALL = FunctionCall(id="item_4", call_id="call_1", name="dial", arguments='{"to":1}')
OPEN_CALL = FunctionCall(id="item_4", status="in_progress", call_id="call_1", name="dial")
CALL_OUTPUT = FunctionCallOutput(id="item_5", call_id="call_1", output="rings")

OPEN_RESPONSE = Response(
    id="resp_1",
    status="in_progress",
    conversation_id="conv_1",
    output_modalities=("audio",),
    max_output_tokens="inf",
    audio=ResponseAudio(ResponseAudioOutput(format=PCM(), voice="marin")),
)
DONE_RESPONSE = Response(
    id="resp_1",
    status="completed",
    output=(SPOKEN_ANSWER, CALL),
    conversation_id="conv_1",
    output_modalities=("audio",),
    max_output_tokens=4096,
    audio=ResponseAudio(ResponseAudioOutput(format=PCMU(), voice="marin")),
    usage=Usage(total_tokens=3, input_tokens=1, output_tokens=2),
    metadata={"client_event_id": "e1"},
)
CUT_RESPONSE = Response(
    id="resp_1",
    status="cancelled",
    status_details=StatusDetails(type="cancelled", reason="turn_detected"),
    output=(HEARD_ANSWER,),
    conversation_id=None,
    output_modalities=("text",),
    max_output_tokens="inf",
    audio=ResponseAudio(ResponseAudioOutput(format=PCMA(), voice="marin")),
    usage=Usage(),
)
FAILED_RESPONSE = Response(
    id="resp_1",
    status="failed",
    status_details=StatusDetails(
        type="failed", error=ResponseError("server_error", "engine_failed", "No model.")
    ),
    conversation_id="conv_1",
    output_modalities=("audio",),
    max_output_tokens="inf",
    audio=ResponseAudio(ResponseAudioOutput(format=PCM(), voice="marin")),
    usage=Usage(),
)

SERVER_EVENTS: tuple[AnyServerEvent, ...] = (
    ErrorEvent(
        **EVENT,
        error=ErrorBody(
            code="invalid_value",
            message="Invalid 'session.audio.input.turn_detection.threshold': too loud.",
            param="session.audio.input.turn_detection.threshold",
            event_id="mine",
        ),
    ),
    ErrorEvent(**EVENT, error=ErrorBody(type="server_error", message="The server failed.")),
    SessionCreated(**EVENT, session=PLAIN_SESSION),
    SessionCreated(**EVENT, session=TRANSCRIPTION_SESSION),
    SessionUpdated(**EVENT, session=RICH_SESSION),
    SessionUpdated(**EVENT, session=TRANSCRIPTION_SESSION),
    ConversationCreated(**EVENT, conversation=ConversationObject("conv_1")),
    ItemCreated(**EVENT, previous_item_id=None, item=USER_AUDIO),
    ItemAdded(**EVENT, previous_item_id=None, item=USER_AUDIO),
    ItemAdded(**EVENT, previous_item_id="item_1", item=EMPTY_ANSWER),
    ItemAdded(**EVENT, previous_item_id="item_1", item=OPEN_CALL),
    ItemDone(**EVENT, previous_item_id="item_1", item=WRITTEN_ANSWER),
    ItemDone(**EVENT, previous_item_id="item_1", item=CALL_OUTPUT),
    ItemRetrieved(**EVENT, item=USER_MIX),
    ItemRetrieved(**EVENT, item=HEARD_ANSWER),
    ItemTruncated(**EVENT, item_id="item_2", content_index=0, audio_end_ms=10),
    ItemDeleted(**EVENT, item_id="item_2"),
    TranscriptionDelta(**EVENT, item_id="item_1", delta="Hel"),
    TranscriptionCompleted(
        **EVENT, item_id="item_1", transcript="Hello", usage=DurationUsage(seconds=2)
    ),
    TranscriptionFailed(
        **EVENT,
        item_id="item_1",
        error=TranscriptionError("transcription_error", "audio_unintelligible", "Noise."),
    ),
    InputTranscriptionSegment(
        **EVENT, item_id="item_1", id="seg_1", text="Hello", speaker="A", start=0.5, end=1.0
    ),
    InputAudioCommitted(**EVENT, previous_item_id=None, item_id="item_1"),
    InputAudioCleared(**EVENT),
    SpeechStarted(**EVENT, item_id="item_1", audio_start_ms=100),
    SpeechStopped(**EVENT, item_id="item_1", audio_end_ms=900),
    TimeoutTriggered(**EVENT, item_id="item_1", audio_start_ms=100, audio_end_ms=5100),
    DtmfReceived(event="5", received_at=1_700_000_000),
    OutputAudioStarted(**EVENT, response_id="resp_1"),
    OutputAudioStopped(**EVENT, response_id="resp_1"),
    OutputAudioCleared(**EVENT, response_id="resp_1"),
    RateLimitsUpdated(**EVENT),
    RateLimitsUpdated(
        **EVENT,
        rate_limits=(RateLimit(name="tokens", limit=9, remaining=8, reset_seconds=0.5),),
    ),
    ResponseCreated(**EVENT, response=OPEN_RESPONSE),
    ResponseDone(**EVENT, response=DONE_RESPONSE),
    ResponseDone(**EVENT, response=CUT_RESPONSE),
    ResponseDone(**EVENT, response=FAILED_RESPONSE),
    OutputItemAdded(**EVENT, response_id="resp_1", output_index=0, item=EMPTY_ANSWER),
    OutputItemAdded(**EVENT, response_id="resp_1", output_index=1, item=OPEN_CALL),
    OutputItemDone(**EVENT, response_id="resp_1", output_index=0, item=SPOKEN_ANSWER),
    ContentPartAdded(**PLACE, part=ShownPart(type="text", text="")),
    ContentPartDone(**PLACE, part=ShownPart(type="audio", transcript="Hi.")),
    OutputTextDelta(**PLACE, delta="Hi"),
    OutputTextDone(**PLACE, text="Hi."),
    OutputTranscriptDelta(**PLACE, delta="Hi"),
    OutputTranscriptDone(**PLACE, transcript="Hi."),
    OutputAudioDelta(**PLACE, delta=b"\xfb\xff\xbf"),
    OutputAudioDone(**PLACE),
    FunctionArgumentsDelta(**PLACE, call_id="call_1", delta="{"),
    FunctionArgumentsDone(**PLACE, call_id="call_1", name="dial", arguments="{}"),
    McpListToolsInProgress(**EVENT, item_id="item_9"),
    McpListToolsCompleted(**EVENT, item_id="item_9"),
    McpListToolsFailed(**EVENT, item_id="item_9"),
    McpArgumentsDelta(**PLACE, delta="{"),
    McpArgumentsDone(**PLACE, arguments="{}"),
    McpCallInProgress(**EVENT, item_id="item_9", output_index=0),
    McpCallCompleted(**EVENT, item_id="item_9", output_index=0),
    McpCallFailed(**EVENT, item_id="item_9", output_index=0),
)
