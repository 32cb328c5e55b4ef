"""The peer and the player of a session whose speech is sent in real time over its connection."""

import asyncio
from collections.abc import Callable

from vivavoce.audio.pacer import AHEAD_SECONDS, Pacer
from vivavoce.protocol.audio_frames import PassedAudio
from vivavoce.protocol.server import AnyServerEvent
from vivavoce.protocol.wire import WireProtocol
from vivavoce.runtime.tasks import Signal
from vivavoce.session.facts import AudioPlayed, Fact
from vivavoce.transports.send_queue import SendQueue

MAX_QUEUED_SECONDS = 20.0  # audio that waits to be played; above this generation pauses
# bytes in the send queue; above this no audio is added, because the client reads slowly
MAX_UNSENT_BYTES = 16 * 1024


class PacedPeer:
    """Sends events at once and audio frame by frame; clearing the audio takes effect at once.

    Audio that a slow client does not take in time stays here, where it can still be cleared. Set
    `post` to the session's before audio is played, and run() it beside the session.
    """

    def __init__(
        self, queue: SendQueue, protocol: WireProtocol, *, ahead_seconds: float = AHEAD_SECONDS
    ) -> None:
        self.post: Callable[[Fact], None] | None = None
        self._queue = queue
        self._protocol = protocol
        self._pacer = Pacer(ahead_seconds=ahead_seconds)
        self._more = Signal()
        self._eased = Signal()

    # the peer

    def send(self, event: AnyServerEvent) -> None:
        self._queue.send(event)

    def send_raw(self, data: bytes, audio: PassedAudio | None = None) -> None:
        self._queue.send_raw(data)

    @property
    def is_writable(self) -> bool:
        return self._queue.is_writable and self._pacer.queue.seconds <= MAX_QUEUED_SECONDS

    @property
    def waiting_bytes(self) -> int:
        return self._queue.waiting_bytes

    async def wait_writable(self) -> None:
        await self._queue.wait_writable()
        while self._pacer.queue.seconds > MAX_QUEUED_SECONDS and not self._queue.is_closing:
            self._eased.clear()
            await self._eased.wait()

    def close(self, code: int, reason: str) -> None:
        self._queue.close(code, reason)
        self.flush()
        self._more.set()

    # the player

    def play(self, item_id: str, audio: bytes) -> None:
        self._pacer.queue.put(item_id, audio)
        self._more.set()

    def flush(self) -> None:
        self._pacer.queue.clear()
        self._eased.set()

    def duck(self, ducked: bool) -> None:
        self._pacer.queue.ducked = ducked

    async def run(self) -> None:
        """Send audio when it is due. Runs until the queue is closed, or it is cancelled."""
        clock = asyncio.get_running_loop().time
        try:
            while not self._queue.is_closing:
                self._send_due(clock())
                wait = self._pacer.wait_seconds(clock())
                if wait is None:
                    self._more.clear()
                    await self._more.wait()
                else:
                    await asyncio.sleep(wait)
                await self._queue.wait_below(MAX_UNSENT_BYTES)
        finally:
            self.post = None  # the session holds this object

    def _send_due(self, now: float) -> None:
        for frame in self._pacer.take(now):
            self._queue.send_frames(self._protocol.encode_audio(frame.audio))
            for item_id, samples in frame.samples.items():
                if self.post:
                    self.post(AudioPlayed(item_id, samples))
        if self._pacer.queue.seconds <= MAX_QUEUED_SECONDS:
            self._eased.set()
