"""Builds the objects from the settings: the only place that knows all of them."""

import asyncio
import contextlib
import errno
import gc
import logging
import secrets
import signal
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiohttp import web

from vivavoce import __version__
from vivavoce.api.audio import AudioRoutes
from vivavoce.api.auth import Auth
from vivavoce.api.chat.handler import ChatRoutes
from vivavoce.api.client_secrets import ClientSecrets
from vivavoce.api.public import ConsoleRoutes, HealthRoutes
from vivavoce.audio.formats import RATE
from vivavoce.audio.resample import Resampler
from vivavoce.choices import Choice, choose_clean, choose_llm, choose_vad
from vivavoce.engines import registry
from vivavoce.engines.base import TTS
from vivavoce.engines.openai import discovery
from vivavoce.errors import AudioError, EngineError, SettingsError
from vivavoce.limits.keys import KeyRing
from vivavoce.limits.tokens import TokenMint
from vivavoce.protocol.session import Audio, AudioOutput, RealtimeSession
from vivavoce.runtime.catalog import Cascade, ModelCatalog
from vivavoce.runtime.sessions import ServerContext, Sessions
from vivavoce.runtime.vad_batcher import VadBatcher
from vivavoce.secret import Secret
from vivavoce.session.options import AvailableModels
from vivavoce.settings import LOOPBACK, ModelSettings, Settings
from vivavoce.transports.webrtc.reach import Reach
from vivavoce.transports.webrtc.signalling import CallRoutes
from vivavoce.transports.websocket import RealtimeEndpoint

log = logging.getLogger(__name__)

USUAL_VOICE = "marin"  # what OpenAI's sessions begin with


@dataclass(slots=True)
class Engines:
    """Engines by kind and name, each built and entered once, whoever shares it."""

    settings: Settings
    stack: AsyncExitStack
    places: tuple[discovery.LocalServer, ...]
    notes: dict[str, str] = field(default_factory=dict)
    """Why an `auto` became what it is, by "kind:name"."""
    _made: dict[tuple[str, str], Any] = field(default_factory=dict)

    async def get(self, kind: str, name: str) -> tuple[str, Any]:
        """The engine of that name, ready for use, and its real name. Raises SettingsError."""
        extra: dict[str, object] = {}
        if name == "auto":
            choice = await self._choose(kind)
            name, extra = choice.name, choice.options
            self.notes[f"{kind}:{name}"] = choice.reason
        if (kind, name) == ("clean", "none"):
            return name, None
        if (kind, name) not in self._made:
            named = self.settings.engines.get(kind, {})  # type: ignore[call-overload]
            options = dict(named.get(name, {}))
            real = options.pop("engine", name)
            engine = registry.create(kind, real, options | extra, table=name)
            try:
                self._made[kind, name] = await self.stack.enter_async_context(engine)
            except EngineError as exc:
                raise SettingsError(f"[engines.{kind}.{name}] {exc}") from exc
        return name, self._made[kind, name]

    def by_name(self) -> dict[str, object]:
        """Every engine that was built, by `kind:name`."""
        return {f"{kind}:{name}": engine for (kind, name), engine in self._made.items()}

    async def _choose(self, kind: str) -> Choice:
        match kind:
            case "llm":
                return await choose_llm(self.settings, self.places)
            case "clean":
                return choose_clean()
        return choose_vad()

    def check_tables(self) -> None:
        """Raise SettingsError for options of an engine that is not installed: a misspelt name."""
        for kind, named in self.settings.engines.items():
            installed = registry.names(kind)
            for name, options in named.items():
                if options.get("engine", name) not in installed:
                    raise SettingsError(
                        f"[engines.{kind}.{name}] no {kind} engine "
                        f"{options.get('engine', name)!r}; installed: {', '.join(installed)}"
                    )


@dataclass(frozen=True, slots=True)
class Built:
    """A house, ready for sessions, and what to say of it."""

    context: ServerContext
    names: dict[str, ModelSettings]
    """The engines of each model, by their real names."""
    notes: dict[str, str]


