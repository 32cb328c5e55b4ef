"""A session at work: its effects are performed, its failures stay its own, all is given back."""

import asyncio
import gc
import logging
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.runtime.stage import (
    LOUD,
    MODELS,
    SOFT,
    TURN,
    Audience,
    Troupe,
    make_runner,
    question,
    speech,
    template,
)
from vivavoce.engines.base import Transcript
from vivavoce.errors import EngineError, InvalidRequest, StoreError
from vivavoce.protocol.client import InputAudioAppend, InputAudioCommit, ItemDelete, ResponseCancel
from vivavoce.protocol.server import ErrorEvent, OutputAudioDelta, ResponseDone, SpeechStopped
from vivavoce.protocol.session import SemanticVad, ServerVad, TurnDetection
from vivavoce.runtime.performers import MAX_WAITING_BYTES, MAX_WAITING_WINDOWS
from vivavoce.runtime.runner import TAKE_TIMEOUT_S, Runner
from vivavoce.session.effects import Effect
from vivavoce.session.facts import Disconnected, DrainStarted, Fact, InvalidFrame, Received
from vivavoce.session.limits import SessionLimits
from vivavoce.session.shell import Checkpoint, Session
from vivavoce.testing.virtual_time import run

CLOCK_TURN = ServerVad(create_response=True)


@dataclass
class Scene:
    """A session at work, its client and its engines."""

    troupe: Troupe
    audience: Audience
    runner: Runner
    running: asyncio.Task[None]

    def tell(self, *facts: Fact) -> None:
        for fact in facts:
            self.runner.post(fact)

    async def say(self, sound: bytes = TURN) -> None:
        """Send sound as a door does: no faster than the session takes it."""
        for fact in speech(sound):
            self.runner.post(fact)
            await self.runner.wait_caught_up()

    def given_back(self) -> bool:
        """Whether nothing of the session is left."""
        return not (self.troupe.vad.held or self.troupe.running.count or others())


def others() -> set[asyncio.Task[Any]]:
    """All tasks but this one."""
    return asyncio.all_tasks() - {asyncio.current_task()}


class Fragile(Session):
    """A session that has a bug, which an event with the id "boom" brings to light."""

    def handle(self, fact: Fact, now: float) -> list[Effect]:
        if isinstance(fact, Received) and fact.event.event_id == "boom":
            raise KeyError("a bug in the session")
        return super().handle(fact, now)


def a_scene(troupe: Troupe, limits: SessionLimits, turn_detection: TurnDetection | None) -> Scene:
    audience = Audience()
    now = asyncio.get_running_loop().time()
    session = Fragile(template(turn_detection), MODELS, limits, salt="t", now=now)
    runner = make_runner(session, audience, troupe.catalog)
    return Scene(troupe, audience, runner, asyncio.create_task(runner.run()))


def play(
    script: Callable[[Scene], Awaitable[None]],
    *,
    limits: SessionLimits | None = None,
    turn_detection: TurnDetection | None = None,
    **engines: Any,
) -> Scene:
    """Play a scene to its end; then the client leaves, and all must be given back."""

    async def main() -> Scene:
        troupe = engines.pop("troupe", None) or Troupe(**engines)
        scene = a_scene(troupe, limits or SessionLimits(), turn_detection)
        await asyncio.sleep(0)
        await script(scene)
        scene.tell(Disconnected())
        await scene.running
        assert scene.given_back()
        return scene

    return run(main())


def answers(*texts: Any) -> dict[str, Any]:
    return {"answers": list(texts)}


def test_a_question_in_writing_is_answered_aloud() -> None:
    async def script(scene: Scene) -> None:
        scene.tell(*question())
        await scene.audience.until("response.done")

    scene = play(script, llm=answers("It is noon."))
    assert scene.audience.types[0] == "session.created"
    assert scene.audience.endings == [("completed", None)]
    assert scene.audience.closed == (1000, "the client left")
    sound = [e.delta for e in scene.audience.events if isinstance(e, OutputAudioDelta)]
    assert len(b"".join(sound)) == len("It is noon.") * 60 * 48


