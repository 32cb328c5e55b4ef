"""The application: every route of the server, and who may use it."""

import secrets
import time
from functools import partial
from urllib.parse import urlsplit

from aiohttp import web

from vivavoce import __version__
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
from vivavoce.engines.openai import discovery
from vivavoce.limits.keys import KeyRing
from vivavoce.limits.tokens import TokenMint
from vivavoce.runtime.sessions import Sessions
from vivavoce.secret import Secret
from vivavoce.server import configure_library_loggers
from vivavoce.settings import Settings
from vivavoce.telemetry.metering import Metering
from vivavoce.telemetry.metrics import Metrics
from vivavoce.telemetry.recorder import Recorder, RecorderSettings
from vivavoce.transports.webrtc.calls import Calls
from vivavoce.transports.webrtc.settings import WebRTCSettings
from vivavoce.transports.webrtc.signalling import CallRoutes
from vivavoce.transports.webrtc.small_webrtc import SmallWebRTCRoutes
from vivavoce.transports.websocket import WebSocketEndpoint
from vivavoce.workers.clustering import Membership
from vivavoce.workers.forwarding import Forwarder


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
    auth = auth or auth_of(Settings())
    app = web.Application(client_max_size=sessions.context.max_upload_bytes)
    auth.add_to(app)
    if membership is not None:
        _add_forwarding(app, sessions, membership)
    client_secrets = ClientSecrets(auth, sessions.initial_settings)
    client_secrets.add_to(app)
    keep_context(app, sessions.hold_context)
    _add_http(app, sessions, auth)
    TelephonyRoutes(auth, telephony or TelephonySettings()).add_to(app)
    check = AdminCheck(auth, accounts[0] if accounts else None)
    _add_admin(app, sessions, check, membership)
    if accounts is not None:
        metering, metrics = accounts
        app[METERING] = metering
        UsageRoutes(auth, metering).add_to(app)
        AdminRoutes(auth, metering).add_to(app)
        recorder = recorder or Recorder(RecorderSettings(enabled=False))
        RecordingRoutes(recorder, check).add_to(app)
        MetricsRoutes(metrics).add_to(app)
    _add_realtime(app, sessions, client_secrets, webrtc or WebRTCSettings(), membership)
    return app


def _add_forwarding(app: web.Application, sessions: Sessions, membership: Membership) -> None:
    """Pass requests on to the process that has their session."""
    has_session = partial(_has_session, sessions)
    place, neighbours, locations = membership.place, membership.neighbours, membership.locations
    Forwarder(place, neighbours, locations, has_session).add_to(app)
    if membership.cluster is not None:
        add_hint(app, membership.cluster, sessions)


def _add_http(app: web.Application, sessions: Sessions, auth: Auth) -> None:
    """Pages, health, and the HTTP API."""
    max_bytes = sessions.context.max_upload_bytes
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
    ):
        routes.add_to(app)


def _add_admin(
    app: web.Application, sessions: Sessions, check: AdminCheck, membership: Membership | None
) -> None:
    """Open sessions, the cluster, and model packs."""
    end_elsewhere = membership.end_session if membership else None
    SessionRoutes(sessions, check, end_elsewhere=end_elsewhere).add_to(app)
    cluster = membership.cluster if membership else None
    ClusterRoutes(cluster, membership.node if membership else "", check).add_to(app)
    if sessions.context.inventory is not None:
        PackRoutes(check).add_to(app)


def _add_realtime(
    app: web.Application,
    sessions: Sessions,
    client_secrets: ClientSecrets,
    webrtc: WebRTCSettings,
    membership: Membership | None,
) -> None:
    """Sessions over WebRTC and WebSockets."""
    cluster = membership.cluster if membership else None
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


async def _has_session(sessions: Sessions, session_id: str) -> bool:
    """Whether this process has of a session what no other can have."""
    if sessions.live.find(session_id) is not None:
        return True
    resumption = sessions.context.resumption
    return resumption is not None and not await resumption.wait_saved(session_id)
