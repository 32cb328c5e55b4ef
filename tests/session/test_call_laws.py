"""What holds in every session that owns its playout, whatever happens."""

from hypothesis import given, settings

from tests.hypothesis_examples import examples
from tests.session.histories import (
    EVERYTHING,
    FROM_CLIENTS,
    FROM_ENGINES,
    FROM_OUTSIDE,
    LIMITS,
    RARELY,
    Step,
    World,
    histories,
    openings,
)
from tests.session.laws import effects, events
from tests.session.stage import MODELS
from vivavoce.protocol import client as asks
from vivavoce.protocol import server as says
from vivavoce.protocol.session import SessionObject
from vivavoce.session.effects import ClearPlayback, Effect, PlayAudio, Send
from vivavoce.session.facts import AudioArrived, AudioPlayed, Disconnected, Fact, Received
from vivavoce.session.shell import Session

CALLS = histories(
    *FROM_CLIENTS, *FROM_ENGINES, *FROM_OUTSIDE, *("play", "play", "play all", "hush", "listen")
)


class Call(World):
    """A world with a player: what is to be played waits in it, and leaves bit by bit."""

    def __init__(self, opening: SessionObject) -> None:
        super().__init__(opening)
        self.session = Session(opening, MODELS, LIMITS, salt="t", now=0.0, server_plays=True)
        self.waiting: list[tuple[str, int]] = []
        self.left: dict[str, int] = {}

    def _notice(self, effect: Effect) -> None:
        super()._notice(effect)
        match effect:
            case PlayAudio(item_id=item_id, audio=audio):
                self.waiting.append((item_id, len(audio) // 2))
            case ClearPlayback():
                self.waiting.clear()

    def _fact(self, step: Step) -> Fact | None:
        match step.kind:
            case "play" | "play all":
                return self._played(100 * step.m if step.kind == "play" else 10**9)
            case "hush":
                return Received(asks.OutputAudioClear())
            case "listen":
                return AudioArrived(self._sound(step.n, 4))
        return super()._fact(step)

    def _played(self, most: int) -> Fact | None:
        if not self.waiting:
            return None
        item_id, samples = self.waiting.pop(0)
        if samples > most:
            self.waiting.insert(0, (item_id, samples - most))
        played = min(samples, most)
        self.left[item_id] = self.left.get(item_id, 0) + played
        return AudioPlayed(item_id, played)


def answers_are_played_one_at_a_time_from_start_to_stop(world: Call) -> None:
    heard: str | None = None
    over: set[str] = set()
    for event in events(world):
        match event:
            case says.OutputAudioStarted(response_id=response_id):
                assert heard is None
                assert response_id not in over
                heard = response_id
            case (
                says.OutputAudioStopped(response_id=response_id)
                | says.OutputAudioCleared(response_id=response_id)
            ):
                assert heard == response_id
                over.add(response_id)
                heard = None


def audio_is_played_only_between_start_and_stop_of_its_answer(world: Call) -> None:
    heard = False
    for effect in effects(world):
        match effect:
            case Send(event=says.OutputAudioStarted()):
                heard = True
            case Send(event=says.OutputAudioCleared()):
                heard = False
            case PlayAudio():
                assert heard
            case _:
                pass


def audio_is_never_sent_over_the_data_channel(world: Call) -> None:
    assert not any(isinstance(event, says.OutputAudioDelta) for event in events(world))


def answer_stops_only_when_all_of_its_audio_was_played(world: Call) -> None:
    """So when nothing waits and no response is being made, nothing is being heard."""
    sent = [*events(world)]
    made = {e.response.id for e in sent if isinstance(e, says.ResponseCreated)}
    made -= {e.response.id for e in sent if isinstance(e, says.ResponseDone)}
    started = {e.response_id for e in sent if isinstance(e, says.OutputAudioStarted)}
    over = {
        e.response_id
        for e in sent
        if isinstance(e, says.OutputAudioStopped | says.OutputAudioCleared)
    }
    if not world.waiting and not made:
        assert started == over


LAWS_OF_PLAYOUT = (
    answers_are_played_one_at_a_time_from_start_to_stop,
    audio_is_played_only_between_start_and_stop_of_its_answer,
    audio_is_never_sent_over_the_data_channel,
    answer_stops_only_when_all_of_its_audio_was_played,
)


@settings(max_examples=examples(100))
@given(openings, CALLS)
def test_history_of_a_call_keeps_the_laws_of_playout(
    opening: SessionObject, steps: list[Step]
) -> None:
    world = Call(opening)
    world.play(steps)
    for law in LAWS_OF_PLAYOUT:
        law(world)


@settings(max_examples=examples(60))
@given(openings, CALLS)
def test_server_truncates_to_the_audio_that_was_played(
    opening: SessionObject, steps: list[Step]
) -> None:
    world = Call(opening)
    for step in steps:
        world.play([step])
        moment = world.history[-1] if world.history else None
        asked = moment and isinstance(moment.fact, Received) and moment.fact.event
        if moment is None or isinstance(asked, asks.ItemTruncate):
            continue
        for effect in moment.effects:
            match effect:
                case Send(event=says.ItemTruncated(item_id=item_id, audio_end_ms=ms)):
                    assert ms == world.left.get(item_id, 0) * 1000 // 24_000
                case _:
                    pass


@settings(max_examples=examples(40))
@given(openings, histories(*FROM_CLIENTS, *FROM_ENGINES, *FROM_OUTSIDE, *RARELY, "play", "hush"))
def test_same_facts_of_a_call_at_the_same_times_give_the_same_effects(
    opening: SessionObject, steps: list[Step]
) -> None:
    first, second = Call(opening), Call(opening)
    first.play(steps)
    first.tell(Disconnected())
    for moment in first.history:
        second.now = moment.now
        assert second.tell(moment.fact) == moment.effects


@settings(max_examples=examples(40))
@given(openings, EVERYTHING)
def test_call_whose_track_plays_nothing_ends(opening: SessionObject, steps: list[Step]) -> None:
    world = Call(opening)
    world.play(steps)
    world.tell(Disconnected())
    created = sum(isinstance(event, says.ResponseCreated) for event in events(world))
    ended = sum(isinstance(event, says.ResponseDone) for event in events(world))
    assert created == ended
