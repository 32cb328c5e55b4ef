"""Composes the server from its settings: models, sessions, authentication and routes."""

import gc
import logging
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import replace
from functools import partial
from ssl import SSLContext
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec
from aiohttp import web

from vivavoce import __version__
from vivavoce.accounting import (
    follow_keys,
    metering,
    open_store,
    price_table,
    resuming,
    settings_keys,
    spend_comparison,
    tariffs,
)
from vivavoce.api.admin import AdminCheck, AdminRoutes
from vivavoce.api.auth import WEBSOCKET_PATHS, Auth
from vivavoce.api.chat.routes import ChatRoutes
from vivavoce.api.client_secrets import ClientSecrets
from vivavoce.api.cluster import ClusterRoutes, add_hint
from vivavoce.api.guides import GuideRoutes
from vivavoce.api.metered import METERING
from vivavoce.api.models import ModelRoutes
from vivavoce.api.openapi import ReferenceRoutes
from vivavoce.api.packs import PackRoutes
from vivavoce.api.provider_signatures import TelephonySettings
from vivavoce.api.public import ConsoleRoutes, HealthRoutes, TestingModuleRoutes
from vivavoce.api.recordings import RecordingRoutes
from vivavoce.api.requests import keep_context
from vivavoce.api.sessions import SessionRoutes
from vivavoce.api.speech import SpeechRoutes
from vivavoce.api.speech_analysis import SpeechAnalysisRoutes
from vivavoce.api.start import StartRoutes
from vivavoce.api.telephony import TelephonyRoutes
from vivavoce.api.transcription import TranscriptionRoutes
from vivavoce.api.usage import MetricsRoutes, UsageRoutes
from vivavoce.api.voxray import VoxrayRoutes
from vivavoce.configured import load_new, load_preloaded, preloading
from vivavoce.engines.openai import discovery
from vivavoce.errors import SettingsError, StoreError
from vivavoce.limits.keys import KeyRing
from vivavoce.limits.tokens import TokenMint
from vivavoce.models import BuiltModels, built_models
from vivavoce.protocol.session import Audio, AudioInput, AudioOutput, RealtimeSession, ServerVad
from vivavoce.reloading import Generations, Reloader, Replacement
from vivavoce.runtime.admission import Admission
from vivavoce.runtime.moderation import built_moderation
from vivavoce.runtime.pools import pools_of
from vivavoce.runtime.reload import EnginePool
from vivavoce.runtime.resume import Resumption
from vivavoce.runtime.sessions import ServerContext, Sessions
from vivavoce.runtime.speaker_gate import speaker_gate
from vivavoce.runtime.tools import built_tools
from vivavoce.runtime.upstream import Hold
from vivavoce.runtime.vad_batcher import VadBatcher
from vivavoce.secret import Secret
from vivavoce.server import (
    StopSignals,
    configure_library_loggers,
    drain,
    fix_malloc_thresholds,
    hangup_reloads,
    load_certificate,
    raise_descriptor_limit,
    serve_app,
    tls_context,
)
from vivavoce.settings import Settings
from vivavoce.starting import listens, put_off
from vivavoce.telemetry.metering import Metering
from vivavoce.telemetry.metrics import Metrics
from vivavoce.telemetry.recorder import Recorder, RecorderSettings
from vivavoce.telemetry.session_meter import SessionMeter
from vivavoce.telemetry.tracing import SessionTrace, tracer
from vivavoce.transports.webrtc.calls import Calls
from vivavoce.transports.webrtc.settings import WebRTCSettings
from vivavoce.transports.webrtc.signalling import CallRoutes
from vivavoce.transports.webrtc.small_webrtc import SmallWebRTCRoutes
from vivavoce.transports.websocket import WebSocketEndpoint
from vivavoce.workers.clustering import Membership, joined, placed
from vivavoce.workers.control import ControlRoutes, banner_of
from vivavoce.workers.forwarding import Forwarder
from vivavoce.workers.messages import WorkerPlace

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

log = logging.getLogger(__name__)


class Built(msgspec.Struct, frozen=True):
    """What sessions share, and the models that it was built from."""

    context: ServerContext
    models: BuiltModels


@asynccontextmanager
async def build(
    settings: Settings,
    local_servers: tuple[discovery.LocalServer, ...] = discovery.LOCAL_SERVERS,
    pool: EnginePool | None = None,
) -> AsyncIterator[Built]:
    """Enter every engine that a model names; leave them all at the end. Raises SettingsError.

    pool: engines that run already, and are used where their options are the same.
    """
    async with built_models(settings, local_servers, pool) as models, AsyncExitStack() as stack:
        tools = await built_tools(settings.tools, stack)
        checks = await built_moderation(settings.moderation, stack)
        gate = await speaker_gate(settings.speaker_gate, models.catalog)
        context = replace(_context(settings, models), tools=tools, moderation=checks, gate=gate)
        yield Built(context, models)


