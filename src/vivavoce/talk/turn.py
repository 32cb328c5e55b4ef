"""One turn: the question, the answer, and when each step was reached.

Every time comes in as `now`, in seconds. Audio is PCM of 24 kHz, 16 bits, mono.
"""

import math
from dataclasses import dataclass, field, fields
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vivavoce.audio.formats import BYTES_PER_MS
from vivavoce.talk.client import TRUNCATE_ID, Event, error_message
from vivavoce.talk.options import Timeouts

TurnKind: TypeAlias = Literal["spoken", "typed"]

LEVEL_FRAME_MS: Final = 20
_LEVEL_FRAME_BYTES: Final = LEVEL_FRAME_MS * BYTES_PER_MS
_MIN_RMS: Final = 30.0  # of 32768; a quieter frame is never speech
_MIN_OF_LOUDEST, _MAX_OF_LOUDEST = 0.05, 0.1  # 26 and 20 dB below the loudest frame
_MIN_OVER_NOISE: Final = 2.0  # 6 dB


def level_db(pcm24: bytes) -> float:
    """RMS in decibels below full scale; -inf for silence and for no audio."""
    samples = np.frombuffer(pcm24, np.dtype("<i2")).astype(np.float64)
    power = float(np.mean(samples**2)) if samples.size else 0.0
    return 10 * math.log10(power / 32768.0**2) if power else -math.inf


