"""The responses of a session: when each begins, and how it ends.

Rules:
1. One response at a time in the default conversation; any number out of band.
2. A response is announced at once, and generated when the words of all user items in its context
   are known. Its context is the conversation as it was when the response was announced.
3. A response that makes no progress for stall_seconds fails, and names the stage.
"""

from collections.abc import Callable
from typing import Literal, assert_never

import msgspec
from msgspec import UnsetType

from vivavoce.audio.formats import BYTES_PER_SAMPLE, RATE
from vivavoce.errors import InvalidRequest
from vivavoce.protocol.items import Message
from vivavoce.protocol.responses import (
    ResponseError,
    ResponseParams,
    SessionUsage,
    StatusDetails,
    Usage,
)
from vivavoce.session.brain import CONTINUE_INSTRUCTIONS, Shared
from vivavoce.session.cascade.answer_playback import AnswerPlayback
from vivavoce.session.cascade.outputs import SpokenMessage
from vivavoce.session.cascade.planning import plan_of
from vivavoce.session.cascade.response import Ending, ResponseState
from vivavoce.session.cascade.transcriptions import Failure, Transcriptions
from vivavoce.session.conversation import Entry
from vivavoce.session.effects import (
    AddEchoReference,
    CancelGeneration,
    Filler,
    Prompt,
    RecordUsage,
)
from vivavoce.session.facts import (
    AudioGenerated,
    GenerationFact,
    GenerationFailed,
    GenerationFinished,
    GenerationProgress,
    OutputFinished,
    SpeechFailed,
    Stage,
    TextGenerated,
    ToolCallArguments,
    ToolCallStarted,
    TranscriptionKey,
)
from vivavoce.session.limits import MAX_CALLS_PER_RESPONSE

INFINITY = float("inf")
STAGES: dict[Stage, str] = {
    "stt": "speech recognition",
    "llm": "the language model",
    "tts": "speech synthesis",
}


class CutAnswer(msgspec.Struct, frozen=True):
    """An answer that a sound cut off, and the turn of that sound, as item ids."""

    turn_id: str
    item_id: str


