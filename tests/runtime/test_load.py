"""The load of the last two seconds: of the event loop, and of the processors it may use."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.runtime.stage import ScriptedEngines, make_context
from vivavoce.runtime.load import SAMPLE_S, WINDOW, CpuTime, LoadProbe, cpu_time
from vivavoce.runtime.sessions import Sessions
from vivavoce.testing.virtual_time import VirtualTimeLoop, run

WINDOW_S = WINDOW * SAMPLE_S


class Machine:
    """Of each second, for how long the loop's thread runs and others use its two processors."""

    def __init__(self) -> None:
        self.thread = self.used = 0.0
        self._since = self._thread_until_then = self._used_until_then = 0.0

    def change(self, *, thread: float = 0.0, used: float = 0.0) -> None:
        self._thread_until_then, self._used_until_then = self.thread_time(), self.processors().used
        self._since, self.thread, self.used = self._now(), thread, used

    def thread_time(self) -> float:
        return self._thread_until_then + self.thread * (self._now() - self._since)

    def processors(self) -> CpuTime:
        used = self._used_until_then + self.used * (self._now() - self._since)
        return CpuTime(used, 2 * self._now())

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def shares(script: Callable[[Machine], None], after_s: float = WINDOW_S + 1) -> list[float]:
    """The load of an idle machine, and so long after the script has changed it."""

    async def main() -> list[float]:
        machine = Machine()
        probe = LoadProbe(thread_time=machine.thread_time, processors=machine.processors)
        async with probe:
            await asyncio.sleep(60.1)
            before = probe.share
            script(machine)
            await asyncio.sleep(after_s)
            return [before, probe.share]

    return run(main())


def test_load_is_the_share_of_time_for_which_the_thread_of_the_loop_has_run() -> None:
    assert shares(lambda machine: machine.change(thread=0.8)) == pytest.approx([0.0, 0.8])


def test_load_is_the_share_of_its_processors_that_anything_has_used() -> None:
    change = lambda machine: machine.change(thread=0.1, used=1.5)  # noqa: E731
    assert shares(change) == pytest.approx([0.0, 0.75])


def test_load_is_that_of_the_last_two_seconds() -> None:
    half = shares(lambda machine: machine.change(thread=1.0), after_s=WINDOW_S / 2)[1]
    assert half == pytest.approx(0.5, abs=0.1)


def test_load_is_the_share_of_time_by_which_timers_have_fired_late() -> None:
    late: list[float] = []

    async def main() -> tuple[float, float]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        probe = LoadProbe(late.append, thread_time=lambda: 0.0, processors=lambda: None)
        async with probe:
            for _ in range(30):  # another process has the processor for three quarters of the time
                loop.spend(4 * SAMPLE_S)
                await asyncio.sleep(0.001)
            busy = probe.share
            await asyncio.sleep(2 * WINDOW_S)
            return busy, probe.share

    busy, after = run(main())
    assert busy == pytest.approx(0.75, abs=0.02)
    assert after == 0.0
    assert max(late) == pytest.approx(3 * SAMPLE_S, abs=0.02)
    assert late[-WINDOW:] == pytest.approx([0.0] * WINDOW)


def test_load_is_not_known_before_the_probe_has_measured() -> None:
    assert LoadProbe().share == 0.0


def test_sessions_begin_nothing_early_above_the_load_of_the_settings() -> None:
    class Loaded(LoadProbe):
        share = 0.0

    async def main() -> list[bool]:
        sessions = Sessions(make_context(ScriptedEngines()))
        sessions.load = loaded = Loaded()
        found = []
        for loaded.share in (0.0, 0.7, 0.71):
            found.append(sessions._is_busy())
        return found

    assert run(main()) == [False, False, True]


bound_only = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity"), reason="the system binds processes to no processors"
)


@bound_only
def test_processors_of_a_container_with_a_quota_are_those_of_the_quota(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    (tmp_path / "cpu.stat").write_text("usage_usec 1500000\nuser_usec 1000000\n")
    found = cpu_time(tmp_path, tmp_path / "none")
    assert found is not None
    assert found.used == 1.5
    later = cpu_time(tmp_path, tmp_path / "none")
    assert later is not None
    assert later.available >= found.available > 0


@bound_only
@pytest.mark.parametrize("quota", ["max 100000\n", None])
def test_processors_are_those_to_which_the_process_is_bound(
    tmp_path: Path, quota: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 2})
    stat = tmp_path / "stat"
    stat.write_text(
        "cpu  1 1 1 1 1 1 1 1 1 1\n"
        "cpu0 9 9 9 9 9 9 9 9 0 0\n"
        "cpu1 10 20 30 40 50 1 2 3 7 8\n"
        "cpu2 1 0 0 1 0 0 0 0 0 0\n"
        "intr 5 5\n"
    )
    if quota:
        (tmp_path / "cpu.max").write_text(quota)
    assert cpu_time(tmp_path, stat) == CpuTime(66 + 1, 156 + 2)


@bound_only
@pytest.mark.parametrize("text", ["", "cpu  1 1\ncpu0 x\n", "cpu  1 1\ncpu0 1 2\n"])
def test_processors_are_not_known_where_the_system_tells_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "stat").write_text(text)
    assert cpu_time(tmp_path, tmp_path / "stat") is None
    assert cpu_time(tmp_path, tmp_path / "none") is None
