"""Opus packets of 20 ms, and mono 16-bit PCM at 24 kHz. Each object serves one stream.

The encoder takes 24 kHz as it is (RFC 6716, 2.1.1), so nothing is resampled on the way out. What
its complexity costs and gains is in docs/decisions.md.
"""

from functools import cache

import av

from vivavoce.audio.formats import RATE
from vivavoce.audio.pacer import FRAME_BYTES
from vivavoce.audio.resample import Resampler

CLOCK = 48_000
"""Hertz of RTP timestamps and of a decoder's output, whatever was encoded (RFC 7587, 4.1)."""
MAX_REORDERED = 3  # packets that wait for a missing one: 60 ms
FRAME_SAMPLES = FRAME_BYTES // 2
_BITS_PER_SECOND = 32_000
_OPTIONS = {
    "application": "voip",
    "compression_level": "1",
    "fec": "1",
    "frame_duration": "20",
    "packet_loss": "5",
}
_SETTLING_FRAMES = 10  # of silence: after these an encoder repeats the same packet
_MAX_JUMP = 100  # packets: a larger step in sequence numbers begins a new stream
_MAX_GAP = CLOCK  # ticks: a gap up to this length is filled with silence; a longer one is skipped


class OpusEncoder:
    """PCM to packets."""

    def __init__(self) -> None:
        self._codec = av.CodecContext.create("libopus", "w")
        self._codec.bit_rate = _BITS_PER_SECOND
        self._codec.format = "s16"
        self._codec.layout = "mono"
        self._codec.sample_rate = RATE
        self._codec.options = dict(_OPTIONS)

    def encode(self, pcm: bytes) -> bytes:
        """Encode one frame of FRAME_BYTES."""
        frame = av.AudioFrame(format="s16", layout="mono", samples=FRAME_SAMPLES)
        frame.sample_rate = RATE
        frame.planes[0].update(pcm)
        return b"".join(bytes(packet) for packet in self._codec.encode(frame))


class OpusDecoder:
    """Packets to PCM, delayed by 1.9 ms."""

    def __init__(self) -> None:
        self._codec = av.CodecContext.create("libopus", "r")
        self._codec.format = "s16"
        self._codec.layout = "mono"
        self._codec.sample_rate = CLOCK
        self._resampler = Resampler(CLOCK, RATE)

    def decode(self, packet: bytes) -> bytes:
        """The PCM of a packet. An invalid packet gives silence of the duration that it states."""
        try:
            frames = self._codec.decode(av.Packet(packet))
        except av.FFmpegError:
            return self.silence(duration(packet))
        pcm = b"".join(bytes(frame.planes[0])[: 2 * frame.samples] for frame in frames)
        return self._resampler.feed(pcm)

    def silence(self, ticks: int) -> bytes:
        """Silence of `ticks` of the RTP clock, in place of audio that did not arrive."""
        return self._resampler.feed(bytes(2 * ticks))


def duration(packet: bytes) -> int:
    """The duration of a packet in ticks of the RTP clock (RFC 6716, 3.1 and 3.2)."""
    if not packet:
        return 0
    configuration, code = packet[0] >> 3, packet[0] & 3
    if configuration < 12:
        ticks = (480, 960, 1920, 2880)[configuration & 3]
    elif configuration < 16:
        ticks = (480, 960)[configuration & 1]
    else:
        ticks = (120, 240, 480, 960)[configuration & 3]
    if code < 3:
        return ticks * (1 if code == 0 else 2)
    return ticks * (packet[1] & 63) if len(packet) > 1 else 0


@cache
def silent_packet() -> bytes:
    """20 ms of silence."""
    encoder = OpusEncoder()
    packet = b""
    for _ in range(_SETTLING_FRAMES):
        packet = encoder.encode(bytes(FRAME_BYTES))
    return packet


class JitterBuffer:
    """Puts the packets of one stream into order, with as little delay as that allows.

    Rules:
    1. A packet that is next in order is returned at once: without loss nothing is delayed.
    2. One that is early waits until the gap before it is filled, or until MAX_REORDERED wait; then
       the missing packets count as lost.
    3. Where timestamps show audio that did not arrive, lost or not sent during silence, its
       duration is returned in its place.
    """

    def __init__(self) -> None:
        self._next: int | None = None  # the sequence number that is next in order
        self._clock: int | None = None  # the timestamp at which its audio should begin
        self._waiting: dict[int, tuple[int, bytes]] = {}

    def add(self, sequence: int, timestamp: int, packet: bytes) -> list[bytes | int]:
        """The packets that are in order now, and between them the ticks of audio that did not
        arrive."""
        out: list[bytes | int] = []
        if self._next is None or abs(_difference(sequence, self._next, 16)) > _MAX_JUMP:
            self._waiting.clear()
            self._next, self._clock = sequence, None
        if _difference(sequence, self._next, 16) >= 0:
            self._waiting[sequence] = timestamp, packet
        while self._waiting:
            if self._next not in self._waiting:
                if len(self._waiting) < MAX_REORDERED:
                    break
                first = self._next
                self._next = min(self._waiting, key=lambda n: _difference(n, first, 16))
            out += self._with_gap(*self._waiting.pop(self._next))
            self._next = (self._next + 1) % 2**16
        return out

    def fill(self, ticks: int) -> None:
        """Count silence that was inserted already because nothing arrived."""
        if self._clock is not None:
            self._clock = (self._clock + ticks) % 2**32

    def _with_gap(self, timestamp: int, packet: bytes) -> list[bytes | int]:
        missing = 0 if self._clock is None else _difference(timestamp, self._clock, 32)
        self._clock = (timestamp + duration(packet)) % 2**32
        return [missing, packet] if 0 < missing <= _MAX_GAP else [packet]


def _difference(later: int, earlier: int, bits: int) -> int:
    """later - earlier of two counters that wrap after `bits` bits."""
    half: int = 1 << bits - 1
    return (later - earlier + half) % (2 * half) - half
