"""The events of a call: a data channel, opened by the client, under whatever name.

What the session says before it is open waits for it. Messages are kept below the size that the
client can take.
"""

import asyncio
import contextlib
import logging
import secrets
import struct
from collections import deque
from typing import Any

import msgspec
from aiortc import RTCDataChannel, RTCSctpTransport
from aiortc.rtcsctptransport import WEBRTC_BINARY, WEBRTC_STRING

from vivavoce.errors import InvalidRequest
from vivavoce.protocol.codec import decode, encode
from vivavoce.protocol.items import InputAudio, Message, OutputAudio, Part
from vivavoce.protocol.server import AnyServerEvent, ErrorBody, ErrorEvent, ItemRetrieved
from vivavoce.session.facts import InvalidFrame, Received

log = logging.getLogger(__name__)

MOST_WAITING = 1000  # events before the channel is open; the oldest go first
ROOM_BYTES = 1024 * 1024  # an answer waits while more than this is on its way
MOST_BACKLOG_BYTES = 8 * 1024 * 1024  # a client that lets more than this wait is cut off
FAREWELL_SECONDS = 1.0
_POLL_SECONDS = 0.02


def take_all(transport: RTCSctpTransport) -> None:
    """Have messages that are none reach the channel, too: aiortc would end the connection."""
    theirs: Any = transport
    receive = theirs._data_channel_receive

    async def receive_all(stream_id: int, protocol: int, data: bytes) -> None:
        if protocol == WEBRTC_STRING and not _is_text(data):
            protocol = WEBRTC_BINARY
        try:
            await receive(stream_id, protocol, data)
        except (AssertionError, UnicodeError, struct.error) as exc:
            log.info("a data channel was not opened: %r", exc)

    theirs._data_channel_receive = receive_all


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


class EventChannel:
    """The client's data channel, once there is one."""

    def __init__(self) -> None:
        self._channel: RTCDataChannel | None = None
        self._waiting: deque[AnyServerEvent] = deque(maxlen=MOST_WAITING)

    @property
    def backlog(self) -> int:
        """Bytes that the client has not taken."""
        return self._channel.bufferedAmount if self._channel else 0

    def open(self, channel: RTCDataChannel) -> bool:
        """Use that channel from now on; False: there is one in use."""
        if self._channel is not None and self._channel.readyState == "open":
            return False
        self._channel = channel
        while self._waiting:
            self.send(self._waiting.popleft())
        return True

    def send(self, event: AnyServerEvent) -> None:
        if self._channel is None:
            self._waiting.append(event)
        elif self._channel.readyState == "open":
            self._put(self._channel, event, encode(event))

    def send_raw(self, data: bytes) -> None:
        """Send a GA server event as it came from an upstream server."""
        if self._channel is not None and self._channel.readyState == "open":
            self._channel.send(data.decode())

    def read(self, message: str | bytes) -> Received | InvalidFrame:
        """What the client says."""
        try:
            return Received(decode(message))
        except InvalidRequest as problem:
            return InvalidFrame(problem)

    async def close(self) -> None:
        """Have the client take what was sent, and close; after a moment it has to do without.

        A connection that ends with its channel open is a failure to browsers, and no farewell.
        """
        channel = self._channel
        if channel is None or channel.readyState != "open":
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_SECONDS):
                while self.backlog:  # noqa: ASYNC110  no event tells of it
                    await asyncio.sleep(_POLL_SECONDS)
        closed = asyncio.Event()
        channel.on("close", closed.set)
        channel.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_SECONDS):
                await closed.wait()

    def _put(self, channel: RTCDataChannel, event: AnyServerEvent, frame: bytes) -> None:
        for smaller in (event, _without_sound(event), _too_large(event, len(frame))):
            try:
                channel.send((frame if smaller is event else encode(smaller)).decode())
            except ValueError:  # the client takes no messages of that size
                continue
            return


def _without_sound(event: AnyServerEvent) -> AnyServerEvent:
    """An item that was asked for, as it is shown otherwise."""
    if not isinstance(event, ItemRetrieved) or not isinstance(event.item, Message):
        return event
    content = tuple(_mute(part) for part in event.item.content)
    item = msgspec.structs.replace(event.item, content=content)
    return msgspec.structs.replace(event, item=item)


def _mute(part: Part) -> Part:
    match part:
        case InputAudio(transcript=transcript):
            return InputAudio(transcript=transcript)
        case OutputAudio(transcript=transcript):
            return OutputAudio(transcript=transcript)
        case _:
            return part


def _too_large(event: AnyServerEvent, size: int) -> AnyServerEvent:
    kind = type(event).__struct_config__.tag
    message = f"A '{kind}' of {size} bytes is more than your data channel takes; it was left out."
    body = ErrorBody(code="event_too_large", message=message)
    return ErrorEvent(event_id=f"event_{secrets.token_hex(8)}", error=body)
