"""Speech over an answer, where it is judged before it interrupts: what the client sees."""

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.hypothesis_examples import examples
from tests.session.stage import (
    LIMITS,
    MODELS,
    WHISPER,
    a_session,
    ask,
    drawn,
    events,
    hear,
    of,
    receive,
    spoke,
    tell,
    the,
    transcribe,
    types,
    update,
    vad_scores,
)
from tests.session.stage import settings as opening
from vivavoce.protocol import server as says
from vivavoce.protocol.client import InputAudioAppend, InputAudioClear, InputAudioCommit, ItemDelete
from vivavoce.protocol.session import (
    AudioInputPatch,
    AudioPatch,
    RealtimePatch,
    SemanticVad,
    ServerVad,
    ServerVadPatch,
)
from vivavoce.session.cascade.brain import CascadeBrain
from vivavoce.session.effects import (
    CancelGeneration,
    ClearPlayback,
    DuckPlayback,
    Effect,
    EndAudio,
    Generate,
    RunVad,
    StartTranscription,
)
from vivavoce.session.facts import (
    AudioPlayed,
    ItemTranscriptionFailed,
    OutputFinished,
    TranscriptUpdated,
)
from vivavoce.session.shell import Session

JUDGED = ServerVad(interruption="judged", silence_duration_ms=200)
WINDOW_S = 0.032
SHORT = "#######" + 8 * "."  # 224 ms of speech, and the silence that ends a turn


class Call:
    """A session in which an answer of ten seconds is played, and time passes as one speaks."""

    def __init__(self, *, server_plays: bool = False, done: bool = False) -> None:
        self.now = 0.0
        self.session = a_session(turn_detection=JUDGED, transcription=WHISPER)
        if server_plays:
            self.session = Session(
                opening(turn_detection=JUDGED, transcription=WHISPER),
                MODELS,
                LIMITS,
                salt="t",
                now=0.0,
                server_plays=True,
            )
            self.session.begin()
        self.response_id = the(Generate, ask(self.session)).response_id
        words = " ".join(f"word{n}" for n in range(100))
        effects = tell(self.session, spoke(self.response_id, words), now=self.now)
        self.item_id = the(says.OutputItemAdded, effects).item.id
        if done:
            tell(self.session, OutputFinished(self.response_id), now=self.now)
        self.effects: list[Effect] = []

    def hear(self, pattern: str) -> list[Effect]:
        new: list[Effect] = []
        for window in pattern:
            self.now += WINDOW_S
            came = receive(self.session, InputAudioAppend(audio=drawn(window)), self.now)
            for effect in of(RunVad, came):
                came = came + tell(self.session, vad_scores(effect), now=self.now)
            new += came
        self.effects += new
        return new

    def words(self, text: str, *, final: bool = True) -> list[Effect]:
        """Of the last turn."""
        if final:
            key = of(EndAudio, self.effects)[-1].key
        else:
            key = of(StartTranscription, self.effects)[-1].key
        new = tell(self.session, TranscriptUpdated(key, text, len(text), final), now=self.now)
        self.effects += new
        return new


@pytest.mark.parametrize("done", [False, True])
def test_backchannel_over_an_answer_becomes_an_item_and_truncates_nothing(done: bool) -> None:
    call = Call(done=done)
    assert types(call.hear(10 * "." + SHORT)) == []
    call.words("Mm-hm.")
    assert types(call.effects) == [
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        "conversation.item.input_audio_transcription.delta",
        "conversation.item.input_audio_transcription.completed",
    ]
    assert not of(CancelGeneration, call.effects)
    assert not of(Generate, call.effects)


def test_interruption_is_announced_before_the_answer_ends() -> None:
    call = Call()
    assert types(call.hear(10 * "." + 8 * "#")) == []
    call.words("Stop, I", final=False)
    assert types(call.effects)[:2] == [
        "input_audio_buffer.speech_started",
        "response.output_audio.done",
    ]
    assert the(says.ResponseDone, call.effects).response.status == "cancelled"
    assert of(CancelGeneration, call.effects)
    call.hear(8 * ".")
    call.words("Stop, I said.")
    assert of(Generate, call.effects)
    assert types(call.effects).count("input_audio_buffer.speech_stopped") == 1
    assert the(says.TranscriptionCompleted, call.effects).transcript == "Stop, I said."


def test_long_sound_without_words_interrupts() -> None:
    call = Call()
    assert types(call.hear(10 * "." + 14 * "#")) == []
    assert "input_audio_buffer.speech_started" in types(call.hear(2 * "#"))


