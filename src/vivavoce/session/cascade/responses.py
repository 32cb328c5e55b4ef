"""The assistant's side of a session: which responses there are, and how each ends.

Rules:
1. One response at a time in the default conversation; any number beside it.
2. A response is announced at once and made when the words of all user items it reads are known.
   It reads what was in the conversation when it was announced.
3. A response that nothing has come of for stall_seconds fails, and says at which stage.
"""

from dataclasses import dataclass
from typing import Literal, assert_never

from vivavoce.errors import InvalidRequest
from vivavoce.protocol.items import Message
from vivavoce.protocol.responses import ResponseError, ResponseParams, StatusDetails
from vivavoce.protocol.server import ItemTruncated
from vivavoce.session.cascade.input_buffer import BYTES_PER_SAMPLE, to_ms
from vivavoce.session.cascade.planning import plan_of
from vivavoce.session.cascade.response import Ending, ResponseState
from vivavoce.session.cascade.transcriptions import Transcriptions
from vivavoce.session.conversation import Conversation, Entry
from vivavoce.session.effect_buffer import EffectBuffer
from vivavoce.session.effects import CancelGeneration
from vivavoce.session.facts import (
    AudioGenerated,
    GenerationFact,
    GenerationFailed,
    GenerationFinished,
    GenerationProgress,
    OutputFinished,
    SpokenWord,
    Stage,
    TextGenerated,
    ToolCallArguments,
    ToolCallStarted,
)
from vivavoce.session.options import Options
from vivavoce.session.output_buffer import OutputBuffer
from vivavoce.session.playout import Playout
from vivavoce.session.usage import Tally

STAGES: dict[Stage, str] = {
    "stt": "speech recognition",
    "llm": "the language model",
    "tts": "speech synthesis",
}


@dataclass(frozen=True, slots=True)
class UnclaimedFailure:
    """Words that will not come, and that no response has asked for yet."""

    key: str
    code: str
    reason: str