def test_a_spoken_question_is_heard_judged_written_down_and_answered() -> None:
    async def script(scene: Scene) -> None:
        await scene.say()
        await scene.audience.until("response.done")

    scene = play(script, turn_detection=CLOCK_TURN, stt={"transcripts": ["who is there"]})
    assert [type_ for type_ in scene.audience.types if type_.startswith("input_audio")] == [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
    ]
    assert "conversation.item.input_audio_transcription.completed" in scene.audience.types
    assert scene.audience.endings == [("completed", None)]


def test_the_judge_of_turns_is_asked_and_believed() -> None:
    async def script(scene: Scene) -> None:
        await scene.say(LOUD * 20 + SOFT * 40)
        await scene.audience.until("input_audio_buffer.speech_stopped")

    words = {"transcripts": [{"text": "yes please", "partials": True}], "word_ms": 100}
    scene = play(
        script, turn_detection=SemanticVad(), stt=words, turn={"table": {"yes please": 1.0}}
    )
    assert scene.troupe.turn.asked == ["yes please"]


def test_speaking_into_an_answer_stops_it_at_once() -> None:
    async def script(scene: Scene) -> None:
        scene.tell(*question())
        await scene.audience.until("response.output_audio.delta")
        await scene.say(LOUD * 4)
        await scene.audience.until("response.done")
        await asyncio.sleep(0)
        assert scene.troupe.running.count == 1  # he is listened to, and nobody thinks or speaks

    slow = {"realtime_factor": 1}
    scene = play(script, turn_detection=ServerVad(), tts=slow, llm=answers("word " * 100))
    assert scene.audience.endings == [("cancelled", None)]


def test_a_cancelled_answer_tells_nothing_more() -> None:
    async def script(scene: Scene) -> None:
        scene.tell(*question())
        await scene.audience.until("response.output_audio.delta")
        scene.tell(Received(ResponseCancel()))
        count = len(scene.audience.events)
        await asyncio.sleep(5)
        assert len(scene.audience.events) == count
        assert scene.audience.types[-2:] == ["response.done", "rate_limits.updated"]

    play(script, tts={"realtime_factor": 1}, llm=answers("word " * 100))


def test_a_deleted_item_is_listened_to_no_more() -> None:
    async def script(scene: Scene) -> None:
        scene.tell(*(Received(InputAudioAppend(audio=LOUD)) for _ in range(10)))
        scene.tell(Received(InputAudioCommit()))
        await asyncio.sleep(1)
        assert scene.troupe.running.count == 1
        item_id = next(e.item.id for e in scene.audience.events if hasattr(e, "item"))
        scene.tell(Received(ItemDelete(item_id=item_id)))
        await asyncio.sleep(0)
        assert scene.troupe.running.count == 0

    play(script, stt={"transcripts": [{"stall": True}]})


def test_a_garbled_event_is_refused_and_the_session_goes_on() -> None:
    async def script(scene: Scene) -> None:
        scene.tell(InvalidFrame(InvalidRequest("no event")), *question())
        await scene.audience.until("response.done")

    assert play(script).audience.types.count("error") == 1


STAGES = {
    "at the start": ({"fail_after_words": 0}, {"fail_after_ms": 0}),
    "in the middle": ({"fail_after_words": 2}, {"fail_after_ms": 50}),
    "at the end": ({"fail_after_words": 99}, {"fail_after_ms": 99_000}),
}


@pytest.mark.parametrize("when", STAGES)
def test_a_model_that_fails_costs_one_response(when: str) -> None:
    broken = {"text": "One. Two. Three. ", "error": "the model is down", **STAGES[when][0]}
    scene = play(two_questions, llm=answers(broken, "Fine."))
    assert scene.audience.endings == [("failed", "llm_failed"), ("completed", None)]
    one_error_after_the_first_response(scene.audience)


@pytest.mark.parametrize("when", STAGES)
def test_a_model_that_stalls_costs_one_response(when: str) -> None:
    broken = {"text": "One. Two. Three. ", "stall": True, **STAGES[when][0]}
    scene = play(two_questions, llm=answers(broken, "Fine."))
    one_error_after_the_first_response(scene.audience)
    assert scene.audience.endings == [("failed", "llm_stalled"), ("completed", None)]


