"""A session is a function of its facts and their times, and goes on where it is restored."""

import re
from typing import Any

from hypothesis import assume, example, given, settings

from tests.session.histories import (
    EVERYTHING,
    FROM_ENGINES,
    OPENINGS,
    TALK,
    Moment,
    Step,
    World,
    histories,
    openings,
    scene,
)
from tests.session.laws import EXAMPLES
from tests.session.stage import without_audio
from vivavoce.protocol.client import InputAudioClear, ResponseCancel, ResponseCreate, SessionUpdate
from vivavoce.protocol.server import ItemRetrieved
from vivavoce.protocol.session import AudioInputPatch, AudioPatch, RealtimePatch, SessionObject
from vivavoce.session.cascade.brain import CascadeBrain
from vivavoce.session.cascade.turn_detection import WINDOW
from vivavoce.session.effects import Close, Effect, EndAudio, Send
from vivavoce.session.facts import Fact, Received, TimerFired, TranscriptUpdated, VadScores
from vivavoce.session.limits import SessionLimits

NO_TURN_DETECTION = RealtimePatch(audio=AudioPatch(input=AudioInputPatch(turn_detection=None)))
ENDLESS = SessionLimits(max_seconds=float("inf"), stall_seconds=4.0, max_buffer_seconds=4.0)
SOUND = {"append", "commit", "vad", "vad again", "turn score"}
# while the words of a second turn, and a response beside the conversation that reads them, stall,
# idle_timeout_ms after the first answer passes
LATE_WORDS_IN_SILENCE = [
    *(Step("append", 1, 0, 0.0), Step("append", 0, 0, 0.0), Step("append", 1, 4, 0.125)),
    *scene("vad", "transcribe", "transcript"),
    *(Step("append", 0, 0, 0.0), Step("append", 0, 1, 0.0), *scene("spoken", "timer")),
    *(Step("append", 0, 0, 0.125), Step("out of band", 0, 0, 0.0), Step("timer", 0, 0, 0.0)),
]
LATER = histories(
    *("write", "record", "call", "output", "retrieve", "truncate", "delete", "create"),
    *("out of band", "cancel", "invalid", "timer", "transcribe", "transcript"),
    *("transcription fails", *FROM_ENGINES),
    longest=20,
).map(lambda steps: [step for step in steps if step.kind not in SOUND])


class WithoutShortcut(CascadeBrain):
    """Handles audio that continues as any other fact."""

    def continue_audio(self, fact: Fact, now: float) -> bool:
        return False


def one_window_each(fact: Fact) -> list[Fact]:
    if not isinstance(fact, VadScores):
        return [fact]
    return [VadScores(fact.at + n * WINDOW, (s,)) for n, s in enumerate(fact.speech)]


@settings(max_examples=EXAMPLES)
@given(openings, EVERYTHING)
def test_audio_that_continues_has_the_effects_of_any_fact_and_brings_no_deadline_nearer(
    opening: SessionObject, steps: list[Step]
) -> None:
    played, short, long = World(opening), World(opening), World(opening, brain=WithoutShortcut)
    for moment in played.play(steps):
        short.now = long.now = moment.now
        for fact in one_window_each(moment.fact):
            due = short.session.deadline
            short.tell(fact)
            long.tell(fact)
            assert not long.session.steady
            if short.session.steady:
                assert short.session.deadline >= due
    assert short.history == long.history
    assert short.session.checkpoint(0.0) == long.session.checkpoint(0.0)


@settings(max_examples=EXAMPLES)
@given(openings, EVERYTHING)
def test_same_facts_at_the_same_times_give_the_same_effects(
    opening: SessionObject, steps: list[Step]
) -> None:
    first, second = World(opening), World(opening)
    first.play(steps)
    for moment in first.history:
        second.now = moment.now
        second.tell(moment.fact)
    assert first.history == second.history
    assert first.session.checkpoint(0.0) == second.session.checkpoint(0.0)


@settings(max_examples=EXAMPLES)
@given(openings, TALK)
@example(OPENINGS[2], LATE_WORDS_IN_SILENCE)
def test_deadline_after_a_timer_fired_is_later(opening: SessionObject, steps: list[Step]) -> None:
    world = World(opening)
    for moment in world.play(steps):
        if closed(moment):
            break
        assert moment.deadline > moment.now or not isinstance(moment.fact, TimerFired)


@settings(max_examples=EXAMPLES)
@given(openings, TALK)
def test_session_without_facts_comes_to_an_end(opening: SessionObject, steps: list[Step]) -> None:
    world = World(opening)
    ended, timers = any(map(closed, world.play(steps))), 0
    while not ended:
        ended, timers = closed(world.play([Step("long wait", 0, 0, 0.0)])[-1]), timers + 1
        assert timers < 1000


def closed(moment: Moment) -> bool:
    return any(isinstance(effect, Close) for effect in moment.effects)


@settings(max_examples=EXAMPLES)
@given(openings, TALK, LATER)
def test_restored_session_goes_on_as_the_original(
    opening: SessionObject, before: list[Step], after: list[Step]
) -> None:
    world = World(opening, limits=ENDLESS)
    world.play(before)
    come_to_rest(world)
    saved = world.session.checkpoint(world.now)
    assume(saved.entries)  # an empty session may still change its type
    again = World(saved.session, salt="u", now=world.now, checkpoint=saved, limits=ENDLESS)
    world.items = [entry.item.id for entry in saved.entries]
    again.take_over(world)
    began = len(world.history)
    world.play(after)
    again.play(after)
    assert nameless(world.history[began:]) == nameless(again.history)


def come_to_rest(world: World) -> None:
    """Between two turns: every transcript is final, and nothing is being played."""
    open_keys = [
        effect.key
        for moment in world.history
        for effect in moment.effects
        if isinstance(effect, EndAudio)
    ]
    world.tell(Received(SessionUpdate(session=NO_TURN_DETECTION)))
    world.tell(Received(InputAudioClear()))
    for key in open_keys:
        world.tell(TranscriptUpdated(key, "", 0, True))
    for response_id in world.responses:
        world.tell(Received(ResponseCancel(response_id=response_id)))
    world.tell(Received(ResponseCreate()))
    world.tell(Received(ResponseCancel()))
    world.now += 1000.0
    world.tell(TimerFired())


def nameless(moments: list[Moment]) -> list[Any]:
    """What happened, with every id that a session made replaced by its number.

    Without the audio of items that were retrieved: it is in no checkpoint.
    """
    names: dict[str, str] = {}
    text = "\n".join(
        f"{moment.now} {moment.fact} {[_without_audio(effect) for effect in moment.effects]}"
        for moment in moments
    )
    return re.sub(
        r"(?:item|resp|event|call)_[tu][0-9a-f]{5}",
        lambda found: names.setdefault(found.group(), f"<{len(names)}>"),
        text,
    ).splitlines()


def _without_audio(effect: Effect) -> object:
    if isinstance(effect, Send) and isinstance(effect.event, ItemRetrieved):
        return without_audio(effect.event.item)
    return effect
