"""What was played, where the playout is the server's own."""

import pytest

from vivavoce.protocol.server import OutputAudioCleared, OutputAudioStarted, OutputAudioStopped
from vivavoce.session.effects import ClearPlayback, Effect, EffectBuffer, Ids, PlayAudio, Send
from vivavoce.session.playback import ServerPlayback

SOUND = bytes(2 * 480)
A = ("resp_a", "item_a")
B = ("resp_b", "item_b")


class Stage:
    """A buffer, and what it says, short."""

    def __init__(self) -> None:
        self._effects = EffectBuffer(Ids("t"))
        self.buffer = ServerPlayback(self._effects)

    def said(self) -> list[str]:
        return [_short(effect) for effect in self._effects.drain()]


def _short(effect: Effect) -> str:
    match effect:
        case PlayAudio(item_id=item_id):
            return f"play {item_id}"
        case ClearPlayback():
            return "flush"
        case Send(event=OutputAudioStarted(response_id=response_id)):
            return f"started {response_id}"
        case Send(event=OutputAudioStopped(response_id=response_id)):
            return f"stopped {response_id}"
        case Send(event=OutputAudioCleared(response_id=response_id)):
            return f"cleared {response_id}"
    raise AssertionError(effect)


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_playback_goes_on_only_within_the_answer_that_is_played(stage: Stage) -> None:
    assert not stage.buffer.continue_playing("item_a", 100)
    stage.buffer.add(*A, SOUND, 1.0)
    assert not stage.buffer.continue_playing("item_b", 100)
    assert not stage.buffer.continue_playing("item_a", 480)
    assert stage.buffer.continue_playing("item_a", 400)
    assert stage.buffer.playing(1.2) == ("item_a", 80)


def test_playback_without_audio_has_played_nothing(stage: Stage) -> None:
    assert stage.buffer.until == float("-inf")
    assert stage.buffer.playing(5.0) is None
    assert stage.buffer.stop(5.0) == {}
    assert stage.said() == []


def test_answer_is_started_before_its_first_sound_and_once(stage: Stage) -> None:
    stage.buffer.add(*A, SOUND, 1.0)
    stage.buffer.add(*A, SOUND, 1.1)
    assert stage.said() == ["started resp_a", "play item_a", "play item_a"]
    assert stage.buffer.playing(1.2) == ("item_a", 960)
    assert stage.buffer.until == float("inf")


def test_answer_stops_when_it_is_done_and_all_of_it_was_played(stage: Stage) -> None:
    stage.buffer.add(*A, SOUND, 1.0)
    stage.buffer.played("item_a", 480, 1.1)
    stage.said()
    stage.buffer.add(*A, SOUND, 1.2)
    stage.buffer.ended("resp_a", 1.3)
    assert stage.said() == ["play item_a"]
    stage.buffer.played("item_a", 480, 1.4)
    assert stage.said() == ["stopped resp_a"]
    assert stage.buffer.until == 1.4


def test_answer_that_was_played_stops_as_soon_as_it_is_done(stage: Stage) -> None:
    stage.buffer.add(*A, SOUND, 1.0)
    stage.buffer.played("item_a", 480, 1.1)
    stage.said()
    stage.buffer.ended("resp_a", 1.5)
    assert stage.said() == ["stopped resp_a"]
    assert stage.buffer.until == 1.5


def test_audio_not_played_is_dropped(stage: Stage) -> None:
    stage.buffer.add(*A, SOUND, 1.0)
    stage.buffer.played("item_a", 100, 1.1)
    stage.said()
    assert stage.buffer.stop(1.2) == {"item_a": 380}
    assert stage.said() == ["flush", "cleared resp_a"]
    assert stage.buffer.until == 1.2
    assert stage.buffer.stop(1.3) == {}


def test_cleared_answer_is_played_no_further(stage: Stage) -> None:
    stage.buffer.add(*A, SOUND, 1.0)
    stage.buffer.stop(1.2)
    stage.said()
    stage.buffer.add(*A, SOUND, 1.3)
    stage.buffer.played("item_a", 480, 1.3)
    stage.buffer.ended("resp_a", 1.4)
    assert stage.said() == []
    assert stage.buffer.until == 1.2


def test_answer_is_played_behind_the_one_before_it(stage: Stage) -> None:
    stage.buffer.add(*A, SOUND, 1.0)
    stage.buffer.add(*B, SOUND, 1.0)
    assert stage.said() == ["started resp_a", "play item_a"]
    stage.buffer.add(*A, SOUND, 1.1)
    stage.buffer.ended("resp_b", 1.1)
    stage.buffer.ended("resp_a", 1.2)
    assert stage.said() == ["play item_a", "play item_b"]
    stage.buffer.played("item_a", 960, 1.3)
    assert stage.said() == ["stopped resp_a", "started resp_b"]
    stage.buffer.played("item_b", 480, 1.4)
    assert stage.said() == ["stopped resp_b"]


def test_waiting_answer_is_dropped_with_the_rest_and_never_started(stage: Stage) -> None:
    stage.buffer.add(*A, SOUND, 1.0)
    stage.buffer.add(*B, SOUND, 1.0)
    stage.buffer.ended("resp_a", 1.0)
    stage.said()
    assert stage.buffer.stop(1.1) == {"item_a": 480, "item_b": 480}
    assert stage.said() == ["flush", "cleared resp_a"]


def test_played_position_is_bounded_by_the_audio(stage: Stage) -> None:
    stage.buffer.add(*A, SOUND, 1.0)
    stage.buffer.played("item_a", 9999, 1.1)
    assert stage.buffer.stop(1.2) == {"item_a": 0}


def test_failed_answer_is_played_to_the_end_of_its_audio(stage: Stage) -> None:
    stage.buffer.add(*A, SOUND, 1.0)
    assert stage.buffer.drop("item_a", 1.0) == 0
    assert stage.buffer.until == float("inf")
