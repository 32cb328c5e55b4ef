"""The host with real processes: started, fed, watched, replaced and ended."""

import asyncio
import os
import resource
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
import uvloop

from tests.engines.workers import PATH
from vivavoce.engines.host import HostLimits, WorkerHost
from vivavoce.engines.process import working_seconds
from vivavoce.engines.worker import INPUT_WINDOW_BYTES, OUTPUT_WINDOW_BYTES
from vivavoce.errors import EngineError, EngineLost

T = TypeVar("T")
LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


@pytest.fixture(autouse=True)
def _workers_are_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))


def host_of(options: dict[str, str] | None = None, **limits: Any) -> WorkerHost[str]:
    patient: dict[str, Any] = {"start_seconds": 200.0, "hang_seconds": 60.0}
    return WorkerHost(
        PATH, options or {}, name="stt.test", message=str, limits=HostLimits(**patient | limits)
    )


def be_patient(host: WorkerHost[str]) -> None:
    """Take none of the processes that are started from now on for hanging."""
    limits = msgspec.structs.replace(host.limits, hang_seconds=60.0)
    host._spec = msgspec.structs.replace(host._spec, limits=limits)


def run(
    main: Coroutine[Any, Any, T],
    loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
) -> T:
    async def bounded() -> T:
        async with asyncio.timeout(250):
            return await main

    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(bounded())


async def said(
    host: WorkerHost[str], action: str, number: int = 0, audio: AsyncIterator[bytes] | None = None
) -> list[str]:
    async with host.open((action, number), audio) as stream:
        return [message.strip() async for message in stream]


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for piece in data:
        yield piece


async def pid_of(host: WorkerHost[str]) -> int:
    hello = await host.loaded(dict[str, Any])
    return int(hello["pid"])


