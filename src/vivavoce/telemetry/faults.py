"""Finds what goes wrong in a call from its facts and effects, for the recorder and for replays."""

from typing import Any

from vivavoce.protocol.client import ResponseCreate
from vivavoce.protocol.server import (
    ErrorEvent,
    FunctionArgumentsDone,
    InputAudioCommitted,
    OutputAudioDelta,
    OutputTextDelta,
    OutputTranscriptDelta,
    ResponseDone,
    SessionUpdated,
    SpeechStarted,
    SpeechStopped,
    TranscriptionFailed,
)
from vivavoce.protocol.session import SessionObject
from vivavoce.session.effects import Close, Effect, PlayAudio, RequestFallback, Send
from vivavoce.session.facts import (
    AudioArrived,
    AudioGenerated,
    Fact,
    Received,
    TranscriptUpdated,
    UpstreamEventReceived,
    VadScores,
)
from vivavoce.telemetry.recording import FaultKind, RecordedFault

MAX_FAULTS = 100
"""The most faults that are noted for one call."""
_AUDIO = {VadScores, AudioGenerated, AudioArrived}
_ANSWERS = (
    OutputTextDelta,
    OutputTranscriptDelta,
    FunctionArgumentsDone,
    ResponseDone,
    SpeechStarted,
)
_UPSTREAM_ANSWERS = {
    "response.output_audio.delta",
    "response.output_text.delta",
    "response.output_audio_transcript.delta",
    "response.function_call_arguments.done",
    "response.done",
    "input_audio_buffer.speech_started",
}


class FaultWatch:
    """Notes the faults of one call.

    * crash: the session raised an exception
    * error: the server failed, in an `error` event, a response or a transcription
    * failover: another brain had to take over
    * silence: for so many seconds nothing came where an answer was due
    """

    def __init__(self, settings: SessionObject, silent_seconds: float) -> None:
        self.faults: list[RecordedFault] = []
        self._silent_seconds = silent_seconds
        self._answers_turns = _answers_turns(settings)
        self.due_since: float | None = None
        """Since when an answer is due; None: none is."""

    def on(self, fact: Fact | None, effects: list[Effect], now: float) -> None:
        """See Observer."""
        due = self.due_since
        if due is not None and now - due >= self._silent_seconds:
            self._silent(now)
        if type(fact) not in _AUDIO:
            match fact:
                case Received(event=ResponseCreate()):
                    self.due_since = now
                case TranscriptUpdated(text="", final=True):
                    self.due_since = None  # nothing was said: nothing has to be answered
                case UpstreamEventReceived(event=upstream):
                    self._on_upstream(upstream, now)
        for effect in effects:
            match effect:
                case Send(event=OutputAudioDelta()):
                    self.due_since = None
                case Send(event=event):
                    self._on_event(event, now)
                case PlayAudio():
                    self.due_since = None
                case RequestFallback(reason=reason):
                    self.add("failover", now, reason)
                case Close(code=1011, reason=reason):
                    self.add("error", now, f"closed with 1011: {reason}")

    def on_audio(self, now: float, *, answered: bool) -> None:
        """The same of audio that goes on, needed only where an answer is due. answered: it is that
        of an answer."""
        due = self.due_since
        if due is not None:
            if now - due >= self._silent_seconds:
                self._silent(now)
            elif answered:
                self.due_since = None

    def end(self, now: float) -> None:
        """The call has ended."""
        due = self.due_since
        if due is not None and now - due >= self._silent_seconds:
            self._silent(now)

    def add(self, kind: FaultKind, at: float, detail: str) -> None:
        """Note a fault."""
        if len(self.faults) < MAX_FAULTS:
            self.faults.append(RecordedFault(kind, at, detail))

    def _silent(self, now: float) -> None:
        assert self.due_since is not None
        seconds = now - self.due_since
        self.add("silence", now, f"an answer was due for {seconds:.1f} s, and nothing came")
        self.due_since = None

    def _on_event(self, event: Any, now: float) -> None:
        if isinstance(event, _ANSWERS):
            self.due_since = None
        match event:
            case SessionUpdated(session=session):
                self._answers_turns = _answers_turns(session)
            case SpeechStopped() | InputAudioCommitted() if self._answers_turns:
                self.due_since = now
            case ErrorEvent(error=error) if error.type == "server_error":
                self.add("error", now, error.message)
            case ResponseDone(response=response) if response.status == "failed":
                why = getattr(response.status_details, "error", None)
                self.add("error", now, f"response failed: {getattr(why, 'message', '')}")
            case TranscriptionFailed(error=error):
                self.add("error", now, f"transcription failed: {error.message}")

    def _on_upstream(self, event: Any, now: float) -> None:
        if event.type in _UPSTREAM_ANSWERS:
            self.due_since = None
        if event.type == "input_audio_buffer.speech_stopped" and self._answers_turns:
            self.due_since = now
        elif event.type == "error" and isinstance(event.error, dict):
            if event.error.get("type") == "server_error":
                self.add("error", now, str(event.error.get("message", ""))[:500])
        elif event.response is not None and event.response.status == "failed":
            self.add("error", now, "response failed")


def _answers_turns(settings: SessionObject) -> bool:
    """Whether the end of the user's speech makes an answer due."""
    detection = settings.audio.input.turn_detection
    is_conversation = settings.object == "realtime.session"
    return is_conversation and detection is not None and detection.create_response is True
