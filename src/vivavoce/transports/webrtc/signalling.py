"""The HTTP side of WebRTC calls: made, hung up, found for a sideband, ended at shutdown.

POST /v1/realtime/calls answers an SDP offer, and a session begins; POST /v1/realtime is the same in
the beta protocol.
"""

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError
from msgspec import UNSET, UnsetType

from vivavoce.errors import InvalidRequest
from vivavoce.protocol.beta import Beta, is_beta_session, place
from vivavoce.protocol.codec import GA, Reader, opening_of
from vivavoce.protocol.server import SessionCreated
from vivavoce.protocol.session import RealtimePatch, SessionPatch
from vivavoce.protocol.wire import Opening, WireProtocol
from vivavoce.runtime.resume import Ticket
from vivavoce.transports.webrtc.calls import Calls, OpenedCall
from vivavoce.transports.websocket import Admit

if TYPE_CHECKING:
    from vivavoce.transports.webrtc.call import Call
    from vivavoce.transports.webrtc.direct import DirectCall

PATH = "/v1/realtime/calls"
BETA_PATH = "/v1/realtime"
MAX_PART_BYTES = 512 * 1024
_LOCAL = ("127.0.0.1", "::1")


class CallRequest(msgspec.Struct, frozen=True):
    """The settings of a form, wrapped so that a refusal names the path session.…"""

    session: SessionPatch | UnsetType = UNSET


ShortLivedKey = Callable[[web.Request], str | None]
"""The id of a request's short-lived key; None with an API key. Raises Unauthorized."""

_request: Reader[CallRequest] = Reader(CallRequest)


class CallRoutes:
    """Makes calls in the Realtime protocol, and hangs them up."""

    def __init__(self, calls: Calls, admit: Admit, *, short_lived_key: ShortLivedKey) -> None:
        self._calls = calls
        self._admit = admit
        self._short_lived_key = short_lived_key

    def add_to(self, app: web.Application) -> None:
        app.router.add_post(PATH, self.create)
        app.router.add_post(BETA_PATH, self.create_beta)
        app.router.add_post(f"{PATH}/{{call_id}}/hangup", self.hang_up)
        app.on_shutdown.append(self.close)

    async def create(self, request: web.Request) -> web.Response:
        """Answer an offer."""
        admitted = self._admit(request)
        sdp, session = await _read_form(request)
        return await self._create(request, sdp, _opened(request, admitted, _ga_patch(session)))

    async def create_beta(self, request: web.Request) -> web.Response:
        """Answer an offer in the beta protocol, unless its settings have the `type` of GA."""
        admitted = self._admit(request)
        sdp, session = await _read_form(request)
        if session and not is_beta_session(session):
            return await self._create(request, sdp, _opened(request, admitted, _ga_patch(session)))
        beta = Beta()
        patch = beta.read_session(session) if session else None
        try:
            return await self._create(request, sdp, _opened(request, admitted, patch), beta)
        except InvalidRequest as exc:
            raise _with_beta_path(exc) from exc

    async def hang_up(self, request: web.Request) -> web.Response:
        """End a call."""
        call = self._find(request.match_info["call_id"], request)
        if call.runner:
            call.runner.end(1000, "the call was hung up")
        return web.Response()

    def find(self, request: web.Request) -> "Call | DirectCall":
        """The call of a sideband, `?call_id=`. Raises Unauthorized and HTTPNotFound."""
        return self._find(request.query["call_id"], request)

    async def close(self, app: web.Application) -> None:
        """End every call."""
        await self._calls.close()

    async def _create(
        self, request: web.Request, sdp: str, opening: Opening, protocol: WireProtocol | None = None
    ) -> web.Response:
        protocol, local = protocol or GA(), is_local(request)
        if protocol.is_ga:
            key = self._short_lived_key(request)
            if direct := await self._calls.open_direct(sdp, opening, opened_with=key):
                return _made(*direct)
        ticket = self._ticket(request, protocol, opening.who)
        if ticket and (found := await self._again(ticket, sdp, local=local)):
            opened = found
        else:
            opened = await self._calls.open(
                sdp,
                opening,
                protocol,
                local=local,
                opened_with=self._short_lived_key(request),
                ticket=ticket,
            )
        return _made(opened.call.id, opened.answer)

    def _ticket(self, request: web.Request, protocol: WireProtocol, who: str) -> Ticket | None:
        """For a client that reads the token, or that brings its own. Raises InvalidRequest."""
        resumption = self._calls.resumption
        if resumption is None or not (protocol.is_ga or "resume_token" in request.query):
            return None
        return resumption.ticket(request.query, who)

    async def _again(self, ticket: Ticket, sdp: str, *, local: bool) -> OpenedCall | None:
        """Another connection of a call that is served here."""
        call = await self._calls.served(ticket)
        if call is None or call.runner is None:
            return None
        runner, asked = call.runner, ticket.request
        if asked.session_id not in ("", runner.settings.id):
            return None
        created = SessionCreated(event_id=f"event_{secrets.token_hex(8)}", session=runner.settings)
        answer = await call.answer_again(
            sdp,
            restart=True,
            local=local,
            first=ticket.service.announced(ticket, created, resumed=True),
            last_event_id=asked.last_event_id,
            items=asked.items,
        )
        ticket.service.claim_again(ticket.key)
        return OpenedCall(call, answer)

    def _find(self, call_id: str, request: web.Request) -> "Call | DirectCall":
        """A short-lived key finds the calls that it opened, an API key every call."""
        call = self._calls.observed(call_id, self._short_lived_key(request))
        if call is None:
            raise web.HTTPNotFound
        return call


