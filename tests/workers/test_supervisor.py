"""`serve --workers`: one port, one set of figures; calls are found, processes are replaced."""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest

from tests.transports.webrtc.call_stage import Client
from tests.transports.webrtc.caller import Caller
from tests.workers.stage import SCRIPTED, Together, alive, together, until
from vivavoce.api.public import ReadyStatus
from vivavoce.settings import Settings
from vivavoce.workers.messages import WorkerStatus
from vivavoce.workers.supervisor import Address, Launch, Supervisor

pytestmark = pytest.mark.timeout(120)  # each server starts three processes


async def one_on_each(server: Together, stack: AsyncExitStack) -> dict[str, Caller]:
    """Callers until every worker has one: the first of each, by the name of its worker."""
    found: dict[str, Caller] = {}
    while len(found) < 2:
        caller = await stack.enter_async_context(server.caller())
        session = (await caller.until("session.created"))["session"]["id"]
        found.setdefault(session.split("_")[1], caller)
    return found


async def call_is_found_and_ended_through_every_worker(server: Together) -> None:
    url = f"http://{server.address}/v1/realtime/calls"
    client = Client()
    sdp = {"Content-Type": "application/sdp"}
    async with server.http.post(url, data=await client.offer(), headers=sdp) as answer:
        assert answer.status == 201
        call_id = answer.headers["Location"].rpartition("/")[2]
        await client.accept(await answer.text())
    await client.until("session.created")
    for _ in range(8):  # connections, of which it is likely that each worker gets one
        async with server.caller(f"?call_id={call_id}") as caller:
            created = await caller.until("session.created")
            assert created["session"]["id"].split("_")[1] == call_id.split("_")[1]
            await caller.send(type="input_audio_buffer.clear")
            await caller.until("input_audio_buffer.cleared")
    async with server.http.post(f"{url}/{call_id[:-4]}0000/hangup") as answer:
        assert answer.status == 404
    async with server.http.post(f"{url}/{call_id}/hangup") as answer:
        assert answer.status == 200
    await client.connection.close()


def test_workers_share_a_port_their_figures_and_their_calls() -> None:
    async def main() -> None:
        async with together() as server, AsyncExitStack() as stack:
            assert len(server.workers) == 2
            callers = await one_on_each(server, stack)
            for caller in callers.values():
                await caller.ask()
                assert await caller.answer() == ("completed", None)

            async def all_are_counted() -> bool:
                sessions = (await server.get("/health"))["sessions"]
                text = await server.metrics()
                return sessions >= 2 and f"vivavoce_sessions_active {sessions}.0\n" in text

            await until(all_are_counted)
            assert (await server.get("/ready"))["status"] == "ready"
            listed = (await server.get("/v1/sessions"))["data"]
            assert {one["id"].split("_")[1] for one in listed} == {"w0", "w1"}
            recorded = (await server.get("/v1/admin/recordings"))["data"]
            assert {one["id"].split("_")[1] for one in recorded} == {"w0", "w1"}
            for call in recorded:
                url = f"http://{server.address}/v1/admin/recordings/{call['id']}"
                async with server.http.get(url) as recording:
                    assert recording.status == 200
            assert (await server.get("/api/v1/ready"))["data"] == {"status": "ok"}
            for session in listed:  # each connection may come to either worker
                url = f"http://{server.address}/v1/sessions/{session['id']}/events"
                async with server.http.get(url) as watched:
                    assert (await watched.content.readline()).startswith(b"data: ")
            text = await server.metrics()
            assert 'vivavoce_worker_sessions{worker="1"}' in text
            assert 'vivavoce_first_audio_seconds_count{model="default"} 2.0\n' in text
            await call_is_found_and_ended_through_every_worker(server)
            server.process.terminate()
            for caller in callers.values():
                assert await caller.read_until_closed() == (1012, "the server is shutting down")
            assert await server.process.wait() == 0

    asyncio.run(main())


