"""Sessions are opened up to max_sessions, counted, and drained together."""

import asyncio
from typing import Any

import pytest

from tests.runtime.stage import (
    LOUD,
    SOFT,
    RecordingPeer,
    ScriptedEngines,
    make_context,
    question,
)
from tests.store.line import InlineSQLite
from vivavoce.errors import InvalidRequest, LimitReached
from vivavoce.protocol.client import InputAudioAppend
from vivavoce.protocol.server import SessionCreated
from vivavoce.protocol.session import RealtimePatch, ServerVad, TranscriptionSession, TurnDetection
from vivavoce.protocol.wire import Opening
from vivavoce.runtime.resume import ResumeSettings, Resumption, Ticket
from vivavoce.runtime.runner import Runner
from vivavoce.runtime.sessions import CLOSE_TIMEOUT_S, Sessions
from vivavoce.session.facts import Disconnected, Received
from vivavoce.session.limits import SessionLimits
from vivavoce.testing.virtual_time import run


class ServedSession:
    """A client of the sessions."""

    def __init__(
        self, sessions: Sessions, opening: Opening | None = None, ticket: Ticket | None = None
    ) -> None:
        self.peer = RecordingPeer()
        self.runner: Runner = sessions.open(self.peer, opening or Opening(), ticket=ticket)
        self.serving = asyncio.create_task(sessions.serve(self.runner))

    async def ask(self) -> None:
        """Have an answer under way."""
        await asyncio.sleep(0)
        for fact in question():
            self.runner.post(fact)
        await self.peer.until("response.output_audio.delta")


def make_sessions(
    *, max_sessions: int = 100, turn_detection: TurnDetection | None = None, **engines: Any
) -> Sessions:
    return Sessions(
        make_context(
            ScriptedEngines(**engines), max_sessions=max_sessions, turn_detection=turn_detection
        ),
        wall_clock=lambda: 1000.5,
    )


def now() -> float:
    return asyncio.get_running_loop().time()


def test_sessions_while_one_runs_counts_it() -> None:
    async def main() -> None:
        sessions = make_sessions()
        first, second = ServedSession(sessions), ServedSession(sessions)
        await asyncio.sleep(0)
        assert (len(sessions), sessions.ended) == (2, 0)
        first.runner.post(Disconnected())
        await first.serving
        assert (len(sessions), sessions.ended) == (1, 1)
        second.serving.cancel()
        await asyncio.wait([second.serving])
        assert (len(sessions), sessions.ended) == (0, 2)

    run(main())


def test_session_settings_are_those_of_server_and_client() -> None:
    async def main() -> None:
        sessions = make_sessions()
        served = ServedSession(sessions, Opening(model="gpt-realtime"))
        await asyncio.sleep(0)
        created = served.peer.events[0]
        assert isinstance(created, SessionCreated)
        session = created.session
        assert session.expires_at == 1000 + int(SessionLimits().max_seconds)
        assert session.id.startswith("sess_")
        assert session.model == "gpt-realtime"  # type: ignore[union-attr]
        served.serving.cancel()

    run(main())


def test_session_ids_are_unique() -> None:
    sessions = make_sessions()
    ids = {sessions.initial_settings(Opening()).id for _ in range(100)}
    assert len(ids) == 100


def test_initial_settings_of_transcription_are_a_transcription_session() -> None:
    begun = make_sessions().initial_settings(Opening(kind="transcription"))
    assert isinstance(begun, TranscriptionSession)


def test_open_with_refused_settings_opens_no_session() -> None:
    async def main() -> None:
        sessions = make_sessions()
        patch = RealtimePatch(output_modalities=("text", "audio"))
        with pytest.raises(InvalidRequest):
            sessions.open(RecordingPeer(), Opening(patch=patch))
        assert len(sessions) == 0
        await sessions.drain(10)
        assert now() == 0.0

    run(main())


def test_open_at_max_sessions_raises_until_one_ends() -> None:
    async def main() -> None:
        sessions = make_sessions(max_sessions=1)
        served = ServedSession(sessions)
        assert not sessions.accepts
        with pytest.raises(LimitReached, match="has reached max_sessions"):
            sessions.open(RecordingPeer(), Opening())
        await asyncio.sleep(0)
        served.runner.post(Disconnected())
        await served.serving
        assert sessions.accepts
        await ServedSession(sessions).ask()
        await sessions.drain(0)

    run(main())


def test_drain_closes_idle_sessions_and_refuses_new_ones() -> None:
    async def main() -> None:
        sessions = make_sessions()
        all_served = [ServedSession(sessions) for _ in range(3)]
        await asyncio.sleep(0)
        await sessions.drain(10)
        assert now() == 0.0
        assert len(sessions) == 0
        for served in all_served:
            assert served.peer.closed == (1012, "the server is shutting down")
        assert not sessions.accepts
        with pytest.raises(LimitReached, match="is shutting down"):
            sessions.open(RecordingPeer(), Opening())

    run(main())


