"""Whose speech is let in: that of others neither interrupts an answer nor is answered."""

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.session.stage import (
    MODELS,
    WHISPER,
    a_session,
    ask,
    hear,
    of,
    spoke,
    tell,
    the,
    types,
)
from vivavoce.protocol.session import ServerVad
from vivavoce.session.cascade.brain import CascadeBrain
from vivavoce.session.cascade.speakers import MAX_TURNS
from vivavoce.session.effects import (
    CancelGeneration,
    CancelTranscription,
    CheckSpeaker,
    Effect,
    EndAudio,
    Generate,
    StartTranscription,
)
from vivavoce.session.facts import ItemTranscriptionFailed, SpeakerChecked, TranscriptUpdated
from vivavoce.session.shell import Session
from vivavoce.session.speaker_gate import SpeakerGateSettings, is_speaker

FIRST = replace(MODELS, speaker_gate=SpeakerGateSettings("first"))
VAD = ServerVad(silence_duration_ms=200)
WINDOW_S = 0.032
SAME, OTHER = 0.9, 0.2


class Call:
    """A session with the gate on; time passes as one speaks."""

    def __init__(self, *, answers: bool = False, vad: ServerVad = VAD) -> None:
        self.now = 0.0
        self.session: Session = a_session(offer=FIRST, turn_detection=vad, transcription=WHISPER)
        if answers:
            response_id = the(Generate, ask(self.session)).response_id
            tell(self.session, spoke(response_id, " ".join(["word"] * 100)))
        self.effects: list[Effect] = []

    def hear(self, pattern: str) -> list[Effect]:
        new: list[Effect] = []
        for window in pattern:
            self.now += WINDOW_S
            new += hear(self.session, window, self.now)
        self.effects += new
        return new

    def checked(self, likeness: float) -> list[Effect]:
        """The speaker model answers what was asked last."""
        item_id = of(CheckSpeaker, self.effects)[-1].item_id
        new = tell(self.session, SpeakerChecked(item_id, likeness, 0.75), now=self.now)
        self.effects += new
        return new

    def words(self, text: str = "What is it?", *, final: bool = True) -> list[Effect]:
        orders = of(EndAudio, self.effects) if final else of(StartTranscription, self.effects)
        fact = TranscriptUpdated(orders[-1].key, text, len(text), final)
        new = tell(self.session, fact, now=self.now)
        self.effects += new
        return new


def test_turn_is_announced_as_soon_as_its_speaker_is_known() -> None:
    call = Call()
    assert types(call.hear(40 * "#")) == []
    assert len(of(CheckSpeaker, call.effects)) == 1
    call.checked(SAME)
    assert types(call.hear("#")) == ["input_audio_buffer.speech_started"]
    call.hear(8 * ".")
    call.words()
    assert of(Generate, call.effects)
    assert len(of(CheckSpeaker, call.effects)) == 1


@pytest.mark.parametrize("answers", [False, True])
def test_speech_of_another_becomes_nothing(answers: bool) -> None:
    call = Call(answers=answers)
    call.hear(40 * "#")
    call.checked(OTHER)
    call.hear(40 * "#" + 8 * ".")
    assert len(of(CheckSpeaker, call.effects)) == 2  # once more with all speech
    call.words()
    assert types(call.effects) == []
    call.checked(OTHER)
    assert types(call.effects) == []
    assert the(CancelTranscription, call.effects)
    assert not of(CancelGeneration, call.effects)
    assert not of(Generate, call.effects)


def test_turn_whose_words_come_before_its_speaker_is_known_waits_for_that() -> None:
    for first in ("words", "voice"):
        call = Call()
        call.hear(20 * "#" + 8 * ".")
        for step in ("words", "voice") if first == "words" else ("voice", "words"):
            assert not of(Generate, call.effects)
            if step == "words":
                call.words()
            else:
                call.checked(SAME)
        assert types(call.effects)[:3] == [
            "input_audio_buffer.speech_started",
            "input_audio_buffer.speech_stopped",
            "input_audio_buffer.committed",
        ]
        assert "conversation.item.input_audio_transcription.completed" in types(call.effects)
        assert len(of(Generate, call.effects)) == 1


def test_voice_that_could_not_be_looked_at_is_let_in() -> None:
    call = Call()
    call.hear(40 * "#")
    item_id = the(CheckSpeaker, call.effects).item_id
    tell(call.session, SpeakerChecked(item_id, 1.0, -1.0), now=call.now)
    assert types(call.hear("#")) == ["input_audio_buffer.speech_started"]


def test_speech_that_is_too_short_to_tell_is_let_in() -> None:
    call = Call()
    call.hear(6 * "#" + 8 * ".")
    assert not of(CheckSpeaker, call.effects)
    call.words("Yes.")
    assert of(Generate, call.effects)


