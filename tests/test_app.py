"""The server is composed, refuses to start with wrong settings, and stops by signals."""

import asyncio
import gc
import os
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from tests.engines.openai.chat_server import ChatServer, lists
from tests.engines.plugins import install
from tests.server import HOST, scripted
from tests.transports.webrtc.caller import Caller
from vivavoce.app import Built, build, require_keys, serve
from vivavoce.cli.serving import described
from vivavoce.engines.openai.discovery import LocalServer
from vivavoce.errors import SettingsError
from vivavoce.models import Selected
from vivavoce.runtime import load
from vivavoce.server import tls_context
from vivavoce.settings import CascadeModel, ServerSettings, Settings
from vivavoce.settings_sources import parse

TLS = Path(__file__).parent / "data" / "tls"
CERTIFICATE = str(TLS / "certificate.pem")


def changed(**tables: Mapping[str, Any]) -> Settings:
    """Scripted settings with these fields of some sections changed."""
    settings = scripted()
    sections = {
        name: msgspec.structs.replace(getattr(settings, name), **fields)
        for name, fields in tables.items()
    }
    return msgspec.structs.replace(settings, **sections)


def refused(settings: Settings) -> str:
    """Why the server cannot be built."""

    async def main() -> None:
        async with build(settings, local_servers=()):
            pass

    with pytest.raises(SettingsError) as caught:
        asyncio.run(main())
    return str(caught.value)


def engines_of(built: Built, model: str = "default") -> dict[str, Selected]:
    """The engines of a model by kind."""
    return {engine.kind: engine for engine in built.models.selected[model]}


class RunningServer:
    """A server that runs as the command runs it, in this process."""

    def __init__(self, address: str, built: Built, task: asyncio.Task[None]) -> None:
        self.address = address
        self.built = built
        self.task = task
        self.signalled = False

    async def stop_by(self, name: signal.Signals = signal.SIGTERM) -> None:
        """Once: a second signal is not waited for by anybody, and ends the process."""
        self.signalled = True
        os.kill(os.getpid(), name)
        await asyncio.sleep(0)

    @asynccontextmanager
    async def caller(self, context: ssl.SSLContext | bool = True) -> AsyncIterator[Caller]:
        async with (
            aiohttp.ClientSession() as http,
            http.ws_connect(self.address, ssl=context) as socket_,
        ):
            caller = Caller(socket_)
            await caller.until("session.created")
            yield caller


def serving(
    script: Callable[[RunningServer], Awaitable[None]], settings: Settings | None = None
) -> None:
    """Run a script against a served server; in the end it must stop by itself or by a signal."""

    async def main() -> None:
        announced: asyncio.Future[tuple[Built, str]] = asyncio.get_running_loop().create_future()
        given = settings or changed(server={"port": 0})
        task = asyncio.create_task(serve(given, lambda *what: announced.set_result(what)))
        both: list[asyncio.Future[Any]] = [announced, task]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
        built, address = announced.result()
        server = RunningServer(address, built, task)
        await script(server)
        if not server.signalled:
            await server.stop_by()
        async with asyncio.timeout(60):
            await task

    asyncio.run(main())


def test_served_server_decides_itself_when_all_objects_are_visited_for_garbage() -> None:
    before = gc.get_threshold()

    async def script(server: RunningServer) -> None:
        assert gc.get_threshold()[2] > 1_000_000 > before[2]

    serving(script)
    assert gc.get_threshold() == before


def test_engine_of_two_models_is_built_once() -> None:
    async def main() -> None:
        engines = scripted().models["default"]
        settings = msgspec.structs.replace(
            scripted(), models={"default": engines, "other": engines}, default_model="other"
        )
        async with build(settings, local_servers=()) as built:
            catalog = built.models.catalog
            one, other = catalog.cascades["default"], catalog.cascades["other"]
            assert one.tts is other.tts
            assert one.vad is other.vad
            assert catalog.of("unknown") is other

    asyncio.run(main())


def test_engine_with_two_sets_of_options_is_built_twice() -> None:
    engines = dict.fromkeys(("vad", "turn", "stt", "llm", "tts"), "scripted")
    tree = {
        "models": {"default": engines, "deep": {**engines, "tts": "deep"}},
        "engines": {"tts": {"deep": {"engine": "scripted", "voices": ["bass"]}}},
    }

    async def main() -> None:
        async with build(parse(tree), local_servers=()) as built:
            cascades = built.models.catalog.cascades
            assert [voice.id for voice in cascades["deep"].tts.voices] == ["bass"]
            assert len(cascades["default"].tts.voices) > 1
            assert engines_of(built, "deep")["tts"].name == "deep"

    asyncio.run(main())


def test_auto_llm_is_a_local_server_with_the_reason() -> None:
    async def main() -> None:
        async with ChatServer([lists("llama")]) as chat:
            wanted = CascadeModel("auto", "scripted", "scripted", "auto", "scripted", "none")
            settings = msgspec.structs.replace(scripted(), models={"default": wanted})
            async with build(settings, local_servers=(LocalServer("Library", chat.port),)) as built:
                llm = engines_of(built)["llm"]
                assert llm.name == "openai"
                assert llm.reason.startswith("Library answers at ")

    asyncio.run(main())


