"""A process that is behind takes no new sessions, until it has caught up."""

import asyncio
from typing import Any

import pytest

from tests.runtime.stage import ScriptedEngines, make_context
from vivavoce.engines.scripted.engines import ScriptedVAD
from vivavoce.engines.scripted.scripts import VADScript
from vivavoce.errors import LimitReached
from vivavoce.limits.connections import ConnectionLimits
from vivavoce.protocol.wire import Opening
from vivavoce.runtime.admission import MIN_BEHIND, Admission
from vivavoce.runtime.load import SAMPLE_S, WINDOW, LoadProbe
from vivavoce.runtime.sessions import Sessions
from vivavoce.runtime.vad_batcher import MAX_BACKLOG_WINDOWS, VadBatcher
from vivavoce.session.cascade.turn_detection import WINDOW as VAD_WINDOW
from vivavoce.testing.virtual_time import VirtualTimeLoop, run


def noted(admission: Admission, *lags_ms: float) -> list[bool]:
    """Whether it is overloaded after each sample."""
    found = []
    for lag in lags_ms:
        admission.note(lag / 1000)
        found.append(admission.overloaded)
    return found


def test_lag_above_the_limit_for_the_whole_window_refuses_sessions_and_less_does_not() -> None:
    admission = Admission(ConnectionLimits(overload_lag_ms=100))
    assert not any(noted(admission, *[500] * (WINDOW - 1), 50, *[500] * (WINDOW - 1)))
    assert noted(admission, 500) == [True]


def test_sessions_are_taken_again_when_the_lag_has_halved_and_not_before() -> None:
    admission = Admission(ConnectionLimits(overload_lag_ms=100))
    noted(admission, *[500] * WINDOW)
    assert all(noted(admission, *[80] * (3 * WINDOW)))
    assert noted(admission, *[20] * WINDOW)[-1] is False


def test_limit_of_zero_refuses_nobody() -> None:
    admission = Admission(ConnectionLimits(overload_lag_ms=0))
    assert not any(noted(admission, *[60_000] * (2 * WINDOW)))


@pytest.mark.parametrize(("streams", "refuses"), [(MIN_BEHIND, True), (MIN_BEHIND - 1, False)])
def test_streams_that_wait_for_voice_activity_refuse_sessions_where_they_are_many(
    streams: int, refuses: bool
) -> None:
    async def main() -> bool:
        vad = VadBatcher(ScriptedVAD(VADScript()))
        admission = Admission(ConnectionLimits(), lambda: [vad])
        opened = [vad.open(lambda *_: None, lambda _: None) for _ in range(streams)]
        for stream in opened:
            stream.score(0, bytes(2 * VAD_WINDOW * (MAX_BACKLOG_WINDOWS + 1)))
        found = noted(admission, *[0] * WINDOW)[-1]
        for stream in opened:
            stream.close()
        assert len(vad) == 0
        return found

    assert run(main()) is refuses


def test_late_timers_are_told_to_it() -> None:
    async def main() -> tuple[bool, bool]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        admission = Admission(ConnectionLimits())
        async with LoadProbe(admission.note):
            await asyncio.sleep(10)
            before = admission.overloaded
            for _ in range(4 * WINDOW):  # something else holds the loop again and again
                loop.spend(2 * SAMPLE_S)
                await asyncio.sleep(0.001)
            return before, admission.overloaded

    assert run(main()) == (False, True)


def test_refused_session_is_told_why_and_counted() -> None:
    class Overloaded(Admission):
        overloaded = True

    async def main() -> list[str]:
        sessions = Sessions(make_context(ScriptedEngines()))
        counted: list[Any] = []
        sessions.on_refusal = counted.append
        sessions.check_room()
        sessions.admission = Overloaded(ConnectionLimits())
        assert not sessions.accepts
        with pytest.raises(LimitReached, match="more work than it does in time"):
            sessions.open(None, Opening())  # type: ignore[arg-type]
        return counted

    assert run(main()) == ["overloaded"]