def _context(settings: Settings, models: BuiltModels) -> ServerContext:
    session = settings.session
    available = models.catalog.available(
        default_model=settings.default_model,
        lock_voice=session.lock_voice,
        failure_errors=session.failure_errors,
    )
    available = replace(
        available,
        turns=settings.turns,
        interruption=settings.interruption,
        speaker_gate=settings.speaker_gate,
    )
    voice = available.models[settings.default_model].default_voice
    turns = ServerVad(
        threshold=session.vad_threshold,
        prefix_padding_ms=session.prefix_padding_ms,
        silence_duration_ms=session.silence_duration_ms,
        interrupt_response=session.allow_interruptions,
        idle_timeout_ms=session.idle_prompt_ms or None,
    )
    template = RealtimeSession(
        instructions=session.instructions,
        audio=Audio(input=AudioInput(turn_detection=turns), output=AudioOutput(voice=voice)),
    )
    return ServerContext(
        models.catalog,
        available,
        session,
        template,
        voices=settings.voices,
        max_sessions=settings.server.max_sessions,
        max_upload_bytes=settings.server.max_upload_mb * 1024 * 1024,
        engines=models.engines,
        inventory=models.inventory,
        policies={
            name: settings.policies[model.policy]
            for name, model in settings.models.items()
            if model.policy
        },
        watch_captions=settings.server.watch == "captions",
    )


def auth_of(settings: Settings) -> Auth:
    """The keys, hosts and origins that are accepted. Raises SettingsError."""
    server = settings.server
    keys = KeyRing(settings.keys)
    # with keys a page that was re-bound to this server by DNS cannot do anything
    guarded = not keys and (server.on_loopback or server.hosts)
    public = urlsplit(settings.telephony.public_url).netloc
    return Auth(
        keys,
        TokenMint(Secret(server.secret or secrets.token_hex(32))),
        origins=server.origins,
        loopback_pages=server.on_loopback,
        hosts=(*server.hosts, *filter(None, (public,))) if guarded else None,
    )


def application(
    sessions: Sessions,
    auth: Auth | None = None,
    webrtc: WebRTCSettings | None = None,
    *,
    accounts: tuple[Metering, Metrics] | None = None,
    telephony: TelephonySettings | None = None,
    membership: Membership | None = None,
    recorder: Recorder | None = None,
) -> web.Application:
    """All routes. accounts: where usage is booked, and metrics of the sessions.

    membership: of this process among several, to which requests may have to be forwarded.
    """
    configure_library_loggers()
    context = sessions.context
    auth = auth or auth_of(Settings())
    app = web.Application(client_max_size=context.max_upload_bytes)
    auth.add_to(app)
    cluster = membership.cluster if membership else None
    if membership is not None:
        has_session = partial(_has_session, sessions)
        place, neighbours, locations = membership.place, membership.neighbours, membership.locations
        Forwarder(place, neighbours, locations, has_session).add_to(app)
    if cluster is not None:
        add_hint(app, cluster, sessions)
    client_secrets = ClientSecrets(auth, sessions.initial_settings)
    client_secrets.add_to(app)
    keep_context(app, sessions.hold_context)
    max_bytes = context.max_upload_bytes
    for routes in (
        ConsoleRoutes(has_keys=lambda: bool(auth.keys)),
        TestingModuleRoutes(),
        HealthRoutes(sessions, __version__),
        VoxrayRoutes(sessions),
        ChatRoutes(max_bytes=max_bytes),
        SpeechRoutes(),
        TranscriptionRoutes(max_bytes=max_bytes),
        SpeechAnalysisRoutes(max_bytes=max_bytes),
        ModelRoutes(probed=[f"{one.name}: {one.base_url}" for one in discovery.LOCAL_SERVERS]),
        ReferenceRoutes(__version__),
        GuideRoutes(),
        TelephonyRoutes(auth, telephony or TelephonySettings()),
    ):
        routes.add_to(app)
    check = AdminCheck(auth, accounts[0] if accounts else None)
    end_elsewhere = membership.end_session if membership else None
    SessionRoutes(sessions, check, end_elsewhere=end_elsewhere).add_to(app)
    ClusterRoutes(cluster, membership.node if membership else "", check).add_to(app)
    if context.inventory is not None:
        PackRoutes(check).add_to(app)
    if accounts is not None:
        app[METERING] = accounts[0]
        UsageRoutes(auth, accounts[0]).add_to(app)
        AdminRoutes(auth, accounts[0]).add_to(app)
        recorder = recorder or Recorder(RecorderSettings(enabled=False))
        RecordingRoutes(recorder, AdminCheck(auth, accounts[0])).add_to(app)
        MetricsRoutes(accounts[1]).add_to(app)
    webrtc = webrtc or WebRTCSettings()
    start = StartRoutes(
        client_secrets,
        webrtc.client_ice_servers,
        time.monotonic,
        membership.place.place if membership else None,
        cluster.first if cluster else None,
    )
    start.add_to(app)
    admit, short_lived_key = client_secrets.admit, client_secrets.short_lived_key
    calls = Calls(sessions, webrtc)
    call_routes = CallRoutes(calls, admit, short_lived_key=short_lived_key)
    call_routes.add_to(app)
    SmallWebRTCRoutes(calls, admit, short_lived_key, start.promised.find).add_to(app)
    endpoint = WebSocketEndpoint(sessions, admit, call_routes.find)
    endpoint.add_to(app)
    app[WEBSOCKET_PATHS] = endpoint.paths
    return app


