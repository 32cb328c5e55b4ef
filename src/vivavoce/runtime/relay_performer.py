"""Carries out the effects of a relay: a WebSocket to an upstream Realtime server."""

import asyncio
import contextlib

import aiohttp

from vivavoce.protocol.upstream import read_upstream
from vivavoce.protocol.xai import XaiTranslation
from vivavoce.runtime.performers import SessionPort
from vivavoce.runtime.tasks import Tasks
from vivavoce.runtime.upstream import (
    Opened,
    Relay,
    UpstreamRefused,
    UpstreamSocket,
    without_words,
)
from vivavoce.session.effects import (
    CascadeEffect,
    ConnectUpstream,
    DisconnectUpstream,
    HoldUpstream,
    RelayEffect,
    SendUpstream,
)
from vivavoce.session.facts import UpstreamConnected, UpstreamEventReceived, UpstreamLost
from vivavoce.session.relay.faults import is_failure

MAX_UPSTREAM_BYTES = 4_000_000  # bytes not taken by the upstream server yet: 83 s of audio


class RelayPerformer:
    """Holds the WebSocket to an upstream Realtime server."""

    passes_frames = True

    def __init__(
        self, relay: Relay, user: str, port: SessionPort, group: asyncio.TaskGroup
    ) -> None:
        """user: the user who opened the session, for the pseudonym that providers require."""
        self._relay = relay
        self._user = user
        self._port = port
        self._tasks = Tasks(group, port.fail, port.progressed)
        self._waiting: list[bytes] = []  # frames for the upstream server
        self._waiting_bytes = 0
        self._sending = False  # whether a task is sending what is queued
        self._socket: UpstreamSocket | None = None  # of the upstream session that is open
        self._translation: XaiTranslation | None = None

    @property
    def behind(self) -> bool:
        return self._waiting_bytes > MAX_UPSTREAM_BYTES

    @property
    def waiting_bytes(self) -> int:
        return self._waiting_bytes

    def perform(self, effect: CascadeEffect | RelayEffect, now: float) -> None:
        match effect:
            case ConnectUpstream(transcription=transcription):
                self.close()
                self._tasks.start("connection", self._connect(transcription))
            case SendUpstream(data=data):
                self.pass_input(data)
            case HoldUpstream(seconds=seconds, kind=kind):
                self._relay.hold.set(seconds, kind)
            case DisconnectUpstream():
                self.close()
            case _:
                raise AssertionError("a relay has no engines")

    def give_up(self) -> None:
        self.close()
        self._port.post(UpstreamLost("the upstream server takes no more audio", "slow"))

    def close(self) -> None:
        if self._socket is not None:
            self._socket.passes = None
            self._socket = None
        self._tasks.cancel_all()
        self._waiting.clear()
        self._waiting_bytes = 0
        self._sending = False

    async def _connect(self, transcription: bool) -> None:
        relay = self._relay
        if relay.hold.seconds:
            self._port.post(UpstreamLost("the upstream server has failed a moment ago", "held"))
            return
        try:
            async with relay.connected(user=self._user, transcription=transcription) as opened:
                self._socket, self._translation = opened.socket, relay.translation()
                self._port.post(UpstreamConnected(opened.expires_in))
                code = await self._receive(opened, self._translation)
                reason = f"the upstream server closed the connection ({code})"
                lost = UpstreamLost(reason, "closed", code)
        except UpstreamRefused as exc:
            relay.hold.set(exc.fault.hold_s, exc.fault.kind)
            lost = UpstreamLost(exc.fault.reason, exc.fault.kind, status=exc.status)
        self._port.post(lost)

    async def _receive(self, opened: Opened, translation: XaiTranslation | None) -> int:
        """Take what the upstream server sends until the connection ends; return its close code.

        Most audio is passed on as soon as it is received, and does not reach this function.
        """
        socket = opened.socket
        if translation is None:
            socket.passes = self._port.pass_output
        try:
            while True:
                message = await socket.receive()
                if message.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                    break
                data = message.data
                raw = data.encode() if isinstance(data, str) else data
                if translation and (raw := self._translated(raw, translation)) is None:
                    continue
                if not self._port.pass_output(raw):
                    if is_failure(event := read_upstream(raw)):
                        event, raw = without_words(event, raw, opened.hidden)
                    self._port.post(UpstreamEventReceived(event, raw))
                await self._port.writable()
        finally:
            socket.passes = None
            if self._socket is socket:
                self._socket = None
                self._tasks.cancel("sending")
        return socket.close_code or 1006

    def _translated(self, raw: bytes, translation: XaiTranslation) -> bytes | None:
        """The frame as a GA server would send it; None: the session does not get it."""
        frame, reply = translation.received(raw)
        if reply is not None:
            self.pass_input(reply)
        return frame

    def pass_input(self, frame: bytes) -> None:
        """Send it now, or after the frames that are queued."""
        socket, translation = self._socket, self._translation
        if socket is None:
            return  # nothing is sent before the upstream session has begun, nor after its end
        if not self._waiting and socket.send_now(frame):
            if translation:
                translation.sent(frame)
            return
        self._waiting.append(frame)
        self._waiting_bytes += len(frame)
        if not self._sending:
            self._sending = True
            self._tasks.start("sending", self._send(socket, translation))

    async def _send(self, socket: UpstreamSocket, translation: XaiTranslation | None) -> None:
        """Send all that is queued, as fast as the upstream server takes it."""
        # _receive() notices it, too
        with contextlib.suppress(aiohttp.ClientError, ConnectionError):
            while self._waiting:
                data = self._waiting.pop(0)
                self._waiting_bytes -= len(data)
                if translation:
                    translation.sent(data)
                await socket.send_frame(data, aiohttp.WSMsgType.TEXT)
                self._port.progressed()
            self._sending = False