@pytest.mark.parametrize("when", STAGES)
@pytest.mark.parametrize(("how", "code"), [("fail_on", "failed"), ("stall_on", "stalled")])
def test_a_voice_that_breaks_down_costs_one_response(when: str, how: str, code: str) -> None:
    script = {how: "Bad", **STAGES[when][1]}
    scene = play(two_questions, llm=answers("Bad luck to you.", "Fine."), tts=script)
    assert scene.audience.endings == [("failed", f"tts_{code}"), ("completed", None)]
    one_error_after_the_first_response(scene.audience)


async def two_questions(scene: Scene) -> None:
    for n in (1, 2):
        scene.tell(*question())
        await scene.audience.until("response.done", n)


@pytest.mark.parametrize(
    ("how", "code"), [({"error": "deaf"}, "failed"), ({"stall": True}, "stalled")]
)
def test_a_recogniser_that_breaks_down_costs_one_response(how: dict[str, Any], code: str) -> None:
    async def script(scene: Scene) -> None:
        for n in (1, 2):
            await scene.say()
            await scene.audience.until("response.done", n)

    heard = {"transcripts": [{"text": "x", **how}, "who is there"]}
    scene = play(script, turn_detection=CLOCK_TURN, stt=heard)
    assert scene.audience.endings == [("failed", f"stt_{code}"), ("completed", None)]
    one_error_after_the_first_response(scene.audience)


def one_error_after_the_first_response(audience: Audience) -> None:
    types = audience.types
    assert types.count("error") == 1
    assert types.index("error") > types.index("response.done")
    assert types.index("error") < len(types) - 1 - types[::-1].index("response.created")


class Doubter:
    """A judge of turns that cannot judge."""

    def __init__(self, problem: Exception | None) -> None:
        self._problem = problem

    async def score(self, text: str, *, language: str | None) -> float:
        if self._problem:
            raise self._problem
        await asyncio.Event().wait()
        raise AssertionError


@pytest.mark.parametrize("problem", [EngineError("no idea"), None], ids=["fails", "stalls"])
def test_without_a_judge_of_turns_a_silence_ends_them(problem: Exception | None) -> None:
    async def script(scene: Scene) -> None:
        for n in (1, 2):
            await scene.say(LOUD * 20 + SOFT * 200)
            await scene.audience.until("response.done", n)

    words = {"transcripts": [{"text": "yes please", "partials": True}], "word_ms": 100}
    troupe = Troupe(stt=words)
    troupe.turn = Doubter(problem)  # type: ignore[assignment]
    scene = play(script, turn_detection=SemanticVad(), troupe=troupe)
    assert scene.audience.endings == [("completed", None)] * 2


@pytest.mark.parametrize("problem", [EngineError("no idea"), None], ids=["fails", "stalls"])
def test_a_judge_of_turns_that_has_nothing_to_say_delays_no_answer(
    problem: Exception | None, caplog: pytest.LogCaptureFixture
) -> None:
    async def script(scene: Scene) -> None:
        for fact in speech(LOUD * 20 + SOFT * 100):  # as fast as it is spoken
            scene.tell(fact)
            await asyncio.sleep(0.032)

    words = {"transcripts": [{"text": "yes please", "partials": True}], "word_ms": 100}
    troupe = Troupe(stt=words)
    troupe.turn = Doubter(problem)  # type: ignore[assignment]
    scene = play(script, turn_detection=SemanticVad(), troupe=troupe)
    (stopped,) = [e for e in scene.audience.events if isinstance(e, SpeechStopped)]
    assert stopped.audio_end_ms < 2000  # of 640 ms of speech; undecided it would be 4640
    reason = str(problem) if problem else "no score came within 1 s"
    assert caplog.messages == [f"turns are ended by silence alone: {reason}"]


class Broken:
    """An engine of any kind that has a bug."""

    def __init__(self, scripted: Any) -> None:
        self._scripted = scripted

    def __getattr__(self, name: str) -> Any:
        if name in ("transcribe", "generate", "synthesize", "score"):
            return self._bug
        return getattr(self._scripted, name)

    def _bug(self, *args: Any, **kwargs: Any) -> Any:
        raise KeyError("a bug in an engine")


