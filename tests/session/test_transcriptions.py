"""The transcriptions in progress, by recording."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.session.stage import a_session as open_session
from tests.session.stage import ask, final, of, record, settings, shared, the, types
from tests.session.stage import events as sent_events
from vivavoce.protocol.client import ItemCreate, ResponseCreate
from vivavoce.protocol.items import InputAudio, InputText, ItemReference, Message
from vivavoce.protocol.logprobs import ScoredWord
from vivavoce.protocol.responses import DurationUsage
from vivavoce.protocol.server import (
    InputTranscriptionSegment,
    ResponseDone,
    TranscriptionCompleted,
    TranscriptionDelta,
    TranscriptionError,
    TranscriptionFailed,
)
from vivavoce.protocol.session import Transcription
from vivavoce.session.cascade.transcriptions import Failure, Transcriptions, language_of
from vivavoce.session.conversation import Entry
from vivavoce.session.effects import (
    CancelTranscription,
    Effect,
    EndAudio,
    FeedAudio,
    Generate,
    RecordUsage,
    StartTranscription,
)
from vivavoce.session.facts import (
    ItemTranscriptionFailed,
    Received,
    SpokenSegment,
    TranscriptionKey,
    TranscriptUpdated,
)
from vivavoce.session.options import LOGPROBS

INFINITY = float("inf")
REQUESTED = Transcription("whisper-1", "it", "pasta, pizza")
A, A2, B = TranscriptionKey("a"), TranscriptionKey("a", 2), TranscriptionKey("b")


class Stage:
    """The transcriptions of a session with these settings."""

    def __init__(self, transcription: Transcription | None = REQUESTED, **fields: Any) -> None:
        self.shared = shared(settings(transcription=transcription, **fields))
        self.transcriptions = Transcriptions(self.shared)

    def effects(self) -> list[Effect]:
        return self.shared.effects.drain()

    def start(self, key: TranscriptionKey = A) -> list[Effect]:
        self.transcriptions.start(key)
        return self.effects()

    def take(
        self,
        text: str,
        stable: int = 0,
        *,
        final: bool = False,
        key: TranscriptionKey = A,
        now: float = 0.0,
    ) -> list[Effect]:
        last = self.transcriptions.take(TranscriptUpdated(key, text, stable, final), now)
        assert not last or final
        return self.effects()


@pytest.fixture
def stage() -> Stage:
    return Stage()


def deltas(effects: list[Effect]) -> list[str]:
    return [event.delta for event in of(TranscriptionDelta, effects)]


def test_transcription_started_uses_the_settings_of_the_session(stage: Stage) -> None:
    assert stage.start() == [
        StartTranscription(A, "gpt-realtime", "it", "pasta, pizza", asked_model="whisper-1")
    ]
    assert language_of(stage.shared.options) == "it"
    other = Stage(Transcription("m"), model="nobody-knows")
    assert other.start(B) == [StartTranscription(B, "local", None, "", asked_model="m")]


def test_words_of_a_draft_stand_in_until_there_are_others(stage: Stage) -> None:
    stage.transcriptions.set_draft(A, "too early")
    assert stage.transcriptions.text(A) == ""
    stage.start()
    stage.transcriptions.set_draft(A, "it is")
    assert stage.transcriptions.text(A) == "it is"
    stage.take("is it")
    assert stage.transcriptions.text(A) == "is it"


def recorded(seconds: int) -> RecordUsage:
    """The usage of the recording A."""
    return RecordUsage("a:0", "gpt-realtime", DurationUsage(seconds=seconds), "transcription")


def test_transcription_not_requested_by_the_client_sends_it_no_event() -> None:
    stage = Stage(None)
    assert stage.start() == [StartTranscription(A, "gpt-realtime", None, "")]
    assert not stage.transcriptions.reported(A)
    assert stage.take("hello", 5) == []
    stage.transcriptions.finish(A, 0.0)
    stage.effects()
    assert stage.transcriptions.take(TranscriptUpdated(A, "hello you", 0, True), 0.0)
    assert stage.effects() == [recorded(0)]


def test_transcript_growing_sends_each_stable_character_once(stage: Stage) -> None:
    stage.start()
    assert deltas(stage.take("hell", 0)) == []
    assert deltas(stage.take("hello wor", 6)) == ["hello "]
    assert deltas(stage.take("hello word", 6)) == []
    assert stage.transcriptions.text(A) == "hello word"
    last = stage.take("hello world", final=True)
    assert deltas(last) == ["world"]
    assert the(TranscriptionCompleted, last).transcript == "hello world"
    assert types(last)[-1] == "conversation.item.input_audio_transcription.completed"


@pytest.mark.parametrize("logprob", [-0.25, None])
def test_transcript_with_probabilities_sends_them_where_the_session_includes_them(
    stage: Stage, logprob: float | None
) -> None:
    options = stage.shared.options
    options.session = msgspec.structs.replace(options.session, include=(LOGPROBS,))
    (started,) = stage.start()
    assert isinstance(started, StartTranscription)
    assert started.scored
    words = (ScoredWord("hi", -0.5), ScoredWord("you", logprob))
    stage.transcriptions.take(TranscriptUpdated(A, "hi you", 2, False, words), 0.0)
    stage.transcriptions.take(TranscriptUpdated(A, "hi you", 6, True, words), 0.0)
    hi, you, completed = (
        [token.token for token in event.logprobs or ()]
        for event in sent_events(stage.effects())
        if isinstance(event, TranscriptionDelta | TranscriptionCompleted)
    )
    known = logprob is not None
    assert (hi, you, completed) == ((["hi"], [" you"], ["hi", " you"]) if known else ([], [], []))


def test_transcript_of_a_diarizing_model_sends_a_segment_for_each_speaker() -> None:
    stage = Stage(Transcription("gpt-4o-transcribe-diarize"))
    (started,) = stage.start()
    assert isinstance(started, StartTranscription)
    assert started.diarized
    spoken = (SpokenSegment("A", "hi", 0, 400), SpokenSegment("B", "you", 500, 1250))
    stage.transcriptions.take(TranscriptUpdated(A, "hi you", 6, True, segments=spoken), 0.0)
    _, *segments, completed = sent_events(stage.effects())
    assert isinstance(completed, TranscriptionCompleted)
    assert [
        (each.id, each.speaker, each.text, each.start, each.end)
        for each in segments
        if isinstance(each, InputTranscriptionSegment)
    ] == [("seg_0_000", "A", "hi", 0.0, 0.4), ("seg_0_001", "B", "you", 0.5, 1.25)]


def test_final_transcript_sends_item_and_usage(stage: Stage) -> None:
    stage.start()
    stage.transcriptions.feed(A, bytes(2 * 24_000))
    stage.transcriptions.feed(A, bytes(2))
    stage.effects()
    effects = stage.take("hi", final=True)
    assert sent_events(effects) == [
        TranscriptionDelta(event_id="event_t00001", item_id="a", content_index=0, delta="hi"),
        TranscriptionCompleted(
            event_id="event_t00002",
            item_id="a",
            content_index=0,
            transcript="hi",
            usage=DurationUsage(seconds=2),
        ),
    ]
    assert the(RecordUsage, effects) == recorded(2)
    assert stage.shared.usage.totals.transcribed_seconds == 2


def test_final_transcript_without_words_sends_no_delta(stage: Stage) -> None:
    stage.start()
    last = stage.take("", final=True)
    assert types(last) == ["conversation.item.input_audio_transcription.completed"]
    assert the(TranscriptionCompleted, last).transcript == ""


def test_words_after_the_final_transcript_are_ignored(stage: Stage) -> None:
    stage.start()
    stage.take("hi", final=True)
    assert not stage.transcriptions.pending(A)
    assert stage.transcriptions.text(A) == ""
    assert stage.take("hi there", final=True) == []


def test_audio_is_passed_on_as_it_comes_and_ended_once(stage: Stage) -> None:
    stage.start()
    stage.transcriptions.feed(A, b"\x01\x02")
    stage.transcriptions.feed(A, b"")
    stage.transcriptions.finish(A, 3.0)
    assert stage.effects() == [FeedAudio(A, b"\x01\x02"), EndAudio(A)]


def test_recording_that_is_not_transcribed_causes_no_effect(stage: Stage) -> None:
    stage.transcriptions.feed(A, b"\x01\x02")
    stage.transcriptions.finish(A, 3.0)
    stage.transcriptions.fail(A, "stt_failed", "no")
    stage.transcriptions.cancel("a")
    assert stage.effects() == []
    assert stage.transcriptions.failures() == []


def test_deadline_begins_at_the_end_of_the_audio_and_moves_with_each_word(stage: Stage) -> None:
    stage.start()
    stage.take("so", now=100.0)
    assert stage.transcriptions.deadline == INFINITY  # the user may speak for as long as they like
    stage.transcriptions.finish(A, 200.0)
    assert stage.transcriptions.deadline == 210.0
    stage.take("so it", now=205.0)
    assert stage.transcriptions.deadline == 215.0
    stage.transcriptions.fail_overdue(214.9)
    assert stage.transcriptions.failures() == []
    stage.transcriptions.fail_overdue(215.0)
    reason = "Nothing came from speech recognition for 10 seconds; it was given up."
    assert stage.transcriptions.failures() == [Failure(A, "stt_stalled", reason)]


def test_several_transcriptions_overdue_only_the_first_one_fails(stage: Stage) -> None:
    for key, now in [(A, 2.0), (B, 1.0)]:
        stage.start(key)
        stage.transcriptions.finish(key, now)
    assert stage.transcriptions.deadline == 11.0
    stage.transcriptions.fail_overdue(11.5)
    assert [failure.key for failure in stage.transcriptions.failures()] == [B]
    assert [effect.key for effect in of(CancelTranscription, stage.effects())] == [B]


def test_failure_after_the_end_of_the_audio_is_sent_once(stage: Stage) -> None:
    stage.start()
    stage.transcriptions.finish(A, 0.0)
    stage.effects()
    stage.transcriptions.fail(A, "stt_failed", "It crashed.")
    assert stage.transcriptions.failures() == [Failure(A, "stt_failed", "It crashed.")]
    error = TranscriptionError(type="transcription_error", code="stt_failed", message="It crashed.")
    assert sent_events(stage.effects()) == [
        TranscriptionFailed(event_id="event_t00001", item_id="a", content_index=0, error=error)
    ]
    assert stage.transcriptions.failures() == []


def test_failure_before_the_end_of_the_audio_is_sent_when_the_item_exists(stage: Stage) -> None:
    stage.start()
    stage.transcriptions.fail(A, "stt_failed", "It crashed.")
    stage.transcriptions.feed(A, b"\x01\x02")
    assert stage.transcriptions.failures() == []
    assert stage.transcriptions.pending(A)
    stage.transcriptions.finish(A, 0.0)
    assert stage.effects() == []
    assert stage.transcriptions.failures() == [Failure(A, "stt_failed", "It crashed.")]
    assert types(stage.effects()) == ["conversation.item.input_audio_transcription.failed"]


def test_failure_of_an_unreported_transcription_is_only_returned() -> None:
    stage = Stage(None)
    stage.start()
    stage.transcriptions.finish(A, 0.0)
    stage.effects()
    stage.transcriptions.fail(A, "stt_stalled", "Too slow.")
    assert stage.transcriptions.failures() == [Failure(A, "stt_stalled", "Too slow.")]
    assert stage.effects() == []


def test_cancelled_transcription_ignores_later_words(stage: Stage) -> None:
    stage.start()
    stage.transcriptions.cancel("a")
    assert stage.effects() == [CancelTranscription(A)]
    assert stage.take("hi", final=True) == []


def two_recordings() -> Entry:
    parts = (InputAudio(), InputText(text="and"), InputAudio(), InputAudio(transcript="known"))
    item = Message(id="a", role="user", content=parts)
    return Entry(item, {0: b"\x01\x02", 2: b"\x03\x04", 3: b"\x05\x06"}, words={3: "known"})


def test_every_recording_of_an_item_without_words_is_transcribed(stage: Stage) -> None:
    stage.transcriptions.transcribe(two_recordings(), now=5.0)
    language: dict[str, Any] = {"language": "it", "prompt": "pasta, pizza"}
    language["asked_model"] = "whisper-1"
    assert stage.effects() == [
        StartTranscription(A, "gpt-realtime", **language),
        FeedAudio(A, b"\x01\x02"),
        EndAudio(A),
        StartTranscription(A2, "gpt-realtime", **language),
        FeedAudio(A2, b"\x03\x04"),
        EndAudio(A2),
    ]
    assert stage.transcriptions.keys_of({"a", "b"}) == {A, A2}
    assert stage.transcriptions.deadline == 15.0
    sent = the(TranscriptionCompleted, stage.take("two", final=True, key=A2))
    assert (sent.item_id, sent.content_index) == ("a", 2)


def test_item_cancelled_cancels_all_its_recordings_and_no_other(stage: Stage) -> None:
    stage.start(B)
    stage.transcriptions.transcribe(two_recordings(), now=5.0)
    stage.effects()
    stage.transcriptions.cancel("a")
    assert {effect.key for effect in of(CancelTranscription, stage.effects())} == {A, A2}
    assert stage.transcriptions.pending(B)


def test_hand_over_cancels_each_transcription_once(stage: Stage) -> None:
    stage.start(B)
    stage.transcriptions.transcribe(two_recordings(), now=5.0)
    stage.effects()
    stage.transcriptions.hand_over()
    assert [effect.key for effect in of(CancelTranscription, stage.effects())] == [B, A, A2]
    assert stage.transcriptions.deadline == INFINITY
    assert not stage.transcriptions.busy


@pytest.mark.parametrize(("again", "sent"), [("well that is", [" that is"]), ("what is that", [])])
def test_transcription_begun_anew_goes_on_behind_the_words_that_were_sent(
    stage: Stage, again: str, sent: list[str]
) -> None:
    stage.start()
    assert deltas(stage.take("well", stable=4)) == ["well"]
    stage.transcriptions.hand_over()
    stage.transcriptions = Transcriptions(stage.shared)
    stage.start()
    effects = stage.take(again, final=True)
    assert deltas(effects) == sent
    assert the(TranscriptionCompleted, effects).transcript == again


def test_item_outside_the_conversation_is_transcribed_without_events(stage: Stage) -> None:
    stage.transcriptions.transcribe(two_recordings(), now=5.0, reported=False)
    stage.effects()
    assert sent_events(stage.take("one", final=True)) == []
    stage.transcriptions.fail(A2, "stt_failed", "It crashed.")
    assert stage.transcriptions.failures() == [Failure(A2, "stt_failed", "It crashed.")]
    assert stage.effects() == []


@given(st.text(max_size=30), st.lists(st.integers(0, 30), max_size=8), st.text(max_size=4))
def test_deltas_of_an_item_make_up_its_transcript(
    words: str, stable: list[int], doubtful: str
) -> None:
    stage, sent = Stage(), list[str]()
    stage.start()
    for upto in sorted(stable):
        sent += deltas(stage.take(words[:upto] + doubtful, min(upto, len(words))))
    last = stage.take(words, final=True)
    assert "".join(sent + deltas(last)) == words
    assert the(TranscriptionCompleted, last).transcript == words


PCM = bytes(range(20))


def test_items_with_ids_like_old_keys_keep_their_own_transcripts() -> None:
    session = open_session(turn_detection=None, transcription=REQUESTED)
    both = (InputAudio(audio=PCM), InputAudio(audio=PCM))
    session.handle(Received(ItemCreate(item=Message(id="a", role="user", content=both))), now=0.0)
    record(session, "a#1", PCM)
    keys = [TranscriptionKey("a", 0), TranscriptionKey("a", 1), TranscriptionKey("a#1", 0)]
    for n, key in enumerate(keys):
        sent = the(TranscriptionCompleted, session.handle(final(key, f"words {n}"), 0.0))
        assert (sent.item_id, sent.content_index) == key
    prompt = the(Generate, session.handle(Received(ResponseCreate()), 0.0)).prompt
    assert [
        [part.transcript for part in item.content if isinstance(part, InputAudio)]
        for item in prompt.items
        if isinstance(item, Message)
    ] == [["words 0", "words 1"], ["words 2"]]


@pytest.mark.parametrize("failed", [TranscriptionKey("a", 1), TranscriptionKey("a#1", 0)])
def test_failure_of_one_item_leaves_the_response_to_the_other_alone(
    failed: TranscriptionKey,
) -> None:
    session = open_session(turn_detection=None)
    both = (InputAudio(audio=PCM), InputAudio(audio=PCM))
    first = Message(id="a", role="user", content=both)
    second = Message(id="a#1", role="user", content=(InputAudio(audio=PCM),))
    for item in (first, second):
        session.handle(Received(ItemCreate(item=item)), now=0.0)
    # each response reads one of the two items
    for item_id in ("a", "a#1"):
        ask(session, conversation="none", input=(ItemReference(item_id),))
    ended = session.handle(ItemTranscriptionFailed(failed, "it crashed"), 0.0)
    assert the(ResponseDone, ended).response.status == "failed"
    others = {TranscriptionKey("a", 0), TranscriptionKey("a", 1), TranscriptionKey("a#1", 0)}
    effects = [
        effect for key in others - {failed} for effect in session.handle(final(key, "fine"), 0.0)
    ]
    other = "a#1" if failed.item_id == "a" else "a"
    prompt = the(Generate, effects).prompt
    assert [item.id for item in prompt.items] == [other]


def test_transcription_reported_later_sends_all_its_words(stage: Stage) -> None:
    stage.transcriptions.start(A, reported=False)
    assert not deltas(stage.take("one two", 7))
    stage.transcriptions.report(A)
    stage.transcriptions.report(B)  # there is none
    assert deltas(stage.take("one two three", final=True)) == ["one two three"]
