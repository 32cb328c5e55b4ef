"""WebRTC calls whose media goes between a client and an upstream server.

The offer of the client is passed on with this server's key and settings, the answer comes back, and
a sideband shows the events of the call.
"""

import asyncio
import logging
import re
from contextlib import suppress

import aiohttp
import msgspec

from vivavoce.engines.http import ResponseTimeouts
from vivavoce.errors import EngineError, InvalidRequest
from vivavoce.runtime.performers import SessionPort
from vivavoce.runtime.relay_performer import RelayPerformer
from vivavoce.runtime.upstream import CONNECT_TIMEOUT_S, Opened, Relay, UpstreamRefused
from vivavoce.session.effects import CascadeEffect, ConnectUpstream, RelayEffect
from vivavoce.session.facts import Disconnected, Fact, UpstreamConnected, UpstreamLost
from vivavoce.session.relay.faults import Fault

log = logging.getLogger(__name__)

MAX_ANSWER_BYTES = 128 * 1024
ATTACH_TIMEOUT_S = 5.0
"""Requests about a call are repeated, because a new call may not be found for a moment."""
LOST_TIMEOUT_S = 10.0
"""A call without its sideband is not metered, so it is ended after this time."""
RETRY_S = 0.5
_TIMEOUTS = ResponseTimeouts(first_s=CONNECT_TIMEOUT_S, gap_s=CONNECT_TIMEOUT_S)
_CALL_ID = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_NO_CALL = Fault("error", "the upstream server has made no call")


class PassedOffer:
    """The offer of a client, and the call that an upstream server made from it."""

    def __init__(self, sdp: str) -> None:
        self.sdp = sdp
        self.call_id = ""
        """The id of the upstream server's call; empty: there is no call."""
        self.answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """The SDP answer, once the sideband is open, or the error that came in its place."""

    def refuse(self, exc: Exception) -> None:
        """There will be no call, unless the offer was answered before."""
        if not self.answer.done():
            self.answer.set_exception(exc)
            self.answer.exception()  # the request may have ended


async def make_call(relay: Relay, offer: PassedOffer, settings: bytes, *, user: str) -> str:
    """Pass an offer on; return the SDP answer. Raises UpstreamRefused, and InvalidRequest for the
    offer.

    settings: JSON, those of the session without its model.
    """
    session = {**msgspec.json.decode(settings), "model": relay.model}

    def form() -> aiohttp.FormData:
        body = aiohttp.FormData()
        body.add_field("sdp", offer.sdp, content_type="application/sdp")
        text = msgspec.json.encode(session).decode()
        body.add_field("session", text, content_type="application/json")
        return body

    async with (
        relay.http(user) as (http, headers),
        http.request("POST", "calls", form, timeouts=_TIMEOUTS, headers=headers) as response,
    ):
        if response.status == 400:
            log.warning("%s", await response.refusal(CONNECT_TIMEOUT_S))
            raise InvalidRequest("The offer or its settings are not accepted.", param="sdp")
        if response.status not in (200, 201):
            raise await response.refusal(CONNECT_TIMEOUT_S)
        call_id = response.headers.get("Location", "").rstrip("/").rpartition("/")[2]
        if not _CALL_ID.fullmatch(call_id):  # it could neither be metered nor be ended
            log.error("an upstream server names no call in Location")
            raise UpstreamRefused(_NO_CALL)
        offer.call_id = call_id
        deadline = asyncio.get_running_loop().time() + CONNECT_TIMEOUT_S
        answer = await response.read(MAX_ANSWER_BYTES, deadline)
    return answer.decode(errors="replace")


async def hang_up(relay: Relay, call_id: str) -> None:
    """End a call, unless it has ended."""
    if not call_id:
        return
    path = f"calls/{call_id}/hangup"
    with suppress(EngineError):
        async with (
            relay.http("") as (http, headers),
            http.request("POST", path, timeouts=_TIMEOUTS, headers=headers) as response,
        ):
            if response.status not in (200, 204, 404):
                log.error(
                    "a call could not be hung up: the upstream server said %d", response.status
                )


class DirectPerformer(RelayPerformer):
    """Passes on an offer, and keeps the sideband of the call connected."""

    def __init__(
        self,
        relay: Relay,
        user: str,
        offer: PassedOffer,
        port: SessionPort,
        group: asyncio.TaskGroup,
    ) -> None:
        super().__init__(relay, user, port, group)
        self._offer = offer
        self._settings = b""

    def perform(self, effect: CascadeEffect | RelayEffect, now: float) -> None:
        if isinstance(effect, ConnectUpstream):
            self._settings = effect.settings
        super().perform(effect, now)

    def pass_input(self, frame: bytes) -> None:
        """Send it now, or as soon as the sideband is connected again."""
        if self._socket is None:
            self._waiting.append(frame)
            self._waiting_bytes += len(frame)
        else:
            super().pass_input(frame)

    async def _connect(self, transcription: bool) -> None:
        offer, relay = self._offer, self._relay
        last: Fact
        try:
            if relay.hold.seconds:
                raise UpstreamRefused(Fault("held", "the upstream server has failed a moment ago"))
            answer = await make_call(relay, offer, self._settings, user=self._user)
            last = await self._follow(answer)
        except UpstreamRefused as exc:
            if exc.status != 404:  # a server that has no calls may still serve sessions
                relay.hold.set(exc.fault.hold_s, exc.fault.kind)
            offer.refuse(exc)
            last = UpstreamLost(exc.fault.reason, exc.fault.kind, status=exc.status)
        except InvalidRequest as exc:
            offer.refuse(exc)
            last = Disconnected()
        self._port.post(last)

    async def _follow(self, answer: str) -> Fact:
        """Keep the sideband connected to the end of the call.

        Raises UpstreamRefused: it could not be opened.
        """
        clock, offer = asyncio.get_running_loop().time, self._offer
        latest, begun = clock() + ATTACH_TIMEOUT_S, False
        while True:
            left = max(RETRY_S, latest - clock())
            try:
                async with self._relay.attached(
                    offer.call_id, user=self._user, timeout_s=left
                ) as opened:
                    begun = True
                    if not offer.answer.done():
                        offer.answer.set_result(answer)
                    code = await self._hear(opened)
                if code == 1000:
                    return Disconnected()
                log.warning("the sideband of a call was lost (%d)", code)
                latest = clock() + LOST_TIMEOUT_S
            except UpstreamRefused as exc:
                if begun and exc.status == 404:  # the call has ended
                    return Disconnected()
                over = clock() + RETRY_S >= latest
                if not begun and (over or exc.status not in (0, 404)):
                    raise
                if over:
                    return UpstreamLost("the sideband of the call was lost")
            await asyncio.sleep(RETRY_S)

    async def _hear(self, opened: Opened) -> int:
        """Take events of the sideband until it closes; return the close code."""
        self._socket, self._sending = opened.socket, bool(self._waiting)
        if self._waiting:
            self._tasks.start("sending", self._send(opened.socket, None))
        self._port.post(UpstreamConnected(opened.expires_in))
        try:
            return await self._receive(opened, None)
        finally:
            self._sending = False
