"""A call whose media goes between its client and an upstream server.

For the session it is a client to which nothing is sent, because the upstream server sends all
events. Only sidebands of this server get them.
"""

import asyncio

from vivavoce.errors import EngineError, InvalidRequest, QuotaExceeded, StoreError, Unauthorized
from vivavoce.protocol.audio_frames import PassedAudio
from vivavoce.protocol.server import AnyServerEvent, ErrorBody, ErrorEvent
from vivavoce.runtime.runner import Runner
from vivavoce.runtime.upstream import Relay
from vivavoce.runtime.upstream_calls import PassedOffer, hang_up
from vivavoce.transports.send_queue import SendQueue

MAX_OFFER_CHARACTERS = 128 * 1024
_ERRORS: dict[str | None, type[QuotaExceeded | Unauthorized | StoreError]] = {
    "insufficient_quota": QuotaExceeded,
    "invalid_api_key": Unauthorized,
    "store_unavailable": StoreError,
}
"""The exception for each code of an event that refuses a session."""


class DirectCall:
    """The peer of its session, and the sidebands that observe it. `runner`: set before it runs."""

    def __init__(self, call_id: str, sdp: str, relay: Relay) -> None:
        """Raises InvalidRequest for an offer that cannot be one."""
        if not sdp.strip():
            raise InvalidRequest(
                "Missing required parameter: 'sdp'.",
                code="missing_required_parameter",
                param="sdp",
            )
        if len(sdp) > MAX_OFFER_CHARACTERS or not sdp.lstrip().startswith("v="):
            raise InvalidRequest("Invalid 'sdp': it is not valid SDP.", param="sdp")
        self.id = call_id
        self.runner: Runner | None = None
        self.offer = PassedOffer(sdp)
        self.relay = relay
        self._listeners: set[SendQueue] = set()
        self._refusal: ErrorBody | None = None

    async def answer(self) -> str:
        """The SDP answer, once the sideband is open.

        Raises what refuses the session: QuotaExceeded, Unauthorized, StoreError, InvalidRequest,
        or EngineError.
        """
        return await asyncio.shield(self.offer.answer)

    async def hang_up(self) -> None:
        """End the call of the upstream server."""
        self.runner = None
        await hang_up(self.relay, self.offer.call_id)

    # sidebands

    def join(self, listener: SendQueue) -> None:
        self._listeners.add(listener)

    def part(self, listener: SendQueue) -> None:
        self._listeners.discard(listener)

    # the peer

    def send(self, event: AnyServerEvent) -> None:
        if isinstance(event, ErrorEvent):
            self._refusal = event.error
        for listener in self._listeners:
            listener.send(event)

    def send_raw(self, data: bytes, audio: PassedAudio | None = None) -> None:
        for listener in self._listeners:
            listener.send_raw(data)

    @property
    def is_writable(self) -> bool:
        return True

    @property
    def waiting_bytes(self) -> int:
        return 0

    async def wait_writable(self) -> None:
        """A sideband that reads too slowly is disconnected; the call does not wait for it."""

    def close(self, code: int, reason: str) -> None:
        body = self._refusal
        message = body.message if body else reason
        self.offer.refuse(_ERRORS.get(body.code if body else None, EngineError)(message))
        for listener in self._listeners:
            listener.close(code, reason)
        self.runner = None
