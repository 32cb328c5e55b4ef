from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.session.stage import MODELS, events, of, settings, the, types
from vivavoce.protocol.items import InputAudio, InputText, Message
from vivavoce.protocol.responses import DurationUsage
from vivavoce.protocol.server import (
    TranscriptionCompleted,
    TranscriptionDelta,
    TranscriptionError,
    TranscriptionFailed,
)
from vivavoce.protocol.session import Transcription
from vivavoce.session.cascade.transcriptions import Transcriptions, language_of
from vivavoce.session.conversation import Entry
from vivavoce.session.effects import (
    CancelTranscription,
    Effect,
    EffectBuffer,
    EndAudio,
    FeedAudio,
    Ids,
    StartTranscription,
)
from vivavoce.session.facts import TranscriptionKey, TranscriptUpdated
from vivavoce.session.options import Options
from vivavoce.session.usage import Tally

INFINITY = float("inf")
ASKED = Transcription("whisper-1", "it", "pasta, pizza")


def an_options(transcription: Transcription | None = ASKED, **chosen: Any) -> Options:
    return Options(settings(transcription=transcription, **chosen), MODELS)


@dataclass
class Ear:
    """A hearing, and what it has put out so far."""

    outbox: EffectBuffer = field(default_factory=lambda: EffectBuffer(Ids("h")))
    tally: Tally = field(default_factory=Tally)

    def __post_init__(self) -> None:
        self.hearing = Transcriptions(self.outbox, self.tally, stall_seconds=10.0)

    def begin(self, item_id: str = "a", options: Options | None = None) -> list[Effect]:
        self.hearing.begin(item_id, options or an_options())
        return self.outbox.drain()

    def take(
        self, text: str, stable: int = 0, *, final: bool = False, key: str = "a", now: float = 0.0
    ) -> list[Effect]:
        self.hearing.take(TranscriptUpdated(key, text, stable, final), now)
        return self.outbox.drain()


@pytest.fixture
def ear() -> Ear:
    return Ear()


def deltas(effects: list[Effect]) -> list[str]:
    return [event.delta for event in of(TranscriptionDelta, effects)]


def test_a_dictation_begins_as_the_settings_are_now(ear: Ear) -> None:
    assert ear.begin("a") == [
        StartTranscription(
            TranscriptionKey("a"), "gpt-realtime", language="it", prompt="pasta, pizza"
        )
    ]
    assert ear.begin("b", an_options(Transcription("m"), model="nobody-knows")) == [
        StartTranscription(TranscriptionKey("b"), "house", language=None, prompt="")
    ]
    assert language_of(an_options()) == "it"


def test_who_asked_for_no_transcription_is_told_nothing_and_heard_all_the_same(ear: Ear) -> None:
    assert ear.begin("a", an_options(None)) == [
        StartTranscription(TranscriptionKey("a"), "gpt-realtime", None, "")
    ]
    assert ear.take("hello", 5) == []
    ear.hearing.finish("a", 0.0)
    ear.outbox.drain()
    dictation = ear.hearing.take(
        TranscriptUpdated(TranscriptionKey("a"), "hello you", 0, True), 0.0
    )
    assert dictation is not None
    assert (dictation.item_id, dictation.text, ear.outbox.drain()) == ("a", "hello you", [])


def test_words_are_told_as_they_become_certain_and_once(ear: Ear) -> None:
    ear.begin()
    assert deltas(ear.take("hell", 0)) == []
    assert deltas(ear.take("hello wor", 6)) == ["hello "]
    assert deltas(ear.take("hello word", 6)) == []
    assert ear.hearing.text("a") == "hello word"
    final = ear.take("hello world", final=True)
    assert deltas(final) == ["world"]
    assert the(TranscriptionCompleted, final).transcript == "hello world"
    assert types(final)[-1] == "conversation.item.input_audio_transcription.completed"


def test_what_was_heard_is_told_with_its_item_and_its_cost(ear: Ear) -> None:
    ear.begin()
    ear.hearing.feed("a", bytes(2 * 24_000))
    ear.hearing.feed("a", bytes(2))
    ear.outbox.drain()
    assert events(ear.take("hi", final=True)) == [
        TranscriptionDelta(event_id="event_h00001", item_id="a", content_index=0, delta="hi"),
        TranscriptionCompleted(
            event_id="event_h00002",
            item_id="a",
            content_index=0,
            transcript="hi",
            usage=DurationUsage(seconds=2),
        ),
    ]
    assert ear.tally.transcribed_seconds == 2


