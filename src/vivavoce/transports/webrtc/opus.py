"""Opus and the sound inside: 20 ms packets, mono, 16-bit PCM at 24 kHz. Each object is one stream.

The encoder takes 24 kHz as it is (RFC 6716, 2.1.1), so nothing is resampled on the way out. What
its complexity costs and gains is in docs/decisions.md.
"""

from functools import cache

import av

from vivavoce.audio.formats import RATE
from vivavoce.audio.resample import Resampler

CLOCK = 48_000
"""Hertz of RTP timestamps and of all that a decoder puts out, whatever was encoded (RFC 7587)."""
FRAME_SAMPLES = RATE // 50
FRAME_BYTES = 2 * FRAME_SAMPLES
_BITS_PER_SECOND = 32_000
_OPTIONS = {
    "application": "voip",
    "compression_level": "1",
    "fec": "1",
    "frame_duration": "20",
    "packet_loss": "5",
}
_SETTLED = 10  # frames of silence after which an encoder says the same again and again


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
        """One frame of FRAME_BYTES."""
        frame = av.AudioFrame(format="s16", layout="mono", samples=FRAME_SAMPLES)
        frame.sample_rate = RATE
        frame.planes[0].update(pcm)
        return b"".join(bytes(packet) for packet in self._codec.encode(frame))


class OpusDecoder:
    """Packets to PCM, 1.9 ms late."""

    def __init__(self) -> None:
        self._codec = av.CodecContext.create("libopus", "r")
        self._codec.format = "s16"
        self._codec.layout = "mono"
        self._codec.sample_rate = CLOCK
        self._resampler = Resampler(CLOCK, RATE)

    def decode(self, packet: bytes) -> bytes:
        """The sound of a packet; of one that is no Opus as much silence as it claims to last."""
        try:
            frames = self._codec.decode(av.Packet(packet))
        except av.FFmpegError:
            return self.silence(duration(packet))
        sound = b"".join(bytes(frame.planes[0])[: 2 * frame.samples] for frame in frames)
        return self._resampler.feed(sound)

    def silence(self, ticks: int) -> bytes:
        """In place of sound that does not come; `ticks` of the RTP clock."""
        return self._resampler.feed(bytes(2 * ticks))


def duration(packet: bytes) -> int:
    """How long the sound of a packet is, in ticks of the RTP clock (RFC 6716, 3.1 and 3.2)."""
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
    """20 ms of nothing."""
    encoder = OpusEncoder()
    packet = b""
    for _ in range(_SETTLED):
        packet = encoder.encode(bytes(FRAME_BYTES))
    return packet