async def _has_session(sessions: Sessions, session_id: str) -> bool:
    """Whether this process has of a session what no other can have."""
    if sessions.live.find(session_id) is not None:
        return True
    resumption = sessions.context.resumption
    return resumption is not None and not await resumption.wait_saved(session_id)


def require_keys(settings: Settings, *, stored: int = 0) -> None:
    """Raise SettingsError where other machines can connect and nothing keeps strangers out.

    stored: how many keys the store has.
    """
    server = settings.server
    if not server.on_loopback and not (settings.keys or stored or server.no_auth):
        raise SettingsError(
            f"[server] host {server.host} can be reached from other machines and there is no API "
            f"key to keep strangers out; make one with: vivavoce keys new NAME, or bind to "
            f"127.0.0.1, or say --no-auth"
        )


async def serve(
    settings: Settings,
    announce: Callable[[Built, str], None],
    reread: Callable[[], Settings] | None = None,
    place: WorkerPlace | None = None,
) -> None:
    """Serve until a signal. Raises SettingsError when it cannot start.

    announce: called with the address, such as ws://127.0.0.1:8080/v1/realtime, once it listens.
    reread: reads the settings again, in a thread, when SIGHUP asks for that; raises SettingsError.
    place: of this process among several that serve together.
    """
    gc.freeze()  # what imports made lives to the end: no collection visits it
    auth = auth_of(settings)
    tls = tls_context(settings.server)
    place = placed(settings, place)
    raise_descriptor_limit(settings.server.max_open_files)
    fix_malloc_thresholds()
    try:
        with tracer(os.environ) as spans:
            async with put_off(), open_store(settings, os.environ) as store:
                require_keys(settings, stored=len(await store.records("key")))
                pool = EnginePool()
                async with (
                    Generations(partial(build, pool=pool), settings) as built,
                    metering(settings, built.current.models, store, os.environ) as meter,
                    Metrics() as metrics,
                    resuming(settings, store, place.place if place else None) as resumption,
                    Recorder(settings.recorder, version=__version__).writing() as recorder,
                    spend_comparison(settings, meter, metrics.usage.capture),
                ):
                    server = _Server(
                        settings,
                        built,
                        auth,
                        meter,
                        metrics,
                        resumption,
                        recorder,
                        spans,
                        tls,
                        place,
                    )
                    await server.serve(announce, reread)
    except StoreError as exc:
        raise SettingsError(f"[store] {exc}") from exc