@pytest.mark.parametrize("server_plays", [False, True])
def test_answer_that_a_sound_without_words_cut_off_goes_on_where_it_stopped(
    server_plays: bool,
) -> None:
    call = Call(done=True, server_plays=server_plays)
    call.hear(62 * ".")
    tell(call.session, AudioPlayed(call.item_id, 48_000), now=call.now)
    call.hear(20 * "#")
    assert "input_audio_buffer.speech_started" in types(call.effects)
    call.hear(8 * ".")
    call.words("")
    order = the(Generate, call.effects)
    first = int(order.text.split()[0].removeprefix("word"))
    assert 19 <= first <= 27  # words of 100 ms; cut off after two to three seconds
    assert order.text.split() == [f"word{n}" for n in range(first, 100)]
    spoken = tell(call.session, spoke(order.response_id, order.text), now=call.now)
    spoken += tell(call.session, OutputFinished(order.response_id), now=call.now)
    assert the(says.ResponseDone, spoken).response.status == "completed"


def test_answer_that_was_cut_off_does_not_go_on_where_there_were_words_or_it_was_deleted() -> None:
    for words, delete in (("Stop it.", False), ("", True)):
        call = Call(done=True)
        call.hear(62 * "." + 20 * "#")
        if delete:
            receive(call.session, ItemDelete(item_id=call.item_id), call.now)
        call.hear(8 * ".")
        call.words(words)
        assert the(Generate, call.effects).text == ""


def test_words_that_come_last_of_all_interrupt() -> None:
    call = Call(done=True)
    assert types(call.hear(10 * "." + SHORT)) == []
    call.words("Stop!")
    assert types(call.effects)[:3] == [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
    ]
    assert of(Generate, call.effects)


def test_noise_over_an_answer_becomes_nothing() -> None:
    call = Call()
    call.hear(10 * "." + SHORT)
    call.words("")
    assert types(call.effects) == []
    assert len(of(StartTranscription, call.effects)) == 1


def test_backchannel_in_the_last_moment_of_an_answer_is_a_reply() -> None:
    call = Call(done=True)
    call.hear(int(9.5 / WINDOW_S) * "." + SHORT + 20 * ".")
    call.words("Yes.")
    assert types(call.effects)[0] == "input_audio_buffer.speech_started"
    assert of(Generate, call.effects)


def test_backchannel_before_the_last_moment_stays_one_when_its_words_come_late() -> None:
    call = Call(done=True)
    call.hear(int(7.0 / WINDOW_S) * "." + SHORT + 100 * ".")
    call.words("Yes.")
    assert types(call.effects)[0] == "input_audio_buffer.committed"
    assert not of(Generate, call.effects)


def test_failed_transcription_of_speech_over_an_answer_is_an_interruption() -> None:
    call = Call()
    call.hear(10 * "." + SHORT)
    key = of(EndAudio, call.effects)[-1].key
    effects = tell(call.session, ItemTranscriptionFailed(key, "broken"), now=call.now)
    assert "input_audio_buffer.speech_started" in types(effects)
    assert "conversation.item.input_audio_transcription.failed" in types(effects)
    assert the(CancelGeneration, effects)


def test_speech_over_an_answer_whose_words_end_too_early_is_an_interruption() -> None:
    call = Call()
    call.hear(10 * "." + "#####")
    call.effects += tell(
        call.session,
        TranscriptUpdated(of(StartTranscription, call.effects)[-1].key, "Mm", 2, True),
        now=call.now,
    )
    call.hear(8 * ".")
    assert of(CancelGeneration, call.effects)
    assert types(call.effects).count("input_audio_buffer.committed") == 1


def test_answer_that_was_deleted_is_not_compared_with_the_microphone() -> None:
    call = Call()
    receive(call.session, ItemDelete(item_id=call.item_id), call.now)
    call.hear(10 * "." + SHORT)
    call.words("Yeah.")
    assert types(call.effects)[0] == "input_audio_buffer.committed"


def test_turn_that_is_taken_over_in_its_silence_changes_no_level() -> None:
    call = Call()
    call.hear(320 * "." + "####")
    _, first = call.session.swap(CascadeBrain, call.now)
    for effect in of(RunVad, first):
        tell(call.session, vad_scores(effect), now=call.now)
    assert "input_audio_buffer.speech_stopped" in types(call.hear(10 * "."))


def test_next_turn_makes_an_item_of_what_waits_for_its_words() -> None:
    call = Call()
    call.hear(10 * "." + SHORT)
    first = of(EndAudio, call.effects)[-1].key
    effects = call.hear(20 * "#")
    assert types(effects)[:4] == [
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        "input_audio_buffer.speech_started",
    ]
    late = tell(call.session, TranscriptUpdated(first, "Yeah.", 5, True), now=call.now)
    assert the(says.TranscriptionCompleted, late).item_id == first.item_id


@pytest.mark.parametrize("event", [InputAudioClear(), InputAudioCommit()])
def test_client_takes_or_clears_a_turn_that_is_held(event: InputAudioClear) -> None:
    call = Call()
    call.hear(10 * "." + 8 * "#")
    told = types(receive(call.session, event, call.now))
    assert "input_audio_buffer.speech_started" not in told
    assert told[0] in ("input_audio_buffer.cleared", "input_audio_buffer.committed")
    call.hear(10 * ".")
    assert "input_audio_buffer.speech_stopped" not in types(call.effects)


