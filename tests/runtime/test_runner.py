"""The runner performs effects, isolates failures, and releases all engines."""

import asyncio
import base64
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
    TURN_SAMPLES,
    RecordingPeer,
    ScriptedEngines,
    make_runner,
    question,
    speech,
    template,
)
from vivavoce.engines.base import Transcript
from vivavoce.engines.scripted.engines import ScriptedTurn
from vivavoce.engines.scripted.scripts import TurnScript
from vivavoce.errors import EngineError, InvalidRequest
from vivavoce.protocol import codec
from vivavoce.protocol.client import InputAudioAppend, InputAudioCommit, ItemDelete, ResponseCancel
from vivavoce.protocol.server import (
    ErrorEvent,
    OutputAudioDelta,
    OutputTranscriptDone,
    ResponseDone,
    SessionCreated,
    SpeechStopped,
)
from vivavoce.protocol.session import SemanticVad, ServerVad, TurnDetection
from vivavoce.runtime.performers import MAX_WAITING_BYTES, MAX_WAITING_WINDOWS
from vivavoce.runtime.runner import TAKE_TIMEOUT_S, Runner
from vivavoce.session.cascade.turn_detection import WINDOW
from vivavoce.session.checkpoint import Checkpoint
from vivavoce.session.effects import Effect
from vivavoce.session.facts import Disconnected, DrainStarted, Fact, InvalidFrame, Received
from vivavoce.session.limits import SessionLimits
from vivavoce.session.shell import Session
from vivavoce.testing.virtual_time import run

CLOCK_TURN = ServerVad(create_response=True)


@dataclass
class SessionRun:
    """A running session with its client and engines."""

    scripted: ScriptedEngines
    peer: RecordingPeer
    runner: Runner
    running: asyncio.Task[None]

    def post(self, *facts: Fact) -> None:
        for fact in facts:
            self.runner.post(fact)

    async def say(self, sound: bytes = TURN) -> None:
        """Send audio like a transport: wait until the session has caught up."""
        for fact in speech(sound):
            self.runner.post(fact)
            await self.runner.wait_caught_up()

    def given_back(self) -> bool:
        """Whether the session has released all engines and tasks."""
        return not (self.scripted.vad.held or self.scripted.running.count or others())


def others() -> set[asyncio.Task[Any]]:
    """All tasks but this one."""
    return asyncio.all_tasks() - {asyncio.current_task()}


class Fragile(Session):
    """A session that raises KeyError on an event with the id "boom"."""

    def handle(self, fact: Fact, now: float) -> list[Effect]:
        if isinstance(fact, Received) and fact.event.event_id == "boom":
            raise KeyError("a bug in the session")
        return super().handle(fact, now)


def start_session(
    scripted: ScriptedEngines, limits: SessionLimits, turn_detection: TurnDetection | None
) -> SessionRun:
    peer = RecordingPeer()
    now = asyncio.get_running_loop().time()
    session = Fragile(template(turn_detection), MODELS, limits, salt="t", now=now)
    runner = make_runner(session, peer, scripted.catalog)
    return SessionRun(scripted, peer, runner, asyncio.create_task(runner.run()))


def play(
    script: Callable[[SessionRun], Awaitable[None]],
    *,
    limits: SessionLimits | None = None,
    turn_detection: TurnDetection | None = None,
    **engines: Any,
) -> SessionRun:
    """Run a script, disconnect the client, and check that everything is released."""

    async def main() -> SessionRun:
        scripted = engines.pop("scripted", None) or ScriptedEngines(**engines)
        call = start_session(scripted, limits or SessionLimits(), turn_detection)
        await asyncio.sleep(0)
        await script(call)
        call.post(Disconnected())
        await call.running
        assert call.given_back()
        return call

    return run(main())


def answers(*texts: Any) -> dict[str, Any]:
    return {"answers": list(texts)}