class Responses:
    """The responses in progress, and the one that is due."""

    def __init__(
        self,
        shared: Shared,
        transcriptions: Transcriptions,
        *,
        quiet_since: float | None = None,
        begun: Callable[[Prompt], str] = lambda _: "",
    ) -> None:
        """begun: id of the answer that was begun early from its prompt; "": none was."""
        self._shared = shared
        self.answer_playback = AnswerPlayback(shared)
        self._transcriptions = transcriptions
        self._responses: dict[str, ResponseState] = {}
        self._waiting: dict[str, set[TranscriptionKey]] = {}  # by response: the words it needs
        self._begun = begun
        self._filled = ""  # the last turn in which a filler was said
        self._due = False  # a turn ended during a response that must not be interrupted
        # the last failed transcription that no response was waiting for
        self._failure: Failure | None = None
        self._cut: CutAnswer | None = None
        self._rest = ""  # what the next response says: see finish_cut()
        self.quiet_since = quiet_since
        """When the last answer ended; None if something came after it."""
        self.result_due = False
        """Whether a background function has finished since the last answer was created."""

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
    def due(self) -> bool:
        """Whether a turn is waiting for the response in progress to end."""
        return self._due

    @property
    def deadline(self) -> float:
        """When the first of the responses fails for lack of progress."""
        first = INFINITY
        # evaluated after every fact: a loop is faster than a generator
        for response in self._responses.values():
            first = min(first, response.stalls_at)
        return first

    @property
    def quiet_at(self) -> float | None:
        """When the last answer will have been played; None if something came after it."""
        quiet = self.quiet_since
        return None if quiet is None else max(quiet, self._shared.playback.until)

    def create(self, params: ResponseParams, now: float) -> None:
        """Begin a response. Raises InvalidRequest where the protocol does not allow it."""
        shared = self._shared
        if shared.options.transcribes_only:
            raise InvalidRequest(
                "A transcription session has no responses.", code="invalid_parameter", param="type"
            )
        out_of_band = params.conversation == "none"
        if not out_of_band and (active := self.active):
            raise InvalidRequest(
                f"Conversation already has an active response in progress: {active.id}. "
                f"Wait until the response is finished before creating a new one.",
                code="conversation_already_has_active_response",
            )
        plan = plan_of(params, shared)
        conversation = None if out_of_band else shared.conversation
        response_id = shared.effects.ids.next("resp")
        response = ResponseState(response_id, plan, shared.effects, conversation)
        self._responses[response.id] = response
        if not out_of_band:
            self.quiet_since = None
            self._due = False
            self.result_due = self.result_due and plan.listed is not None
        response.begin()
        for entry in plan.inline:
            self._transcriptions.transcribe(entry, now=now, reported=False)
        response.reads = tuple(shared.conversation) if plan.listed is None else plan.listed
        failure = self._failed_words(response)
        if failure or not out_of_band:
            self._failure = None
        if failure:
            self._fail(response, failure.code, failure.reason, now)
            return
        needed = {entry.item.id for entry in response.reads}
        self._waiting[response.id] = self._transcriptions.keys_of(needed)
        self._generate_if_ready(response, now)

    def turn_ended(self, now: float) -> None:
        """A turn of the user wants a response: now, or when the present one has ended."""
        if self.active:
            self._due = True
        else:
            self.create(ResponseParams(), now)

    def create_due(self, now: float) -> None:
        """Create the response that had to wait, if it can be now."""
        if self._due and self.active is None:
            self.create(ResponseParams(), now)

    def finish_cut(self, item_id: str, now: float) -> None:
        """Continue an answer that was cut off when the connection broke.

        Known words are spoken; otherwise the model continues.
        """
        entry = self._shared.conversation.find(item_id)
        assert entry
        assert entry.ledger
        if entry.item.status == "completed":
            if rest := entry.ledger.unheard_text:
                self._rest = rest
                self.create(ResponseParams(), now)
            return
        params = ResponseParams()
        if entry.ledger.heard_text:
            instructions = self._shared.options.realtime.instructions
            params = ResponseParams(instructions=f"{instructions}\n\n{CONTINUE_INSTRUCTIONS}")
        self.create(params, now)

    def words_known(self, key: TranscriptionKey, now: float) -> None:
        """A transcription is complete: generate the responses that waited for it."""
        for response_id, keys in tuple(self._waiting.items()):
            if key in keys:
                keys.remove(key)
                self._generate_if_ready(self._responses[response_id], now)

    def words_failed(self, failure: Failure, now: float) -> None:
        """A transcription has failed: fail the response that waits for it, or else the next one."""
        waiting = [id_ for id_, keys in self._waiting.items() if failure.key in keys]
        for response_id in waiting:
            self._fail(self._responses[response_id], failure.code, failure.reason, now)
        if not waiting:
            self._failure = failure

    def set_words(self, key: TranscriptionKey, text: str) -> None:
        """Set the words of an item that is only in the context of a response."""
        for response in self._responses.values():
            for entry in response.plan.inline:
                if entry.item.id == key.item_id:
                    entry.words[key.content_index] = text

    def take(self, fact: GenerationFact, now: float) -> None:
        """Take generated output. Output of a cancelled response is ignored."""
        response = self._responses.get(fact.response_id)
        if response is None or not response.generating:
            return
        if isinstance(fact, GenerationProgress) and response.stage == "tts":
            return  # the synthesiser is the stage without progress
        response.stalls_at = now + self._shared.limits.stall_seconds
        match fact:
            case AudioGenerated():
                self._add_audio(response, fact, now)
            case GenerationProgress(writes=writes):
                if writes:
                    response.open_message()
            case TextGenerated(text=text):
                if response.filler and text.strip() == response.filler.text:
                    self._filled = _turn_of(response)
                response.add_text(text)
                self._bound_text(response, now)
            case ToolCallStarted():
                self._start_call(response, fact, now)
            case ToolCallArguments(index=index, arguments=arguments):
                response.add_arguments(index, arguments)
                self._bound_text(response, now)
            case GenerationFinished():
                response.finish_generation(fact)
            case SpeechFailed(reason=reason):
                response.fail_speech(reason)
            case OutputFinished():
                self._complete(response, now)
            case GenerationFailed(stage=stage, reason=reason):
                self._fail(response, f"{stage}_failed", reason, now)
            case _:
                assert_never(fact)

    def continue_audio(self, fact: AudioGenerated, now: float) -> bool:
        """Take more audio of an answer that already has some.

        False: nothing was done, because more follows from it.
        """
        response = self._responses.get(fact.response_id)
        spoken = response.spoken if response else None
        if response is None or spoken is None or fact.ends or not spoken.ledger.samples:
            return False
        shared = self._shared
        limits = shared.limits
        samples = spoken.ledger.samples + len(fact.audio) // BYTES_PER_SAMPLE
        if samples > limits.max_response_seconds * RATE:
            return False
        response.stalls_at = now + limits.stall_seconds
        self._send_audio(response, spoken, fact, now)
        return True

    def cancel(self, response_id: str | None, now: float) -> None:
        """The client cancels a response. Raises InvalidRequest where there is none."""
        response = self._responses.get(response_id) if response_id else self.active
        if response is None:
            raise InvalidRequest(
                "Cancellation failed: no active response found",
                code="response_cancel_not_active",
            )
        self._cut_off(response, StatusDetails(type="cancelled", reason="client_cancelled"), now)

    def audible(self, now: float) -> bool:
        """Whether an answer is being played, or is about to continue."""
        active = self.active
        return self._shared.playback.until > now or bool(active and active.audio_samples)

    def interrupt(self, now: float, *, live: bool, doubtful: str = "") -> None:
        """Barge-in: end the answer, and stop the playback of earlier ones.

        live: the user speaks in real time. A client that sends recordings does not play answers, so
        it keeps all of a complete one. doubtful: the item of a turn that interrupts by its sound
        alone. If it turns out to have no words, an answer that was complete is continued after it.
        """
        playback = self._shared.playback
        playing = playback.playing(now) if doubtful and self.active is None else None
        self._cut = CutAnswer(doubtful, playing[0]) if playing else None
        if playback.by_server:
            self.answer_playback.clear(now)
        if response := self.active:
            self._cut_off(response, StatusDetails(type="cancelled", reason="turn_detected"), now)
        for item_id, unplayed in playback.stop(now).items():
            if live:
                self.answer_playback.keep_heard(item_id, unplayed)
        self.answer_playback.clear_echo_reference()
        self.quiet_since = None

    def stop_all(self, now: float) -> None:
        """The session ends."""
        self._due = False
        for response in tuple(self._responses.values()):
            self._cut_off(response, StatusDetails(type="cancelled"), now)

    def fail_stalled(self, now: float) -> None:
        """Fail the responses that make no progress."""
        seconds = self._shared.limits.stall_seconds
        for response in tuple(self._responses.values()):
            if response.stalls_at <= now:
                stage = response.stage
                reason = (
                    f"Nothing came from {STAGES[stage]} for {seconds:g} seconds; "
                    f"the response was given up."
                )
                self._shared.effects.add(CancelGeneration(response.id))
                self._fail(response, f"{stage}_stalled", reason, now)

    def _start_call(self, response: ResponseState, fact: ToolCallStarted, now: float) -> None:
        declared = {tool.name for tool in response.plan.prompt.tools}
        problem = None
        if fact.name not in declared:
            problem = f"The model called a function that was not declared: '{fact.name:.100}'."
        elif response.calls >= MAX_CALLS_PER_RESPONSE:
            problem = f"The model made more than {MAX_CALLS_PER_RESPONSE} function calls."
        if problem is None:
            response.start_call(fact.index, fact.call_id, fact.name)
        else:
            self._shared.effects.add(CancelGeneration(response.id))
            self._fail(response, "invalid_tool_call", problem, now)

    def _add_audio(self, response: ResponseState, fact: AudioGenerated, now: float) -> None:
        response.open_message()
        spoken = response.spoken
        if spoken is None:
            return
        self._send_audio(response, spoken, fact, now)
        if fact.ends:  # from here on the model has to make progress
            response.stage = "llm"
        if spoken.ledger.samples > self._shared.limits.max_response_seconds * RATE:
            self._end_too_long(response, now)

    def _send_audio(
        self, response: ResponseState, spoken: SpokenMessage, fact: AudioGenerated, now: float
    ) -> None:
        playback = self._shared.playback
        in_conversation = response.plan.conversation_id is not None
        if fact.audio and (playback.by_server or in_conversation):
            playback.add(response.id, spoken.place.item_id, fact.audio, now)
        spoken.add(fact.audio, fact.words, send=not playback.by_server)
        if fact.audio and self._shared.options.noise_reduction:
            self._shared.effects.add(AddEchoReference(fact.audio))

    def _bound_text(self, response: ResponseState, now: float) -> None:
        """End a response whose text has become too long, where the client sets no limit."""
        max_tokens = self._shared.limits.max_response_tokens
        if response.plan.max_output_tokens == "inf" and response.text_tokens > max_tokens:
            self._end_too_long(response, now)

    def _end_too_long(self, response: ResponseState, now: float) -> None:
        self._shared.effects.add(CancelGeneration(response.id))
        details = StatusDetails(type="incomplete", reason="max_output_tokens")
        self._end(response, "incomplete", details, now)

    def _failed_words(self, response: ResponseState) -> Failure | None:
        """The failure of the user's last words in the context of a response, unless one has
        reported it."""
        if self._failure is None:
            return None
        last = next((e for e in reversed(response.reads) if _is_of_user(e)), None)
        failed = last is not None and self._failure.key.item_id == last.item.id
        return self._failure if failed else None

    def _generate_if_ready(self, response: ResponseState, now: float) -> None:
        if self._waiting[response.id]:
            return
        del self._waiting[response.id]
        if response.plan.listed is None:  # items deleted while it waited are not read
            find = self._shared.conversation.find
            response.reads = tuple(e for e in response.reads if find(e.item.id) is e)
        response.stalls_at = now + self._shared.limits.stall_seconds
        of_turn = response.plan.listed is None and response.plan.conversation_id is not None
        rest, self._rest = self._rest, ""
        if of_turn and (rest := rest or self._rest_of_cut(response)):
            response.resume(rest)
        elif of_turn:
            response.generate(self._begun, self._filler(response))
        else:
            response.generate()

    def _rest_of_cut(self, response: ResponseState) -> str:
        """The part of an answer that was not heard, if the turn that cut it off had no words; else
        ""."""
        cut, self._cut = self._cut, None
        if cut is None or not response.plan.prompt.spoken or _turn_of(response) != cut.turn_id:
            return ""
        turn = self._shared.conversation.find(cut.turn_id)
        entry = self._shared.conversation.find(cut.item_id)
        if turn is None or turn.words.get(0, "?").strip() or entry is None or entry.ledger is None:
            return ""
        return entry.ledger.unheard_text

    def _filler(self, response: ResponseState) -> Filler | None:
        """The filler, said while the model gives nothing, unless one was said in this turn."""
        limits, prompt = self._shared.limits, response.plan.prompt
        said = self._filled and self._filled == _turn_of(response)
        if not limits.filler_seconds or not prompt.spoken or said:
            return None
        return Filler(limits.filler(prompt.language), limits.filler_seconds)

    def _complete(self, response: ResponseState, now: float) -> None:
        reason = response.finished.reason if response.finished else "stop"
        if reason != "stop":
            why: Literal["max_output_tokens", "content_filter"]
            why = "max_output_tokens" if reason == "length" else "content_filter"
            self._end(response, "incomplete", StatusDetails(type="incomplete", reason=why), now)
        elif problem := response.call_problem:
            self._fail(response, "invalid_tool_call", f"The model failed: {problem}.", now)
        elif response.speech_problem is not None:
            self._complete_in_writing(response, response.speech_problem, now)
        else:
            self._end(response, "completed", None, now)

    def _complete_in_writing(self, response: ResponseState, reason: str, now: float) -> None:
        """Complete a response whose speech synthesis failed: the rest of it was sent as text."""
        message = f"Speech synthesis failed, the answer goes on in writing: {reason}"
        error = ResponseError(type="server_error", code="tts_failed", message=message)
        self._end(response, "completed", StatusDetails(type="completed", error=error), now)
        if self._shared.options.sends_failure_errors:
            self._shared.effects.error(message, kind="server_error", code="tts_failed")

    def _cut_off(self, response: ResponseState, details: StatusDetails, now: float) -> None:
        if response.generating:
            self._shared.effects.add(CancelGeneration(response.id))
        self._end(response, "cancelled", details, now)
        if spoken := response.spoken:
            item_id = spoken.place.item_id
            self.answer_playback.keep_heard(item_id, self._shared.playback.drop(item_id, now))
        self.answer_playback.clear_echo_reference()

    def _fail(self, response: ResponseState, code: str, reason: str, now: float) -> None:
        error = ResponseError(type="server_error", code=code, message=reason)
        self._end(response, "failed", StatusDetails(type="failed", error=error), now)
        in_conversation = response.plan.conversation_id is not None
        heard = response.audio_samples or not response.plan.prompt.spoken
        if self._shared.limits.say_failed and in_conversation and not heard:
            self._shared.announcements.append(self._shared.limits.say_failed)
        if self._shared.options.sends_failure_errors:
            self._shared.effects.error(reason, kind="server_error", code=code)

    def _end(
        self, response: ResponseState, ending: Ending, details: StatusDetails | None, now: float
    ) -> None:
        del self._responses[response.id]
        self._waiting.pop(response.id, None)
        for entry in response.plan.inline:
            self._transcriptions.cancel(entry.item.id)
        response.end(ending, details, lambda usage: self._count(response, usage, now))
        if response.plan.conversation_id is not None:
            self.quiet_since = now
        self._shared.playback.ended(response.id, now)

    def _count(self, response: ResponseState, usage: Usage, now: float) -> SessionUsage | UnsetType:
        """Count the usage of a response; return the usage of the session that the client is
        shown."""
        model, spoken = response.plan.prompt.model, response.spoken_characters
        self._shared.usage.add(RecordUsage(response.id, model, usage, characters=spoken))
        return self._shared.shown_usage(now)


def _turn_of(response: ResponseState) -> str:
    """The id of the user's item that a response answers; "" for none."""
    return next((e.item.id for e in reversed(response.reads) if _is_of_user(e)), "")


def _is_of_user(entry: Entry) -> bool:
    return isinstance(entry.item, Message) and entry.item.role == "user"