def test_speaker_interrupts_an_answer_and_not_where_the_client_forbids_it() -> None:
    for interrupt in (True, False):
        vad = msgspec.structs.replace(VAD, interrupt_response=interrupt)
        call = Call(answers=True, vad=vad)
        call.hear(40 * "#")
        call.checked(SAME)
        call.hear("#")
        assert "input_audio_buffer.speech_started" in types(call.effects)
        assert bool(of(CancelGeneration, call.effects)) == interrupt
        call = Call(answers=True, vad=vad)
        call.hear(20 * "#" + 8 * ".")
        call.checked(SAME)
        call.words()
        assert bool(of(CancelGeneration, call.effects)) == interrupt


def test_backchannel_of_the_speaker_is_judged_as_any() -> None:
    call = Call(answers=True, vad=msgspec.structs.replace(VAD, interruption="judged"))
    call.hear(12 * "#" + 8 * ".")
    call.checked(SAME)
    call.words("Yeah, okay.")
    assert not of(CancelGeneration, call.effects)
    assert types(call.effects)[0] == "input_audio_buffer.committed"


def test_voice_that_was_let_in_is_not_looked_at_again_where_its_turn_is_still_held() -> None:
    call = Call(answers=True, vad=msgspec.structs.replace(VAD, interruption="judged"))
    call.hear(6 * "#")
    call.words("Yeah, okay.", final=False)
    call.hear(30 * "#")
    call.checked(SAME)
    call.hear(8 * ".")
    call.words("Yeah, okay.")
    assert len(of(CheckSpeaker, call.effects)) == 1
    assert types(call.effects)[0] == "input_audio_buffer.committed"
    assert not of(CancelGeneration, call.effects)


def test_failed_transcription_of_another_is_not_answered() -> None:
    for likeness in (SAME, OTHER):
        call = Call()
        call.hear(20 * "#" + 8 * ".")
        call.checked(likeness)
        key = of(EndAudio, call.effects)[-1].key
        effects = tell(call.session, ItemTranscriptionFailed(key, "broken"), now=call.now)
        assert ("input_audio_buffer.committed" in types(effects)) == (likeness == SAME)


def test_turn_of_another_that_waits_is_dropped_when_the_speaker_begins() -> None:
    call = Call()
    call.hear(20 * "#" + 8 * ".")
    call.checked(OTHER)
    call.hear(40 * "#")
    call.checked(SAME)
    assert types(call.hear("#")) == ["input_audio_buffer.speech_started"]


def test_open_turn_of_another_is_not_announced_when_another_brain_takes_over() -> None:
    for likeness in (SAME, OTHER):
        call = Call()
        call.hear(40 * "#")
        call.checked(likeness)
        last, _ = call.session.swap(CascadeBrain, call.now)
        assert ("input_audio_buffer.speech_started" in types(last)) == (likeness == SAME)


def test_answer_for_a_turn_that_is_forgotten_changes_nothing() -> None:
    call = Call()
    for _ in range(MAX_TURNS + 1):
        call.hear(20 * "#" + 8 * ".")
    forgotten = of(CheckSpeaker, call.effects)[0].item_id
    assert not tell(call.session, SpeakerChecked(forgotten, SAME, 0.75), now=call.now)


def test_recording_that_comes_faster_than_it_was_spoken_is_let_in() -> None:
    session = a_session(offer=FIRST)
    assert "input_audio_buffer.speech_started" in types(hear(session, 100 * "." + "###"))


def test_likeness_of_the_settings_takes_the_place_of_that_of_the_model() -> None:
    strict = replace(MODELS, speaker_gate=SpeakerGateSettings("first", likeness=0.95))
    call = Call()
    call.session = a_session(offer=strict, turn_detection=VAD, transcription=WHISPER)
    call.hear(60 * "#")
    call.checked(0.7)  # enough for the model's 0.75, after a second of speech
    assert types(call.hear("#")) == []


def test_settings_of_the_gate_are_all_or_nothing() -> None:
    for table in ({"mode": "enrolled"}, {"mode": "first", "recordings": ["a.wav"]}):
        with pytest.raises(msgspec.ValidationError, match="go together"):
            msgspec.convert(table, SpeakerGateSettings)
    assert msgspec.convert({"mode": "enrolled", "recordings": ["a.wav"]}, SpeakerGateSettings)


def test_word_that_is_too_short_to_tell_is_of_the_speaker() -> None:
    assert is_speaker(-1.0, 319, 0.75)
    assert not is_speaker(-1.0, 320, 0.75)


@given(st.floats(-1, 1), st.integers(0, 9000), st.integers(0, 2000))
def test_law_longer_speech_of_another_is_let_in_no_more_easily(
    likeness: float, speech_ms: int, more: int
) -> None:
    if not is_speaker(likeness, speech_ms, 0.75):
        assert not is_speaker(likeness, speech_ms + more, 0.75)
    assert is_speaker(likeness, speech_ms, -1.0) or likeness < -0.5
