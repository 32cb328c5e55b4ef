"""The server is put together, refuses to start where something is wrong, and ends in peace."""

import asyncio
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
from vivavoce.app import Built, build, described, refuse_open_door, serve, tls_context
from vivavoce.engines.openai.discovery import LocalServer
from vivavoce.errors import SettingsError
from vivavoce.settings import ModelSettings, ServerSettings, Settings

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
        async with build(settings, places=()):
            pass

    with pytest.raises(SettingsError) as caught:
        asyncio.run(main())
    return str(caught.value)


class Doors:
    """A server that runs as the command runs it, in this process."""

    def __init__(self, address: str, built: Built, task: asyncio.Task[None]) -> None:
        self.address = address
        self.built = built
        self.task = task
        self.told = False

    async def told_to_stop(self, name: signal.Signals = signal.SIGTERM) -> None:
        """Once: a second signal is not waited for by anybody, and ends the process."""
        self.told = True
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


def serving(script: Callable[[Doors], Awaitable[None]], settings: Settings | None = None) -> None:
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
        doors = Doors(address, built, task)
        await script(doors)
        if not doors.told:
            await doors.told_to_stop()
        async with asyncio.timeout(20):
            await task

    asyncio.run(main())


def test_each_engine_is_built_once_whoever_shares_it() -> None:
    async def main() -> None:
        engines = scripted().models["default"]
        settings = msgspec.structs.replace(
            scripted(), models={"default": engines, "other": engines}, default_model="other"
        )
        async with build(settings, places=()) as built:
            brains = built.context.catalog
            one, other = brains.cascades["default"], brains.cascades["other"]
            assert one.tts is other.tts
            assert one.vad is other.vad
            assert brains.of("unknown") is other

    asyncio.run(main())


def test_two_sets_of_options_are_two_engines() -> None:
    engines = dict.fromkeys(("vad", "turn", "stt", "llm", "tts"), "scripted")
    tree = {
        "models": {"default": engines, "deep": {**engines, "tts": "deep"}},
        "engines": {"tts": {"deep": {"engine": "scripted", "voices": ["bass"]}}},
    }

    async def main() -> None:
        async with build(msgspec.convert(tree, Settings), places=()) as built:
            cascades = built.context.catalog.cascades
            assert [voice.id for voice in cascades["deep"].tts.voices] == ["bass"]
            assert len(cascades["default"].tts.voices) > 1
            assert built.names["deep"].tts == "deep"

    asyncio.run(main())


def test_auto_becomes_an_engine_and_it_is_said_which_and_why() -> None:
    async def main() -> None:
        async with ChatServer([lists("llama")]) as chat:
            wanted = ModelSettings("auto", "scripted", "scripted", "auto", "scripted")
            settings = msgspec.structs.replace(scripted(), models={"default": wanted})
            async with build(settings, places=(LocalServer("Library", chat.port),)) as built:
                assert built.names["default"].llm == "openai"
                assert built.notes["llm:openai"].startswith("Library answers at ")

    asyncio.run(main())


def test_a_model_can_do_without_cleaning() -> None:
    wanted = msgspec.structs.replace(scripted().models["default"], clean="none")

    async def main() -> None:
        settings = msgspec.structs.replace(scripted(), models={"default": wanted})
        async with build(settings, places=()) as built:
            assert built.names["default"].clean == "none"
            assert built.context.catalog.cascades["default"].cleaner is None

    asyncio.run(main())


@pytest.mark.parametrize(
    ("engines", "mistake"),
    [
        ({"stt": "wisper"}, "[models.default] no stt engine 'wisper'; installed: "),
        ({"tts": "silero"}, "[models.default] no tts engine 'silero'; installed: "),
    ],
)
def test_an_unknown_engine_is_refused_with_the_model_that_wants_it(
    engines: dict[str, str], mistake: str
) -> None:
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
def test_wrong_options_of_an_engine_are_refused_with_their_table(
    tables: dict[str, Any], mistake: str
) -> None:
    settings = msgspec.structs.replace(scripted(), engines=tables)
    assert refused(settings).startswith(mistake)


HOARSE = """
from vivavoce.engines.scripted.engines import ScriptedTTS
from vivavoce.errors import EngineError

class Hoarse(ScriptedTTS):
    async def __aenter__(self):
        raise EngineError("the voice is away; fetch it")
"""


def test_an_engine_that_cannot_be_entered_is_refused_with_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "hoarse", {"hoarse": HOARSE}, "tts:hoarse = hoarse:Hoarse\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    settings = scripted(models={"tts": "hoarse"})
    assert refused(settings) == "[engines.tts.hoarse] the voice is away; fetch it"


