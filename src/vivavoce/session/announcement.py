"""Sentences that the server itself says: each in a response of its own outside the conversation."""

import msgspec

from vivavoce.protocol.responses import ResponseError, ResponseParams, StatusDetails
from vivavoce.session.brain import Brain, Shared
from vivavoce.session.cascade.planning import plan_of
from vivavoce.session.cascade.response import ResponseState
from vivavoce.session.effects import Generate, Say
from vivavoce.session.facts import (
    AudioGenerated,
    Fact,
    GenerationFact,
    GenerationFailed,
    OutputFinished,
)

INFINITY = float("inf")
METADATA = {"vivavoce": "announcement"}


class Announcement:
    """One announcement: spoken, or written where the session answers in text.

    Its audio is always synthesised on this machine, because an upstream server may be unreachable.
    """

    def __init__(self, shared: Shared, text: str) -> None:
        self._shared = shared
        self._text = text
        self._response: ResponseState | None = None
        self.over = False
        """Whether all of it was sent, or sending failed."""

    def begin(self, now: float) -> None:
        shared = self._shared
        if shared.options.transcribes_only:  # a transcription session has no responses
            self.over = True
            return
        params = ResponseParams(
            conversation="none",
            instructions="",
            tools=(),
            tool_choice="none",
            input=(),
            metadata=METADATA,
        )
        plan = plan_of(params, shared)
        response = ResponseState(shared.effects.ids.next("resp"), plan, shared.effects, None)
        self._response = response
        response.begin()
        if plan.prompt.spoken:
            shared.effects.add(Say(Generate(response.id, plan.prompt), self._text))
        else:
            response.add_text(self._text)
            self._end(response, None, now)

    def take(self, fact: GenerationFact, now: float) -> bool:
        """Take what the synthesiser produced.

        Returns False where it belongs to another response.
        """
        response = self._response
        if response is None or fact.response_id != response.id:
            return False
        match fact:
            case _ if self.over:
                pass
            case AudioGenerated(audio=audio, words=words):
                message, playback = response.open_message(), self._shared.playback
                if audio:
                    playback.add(response.id, message.place.item_id, audio, now)
                assert response.spoken
                response.spoken.add(audio, words, send=not playback.by_server)
            case OutputFinished():
                self._end(response, None, now)
            case GenerationFailed(stage=stage, reason=reason):
                self._end(response, ResponseError("server_error", f"{stage}_failed", reason), now)
            case _:
                pass  # its text is known
        return True

    def stop(self, now: float) -> None:
        """End this announcement: another one replaces it."""
        if self._response and not self.over:
            self.over = True
            self._response.end("cancelled", StatusDetails(type="cancelled"))
            self._shared.playback.ended(self._response.id, now)

    def _end(self, response: ResponseState, error: ResponseError | None, now: float) -> None:
        self.over = True
        if error is None:
            response.end("completed", None)
        else:
            response.end("failed", StatusDetails(type="failed", error=error))
        self._shared.playback.ended(response.id, now)


class Ending(msgspec.Struct, frozen=True):
    """How a session ends: an error event, then the close."""

    code: str
    message: str
    close_code: int
    reason: str
    latest: float
    """The time at which the session ends even if its last sentence was not played to the end."""


class Announcements:
    """Queues warnings, each said once between two answers, and the last sentence of a session."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._waiting = shared.announcements
        self._now_said: Announcement | None = None
        self.ending: Ending | None = None
        """Set while the last sentence is being said."""

    def warn(self, text: str) -> None:
        """Say this sentence as soon as nobody speaks. An empty sentence is ignored."""
        if text and self.ending is None:
            self._waiting.append(text)

    def end(self, ending: Ending, text: str, now: float) -> None:
        """Say the last sentence now; the session ends when it was played."""
        if self._now_said:
            self._now_said.stop(now)
        self._waiting.clear()
        self.ending = ending
        self._say(text, now)

    def take(self, fact: Fact, now: float) -> bool:
        """Take what the synthesiser produced. Returns False where it belongs to no announcement."""
        said = self._now_said
        return said is not None and isinstance(fact, GenerationFact) and said.take(fact, now)

    def deadline(self, brain: Brain) -> float:
        """When settle() is due."""
        if self.ending is not None:
            heard = self._shared.playback.until if self._is_free else INFINITY
            return min(self.ending.latest, heard)
        due = self._waiting and self._is_free and brain.at_rest
        return self._shared.playback.until if due else INFINITY

    def settle(self, now: float, brain: Brain) -> Ending | None:
        """Say the next queued sentence; return the ending once the last sentence is over."""
        if (ending := self.ending) is not None:
            over = self._is_free and self._shared.playback.until <= now
            return ending if over or ending.latest <= now else None
        if self._waiting and self._is_free and self._shared.playback.until <= now and brain.at_rest:
            self._say(self._waiting.pop(0), now)
        return None

    @property
    def _is_free(self) -> bool:
        return self._now_said is None or self._now_said.over

    def _say(self, text: str, now: float) -> None:
        self._now_said = Announcement(self._shared, text)
        self._now_said.begin(now)