class _Server(msgspec.Struct):
    """A server that has what it needs, and its settings."""

    settings: Settings
    """Those of the start."""
    generations: Generations[Built]
    auth: Auth
    meter: Metering
    metrics: Metrics
    resumption: Resumption | None
    recorder: Recorder
    spans: "Tracer | None"
    tls: SSLContext | None
    place: WorkerPlace | None

    async def serve(
        self, announce: Callable[[Built, str], None], reread: Callable[[], Settings] | None
    ) -> None:
        """Listen until a signal. Raises SettingsError."""
        settings, built = self.settings, self.generations.current
        follow_keys(self.auth, self.meter)
        sessions = Sessions(self._context(built))
        sessions.on_refusal = self.metrics.on_session_refused
        self.metrics.watch_accounts(self.meter)
        self.metrics.watch_sessions(sessions)
        self.metrics.watch_upstreams(upstream_holds(built.context))
        self.metrics.watch_pools(pools_of(built.models.engines))
        membership = joined(settings, self.place, self.meter.store, sessions, self.resumption)
        cluster = membership.cluster if membership else None
        if cluster is not None:
            self.metrics.watch_cluster(cluster)
        app = application(
            sessions,
            self.auth,
            settings.webrtc,
            accounts=(self.meter, self.metrics),
            telephony=settings.telephony,
            membership=membership,
            recorder=self.recorder,
        )
        reloader = None
        if reread is not None:
            reloader = Reloader(
                settings,
                self.generations,
                sessions,
                reread=reread,
                check=self._check,
                prepare=self._prepare,
            )
        banner = banner_of(built.models, settings.default_model)
        async with (
            preloading(built.models.inventory, strict=settings.server.strict),
            _listening(settings, self.tls, app, self.place) as address,
            ControlRoutes(sessions, self.metrics, address, banner, self.resumption).serving(
                self.place
            ),
            Admission(settings.server, partial(_vads, sessions)) as sessions.admission,
            cluster or nullcontext(),
        ):
            await _until_stopped(settings, sessions, partial(announce, built, address), reloader)

    def _context(self, built: Built) -> ServerContext:
        """What sessions share, their meters and observers among it."""
        return replace(
            metered_context(built.context, self.meter, self.metrics, self.spans),
            resumption=self.resumption,
            place=self.place.name if self.place else "",
            record=self.recorder.begin if self.settings.recorder.enabled else None,
        )

    def _check(self, settings: Settings) -> None:
        """Raises SettingsError."""
        require_keys(settings, stored=self.meter.stored_keys)
        auth_of(settings)
        price_table(settings)
        for server in (settings.server, self.settings.server):  # the files may have changed
            tls_context(server)

    async def _prepare(self, settings: Settings, built: Built) -> Replacement:
        """Load the models. Raises SettingsError."""
        await load_new(built.models.engines)
        await load_preloaded(built.models.inventory, strict=settings.server.strict)

        async def apply() -> None:
            self.auth.replace_origins(auth_of(settings))
            if self.tls is not None:
                load_certificate(self.tls, self.settings.server)
            logging.getLogger().setLevel(settings.server.log_level.upper())
            self.meter.warn_at = settings.session.warn_at
            self.metrics.watch_upstreams(upstream_holds(built.context))
            self.metrics.watch_pools(pools_of(built.models.engines))
            try:
                await self.meter.replace(
                    price_table(settings), tariffs(settings, built.models), settings_keys(settings)
                )
            except StoreError as exc:
                log.warning("%s", exc)

        return Replacement(self._context(built), apply)


def metered_context(
    context: ServerContext, meter: Metering, metrics: Metrics, spans: "Tracer | None" = None
) -> ServerContext:
    """What sessions share, with their meters and observers: usage is booked and measured."""
    observers = (metrics.session, *((partial(SessionTrace, spans),) if spans else ()))
    return replace(
        context,
        meter=partial(SessionMeter, meter),
        measurements=metrics,
        key_models=lambda key: meter.directory.models_of(key),
        owner_of=lambda key: meter.directory.owner(key),
        takes_images=meter.takes_images,
        observers=(*context.observers, *observers),
    )


def upstream_holds(context: ServerContext) -> dict[str, Hold]:
    """Of each relay: until when its upstream server is not asked, and why."""
    return {name: relay.hold for name, relay in context.catalog.relays.items()}


@asynccontextmanager
async def _listening(
    settings: Settings, tls: SSLContext | None, app: web.Application, place: WorkerPlace | None
) -> AsyncIterator[str]:
    """Serve the application; its address."""
    bound = place.sockets if place else ()
    unix_path = place.client_socket if place else ""
    async with serve_app(app, settings.server, tls, bound=bound, unix_path=unix_path) as port:
        gc.collect()
        gc.freeze()  # objects made at start live to the end: no full collection visits them
        listens()
        host = settings.server.host
        bracketed = f"[{host}]" if ":" in host else host
        yield f"{'wss' if tls else 'ws'}://{bracketed}:{port}/v1/realtime"


async def _until_stopped(
    settings: Settings,
    sessions: Sessions,
    announce: Callable[[], None],
    reloader: Reloader[Built] | None,
) -> None:
    """Wait for a signal, and end all sessions; others reload the settings meanwhile."""
    reloads = reloader is not None and hangup_reloads(settings.server)
    with StopSignals(hangup_reloads=reloads) as stop:
        announce()
        if reloader is None:
            await stop.first.wait()
        else:
            await reloader.serve(stop.reload, stop.first)
            settings = reloader.settings
        log.info("shutting down: %d sessions", len(sessions))
        await drain(sessions, settings.server.drain_seconds, stop)


def _vads(sessions: Sessions) -> set[VadBatcher]:
    """Those of all models."""
    return {cascade.vad for cascade in sessions.context.catalog.cascades.values()}