def test_answer_of_the_server_is_soft_while_the_user_may_interrupt_it() -> None:
    call = Call(server_plays=True)
    tell(call.session, AudioPlayed(call.item_id, 24_000), now=call.now)
    call.hear(10 * "." + 8 * "#")
    assert [duck.ducked for duck in of(DuckPlayback, call.effects)] == [True]
    call.hear(6 * ".")
    assert [duck.ducked for duck in of(DuckPlayback, call.effects)] == [True, False]
    call.hear(20 * "#")
    assert [duck.ducked for duck in of(DuckPlayback, call.effects)][-2:] == [True, False]
    assert of(ClearPlayback, call.effects)
    assert of(says.ItemTruncated, call.effects)


def test_turn_that_is_held_is_announced_when_another_brain_takes_over() -> None:
    call = Call()
    call.hear(10 * "." + SHORT + 8 * "#")
    last, _ = call.session.swap(CascadeBrain, call.now)
    told = types(last)
    assert told.index("input_audio_buffer.committed") < told.index(
        "input_audio_buffer.speech_started"
    )


def test_turn_that_is_held_ends_soon_whatever_its_words() -> None:
    for words in ("", "Them,"):
        call = Call()
        vad = SemanticVad()
        call.session = a_session(turn_detection=vad, transcription=WHISPER)
        response_id = the(Generate, ask(call.session)).response_id
        tell(call.session, spoke(response_id, " ".join(["word"] * 50)), now=call.now)
        call.hear(10 * "." + 8 * "#")
        if words:
            call.words(words, final=False)
        call.hear(8 * ".")
        assert of(EndAudio, call.effects)
        call.words("")
        assert types(call.effects) == []


def test_settings_choose_whether_interruptions_are_judged() -> None:
    for vad, held in (
        (ServerVad(), False),
        (SemanticVad(), True),
        (SemanticVad(interruption="immediate"), False),
        (ServerVad(interruption="judged"), True),
        (SemanticVad(interrupt_response=False), False),
    ):
        session = a_session(turn_detection=vad)
        response_id = the(Generate, ask(session)).response_id
        tell(session, spoke(response_id, " ".join(["word"] * 50)))
        told = types(hear(session, "###"))
        assert ("input_audio_buffer.speech_started" not in told) == held


def test_client_changes_interruption_and_is_shown_it() -> None:
    session = a_session()
    patch = AudioInputPatch(turn_detection=ServerVadPatch(interruption="judged"))
    effects = update(session, RealtimePatch(audio=AudioPatch(input=patch)))
    shown = the(says.SessionUpdated, effects).session.audio.input.turn_detection
    assert isinstance(shown, ServerVad)
    assert shown.interruption == "judged"


def test_recording_that_comes_faster_than_it_was_spoken_is_not_judged() -> None:
    call = Call()
    effects = hear(call.session, 100 * "." + "###", call.now)
    assert "input_audio_buffer.speech_started" in types(effects)


def told_of(effects: list[Effect]) -> Iterator[str]:
    """The items of the user that the client was told of."""
    for event in events(effects):
        if isinstance(event, says.InputAudioCommitted):
            yield event.item_id


@given(
    st.lists(
        st.tuples(
            st.integers(2, 30),  # windows of speech
            st.sampled_from(("Mm-hm.", "Yeah, okay.", "Stop!", "No, I meant Friday.", "")),
            st.booleans(),  # whether partial words come
            st.integers(8, 40),  # windows of silence
        ),
        min_size=1,
        max_size=5,
    ),
    st.booleans(),
)
@settings(max_examples=examples(60))
def test_law_a_backchannel_never_truncates_an_interruption_always_ends_and_nothing_is_lost(
    spoken: list[tuple[int, str, bool, int]], server_plays: bool
) -> None:
    call = Call(server_plays=server_plays)
    for loud, text, partial, silent in spoken:
        before = len(call.effects)
        first = min(loud, 8) if partial and text else 0
        call.hear(3 * "." + first * "#")
        if first:
            call.words(text, final=False)
        call.hear((loud - first) * "#")
        call.hear(silent * ".")
        ended = of(EndAudio, call.effects[before:])
        call.effects += transcribe(call.session, call.effects[before:], text, call.now)
        new = call.effects[before:]
        cut = bool(of(CancelGeneration, new))
        if text and ended:  # nothing is lost
            assert [order.key.item_id for order in ended] == list(told_of(new))
        if cut:
            break
        if text.startswith(("Stop", "No")):  # an interruption always ends the answer
            raise AssertionError("the answer went on")
    else:
        assert not of(says.ItemTruncated, call.effects)
        assert not of(ClearPlayback, call.effects)
        return
    loud_ms = loud * 32
    if text in ("Mm-hm.", "Yeah, okay."):  # only one without partial words that was long, or longer
        assert loud_ms > (1500 if partial else 448)