def speech_end_ms(pcm24: bytes) -> int | None:
    """The end of the last loud frame of 20 ms; None when no frame is loud.

    A frame is loud when it is 6 dB above the quietest tenth of the frames. The limit is never more
    than 20 dB and never less than 26 dB below the loudest frame.
    """
    rms = _frame_rms(pcm24)
    if not rms.size or rms.max() < _MIN_RMS:
        return None
    loudest = float(rms.max())
    noise = float(np.percentile(rms, 10))
    limit = min(max(_MIN_OVER_NOISE * noise, _MIN_OF_LOUDEST * loudest), _MAX_OF_LOUDEST * loudest)
    last = int(np.flatnonzero(rms >= max(_MIN_RMS, limit))[-1])
    return min((last + 1) * LEVEL_FRAME_MS, len(pcm24) // BYTES_PER_MS)


def _frame_rms(pcm24: bytes) -> NDArray[np.float64]:
    """[n]; the last frame is filled up with silence."""
    padded = pcm24 + bytes(-len(pcm24) % _LEVEL_FRAME_BYTES)
    samples = np.frombuffer(padded, np.dtype("<i2")).astype(np.float64)
    frames = samples.reshape(-1, _LEVEL_FRAME_BYTES // 2)
    rms: NDArray[np.float64] = np.sqrt(np.mean(frames**2, axis=1))
    return rms


@dataclass(slots=True)
class TurnTimes:
    """When each step was reached; None: it was not."""

    asked: float | None = None
    """The speech ended, or response.create was sent."""
    decided: float | None = None
    """The server reported the end of the turn."""
    transcribed: float | None = None
    token: float | None = None
    """The first item or text of the answer came."""
    audio: float | None = None
    """The first audio of the answer came."""
    done: float | None = None

    def restart(self) -> None:
        """The user speaks again: the steps so far belong to an earlier answer."""
        for step in fields(self):
            if step.name != "asked":
                setattr(self, step.name, None)


@dataclass(frozen=True, slots=True)
class CalledFunction:
    """A function call of the model. It is shown, not run."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class WaitLimit:
    """Until when to wait, and the problem when nothing came."""

    until: float
    problem: str


@dataclass(slots=True)
class Turn:
    """A question and its answer. Feed it every event of the server.

    The server may take a pause in a spoken question for its end: it then answers, and is
    interrupted as the file goes on. The turn is over with the answer to the last of the speech.
    """

    kind: TurnKind
    begun: float
    times: TurnTimes = field(default_factory=TurnTimes)
    sent: float | None = None
    """When the whole question was sent."""
    transcripts: list[str] = field(default_factory=list)
    """The transcript of the user's speech."""
    answers: list[str] = field(default_factory=list)
    """The assistant's words: one text for each response."""
    audio: bytearray = field(default_factory=bytearray)
    calls: list[CalledFunction] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    _user_speaks: bool = False
    _responding: bool = False
    _closed: bool = False

    @property
    def answered(self) -> bool:
        """Whether it is over without a problem."""
        return self.over and not self.problems

    @property
    def over(self) -> bool:
        """Whether the answer to the whole question has ended."""
        if not self._closed or self._user_speaks or self._responding:
            return False
        times = self.times
        early = times.asked is None or times.decided is None or times.decided < times.asked
        return self.kind == "typed" or self.sent is not None or bool(self.problems) or not early

    @property
    def complete(self) -> bool:
        """Whether it is over and has its transcript, which may arrive after the answer."""
        return self.over and (
            self.kind == "typed" or self.times.transcribed is not None or bool(self.problems)
        )

    def fail(self, problem: str) -> None:
        """End it with this problem."""
        self.problems.append(problem)
        self._user_speaks = self._responding = False
        self._closed = True

    def wait_limit(self, timeouts: Timeouts, last_event: float, expected: float) -> WaitLimit:
        """Until when to wait for the next event.

        last_event: when the last one came. expected: when all of the question will be sent.
        """
        if self.over:
            until = (self.times.done or last_event) + timeouts.transcript
            return WaitLimit(until, "the transcript of the question did not come")
        sent = expected if self.sent is None else self.sent
        limits = [
            WaitLimit(
                max(last_event, sent) + timeouts.quiet,
                f"nothing came from the server for {timeouts.quiet:g} s",
            ),
            WaitLimit(
                sent + timeouts.answer, f"the answer was not done after {timeouts.answer:g} s"
            ),
        ]
        if self.kind == "spoken" and self.times.decided is None:
            missing = "the end of the speech" if self._user_speaks else "any speech"
            limits.append(
                WaitLimit(
                    sent + timeouts.decision,
                    f"the server did not notice {missing} in {timeouts.decision:g} s of silence "
                    f"after the question",
                )
            )
        return min(limits, key=lambda limit: limit.until)

    def feed(self, event: Event, now: float) -> None:
        """Handle an event of the server."""
        match event.type:
            case "input_audio_buffer.speech_started":
                self._user_speaks, self._closed = True, False
                self.times.restart()
            case "input_audio_buffer.speech_stopped":
                self._user_speaks = False
                self.times.decided = now
            case "input_audio_buffer.committed" if self.times.decided is None:
                self._user_speaks = False
                self.times.decided = now
            case "conversation.item.input_audio_transcription.completed":
                self.times.transcribed = now
                self.transcripts.append(event.text("transcript").strip())
            case "conversation.item.input_audio_transcription.failed":
                self.problems.append(event.text("error", "message") or "no transcript")
            case "error" if event.text("error", "event_id") != TRUNCATE_ID:
                self.problems.append(error_message(event.get("error")) or "the server failed")
                self._closed = True
            case _:
                self._feed_answer(event, now)

    def _feed_answer(self, event: Event, now: float) -> None:
        times = self.times
        match event.type:
            case "response.created":
                self._responding, self._closed = True, False
                self.answers.append("")
            case "response.output_item.added":
                times.token = now if times.token is None else times.token
            case "response.output_audio_transcript.delta" | "response.output_text.delta":
                times.token = now if times.token is None else times.token
                self._add_text(event.text("delta"))
            case "response.output_audio_transcript.done":
                self._complete_text(event.text("transcript"))
            case "response.output_text.done":
                self._complete_text(event.text("text"))
            case "response.output_audio.delta":
                times.audio = now if times.audio is None else times.audio
                self.audio += event.pcm()
            case "response.output_item.done" if event.text("item", "type") == "function_call":
                item = event.text("item", "name"), event.text("item", "arguments")
                self.calls.append(CalledFunction(*item))
            case "response.done":
                self._end(event, now)

    def _add_text(self, text: str) -> None:
        if not self.answers:
            self.answers.append("")
        self.answers[-1] += text

    def _complete_text(self, text: str) -> None:
        """The whole text of a part, if the server sent no deltas of it."""
        if text and not (self.answers and self.answers[-1]):
            self._add_text(text)

    def _end(self, event: Event, now: float) -> None:
        self._responding = False
        status = event.text("response", "status")
        reason = event.text("response", "status_details", "reason")
        if status == "cancelled" and self.kind == "spoken" and reason == "turn_detected":
            return  # the question goes on, and another answer will follow
        self.times.done = now
        self._closed = True
        if status in ("failed", "cancelled"):
            message = event.text("response", "status_details", "error", "message")
            self.problems.append(f"the response was {status}: {message or reason or 'no reason'}")
        elif not any(self.answers) and not self.audio and not self.calls:
            self.problems.append("the answer is empty")