def test_drain_waits_for_answers_to_end() -> None:
    async def main() -> None:
        sessions = make_sessions(tts={"realtime_factor": 1}, llm={"answers": ["x" * 50]})
        served = ServedSession(sessions)
        await served.ask()
        await sessions.drain(10)
        assert 2.5 <= now() <= 3.1  # 50 characters of 60 ms each
        assert served.peer.endings == [("completed", None)]
        assert served.peer.closed == (1012, "the server is shutting down")

    run(main())


def test_drain_ends_a_session_at_once_whose_client_is_away() -> None:
    """Its client comes back to another process, which finishes the answer."""

    async def main() -> None:
        engines: dict[str, Any] = {
            "tts": {"realtime_factor": 1},
            "llm": {"answers": ["word " * 50]},
        }
        sessions, others = make_sessions(**engines), make_sessions(**engines)
        async with (
            InlineSQLite(":memory:", wall_clock=now) as store,
            Resumption(store, ResumeSettings(), wall_clock=lambda: 1000.5) as resumption,
        ):
            ticket = resumption.ticket({}, "")
            served = ServedSession(sessions, ticket=ticket)
            await served.ask()
            ticket.client_away = True
            began = now()
            await sessions.drain(10)
            assert now() - began < 0.5
            assert served.peer.closed == (1012, "the server is shutting down")
            again = resumption.ticket({"resume_token": ticket.token.reveal()}, "")
            await resumption.load(again)
            other = ServedSession(others, ticket=again)
            await other.peer.until("response.done")
            assert other.peer.endings == [("completed", None)]
            await others.drain(0)

    run(main())


async def speak(served: ServedSession) -> None:
    """A turn in real time: 0.5 s of speech, and silence until it is answered."""
    for window in range(100):
        sound = LOUD if window < 16 else SOFT
        served.runner.post(Received(InputAudioAppend(audio=sound)))
        await asyncio.sleep(0.032)


@pytest.mark.parametrize("spoken_s", [0.05, 0.3, 0.8])
def test_drain_waits_for_the_turn_that_is_spoken_and_its_answer(spoken_s: float) -> None:
    async def main() -> None:
        sessions = make_sessions(
            turn_detection=ServerVad(), tts={"realtime_factor": 1}, llm={"answers": ["x" * 50]}
        )
        served, idle = ServedSession(sessions), ServedSession(sessions)
        await asyncio.sleep(0)
        speaking = asyncio.create_task(speak(served))
        await asyncio.sleep(spoken_s)
        await sessions.drain(10)
        speaking.cancel()
        assert idle.peer.closed == (1012, "the server is shutting down")
        assert served.peer.endings == [("completed", None)]
        assert served.peer.closed == (1012, "the server is shutting down")
        assert 3.5 <= now() <= 4.5  # 0.5 s of speech, 0.5 s of silence, 3 s of answer

    run(main())


def test_drain_ends_a_turn_that_goes_on_after_its_timeout() -> None:
    async def main() -> None:
        sessions = make_sessions(turn_detection=ServerVad())
        served = ServedSession(sessions)
        await asyncio.sleep(0)
        speaking = asyncio.create_task(speak(served))
        await asyncio.sleep(0.1)
        await sessions.drain(0.3)
        speaking.cancel()
        assert 0.4 <= now() <= 0.45
        assert served.peer.closed == (1012, "the server is shutting down")

    run(main())


def test_drain_cancels_an_answer_after_its_timeout() -> None:
    async def main() -> None:
        sessions = make_sessions(tts={"realtime_factor": 1}, llm={"answers": ["word " * 500]})
        served = ServedSession(sessions)
        await served.ask()
        await sessions.drain(10)
        assert now() == 10.0
        assert len(sessions) == 0
        assert served.peer.endings == [("cancelled", None)]
        assert served.peer.closed == (1012, "the server is shutting down")

    run(main())


def test_drain_with_a_hanging_engine_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        scripted = ScriptedEngines()

        class Clinging:
            sees = False

            async def generate(self, request: Any) -> Any:
                while now() < 1000:
                    try:
                        await asyncio.sleep(1000)
                    except asyncio.CancelledError:
                        continue
                    yield None

        scripted.llm = Clinging()  # type: ignore[assignment]
        sessions = Sessions(make_context(scripted))
        served = ServedSession(sessions)
        await asyncio.sleep(0)
        for fact in question():
            served.runner.post(fact)
        await asyncio.sleep(1)
        await sessions.drain(2)
        assert now() == 3.0 + CLOSE_TIMEOUT_S
        assert served.peer.closed == (1012, "the server is shutting down")
        await asyncio.wait([served.serving])

    run(main())
    assert caplog.messages == ["1 sessions did not end: an engine does not stop"]
