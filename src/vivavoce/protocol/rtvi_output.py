"""Server events as messages of RTVI."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from vivavoce.protocol import server as says
from vivavoce.protocol.items import FunctionCall, Message
from vivavoce.protocol.responses import Response
from vivavoce.protocol.rtvi_answer import AnswerSentence, AnswerText, SpokenText, bot_output
from vivavoce.protocol.rtvi_messages import write
from vivavoce.protocol.rtvi_metrics import ResponseMetrics
from vivavoce.protocol.rtvi_user import UserMessages
from vivavoce.protocol.server import AnyServerEvent
from vivavoce.protocol.session import SessionObject

MAX_UPDATES = 100  # requests to change the session that were not answered yet
_FATAL = {"internal_error", "vad_failed", "session_expired", "session_idle", "server_shutdown"}


class RtviOutput:
    """The messages of one session. `clock` gives unix seconds.

    `bot-llm-started` follows `user-stopped-speaking`, which may wait for the transcript.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.legacy = False
        """Whether the client uses version 1."""
        self.calls: dict[str, str] = {}
        """The names of function calls that wait for a result, by call id."""
        self.updates: deque[str] = deque(maxlen=MAX_UPDATES)
        """Ids of requests to change the session that were not answered yet."""
        self.active = ""
        """The id of the response that is being generated."""
        self.user = UserMessages(clock)
        self._holds_start = False
        self._text = AnswerText()
        self._spoken = SpokenText()
        self._metrics = ResponseMetrics(clock)
        self._begun: dict[str, FunctionCall] = {}  # calls with incomplete arguments
        self._announced: list[says.FunctionArgumentsDone] = []
        self._speaks = False  # whether the response has spoken text

    def messages(self, event: AnyServerEvent) -> Iterator[bytes | None]:
        """Messages in JSON. None: playback was interrupted, which is a frame of its own."""
        match event:
            case says.SessionCreated(session=session) | says.SessionUpdated(session=session):
                yield from self._session(session)
            case says.SpeechStarted() | says.SpeechStopped():
                yield from self._speech(event)
            case says.TranscriptionDelta():
                yield from self.user.partial(event)
            case says.TranscriptionCompleted():
                yield from self.user.final(event)
                yield from self._release()
            case says.TranscriptionFailed(item_id=item_id):
                self.user.failed(item_id)
                yield from self._release()
            case says.ItemAdded(item=Message(id=item_id)):
                yield from self.user.added(item_id)
            case says.ErrorEvent(error=error):
                yield from self._error(error)
            case says.OutputAudioStarted() | says.OutputAudioStopped() | says.OutputAudioCleared():
                yield from self._playback(event)
            case _:
                yield from self._response(event)

    def playing(self, samples: int) -> Iterator[bytes]:
        """So many samples of the answer go out now."""
        yield from self._spoken.played(samples)

    def _session(self, session: SessionObject) -> Iterator[bytes]:
        self.user.transcribes = session.audio.input.transcription is not None
        self._metrics.model = getattr(session, "model", "")
        if self.updates:
            answer = {"t": "session.update", "d": session}
            yield write("server-response", answer, self.updates.popleft())

    def _error(self, error: says.ErrorBody) -> Iterator[bytes]:
        if error.code == "response_cancel_not_active":
            return  # a typed text always interrupts
        if not error.event_id:
            yield write("error", {"error": error.message, "fatal": error.code in _FATAL})
            return
        if error.event_id in self.updates:
            self.updates.remove(error.event_id)
        yield write("error-response", {"error": error.message}, error.event_id)

    def _speech(self, event: says.SpeechStarted | says.SpeechStopped) -> Iterator[bytes]:
        yield from self._release()
        if isinstance(event, says.SpeechStopped):
            yield from self.user.stopped()
            return
        yield from self.user.started()
        if not self._spoken.playing_id:
            yield write("bot-interrupted")

    def _release(self) -> Iterator[bytes]:
        """Send what was held back until the transcript came."""
        yield from self.user.release_stop()
        if self._holds_start:
            self._holds_start = False
            yield write("bot-llm-started")

    # --- answers

    def _response(self, event: AnyServerEvent) -> Iterator[bytes]:
        match event:
            case says.ResponseCreated(response=response):
                self.active = response.id
                self._metrics.begin(response.id)
                self._text.begin()
                self._speaks, self._holds_start = False, True
                if not self.user.holds_stop:
                    yield from self._release()
            case says.OutputTranscriptDelta(delta=delta, response_id=response_id):
                self._speaks = True
                yield from self._words(response_id, delta)
            case says.OutputTextDelta(delta=delta, response_id=response_id):
                yield from self._words(response_id, delta)
            case says.OutputTranscriptDone() | says.OutputTextDone():
                for sentence in self._text.end(event.response_id):
                    yield from self._sentence(sentence)
            case says.OutputAudioDone():
                yield write("bot-tts-stopped")
            case says.OutputItemAdded(item=FunctionCall() as call):
                yield from self._release()
                self._begun[call.call_id] = call
                yield write("llm-function-call-started", {"function_name": call.name})
            case says.FunctionArgumentsDone(call_id=call_id):
                self._begun.pop(call_id, None)
                self._announced.append(event)
            case says.ResponseDone(response=response):
                yield from self._done(response)

    def _words(self, response_id: str, delta: str) -> Iterator[bytes]:
        self._metrics.first("llm", response_id)
        yield from self._release()
        yield write("bot-llm-text", {"text": delta})
        for sentence in self._text.add(response_id, delta):
            yield from self._sentence(sentence)

    def _sentence(self, sentence: AnswerSentence) -> Iterator[bytes]:
        yield write("bot-transcription", {"text": sentence.text})
        if self._speaks:
            self._spoken.add(sentence)
        else:
            yield bot_output(sentence, "new", spoken=False)

    def _done(self, response: Response) -> Iterator[bytes]:
        self.active = ""
        yield from self._release()
        yield write("bot-llm-stopped")
        characters = self._text.characters if self._speaks else 0
        yield from self._metrics.report(response, self.user, characters)
        for call in self._announced:
            self.calls[call.call_id] = call.name
            yield self._call(call)
        self._announced.clear()
        for call_id, begun in self._begun.items():
            data = {"tool_call_id": call_id, "cancelled": True, "function_name": begun.name}
            yield write("llm-function-call-stopped", data)
        self._begun.clear()

    def _call(self, call: says.FunctionArgumentsDone) -> bytes:
        """Sent only now: a result that arrives before the end of the response could not be
        answered."""
        arguments = _arguments(call.arguments)
        if self.legacy:
            data = {"function_name": call.name, "tool_call_id": call.call_id, "args": arguments}
            return write("llm-function-call", data)
        data = {"tool_call_id": call.call_id, "function_name": call.name, "arguments": arguments}
        return write("llm-function-call-in-progress", data)

    def _playback(
        self, event: says.OutputAudioStarted | says.OutputAudioStopped | says.OutputAudioCleared
    ) -> Iterator[bytes | None]:
        response_id = event.response_id
        if isinstance(event, says.OutputAudioStarted):
            self._metrics.first("tts", response_id)
            self._spoken.started(response_id)
            yield write("bot-tts-started")
            yield write("bot-started-speaking")
            return
        if isinstance(event, says.OutputAudioCleared):
            self._spoken.cleared(response_id)
            yield None
            yield write("bot-interrupted")
        else:
            yield from self._spoken.stopped(response_id)
        yield write("bot-stopped-speaking")


def _arguments(text: str) -> Any:
    """The arguments of a function call; as text if they are not JSON."""
    try:
        return msgspec.json.decode(text or "{}")
    except msgspec.DecodeError:
        return text
