"""SIGHUP reads the settings again: new sessions get them, and the earlier ones end with theirs."""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.engines.plugins import install
from tests.transports.webrtc.caller import Caller
from vivavoce.app import Built, build, serve
from vivavoce.limits.keys import hash_of
from vivavoce.reloading import not_reloaded
from vivavoce.runtime.reload import Counted, EnginePool
from vivavoce.server import hangup_reloads
from vivavoce.settings import ServerSettings, Settings
from vivavoce.settings_sources import load, parse

PROCESS_TTS = """
from vivavoce.engines.host import HostLimits, WorkerHost
from vivavoce.engines.scripted.engines import ScriptedTTS

RUNNING = []

class ProcessTTS(ScriptedTTS):
    async def __aenter__(self):
        self.host = WorkerHost(
            "tests.engines.workers:TestWorker", {}, name="tts.process", message=str,
            limits=HostLimits(),
        )
        await self.host.__aenter__()
        async with self.host.open(("pid", 0)) as stream:
            self.pid = int(await anext(stream))
        RUNNING.append(self.pid)
        return self

    async def __aexit__(self, *exc):
        await self.host.__aexit__(*exc)
        RUNNING.remove(self.pid)
"""
"""A synthesiser with a process."""

SETTINGS = """
[server]
port = {port}
on_hangup = "reload"
drain_seconds = 5
{server}
[models.default]
vad = "scripted"
turn = "scripted"
stt = "scripted"
llm = "scripted"
tts = "process"
clean = "none"
speaker = "none"
[session]
instructions = "{instructions}"
[engines.llm.scripted]
answers = ["{answer}"]
[engines.tts.process]
voices = ["{voice}"]
{more}
"""


class ReloadedServer:
    """A server whose settings are in a file, in this process."""

    def __init__(self, file: Path, caplog: pytest.LogCaptureFixture) -> None:
        self.file = file
        self.address = ""
        self.caplog = caplog
        self.processes: list[int] = []
        """Of the synthesisers that run."""

    def write(self, **changes: Any) -> None:
        """Write the file anew."""
        given = {
            "port": 0,
            "server": "",
            "instructions": "Be brief.",
            "answer": "First.",
            "voice": "one",
            "more": "",
        }
        self.file.write_text(SETTINGS.format(**given | changes))

    async def reload(self, outcome: str = "the settings were reloaded") -> None:
        """Send the signal, and wait until the log says what came of it."""
        before = self.caplog.text.count(outcome)
        os.kill(os.getpid(), signal.SIGHUP)
        async with asyncio.timeout(60):
            while self.caplog.text.count(outcome) == before:  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    async def until_processes(self, number: int) -> None:
        async with asyncio.timeout(60):
            while len(self.processes) != number:  # noqa: ASYNC110  they end after their session
                await asyncio.sleep(0.005)

    @asynccontextmanager
    async def caller(self, key: str = "") -> AsyncIterator[Caller]:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        async with (
            aiohttp.ClientSession(headers=headers) as http,
            http.ws_connect(self.address) as socket,
        ):
            yield Caller(socket)


Serve = Callable[[Callable[[ReloadedServer], Awaitable[None]]], None]