def test_text_item_is_answered_with_audio() -> None:
    async def script(call: SessionRun) -> None:
        call.post(*question())
        await call.peer.until("response.done")

    call = play(script, llm=answers("It is noon."))
    assert call.peer.types[0] == "session.created"
    assert call.peer.endings == [("completed", None)]
    assert call.peer.closed == (1000, "the client left")
    sound = [e.delta for e in call.peer.events if isinstance(e, OutputAudioDelta)]
    assert len(b"".join(sound)) == len("It is noon.") * 60 * 48


def test_answer_cut_off_by_a_sound_without_words_goes_on_where_it_stopped() -> None:
    text = "One two three four five. Six seven eight nine ten. Eleven twelve."

    async def script(call: SessionRun) -> None:
        call.post(*question())
        await call.peer.until("response.done")
        for fact in speech(LOUD * 20 + SOFT * 40):
            call.post(fact)
            await asyncio.sleep(0.032)
        await call.peer.until("response.done", 2)

    judged = ServerVad(interruption="judged")
    call = play(script, turn_detection=judged, llm=answers(text), stt={"transcripts": [""]})
    assert call.peer.endings == [("completed", None)] * 2
    first, rest = (
        event.transcript for event in call.peer.events if isinstance(event, OutputTranscriptDone)
    )
    assert first == text
    assert rest
    assert text.endswith(rest)
    assert len(rest) < len(text)


def test_spoken_turn_is_transcribed_and_answered() -> None:
    async def script(call: SessionRun) -> None:
        await call.say()
        await call.peer.until("response.done")

    call = play(script, turn_detection=CLOCK_TURN, stt={"transcripts": ["who is there"]})
    assert [type_ for type_ in call.peer.types if type_.startswith("input_audio")] == [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
    ]
    assert "conversation.item.input_audio_transcription.completed" in call.peer.types
    assert call.peer.endings == [("completed", None)]


def test_first_audio_comes_1150_ms_after_the_turn_decision() -> None:
    """STT 300 ms, LLM 500 ms and then 40 tokens a second, TTS 300 ms."""
    text = "I can help you with that whenever you like because today my calendar is empty."

    async def script(call: SessionRun) -> None:
        await call.say()
        await call.peer.until("input_audio_buffer.committed")
        decided = asyncio.get_running_loop().time()
        await call.peer.until("response.output_audio.delta")
        assert asyncio.get_running_loop().time() - decided <= 1.15 + 1e-6
        await call.peer.until("response.done")

    call = play(
        script,
        turn_detection=CLOCK_TURN,
        stt={"transcripts": [{"text": "what can you do", "delay_seconds": 0.3}]},
        llm=answers({"text": text, "first_token_seconds": 0.5, "tokens_per_second": 40}),
        tts={"first_audio_seconds": 0.3},
    )
    assert call.peer.endings == [("completed", None)]


def test_turn_detector_decides_the_end_of_a_turn() -> None:
    async def script(call: SessionRun) -> None:
        await call.say(LOUD * 20 + SOFT * 40)
        await call.peer.until("input_audio_buffer.speech_stopped")

    words = {"transcripts": [{"text": "yes please", "partials": True}], "word_ms": 100}
    call = play(
        script, turn_detection=SemanticVad(), stt=words, turn={"table": {"yes please": 1.0}}
    )
    assert call.scripted.turn.asked == ["yes please"]


def test_barge_in_cancels_the_answer_at_once() -> None:
    async def script(call: SessionRun) -> None:
        call.post(*question())
        await call.peer.until("response.output_audio.delta")
        await call.say(LOUD * 4)
        await call.peer.until("response.done")
        await asyncio.sleep(0)
        assert call.scripted.running.count == 1  # only the transcription runs

    slow = {"realtime_factor": 1}
    call = play(script, turn_detection=ServerVad(), tts=slow, llm=answers("word " * 100))
    assert call.peer.endings == [("cancelled", None)]


def test_cancelled_response_sends_no_further_events() -> None:
    async def script(call: SessionRun) -> None:
        call.post(*question())
        await call.peer.until("response.output_audio.delta")
        call.post(Received(ResponseCancel()))
        count = len(call.peer.events)
        await asyncio.sleep(5)
        assert len(call.peer.events) == count
        assert call.peer.types[-2:] == ["response.done", "rate_limits.updated"]

    play(script, tts={"realtime_factor": 1}, llm=answers("word " * 100))


