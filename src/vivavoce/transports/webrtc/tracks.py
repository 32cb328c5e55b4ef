"""The two ends of a call's sound, in aiortc's terms.

Both go past what costs aiortc the most. Packets that go out are encoded here: a track that gives
packets is spared the level that aiortc works out sample by sample, the threads in which it encodes
and the stereo. Packets that come in are decoded here: aiortc would hold back four of them, wait
for sixteen where one is lost, and keep a thread for each call.

The receiver is aiortc's own with that part taken over. It knows private names of the version that
pyproject.toml asks for; tests/transports/webrtc/test_calls.py fails when they change.
"""

import asyncio
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import av
from aiortc import MediaStreamTrack, RTCRtpReceiver, RTCRtpTransceiver
from aiortc.mediastreams import MediaStreamError
from aiortc.rtcrtpparameters import RTCRtpReceiveParameters
from aiortc.rtcrtpreceiver import StreamStatistics
from aiortc.rtp import RtpPacket

from vivavoce.transports.webrtc.jitter import JitterBuffer
from vivavoce.transports.webrtc.opus import (
    CLOCK,
    FRAME_BYTES,
    OpusDecoder,
    OpusEncoder,
    silent_packet,
)
from vivavoce.transports.webrtc.playout import FRAME_SECONDS, PlayoutPace, Waiting

FRAME_TICKS = int(CLOCK * FRAME_SECONDS)
_TIME_BASE = Fraction(1, CLOCK)
_TAIL = 5  # frames of silence that are encoded behind sound, so that it rings out
SILENT_SECONDS = 0.2  # after so long without a packet the microphone counts as silent

Left = Callable[[str, int], None]
Sink = Callable[[bytes], None]


class PlayoutTrack(MediaStreamTrack):
    """What the client hears: a packet every 20 ms, of silence where nothing is to be played.

    left: is told item and samples of what goes out. tick: is called with every packet.
    """

    kind = "audio"

    def __init__(self, left: Left, tick: Callable[[], None]) -> None:
        super().__init__()
        self.waiting = Waiting()
        self._left = left
        self._tick = tick
        self._pace = PlayoutPace()
        self._encoder = OpusEncoder()
        self._quiet = _TAIL  # frames since there was sound

    async def recv(self) -> Any:
        if self.readyState != "live":
            raise MediaStreamError
        frame, delay = self._pace.next(asyncio.get_running_loop().time())
        await asyncio.sleep(delay)
        packet = av.Packet(self._payload())
        packet.pts = frame * FRAME_TICKS
        packet.time_base = _TIME_BASE
        return packet

    def _payload(self) -> bytes:
        sound, samples = self.waiting.take(FRAME_BYTES)
        self._quiet = 0 if sound else self._quiet + 1
        for item_id, count in samples.items():
            self._left(item_id, count)
        self._tick()
        if self._quiet > _TAIL:
            return silent_packet()
        return self._encoder.encode(sound.ljust(FRAME_BYTES, b"\0"))


class Microphone(RTCRtpReceiver):
    """What the client says: the sound of each packet as it comes, put into order.

    sink: takes 16-bit mono PCM at 24 kHz.
    """

    def __init__(self, transceiver: RTCRtpTransceiver, sink: Sink) -> None:
        """Take the place of the receiver that the transceiver has."""
        super().__init__("audio", transceiver.receiver.transport)
        self._set_rtcp_ssrc(transceiver.sender._ssrc)
        _set(transceiver, "_RTCRtpTransceiver__receiver", self)
        self._sink = sink
        self._jitter = JitterBuffer()
        self._decoder = OpusDecoder()
        self._types: set[int] = set()  # payload types that are Opus
        self._statistics: dict[int, StreamStatistics] = {}
        _set(self, "_RTCRtpReceiver__remote_streams", self._statistics)
        self._heard_at: float | None = None

    async def receive(self, parameters: RTCRtpReceiveParameters) -> None:
        """As aiortc does it, but for the thread that decodes."""
        if self._types:
            return
        opus = [codec for codec in parameters.codecs if codec.mimeType.lower() == "audio/opus"]
        self._types = {codec.payloadType for codec in opus if codec.payloadType is not None}
        self.transport._register_rtp_receiver(self, parameters)
        reports = asyncio.ensure_future(self._run_rtcp())
        _set(self, "_RTCRtpReceiver__rtcp_task", reports)
        _set(self, "_RTCRtpReceiver__started", True)

    async def _handle_rtp_packet(self, packet: RtpPacket, arrival_time_ms: int) -> None:
        if packet.payload_type not in self._types or not packet.payload:
            return
        if packet.ssrc not in self._statistics:
            self._statistics.clear()  # a client has one microphone; a new one follows the old
            self._statistics[packet.ssrc] = StreamStatistics(CLOCK)
        self._statistics[packet.ssrc].add(packet)
        self._heard_at = asyncio.get_running_loop().time()
        for piece in self._jitter.add(packet.sequence_number, packet.timestamp, packet.payload):
            if isinstance(piece, int):
                self._sink(self._decoder.silence(piece))
            else:
                self._sink(self._decoder.decode(piece))

    def keep_time(self) -> None:
        """Call it every 20 ms: where packets do not come any more, silence does.

        Clients that suppress silence send nothing of it, and turns end in silence.
        """
        if self._heard_at is None:
            return
        if asyncio.get_running_loop().time() - self._heard_at > SILENT_SECONDS:
            self._jitter.fill(FRAME_TICKS)
            self._sink(self._decoder.silence(FRAME_TICKS))


def _set(thing: object, name: str, value: Any) -> None:
    """Set an attribute that must be there."""
    getattr(thing, name)
    setattr(thing, name, value)