@asynccontextmanager
async def build(
    settings: Settings, places: tuple[discovery.LocalServer, ...] = discovery.LOCAL_SERVERS
) -> AsyncIterator[Built]:
    """Enter every engine that a model names; leave them all at the end. Raises SettingsError."""
    async with AsyncExitStack() as stack:
        engines = Engines(settings, stack, places)
        engines.check_tables()
        cascades: dict[str, Cascade] = {}
        names: dict[str, ModelSettings] = {}
        ears: dict[str, VadBatcher] = {}
        for model, wanted in settings.models.items():
            real: dict[str, str] = {}
            made: dict[str, Any] = {}
            for kind in wanted.__struct_fields__:
                try:
                    real[kind], made[kind] = await engines.get(kind, getattr(wanted, kind))
                except SettingsError as exc:
                    if str(exc).startswith("["):  # it names its place already
                        raise
                    raise SettingsError(f"[models.{model}] {exc}") from exc
            names[model] = ModelSettings(**real)
            usual = _usual_voice(settings.session.voice, made["tts"])
            cascades[model] = _cascade(ears, real, made, usual)
        house = _house(settings, cascades, engines.by_name())
        yield Built(house, names, engines.notes)


def _usual_voice(wanted: str, tts: TTS) -> str:
    """The voice of a model: that of the settings, else the usual one, where it has them."""
    known = {voice.id for voice in tts.voices}
    return next((voice for voice in (wanted, USUAL_VOICE) if voice in known), tts.default_voice)


def _cascade(
    ears: dict[str, VadBatcher], names: dict[str, str], made: dict[str, Any], voice: str
) -> Cascade:
    """Engines that can hear each other; their filters are made now and not in the first call."""
    kind = "vad"
    try:
        if names["vad"] not in ears:
            ears[names["vad"]] = VadBatcher(made["vad"])
        kind = "stt"
        Resampler(RATE, made["stt"].sample_rate)
        kind = "tts"
        Resampler(made["tts"].sample_rate, RATE)
    except (ValueError, AudioError) as exc:
        raise SettingsError(f"[engines.{kind}.{names[kind]}] {exc}") from exc
    return Cascade(
        ears[names["vad"]],
        made["turn"],
        made["stt"],
        made["llm"],
        made["tts"],
        made["clean"],
        default_voice=voice,
    )


def _house(
    settings: Settings, cascades: dict[str, Cascade], engines: dict[str, object]
) -> ServerContext:
    default = cascades[settings.default_model].info
    voice = settings.session.voice
    voices = default.voices or frozenset()
    if voice and voice not in voices:
        raise SettingsError(
            f"[session] voice: {voice!r} is none of the voices of the default model; "
            f"some of them: {', '.join(sorted(voices)[:8])}"
        )
    offer = AvailableModels(
        models={name: cascade.info for name, cascade in cascades.items()},
        default_model=settings.default_model,
        lock_voice=settings.session.lock_voice,
        failure_errors=settings.session.failure_errors,
    )
    template = RealtimeSession(
        instructions=settings.session.instructions,
        audio=Audio(output=AudioOutput(voice=default.default_voice)),
    )
    brains = ModelCatalog(cascades, settings.default_model)
    limits = settings.session.limits
    return ServerContext(
        brains,
        offer,
        limits,
        template,
        max_sessions=settings.server.max_sessions,
        max_upload_bytes=settings.server.max_upload_mb * 1024 * 1024,
        engines=engines,
    )


def gate_of(settings: Settings) -> Auth:
    """Who may come in. Raises SettingsError."""
    server = settings.server
    return Auth(
        keys=KeyRing(settings.keys),
        mint=TokenMint(Secret(server.secret or secrets.token_hex(32))),
        origins=frozenset(server.origins),
        trusts_loopback=server.host in LOOPBACK,
    )


def reach_of(settings: Settings) -> Reach:
    """How calls are reached."""
    webrtc = settings.webrtc
    return Reach(
        ice_servers=webrtc.ice_servers,
        turn_username=webrtc.turn_username or None,
        turn_password=Secret(webrtc.turn_password),
        udp_ports=webrtc.port_range,
        announce_address=webrtc.announce_address,
    )