def test_deleted_item_cancels_its_transcription() -> None:
    async def script(call: SessionRun) -> None:
        call.post(*(Received(InputAudioAppend(audio=LOUD)) for _ in range(10)))
        call.post(Received(InputAudioCommit()))
        await asyncio.sleep(1)
        assert call.scripted.running.count == 1
        item_id = next(e.item.id for e in call.peer.events if hasattr(e, "item"))
        call.post(Received(ItemDelete(item_id=item_id)))
        await asyncio.sleep(0)
        assert call.scripted.running.count == 0

    play(script, stt={"transcripts": [{"stall": True}]})


def test_invalid_frame_is_an_error_and_the_session_goes_on() -> None:
    async def script(call: SessionRun) -> None:
        call.post(InvalidFrame(InvalidRequest("no event")), *question())
        await call.peer.until("response.done")

    assert play(script).peer.types.count("error") == 1


STAGES = {
    "at the start": ({"fail_after_words": 0}, {"fail_after_ms": 0}),
    "in the middle": ({"fail_after_words": 2}, {"fail_after_ms": 50}),
    "at the end": ({"fail_after_words": 99}, {"fail_after_ms": 99_000}),
}


@pytest.mark.parametrize("when", STAGES)
def test_llm_failure_fails_one_response(when: str) -> None:
    broken = {"text": "One. Two. Three. ", "error": "the model is down", **STAGES[when][0]}
    call = play(two_questions, llm=answers(broken, "Fine."))
    assert call.peer.endings == [("failed", "llm_failed"), ("completed", None)]
    one_error_after_the_first_response(call.peer)


@pytest.mark.parametrize("when", STAGES)
def test_llm_stall_fails_one_response(when: str) -> None:
    broken = {"text": "One. Two. Three. ", "stall": True, **STAGES[when][0]}
    call = play(two_questions, llm=answers(broken, "Fine."))
    one_error_after_the_first_response(call.peer)
    assert call.peer.endings == [("failed", "llm_stalled"), ("completed", None)]


@pytest.mark.parametrize("when", STAGES)
@pytest.mark.parametrize(
    ("how", "ending"),
    [("fail_on", ("completed", "tts_failed")), ("stall_on", ("failed", "tts_stalled"))],
)
def test_tts_failure_costs_one_response_its_sound(
    when: str, how: str, ending: tuple[str, str]
) -> None:
    script = {how: "Bad", **STAGES[when][1]}
    call = play(two_questions, llm=answers("Bad luck to you.", "Fine."), tts=script)
    assert call.peer.endings == [ending, ("completed", None)]
    one_error_after_the_first_response(call.peer)


async def two_questions(call: SessionRun) -> None:
    for n in (1, 2):
        call.post(*question())
        await call.peer.until("response.done", n)


@pytest.mark.parametrize(
    ("how", "code"), [({"error": "deaf"}, "failed"), ({"stall": True}, "stalled")]
)
def test_stt_failure_fails_one_response(how: dict[str, Any], code: str) -> None:
    async def script(call: SessionRun) -> None:
        for n in (1, 2):
            await call.say()
            await call.peer.until("response.done", n)

    heard = {"transcripts": [{"text": "x", **how}, "who is there"]}
    call = play(script, turn_detection=CLOCK_TURN, stt=heard)
    assert call.peer.endings == [("failed", f"stt_{code}"), ("completed", None)]
    one_error_after_the_first_response(call.peer)


def one_error_after_the_first_response(peer: RecordingPeer) -> None:
    types = peer.types
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
def test_turn_detector_failure_falls_back_to_silence(problem: Exception | None) -> None:
    async def script(call: SessionRun) -> None:
        for n in (1, 2):
            await call.say(LOUD * 20 + SOFT * 200)
            await call.peer.until("response.done", n)

    words = {"transcripts": [{"text": "yes please", "partials": True}], "word_ms": 100}
    scripted = ScriptedEngines(stt=words)
    scripted.turn = Doubter(problem)  # type: ignore[assignment]
    call = play(script, turn_detection=SemanticVad(), scripted=scripted)
    assert call.peer.endings == [("completed", None)] * 2


