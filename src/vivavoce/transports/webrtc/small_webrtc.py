"""The offers of Pipecat's small-webrtc clients, and of Voxray's: calls that speak RTVI.

POST answers an offer and PATCH takes ICE candidates, at /api/offer and, for a session that /start
has promised, at /sessions/{session_id}/api/offer. An offer with the pc_id of a call renegotiates
its connection, or with restart_pc replaces it; the session continues. The bodies under /api/v1 and
at /webrtc/offer are those of Voxray.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import msgspec
from aiohttp import web

from vivavoce.protocol.client import SessionUpdate
from vivavoce.protocol.codec import Reader
from vivavoce.protocol.rtvi_requests import (
    CandidatesRequest,
    Description,
    OfferAnswer,
    OfferRequest,
    PatchStatus,
    VoxrayAnswer,
    VoxrayAnswerData,
    VoxrayCall,
    VoxrayCallData,
    VoxrayOffer,
    options_of,
)
from vivavoce.protocol.wire import ConnectRequest, Opening
from vivavoce.session.facts import Received
from vivavoce.transports.protocols import rtvi
from vivavoce.transports.webrtc.calls import Calls
from vivavoce.transports.webrtc.signalling import ShortLivedKey, is_local
from vivavoce.transports.websocket import Admit

OFFER_PATHS = ("/api/offer", "/sessions/{session_id}/api/offer")
VOXRAY_SESSION_PATH = "/api/v1/sessions/{session_id}/offer"
VOXRAY_PATHS = ("/webrtc/offer", "/api/v1/webrtc/offer")
StartedSession: TypeAlias = tuple[Opening, Mapping[str, str]]
"""The key that requested a session, with its settings, and the OPTIONS of the request."""
FindStarted = Callable[[str], StartedSession]
"""The session that was requested under that id. Raises InvalidRequest and HTTPNotFound."""


class Offered(NamedTuple):
    """The sender of an offer, its options, and the credential that finds the call again."""

    opening: Opening
    options: Mapping[str, str]
    credential: str | None


_offer: Reader[OfferRequest] = Reader(OfferRequest, "offer")
_voxray_offer: Reader[VoxrayOffer] = Reader(VoxrayOffer, "offer")
_description: Reader[Description] = Reader(Description, "offer")
_candidates: Reader[CandidatesRequest] = Reader(CandidatesRequest, "request")


class SmallWebRTCRoutes:
    """Makes calls that speak RTVI on their data channel."""

    def __init__(
        self, calls: Calls, admit: Admit, short_lived_key: ShortLivedKey, find_started: FindStarted
    ) -> None:
        self._calls = calls
        self._admit = admit
        self._short_lived_key = short_lived_key
        self._find_started = find_started

    def add_to(self, app: web.Application) -> None:
        for path in OFFER_PATHS:
            app.router.add_post(path, self.offer)
            app.router.add_patch(path, self.add_candidates)
        app.router.add_post(VOXRAY_SESSION_PATH, self.voxray_session_offer)
        app.router.add_patch(VOXRAY_SESSION_PATH, self.voxray_candidates)
        for path in VOXRAY_PATHS:
            app.router.add_post(path, self.voxray_offer)

    async def offer(self, request: web.Request) -> web.Response:
        """Answer an offer: of a new call, or of one that is served."""
        offered = self._offered(request)
        return _json(await self._answer(request, offered, _offer.read(await request.read())))

    async def add_candidates(self, request: web.Request) -> web.Response:
        await self._add_candidates(request)
        return _json(PatchStatus())

    async def voxray_session_offer(self, request: web.Request) -> web.Response:
        """The same in Voxray's envelope; the SDP may be wrapped in JSON, as its answer is then."""
        offered = self._offered(request)
        asked = _offer.read(await request.read())
        wrapped = asked.sdp.lstrip().startswith("{")
        if wrapped:
            asked = msgspec.structs.replace(asked, sdp=_description.read(asked.sdp).sdp)
        answer = await self._answer(request, offered, asked)
        sdp = _wrapped(answer) if wrapped else answer.sdp
        return _json(VoxrayAnswerData(VoxrayAnswer(sdp, answer.pc_id)))

    async def voxray_candidates(self, request: web.Request) -> web.Response:
        await self._add_candidates(request)
        return web.Response(status=204)

    async def voxray_offer(self, request: web.Request) -> web.Response:
        """Answer an offer that is wrapped in JSON, by one that is."""
        offered = self._offered(request)
        text = _voxray_offer.read(await request.read()).offer
        asked = OfferRequest(sdp=_description.read(text).sdp if text.strip() else "")
        answer = await self._answer(request, offered, asked)
        response = _json(VoxrayCallData(VoxrayCall(_wrapped(answer))))
        response.headers["Cache-Control"] = "no-store"
        return response

    def _offered(self, request: web.Request) -> Offered:
        """Raises Unauthorized, and InvalidRequest and HTTPNotFound for the id of a session."""
        session_id = request.match_info.get("session_id")
        if session_id is None:
            return Offered(self._admit(request), {}, self._short_lived_key(request))
        return Offered(*self._find_started(session_id), session_id)

    async def _answer(
        self, request: web.Request, offered: Offered, asked: OfferRequest
    ) -> OfferAnswer:
        local = is_local(request)
        if asked.pc_id and (call := self._calls.find(asked.pc_id, offered.credential)):
            sdp = await call.answer_again(asked.sdp, restart=bool(asked.restart_pc), local=local)
            return OfferAnswer(sdp, call.id)
        protocol = rtvi(channel=True)
        added = asked.request_data or asked.camel_request_data
        chosen = options_of(request.query) | dict(offered.options) | options_of(added)
        opening = protocol.opening(ConnectRequest(request.path, query=chosen))
        ticket = None
        if self._calls.resumption and "resume_token" in chosen:
            ticket = self._calls.resumption.ticket(chosen, offered.opening.who)
        call, answer = await self._calls.open(
            asked.sdp,
            msgspec.structs.replace(
                opening,
                who=offered.opening.who,
                transport="webrtc",
                client=request.remote or "",
            ),
            protocol,
            local=local,
            opened_with=offered.credential,
            ticket=ticket,
        )
        # the settings of the key take precedence
        if call.runner and (patch := offered.opening.patch):
            call.runner.post(Received(SessionUpdate(session=patch)))
        return OfferAnswer(answer, call.id)

    async def _add_candidates(self, request: web.Request) -> None:
        credential = self._offered(request).credential
        asked = _candidates.read(await request.read())
        call = self._calls.find(asked.pc_id, credential)
        if call is None:
            raise web.HTTPNotFound
        await call.add_candidates(asked.candidates)


def _wrapped(answer: OfferAnswer) -> str:
    return msgspec.json.encode(Description(answer.sdp, "answer")).decode()


def _json(body: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")