def application(
    hub: Sessions, gate: Auth | None = None, reach: Reach | None = None
) -> web.Application:
    """The doors on one port."""
    gate = gate or gate_of(Settings())
    app = web.Application(client_max_size=hub.context.max_upload_bytes)
    gate.stand_before(app)
    client_secrets = ClientSecrets(gate, hub.initial_settings)
    client_secrets.add_to(app)
    ConsoleRoutes(has_keys=bool(gate.keys)).add_to(app)
    HealthRoutes(hub, __version__).add_to(app)
    ChatRoutes(
        hub.context.catalog,
        default_voice=hub.context.models.models[hub.context.models.default_model].default_voice,
        most_bytes=hub.context.max_upload_bytes,
    ).add_to(app)
    AudioRoutes(hub.context, version=__version__).add_to(app)
    calls = CallRoutes(hub, client_secrets.carried, reach, bearer=client_secrets.bearer)
    calls.add_to(app)
    door = RealtimeEndpoint(hub, client_secrets.carried, listen_in=calls.listen_in)
    app.router.add_get("/v1/realtime", door.connect)
    return app


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """For https and wss, where a certificate is given. Raises SettingsError."""
    server = settings.server
    if not server.tls_certificate and not server.tls_key:
        return None
    if not (server.tls_certificate and server.tls_key):
        raise SettingsError("[server] tls_certificate and tls_key go together: one is missing")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        # without a password OpenSSL would ask for one at the terminal, and wait
        context.load_cert_chain(server.tls_certificate, server.tls_key, password="")
    except (OSError, ssl.SSLError) as exc:
        raise SettingsError(
            f"[server] tls_certificate {server.tls_certificate} and tls_key {server.tls_key} "
            f"cannot be used: {exc}"
        ) from exc
    return context


def refuse_open_door(settings: Settings) -> None:
    """Raise SettingsError where strangers could come in and nobody said that they may."""
    server = settings.server
    if server.host not in LOOPBACK and not settings.keys and not server.no_auth:
        raise SettingsError(
            f"[server] host {server.host} can be reached from other machines and there is no API "
            f"key to keep strangers out; make one with: vivavoce keys new NAME, or bind to "
            f"127.0.0.1, or say --no-auth"
        )


async def serve(settings: Settings, announce: Callable[[Built, str], None]) -> None:
    """Serve until SIGINT or SIGTERM. Raises SettingsError when it cannot start."""
    refuse_open_door(settings)
    gate = gate_of(settings)
    context = tls_context(settings)
    async with build(settings) as built:
        hub = Sessions(built.context)
        runner = web.AppRunner(
            application(hub, gate, reach_of(settings)),
            access_log=None,
            handle_signals=False,
            shutdown_timeout=2.0,
        )
        await runner.setup()
        try:
            address = await _listen(runner, settings, context)
            gc.collect()
            gc.freeze()  # what is here now stays: a full collection need not look at it again
            announce(built, address)
            await _until_told()
            log.info("shutting down: %d sessions", len(hub))
            await hub.drain(settings.server.drain_seconds)
        finally:
            await runner.cleanup()


async def _listen(runner: web.AppRunner, settings: Settings, context: ssl.SSLContext | None) -> str:
    """Open the port; return the address that clients use."""
    server = settings.server
    site = web.TCPSite(runner, server.host, server.port, ssl_context=context, backlog=1024)
    try:
        await site.start()
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE:
            raise SettingsError(
                f"[server] port {server.port} on {server.host} is in use; stop what uses it, or "
                f"choose another with --port"
            ) from exc
        raise SettingsError(
            f"[server] cannot listen on {server.host} port {server.port}: {exc.strerror or exc}"
        ) from exc
    port = runner.addresses[0][1]
    host = f"[{server.host}]" if ":" in server.host else server.host
    return f"{'wss' if context else 'ws'}://{host}:{port}/v1/realtime"


async def _until_told() -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, told.set)
    try:
        await told.wait()
    finally:
        for name in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(ValueError):
                loop.remove_signal_handler(name)


def described(settings: Settings) -> bytes:
    """The settings as JSON, secrets masked."""
    return msgspec.json.format(msgspec.json.encode(settings, enc_hook=str), indent=2)
