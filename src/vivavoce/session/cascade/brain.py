"""The cascade: VAD, turn detection, speech recognition, a language model, speech synthesis."""

from typing import assert_never

from vivavoce.protocol.audio_frames import AudioFrames
from vivavoce.protocol.client import (
    InputAudioAppend,
    InputAudioClear,
    InputAudioCommit,
    OutputAudioClear,
    ResponseCancel,
    ResponseCreate,
)
from vivavoce.protocol.items import Message
from vivavoce.protocol.responses import ResponseParams
from vivavoce.protocol.session import ServerVad
from vivavoce.session.brain import BrainEvent, Handover, Shared
from vivavoce.session.cascade.anticipation import Anticipations
from vivavoce.session.cascade.input_turns import InputTurns
from vivavoce.session.cascade.overlaps import Overlaps
from vivavoce.session.cascade.planning import result_params
from vivavoce.session.cascade.responses import Responses
from vivavoce.session.cascade.transcriptions import Transcriptions
from vivavoce.session.cascade.turn_detection import Edge
from vivavoce.session.conversation import Conversation, Entry
from vivavoce.session.facts import (
    AnticipationEnded,
    AudioArrived,
    AudioCleaned,
    AudioGenerated,
    BackgroundToolFinished,
    BrainFact,
    DraftTranscribed,
    Fact,
    GenerationFailed,
    GenerationFinished,
    GenerationProgress,
    ItemTranscriptionFailed,
    OutputFinished,
    Received,
    SpeakerChecked,
    SpeechFailed,
    TextGenerated,
    ToolCallArguments,
    ToolCallStarted,
    ToolFinished,
    TranscriptUpdated,
    TurnScored,
    UpstreamConnected,
    UpstreamEventReceived,
    UpstreamLost,
    VadScores,
)

INFINITY = float("inf")