async def until(condition: Callable[[], bool]) -> None:
    """For what happens outside of the loop, in processes."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.005)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Every descriptor is taken, as by idle connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))), hard))
    taken = []
    try:
        while True:
            taken.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    try:
        yield
    finally:
        for number in taken:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("loop", LOOPS)
def test_messages_of_a_stream_come_in_order(
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def main() -> tuple[str, list[str]]:
        async with host_of({"colour": "red"}) as host:
            return (await host.loaded(dict[str, Any]))["colour"], await said(host, "count", 3)

    assert run(main(), loop) == ("red", ["0", "1", "2"])


def test_input_larger_than_the_window_arrives_whole() -> None:
    data = bytes(range(65, 91)) * (3 * INPUT_WINDOW_BYTES // 26)

    async def main() -> str:
        async with host_of() as host:
            return "".join(await said(host, "echo", 10_000, pieces(data, b"", data)))

    assert run(main()) == 2 * data.decode()


def test_worker_pauses_while_its_reader_is_behind() -> None:
    async def main() -> tuple[int, int]:
        async with host_of(streams_per_worker=2) as host, host.open(("flood", 100)) as stream:
            await anext(stream)
            await said(host, "count", 50)  # has its turns meanwhile
            behind = sum(len(message) for message in stream._messages)
            return behind, 1 + len([message async for message in stream])

    behind, messages = run(main())
    assert behind < OUTPUT_WINDOW_BYTES + 200_000
    assert messages == 200


def test_streams_of_one_worker_have_turns() -> None:
    async def main() -> list[str]:
        async with host_of(streams_per_worker=2) as host, host.open(("pid", 0)) as waiting:
            await anext(waiting)  # it waits for input
            return await said(host, "count", 3)

    assert run(main()) == ["0", "1", "2"]


def test_streams_that_wait_for_the_start_are_spread_over_the_processes() -> None:
    async def main() -> set[str]:
        async with host_of(workers=2) as host, AsyncExitStack() as stack:

            async def opened() -> str:
                stream = await stack.enter_async_context(host.open(("pid", 0)))
                return await anext(stream)

            return set(await asyncio.gather(opened(), opened()))

    assert len(run(main())) == 2


def test_stream_beyond_the_places_waits_until_one_is_free() -> None:
    async def main() -> list[str]:
        async with host_of() as host:
            async with host.open(("pid", 0)) as first:
                await anext(first)
                second = asyncio.create_task(said(host, "count", 1))
                await asyncio.sleep(0)
                assert not second.done()
            return await second

    assert run(main()) == ["0"]


def test_waiting_for_a_place_ends_with_an_error_that_names_the_remedy() -> None:
    async def main() -> tuple[str, str, list[str]]:
        async with host_of(wait_seconds=0.01, remedy="raise workers", max_waiting=1) as host:
            async with host.open(("pid", 0)) as first:
                await anext(first)
                with pytest.raises(EngineError) as late:
                    await said(host, "count", 1)
                with pytest.raises(EngineError) as many:
                    await asyncio.gather(said(host, "count", 1), said(host, "count", 1))
            await until(lambda: host.processes[0].places_taken == 0)
            return str(late.value), str(many.value), await said(host, "count", 1)

    late, many, after = run(main())
    assert late == "[engines.stt.test] all places were taken for 0.01 s; raise workers"
    assert many == "[engines.stt.test] 1 wait for it already; raise workers"
    assert after == ["0"]


def test_cancelled_wait_gives_its_place_back() -> None:
    async def main() -> list[str]:
        async with host_of() as host:
            for turns in range(6):
                waiting = asyncio.create_task(said(host, "count", 1))
                for _ in range(turns):
                    await asyncio.sleep(0)
                waiting.cancel()
                await asyncio.wait([waiting])
            return await said(host, "count", 1)

    assert run(main()) == ["0"]


def test_leaving_a_stream_stops_work_that_cannot_yield() -> None:
    async def main() -> list[str]:
        async with host_of() as host:
            async with host.open(("spin", 0)) as stream:
                await anext(stream)
            return await said(host, "count", 1)

    assert run(main()) == ["0"]


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ("error", "[engines.stt.test] it cannot"),
        ("bug", "[engines.stt.test] it failed with ValueError: a bug"),
        ("echo", "[engines.stt.test] it failed with TypeError"),
    ],
)
def test_error_in_a_worker_ends_one_stream_only(action: str, message: str) -> None:
    async def main() -> tuple[str, list[str], int, int]:
        async with host_of(streams_per_worker=2) as host, host.open(("pid", 0)) as other:
            await anext(other)
            before = await pid_of(host)
            number: Any = "no number" if action == "echo" else 0
            with pytest.raises(EngineError) as caught:
                await said(host, action, number, pieces(b"x"))
            assert not isinstance(caught.value, EngineLost)
            other.end_input()
            rest = [message async for message in other]
            return str(caught.value), rest, before, await pid_of(host)

    text, rest, before, after = run(main())
    assert text.startswith(message) or "ValidationError" in text
    assert rest == []
    assert before == after


def test_error_of_the_audio_reaches_the_reader() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"abc"
        raise EngineError("the line is dead")

    async def main() -> list[str]:
        async with host_of() as host:
            with pytest.raises(EngineError, match="the line is dead"):
                await said(host, "echo", 1, broken())
            return await said(host, "count", 1)

    assert run(main()) == ["0"]


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signal_to_the_whole_group_leaves_the_process_to_its_server(name: str) -> None:
    async def main() -> tuple[list[str], bool]:
        async with host_of() as host:
            old = await pid_of(host)
            os.kill(old, getattr(signal, name))
            return await said(host, "count", 2), await pid_of(host) == old

    assert run(main()) == (["0", "1"], True)


@pytest.mark.parametrize("loop", LOOPS)
def test_killed_process_is_an_engine_lost_and_is_replaced(
    loop: Callable[[], asyncio.AbstractEventLoop], caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> tuple[str, str | None, list[str], str | None]:
        async with host_of() as host:
            async with host.open(("pid", 0)) as stream:
                os.kill(int(await anext(stream)), signal.SIGKILL)
                with pytest.raises(EngineLost) as caught:
                    await anext(stream)
            ill = host.health()
            again = await said(host, "count", 1)
            return str(caught.value), ill, again, host.health()

    message, ill, again, well = run(main(), loop)
    assert message == "[engines.stt.test] its worker process was killed by signal 9"
    assert ill == f"{message}; it is started again"
    assert (again, well) == (["0"], None)
    assert f"{message}; starting another" in caplog.text


def test_messages_before_the_end_of_a_process_are_given_first() -> None:
    async def main() -> tuple[list[str], str]:
        got = []
        async with host_of() as host, host.open(("exit", 3)) as stream:
            try:
                async for message in stream:
                    got.append(message)
            except EngineLost as exc:
                return got, str(exc)
        return got, ""

    got, message = run(main())
    assert got == ["begun"]
    assert message.endswith("its worker process ended with code 3 (what a pity)")


def test_waiting_streams_survive_the_end_of_a_process() -> None:
    async def main() -> tuple[list[str] | BaseException, ...]:
        async with host_of() as host:
            return await asyncio.gather(
                said(host, "exit", 3), said(host, "count", 1), return_exceptions=True
            )

    lost, other = run(main())
    assert isinstance(lost, EngineLost)
    assert other == ["0"]


@pytest.mark.parametrize("stop", [True, False])
def test_hanging_process_is_killed_and_replaced(stop: bool) -> None:
    async def main() -> tuple[str, list[str], bool]:
        async with host_of(hang_seconds=0.4) as host:
            old = await pid_of(host)
            be_patient(host)
            async with host.open(("pid", 0) if stop else ("hang", 1_000)) as stream:
                await anext(stream)
                if stop:
                    os.kill(old, signal.SIGSTOP)
                with pytest.raises(EngineLost) as caught:
                    await anext(stream)
            return str(caught.value), await said(host, "count", 1), await pid_of(host) != old

    message, again, replaced = run(main())
    assert message.endswith("gave no sign of life for 0.4 s, and was killed")
    assert (again, replaced) == (["0"], True)


def test_hanging_process_has_a_successor_that_loads_before_its_streams_are_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gate = tmp_path / "gate"

    async def main() -> list[str]:
        async with host_of({"gate": str(gate)}, hang_seconds=3.0) as host:
            old = await pid_of(host)
            be_patient(host)
            async with host.open(("pid", 0)) as stream:
                await anext(stream)
                os.mkfifo(gate)
                os.kill(old, signal.SIGSTOP)
                await until(lambda: host.health() is not None)
                order = ["lost" if stream.closed else "replaced"]
                with pytest.raises(EngineLost):
                    await anext(stream)
            again = asyncio.create_task(said(host, "count", 1))
            await asyncio.to_thread(gate.write_bytes, b"")
            order += [*await again, str(host.health()), str(host.loading)]
            assert await pid_of(host) != old
            return order

    assert run(main()) == ["replaced", "0", "None", "False"]
    assert "has not answered for 1.5 s; starting another" in caplog.text
    assert "gave no sign of life for 3 s, and was killed; starting" not in caplog.text


def test_process_that_answers_again_ends_its_streams_and_is_replaced_all_the_same() -> None:
    async def main() -> tuple[list[str], bool]:
        async with host_of(hang_seconds=6.0) as host:
            old = await pid_of(host)
            be_patient(host)
            async with host.open(("pid", 0)) as stream:
                await anext(stream)
                os.kill(old, signal.SIGSTOP)
                await until(lambda: host.processes[0].failure is not None)
                os.kill(old, signal.SIGCONT)
                stream.end_input()
                rest = [message async for message in stream]
            return rest, await pid_of(host) != old

    assert run(main()) == ([], True)


def test_worker_that_only_waits_for_input_is_no_hang() -> None:
    async def main() -> list[str]:
        async with host_of(hang_seconds=0.5) as host, host.open(("pid", 0)) as stream:
            await anext(stream)
            await asyncio.sleep(1.2)
            stream.end_input()
            return [message async for message in stream]

    assert run(main()) == []


@pytest.mark.parametrize(
    ("before", "after", "counted"),
    [
        (None, None, 2.0),  # it sleeps or is stopped
        (5.0, None, 2.0),
        (5.0, 7.0, 2.0),  # it runs without end
        (5.0, 6.0, 1.0),  # it shares its CPU
        (5.0, 5.0, 0.5),  # it gets none: that does not go on for ever either
        (None, 5.0, 2.0),
    ],
)
def test_silence_of_a_process_that_waits_for_a_cpu_counts_less(
    before: float | None, after: float | None, counted: float
) -> None:
    assert working_seconds(before, after, 2.0) == counted


def test_process_that_sends_garbage_is_replaced() -> None:
    async def main() -> list[str]:
        async with host_of() as host:
            with pytest.raises(EngineLost, match="sent something that is no frame"):
                await said(host, "garbage")
            return await said(host, "count", 1)

    assert run(main()) == ["0"]


def test_worker_that_cannot_load_says_why_and_is_tried_again() -> None:
    async def main() -> tuple[str, str | None]:
        async with host_of({"fail": "raise"}) as host:
            with pytest.raises(EngineError) as caught:
                await host.loaded(object)
            return str(caught.value), host.health()

    message, health = run(main())
    assert message.endswith("its worker process ended with code 1 (no model here)")
    assert health == f"{message}; it is started again"


def test_waiting_for_a_slow_start_has_an_end() -> None:
    async def main() -> str:
        async with host_of({"fail": "hang"}, start_seconds=0.01) as host:
            with pytest.raises(EngineError) as caught:
                await said(host, "count", 1)
            return str(caught.value)

    assert run(main()).endswith("its worker process was not ready within 0.01 s")


WITHOUT_DESCRIPTORS = """
import asyncio, os, signal, sys, uvloop
from tests.engines.test_host import host_of, no_descriptors, pid_of, said, until