def test_silence_is_completed_without_a_delta(ear: Ear) -> None:
    ear.begin()
    final = ear.take("", final=True)
    assert types(final) == ["conversation.item.input_audio_transcription.completed"]
    assert the(TranscriptionCompleted, final).transcript == ""


def test_words_that_come_after_the_last_ones_do_not_count(ear: Ear) -> None:
    ear.begin()
    ear.take("hi", final=True)
    assert not ear.hearing.pending("a")
    assert ear.hearing.text("a") == ""
    assert ear.take("hi there", final=True) == []


def test_sound_is_passed_on_as_it_comes_and_its_end_is_said(ear: Ear) -> None:
    ear.begin()
    ear.hearing.feed("a", b"\x01\x02")
    ear.hearing.feed("a", b"")
    ear.hearing.finish("a", 3.0)
    assert ear.outbox.drain() == [
        FeedAudio(TranscriptionKey("a"), b"\x01\x02"),
        EndAudio(TranscriptionKey("a")),
    ]


def test_nothing_is_asked_for_an_item_that_is_not_written_down(ear: Ear) -> None:
    ear.hearing.feed("a", b"\x01\x02")
    ear.hearing.finish("a", 3.0)
    ear.hearing.fail("a", "stt_failed", "no")
    ear.hearing.forget("a")
    assert ear.outbox.drain() == []
    assert ear.hearing.failures() == []


def test_words_are_due_from_the_end_of_the_sound_on_and_each_word_gives_more_time(
    ear: Ear,
) -> None:
    ear.begin()
    ear.take("so", now=100.0)
    assert ear.hearing.deadline == INFINITY  # the user may speak for as long as they like
    ear.hearing.finish("a", 200.0)
    assert ear.hearing.deadline == 210.0
    ear.take("so it", now=205.0)
    assert ear.hearing.deadline == 215.0
    assert ear.hearing.overdue(214.9) == []
    assert ear.hearing.overdue(215.0) == ["a"]


def test_the_first_of_several_is_due_first(ear: Ear) -> None:
    for key, now in [("a", 2.0), ("b", 1.0)]:
        ear.begin(key)
        ear.hearing.finish(key, now)
    assert ear.hearing.deadline == 11.0
    assert ear.hearing.overdue(11.5) == ["b"]


def test_words_that_will_not_come_are_told_as_failed(ear: Ear) -> None:
    ear.begin()
    ear.hearing.finish("a", 0.0)
    ear.outbox.drain()
    ear.hearing.fail("a", "stt_failed", "No ears.")
    assert ear.hearing.failures() == [("a", "stt_failed", "No ears.")]
    error = TranscriptionError(type="transcription_error", code="stt_failed", message="No ears.")
    assert events(ear.outbox.drain()) == [
        TranscriptionFailed(event_id="event_h00001", item_id="a", content_index=0, error=error)
    ]
    assert ear.hearing.failures() == []


def test_a_failure_is_told_when_its_item_is_there(ear: Ear) -> None:
    ear.begin()
    ear.hearing.fail("a", "stt_failed", "No ears.")
    ear.hearing.feed("a", b"\x01\x02")
    assert ear.hearing.failures() == []
    assert ear.hearing.pending("a")
    ear.hearing.finish("a", 0.0)
    assert ear.outbox.drain() == []  # nobody is there to be asked
    assert ear.hearing.failures() == [("a", "stt_failed", "No ears.")]
    assert types(ear.outbox.drain()) == ["conversation.item.input_audio_transcription.failed"]


def test_a_failure_that_nobody_asked_to_be_told_is_only_returned(ear: Ear) -> None:
    ear.begin("a", an_options(None))
    ear.hearing.finish("a", 0.0)
    ear.outbox.drain()
    ear.hearing.fail("a", "stt_stalled", "Asleep.")
    assert ear.hearing.failures() == [("a", "stt_stalled", "Asleep.")]
    assert ear.outbox.drain() == []


