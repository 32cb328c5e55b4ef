"""What happened in a conversation: its turns, their times, and the sound of both sides.

Times are seconds since the connection was made. Audio is 16-bit mono PCM at 24 kHz.
"""

from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

import msgspec
import numpy as np

from vivavoce.audio.formats import BYTES_PER_MS, RATE
from vivavoce.check.recording import RecordedEvent, at

MAX_TRACK_SECONDS: Final = 1800


class SpokenStretch(NamedTuple):
    """Sound of one side, and when it begins."""

    at: float
    pcm: bytes


class CalledTool(NamedTuple):
    """A function call of the model."""

    name: str
    call_id: str
    arguments: dict[str, Any] | str
    """A text where it is not a JSON object."""


@dataclass(slots=True)
class ScenarioTurn:
    """One step of the user, and what came of it."""

    kind: Literal["spoken", "typed", "event", "silence"]
    text: str
    begun: float
    ended: float = 0.0
    """The user's speech ended, or the request was sent."""
    stopped: float | None = None
    """The server has found the end of the turn."""
    transcribed: float | None = None
    first_token: float | None = None
    first_audio: float | None = None
    done: float | None = None
    """The last response was complete."""
    transcripts: list[str] = field(default_factory=list)
    answers: dict[str, str] = field(default_factory=dict)
    """The text of each response, by its id."""
    calls: list[CalledTool] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    usages: list[dict[str, Any]] = field(default_factory=list)
    interrupted: bool = False
    stop_ms: float | None = None
    """From the start of this turn's speech to the last event of the answer that it interrupts."""
    open_responses: int = 0
    pending_calls: int = 0
    completed: int = 0
    """Responses that have ended, and were not interrupted."""
    problem: str = ""
    """Why the step did not come to its end."""

    @property
    def answer(self) -> str:
        """All that was answered."""
        return " ".join(text for text in self.answers.values() if text)

    @property
    def is_settled(self) -> bool:
        """Whether an answer is complete and nothing is owed."""
        return bool(self.completed) and not self.open_responses and not self.pending_calls

    def ms(self, moment: float | None) -> float | None:
        """Milliseconds from the end of the user's part to a moment."""
        return None if moment is None else (moment - self.ended) * 1000


@dataclass(slots=True)
class HeardAnswers:
    """What the user hears of the answers: a player without gaps, which speech stops at once."""

    stretches: list[SpokenStretch] = field(default_factory=list)
    plays_until: float = 0.0
    item_id: str = ""
    content_index: int = 0
    item_begun: float = 0.0
    item_pcm_bytes: int = 0

    def add(self, pcm: bytes, item_id: str, content_index: int, now: float) -> None:
        """A piece of an answer has come."""
        begins = max(now, self.plays_until)
        if item_id != self.item_id:
            self.item_id, self.content_index = item_id, content_index
            self.item_begun, self.item_pcm_bytes = begins, 0
        self.item_pcm_bytes += len(pcm)
        self.stretches.append(SpokenStretch(begins, pcm))
        self.plays_until = begins + len(pcm) / BYTES_PER_MS / 1000

    def is_playing(self, now: float) -> bool:
        return now < self.plays_until

    def heard_at(self, item_id: str) -> float:
        """When everything that has come of an item so far will have been heard."""
        return self.plays_until if item_id == self.item_id else 0.0

    def stop(self, now: float) -> tuple[str, int, int] | None:
        """The user interrupts: item, content part, and milliseconds of it that were heard.

        None: nothing was playing.
        """
        if not self.is_playing(now):
            return None
        kept = []
        for stretch in self.stretches:
            length = max(0, round((now - stretch.at) * 1000)) * BYTES_PER_MS
            if stretch.at < now:
                kept.append(SpokenStretch(stretch.at, stretch.pcm[:length]))
        self.stretches = kept
        self.plays_until = now
        total_ms = self.item_pcm_bytes // BYTES_PER_MS
        heard_ms = min(total_ms, max(0, round((now - self.item_begun) * 1000)))
        return self.item_id, self.content_index, heard_ms


