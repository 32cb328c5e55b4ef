"""Processes of engines that several servers share: started once, seen by each as its own."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.engines.test_host import host_of, pid_of, pieces, run, said, until
from vivavoce.engines.host import HostLimits, WorkerHost
from vivavoce.engines.shared import HostHub
from vivavoce.engines.worker import INPUT_WINDOW_BYTES
from vivavoce.errors import EngineError, EngineLost

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


@pytest.fixture(autouse=True)
def _workers_are_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))


class SharingHost(WorkerHost[str]):
    """As WorkerHost is in one of several workers."""


@pytest.fixture
def hub_path(tmp_path: Path) -> Iterator[str]:
    path = str(tmp_path / "hub")
    SharingHost.hub = path
    yield path
    SharingHost.hub = ""


def sharing(options: dict[str, str] | None = None, **limits: Any) -> SharingHost:
    return SharingHost(
        "tests.engines.workers:TestWorker",
        options or {},
        name="stt.test",
        message=str,
        limits=HostLimits(**limits),
    )


@asynccontextmanager
async def hub(path: str) -> AsyncIterator[HostHub]:
    served = HostHub()
    async with served.serving(path):
        yield served


@pytest.mark.parametrize("loop", LOOPS)
def test_hosts_with_the_same_options_share_a_process_and_others_do_not(
    hub_path: str, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def main() -> None:
        async with hub(hub_path), sharing() as one, sharing() as same, sharing({"a": "b"}) as other:
            assert one.loading
            assert await pid_of(one) == await pid_of(same) != await pid_of(other)
            assert not one.loading
            assert await said(one, "count", 3) == ["0", "1", "2"]
            both = await asyncio.gather(said(one, "count", 2), said(same, "count", 3))
            assert both == [["0", "1"], ["0", "1", "2"]]

    run(main(), loop)


def test_input_and_output_larger_than_their_windows_arrive_whole(hub_path: str) -> None:
    data = bytes(range(65, 91)) * (5 * INPUT_WINDOW_BYTES // 26)

    async def main() -> None:
        async with hub(hub_path), sharing() as host:
            assert "".join(await said(host, "echo", 10_000, pieces(data, b"", data))) == (
                2 * data.decode()
            )
            assert len(await said(host, "flood", 30)) == 60

    run(main())


def test_streams_beyond_the_places_of_all_wait_and_are_refused_in_the_end(hub_path: str) -> None:
    limits: dict[str, Any] = {"streams_per_worker": 1, "wait_seconds": 0.2}

    async def main() -> None:
        async with hub(hub_path), sharing(**limits) as one, sharing(**limits) as other:
            await one.load()
            async with one.open(("pid", 0)) as stream:
                await anext(stream)
                with pytest.raises(EngineError, match=r"all places were taken for 0.2 s"):
                    await said(other, "count", 1)
            assert await said(other, "count", 1) == ["0"]

    run(main())


def test_stream_of_a_process_that_ends_is_lost_and_the_next_one_is_served(hub_path: str) -> None:
    async def main() -> None:
        async with hub(hub_path) as served, sharing() as host:
            with pytest.raises(EngineLost, match="its worker process ended"):
                await said(host, "exit")
            assert await said(host, "count", 1) == ["0"]
            assert served.problems() == {}

    run(main())


def test_error_of_the_worker_is_the_error_of_the_stream(hub_path: str) -> None:
    async def main() -> None:
        async with hub(hub_path), sharing() as host:
            with pytest.raises(EngineError, match=r"^\[engines.stt.test\] ") as caught:
                await said(host, "bug")
            assert not isinstance(caught.value, EngineLost)

    run(main())


def test_process_that_does_not_start_is_reported_to_all(hub_path: str) -> None:
    async def main() -> None:
        async with hub(hub_path) as served, sharing({"fail": "raise"}) as host:
            with pytest.raises(EngineError, match="no model here"):
                await said(host, "count", 1)
            await until(lambda: "no model here" in (host.health() or ""))
            assert "no model here" in served.problems()["stt:test"]

    run(main())


def test_connection_that_is_lost_ends_its_streams_alone(hub_path: str) -> None:
    async def main() -> None:
        async with hub(hub_path), sharing() as one, sharing() as other:
            await one.load()
            await other.load()
            async with one.open(("pid", 0)) as first, other.open(("pid", 0)) as second:
                pid = await anext(first)
                other.processes[0].kill("was cut off")
                with pytest.raises(EngineLost, match="was cut off"):
                    [each async for each in second]
                first.end_input()
                assert [each async for each in first] == []
            assert await said(other, "count", 1) == ["0"]
            assert str(await pid_of(other)) == pid

    run(main())


def test_host_of_a_single_server_has_processes_of_its_own(hub_path: str) -> None:
    async def main() -> None:
        async with hub(hub_path), sharing() as shared, host_of() as own:
            assert await pid_of(shared) != await pid_of(own)

    run(main())