def test_what_is_forgotten_is_not_told(ear: Ear) -> None:
    ear.begin()
    ear.hearing.forget("a")
    assert ear.outbox.drain() == [CancelTranscription(TranscriptionKey("a"))]
    assert ear.take("hi", final=True) == []


def two_recordings() -> Entry:
    parts = (InputAudio(), InputText(text="and"), InputAudio(), InputAudio(transcript="known"))
    item = Message(id="a", role="user", content=parts)
    return Entry(item, {0: b"\x01\x02", 2: b"\x03\x04", 3: b"\x05\x06"}, words={3: "known"})


def test_every_recording_of_an_item_is_written_down_unless_its_words_are_known(ear: Ear) -> None:
    ear.hearing.dictate(two_recordings(), an_options(), now=5.0)
    language = {"language": "it", "prompt": "pasta, pizza"}
    assert ear.outbox.drain() == [
        StartTranscription(TranscriptionKey("a"), "gpt-realtime", **language),
        FeedAudio(TranscriptionKey("a"), b"\x01\x02"),
        EndAudio(TranscriptionKey("a")),
        StartTranscription(TranscriptionKey("a#2"), "gpt-realtime", **language),
        FeedAudio(TranscriptionKey("a#2"), b"\x03\x04"),
        EndAudio(TranscriptionKey("a#2")),
    ]
    assert ear.hearing.keys_of({"a", "b"}) == {"a", "a#2"}
    assert ear.hearing.deadline == 15.0
    told = the(TranscriptionCompleted, ear.take("two", final=True, key="a#2"))
    assert (told.item_id, told.content_index) == ("a", 2)


def test_items_are_told_apart_whatever_the_client_calls_them(ear: Ear) -> None:
    ear.hearing.dictate(two_recordings(), an_options(), now=5.0)
    one = Message(id="a#2", role="user", content=(InputAudio(),))
    ear.hearing.dictate(Entry(one, {0: b"\x07\x08"}), an_options(), now=5.0)
    *_, key = [effect.key for effect in of(StartTranscription, ear.outbox.drain())]
    assert the(TranscriptionCompleted, ear.take("x", final=True, key=key)).item_id == "a#2"
    assert the(TranscriptionCompleted, ear.take("y", final=True, key="a#2")).item_id == "a"


def test_an_item_is_forgotten_with_all_its_recordings(ear: Ear) -> None:
    ear.begin("b")
    ear.hearing.dictate(two_recordings(), an_options(), now=5.0)
    ear.outbox.drain()
    ear.hearing.forget("a")
    assert {effect.item_id for effect in of(CancelTranscription, ear.outbox.drain())} == {
        "a",
        "a#2",
    }
    assert ear.hearing.pending("b")


def test_at_the_end_everything_is_forgotten_once(ear: Ear) -> None:
    ear.begin("b")
    ear.hearing.dictate(two_recordings(), an_options(), now=5.0)
    ear.outbox.drain()
    ear.hearing.forget_all()
    assert sorted(effect.item_id for effect in of(CancelTranscription, ear.outbox.drain())) == [
        "a",
        "a#2",
        "b",
    ]
    assert ear.hearing.deadline == INFINITY


def test_the_client_hears_nothing_of_an_item_that_it_does_not_know(ear: Ear) -> None:
    ear.hearing.dictate(two_recordings(), an_options(), now=5.0)
    ear.hearing.keep_quiet("a")
    ear.outbox.drain()
    assert ear.take("one", final=True) == []
    ear.hearing.fail("a#2", "stt_failed", "No ears.")
    assert ear.hearing.failures() == [("a#2", "stt_failed", "No ears.")]
    assert ear.outbox.drain() == []


@given(st.text(max_size=30), st.lists(st.integers(0, 30), max_size=8), st.text(max_size=4))
def test_all_that_is_told_of_an_item_makes_up_its_transcript(
    words: str, stable: list[int], doubtful: str
) -> None:
    ear, told = Ear(), []
    ear.begin()
    for upto in sorted(stable):
        told += deltas(ear.take(words[:upto] + doubtful, min(upto, len(words))))
    final = ear.take(words, final=True)
    assert "".join(told + deltas(final)) == words
    assert the(TranscriptionCompleted, final).transcript == words
