"""What happened in one turn, and when. Pure: every time comes in as `now`, in seconds."""

from dataclasses import dataclass, field, fields
from typing import Literal

from vivavoce.talk.events import SHORTENED, Event
from vivavoce.talk.options import Waits

Kind = Literal["spoken", "typed"]


@dataclass(slots=True)
class Marks:
    """When each step was reached; None: it was not."""

    asked: float | None = None
    """The speech ended, or response.create was sent."""
    decided: float | None = None
    """The server saw the end of the turn."""
    transcribed: float | None = None
    token: float | None = None
    """First sign of an answer: an item, or text of it."""
    audio: float | None = None
    done: float | None = None

    def forget_answer(self) -> None:
        """The user speaks again: what was reached belongs to an earlier turn."""
        for mark in fields(self):
            if mark.name != "asked":
                setattr(self, mark.name, None)


@dataclass(frozen=True, slots=True)
class Call:
    """A function that the assistant wants to be run."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Patience:
    """Until when to wait, and what to say when nothing came."""

    until: float
    complaint: str


@dataclass(slots=True)
class Turn:
    """A question and its answer. Feed it every event that comes.

    A spoken question may hold pauses that the server takes for its end: it then answers, and is
    interrupted as the file goes on. The turn is over with the answer to the last of the speech.
    """

    kind: Kind
    begun: float
    marks: Marks = field(default_factory=Marks)
    sent: float | None = None
    """When the whole question was sent."""
    heard: list[str] = field(default_factory=list)
    """The user's words, as the server wrote them down."""
    answers: list[str] = field(default_factory=list)
    """The assistant's words: one text for each response."""
    audio: bytearray = field(default_factory=bytearray)
    calls: list[Call] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    _speaking: bool = False
    _responding: bool = False
    _closed: bool = False

    @property
    def answered(self) -> bool:
        """Whether it ended well."""
        return self.over and not self.problems

    @property
    def over(self) -> bool:
        if not self._closed or self._speaking or self._responding:
            return False
        marks = self.marks
        early = marks.asked is None or marks.decided is None or marks.decided < marks.asked
        return self.kind == "typed" or self.sent is not None or bool(self.problems) or not early

    @property
    def complete(self) -> bool:
        """Over, and nothing more is awaited: a transcript may come after the answer."""
        return self.over and (
            self.kind == "typed" or self.marks.transcribed is not None or bool(self.problems)
        )

    def fail(self, problem: str) -> None:
        """End it: nothing good can come any more."""
        self.problems.append(problem)
        self._speaking = self._responding = False
        self._closed = True

    def patience(self, waits: Waits, last_event: float, expected: float) -> Patience:
        """How long to wait for the next event.

        last_event: when something last came. expected: when all of the question will be sent.
        """
        if self.over:
            until = (self.marks.done or last_event) + waits.transcript
            return Patience(until, "the transcript of the question did not come")
        sent = expected if self.sent is None else self.sent
        limits = [
            Patience(
                max(last_event, sent) + waits.quiet,
                f"nothing came from the server for {waits.quiet:g} s",
            ),
            Patience(sent + waits.answer, f"the answer was not done after {waits.answer:g} s"),
        ]
        if self.kind == "spoken" and self.marks.decided is None:
            lacking = "the end of the speech" if self._speaking else "any speech"
            limits.append(
                Patience(
                    sent + waits.decision,
                    f"the server did not notice {lacking} in {waits.decision:g} s of silence "
                    f"after the question",
                )
            )
        return min(limits, key=lambda limit: limit.until)

    def feed(self, event: Event, now: float) -> None:
        match event.type:
            case "input_audio_buffer.speech_started":
                self._speaking, self._closed = True, False
                self.marks.forget_answer()
            case "input_audio_buffer.speech_stopped":
                self._speaking = False
                self.marks.decided = now
            case "input_audio_buffer.committed" if self.marks.decided is None:
                self._speaking = False
                self.marks.decided = now
            case "conversation.item.input_audio_transcription.completed":
                self.marks.transcribed = now
                self.heard.append(event.text("transcript").strip())
            case "conversation.item.input_audio_transcription.failed":
                self.problems.append(event.text("error", "message") or "no transcript")
            case "error" if event.text("error", "event_id") != SHORTENED:
                self.problems.append(event.text("error", "message") or "the server failed")
                self._closed = True
            case _:
                self._feed_answer(event, now)

    def _feed_answer(self, event: Event, now: float) -> None:
        marks = self.marks
        match event.type:
            case "response.created":
                self._responding, self._closed = True, False
                self.answers.append("")
            case "response.output_item.added":
                marks.token = now if marks.token is None else marks.token
            case "response.output_audio_transcript.delta" | "response.output_text.delta":
                marks.token = now if marks.token is None else marks.token
                self._say(event.text("delta"))
            case "response.output_audio_transcript.done":
                self._settle(event.text("transcript"))
            case "response.output_text.done":
                self._settle(event.text("text"))
            case "response.output_audio.delta":
                marks.audio = now if marks.audio is None else marks.audio
                self.audio += event.sound()
            case "response.output_item.done" if event.text("item", "type") == "function_call":
                self.calls.append(Call(event.text("item", "name"), event.text("item", "arguments")))
            case "response.done":
                self._end(event, now)

    def _say(self, text: str) -> None:
        if not self.answers:
            self.answers.append("")
        self.answers[-1] += text

    def _settle(self, text: str) -> None:
        """The whole of a part, for a server that sent no deltas of it."""
        if text and not (self.answers and self.answers[-1]):
            self._say(text)

    def _end(self, event: Event, now: float) -> None:
        self._responding = False
        status = event.text("response", "status")
        details = event.get("response", "status_details")
        reason = Event(details if isinstance(details, dict) else {}).text("reason")
        if status == "cancelled" and self.kind == "spoken" and reason == "turn_detected":
            return  # the question goes on, and so will the answer
        self.marks.done = now
        self._closed = True
        if status in ("failed", "cancelled"):
            message = event.text("response", "status_details", "error", "message")
            self.problems.append(f"the response was {status}: {message or reason or 'no reason'}")
        elif not any(self.answers) and not self.audio and not self.calls:
            self.problems.append("the answer is empty")