class Responses:
    """Owns the responses in progress, and knows what is still being played of others."""

    def __init__(
        self,
        options: Options,
        conversation: Conversation,
        hearing: Transcriptions,
        outbox: EffectBuffer,
        tally: Tally,
        *,
        stall_seconds: float,
        playout: Playout | OutputBuffer,
    ) -> None:
        self._options = options
        self._conversation = conversation
        self._hearing = hearing
        self._outbox = outbox
        self._tally = tally
        self._stall_seconds = stall_seconds
        self._responses: dict[str, ResponseState] = {}
        self._waiting: dict[str, set[str]] = {}  # by response: dictations whose words it needs
        self._owed = False  # a turn ended while a response ran that nothing may interrupt
        self._unheard: UnclaimedFailure | None = (
            None  # words that nothing waited for when they failed
        )
        self._playout = playout  # where it is not ours, of the default conversation alone
        self._done_at: float | None = None  # when the last answer was; None: not the last event

    @property
    def active(self) -> ResponseState | None:
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
        if not self._responses:
            return float("inf")
        return min(r.stalls_at for r in self._responses.values())

    @property
    def has_spoken(self) -> bool:
        """Whether sound of the assistant is in the conversation."""
        return any(entry.ledger and entry.ledger.samples for entry in self._conversation)

    @property
    def played_at(self) -> float:
        """When all sound of the default conversation will have been played."""
        return self._playout.until

    @property
    def quiet_at(self) -> float | None:
        """When the last answer will have been played; None if something came after it."""
        return None if self._done_at is None else max(self._done_at, self._playout.until)

    @property
    def playing(self) -> bool:
        """Whether sound has not left yet that we play ourselves."""
        return self._playout.until == float("inf")

    def break_silence(self) -> None:
        """Something came after the last answer."""
        self._done_at = None

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
        response = ResponseState(
            ids.next("resp"), plan, self._outbox, None if beside else self._conversation
        )
        self._responses[response.id] = response
        if not beside:
            self._done_at = None
            self._owed = False
        response.begin()
        for entry in plan.inline:
            self._hearing.dictate(entry, self._options, now=now)
            self._hearing.keep_quiet(entry.item.id)
        response.reads = tuple(self._conversation) if plan.listed is None else plan.listed
        failed = self._unheard_words(response)
        if failed or not beside:
            self._unheard = None
        if failed:
            self._fail(response, failed.code, failed.reason, now)
            return
        self._waiting[response.id] = self._hearing.keys_of({e.item.id for e in response.reads})
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
        """The words of a dictation will not come: what waits for them fails, or what reads them."""
        waiting = [response_id for response_id, keys in self._waiting.items() if key in keys]
        for response_id in waiting:
            self._fail(self._responses[response_id], code, reason, now)
        if not waiting:
            self._unheard = UnclaimedFailure(key, code, reason)

    def set_words(self, item_id: str, index: int, text: str) -> None:
        """The words of an item that stands only in a response's own input."""
        for response in self._responses.values():
            for entry in response.plan.listed or ():
                if entry.item.id == item_id:
                    entry.words[index] = text

    def take(self, fact: GenerationFact, now: float) -> None:
        """What came of an answer. Of one that has been stopped, nothing counts any more."""
        response = self._responses.get(fact.response_id)
        if response is None or response.answer is None:
            return
        if isinstance(fact, GenerationProgress) and response.stage == "tts":
            return  # it is the voice that is waited for
        response.stalls_at = now + self._stall_seconds
        match fact:
            case GenerationProgress():
                response.sounding()
            case TextGenerated(text=text):
                response.think(text)
            case ToolCallStarted(index=index, call_id=call_id, name=name):
                response.call(index, call_id, name)
            case ToolCallArguments(index=index, arguments=arguments):
                response.argue(index, arguments)
            case GenerationFinished():
                response.conclude(fact)
            case AudioGenerated(audio=audio, words=words, ends=ends):
                self._speak(response, audio, words, now)
                if ends:  # whatever comes next is for the model to say
                    response.stage = "llm"
            case OutputFinished():
                self._complete(response, now)
            case GenerationFailed(stage=stage, reason=reason):
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

    def interrupt(self, now: float, *, live: bool) -> None:
        """The user speaks: the answer is over, and no complete one is played any further.

        live: the user is really there. Whoever sends recordings does not wait for answers to be
        played; of a complete one they have all.
        """
        if isinstance(self._playout, OutputBuffer):
            self.clear_output(now)
        if response := self.active:
            self._cut_off(response, StatusDetails(type="cancelled", reason="turn_detected"), now)
        for item_id, unplayed in self._playout.stop(now).items():
            if live:
                self._keep_heard(item_id, unplayed)
        self._done_at = None

    def played(self, item_id: str, samples: int, now: float) -> None:
        """So much of an item has left for the ear."""
        self._playout.played(item_id, samples, now)

    def clear_output(self, now: float) -> None:
        """Drop what was not played, and say how far each answer was. Raises InvalidRequest."""
        if not isinstance(self._playout, OutputBuffer):
            raise InvalidRequest(
                "There is no output audio buffer: on a WebSocket the client owns the playout.",
                param="type",
            )
        for item_id, unplayed in self._playout.stop(now).items():
            entry = self._conversation.find(item_id)
            if entry and entry.ledger:
                heard_ms = to_ms(entry.ledger.samples - unplayed)
                self._conversation.truncate(item_id, 0, heard_ms)
                event_id = self._outbox.event_id()
                self._outbox.send(
                    ItemTruncated(
                        event_id=event_id, item_id=item_id, content_index=0, audio_end_ms=heard_ms
                    )
                )

    def truncated(self, item_id: str, now: float) -> None:
        """The client has stopped playing it, and has said what was heard."""
        self._playout.drop(item_id, now)

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
                self._outbox.add(CancelGeneration(response.id))
                self._fail(response, f"{stage}_stalled", reason, now)

    def _speak(
        self, response: ResponseState, audio: bytes, words: tuple[SpokenWord, ...], now: float
    ) -> None:
        place = response.sounding()
        ours = isinstance(self._playout, OutputBuffer)
        if place and audio:
            if isinstance(self._playout, OutputBuffer):
                self._playout.add(place, audio, now)
            elif response.plan.conversation_id is not None:
                self._playout.add(place.item_id, len(audio) // BYTES_PER_SAMPLE, now)
        response.speak(audio, words, send=not ours)

    def _unheard_words(self, response: ResponseState) -> UnclaimedFailure | None:
        """What went wrong with the last words of the user that it reads, if it was not told yet."""
        last = next((e for e in reversed(response.reads) if _is_of_user(e)), None)
        failed = self._unheard
        if last is None or failed is None:
            return None
        keys = {last.item.id, *(f"{last.item.id}#{n}" for n in last.recordings)}
        return failed if failed.key in keys else None

    def _ask_if_ready(self, response: ResponseState, now: float) -> None:
        if self._waiting[response.id]:
            return
        del self._waiting[response.id]
        if response.plan.listed is None:  # what was deleted while it waited is not read
            find = self._conversation.find
            response.reads = tuple(e for e in response.reads if find(e.item.id) is e)
        response.stalls_at = now + self._stall_seconds
        response.ask()

    def _complete(self, response: ResponseState, now: float) -> None:
        reason = response.concluded.reason if response.concluded else "stop"
        if reason == "stop":
            self._end(response, "completed", None, now)
        else:
            why: Literal["max_output_tokens", "content_filter"]
            why = "max_output_tokens" if reason == "length" else "content_filter"
            self._end(response, "incomplete", StatusDetails(type="incomplete", reason=why), now)

    def _cut_off(self, response: ResponseState, details: StatusDetails, now: float) -> None:
        if response.answer:
            self._outbox.add(CancelGeneration(response.id))
        self._end(response, "cancelled", details, now)
        if spoken := response.spoken:
            item_id = spoken.place.item_id
            self._keep_heard(item_id, self._playout.drop(item_id, now))

    def _keep_heard(self, item_id: str, unplayed: int) -> None:
        """The ear did not get the end of an answer: only the words before it were said."""
        entry = self._conversation.find(item_id)
        if entry and entry.ledger:
            self._conversation.cut(item_id, entry.ledger.samples - unplayed)

    def _fail(self, response: ResponseState, code: str, reason: str, now: float) -> None:
        error = ResponseError(type="server_error", code=code, message=reason)
        self._end(response, "failed", StatusDetails(type="failed", error=error), now)
        if self._options.tells_failures:
            self._outbox.error(reason, kind="server_error", code=code)

    def _end(
        self, response: ResponseState, ending: Ending, details: StatusDetails | None, now: float
    ) -> None:
        del self._responses[response.id]
        self._waiting.pop(response.id, None)
        for entry in response.plan.inline:
            self._hearing.forget(entry.item.id)
        self._tally.add_response(response.end(ending, details))
        if response.plan.conversation_id is not None:
            self._done_at = now
        self._playout.ended(response.id, now)


def _is_of_user(entry: Entry) -> bool:
    return isinstance(entry.item, Message) and entry.item.role == "user"