def test_worker_that_is_killed_is_replaced_and_the_other_goes_on() -> None:
    async def main() -> None:
        async with together() as server, AsyncExitStack() as stack:
            callers = await one_on_each(server, stack)
            victim = min(server.workers)
            os.kill(victim, signal.SIGKILL)
            ended = [await cut_off_first(callers)]
            (other,) = callers.keys() - set(ended)
            await callers[other].ask()
            assert await callers[other].answer() == ("completed", None)

            async def replaced() -> bool:
                restarts = f'vivavoce_worker_restarts_total{{worker="{ended[0][1:]}"}} 1\n'
                return restarts in await server.metrics()

            async def serves_again() -> bool:
                async with server.caller() as caller:
                    created = await caller.until("session.created")
                    return created["session"]["id"].split("_")[1] in ended

            await until(replaced)
            await until(serves_again)
            assert victim not in server.workers
            workers = server.workers
            server.process.kill()  # they end with their supervisor
            assert (await callers[other].read_until_closed())[0] == 1012

            async def all_ended() -> bool:
                return not any(map(alive, workers))

            await until(all_ended)

    asyncio.run(main())


async def cut_off_first(callers: Mapping[str, Caller]) -> str:
    """Wait until a caller's connection is gone without a close frame; the name of the caller."""
    reading = {asyncio.create_task(one.socket.receive()): name for name, one in callers.items()}
    done, left = await asyncio.wait(reading, return_when=asyncio.FIRST_COMPLETED)
    for task in left:
        task.cancel()
    await asyncio.wait(reading)
    (name,) = (reading[task] for task in done)
    assert callers[name].socket.close_code == 1006
    return name


@pytest.mark.skipif("VIVAVOCE_SLOW" not in os.environ, reason="takes 20 s: VIVAVOCE_SLOW=1")
def test_worker_that_hangs_is_killed_and_replaced() -> None:
    async def main() -> None:
        async with together() as server:
            stopped = max(server.workers)
            os.kill(stopped, signal.SIGSTOP)

            async def replaced() -> bool:
                return stopped not in server.workers and len(server.workers) == 2

            await until(replaced)

    asyncio.run(main())


def test_worker_that_cannot_start_ends_the_server_with_one_sentence(tmp_path: Path) -> None:
    config = f'{SCRIPTED}\n[server]\nstrict = true\n[engines.llm.llama]\nmodel = "/none.gguf"\n'
    (tmp_path / "vivavoce.toml").write_text(config.replace('llm = "scripted"', 'llm = "llama"'))

    async def main() -> None:
        process = await asyncio.create_subprocess_exec(
            *(str(Path(sys.executable).with_name("vivavoce")), "serve", "--port", "0"),
            *("--workers", "2"),
            cwd=tmp_path,
            stderr=asyncio.subprocess.PIPE,
        )
        _, complaint = await process.communicate()
        assert process.returncode == 2
        assert complaint.decode().count("[engines.llm.llama]") == 1

    asyncio.run(main())


def test_server_is_ready_once_all_workers_have_loaded_and_while_one_serves(tmp_path: Path) -> None:
    """Clients that wait for the start would otherwise all come to the first worker."""
    settings = Settings()
    launch = Launch(settings, None, {}, workers=2)
    supervisor = Supervisor(launch, Address(settings, []), str(tmp_path))
    first, second = supervisor.workers
    serving = WorkerStatus(ReadyStatus(status="ready", sessions=3), "ws://127.0.0.1:8080", ())
    voice = ReadyStatus(status="not ready", sessions=0, loading=("tts:hibari",))
    loading = WorkerStatus(voice, "ws://127.0.0.1:8080", ())
    first.take(serving)
    assert supervisor.ready_status == ReadyStatus(status="not ready", sessions=3)
    second.take(loading)
    assert supervisor.ready_status == msgspec.structs.replace(voice, sessions=3)
    second.take(serving)
    assert supervisor.ready_status == ReadyStatus(status="ready", sessions=6)
    first.take(loading)  # its successor
    assert supervisor.ready_status == msgspec.structs.replace(voice, status="ready", sessions=3)
    first.status = None  # it has ended
    assert supervisor.ready_status == ReadyStatus(status="ready", sessions=3)