@pytest.fixture
def serving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[Serve]:
    """Runs a script against a server whose settings can be read again."""
    package = tmp_path / "package"
    package.mkdir()
    entry = "tts:process = process_tts:ProcessTTS"
    install(package, "process", {"process_tts": PROCESS_TTS}, entry)
    monkeypatch.syspath_prepend(str(package))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))  # of workers
    monkeypatch.setenv("VIVAVOCE_STORE_URL", "memory")
    caplog.set_level(logging.INFO, "vivavoce")
    level = logging.getLogger().level

    def run(script: Callable[[ReloadedServer], Awaitable[None]]) -> None:
        server = ReloadedServer(tmp_path / "vivavoce.toml", caplog)
        server.write()

        def read() -> Settings:
            return load(server.file, os.environ, {})[0]

        async def main() -> None:
            announced: asyncio.Future[str] = asyncio.get_running_loop().create_future()

            def announce(_built: Built, address: str) -> None:
                announced.set_result(address)

            task = asyncio.create_task(serve(read(), announce, read))
            await asyncio.wait((announced, task), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
            from process_tts import RUNNING  # type: ignore[import-not-found]

            server.address, server.processes = announced.result(), RUNNING
            await script(server)
            os.kill(os.getpid(), signal.SIGTERM)
            async with asyncio.timeout(60):
                await task
            assert not RUNNING

        asyncio.run(main())

    yield run
    logging.getLogger().setLevel(level)


async def said(caller: Caller) -> str:
    """What is answered to a question."""
    await caller.ask()
    done = await caller.until("response.output_audio_transcript.done")
    return str(done["transcript"])


def test_session_that_began_before_keeps_its_settings_and_a_new_one_gets_the_new(
    serving: Serve,
) -> None:
    async def script(server: ReloadedServer) -> None:
        async with server.caller() as earlier:
            session = (await earlier.until("session.created"))["session"]
            assert session["instructions"] == "Be brief."
            server.write(answer="Second.", instructions="Be long.", server="max_sessions = 2")
            await server.reload()
            async with server.caller() as later:
                session = (await later.until("session.created"))["session"]
                assert session["instructions"] == "Be long."
                assert await said(later) == "Second."
                assert await said(earlier) == "First."
                with pytest.raises(aiohttp.WSServerHandshakeError):
                    async with server.caller():
                        pass

    serving(script)


def test_engine_with_the_same_options_stays_and_another_ends_with_its_last_session(
    serving: Serve,
) -> None:
    async def script(server: ReloadedServer) -> None:
        (first,) = server.processes
        server.write(answer="Second.")
        await server.reload()
        assert server.processes == [first]
        async with server.caller() as earlier:
            await earlier.until("session.created")
            server.write(voice="two")
            await server.reload()
            assert len(server.processes) == 2
            assert await said(earlier) == "Second."
            async with server.caller() as later:
                session = (await later.until("session.created"))["session"]
                assert session["audio"]["output"]["voice"] == "two"
        await server.until_processes(1)
        assert server.processes != [first]

    serving(script)


def test_request_over_http_ends_with_the_engine_it_began_with(serving: Serve) -> None:
    async def script(server: ReloadedServer) -> None:
        base = server.address.replace("ws", "http", 1).removesuffix("/realtime")
        async with aiohttp.ClientSession() as http:
            server.write(voice="two")
            await server.reload()
            await server.until_processes(1)
            async with http.get(f"{base}/audio/voices") as answer:
                assert [voice["id"] for voice in (await answer.json())["data"]] == ["two"]
            body = {"input": "Hello.", "voice": "two", "model": "default"}
            async with http.post(f"{base}/audio/speech", json=body) as answer:
                assert answer.status == 200
                assert await answer.read()

    serving(script)


def test_keys_are_reloaded_and_the_session_of_a_removed_one_ends(serving: Serve) -> None:
    async def script(server: ReloadedServer) -> None:
        def keys(**named: str) -> str:
            return "[keys]\n" + "".join(f'{k} = "{hash_of(v)}"\n' for k, v in named.items())

        server.write(more=keys(ann="vv-1"))
        await server.reload()
        async with server.caller("vv-1") as ann:
            await ann.until("session.created")
            server.write(more=keys(bob="vv-2"))
            await server.reload()
            code, _ = await ann.read_until_closed()
            assert code == 3000
        async with server.caller("vv-2") as bob:
            await bob.until("session.created")

    serving(script)


def test_bad_file_leaves_the_settings_and_logs_one_sentence(
    serving: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    async def script(server: ReloadedServer) -> None:
        (first,) = server.processes
        kept = "the earlier ones stay"
        for mistake, why in (
            ({"more": "[sessions]"}, "sessions"),
            ({"more": "[engines.stt.scripted]\nword_ms = 'five'"}, "stt.scripted] word_ms"),
            ({"more": '[keys]\nann = "secret"'}, "[keys] ann is not the hash of a key"),
            ({"server": 'tls_key = "gone.pem"'}, "tls_certificate and tls_key go together"),
        ):
            server.write(answer="Second.", voice="two", **mistake)
            await server.reload(kept)
            record = [record for record in caplog.records if kept in record.message][-1]
            assert (record.levelname, record.exc_info) == ("ERROR", None)
            assert why in record.message
            assert server.processes == [first]
        async with server.caller() as caller:
            assert await said(caller) == "First."

    serving(script)


def test_settings_that_need_a_restart_are_named_in_one_warning(
    serving: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    async def script(server: ReloadedServer) -> None:
        server.write(port=9, more="[webrtc]\ngone_seconds = 5")
        await server.reload()
        (warning,) = [each for each in caplog.records if "not reloaded" in each.message]
        assert warning.levelname == "WARNING"
        assert warning.message.startswith("[server] port, [webrtc]: changed, but not reloaded")

    serving(script)


def test_settings_that_do_not_differ_need_no_restart() -> None:
    assert not_reloaded(parse({}), parse({"server": {"max_sessions": 7}})) == []
    assert not_reloaded(parse({}), parse({"store": {"url": "memory"}})) == ["[store]"]


@pytest.mark.parametrize(("on_hangup", "reloads"), [("reload", True), ("drain", False)])
def test_hangup_does_what_the_settings_say(on_hangup: Any, reloads: bool) -> None:
    assert hangup_reloads(ServerSettings(on_hangup=on_hangup)) is reloads


def test_hangup_without_a_terminal_reloads_by_default() -> None:
    child = os.fork()
    if not child:  # a session of its own has no controlling terminal
        os.setsid()
        os._exit(0 if hangup_reloads(ServerSettings()) else 1)
    assert os.waitpid(child, 0)[1] == 0


class Lamp:
    """An engine that notes whether it is entered."""

    def __init__(self, *, broken: bool = False) -> None:
        self.lit = False
        self.broken = broken

    async def __aenter__(self) -> "Lamp":
        await asyncio.sleep(0)
        if self.broken:
            raise OSError("broken")
        self.lit = True
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.lit = False


def test_pool_gives_one_engine_for_the_same_options() -> None:
    async def main() -> None:
        pool, one, two, other = EnginePool(), Lamp(), Lamp(), Lamp()
        async with pool.use("tts", "lamp", one, {"watt": 5}) as first:
            async with (
                pool.use("tts", "lamp", two, {"watt": 5}) as second,
                pool.use("tts", "lamp", other, {"watt": 6}) as third,
            ):
                assert (first, second, third) == (one, one, other)
                assert not two.lit
            assert (one.lit, other.lit) == (True, False)
        assert not one.lit

    asyncio.run(main())


def test_pool_enters_the_next_engine_where_the_first_cannot_be_entered() -> None:
    async def main() -> None:
        pool, broken, sound = EnginePool(), Lamp(broken=True), Lamp()

        async def use(lamp: Lamp) -> Lamp:
            async with pool.use("tts", "lamp", lamp, {}) as engine:
                assert isinstance(engine, Lamp)
                return engine

        results = await asyncio.gather(use(broken), use(sound), return_exceptions=True)
        assert isinstance(results[0], OSError)
        assert results[1] is sound

    asyncio.run(main())


def test_counted_value_is_unused_when_the_last_user_is_gone() -> None:
    async def main() -> None:
        counted = Counted("settings")
        with counted.hold() as value:
            assert value == "settings"
            counted.take()
        waiting = asyncio.create_task(counted.wait_unused())
        await asyncio.sleep(0)
        assert not waiting.done()
        counted.give_back()
        await waiting

    asyncio.run(main())


def test_engines_of_two_builds_with_one_pool_are_the_same() -> None:
    async def main() -> None:
        pool = EnginePool()
        engines = dict.fromkeys(("vad", "turn", "stt", "llm", "tts"), "scripted")
        tree: dict[str, Any] = {"models": {"default": engines}}
        changed = {**tree, "engines": {"llm": {"scripted": {"answers": ["Yes."]}}}}
        async with build(parse(tree), (), pool) as one, build(parse(changed), (), pool) as other:
            first, second = one.models.catalog.of(""), other.models.catalog.of("")
            assert first.tts is second.tts
            assert first.llm is not second.llm

    asyncio.run(main())