@pytest.mark.parametrize("kind", ["vad", "turn", "stt", "llm", "tts"])
def test_a_bug_in_an_engine_ends_the_session(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    async def script(scene: Scene) -> None:
        scene.tell(*speech(LOUD * 20 + SOFT * 200))
        await asyncio.sleep(20)
        assert scene.audience.closed == (1011, "the server had an error")
        assert scene.given_back()

    words = {"transcripts": [{"text": "yes please", "partials": True}], "word_ms": 100}
    troupe = Troupe(stt=words)
    held = troupe.vad.held
    setattr(troupe, kind, Broken(getattr(troupe, kind)))
    scene = play(script, turn_detection=SemanticVad(), troupe=troupe)
    assert not held
    assert final_error(scene.audience) == (
        ("vad_failed", "Voice activity detection failed; the session ends.")
        if kind == "vad"
        else ("internal_error", "The server had an error; the session ends.")
    )
    assert [record.message for record in caplog.records] == ["session sess_1 failed"]
    assert "a bug in an engine" in caplog.text


def final_error(audience: Audience) -> tuple[str | None, str]:
    """Code and message of the last event."""
    last = audience.events[-1]
    assert isinstance(last, ErrorEvent)
    assert (last.error.type, last.event_id[:6]) == ("server_error", "event_")
    return last.error.code, last.error.message


def test_an_ear_that_fails_says_why(caplog: pytest.LogCaptureFixture) -> None:
    class Deaf(Broken):
        def _bug(self, *args: Any, **kwargs: Any) -> Any:
            raise EngineError("the graphics card is gone")

    async def script(scene: Scene) -> None:
        await scene.say()
        await scene.running

    troupe = Troupe()
    troupe.vad = Deaf(troupe.vad)  # type: ignore[assignment]
    scene = play(script, turn_detection=CLOCK_TURN, troupe=troupe)
    assert final_error(scene.audience) == (
        "vad_failed",
        "Voice activity detection failed: the graphics card is gone; the session ends.",
    )
    assert caplog.messages == ["session sess_1 failed"]


def test_a_bug_in_a_session_ends_that_one_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        troupe = Troupe(tts={"realtime_factor": 1})
        first = a_scene(troupe, SessionLimits(), None)
        second = a_scene(troupe, SessionLimits(), None)
        await asyncio.sleep(0)
        for scene in (first, second):
            scene.tell(*question())
            await scene.audience.until("response.output_audio.delta")
        first.tell(Received(InputAudioCommit(event_id="boom")))
        await first.running
        assert first.audience.closed == (1011, "the server had an error")
        assert final_error(first.audience)[0] == "internal_error"
        await second.audience.until("response.done")
        assert second.audience.endings == [("completed", None)]
        second.tell(Disconnected())
        await second.running
        assert second.given_back()

    with caplog.at_level(logging.ERROR):
        run(main())
    assert [record.message for record in caplog.records] == ["session sess_1 failed"]


def test_a_bug_in_the_greeting_ends_the_session() -> None:
    class Mute(Audience):
        def send(self, event: Any) -> None:
            raise KeyError("a bug in the door")

    async def main() -> Audience:
        audience = Mute()
        session = Session(template(), MODELS, SessionLimits(), salt="t", now=0.0)
        await make_runner(session, audience, Troupe().catalog).run()
        return audience

    assert run(main()).closed == (1011, "the server had an error")


def test_after_the_close_nothing_is_told_and_nothing_kept() -> None:
    async def script(scene: Scene) -> None:
        scene.tell(Disconnected())
        count = len(scene.audience.events)
        scene.tell(*question(), *speech())
        await asyncio.sleep(10)
        assert len(scene.audience.events) == count

    play(script)


def test_a_session_that_is_let_go_hears_the_reason_of_the_house() -> None:
    async def script(scene: Scene) -> None:
        scene.tell(*question())
        await scene.audience.until("response.output_audio.delta")
        scene.runner.end(1012, "the server is shutting down")

    scene = play(script, tts={"realtime_factor": 1}, llm=answers("word " * 100))
    assert scene.audience.closed == (1012, "the server is shutting down")
    assert scene.audience.endings == [("cancelled", None)]


def test_draining_lets_the_answer_end() -> None:
    async def script(scene: Scene) -> None:
        scene.tell(*question())
        await scene.audience.until("response.output_audio.delta")
        scene.tell(DrainStarted())
        await scene.running

    scene = play(script, tts={"realtime_factor": 1}, llm=answers("word " * 10))
    assert scene.audience.endings == [("completed", None)]
    assert scene.audience.closed == (1012, "the server is shutting down")


def test_whoever_cancels_the_run_gets_everything_back() -> None:
    async def main() -> None:
        scene = a_scene(Troupe(tts={"realtime_factor": 1}), SessionLimits(), ServerVad())
        await asyncio.sleep(0)
        scene.tell(*question(), *speech(LOUD * 2))
        await scene.audience.until("response.output_audio.delta")
        scene.running.cancel()
        await asyncio.wait([scene.running])
        assert scene.given_back()

    run(main())


def test_a_session_ends_at_its_time_though_its_deadline_moved() -> None:
    async def script(scene: Scene) -> None:
        for _ in range(5):
            await asyncio.sleep(10)
            scene.tell(*question())
        await scene.running
        assert asyncio.get_running_loop().time() == 62.0

    scene = play(script, limits=SessionLimits(max_seconds=62.0, idle_seconds=20.0))
    assert scene.audience.closed == (
        1001,
        "Your session hit the maximum duration of 62 seconds.",
    )


def test_a_session_in_which_nothing_happens_ends_when_it_is_idle() -> None:
    async def script(scene: Scene) -> None:
        await asyncio.sleep(15)
        scene.tell(InvalidFrame(InvalidRequest("a sign of life")))
        await scene.running
        assert asyncio.get_running_loop().time() == 35.0

    scene = play(script, limits=SessionLimits(idle_seconds=20.0))
    assert scene.audience.closed == (1000, "nothing came for 20 seconds")


def test_a_client_that_sends_faster_than_it_is_heard_waits() -> None:
    async def script(scene: Scene) -> None:
        scene.tell(*speech(SOFT * MAX_WAITING_WINDOWS))
        await scene.runner.wait_caught_up()
        assert asyncio.get_running_loop().time() == 0.0
        scene.tell(*speech(SOFT))
        waiting = asyncio.create_task(scene.runner.wait_caught_up())
        await asyncio.sleep(0)
        assert not waiting.done()
        await asyncio.sleep(1)
        assert waiting.done()

    play(script, turn_detection=ServerVad())


class Deaf:
    """A recogniser that takes no sound."""

    sample_rate = 24_000

    async def transcribe(self, audio: Any, **how: Any) -> Any:
        await asyncio.Event().wait()
        yield Transcript("", final=True)


def test_a_recogniser_that_takes_no_sound_does_not_silence_the_client() -> None:
    async def script(scene: Scene) -> None:
        sound = bytes(MAX_WAITING_BYTES + 2)
        scene.tell(Received(InputAudioAppend(audio=sound)))
        await scene.runner.wait_caught_up()
        assert asyncio.get_running_loop().time() == TAKE_TIMEOUT_S
        scene.tell(Received(InputAudioCommit()))
        await scene.runner.wait_caught_up()
        failed = "conversation.item.input_audio_transcription.failed"
        assert failed in scene.audience.types

    troupe = Troupe()
    troupe.stt = Deaf()  # type: ignore[assignment]
    play(script, troupe=troupe)


def test_sound_that_is_given_up_makes_room() -> None:
    async def script(scene: Scene) -> None:
        scene.tell(Received(InputAudioAppend(audio=bytes(MAX_WAITING_BYTES + 2))))
        scene.tell(Received(InputAudioCommit()))
        await scene.runner.wait_caught_up()
        assert asyncio.get_running_loop().time() == 3.0  # when the session gave it up

    troupe = Troupe()
    troupe.stt = Deaf()  # type: ignore[assignment]
    play(script, limits=SessionLimits(stall_seconds=3.0), troupe=troupe)


def test_who_waits_for_room_is_let_go_when_the_session_ends() -> None:
    async def script(scene: Scene) -> None:
        scene.tell(Received(InputAudioAppend(audio=bytes(MAX_WAITING_BYTES + 2))))
        waiting = asyncio.create_task(scene.runner.wait_caught_up())
        await asyncio.sleep(1)
        scene.tell(Disconnected())
        await waiting
        assert asyncio.get_running_loop().time() == 1.0

    troupe = Troupe()
    troupe.stt = Deaf()  # type: ignore[assignment]
    play(script, troupe=troupe)


def test_a_client_that_is_behind_holds_the_answer_up() -> None:
    async def script(scene: Scene) -> None:
        scene.audience.attention.clear()
        scene.tell(*question())
        await asyncio.sleep(5)
        assert scene.audience.types.count("response.output_audio.delta") == 1
        scene.audience.attention.set()
        await scene.audience.until("response.done")

    scene = play(script, llm=answers("word " * 20))
    assert isinstance(scene.audience.events[-2], ResponseDone)


class Recorder:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, list[str]]] = []

    def on(self, fact: Fact | None, effects: list[Effect], now: float) -> None:
        self.seen.append((type(fact).__name__, [type(effect).__name__ for effect in effects]))