def test_model_with_clean_none_has_no_cleaner() -> None:
    wanted = msgspec.structs.replace(scripted().models["default"], clean="none")

    async def main() -> None:
        settings = msgspec.structs.replace(scripted(), models={"default": wanted})
        async with build(settings, local_servers=()) as built:
            assert engines_of(built)["clean"].name == "none"
            assert built.models.catalog.cascades["default"].cleaner is None

    asyncio.run(main())


@pytest.mark.parametrize(
    ("engines", "mistake"),
    [
        ({"stt": "wisper"}, "[models.default] no stt engine 'wisper'; installed: "),
        ({"tts": "silero"}, "[models.default] no tts engine 'silero'; installed: "),
    ],
)
def test_unknown_engine_is_refused_with_its_model(engines: dict[str, str], mistake: str) -> None:
    assert refused(scripted(models=engines)).startswith(mistake)


@pytest.mark.parametrize(
    ("tables", "mistake"),
    [
        ({"tts": {"espaek": {}}}, "[engines.tts.espaek] no tts engine 'espaek'; installed: "),
        ({"tts": {"deep": {"engine": "bas"}}}, "[engines.tts.deep] no tts engine 'bas'"),
        ({"tts": {"deep": {"engine": 5}}}, "[engines.tts.deep] no tts engine 5; installed: "),
        ({"stt": {"scripted": {"transcript": 5}}}, "[engines.stt.scripted] there is no setting "),
        ({"stt": {"scripted": {"word_ms": "5"}}}, "[engines.stt.scripted] word_ms: Expected `int`"),
        (
            {"vad": {"scripted": {"window_samples": 256}}},
            "[engines.vad.scripted] a VAD window must",
        ),
        ({"tts": {"scripted": {"sample_rate": 16001}}}, "[engines.tts.scripted] sound of 16001 Hz"),
        ({"stt": {"scripted": {"sample_rate": 16001}}}, "[engines.stt.scripted] sound of 24000 Hz"),
    ],
)
def test_wrong_engine_options_are_refused_with_their_table(
    tables: dict[str, Any], mistake: str
) -> None:
    settings = msgspec.structs.replace(scripted(), engines=tables)
    assert refused(settings).startswith(mistake)


FAILING_TTS = """
from vivavoce.engines.scripted.engines import ScriptedTTS
from vivavoce.errors import EngineError

class FailingTTS(ScriptedTTS):
    async def __aenter__(self):
        raise EngineError("the model file is missing")
"""


def test_engine_that_fails_to_start_is_refused_with_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "failing", {"failing": FAILING_TTS}, "tts:failing = failing:FailingTTS\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    settings = scripted(models={"tts": "failing"}, server={"strict": True})
    assert refused(settings) == "[engines.tts.failing] the model file is missing"


def test_described_settings_have_masked_secrets() -> None:
    options = {"llm": {"openai": {"api_key": "sk-1"}}}
    settings = parse({"engines": options, "server": {"secret": "s-1"}})
    shown = msgspec.json.decode(described(settings))
    assert shown["engines"] == {"llm": {"openai": {"api_key": "***"}}}
    assert shown["server"]["secret"] == "***"
    default = shown["models"]["default"]
    assert [default.pop(name) for name in ("type", "voice", "policy")] == ["cascade", "", ""]
    assert default == CascadeModel().engines


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_public_host_without_keys_is_refused_unless_no_auth(host: str) -> None:
    with pytest.raises(SettingsError, match=f"^\\[server\\] host {host} can be reached from"):
        require_keys(Settings(server=ServerSettings(host=host)))
    require_keys(Settings(server=ServerSettings(host=host, no_auth=True)))
    require_keys(Settings(server=ServerSettings(host=host), keys={"me": "hash"}))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_loopback_host_needs_no_keys(host: str) -> None:
    require_keys(Settings(server=ServerSettings(host=host)))


def test_tls_context_without_certificate_is_none() -> None:
    assert tls_context(ServerSettings()) is None


@pytest.mark.parametrize(
    ("certificate", "key", "mistake"),
    [
        ("certificate.pem", "", "go together: one is missing"),
        ("", "key.pem", "go together: one is missing"),
        ("nowhere.pem", "key.pem", "No such file or directory"),
        ("certificate.pem", "nowhere.pem", "No such file or directory"),
        ("certificate.pem", "another_key.pem", "KEY_VALUES_MISMATCH"),
        ("README.md", "key.pem", "cannot be used: "),
        ("certificate.pem", "locked_key.pem", "cannot be used: "),
    ],
)
def test_wrong_tls_files_are_refused(certificate: str, key: str, mistake: str) -> None:
    files = {"tls_certificate": certificate, "tls_key": key}
    given = {name: str(TLS / file) if file else "" for name, file in files.items()}
    with pytest.raises(SettingsError, match=r"^\[server\] tls_certificate ") as caught:
        tls_context(changed(server=given).server)
    assert mistake in str(caught.value)


