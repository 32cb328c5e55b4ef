"""What is heard of an answer, and to which turn an event belongs."""

from typing import Any

import numpy as np
import pytest

from vivavoce.audio.formats import BYTES_PER_MS
from vivavoce.scenarios.turns import HeardAnswers, ScenarioTurn, SpokenStretch, TurnRecorder, track


def pcm(ms: int) -> bytes:
    return np.full(ms * BYTES_PER_MS // 2, 1000, "<i2").tobytes()


def test_playback_has_no_gaps_and_stops_where_the_user_interrupts() -> None:
    playback = HeardAnswers()
    playback.add(pcm(500), "item_1", 0, 10.0)
    playback.add(pcm(500), "item_1", 0, 10.1)
    assert playback.plays_until == pytest.approx(11.0)
    assert playback.stop(10.7) == ("item_1", 0, 700)
    assert playback.stop(10.8) is None
    assert [len(s.pcm) // BYTES_PER_MS for s in playback.stretches] == [500, 200]


def test_track_has_every_stretch_in_its_place_and_is_cut_at_its_end() -> None:
    samples = np.frombuffer(track([SpokenStretch(1.0, pcm(3000))], 2.0), "<i2")
    assert samples.size == 48_000
    assert (samples[:24_000] == 0).all()
    assert (samples[24_000:] == 1000).all()


def event(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": kind, **fields}


def cancelled(key: str) -> dict[str, Any]:
    details = {"type": "cancelled", "reason": "turn_detected"}
    return event(
        "response.done", response={"id": key, "status": "cancelled", "status_details": details}
    )


def test_events_of_an_interrupted_response_belong_to_its_own_turn() -> None:
    recorder = TurnRecorder()
    first = recorder.begin(ScenarioTurn("spoken", "A story.", 0.0, ended=1.0))
    recorder.received(event("response.created", response={"id": "r1"}), 1.1)
    recorder.received(event("response.output_audio.delta", response_id="r1"), 1.2)
    second = recorder.begin(ScenarioTurn("spoken", "Stop.", 2.0, ended=2.5))
    recorder.received(
        event("response.output_audio_transcript.done", response_id="r1", transcript="Once"), 2.2
    )
    recorder.received(cancelled("r1"), 2.25)
    recorder.received(event("response.created", response={"id": "r2"}), 2.8)
    recorder.received(event("error", error={"message": "no", "code": "bad"}), 2.9)
    assert (first.answer, first.interrupted, first.is_settled) == ("Once", True, False)
    assert first.ms(first.first_audio) == pytest.approx(200)
    assert second.stop_ms == pytest.approx(250)
    assert second.open_responses == 1
    assert second.errors == ["no (bad)"]


def test_turn_with_a_function_call_is_settled_by_the_response_after_it() -> None:
    recorder = TurnRecorder()
    turn = recorder.begin(ScenarioTurn("typed", "Weather?", 0.0))
    call = {"type": "function_call", "name": "f", "call_id": "c", "arguments": "{not json"}
    recorder.received(event("response.created", response={"id": "r1"}), 0.1)
    recorder.received(event("response.done", response={"id": "r1", "output": [call]}), 0.2)
    assert not turn.is_settled
    assert turn.calls[0].arguments == "{not json"
    recorder.received(event("response.created", response={"id": "r2"}), 0.3)
    failure = {"status": "failed", "status_details": {"error": {"message": "overloaded"}}}
    recorder.received(event("response.done", response={"id": "r2", **failure}), 0.4)
    assert turn.is_settled
    assert turn.errors == ["the response failed: overloaded"]