class Listener(ScriptedTurn):
    """Decides by the sound."""

    audio_seconds = 1.0

    def __init__(self) -> None:
        super().__init__(TurnScript())
        self.heard: list[tuple[bytes, str]] = []

    async def score_audio(self, pcm: bytes, text: str, *, language: str | None) -> float:
        self.heard.append((pcm, text))
        return 1.0


def test_turn_detector_that_wants_audio_gets_the_end_of_the_turn() -> None:
    async def script(call: SessionRun) -> None:
        for fact in speech(LOUD * 40 + SOFT * 20):
            call.post(fact)
            await asyncio.sleep(0.032)

    words = {"transcripts": [{"text": "yes please", "partials": True}], "word_ms": 100}
    scripted = ScriptedEngines(stt=words)
    scripted.turn = listener = Listener()
    assert scripted.cascade.info.turn_samples == TURN_SAMPLES
    call = play(script, turn_detection=SemanticVad(), scripted=scripted)
    (stopped,) = [e for e in call.peer.events if isinstance(e, SpeechStopped)]
    assert stopped.audio_end_ms < 1800  # of 1280 ms of speech, by the sound
    pcm, text = listener.heard[-1]
    assert text == "yes please"
    assert len(pcm) == 2 * TURN_SAMPLES
    silent = (len(pcm) - len(pcm.rstrip(b"\0"))) // len(SOFT)
    assert 5 <= silent <= 12  # asked after a pause of 160 ms, and before one of 400 ms
    assert pcm.endswith(LOUD * 8 + SOFT * silent)


