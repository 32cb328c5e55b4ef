"""The assistant's side of a session: which responses there are, and how each ends.

Rules:
1. One response at a time in the default conversation; any number beside it.
2. A response is announced at once and made when the words of all user items it reads are known.
3. A response that nothing has come of for stall_seconds fails, and says at which stage.
"""

import dataclasses
from typing import Literal, assert_never

from vivavoce.errors import InvalidRequest
from vivavoce.protocol.responses import ResponseError, ResponseParams, StatusDetails
from vivavoce.session.conversation import Conversation, shown
from vivavoce.session.effects import Answer, Stop
from vivavoce.session.facts import (
    AnswerFact,
    Argued,
    Called,
    Concluded,
    Ended,
    Failed,
    Spoke,
    Stage,
    Thought,
)
from vivavoce.session.hearing import Hearing
from vivavoce.session.options import Options
from vivavoce.session.outbox import Outbox
from vivavoce.session.planning import plan_of
from vivavoce.session.response import Ending, ResponseLife
from vivavoce.session.usage import Tally

STAGES: dict[Stage, str] = {
    "stt": "speech recognition",
    "llm": "the language model",
    "tts": "speech synthesis",
}


class Answering:
    """Owns the responses in progress."""

    def __init__(
        self,
        options: Options,
        conversation: Conversation,
        hearing: Hearing,
        outbox: Outbox,
        tally: Tally,
        *,
        stall_seconds: float,
    ) -> None:
        self._options = options
        self._conversation = conversation
        self._hearing = hearing
        self._outbox = outbox
        self._tally = tally
        self._stall_seconds = stall_seconds
        self._responses: dict[str, ResponseLife] = {}
        self._waiting: dict[str, set[str]] = {}  # by response: dictations whose words it needs
        self._owed = False  # a turn ended while a response ran that nothing may interrupt
        self.has_spoken = False
        self.quiet_at: float | None = None  # when the last answer will have been played

    @property
    def active(self) -> ResponseLife | None:
        """The response in the default conversation."""
        for response in self._responses.values():
            if response.plan.conversation_id is not None:
                return response
        return None

    @property
    def busy(self) -> bool:
        return bool(self._responses)

    @property
    def deadline(self) -> float:
        """When the first response stalls."""
        return min((r.stalls_at for r in self._responses.values()), default=float("inf"))

    def create(self, params: ResponseParams, conversation_id: str, now: float) -> None:
        """Begin a response. Raises InvalidRequest where the protocol does not allow it."""
        if self._options.transcribes_only:
            raise InvalidRequest(
                "A transcription session has no responses.", code="invalid_parameter", param="type"
            )
        beside = params.conversation == "none"
        if not beside and (active := self.active):
            raise InvalidRequest(
                f"Conversation already has an active response in progress: {active.id}. "
                f"Wait until the response is finished before creating a new one.",
                code="conversation_already_has_active_response",
            )
        ids = self._outbox.ids
        plan = plan_of(params, self._options, self._conversation, ids, conversation_id)
        response = ResponseLife(
            ids.next("resp"), plan, self._outbox, None if beside else self._conversation
        )
        self._responses[response.id] = response
        if not beside:
            self.quiet_at = None
        response.begin()
        self._dictate_listed(response, now)
        entries = self._conversation if plan.listed is None else plan.listed
        self._waiting[response.id] = self._hearing.keys_of({e.item.id for e in entries})
        self._ask_if_ready(response, now)

    def turn_ended(self, conversation_id: str, now: float) -> None:
        """A user's turn wants an answer: now, or as soon as the present one is over."""
        if self.active:
            self._owed = True
        else:
            self.create(ResponseParams(), conversation_id, now)

    def settle(self, conversation_id: str, now: float) -> None:
        """Answer the turn that had to wait, if it can be now."""
        if self._owed and self.active is None:
            self._owed = False
            self.create(ResponseParams(), conversation_id, now)

    def heard(self, key: str, now: float) -> None:
        """The words of a dictation are known."""
        for response_id, keys in tuple(self._waiting.items()):
            if key in keys:
                keys.remove(key)
                self._ask_if_ready(self._responses[response_id], now)

    def unheard(self, key: str, code: str, reason: str, now: float) -> None:
        """The words of a dictation will not come: whatever waits for them fails."""
        for response_id, keys in tuple(self._waiting.items()):
            if key in keys:
                self._fail(self._responses[response_id], code, reason, now)

    def set_words(self, item_id: str, index: int, text: str) -> None:
        """The words of an item that stands only in a response's own input."""
        for response in self._responses.values():
            for entry in response.plan.listed or ():
                if entry.item.id == item_id:
                    entry.words[index] = text

    def take(self, fact: AnswerFact, now: float) -> None:
        """What came of an answer. Of one that has been stopped, nothing counts any more."""
        response = self._responses.get(fact.response_id)
        if response is None or response.answer is None:
            return
        response.stalls_at = now + self._stall_seconds
        match fact:
            case Thought(text=text):
                response.think(text)
            case Called(index=index, call_id=call_id, name=name):
                response.call(index, call_id, name)
            case Argued(index=index, arguments=arguments):
                response.argue(index, arguments)
            case Concluded():
                response.conclude(fact)
            case Spoke(audio=audio, words=words):
                self.has_spoken = self.has_spoken or response.plan.conversation_id is not None
                response.speak(audio, words, now)
            case Ended():
                self._complete(response, now)
            case Failed(stage=stage, reason=reason):
                self._fail(response, f"{stage}_failed", reason, now)
            case _:
                assert_never(fact)

    def cancel(self, response_id: str | None, now: float) -> None:
        """The client wants no more of it."""
        response = self._responses.get(response_id) if response_id else self.active
        if response is None:
            raise InvalidRequest(
                "Cancellation failed: no active response found",
                code="response_cancel_not_active",
            )
        self._cut_off(response, StatusDetails(type="cancelled", reason="client_cancelled"), now)

    def interrupt(self, now: float) -> None:
        """The user speaks: the response in the default conversation is over."""
        self.quiet_at = None
        if response := self.active:
            self._cut_off(response, StatusDetails(type="cancelled", reason="turn_detected"), now)

    def stop_all(self, now: float) -> None:
        """The session ends."""
        self._owed = False
        for response in tuple(self._responses.values()):
            self._cut_off(response, StatusDetails(type="cancelled"), now)

    def woken(self, now: float) -> None:
        """Fail what has stalled."""
        for response in tuple(self._responses.values()):
            if response.stalls_at <= now:
                stage = response.stage
                reason = (
                    f"Nothing came from {STAGES[stage]} for {self._stall_seconds:g} seconds; "
                    f"the response was given up."
                )
                self._outbox.order(Stop(response.id))
                self._fail(response, f"{stage}_stalled", reason, now)

    def _dictate_listed(self, response: ResponseLife, now: float) -> None:
        """Have sound that stands only in the response's own input written down."""
        for entry in response.plan.listed or ():
            if self._conversation.find(entry.item.id) is None:
                self._hearing.dictate(entry, self._options, now=now)
                self._hearing.keep_quiet(entry.item.id)

    def _ask_if_ready(self, response: ResponseLife, now: float) -> None:
        if self._waiting[response.id]:
            return
        del self._waiting[response.id]
        plan = response.plan
        items = self._conversation.context() if plan.listed is None else shown(plan.listed)
        response.stalls_at = now + self._stall_seconds
        response.ask(Answer(response.id, dataclasses.replace(plan.prompt, items=items)))

    def _complete(self, response: ResponseLife, now: float) -> None:
        reason = response.concluded.reason if response.concluded else "stop"
        if reason == "stop":
            self._end(response, "completed", None, now)
        else:
            why: Literal["max_output_tokens", "content_filter"]
            why = "max_output_tokens" if reason == "length" else "content_filter"
            self._end(response, "incomplete", StatusDetails(type="incomplete", reason=why), now)

    def _cut_off(self, response: ResponseLife, details: StatusDetails, now: float) -> None:
        if response.answer:
            self._outbox.order(Stop(response.id))
        self._end(response, "cancelled", details, now)
        response.cut(now)

    def _fail(self, response: ResponseLife, code: str, reason: str, now: float) -> None:
        error = ResponseError(type="server_error", code=code, message=reason)
        self._end(response, "failed", StatusDetails(type="failed", error=error), now)
        self._outbox.error(reason, kind="server_error", code=code)

    def _end(
        self, response: ResponseLife, ending: Ending, details: StatusDetails | None, now: float
    ) -> None:
        del self._responses[response.id]
        self._waiting.pop(response.id, None)
        self._tally.add_response(response.end(ending, details))
        if response.plan.conversation_id is not None:
            self.quiet_at = max(now, response.playhead)