def test_settings_are_described_with_their_secrets_masked() -> None:
    options = {"llm": {"openai": {"api_key": "sk-1"}}}
    settings = msgspec.convert({"engines": options, "server": {"secret": "s-1"}}, Settings)
    shown = msgspec.json.decode(described(settings))
    assert shown["engines"] == {"llm": {"openai": {"api_key": "***"}}}
    assert shown["server"]["secret"] == "***"
    assert shown["models"]["default"]["stt"] == "pocketsphinx"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_an_open_door_is_refused_unless_it_is_wanted(host: str) -> None:
    with pytest.raises(SettingsError, match=f"^\\[server\\] host {host} can be reached from"):
        refuse_open_door(Settings(server=ServerSettings(host=host)))
    refuse_open_door(Settings(server=ServerSettings(host=host, no_auth=True)))
    refuse_open_door(Settings(server=ServerSettings(host=host), keys={"me": "hash"}))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_behind_the_loopback_no_key_is_needed(host: str) -> None:
    refuse_open_door(Settings(server=ServerSettings(host=host)))


def test_without_a_certificate_there_is_no_tls() -> None:
    assert tls_context(Settings()) is None


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
        tls_context(changed(server=given))
    assert mistake in str(caught.value)


def test_with_a_certificate_clients_come_by_wss() -> None:
    trusting = ssl.create_default_context(cafile=CERTIFICATE)

    async def script(doors: Doors) -> None:
        assert doors.address.startswith("wss://127.0.0.1:")
        async with doors.caller(trusting) as caller:
            await caller.ask()
            assert await caller.answer() == ("completed", None)

    files = {"tls_certificate": CERTIFICATE, "tls_key": str(TLS / "key.pem")}
    serving(script, changed(server={"port": 0, **files}))


def test_a_port_that_is_in_use_is_told_with_the_remedy() -> None:
    async def script(doors: Doors) -> None:
        raise AssertionError("it listens")

    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        used = rf"^\[server\] port {port} on 127.0.0.1 is in use; stop what uses it, or choose an"
        with pytest.raises(SettingsError, match=used):
            serving(script, changed(server={"port": port}))


def test_a_host_that_is_not_ours_is_told() -> None:
    async def script(doors: Doors) -> None:
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


@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_lets_the_answer_end_and_says_why_it_goes(name: signal.Signals) -> None:
    async def script(doors: Doors) -> None:
        async with doors.caller() as talking, doors.caller() as idle:
            await talking.ask()
            await talking.until("response.output_audio.delta")
            await doors.told_to_stop(name)
            assert await idle.farewell() == (1012, "the server is shutting down")
            assert await talking.answer() == ("completed", None)
            assert await talking.farewell() == (1012, "the server is shutting down")
        await doors.task

    serving(script, slow_answers(drain_seconds=10))


def test_an_answer_that_takes_too_long_is_cut_off() -> None:
    async def script(doors: Doors) -> None:
        async with doors.caller() as caller:
            await caller.ask()
            await caller.until("response.output_audio.delta")
            await doors.told_to_stop()
            assert await caller.answer() == ("cancelled", None)
            assert await caller.farewell() == (1012, "the server is shutting down")

    serving(script, slow_answers(drain_seconds=0.1))


def test_while_it_stops_it_lives_but_takes_nobody_in() -> None:
    async def script(doors: Doors) -> None:
        async with aiohttp.ClientSession(
            doors.address.partition("/v1")[0].replace("ws", "http")
        ) as http:
            async with http.get("/ready") as ready:
                assert ready.status == 200
            async with doors.caller() as caller:
                await caller.ask()
                await caller.until("response.output_audio.delta")
                await doors.told_to_stop()
                async with http.get("/ready") as ready:
                    assert (ready.status, (await ready.json())["status"]) == (503, "not ready")
                async with http.get("/health") as health:
                    assert (health.status, (await health.json())["sessions"]) == (200, 1)
                with pytest.raises(aiohttp.WSServerHandshakeError) as turned_away:
                    async with doors.caller():
                        pass
                assert turned_away.value.status == 503
                assert await caller.answer() == ("completed", None)

    serving(script, slow_answers(drain_seconds=10))  # fmt: skip


def test_an_engine_without_the_usual_voice_speaks_with_its_own() -> None:
    async def main(voice: str) -> str:
        settings = scripted(tts={"voices": ["bass", "tenor"]}, session={"voice": voice})
        async with build(settings, places=()) as built:
            return built.context.models.models["default"].default_voice

    assert asyncio.run(main("")) == "bass"
    assert asyncio.run(main("tenor")) == "tenor"
    with pytest.raises(SettingsError) as caught:
        asyncio.run(main("marin"))
    assert str(caught.value) == (
        "[session] voice: 'marin' is none of the voices of the default model; some of them: "
        "bass, tenor"
    )