@pytest.mark.parametrize("problem", [EngineError("no idea"), None], ids=["fails", "stalls"])
def test_turn_detector_without_a_score_delays_no_answer(
    problem: Exception | None, caplog: pytest.LogCaptureFixture
) -> None:
    async def script(call: SessionRun) -> None:
        for fact in speech(LOUD * 20 + SOFT * 100):  # as fast as it is spoken
            call.post(fact)
            await asyncio.sleep(0.032)

    words = {"transcripts": [{"text": "yes please", "partials": True}], "word_ms": 100}
    scripted = ScriptedEngines(stt=words)
    scripted.turn = Doubter(problem)  # type: ignore[assignment]
    call = play(script, turn_detection=SemanticVad(), scripted=scripted)
    (stopped,) = [e for e in call.peer.events if isinstance(e, SpeechStopped)]
    assert stopped.audio_end_ms < 2000  # of 640 ms of speech; undecided it would be 4640
    reason = str(problem) if problem else "no score came within 0.5 s"
    assert caplog.messages == [f"turn detection fails, turns end without the words: {reason}"]


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
def test_engine_exception_closes_the_session_with_1011(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def script(call: SessionRun) -> None:
        call.post(*speech(LOUD * 20 + SOFT * 200))
        await asyncio.sleep(20)
        assert call.peer.closed == (1011, "the server had an error")
        assert call.given_back()

    words = {"transcripts": [{"text": "yes please", "partials": True}], "word_ms": 100}
    scripted = ScriptedEngines(stt=words)
    held = scripted.vad.held
    setattr(scripted, kind, Broken(getattr(scripted, kind)))
    call = play(script, turn_detection=SemanticVad(), scripted=scripted)
    assert not held
    assert final_error(call.peer) == (
        ("vad_failed", "Voice activity detection failed; the session ends.")
        if kind == "vad"
        else ("internal_error", "The server had an error; the session ends.")
    )
    assert [record.message for record in caplog.records] == ["session sess_1 failed"]
    assert "a bug in an engine" in caplog.text


def final_error(peer: RecordingPeer) -> tuple[str | None, str]:
    """Code and message of the last event."""
    last = peer.events[-1]
    assert isinstance(last, ErrorEvent)
    assert (last.error.type, last.event_id[:6]) == ("server_error", "event_")
    return last.error.code, last.error.message


def test_vad_failure_names_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    class FailingVad(Broken):
        def _bug(self, *args: Any, **kwargs: Any) -> Any:
            raise EngineError("the graphics card is gone")

    async def script(call: SessionRun) -> None:
        await call.say()
        await call.running

    scripted = ScriptedEngines()
    scripted.vad = FailingVad(scripted.vad)  # type: ignore[assignment]
    call = play(script, turn_detection=CLOCK_TURN, scripted=scripted)
    assert final_error(call.peer) == (
        "vad_failed",
        "Voice activity detection failed: the graphics card is gone; the session ends.",
    )
    assert caplog.messages == ["session sess_1 failed"]


def test_session_exception_ends_only_that_session(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        scripted = ScriptedEngines(tts={"realtime_factor": 1})
        first = start_session(scripted, SessionLimits(), None)
        second = start_session(scripted, SessionLimits(), None)
        await asyncio.sleep(0)
        for call in (first, second):
            call.post(*question())
            await call.peer.until("response.output_audio.delta")
        first.post(Received(InputAudioCommit(event_id="boom")))
        await first.running
        assert first.peer.closed == (1011, "the server had an error")
        assert final_error(first.peer)[0] == "internal_error"
        await second.peer.until("response.done")
        assert second.peer.endings == [("completed", None)]
        second.post(Disconnected())
        await second.running
        assert second.given_back()

    with caplog.at_level(logging.ERROR):
        run(main())
    assert [record.message for record in caplog.records] == ["session sess_1 failed"]


def test_peer_exception_in_the_first_event_ends_the_session() -> None:
    class Mute(RecordingPeer):
        def send(self, event: Any) -> None:
            raise KeyError("a bug in the transport")

    async def main() -> RecordingPeer:
        peer = Mute()
        session = Session(template(), MODELS, SessionLimits(), salt="t", now=0.0)
        await make_runner(session, peer, ScriptedEngines().catalog).run()
        return peer

    assert run(main()).closed == (1011, "the server had an error")


def test_facts_after_the_close_have_no_effect() -> None:
    async def script(call: SessionRun) -> None:
        call.post(Disconnected())
        count = len(call.peer.events)
        call.post(*question(), *speech())
        await asyncio.sleep(10)
        assert len(call.peer.events) == count

    play(script)


def test_ended_session_is_closed_with_the_given_reason() -> None:
    async def script(call: SessionRun) -> None:
        call.post(*question())
        await call.peer.until("response.output_audio.delta")
        call.runner.end(1012, "the server is shutting down", "shutdown")

    call = play(script, tts={"realtime_factor": 1}, llm=answers("word " * 100))
    assert call.peer.closed == (1012, "the server is shutting down")
    assert call.peer.endings == [("cancelled", None)]


def test_drain_lets_the_answer_end() -> None:
    async def script(call: SessionRun) -> None:
        call.post(*question())
        await call.peer.until("response.output_audio.delta")
        call.post(DrainStarted())
        await call.running

    call = play(script, tts={"realtime_factor": 1}, llm=answers("word " * 10))
    assert call.peer.endings == [("completed", None)]
    assert call.peer.closed == (1012, "the server is shutting down")


def test_cancelled_run_releases_all_engines() -> None:
    async def main() -> None:
        call = start_session(
            ScriptedEngines(tts={"realtime_factor": 1}), SessionLimits(), ServerVad()
        )
        await asyncio.sleep(0)
        call.post(*question(), *speech(LOUD * 2))
        await call.peer.until("response.output_audio.delta")
        call.running.cancel()
        await asyncio.wait([call.running])
        assert call.given_back()

    run(main())


def test_max_seconds_ends_the_session_after_its_deadline_moved() -> None:
    async def script(call: SessionRun) -> None:
        for _ in range(5):
            await asyncio.sleep(10)
            call.post(*question())
        await call.running
        assert asyncio.get_running_loop().time() == 62.0

    call = play(script, limits=SessionLimits(max_seconds=62.0, idle_seconds=20.0))
    assert call.peer.closed == (
        1001,
        "Your session hit the maximum duration of 62 seconds.",
    )


def test_session_in_which_nothing_happens_ends_after_max_seconds() -> None:
    async def script(call: SessionRun) -> None:
        await call.running
        assert asyncio.get_running_loop().time() == 62.0

    call = play(script, limits=SessionLimits(max_seconds=62.0))
    assert call.peer.closed is not None
    assert call.peer.closed[0] == 1001


def test_idle_session_ends_after_idle_seconds() -> None:
    async def script(call: SessionRun) -> None:
        await asyncio.sleep(15)
        call.post(InvalidFrame(InvalidRequest("a sign of life")))
        await call.running
        assert asyncio.get_running_loop().time() == 35.0

    call = play(script, limits=SessionLimits(idle_seconds=20.0))
    assert call.peer.closed == (1000, "nothing came for 20 seconds")


def test_wait_caught_up_waits_for_vad() -> None:
    async def script(call: SessionRun) -> None:
        call.post(*speech(SOFT * MAX_WAITING_WINDOWS))
        await call.runner.wait_caught_up()
        assert asyncio.get_running_loop().time() == 0.0
        call.post(*speech(SOFT))
        waiting = asyncio.create_task(call.runner.wait_caught_up())
        await asyncio.sleep(0)
        assert not waiting.done()
        await asyncio.sleep(1)
        assert waiting.done()

    play(script, turn_detection=ServerVad())


class StalledStt:
    """A recogniser that takes no sound."""

    sample_rate = 24_000

    async def transcribe(self, audio: Any, **how: Any) -> Any:
        await asyncio.Event().wait()
        yield Transcript("", final=True)


def test_stalled_recogniser_does_not_block_the_client() -> None:
    async def script(call: SessionRun) -> None:
        sound = bytes(MAX_WAITING_BYTES + 2)
        call.post(Received(InputAudioAppend(audio=sound)))
        await call.runner.wait_caught_up()
        assert asyncio.get_running_loop().time() == TAKE_TIMEOUT_S
        call.post(Received(InputAudioCommit()))
        await call.runner.wait_caught_up()
        failed = "conversation.item.input_audio_transcription.failed"
        assert failed in call.peer.types

    scripted = ScriptedEngines()
    scripted.stt = StalledStt()  # type: ignore[assignment]
    play(script, scripted=scripted)


def test_wait_caught_up_ends_when_audio_is_dropped() -> None:
    async def script(call: SessionRun) -> None:
        call.post(Received(InputAudioAppend(audio=bytes(MAX_WAITING_BYTES + 2))))
        call.post(Received(InputAudioCommit()))
        await call.runner.wait_caught_up()
        assert asyncio.get_running_loop().time() == 3.0  # when the session gave it up

    scripted = ScriptedEngines()
    scripted.stt = StalledStt()  # type: ignore[assignment]
    play(script, limits=SessionLimits(stall_seconds=3.0), scripted=scripted)


def test_wait_caught_up_ends_with_the_session() -> None:
    async def script(call: SessionRun) -> None:
        call.post(Received(InputAudioAppend(audio=bytes(MAX_WAITING_BYTES + 2))))
        waiting = asyncio.create_task(call.runner.wait_caught_up())
        await asyncio.sleep(1)
        call.post(Disconnected())
        await waiting
        assert asyncio.get_running_loop().time() == 1.0

    scripted = ScriptedEngines()
    scripted.stt = StalledStt()  # type: ignore[assignment]
    play(script, scripted=scripted)


def test_slow_client_delays_the_answer() -> None:
    async def script(call: SessionRun) -> None:
        call.peer.writable.clear()
        call.post(*question())
        await asyncio.sleep(5)
        assert call.peer.types.count("response.output_audio.delta") == 1
        call.peer.writable.set()
        await call.peer.until("response.done")

    call = play(script, llm=answers("word " * 20))
    assert isinstance(call.peer.events[-2], ResponseDone)


class Recorder:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, list[str]]] = []

    def on(self, fact: Fact | None, effects: list[Effect], now: float) -> None:
        self.seen.append((type(fact).__name__, [type(effect).__name__ for effect in effects]))