def test_observer_sees_every_fact_with_its_effects() -> None:
    async def main() -> Recorder:
        recorder, audience = Recorder(), Audience()
        session = Session(template(), MODELS, SessionLimits(), salt="t", now=0.0)
        runner = make_runner(session, audience, Troupe().catalog, observers=[recorder])
        running = asyncio.create_task(runner.run())
        await asyncio.sleep(0)
        for fact in question():
            runner.post(fact)
        await audience.until("response.done")
        runner.post(Disconnected())
        await running
        return recorder

    seen = run(main()).seen
    assert seen[0] == ("NoneType", ["Send"])
    assert seen[1] == ("Received", ["Send", "Send"])
    assert seen[2] == ("Received", ["Send", "Generate"])
    assert seen[-1] == ("Disconnected", ["Close"])
    assert [fact for fact, effects in seen if "RecordUsage" in effects] == ["OutputFinished"]


def test_checkpoint_is_stored_when_the_session_is_at_rest() -> None:
    async def main() -> list[Checkpoint]:
        stored: list[Checkpoint] = []

        async def save(checkpoint: Checkpoint) -> None:
            stored.append(checkpoint)

        audience = Audience()
        session = Session(template(), MODELS, SessionLimits(), salt="t", now=0.0)
        runner = make_runner(session, audience, Troupe().catalog, save=save)
        running = asyncio.create_task(runner.run())
        await asyncio.sleep(0)
        for fact in question():
            runner.post(fact)
        await audience.until("response.done")
        await asyncio.sleep(1)
        runner.post(Disconnected())
        await running
        return stored

    *_, last = run(main())
    assert [type(entry.item).__name__ for entry in last.entries] == ["Message", "Message"]
    assert last.usage.responses == 1
    assert 3598 < last.expires_in <= 3600