def test_server_with_certificate_speaks_wss() -> None:
    trusting = ssl.create_default_context(cafile=CERTIFICATE)

    async def script(server: RunningServer) -> None:
        assert server.address.startswith("wss://127.0.0.1:")
        async with server.caller(trusting) as caller:
            await caller.ask()
            assert await caller.answer() == ("completed", None)

    files = {"tls_certificate": CERTIFICATE, "tls_key": str(TLS / "key.pem")}
    serving(script, changed(server={"port": 0, **files}))


def test_port_in_use_is_refused_with_the_remedy() -> None:
    async def script(server: RunningServer) -> None:
        raise AssertionError("it listens")

    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        used = rf"^\[server\] port {port} on 127.0.0.1 is in use; stop what uses it, or choose an"
        with pytest.raises(SettingsError, match=used):
            serving(script, changed(server={"port": port}))


def test_host_of_another_machine_is_refused() -> None:
    async def script(server: RunningServer) -> None:
        raise AssertionError("it listens")

    with pytest.raises(SettingsError, match=r"^\[server\] cannot listen on 192.0.2.1 port 0: "):
        serving(script, changed(server={"port": 0, "host": "192.0.2.1", "no_auth": True}))


def slow_answers(drain_seconds: float) -> Settings:
    """Each answer takes 0.6 seconds to say."""
    return scripted(
        tts={"realtime_factor": 1, "ms_per_character": 10},
        llm={"answers": ["x" * 60]},
        server={"port": 0, "drain_seconds": drain_seconds},
    )


@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_stop_signal_lets_answers_end_and_closes_with_1012(name: signal.Signals) -> None:
    async def script(server: RunningServer) -> None:
        async with server.caller() as talking, server.caller() as idle:
            await talking.ask()
            await talking.until("response.output_audio.delta")
            await server.stop_by(name)
            assert await idle.read_until_closed() == (1012, "the server is shutting down")
            assert await talking.answer() == ("completed", None)
            assert await talking.read_until_closed() == (1012, "the server is shutting down")
        await server.task

    serving(script, slow_answers(drain_seconds=10))


def test_answer_longer_than_the_drain_is_cancelled() -> None:
    async def script(server: RunningServer) -> None:
        async with server.caller() as caller:
            await caller.ask()
            await caller.until("response.output_audio.delta")
            await server.stop_by()
            assert await caller.answer() == ("cancelled", None)
            assert await caller.read_until_closed() == (1012, "the server is shutting down")

    serving(script, slow_answers(drain_seconds=0.1))


def test_draining_server_is_alive_and_refuses_new_sessions() -> None:
    async def script(server: RunningServer) -> None:
        async with aiohttp.ClientSession(
            server.address.partition("/v1")[0].replace("ws", "http")
        ) as http:
            async with http.get("/ready") as ready:
                assert ready.status == 200
            async with server.caller() as caller:
                await caller.ask()
                await caller.until("response.output_audio.delta")
                await server.stop_by()
                async with http.get("/ready") as ready:
                    assert (ready.status, (await ready.json())["status"]) == (503, "not ready")
                async with http.get("/health") as health:
                    assert (health.status, (await health.json())["sessions"]) == (200, 1)
                with pytest.raises(aiohttp.WSServerHandshakeError) as turned_away:
                    async with server.caller():
                        pass
                assert turned_away.value.status == 503
                assert await caller.answer() == ("completed", None)

    serving(script, slow_answers(drain_seconds=10))  # fmt: skip


def test_load_is_measured_while_the_server_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "SAMPLE_S", 0.01)

    async def script(server: RunningServer) -> None:
        origin = server.address.partition("/v1")[0].replace("ws", "http")
        async with aiohttp.ClientSession() as http, asyncio.timeout(60):
            measured = "0.0"
            while measured == "0.0":
                async with http.get(f"{origin}/metrics") as answer:
                    text = await answer.text()
                measured = text.partition("\nvivavoce_event_loop_lag_seconds_count ")[2].split()[0]

    serving(script)


@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_second_signal_ends_at_once_with_close_frames(name: signal.Signals) -> None:
    async def script(server: RunningServer) -> None:
        async with server.caller() as caller:
            await caller.ask()
            await caller.until("response.output_audio.delta")
            await server.stop_by(signal.SIGTERM)
            await server.stop_by(name)
            assert await caller.answer() == ("cancelled", None)
            assert await caller.read_until_closed() == (1012, "the server is shutting down")

    serving(script, slow_answers(drain_seconds=600))


def test_ignored_sighup_stays_ignored() -> None:
    async def script(server: RunningServer) -> None:
        async with server.caller() as caller:
            os.kill(os.getpid(), signal.SIGHUP)
            await caller.ask()
            assert await caller.answer() == ("completed", None)
            assert not server.task.done()

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        serving(script)
    finally:
        signal.signal(signal.SIGHUP, before)
