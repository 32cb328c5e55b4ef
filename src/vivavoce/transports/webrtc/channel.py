"""The events of a call: a data channel of any label that the client opens.

Events that the session sends before wait for it. Messages are kept below the size that the client
accepts (RFC 8841, 6).
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec
from aiortc import RTCDataChannel

from vivavoce.errors import InvalidRequest
from vivavoce.protocol.audio_frames import PassedAudio
from vivavoce.protocol.items import InputAudio, Message, OutputAudio, Part
from vivavoce.protocol.server import AnyServerEvent, ErrorEvent, ItemRetrieved
from vivavoce.protocol.upstream import read_server_event
from vivavoce.protocol.wire import (
    CallProtocol,
    CloseRequest,
    Frame,
    Opening,
    Reply,
    WireProtocol,
)
from vivavoce.runtime.client_errors import error_event
from vivavoce.session.facts import Disconnected, InvalidFrame, Received
from vivavoce.transports.resumable import History

log = logging.getLogger(__name__)

MAX_WAITING_EVENTS = 1000  # events before the channel opens; the oldest are dropped
MAX_WAITING_BYTES = 1024 * 1024  # bytes of these events; a single larger event is kept
CLOSE_TIMEOUT_S = 1.0


class Waiting(NamedTuple):
    """The frames of one event, queued until the channel is open.

    The event is None if it is unknown.
    """

    event: AnyServerEvent | None
    frames: tuple[Frame, ...]

    @property
    def size(self) -> int:
        return sum(len(frame.data) for frame in self.frames)


class EventChannel:
    """The client's data channel, in the protocol that the client speaks."""

    def __init__(self, protocol: WireProtocol) -> None:
        self._protocol = protocol
        self._call_protocol = protocol if isinstance(protocol, CallProtocol) else None
        self.history: History | None = None
        """Keeps what was sent last, for a client that makes another connection."""
        self._channel: RTCDataChannel | None = None
        self._waiting: deque[Waiting] = deque()
        self._waiting_bytes = 0

    @property
    def backlog(self) -> int:
        """Bytes that wait to be sent to the client, once its channel is open."""
        return self._channel.bufferedAmount if self._channel else 0

    def open(self, channel: RTCDataChannel) -> bool:
        """Use that channel from now on; False where another one is in use."""
        if self._channel is not None and self._channel.readyState == "open":
            return False
        self._channel = channel
        self.release()
        while self._waiting:
            self._send(channel, self._waiting.popleft())
        self._waiting_bytes = 0
        return True

    def hold(self) -> None:
        """The client cannot be reached: what is sent is kept until release()."""
        if self.history is not None:
            self.history.held = True

    def release(self) -> None:
        """The client can be reached again."""
        if self.history is not None:
            self.history.release()

    def wait_for_another(
        self, first: AnyServerEvent | None = None, last_event_id: str = ""
    ) -> bool:
        """Keep what is sent from now on for the channel of a new connection.

        first: what goes before all else. last_event_id: the event that the client has received
        last; those behind it are sent again. False: they are not kept any more.
        """
        self._channel = None
        if first is not None:
            self._wait(Waiting(first, tuple(self._protocol.encode(first))))
        if self.history is None or not last_event_id:
            return True
        position = self.history.behind(last_event_id)
        for frame in () if position is None else self.history.since(position):
            self._wait(Waiting(None, (frame,)))
        return position is not None

    def played(self, samples: int) -> None:
        """Announce the audio that the client hears on the track, if the protocol has frames
        for it."""
        if self._call_protocol and (frames := tuple(self._call_protocol.played(samples))):
            self._take(Waiting(None, frames))

    def send(self, event: AnyServerEvent) -> None:
        """Send an event.

        If it is too large, it is sent without its audio, or an error is sent instead.
        """
        self._take(Waiting(event, tuple(self._protocol.encode(event))))

    def send_raw(self, data: bytes, audio: PassedAudio | None = None) -> None:
        """Send a server event that is GA JSON already: unchanged if the client speaks GA.

        For another protocol it is translated; an unknown event is left out.
        """
        if self._protocol.is_ga:
            self._take(Waiting(None, (Frame("text", data),)))
        elif (event := read_server_event(data)) is not None:
            self.send(event)

    def read(self, message: str | bytes) -> Iterator[Received | InvalidFrame | Disconnected]:
        """The facts of a message, whose replies are sent at once."""
        data = message.encode() if isinstance(message, str) else message
        raw = data if self._protocol.is_ga else None
        try:
            for one in self._protocol.decode(Frame("text", data)):
                if isinstance(one, Reply):
                    self._take(Waiting(None, one.frames))
                    if one.log:
                        log.info("a client (%s): %s", type(self._protocol).__name__, one.log)
                elif isinstance(one, CloseRequest):
                    yield Disconnected()
                elif not isinstance(one, Opening):
                    yield Received(one, raw)
        except InvalidRequest as problem:
            yield InvalidFrame(problem)

    async def close(self) -> None:
        """Close once the client has taken what was sent, or after CLOSE_TIMEOUT_S.

        Browsers report a connection that ends with an open channel as a failure.
        """
        channel = self._channel
        if self.history is not None:
            self.history.close()
        if channel is None or channel.readyState != "open":
            return
        if self._call_protocol:
            _send_all(channel, self._call_protocol.ended())
        drained, closed = asyncio.Event(), asyncio.Event()
        channel.on("bufferedamountlow", drained.set)  # bufferedAmountLowThreshold is 0
        channel.on("close", closed.set)
        if channel.bufferedAmount:
            await _wait(drained)
        channel.close()
        await _wait(closed)

    def _take(self, waiting: Waiting) -> None:
        channel = self._channel
        if self.history is not None:
            for frame in waiting.frames:
                self.history.add(frame.data)
            if self.history.is_full:
                self.history.release()
        if channel is not None:
            if channel.readyState == "open":
                self._send(channel, waiting)
            return
        self._wait(waiting)

    def _wait(self, waiting: Waiting) -> None:
        self._waiting.append(waiting)
        self._waiting_bytes += waiting.size
        while len(self._waiting) > 1 and (
            len(self._waiting) > MAX_WAITING_EVENTS or self._waiting_bytes > MAX_WAITING_BYTES
        ):
            self._waiting_bytes -= self._waiting.popleft().size

    def _send(self, channel: RTCDataChannel, waiting: Waiting) -> None:
        if not _send_all(channel, waiting.frames):
            self._send_smaller(channel, waiting)

    def _send_smaller(self, channel: RTCDataChannel, waiting: Waiting) -> None:
        """Send a refused event without its audio, or an error that names it."""
        event = waiting.event or read_server_event(waiting.frames[0].data)
        if isinstance(event, ItemRetrieved) and _send_all(
            channel, self._protocol.encode(_without_audio(event))
        ):
            return
        name = "server event" if event is None else str(event.__struct_config__.tag)
        _send_all(channel, self._protocol.encode(_too_large(name, waiting.size)))


def _send_all(channel: RTCDataChannel, frames: Iterable[Frame]) -> bool:
    """Send frames; False where the client accepts no message of that size."""
    try:
        for frame in frames:
            channel.send(
                frame.data.decode(errors="replace") if frame.kind == "text" else frame.data
            )
    except ValueError:
        return False
    return True


async def _wait(event: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await event.wait()


def _without_audio(event: ItemRetrieved) -> ItemRetrieved:
    """The item as it appears in other events."""
    if not isinstance(event.item, Message):
        return event
    content = tuple(_part_without_audio(part) for part in event.item.content)
    item = msgspec.structs.replace(event.item, content=content)
    return msgspec.structs.replace(event, item=item)


def _part_without_audio(part: Part) -> Part:
    match part:
        case InputAudio(transcript=transcript):
            return InputAudio(transcript=transcript)
        case OutputAudio(transcript=transcript):
            return OutputAudio(transcript=transcript)
        case _:
            return part


def _too_large(name: str, size: int) -> ErrorEvent:
    message = f"A '{name}' of {size} bytes is more than your data channel takes; it was left out."
    return error_event("event_too_large", message)