def answer_one_question(**more: Any) -> RecordingPeer:
    """A session in which one question is answered. `more` goes to the runner."""

    async def main() -> RecordingPeer:
        peer = RecordingPeer()
        session = Session(template(), MODELS, SessionLimits(), salt="t", now=0.0)
        runner = make_runner(session, peer, ScriptedEngines().catalog, **more)
        running = asyncio.create_task(runner.run())
        await asyncio.sleep(0)
        for fact in question():
            runner.post(fact)
        await peer.until("response.done")
        await asyncio.sleep(1)
        runner.post(Disconnected())
        await running
        return peer

    return run(main())


def test_observer_sees_every_fact_with_its_effects() -> None:
    recorder = Recorder()
    answer_one_question(observers=[recorder])
    seen = recorder.seen
    assert seen[0] == ("NoneType", ["Send"])
    assert seen[1] == ("Received", ["Send", "Send"])
    assert seen[2] == ("Received", ["Send", "Generate"])
    assert seen[-1] == ("Disconnected", ["Close"])
    assert [fact for fact, effects in seen if "RecordUsage" in effects] == ["OutputFinished"]


class Faulty(Recorder):
    """An observer that fails on what the client sends, and from then on."""

    def on(self, fact: Fact | None, effects: list[Effect], now: float) -> None:
        if isinstance(fact, Received) or self.seen[-1:] == [("failed", [])]:
            self.seen.append(("failed", []))
            raise KeyError("a bug in an observer")
        super().on(fact, effects, now)