def test_store_that_fails_does_not_end_the_session(caplog: pytest.LogCaptureFixture) -> None:
    async def save(checkpoint: Checkpoint) -> None:
        raise StoreError("the disk is full")

    async def main() -> list[tuple[str, str | None]]:
        audience = Audience()
        session = Session(template(), MODELS, SessionLimits(), salt="t", now=0.0)
        runner = make_runner(session, audience, Troupe().catalog, save=save)
        running = asyncio.create_task(runner.run())
        await asyncio.sleep(0)
        for fact in question():
            runner.post(fact)
        await audience.until("response.done")
        await asyncio.sleep(1)
        runner.post(Disconnected())
        await running
        return audience.endings

    assert run(main()) == [("completed", None)]
    assert set(caplog.messages) == {"sess_1: not stored: the disk is full"}


def test_ended_session_is_freed_without_garbage_collection() -> None:
    """A session may hold minutes of audio: no reference cycle may keep it."""

    async def main() -> weakref.ref[Session]:
        audience = Audience()
        session = Session(template(ServerVad()), MODELS, SessionLimits(), salt="t", now=0.0)
        catalog = Troupe(llm=answers("word " * 50), tts={"realtime_factor": 1}).catalog
        runner = make_runner(session, audience, catalog, observers=[Recorder()])
        running = asyncio.create_task(runner.run())
        await asyncio.sleep(0)
        for fact in (*speech(), *question()):
            runner.post(fact)
            await runner.wait_caught_up()
        await audience.until("response.output_audio.delta")
        runner.post(Disconnected())
        await running
        return weakref.ref(session)

    gc.collect()
    gc.disable()
    try:
        assert run(main())() is None
    finally:
        gc.enable()
