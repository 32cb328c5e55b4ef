"""Calls over WebRTC: how they are made, hung up, and given back.

POST /v1/realtime/calls takes an SDP offer and answers it; a session begins. The machinery of a
call is imported with the first one: a server that has none starts without it.
"""

import asyncio
import importlib
import logging
import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError
from msgspec import UNSET, UnsetType

from vivavoce.errors import InvalidRequest, LimitReached
from vivavoce.protocol.codec import Reader
from vivavoce.protocol.session import SessionPatch
from vivavoce.runtime.runner import Runner
from vivavoce.runtime.sessions import Sessions
from vivavoce.transports.webrtc.reach import Reach
from vivavoce.transports.websocket import Admit

if TYPE_CHECKING:
    from vivavoce.transports.webrtc.call import Call

log = logging.getLogger(__name__)

PATH = "/v1/realtime/calls"
MOST_PART_BYTES = 512 * 1024
GOODBYE_SECONDS = 8.0  # for calls to hang up at shutdown
_LOCAL = ("127.0.0.1", "::1")
_MACHINERY = "vivavoce.transports.webrtc.call"


class CallRequest(msgspec.Struct, frozen=True):
    """What a call begins with, wrapped so that a refusal names its place: session.…"""

    session: SessionPatch | UnsetType = UNSET


Bearer = Callable[[web.Request], str | None]
"""The id of a request's short-lived key; None with a real one. Raises Unauthorized."""

_request: Reader[CallRequest] = Reader(CallRequest)


class CallRoutes:
    """Makes calls, and owns them until they are over."""

    def __init__(
        self, hub: Sessions, admit: Admit, reach: Reach | None = None, *, bearer: Bearer
    ) -> None:
        self._hub = hub
        self._admit = admit
        self._bearer = bearer
        self._reach = reach or Reach()
        self._calls: dict[str, Call] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def add_to(self, app: web.Application) -> None:
        app.router.add_post(PATH, self.create)
        app.router.add_post("/v1/realtime", self.create)  # the beta form
        app.router.add_post(f"{PATH}/{{call_id}}/hangup", self.hang_up)
        app.on_shutdown.append(self.close)

    @property
    def calls(self) -> int:
        return len(self._calls)

    async def create(self, request: web.Request) -> web.Response:
        """Answer an offer."""
        admitted = self._admit(request)
        offer, wished = await _read(request)
        patch = admitted.patch or wished  # the settings of a short-lived key take precedence
        model = request.query.get("model") or _model_of(patch)
        if not self._hub.accepts:
            raise LimitReached("the server takes no more sessions just now")
        machinery = await asyncio.to_thread(importlib.import_module, _MACHINERY)
        call_id = f"rtc_{secrets.token_hex(16)}"
        call: Call = machinery.Call(call_id, self._reach, local=request.remote in _LOCAL)
        call.opened_with = self._bearer(request)
        try:
            answer = await call.answer(offer)
            call.runner = self._hub.open(call, replace(admitted, model=model, patch=patch), call)
        except BaseException:
            await call.hang_up()
            raise
        self._begin(call, call.runner)
        return web.Response(
            text=answer,
            status=201,
            content_type="application/sdp",
            headers={"Location": f"{PATH}/{call_id}"},
        )

    async def hang_up(self, request: web.Request) -> web.Response:
        """End a call."""
        call = self._find(request.match_info["call_id"], request)
        if call.runner:
            call.runner.end(1000, "the call was hung up")
        return web.Response()

    def find(self, request: web.Request) -> "Call":
        """The call of a sideband, `?call_id=`. Raises Unauthorized and HTTPNotFound."""
        return self._find(request.query["call_id"], request)

    async def close(self, app: web.Application) -> None:
        """Hang up on everybody."""
        for call in self._calls.values():
            if call.runner:
                call.runner.end(1012, "the server is shutting down")
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=GOODBYE_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _begin(self, call: "Call", runner: Runner) -> None:
        self._calls[call.id] = call
        task = asyncio.create_task(self._serve(call, runner))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, call: "Call", runner: Runner) -> None:
        watch = asyncio.create_task(call.watch())
        try:
            await self._hub.serve(runner)
        except Exception:
            log.exception("%s failed", call.id)
        finally:
            watch.cancel()
            self._calls.pop(call.id, None)
            await call.hang_up()

    def _find(self, call_id: str, request: web.Request) -> "Call":
        """A short-lived key finds the calls that it opened; another's are not there for it."""
        bearer = self._bearer(request)
        call = self._calls.get(call_id)
        if call is None or bearer not in (None, call.opened_with):
            raise web.HTTPNotFound
        return call


async def _read(request: web.Request) -> tuple[str, SessionPatch | None]:
    """The offer, and the settings that are wished for. Raises InvalidRequest."""
    parts: dict[str, bytes] = {}
    kind = request.content_type
    if kind == "multipart/form-data":
        try:
            async for part in await request.multipart():
                if isinstance(part, BodyPartReader) and part.name in ("sdp", "session"):
                    parts[part.name] = await _whole(part)
        except (ValueError, RuntimeError, AssertionError, HttpProcessingError) as exc:
            raise InvalidRequest(f"The form cannot be read: {exc}.") from exc
    elif kind == "application/x-www-form-urlencoded":
        form = await request.post()
        parts = {name: text.encode() for name, text in form.items() if isinstance(text, str)}
    else:  # application/sdp; whatever it is called, an offer can be told by its first line
        parts["sdp"] = await request.read()
    patch = None
    if wished := parts.get("session", b"").strip():
        given = _request.read(b'{"session":' + wished + b"}").session
        patch = None if given is UNSET else given
    return parts.get("sdp", b"").decode(errors="replace"), patch


async def _whole(part: BodyPartReader) -> bytes:
    body = bytearray()
    while chunk := await part.read_chunk():
        body += chunk
        if len(body) > MOST_PART_BYTES:
            raise InvalidRequest(
                f"The form's part '{part.name}' is larger than {MOST_PART_BYTES} bytes.",
                param=part.name,
            )
    return bytes(part.decode(body))


def _model_of(patch: SessionPatch | None) -> str:
    model = getattr(patch, "model", None)
    return model if isinstance(model, str) else ""
