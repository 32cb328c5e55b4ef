"""Sessions are let in while there is room, counted, and let go together."""

import asyncio
from typing import Any

import pytest

from tests.runtime.stage import Audience, Troupe, house, question
from vivavoce.errors import InvalidRequest, LimitReached
from vivavoce.protocol.server import SessionCreated
from vivavoce.protocol.session import RealtimePatch, TranscriptionSession
from vivavoce.protocol.wire import Opening
from vivavoce.runtime.runner import Runner
from vivavoce.runtime.sessions import CLOSE_TIMEOUT_S, Sessions
from vivavoce.session.facts import Disconnected
from vivavoce.session.limits import SessionLimits
from vivavoce.testing.virtual_time import run


class Visit:
    """A client of the hub."""

    def __init__(self, hub: Sessions, opening: Opening | None = None) -> None:
        self.audience = Audience()
        self.runner: Runner = hub.open(self.audience, opening or Opening())
        self.serving = asyncio.create_task(hub.serve(self.runner))

    async def ask(self) -> None:
        """Have an answer under way."""
        await asyncio.sleep(0)
        for fact in question():
            self.runner.post(fact)
        await self.audience.until("response.output_audio.delta")


def a_hub(*, max_sessions: int = 100, **engines: Any) -> Sessions:
    return Sessions(house(Troupe(**engines), max_sessions=max_sessions), wall_clock=lambda: 1000.5)


def now() -> float:
    return asyncio.get_running_loop().time()


def test_a_session_is_counted_while_it_lasts() -> None:
    async def main() -> None:
        hub = a_hub()
        first, second = Visit(hub), Visit(hub)
        await asyncio.sleep(0)
        assert len(hub) == 2
        first.runner.post(Disconnected())
        await first.serving
        assert len(hub) == 1
        second.serving.cancel()
        await asyncio.wait([second.serving])
        assert len(hub) == 0

    run(main())


def test_a_session_begins_with_what_the_house_and_the_client_say() -> None:
    async def main() -> None:
        hub = a_hub()
        visit = Visit(hub, Opening(model="gpt-realtime"))
        await asyncio.sleep(0)
        created = visit.audience.events[0]
        assert isinstance(created, SessionCreated)
        session = created.session
        assert session.expires_at == 1000 + int(SessionLimits().max_seconds)
        assert session.id.startswith("sess_")
        assert session.model == "gpt-realtime"  # type: ignore[union-attr]
        visit.serving.cancel()

    run(main())


def test_no_two_sessions_have_the_same_id() -> None:
    hub = a_hub()
    ids = {hub.initial_settings(Opening()).id for _ in range(100)}
    assert len(ids) == 100


def test_a_transcription_session_is_one() -> None:
    begun = a_hub().initial_settings(Opening(kind="transcription"))
    assert isinstance(begun, TranscriptionSession)


def test_settings_that_are_refused_open_nothing() -> None:
    async def main() -> None:
        hub = a_hub()
        patch = RealtimePatch(output_modalities=("text", "audio"))
        with pytest.raises(InvalidRequest):
            hub.open(Audience(), Opening(patch=patch))
        assert len(hub) == 0
        await hub.drain(10)
        assert now() == 0.0

    run(main())


def test_a_full_house_lets_nobody_in_until_somebody_leaves() -> None:
    async def main() -> None:
        hub = a_hub(max_sessions=1)
        visit = Visit(hub)
        assert not hub.accepts
        with pytest.raises(LimitReached, match="has no room for one more session"):
            hub.open(Audience(), Opening())
        await asyncio.sleep(0)
        visit.runner.post(Disconnected())
        await visit.serving
        assert hub.accepts
        await Visit(hub).ask()
        await hub.drain(0)

    run(main())


def test_draining_closes_who_is_idle_at_once_and_lets_nobody_in() -> None:
    async def main() -> None:
        hub = a_hub()
        visits = [Visit(hub) for _ in range(3)]
        await asyncio.sleep(0)
        await hub.drain(10)
        assert now() == 0.0
        assert len(hub) == 0
        for visit in visits:
            assert visit.audience.closed == (1012, "the server is shutting down")
        assert not hub.accepts
        with pytest.raises(LimitReached, match="is shutting down"):
            hub.open(Audience(), Opening())

    run(main())


def test_draining_lets_answers_end_and_waits_no_longer_than_for_them() -> None:
    async def main() -> None:
        hub = a_hub(tts={"realtime_factor": 1}, llm={"answers": ["x" * 50]})
        visit = Visit(hub)
        await visit.ask()
        await hub.drain(10)
        assert 2.5 <= now() <= 3.1  # 50 characters of 60 ms each
        assert visit.audience.endings == [("completed", None)]
        assert visit.audience.closed == (1012, "the server is shutting down")

    run(main())


def test_an_answer_that_takes_too_long_is_cut_off() -> None:
    async def main() -> None:
        hub = a_hub(tts={"realtime_factor": 1}, llm={"answers": ["word " * 500]})
        visit = Visit(hub)
        await visit.ask()
        await hub.drain(10)
        assert now() == 10.0
        assert len(hub) == 0
        assert visit.audience.endings == [("cancelled", None)]
        assert visit.audience.closed == (1012, "the server is shutting down")

    run(main())


def test_an_engine_that_does_not_let_go_does_not_keep_the_server(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        troupe = Troupe()

        class Clinging:
            sees = False

            async def generate(self, request: Any) -> Any:
                while now() < 1000:
                    try:
                        await asyncio.sleep(1000)
                    except asyncio.CancelledError:
                        continue
                    yield None

        troupe.llm = Clinging()  # type: ignore[assignment]
        hub = Sessions(house(troupe))
        visit = Visit(hub)
        await asyncio.sleep(0)
        for fact in question():
            visit.runner.post(fact)
        await asyncio.sleep(1)
        await hub.drain(2)
        assert now() == 3.0 + CLOSE_TIMEOUT_S
        assert visit.audience.closed == (1012, "the server is shutting down")
        await asyncio.wait([visit.serving])

    run(main())
    assert caplog.messages == ["1 sessions did not end: an engine does not stop"]