def test_observers_see_the_close_of_a_session_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    faulty, recorder, peer = Faulty(), Recorder(), RecordingPeer()

    async def main() -> None:
        session = Session(template(), MODELS, SessionLimits(), salt="t", now=0.0)
        observers = [recorder, faulty]
        runner = make_runner(session, peer, ScriptedEngines().catalog, observers=observers)
        for fact in question():
            runner.post(fact)
        await runner.run()

    run(main())
    assert peer.closed == (1011, "the server had an error")
    assert faulty.seen[1:] == [("failed", []), ("failed", [])]
    assert recorder.seen[-1] == ("NoneType", ["Close"])
    assert caplog.messages == ["session sess_1 failed"]


class AudioSkipper(Recorder):
    """An observer that wants no audio that goes on."""

    skips_audio = True


def test_observer_that_skips_audio_sees_the_first_of_an_answer_and_no_more_unless_it_is_shown() -> (
    None
):
    seen: list[list[str]] = []

    async def script() -> None:
        everything, skipper = Recorder(), AudioSkipper()
        session = Session(template(), MODELS, SessionLimits(), salt="t", now=0.0)
        scripted = ScriptedEngines(llm=answers("word " * 40), tts={"chunk_ms": 40})
        peer = RecordingPeer()
        runner = make_runner(session, peer, scripted.catalog, observers=[everything, skipper])
        running = asyncio.create_task(runner.run())
        await asyncio.sleep(0)
        for shown in (False, True, False):
            runner.show_audio(skipper, shown=shown)
            skipper.seen.clear()
            everything.seen.clear()
            done = peer.types.count("response.done") + 1
            for fact in question():
                runner.post(fact)
            await peer.until("response.done", done)
            seen.append([fact for fact, _ in skipper.seen if fact == "AudioGenerated"])
            assert len([fact for fact, _ in everything.seen if fact == "AudioGenerated"]) > 20
        runner.post(Disconnected())
        await running

    run(script())
    # the first of the answer, and the end of its one clause
    assert [len(each) > 20 for each in seen] == [False, True, False]
    assert len(seen[0]) == len(seen[2]) == 2


