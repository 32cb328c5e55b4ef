"""Composes the server from its settings, and serves until it is stopped."""

import gc
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import replace
from functools import partial
from ssl import SSLContext
from typing import TYPE_CHECKING

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
from vivavoce.api.auth import Auth
from vivavoce.configured import load_new, load_preloaded, preloading
from vivavoce.engines.openai import discovery
from vivavoce.errors import SettingsError, StoreError
from vivavoce.models import BuiltModels, built_models
from vivavoce.protocol.session import Audio, AudioInput, AudioOutput, RealtimeSession, ServerVad
from vivavoce.reloading import Generations, Reloader, Replacement
from vivavoce.routes import application, auth_of
from vivavoce.runtime.admission import Admission
from vivavoce.runtime.full_collections import FullCollections
from vivavoce.runtime.load import LoadProbe
from vivavoce.runtime.moderation import built_moderation
from vivavoce.runtime.pools import pools_of
from vivavoce.runtime.reload import EnginePool
from vivavoce.runtime.resume import Resumption
from vivavoce.runtime.sessions import ServerContext, Sessions
from vivavoce.runtime.speaker_gate import speaker_gate
from vivavoce.runtime.tools import built_tools
from vivavoce.runtime.upstream import Hold
from vivavoce.runtime.vad_batcher import VadBatcher
from vivavoce.server import (
    StopSignals,
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
from vivavoce.telemetry.recorder import Recorder
from vivavoce.telemetry.session_meter import SessionMeter
from vivavoce.telemetry.tracing import SessionTrace, tracer
from vivavoce.workers.clustering import joined, placed
from vivavoce.workers.control import ControlRoutes, banner_of
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
                pool, metrics = EnginePool(), Metrics()
                async with (
                    Generations(partial(build, pool=pool), settings) as built,
                    metering(settings, built.current.models, store, os.environ) as meter,
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
        sessions.admission = Admission(settings.server, partial(_vads, sessions))
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
            LoadProbe(sessions.admission.note, self.metrics.lag.observe) as sessions.load,
            FullCollections(sessions),
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
