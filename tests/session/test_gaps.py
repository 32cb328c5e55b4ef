"""A client that stops sending sound in the middle of a turn: that is silence, after a while."""

import msgspec
import pytest

from tests.session.stage import (
    LIMITS,
    SPOKEN,
    VAD,
    WHISPER,
    a_session,
    answered,
    hear,
    receive,
    tell,
    the,
    transcribe,
    transcription_settings,
    types,
    update,
    wake,
)
from vivavoce.protocol import server as says
from vivavoce.protocol.client import InputAudioAppend
from vivavoce.protocol.session import RealtimePatch, SemanticVad, ServerVad
from vivavoce.session.effects import RunVad
from vivavoce.session.facts import VadScores
from vivavoce.session.limits import SessionLimits

HOUR = LIMITS.max_seconds


def test_turn_whose_audio_stops_coming_ends_and_is_answered() -> None:
    session = a_session()
    hear(session, "####", now=10.0)
    assert session.deadline == 13.0
    ended = wake(session)
    assert the(says.SpeechStopped, ended).audio_end_ms == 4 * 32
    assert "input_audio_buffer.committed" in types(ended)
    answered(transcribe(session, ended, "well", now=13.0))


def test_audio_after_a_gap_is_another_turn_at_its_own_position() -> None:
    session = a_session()
    hear(session, "####", now=10.0)
    wake(session)
    assert the(says.SpeechStarted, hear(session, 20 * "." + "##", now=20.0)).audio_start_ms == (
        24 * 32 - 300
    )


def test_every_append_restarts_the_gap_timer() -> None:
    session = a_session()
    hear(session, "##", now=10.0)
    hear(session, ".", now=12.5)
    assert session.deadline == 15.5
    assert types(wake(session, now=15.4)) == []


def test_gap_outside_a_turn_or_without_turn_detection_sets_no_timer() -> None:
    session = a_session()
    hear(session, "....", now=10.0)
    assert session.deadline == HOUR
    session = a_session(turn_detection=None)
    receive(session, InputAudioAppend(audio=SPOKEN), now=10.0)
    assert session.deadline == HOUR


def test_gap_is_as_long_as_the_silence_duration_of_the_client() -> None:
    session = a_session(turn_detection=ServerVad(silence_duration_ms=5_000))
    hear(session, "####", now=10.0)
    assert session.deadline == 15.0
    hear(session, "." * 125, now=14.0)  # four seconds of it
    assert session.deadline == 17.0
    session = a_session(turn_detection=SemanticVad(eagerness="low"))
    hear(session, "####", now=10.0)
    assert session.deadline == 18.0


def test_audio_without_vad_scores_yet_is_no_gap() -> None:
    session = a_session()
    hear(session, "####", now=10.0)
    order = the(RunVad, receive(session, InputAudioAppend(audio=SPOKEN), now=11.0))
    assert types(wake(session, now=14.0)) == []
    assert session.deadline == 17.0  # the scores are waited for as long again
    tell(session, VadScores(order.at, (0.9,) * 4), now=15.0)
    assert session.deadline == 17.0
    assert the(says.SpeechStopped, wake(session, now=17.0)).audio_end_ms == 8 * 32


def test_gap_timer_can_be_switched_off_by_the_operator() -> None:
    session = a_session(limits=SessionLimits(gap_seconds=0.0))
    hear(session, "####", now=10.0)
    assert session.deadline == HOUR


@pytest.mark.parametrize("odd", [b"", b"x"])
def test_half_a_sample_is_reported_and_the_turn_ended_each_in_its_time(odd: bytes) -> None:
    session = a_session()
    hear(session, "####", now=10.0)
    if odd:
        receive(session, InputAudioAppend(audio=odd), now=10.0)
        assert types(wake(session, now=11.0)) == ["error"]
    assert types(wake(session, now=13.0))[0] == "input_audio_buffer.speech_stopped"


def test_turn_of_a_transcription_session_ends_after_a_gap() -> None:
    session = a_session(transcription_settings(transcription=WHISPER))
    hear(session, "####", now=10.0)
    assert "input_audio_buffer.committed" in types(wake(session, now=13.0))


def test_turn_detection_switched_off_leaves_the_end_to_the_client() -> None:
    session = a_session(turn_detection=VAD)
    hear(session, "####", now=10.0)
    patch = {"type": "realtime", "audio": {"input": {"turn_detection": None}}}
    update(session, msgspec.convert(patch, RealtimePatch), now=10.5)
    assert session.deadline == HOUR