def test_append_like_one_before_it_is_taken_by_its_bytes_unless_too_much_waits() -> None:
    def frame(event_id: str, sound: bytes) -> bytes:
        audio = base64.b64encode(sound)
        return b'{"type":"input_audio_buffer.append","event_id":"%s","audio":"%s"}' % (
            event_id.encode(),
            audio,
        )

    async def script(call: SessionRun) -> None:
        runner, first = call.runner, frame("a", LOUD)
        assert not runner.pass_input(first)  # nothing like it has come before
        call.post(Received(codec.decode(first), first))
        assert runner.pass_input(frame("b", LOUD))
        assert runner.audio_samples[0] == 2 * WINDOW
        assert not runner.pass_input(b'{"type":"input_audio_buffer.commit"}')
        await runner.wait_caught_up()
        for event_id in "cd":
            assert runner.pass_input(frame(event_id, LOUD * (MAX_WAITING_WINDOWS // 2 + 1)))
        assert not runner.pass_input(frame("e", LOUD))
        await runner.wait_caught_up()
        assert runner.pass_input(frame("boom", LOUD))  # see Fragile
        assert call.peer.types[-1] == "error"
        assert not runner.pass_input(frame("f", LOUD))

    play(script, turn_detection=CLOCK_TURN)


class KeepsCheckpoints:
    """A keeper that keeps all checkpoints."""

    repeats_items = False

    def __init__(self, storing_s: float = 0.0) -> None:
        """storing_s: how long the store takes."""
        self.kept: list[Checkpoint] = []
        self.storing_s = storing_s

    def announced(self, event: SessionCreated) -> SessionCreated:
        return event

    def keep(self, checkpoint: Checkpoint) -> None:
        self.kept.append(checkpoint)

    async def wait_kept(self) -> None:
        await asyncio.sleep(self.storing_s)


def test_checkpoint_is_kept_when_the_session_is_at_rest_and_when_the_client_leaves() -> None:
    keeper = KeepsCheckpoints()
    answer_one_question(keeper=keeper)
    *_, at_rest, last = keeper.kept
    assert [type(entry.item).__name__ for entry in last.entries] == ["Message", "Message"]
    assert at_rest.entries == last.entries
    assert last.usage.responses == 1
    assert 3598 < last.expires_in <= 3600


def test_checkpoint_is_kept_before_an_answer_is_generated() -> None:
    keeper = KeepsCheckpoints()
    answer_one_question(keeper=keeper)
    first = next(each for each in keeper.kept if each.owes_response)
    assert [type(entry.item).__name__ for entry in first.entries] == ["Message"]


def test_connection_closes_for_a_restart_when_its_checkpoint_is_stored() -> None:
    async def main() -> None:
        peer, keeper = RecordingPeer(), KeepsCheckpoints(storing_s=2.0)
        session = Session(template(ServerVad()), MODELS, SessionLimits(), salt="t", now=0.0)
        runner = make_runner(session, peer, ScriptedEngines().catalog, keeper=keeper)
        running = asyncio.create_task(runner.run())
        await asyncio.sleep(0)
        runner.post(DrainStarted())
        await asyncio.sleep(1)
        assert keeper.kept
        assert peer.closed is None
        for fact in question():
            runner.post(fact)
        await running
        assert asyncio.get_running_loop().time() == 2.0
        assert peer.closed == (1012, "the server is shutting down")
        assert peer.types == ["session.created"]

    run(main())


def test_ended_session_is_freed_without_garbage_collection() -> None:
    """A session may hold minutes of audio: no reference cycle may keep it."""

    async def main() -> weakref.ref[Session]:
        peer = RecordingPeer()
        session = Session(template(ServerVad()), MODELS, SessionLimits(), salt="t", now=0.0)
        catalog = ScriptedEngines(llm=answers("word " * 50), tts={"realtime_factor": 1}).catalog
        runner = make_runner(session, peer, catalog, observers=[Recorder()])
        running = asyncio.create_task(runner.run())
        await asyncio.sleep(0)
        for fact in (*speech(), *question()):
            runner.post(fact)
            await runner.wait_caught_up()
        await peer.until("response.output_audio.delta")
        runner.post(Disconnected())
        await running
        return weakref.ref(session)

    gc.collect()
    gc.disable()
    try:
        assert run(main())() is None
    finally:
        gc.enable()
