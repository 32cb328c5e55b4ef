"""The transcription of each recording."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.session.stage import events, of, settings, shared, the, types
from vivavoce.protocol.items import InputAudio, InputText, Message
from vivavoce.protocol.responses import DurationUsage
from vivavoce.protocol.server import (
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
    RecordUsage,
    StartTranscription,
)
from vivavoce.session.facts import TranscriptionKey, TranscriptUpdated

INFINITY = float("inf")
ASKED = Transcription("whisper-1", "it", "pasta, pizza")
KEY = TranscriptionKey("a")
SECOND = TranscriptionKey("a", 2)
OTHER = TranscriptionKey(f"{KEY.item_id}#2")


class Stage:
    """Transcriptions, and what they have put out so far."""

    def __init__(self, transcription: Transcription | None = ASKED, **chosen: Any) -> None:
        session = settings(transcription=transcription, **chosen)
        self.shared = shared(session)
        self.transcriptions = Transcriptions(self.shared)

    def drain(self) -> list[Effect]:
        return self.shared.effects.drain()

    def begin(self, item_id: str = "a", *, reported: bool = True) -> list[Effect]:
        self.transcriptions.start(TranscriptionKey(item_id), reported=reported)
        return self.drain()

    def take(
        self,
        text: str,
        stable: int = 0,
        *,
        final: bool = False,
        key: TranscriptionKey = KEY,
        now: float = 0.0,
    ) -> list[Effect]:
        self.transcriptions.take(TranscriptUpdated(key, text, stable, final), now)
        return self.drain()


@pytest.fixture
def stage() -> Stage:
    return Stage()


def deltas(effects: list[Effect]) -> list[str]:
    return [event.delta for event in of(TranscriptionDelta, effects)]


def test_transcription_starts_with_the_settings_of_the_session() -> None:
    stage = Stage()
    assert stage.begin() == [
        StartTranscription(KEY, "gpt-realtime", language="it", prompt="pasta, pizza")
    ]
    assert language_of(stage.shared.options) == "it"
    stage = Stage(Transcription("m"), model="nobody-knows")
    assert stage.begin() == [StartTranscription(KEY, "house", language=None, prompt="")]


def test_without_transcription_setting_no_events_but_stt_still_runs() -> None:
    stage = Stage(None)
    assert stage.begin() == [StartTranscription(KEY, "gpt-realtime", None, "")]
    assert not stage.transcriptions.reported(KEY)
    assert stage.take("hello", 5) == []
    stage.transcriptions.finish(KEY, 0.0)
    stage.drain()
    final = stage.take("hello you", final=True)
    assert final == [RecordUsage("gpt-realtime", DurationUsage(seconds=0))]


def test_words_are_told_as_they_become_certain_and_once(stage: Stage) -> None:
    stage.begin()
    assert deltas(stage.take("hell", 0)) == []
    assert deltas(stage.take("hello wor", 6)) == ["hello "]
    assert deltas(stage.take("hello word", 6)) == []
    assert stage.transcriptions.text(KEY) == "hello word"
    final = stage.take("hello world", final=True)
    assert deltas(final) == ["world"]
    assert the(TranscriptionCompleted, final).transcript == "hello world"
    assert types(final)[-1] == "conversation.item.input_audio_transcription.completed"


def test_what_was_heard_is_told_with_its_item_and_its_cost(stage: Stage) -> None:
    stage.begin()
    stage.transcriptions.feed(KEY, bytes(2 * 24_000))
    stage.transcriptions.feed(KEY, bytes(2))
    stage.drain()
    assert events(stage.take("hi", final=True)) == [
        TranscriptionDelta(event_id="event_t00001", item_id="a", content_index=0, delta="hi"),
        TranscriptionCompleted(
            event_id="event_t00002",
            item_id="a",
            content_index=0,
            transcript="hi",
            usage=DurationUsage(seconds=2),
        ),
    ]
    assert stage.shared.usage.totals.transcribed_seconds == 2


def test_silence_is_completed_without_a_delta(stage: Stage) -> None:
    stage.begin()
    final = stage.take("", final=True)
    assert types(final) == ["conversation.item.input_audio_transcription.completed"]
    assert the(TranscriptionCompleted, final).transcript == ""


def test_words_that_come_after_the_last_ones_do_not_count(stage: Stage) -> None:
    stage.begin()
    stage.take("hi", final=True)
    assert not stage.transcriptions.pending(KEY)
    assert stage.transcriptions.text(KEY) == ""
    assert stage.take("hi there", final=True) == []


def test_sound_is_passed_on_as_it_comes_and_its_end_is_said(stage: Stage) -> None:
    stage.begin()
    stage.transcriptions.feed(KEY, b"\x01\x02")
    stage.transcriptions.feed(KEY, b"")
    stage.transcriptions.finish(KEY, 3.0)
    assert stage.drain() == [
        FeedAudio(KEY, b"\x01\x02"),
        EndAudio(KEY),
    ]


def test_nothing_is_asked_for_an_item_that_is_not_written_down(stage: Stage) -> None:
    stage.transcriptions.feed(KEY, b"\x01\x02")
    stage.transcriptions.finish(KEY, 3.0)
    stage.transcriptions.fail(KEY, "stt_failed", "no")
    stage.transcriptions.cancel("a")
    assert stage.drain() == []
    assert stage.transcriptions.failures() == []


def test_words_are_due_from_the_end_of_the_sound_on_and_each_word_gives_more_time(
    stage: Stage,
) -> None:
    stage.begin()
    stage.take("so", now=100.0)
    assert stage.transcriptions.deadline == INFINITY  # the user may speak for as long as they like
    stage.transcriptions.finish(KEY, 200.0)
    assert stage.transcriptions.deadline == 210.0
    stage.take("so it", now=205.0)
    assert stage.transcriptions.deadline == 215.0
    stage.transcriptions.fail_overdue(214.9)
    assert stage.transcriptions.failures() == []
    stage.transcriptions.fail_overdue(215.0)
    assert [failure.code for failure in stage.transcriptions.failures()] == ["stt_stalled"]


def test_the_first_of_several_is_due_first(stage: Stage) -> None:
    for item_id, now in [("a", 2.0), ("b", 1.0)]:
        stage.begin(item_id)
        stage.transcriptions.finish(TranscriptionKey(item_id), now)
    stage.drain()
    assert stage.transcriptions.deadline == 11.0
    stage.transcriptions.fail_overdue(11.5)
    assert stage.drain() == [CancelTranscription(TranscriptionKey("b"))]
    (failure,) = stage.transcriptions.failures()
    assert (failure.key.item_id, failure.code) == ("b", "stt_stalled")


def test_words_that_will_not_come_are_told_as_failed(stage: Stage) -> None:
    stage.begin()
    stage.transcriptions.finish(KEY, 0.0)
    stage.drain()
    stage.transcriptions.fail(KEY, "stt_failed", "It is broken.")
    assert stage.transcriptions.failures() == [Failure(KEY, "stt_failed", "It is broken.")]
    error = TranscriptionError(
        type="transcription_error", code="stt_failed", message="It is broken."
    )
    assert events(stage.drain()) == [
        TranscriptionFailed(event_id="event_t00001", item_id="a", content_index=0, error=error)
    ]
    assert stage.transcriptions.failures() == []


def test_a_failure_is_told_when_its_item_is_there(stage: Stage) -> None:
    stage.begin()
    stage.transcriptions.fail(KEY, "stt_failed", "It is broken.")
    stage.transcriptions.feed(KEY, b"\x01\x02")
    assert stage.transcriptions.failures() == []
    assert stage.transcriptions.pending(KEY)
    stage.transcriptions.finish(KEY, 0.0)
    assert stage.drain() == []  # nobody is there to be asked
    assert stage.transcriptions.failures() == [Failure(KEY, "stt_failed", "It is broken.")]
    assert types(stage.drain()) == ["conversation.item.input_audio_transcription.failed"]


def test_a_failure_that_nobody_asked_to_be_told_is_only_returned() -> None:
    stage = Stage(None)
    stage.begin()
    stage.transcriptions.finish(KEY, 0.0)
    stage.drain()
    stage.transcriptions.fail(KEY, "stt_stalled", "Asleep.")
    assert stage.transcriptions.failures() == [Failure(KEY, "stt_stalled", "Asleep.")]
    assert stage.drain() == []


def test_what_is_forgotten_is_not_told(stage: Stage) -> None:
    stage.begin()
    stage.transcriptions.cancel("a")
    assert stage.drain() == [CancelTranscription(KEY)]
    assert stage.take("hi", final=True) == []


def two_recordings() -> Entry:
    parts = (InputAudio(), InputText(text="and"), InputAudio(), InputAudio(transcript="known"))
    item = Message(id="a", role="user", content=parts)
    return Entry(item, {0: b"\x01\x02", 2: b"\x03\x04", 3: b"\x05\x06"}, words={3: "known"})


def test_every_recording_whose_words_are_unknown_is_transcribed(
    stage: Stage,
) -> None:
    stage.transcriptions.transcribe(two_recordings(), now=5.0)
    language = {"language": "it", "prompt": "pasta, pizza"}
    assert stage.drain() == [
        StartTranscription(KEY, "gpt-realtime", **language),
        FeedAudio(KEY, b"\x01\x02"),
        EndAudio(KEY),
        StartTranscription(SECOND, "gpt-realtime", **language),
        FeedAudio(SECOND, b"\x03\x04"),
        EndAudio(SECOND),
    ]
    assert stage.transcriptions.keys_of({"a", "b"}) == {KEY, SECOND}
    assert stage.transcriptions.deadline == 15.0
    told = the(TranscriptionCompleted, stage.take("two", final=True, key=SECOND))
    assert (told.item_id, told.content_index) == ("a", 2)


def test_transcriptions_of_items_with_confusable_ids_are_kept_apart(stage: Stage) -> None:
    """Item "a" with a second recording, and an item that the client calls "a#2"."""
    stage.transcriptions.transcribe(two_recordings(), now=5.0)
    item = Message(id=OTHER.item_id, role="user", content=(InputAudio(),))
    stage.transcriptions.transcribe(Entry(item, {0: b"\x07\x08"}), now=5.0)
    keys = [effect.key for effect in of(StartTranscription, stage.drain())]
    assert keys == [KEY, SECOND, OTHER]
    first = the(TranscriptionCompleted, stage.take("x", final=True, key=keys[2]))
    assert (first.item_id, first.content_index) == ("a#2", 0)
    second = the(TranscriptionCompleted, stage.take("y", final=True, key=SECOND))
    assert (second.item_id, second.content_index) == ("a", 2)


def test_cancel_ends_all_transcriptions_of_an_item(stage: Stage) -> None:
    stage.begin("b")
    stage.transcriptions.transcribe(two_recordings(), now=5.0)
    stage.drain()
    stage.transcriptions.cancel("a")
    assert {effect.key for effect in of(CancelTranscription, stage.drain())} == {KEY, SECOND}
    assert stage.transcriptions.pending(TranscriptionKey("b"))


def test_cancel_all_ends_each_transcription_once(stage: Stage) -> None:
    stage.begin("b")
    stage.transcriptions.transcribe(two_recordings(), now=5.0)
    stage.drain()
    stage.transcriptions.cancel_all()
    cancelled = sorted(effect.key for effect in of(CancelTranscription, stage.drain()))
    assert cancelled == [KEY, SECOND, TranscriptionKey("b")]
    assert stage.transcriptions.deadline == INFINITY


def test_the_client_hears_nothing_of_an_item_that_it_does_not_know(stage: Stage) -> None:
    stage.transcriptions.transcribe(two_recordings(), now=5.0, reported=False)
    stage.drain()
    assert events(stage.take("one", final=True)) == []
    stage.transcriptions.fail(SECOND, "stt_failed", "It is broken.")
    assert stage.transcriptions.failures() == [Failure(SECOND, "stt_failed", "It is broken.")]
    assert stage.drain() == []


@given(st.text(max_size=30), st.lists(st.integers(0, 30), max_size=8), st.text(max_size=4))
def test_all_that_is_told_of_an_item_makes_up_its_transcript(
    words: str, stable: list[int], doubtful: str
) -> None:
    stage, told = Stage(), []
    stage.begin()
    for upto in sorted(stable):
        told += deltas(stage.take(words[:upto] + doubtful, min(upto, len(words))))
    final = stage.take(words, final=True)
    assert "".join(told + deltas(final)) == words
    assert the(TranscriptionCompleted, final).transcript == words