class TurnRecorder:
    """Gives each event to its turn: those of a response to the turn in which it was created."""

    def __init__(self) -> None:
        self.entries: list[RecordedEvent] = []
        self.turns: list[ScenarioTurn] = []
        self.playback = HeardAnswers()
        self.user: list[SpokenStretch] = []
        self.setup_errors: list[str] = []
        """That came before the first turn."""
        self._turn_of: dict[str, ScenarioTurn] = {}
        self._playing: ScenarioTurn | None = None  # whose answer came last

    def begin(self, turn: ScenarioTurn) -> ScenarioTurn:
        """The user's next part."""
        self.turns.append(turn)
        return turn

    def received(self, event: dict[str, Any], now: float) -> None:
        """An event of the server."""
        self.entries.append(RecordedEvent(now, False, event))
        kind = str(event.get("type"))
        turn = self._turn(event, kind)
        if turn is None:
            if kind == "error":
                self.setup_errors.append(_message(event))
            return
        match kind:
            case "input_audio_buffer.speech_stopped":
                turn.stopped = now
                turn.first_token = turn.first_audio = turn.transcribed = None
            case "conversation.item.input_audio_transcription.completed":
                turn.transcribed = now
                turn.transcripts.append(str(event.get("transcript") or ""))
            case "response.created":
                turn.open_responses += 1
                turn.pending_calls = 0
            case "response.output_audio_transcript.delta" | "response.output_text.delta":
                turn.first_token = turn.first_token or now
            case "response.output_audio.delta":
                turn.first_audio = turn.first_audio or now
                self._playing = turn
            case "response.output_audio_transcript.done" | "response.output_text.done":
                key = str(event.get("response_id"))
                text = str(event.get("transcript") or event.get("text") or "")
                turn.answers[key] = f"{turn.answers.get(key, '')} {text}".strip()
            case "response.done":
                self._done(turn, event.get("response") or {}, now)
            case "error":
                turn.errors.append(_message(event))

    def stop_playback(self, now: float) -> tuple[str, int, int] | None:
        """Speech has begun: what is heard ends. See HeardAnswers.stop()."""
        stopped = self.playback.stop(now)
        if stopped is not None and self._playing is not None:
            self._playing.interrupted = True
            newest = self.turns[-1]
            if newest is not self._playing and newest.stop_ms is None:
                newest.stop_ms = (now - newest.begun) * 1000
        return stopped

    def _turn(self, event: dict[str, Any], kind: str) -> ScenarioTurn | None:
        newest = self.turns[-1] if self.turns else None
        key = at(event, "response", "id") or event.get("response_id")
        if not isinstance(key, str):
            return newest
        if kind == "response.created" and newest is not None:
            self._turn_of[key] = newest
        return self._turn_of.get(key, newest)

    def _done(self, turn: ScenarioTurn, response: dict[str, Any], now: float) -> None:
        turn.open_responses = max(0, turn.open_responses - 1)
        turn.done = now
        if isinstance(response.get("usage"), dict):
            turn.usages.append(response["usage"])
        status = response.get("status")
        reason = at(response, "status_details", "reason")
        if status == "cancelled" and reason == "turn_detected":
            turn.interrupted = True
            newest = self.turns[-1]
            if newest is not turn and newest.stop_ms is None:
                newest.stop_ms = (now - newest.begun) * 1000
            return
        turn.completed += 1
        if status == "failed":
            message = at(response, "status_details", "error", "message")
            turn.errors.append(f"the response failed: {message or 'no reason is given'}")
        for item in response.get("output") or ():
            if at(item, "type") == "function_call":
                turn.calls.append(_call(item))
                turn.pending_calls += 1


def _call(item: dict[str, Any]) -> CalledTool:
    text = str(item.get("arguments") or "")
    try:
        arguments = msgspec.json.decode(text)
    except msgspec.DecodeError:
        arguments = text
    given = arguments if isinstance(arguments, dict) else text
    return CalledTool(str(item.get("name")), str(item.get("call_id")), given)


def _message(event: dict[str, Any]) -> str:
    code, message = at(event, "error", "code"), at(event, "error", "message")
    return f"{message} ({code})" if code else str(message)


def track(stretches: list[SpokenStretch], seconds: float) -> bytes:
    """All stretches on one time line, as long as the conversation, MAX_TRACK_SECONDS at most."""
    samples = np.zeros(round(min(seconds, MAX_TRACK_SECONDS) * RATE), np.int16)
    for begins, pcm in stretches:
        place = round(begins * RATE)
        piece = np.frombuffer(pcm, "<i2")[: max(0, samples.size - place)]
        samples[place : place + piece.size] = piece
    return samples.tobytes()


def mixed(one: bytes, other: bytes) -> bytes:
    """Two tracks of the same length as one sound."""
    sum_ = np.frombuffer(one, "<i2").astype(np.int32) + np.frombuffer(other, "<i2")
    return bytes(np.clip(sum_, -32768, 32767).astype("<i2").data)