async def main():
    async with host_of() as host:
        pid = await pid_of(host)
        with no_descriptors():
            os.kill(pid, signal.SIGKILL)
            await until(lambda: "could not be started" in (host.health() or ""))
            ill = host.health()
            try:
                await said(host, "count", 1)
            except Exception as exc:
                failed = exc
        print(ill)
        print(repr(failed))
        print(await said(host, "count", 1), host.health())

loop = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}[sys.argv[1]]
asyncio.Runner(loop_factory=loop).run(asyncio.wait_for(main(), 200))
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_start_without_free_descriptors_is_an_error_and_is_retried(loop: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_DESCRIPTORS, loop],
        capture_output=True,
        text=True,
        check=True,
        timeout=250,
    )
    ill, failed, after = done.stdout.splitlines()
    start = "[engines.stt.test] its worker process could not be started: "
    assert ill.startswith(start)
    assert ill.endswith("; it is started again")
    assert "Unknown error" not in ill
    assert failed.startswith(f"EngineError('{start}")
    assert after == "['0'] None"


def test_serving_task_that_fails_is_logged_and_goes_on(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> list[str]:
        async with host_of() as host:
            await host.loaded(object)
            process = host.processes[0]
            take = process.receive

            def broken(report: object) -> None:
                monkeypatch.setattr(process, "receive", take)
                raise MemoryError

            monkeypatch.setattr(process, "receive", broken)
            with pytest.raises(EngineLost, match="was given up: MemoryError"):
                await said(host, "count", 1)
            return await said(host, "count", 1)

    assert run(main()) == ["0"]
    assert "serving its worker process failed" in caplog.text


@pytest.mark.parametrize("loop", LOOPS)
def test_leaving_the_host_ends_streams_processes_and_descriptors(
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def main() -> tuple[str, bool, list[int]]:
        counts = []
        for _ in range(3):
            async with host_of(workers=2) as host, AsyncExitStack() as stack:
                stream = await stack.enter_async_context(host.open(("pid", 0)))
                pid = int(await anext(stream))
                kept = stack.pop_all()
            with pytest.raises(EngineError) as caught:
                await anext(stream)
            await kept.aclose()
            counts.append(descriptors())
        return str(caught.value), _running(pid), counts

    message, alive, counts = run(main(), loop)
    assert message == "[engines.stt.test] the engine was closed"
    assert not alive
    assert len(set(counts)) == 1


def test_stopped_process_does_not_keep_the_host_from_closing() -> None:
    async def main() -> bool:
        async with host_of() as host:
            pid = await pid_of(host)
            os.kill(pid, signal.SIGSTOP)
        return _running(pid)

    assert run(main()) is False


def test_closed_host_refuses_streams() -> None:
    async def main() -> None:
        host = host_of()
        await host.__aenter__()
        await host.__aexit__(None, None, None)
        with pytest.raises(EngineError, match="enter the engine before its use"):
            await said(host, "count", 1)
        async with host:
            assert await said(host, "count", 1) == ["0"]

    run(main())


SERVER = """
import asyncio, sys
from tests.engines.test_host import host_of, said

async def begin():
    async with host_of(streams_per_worker=2) as host:
        print((await host.loaded(dict))["pid"], flush=True)
        async with host.open((sys.argv[1], 1_000)) as stream:
            print(await anext(stream), flush=True)
            await asyncio.Event().wait()

asyncio.run(begin())
"""


@pytest.mark.parametrize("action", ["hang", "pid"])
def test_process_dies_with_its_server(action: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, action], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout
        pid = int(server.stdout.readline())
        server.stdout.readline()
        server.kill()
        server.wait(20)

    async def gone() -> None:
        await until(lambda: not _running(pid))

    run(gone())


def _running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_host_without_work_ends_its_processes_and_the_next_stream_starts_others() -> None:
    async def main() -> None:
        async with host_of(idle_seconds=0.05) as host:
            first = await pid_of(host)
            loaded = host.residency()
            assert loaded.loaded
            assert loaded.memory_bytes is None or loaded.memory_bytes > 1_000_000
            async with host.open(("pid", 0)) as stream:
                await anext(stream)
                await asyncio.sleep(0.1)  # longer than idle_seconds, but it is in use
                assert host.residency().users == 1
                with pytest.raises(EngineError, match="in use"):
                    await host.unload()
            await until(lambda: not host.processes)
            assert host.residency().loaded is False
            assert (host.health(), host.loading) == (None, False)
            assert await pid_of(host) != first
            await host.unload()
            host.start()
            assert await pid_of(host)

    run(main())


def test_closed_host_is_not_started_by_a_use() -> None:
    async def main() -> None:
        async with host_of(idle_seconds=0.01) as host:
            await host.unload()
        host.start()
        assert host.processes == ()
        with pytest.raises(EngineError, match="it is closed"):
            await host.load()

    run(main())
