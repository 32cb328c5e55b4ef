"""Whatever strangers send, the server goes on serving, and keeps nothing of them."""

import asyncio
import contextlib
import gc
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from tests import idle_clock
from tests.runtime.stage import MODELS, ScriptedEngines, template
from tests.server import HOST, Server
from tests.transports.noise import Noise
from tests.transports.webrtc.caller import calling, masked, raw, until
from vivavoce.protocol.session import ServerVad
from vivavoce.routes import application
from vivavoce.runtime.sessions import ServerContext, Sessions
from vivavoce.session.limits import SessionLimits

CASES = 10_000
FRAMES = 25  # of one connection
WARM_UP = 60  # connections, after which caches and pools are as large as they will be
AT_ONCE = 8
MAX_KEPT_BYTES = 1_000_000
"""Bytes that may be left of 8,500 cases: less than 120 a case, so that their events are not among
it. Caches take some: of patterns, of the tables of sound formats, of the last hundred requests."""

# msgspec interns field names there, and the interpreter's table of them may grow by 2 MB at once
NOT_KEPT = (tracemalloc.Filter(False, "*/msgspec/_utils.py"),)


@asynccontextmanager
async def noise_server(scripted: ScriptedEngines) -> AsyncIterator[Server]:
    """A server whose engines can be looked into."""
    context = ServerContext(
        scripted.catalog, MODELS, SessionLimits(stall_seconds=2), template(ServerVad())
    )
    sessions = Sessions(context)
    runner = web.AppRunner(application(sessions), access_log=None, shutdown_timeout=2.0)
    await runner.setup()
    await web.TCPSite(runner, HOST, 0).start()
    try:
        yield Server(runner.addresses[0][1], sessions, context.catalog.cascades, "default")
    finally:
        await sessions.drain(0)
        await runner.cleanup()


def framed(data: bytes) -> bytes:
    """A text frame, or a binary one where it is not UTF-8: as text it would end the connection."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return b"\x82" + masked(data)[1:]
    return masked(data)


async def misbehave(server: Server, noise: Noise) -> int:
    """One connection: bad frames, and an end of any kind. Returns how many were refused."""
    chance = noise.random.random
    beta = ("OpenAI-Beta: realtime=v1",) if chance() < 0.3 else ()
    reader, writer = await raw(server.port, *beta)
    reading = asyncio.create_task(reader.read())
    try:
        for _ in range(FRAMES):
            writer.write(framed(noise.frame()))
            if chance() < 0.1:
                await asyncio.sleep(0)
        match noise.random.randrange(8):
            case 0:  # half a frame
                writer.write(masked(noise.frame() + b"x")[:-1])
            case 1:  # bytes that are no frame
                writer.write(noise.random.randbytes(40))
            case 2:  # the connection is aborted
                await asyncio.sleep(0)
            case _:  # a closing handshake, after everything was read
                writer.write(b"\x88\x82" + bytes(4) + (1000).to_bytes(2, "big"))
                return (await reading).count(b'"type":"error"')
    finally:
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await reading
    return 0


async def run_connections(server: Server, noise: Noise, connections: int) -> int:
    """So many connections, a few at a time. Returns how many frames were refused."""
    left, refused = iter(range(connections)), list[int]()

    async def some() -> None:
        for _ in left:
            refused.append(await misbehave(server, noise))

    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(some())
    return sum(refused)


async def wait_until_idle(server: Server, scripted: ScriptedEngines, tasks: int) -> None:
    """Wait until every session has ended and given back what it used."""
    await until(lambda: len(server.sessions) == 0)
    await until(lambda: not scripted.vad.held and not scripted.running.count)
    await until(lambda: len(asyncio.all_tasks()) <= tasks)


def test_noise_leaves_no_error_and_no_memory(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> tuple[int, int]:
        scripted, noise = ScriptedEngines(stt={"transcripts": ["hello"]}), Noise(20_260_101)
        async with noise_server(scripted) as server:
            tasks = len(asyncio.all_tasks())
            refused = await run_connections(server, noise, WARM_UP)
            await wait_until_idle(server, scripted, tasks)
            gc.collect()
            tracemalloc.start()
            refused += await run_connections(server, noise, CASES // FRAMES - WARM_UP)
            await wait_until_idle(server, scripted, tasks)
            gc.collect()
            places = tracemalloc.take_snapshot().filter_traces(NOT_KEPT).statistics("lineno")
            tracemalloc.stop()
            kept = sum(place.size for place in places)
            print(*places[:20], sep="\n")  # noqa: T201  shown when the test fails
            async with calling(server) as caller:
                await caller.ask()
                assert await caller.answer() == ("completed", None)
                await caller.speak()
                assert await caller.answer() == ("completed", None)
                assert "error" not in caller.types
        return kept, refused

    kept, refused = idle_clock.run(main())
    assert kept < MAX_KEPT_BYTES
    assert refused > CASES / 4  # it was read, and understood as what it is
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_noise_of_one_seed_is_the_same() -> None:
    first, second = Noise(1), Noise(1)
    assert [first.frame() for _ in range(500)] == [second.frame() for _ in range(500)]