class CascadeBrain:
    """See session/brain.py for what a brain is."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._transcriptions = Transcriptions(shared)
        self._appends = AudioFrames("input_audio_buffer.append")
        self._draining = False
        self._turns: InputTurns
        self._anticipations: Anticipations
        self._responses: Responses
        self._overlaps: Overlaps

    def attach(self, handover: Handover, now: float) -> None:
        start = handover.position - len(handover.pending_audio) // 2
        self._turns = InputTurns(self._shared, self._transcriptions, position=start)
        self._anticipations = Anticipations(self._shared, self._transcriptions, self._turns)
        self._responses = Responses(
            self._shared,
            self._transcriptions,
            quiet_since=handover.quiet_since,
            begun=self._anticipations.answer_of,
        )
        self._overlaps = Overlaps(self._shared, self._transcriptions, self._turns, self._responses)
        if handover.pending_audio or handover.turn_item_id is not None:
            self._turns.resume(handover.pending_audio, handover.turn_item_id, now)
        for entry in _unanswered(self._shared.conversation):
            self._transcriptions.transcribe(entry, now=now)
        if self._shared.options.transcribes_only:
            return
        if handover.cut_item_id:
            self._responses.finish_cut(handover.cut_item_id, now)
        elif handover.owes_response:
            self._responses.turn_ended(now)

    def detach(self, now: float) -> Handover:
        self._overlaps.stop()
        handover = Handover(
            position=self._turns.position,
            pending_audio=self._turns.pending_audio(),
            turn_item_id=self._turns.item_id if self._turns.speaking else None,
            owes_response=self.owes_response,
            quiet_since=self._responses.quiet_since,
        )
        self.stop(now)
        return handover

    @property
    def deadline(self) -> float:
        return min(
            self._quiet_until,
            self._turns.deadline,
            self._transcriptions.deadline,
            self._responses.deadline,
            self._result_at,
        )

    @property
    def busy(self) -> bool:
        return self._responses.busy

    @property
    def pristine(self) -> bool:
        return not self._turns.position and not self._responses.busy

    @property
    def turn_open(self) -> bool:
        # a media track has no pauses, so it does not show where a turn begins that the client
        # commits
        tracked = self._shared.playback.by_server
        return self._turns.may_speak(unbounded=tracked) or self._overlaps.busy

    @property
    def transcribing(self) -> bool:
        return self._transcriptions.deadline < INFINITY

    @property
    def owes_response(self) -> bool:
        return bool(self._responses.active) or self._responses.due

    @property
    def at_rest(self) -> bool:
        return not (
            self._turns.speaking
            or self._responses.busy
            or self._responses.due
            or self._responses.result_due
            or self._transcriptions.busy
            or self._overlaps.busy
        )

    @property
    def position(self) -> int:
        return self._turns.position

    @property
    def quiet_since(self) -> float | None:
        return self._responses.quiet_since

    @property
    def reserved_id(self) -> str | None:
        return self._turns.item_id

    def on_client(self, event: BrainEvent, raw: bytes | None, now: float) -> None:
        if not isinstance(event, InputAudioAppend):
            self._anticipations.drop()
        match event:
            case InputAudioAppend():
                self._turns.append(event, now)
            case InputAudioCommit():
                self._turns.commit(now)
            case InputAudioClear():
                self._turns.clear()
            case ResponseCreate(response=params):
                self._responses.create(params or ResponseParams(), now)
            case ResponseCancel(response_id=response_id):
                self._responses.cancel(response_id, now)
            case OutputAudioClear():
                self._responses.answer_playback.clear(now)
            case _:
                assert_never(event)

    def on_audio(self, audio: bytes, now: float) -> None:
        self._turns.take_track(audio, now)

    def on_settings(self, now: float) -> None:
        self._anticipations.drop()
        self._turns.apply_settings()

    def on_item_added(self, entry: Entry, previous_item_id: str | None, now: float) -> None:
        self._anticipations.drop()
        self._transcriptions.transcribe(entry, now=now)

    def on_item_deleted(self, item_id: str, now: float) -> None:
        self._anticipations.drop()
        keys = self._transcriptions.keys_of({item_id})
        self._transcriptions.cancel(item_id)
        for key in keys:  # a response that waited for these words need not wait any longer
            self._responses.words_known(key, now)

    def on_item_truncated(self, item_id: str, audio_end_ms: int, now: float) -> None:
        self._anticipations.drop()
        self._responses.answer_playback.clear_echo_reference()

    def continue_audio(self, fact: Fact, now: float) -> bool:
        if isinstance(fact, AudioGenerated):
            return self._responses.continue_audio(fact, now)
        if isinstance(fact, VadScores):
            turns = self._turns
            if not turns.announced and turns.speaking:  # it is held: see Overlaps
                return False
            return not self._anticipations.drafting and turns.continue_scores(fact)
        if isinstance(fact, Received):
            if not isinstance(fact.event, InputAudioAppend):
                return False
            if fact.raw is not None:
                self._appends.learn(fact.raw)
            return self._turns.continue_append(fact.event, now)
        if isinstance(fact, AudioArrived):
            return self._turns.continue_track(fact.audio, now)
        return False

    def on_fact(self, fact: BrainFact, now: float) -> None:
        match fact:
            case VadScores(speech=speech):
                for n in range(len(speech)):
                    self._on_edge(self._turns.score(fact, n), now)
                self._turns.catch_up()
                if self._overlaps.held:
                    self._overlaps.judge(now)
                if self._turns.silence or self._anticipations.drafting:
                    self._anticipate()
            case (
                AudioGenerated()  # first, because it is as frequent as the scores
                | GenerationProgress()
                | TextGenerated()
                | ToolCallStarted()
                | ToolCallArguments()
                | GenerationFinished()
                | SpeechFailed()
                | OutputFinished()
                | GenerationFailed()
            ):
                self._responses.take(fact, now)
            case TurnScored():
                self._on_edge(self._turns.turn_scored(fact), now)
                self._anticipate()
            case SpeakerChecked() | BackgroundToolFinished():
                self._take_aside(fact, now)
            case AudioCleaned(audio=audio):
                self._turns.take(audio, now)
            case TranscriptUpdated():
                self._on_words(fact, now)
            case DraftTranscribed() | AnticipationEnded():
                if self._anticipations.take(fact):
                    self._turns.score_turn()
                    self._anticipate()
            case ItemTranscriptionFailed(key=key, reason=reason):
                self._transcriptions.fail(key, "stt_failed", reason)
            case UpstreamConnected() | UpstreamEventReceived() | UpstreamLost() | ToolFinished():
                pass  # late facts of a relay that was the brain before
            case _:
                assert_never(fact)

    def _take_aside(self, fact: SpeakerChecked | BackgroundToolFinished, now: float) -> None:
        """Take the result of work that ran beside the conversation."""
        if isinstance(fact, BackgroundToolFinished):
            self._anticipations.drop()  # the prompt was made without the result
            self._responses.result_due = True
        elif (words := self._overlaps.speaker_checked(fact)) is not None:
            self._on_words(words, now)

    def on_timer(self, now: float) -> None:
        self._on_edge(self._turns.on_timer(now), now)
        self._responses.fail_stalled(now)
        self._transcriptions.fail_overdue(now)
        self._pass_on_failures(now)  # a response that ends with them no longer delays the timeout
        if self._quiet_until <= now:
            self._responses.quiet_since = None
            self._turns.time_out(self._idle_timeout_ms)
            self._responses.turn_ended(now)

    def pass_input(self, frame: bytes, now: float) -> None:
        return None

    def append_of(self, frame: bytes) -> InputAudioAppend | None:
        return self._appends.append(frame)

    def pass_output(self, frame: bytes, now: float) -> None:
        return None

    def settle(self, now: float) -> None:
        if self._transcriptions.busy or self._overlaps.busy:
            self._pass_on_failures(now)
        self._overlaps.settle()
        if not self._turns.speaking:
            # a response that is due waits while the user speaks: it then answers that turn as well
            self._responses.create_due(now)
            if self._result_at <= now:
                self._responses.create(result_params(self._shared.options), now)

    def drain(self) -> None:
        self._draining = True

    def stop(self, now: float) -> None:
        self._anticipations.stop()
        self._overlaps.stop()
        self._responses.stop_all(now)
        self._transcriptions.hand_over()

    def _on_edge(self, edge: Edge | None, now: float) -> None:
        vad = self._shared.options.turn_detection
        if edge is Edge.STARTED:
            self._anticipations.drop()
            if self._overlaps.begin(now):
                self._turns.start_turn(announced=False)
                return
            self._overlaps.release()
            self._turns.start_turn(announced=True)
            self._responses.quiet_since = None
            if vad and vad.interrupt_response is True:
                self._responses.interrupt(now, live=self._turns.live)
        elif edge is Edge.STOPPED:
            if not self._turns.announced:
                self._anticipations.drop()
                self._overlaps.end(now)
                return
            self._responses.quiet_since = None
            self._overlaps.note_level()
            self._turns.end_turn(now, self._anticipations.draft_of(self._turns.key))
            self._answer_turn(now)

    def _answer_turn(self, now: float) -> None:
        vad = self._shared.options.turn_detection
        if vad and vad.create_response is True:
            self._responses.turn_ended(now)

    def _anticipate(self) -> None:
        """Begin what the turn will need before it has ended, or drop it."""
        if self._overlaps.held:  # it may turn out to be no turn
            return
        vad = self._shared.options.turn_detection
        creates = vad is not None and vad.create_response is True
        self._anticipations.consider(answered=creates and self._responses.active is None)

    def _on_words(self, fact: TranscriptUpdated, now: float) -> None:
        if fact.final and self._overlaps.keep(fact):
            return
        if fact.final and self._overlaps.words_complete(fact.key, fact.text, now):
            self._answer_turn(now)
        reported = self._transcriptions.reported(fact.key)
        if not self._transcriptions.take(fact, now):
            if fact.key == self._turns.key:
                self._anticipations.words_changed()
                self._turns.score_turn()
                if self._overlaps.held:
                    self._overlaps.judge(now)
                self._anticipate()
            return
        index = fact.key.content_index
        self._responses.set_words(fact.key, fact.text)
        if entry := self._shared.conversation.find(fact.key.item_id):
            entry.words[index] = fact.text
            if reported:
                entry.show_words(index)
        self._responses.words_known(fact.key, now)

    def _pass_on_failures(self, now: float) -> None:
        if self._overlaps.busy and self._overlaps.fail(now):
            self._answer_turn(now)
        for failure in self._transcriptions.failures():
            self._responses.words_failed(failure, now)

    @property
    def _result_at(self) -> float:
        """When the model is asked to report the result of a background function: once nobody
        speaks."""
        if not self._responses.result_due or self._draining:
            return INFINITY
        engaged = self._turns.speaking or self._responses.active or self._overlaps.busy
        return INFINITY if engaged else self._shared.playback.until

    @property
    def _idle_timeout_ms(self) -> int:
        vad = self._shared.options.turn_detection
        given = isinstance(vad, ServerVad) and vad.idle_timeout_ms
        return given if isinstance(given, int) else 0

    @property
    def _quiet_until(self) -> float:
        """When idle_timeout_ms have passed in silence since the last answer was played."""
        if (quiet_at := self._responses.quiet_at) is None:
            return INFINITY
        engaged = self._turns.speaking or self._responses.busy or self._draining
        if engaged or not self._idle_timeout_ms:
            return INFINITY
        return quiet_at + self._idle_timeout_ms / 1000


def _unanswered(conversation: Conversation) -> list[Entry]:
    """The entries after the last complete answer, whose words the brain before may not have
    known."""
    entries: list[Entry] = []
    for entry in conversation:
        match entry.item:
            case Message(role="assistant", status="completed"):
                entries.clear()
            case _:
                entries.append(entry)
    return entries
