"""Server events as messages of RTVI."""

import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from vivavoce.audio.formats import RATE
from vivavoce.protocol import server as says
from vivavoce.protocol.items import FunctionCall, Message
from vivavoce.protocol.responses import Response
from vivavoce.protocol.rtvi_messages import write
from vivavoce.protocol.server import AnyServerEvent
from vivavoce.protocol.session import SessionObject

MAX_TYPED = 100  # typed texts that wait to be added to the conversation
SPEECH_RATE = 15.0  # characters in a second, until an answer was measured
USER = "user"
_SENTENCE_END = re.compile(r"(?<=[.!?…])\s+|(?<=[\u3002\uff01\uff1f])")
_FATAL = {"internal_error", "vad_failed", "session_expired", "session_idle", "server_shutdown"}


@dataclass(slots=True)
class SpokenSentence:
    """A sentence of an answer."""

    id: int
    response_id: str
    text: str
    begins: int
    """Characters of the answer before it."""
    shown: bool = False


@dataclass(slots=True)
class ResponseTimes:
    """What is measured of a response, in seconds of the clock."""

    response_id: str
    began: float
    first_text: float | None = None
    first_audio: float | None = None


class RtviOutput:
    """The messages of one session. `clock` gives unix seconds.

    Which sentence is being spoken is an estimate: by the speech rate of the answer before.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.legacy = False
        """Whether the client speaks a version 1."""
        self.calls: dict[str, str] = {}
        """The names of function calls that wait for a result, by call id."""
        self.updates: deque[str] = deque(maxlen=MAX_TYPED)
        """Ids of requests to change the session that were not answered yet."""
        self.active = ""
        """The id of the response that is being generated."""
        self._typed: dict[str, tuple[str, str]] = {}  # item id: message id and text
        self._clock = clock
        self._model = ""
        self._transcribes = False
        self._stop_held = False  # user-stopped-speaking follows the transcript ...
        self._start_held = False  # ... and bot-llm-started follows that
        self._words: dict[str, str] = {}  # transcripts in progress, by item
        self._announced: list[says.FunctionArgumentsDone] = []
        self._turn: ResponseTimes | None = None
        self._speaking = ""  # the response that is being played
        self._cleared = ""  # the last response that was cleared
        self._played = 0  # samples of it
        self._rate = SPEECH_RATE
        self._text = ""  # the beginning of a sentence
        self._characters = 0  # of the answer, before that
        self._segments: deque[SpokenSentence] = deque()
        self._count = 0

    def typed(self, item_id: str, message_id: str, text: str) -> None:
        """Report that text with its message's id once it is in the conversation."""
        self._typed[item_id] = (message_id, text)
        while len(self._typed) > MAX_TYPED:
            self._typed.pop(next(iter(self._typed)))

    def messages(self, event: AnyServerEvent) -> Iterator[bytes | None]:
        """Messages in JSON. None: playback was interrupted, which is a frame of its own."""
        match event:
            case says.SessionCreated(session=session) | says.SessionUpdated(session=session):
                yield from self._session(session)
            case says.SpeechStarted() | says.SpeechStopped():
                yield from self._speech(event)
            case says.TranscriptionDelta() | says.TranscriptionCompleted():
                yield from self._transcript(event)
            case says.TranscriptionFailed(item_id=item_id):
                self._words.pop(item_id, None)
                yield from self._stopped()
            case says.ItemAdded(item=Message(id=item_id)) if item_id in self._typed:
                yield from self._user_text(*self._typed.pop(item_id))
            case says.ErrorEvent(error=error):
                yield from self._error(error)
            case says.OutputAudioStarted() | says.OutputAudioStopped() | says.OutputAudioCleared():
                yield from self._playback(event)
            case _:
                yield from self._response(event)

    def playing(self, samples: int) -> Iterator[bytes]:
        """So many samples of the answer are being played from now on."""
        self._played += samples
        characters = self._played / RATE * self._rate
        own = [each for each in self._segments if each.response_id == self._speaking]
        for index, segment in enumerate(own):
            if segment.begins > characters:
                break
            if index:
                yield from self._complete(own[index - 1])
            if not segment.shown:
                segment.shown = True
                yield _bot_output(segment, "new", spoken=True)

    # --- the session

    def _session(self, session: SessionObject) -> Iterator[bytes]:
        self._transcribes = session.audio.input.transcription is not None
        self._model = getattr(session, "model", "")
        if self.updates:
            answer = {"t": "session.update", "d": session}
            yield write("server-response", answer, self.updates.popleft())

    def _error(self, error: says.ErrorBody) -> Iterator[bytes]:
        if error.code == "response_cancel_not_active":
            return  # a typed text always cancels
        if not error.event_id:
            yield write("error", {"error": error.message, "fatal": error.code in _FATAL})
            return
        if error.event_id in self.updates:
            self.updates.remove(error.event_id)
        yield write("error-response", {"error": error.message}, error.event_id)

    # --- the user

    def _speech(self, event: says.SpeechStarted | says.SpeechStopped) -> Iterator[bytes | None]:
        yield from self._stopped()
        if isinstance(event, says.SpeechStarted):
            yield write("user-started-speaking")
            if not self._speaking:
                yield write("bot-interrupted")
        elif self._transcribes:
            self._stop_held = True
        else:
            yield write("user-stopped-speaking")

    def _stopped(self) -> Iterator[bytes]:
        if self._stop_held:
            self._stop_held = False
            yield write("user-stopped-speaking")
        if self._start_held:
            self._start_held = False
            yield write("bot-llm-started")

    def _transcript(
        self, event: says.TranscriptionDelta | says.TranscriptionCompleted
    ) -> Iterator[bytes]:
        if isinstance(event, says.TranscriptionDelta):
            text = self._words[event.item_id] = self._words.get(event.item_id, "") + event.delta
            final = False
        else:
            self._words.pop(event.item_id, None)
            text, final = event.transcript, True
        common = {"text": text, "user_id": USER, "timestamp": self._timestamp(), "final": final}
        yield write("user-input", {**common, "input_type": "transcription"})
        yield write("user-transcription", common)
        if final:
            yield write("user-llm-text", {"text": text})
            yield from self._stopped()

    def _user_text(self, message_id: str, text: str) -> Iterator[bytes]:
        data = {"text": text, "input_type": "chat", "timestamp": self._timestamp(), "final": True}
        yield write("user-input", {**data, "msg_id": message_id})
        yield write("user-llm-text", {"text": text})

    def _timestamp(self) -> str:
        return datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds")

    # --- answers

    def _response(self, event: AnyServerEvent) -> Iterator[bytes | None]:
        match event:
            case says.ResponseCreated(response=response):
                self.active = response.id
                self._turn = ResponseTimes(response.id, self._clock())
                self._text, self._characters = "", 0
                self._start_held = True
                if not self._stop_held:
                    yield from self._stopped()
            case says.OutputTranscriptDelta(delta=delta, response_id=response_id):
                yield from self._words_of(response_id, delta, spoken=True)
            case says.OutputTextDelta(delta=delta, response_id=response_id):
                yield from self._words_of(response_id, delta, spoken=False)
            case says.OutputTranscriptDone(response_id=response_id):
                yield from self._sentences(response_id, spoken=True, last=True)
            case says.OutputTextDone(response_id=response_id):
                yield from self._sentences(response_id, spoken=False, last=True)
            case says.OutputAudioDone():
                yield write("bot-tts-stopped")
            case says.OutputItemAdded(item=FunctionCall(name=name)):
                yield from self._stopped()
                yield write("llm-function-call-started", {"function_name": name})
            case says.FunctionArgumentsDone():
                self._announced.append(event)
            case says.ResponseDone(response=response):
                yield from self._done(response)

    def _words_of(self, response_id: str, delta: str, *, spoken: bool) -> Iterator[bytes]:
        if self._turn and self._turn.first_text is None:
            self._turn.first_text = self._clock()
        yield from self._stopped()
        yield write("bot-llm-text", {"text": delta})
        self._text += delta
        yield from self._sentences(response_id, spoken=spoken)

    def _sentences(self, response_id: str, *, spoken: bool, last: bool = False) -> Iterator[bytes]:
        """The sentences that are complete; `last`: the rest is one, too."""
        *whole, rest = _SENTENCE_END.split(self._text)
        if last:
            whole, rest = [*whole, rest], ""
        self._text = rest
        for text in (each.strip() for each in whole):
            if not text:
                continue
            self._count += 1
            segment = SpokenSentence(self._count, response_id, text, self._characters)
            self._characters += len(text) + 1
            yield write("bot-transcription", {"text": text})
            if not spoken:
                yield _bot_output(segment, "new", spoken=False)
            elif response_id != self._cleared:
                self._segments.append(segment)

    def _done(self, response: Response) -> Iterator[bytes]:
        self.active = ""
        yield from self._stopped()
        yield write("bot-llm-stopped")
        yield from self._metrics(response)
        for call in self._announced:
            self.calls[call.call_id] = call.name
            yield self._call(call)
        self._announced.clear()

    def _call(self, call: says.FunctionArgumentsDone) -> bytes:
        """Only now: a result that comes before the end of the response cannot be answered."""
        arguments = msgspec.json.decode(call.arguments or "{}")
        if self.legacy:
            data = {"function_name": call.name, "tool_call_id": call.call_id, "args": arguments}
            return write("llm-function-call", data)
        data = {"tool_call_id": call.call_id, "function_name": call.name, "arguments": arguments}
        return write("llm-function-call-in-progress", data)

    def _metrics(self, response: Response) -> Iterator[bytes]:
        """Times to the first text and audio of a response, and its tokens."""
        metrics: dict[str, list[dict[str, Any]]] = {}
        if (turn := self._turn) and turn.response_id == response.id:
            for name, first in (("llm", turn.first_text), ("tts", turn.first_audio)):
                if first is not None:
                    seconds = max(0.0, round(first - turn.began, 6))
                    item = {"processor": name, "model": self._model, "value": seconds}
                    metrics.setdefault("ttfb", []).append(item)
        if usage := response.usage:
            tokens = {
                "processor": "llm",
                "model": self._model,
                "prompt_tokens": usage.input_tokens,
                "completion_tokens": usage.output_tokens,
                "total_tokens": usage.total_tokens,
            }
            metrics["tokens"] = [tokens]
        if metrics:
            yield write("metrics", metrics)

    # --- the playback

    def _playback(
        self, event: says.OutputAudioStarted | says.OutputAudioStopped | says.OutputAudioCleared
    ) -> Iterator[bytes | None]:
        own = [each for each in self._segments if each.response_id == event.response_id]
        if isinstance(event, says.OutputAudioStarted):
            if self._turn and self._turn.response_id == event.response_id:
                self._turn.first_audio = self._clock()
            self._speaking, self._played = event.response_id, 0
            yield write("bot-tts-started")
            yield write("bot-started-speaking")
            return
        if isinstance(event, says.OutputAudioCleared):
            self._cleared = event.response_id
            yield None
            yield write("bot-interrupted")
        else:
            for segment in own:
                if not segment.shown:
                    yield _bot_output(segment, "new", spoken=True)
                yield from self._complete(segment)
            if own and self._played:
                spoken = own[-1].begins + len(own[-1].text)
                self._rate = spoken / (self._played / RATE)
        self._segments = deque(e for e in self._segments if e.response_id != event.response_id)
        self._speaking = ""
        yield write("bot-stopped-speaking")

    def _complete(self, segment: SpokenSentence) -> Iterator[bytes]:
        self._segments.remove(segment)
        yield _bot_output(segment, "completed", spoken=True)
        yield write("bot-tts-text", {"text": segment.text})


def _bot_output(segment: SpokenSentence, status: str, *, spoken: bool) -> bytes:
    """`spoken`: whether the text is spoken at all."""
    completed = status == "completed"
    data: dict[str, Any] = {
        "text": segment.text,
        "output_type": "sentence",
        "text_type": "sentence",
        "aggregated_by": "sentence",
        "segment_id": segment.id,
        "spoken": completed,
        "will_be_spoken": spoken,
        "spoken_status": status,
    }
    if spoken:
        said, left = (segment.text, "") if completed else ("", segment.text)
        data["spoken_progress"] = {"accumulated_text": said, "remaining_text": left}
    return write("bot-output", data)