def _made(call_id: str, answer: str) -> web.Response:
    """The answer to an offer."""
    return web.Response(
        text=answer,
        status=201,
        content_type="application/sdp",
        headers={"Location": f"{PATH}/{call_id}"},
    )


def is_local(request: web.Request) -> bool:
    """Whether the client is on this machine, where loopback can be reached, too."""
    return request.remote in _LOCAL


def _opened(request: web.Request, admitted: Opening, patch: SessionPatch | None) -> Opening:
    """The settings of a short-lived key take precedence over those of the form."""
    patch = admitted.patch or patch
    wanted = opening_of(request.query)
    model = wanted.model or _model_of(patch)
    opening = msgspec.structs.replace(
        wanted, who=admitted.who, kind=admitted.kind, model=model, patch=patch
    )
    return msgspec.structs.replace(opening, transport="webrtc", client=request.remote or "")


def _model_of(patch: SessionPatch | None) -> str:
    model = patch.model if isinstance(patch, RealtimePatch) else UNSET
    return model if isinstance(model, str) else ""


def _ga_patch(session: bytes) -> SessionPatch | None:
    """Settings of GA. Raises InvalidRequest."""
    if not session:
        return None
    given = _request.read(b'{"session":' + session + b"}").session
    return None if given is UNSET else given


def _with_beta_path(exc: InvalidRequest) -> InvalidRequest:
    """The same refusal, with the beta's path of the setting."""
    if exc.param is None:
        return exc
    param = place(exc.param)
    message = exc.message.replace(exc.param, param)
    return InvalidRequest(message, code=exc.code, param=param, event_id=exc.event_id)


async def _read_form(request: web.Request) -> tuple[str, bytes]:
    """The offer, and the settings in JSON, empty where none are given. Raises InvalidRequest."""
    parts: dict[str, bytes] = {}
    kind = request.content_type
    if kind == "multipart/form-data":
        try:
            async for part in await request.multipart():
                if isinstance(part, BodyPartReader) and part.name in ("sdp", "session"):
                    parts[part.name] = await _read_part(part)
        except (ValueError, RuntimeError, AssertionError, HttpProcessingError) as exc:
            raise InvalidRequest(f"The form cannot be read: {exc}.") from exc
    elif kind == "application/x-www-form-urlencoded":
        form = await request.post()
        parts = {name: text.encode() for name, text in form.items() if isinstance(text, str)}
    else:  # application/sdp; clients send other types, too, and an SDP offer says what it is
        parts["sdp"] = await request.read()
    sdp = parts.get("sdp", b"").decode(errors="replace")
    return sdp, parts.get("session", b"").strip()


async def _read_part(part: BodyPartReader) -> bytes:
    body = bytearray()
    while chunk := await part.read_chunk():
        body += chunk
        if len(body) > MAX_PART_BYTES:
            raise InvalidRequest(
                f"The form's part '{part.name}' is larger than {MAX_PART_BYTES} bytes.",
                param=part.name,
            )
    return bytes(part.decode(body))
