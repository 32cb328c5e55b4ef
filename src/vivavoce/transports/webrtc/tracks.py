"""The two directions of a call's audio, as aiortc wants them.

Packets are encoded and decoded here. A track that returns packets spares aiortc's computation of
the level sample by sample, its encoding in threads and its stereo.
"""

import asyncio
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import av
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError

from vivavoce.audio.pacer import FRAME_BYTES, FRAME_SECONDS, PlayoutQueue
from vivavoce.transports.webrtc.aiortc_patches import RtpPayload
from vivavoce.transports.webrtc.opus import (
    CLOCK,
    JitterBuffer,
    OpusDecoder,
    OpusEncoder,
    silent_packet,
)

FRAME_TICKS = int(CLOCK * FRAME_SECONDS)
# a stream that is later than this skips frames, and does not send them in a burst
MAX_LATE_SECONDS = 0.1
SILENCE_AFTER_SECONDS = 0.2  # after this long without a packet the microphone counts as silent
_TIME_BASE = Fraction(1, CLOCK)
# frames of silence that are encoded after audio, so that the end of the audio is sent
_TAIL_FRAMES = 5

OnPlayed = Callable[[str, int], None]
"""Takes an item and how many samples of it were sent."""
OnAudio = Callable[[bytes], None]
"""Takes mono 16-bit PCM at 24 kHz."""


class FrameClock:
    """When the frames of a stream are due. The frames are counted, so that rounding errors do not
    add up.

    RTP timestamps are the frame numbers, so the clock keeps one grid for the whole call, which
    audio.pacer.Pacer does not: it begins anew after every delay. The time is an argument.
    """

    def __init__(self) -> None:
        self._began: float | None = None
        self._frame = -1

    def next(self, now: float) -> tuple[int, float]:
        """The number of the next frame and the seconds until it is due; 0 if it is now."""
        if self._began is None:
            self._began = now
        self._frame += 1
        late = now - self._began - self._frame * FRAME_SECONDS
        if late > MAX_LATE_SECONDS:
            skipped = int(late / FRAME_SECONDS)
            self._frame += skipped
            late -= skipped * FRAME_SECONDS
        return self._frame, max(0.0, -late)


class PlayoutTrack(MediaStreamTrack):
    """The audio that the client hears: a packet every 20 ms, which holds silence if nothing is
    queued.

    on_played: called for what is sent. on_tick: called with every packet.
    """

    kind = "audio"

    def __init__(self, on_played: OnPlayed, on_tick: Callable[[], None]) -> None:
        super().__init__()
        self.queue = PlayoutQueue()
        self._on_played = on_played
        self._on_tick = on_tick
        self._clock = FrameClock()
        self._encoder = OpusEncoder()
        self._silent_frames = _TAIL_FRAMES  # frames since there was audio

    async def recv(self) -> Any:
        """The next packet, when it is due. Raises MediaStreamError once the track is stopped."""
        if self.readyState != "live":
            raise MediaStreamError
        frame, delay = self._clock.next(asyncio.get_running_loop().time())
        await asyncio.sleep(delay)
        packet = av.Packet(self._payload())
        packet.pts = frame * FRAME_TICKS
        packet.time_base = _TIME_BASE
        return packet

    def _payload(self) -> bytes:
        pcm, samples = self.queue.take(FRAME_BYTES)
        self._silent_frames = 0 if pcm else self._silent_frames + 1
        for item_id, count in samples.items():
            self._on_played(item_id, count)
        self._on_tick()
        if self._silent_frames > _TAIL_FRAMES:
            return silent_packet()
        return self._encoder.encode(pcm.ljust(FRAME_BYTES, b"\0"))


class Microphone:
    """The audio that the client sends, put in order and decoded."""

    def __init__(self, on_audio: OnAudio) -> None:
        self._on_audio = on_audio
        self._jitter = JitterBuffer()
        self._decoder = OpusDecoder()
        self._arrived_at: float | None = None

    def add(self, payload: RtpPayload) -> None:
        """Take a packet as it arrives."""
        self._arrived_at = asyncio.get_running_loop().time()
        for piece in self._jitter.add(*payload):
            if isinstance(piece, int):
                self._on_audio(self._decoder.silence(piece))
            else:
                self._on_audio(self._decoder.decode(piece))

    def tick(self) -> None:
        """Call this every 20 ms: it produces silence while no packets arrive.

        Clients that suppress silence send nothing meanwhile, and a turn ends by silence.
        """
        if self._arrived_at is None:
            return
        if asyncio.get_running_loop().time() - self._arrived_at > SILENCE_AFTER_SECONDS:
            self._jitter.fill(FRAME_TICKS)
            self._on_audio(self._decoder.silence(FRAME_TICKS))
