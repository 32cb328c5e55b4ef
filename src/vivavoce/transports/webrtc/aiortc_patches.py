"""Every use of what aiortc and aioice keep private, and nothing else.

pyproject.toml pins aiortc; the facts below are those of aiortc 1.16.0 and aioice 0.13.0. Each
patch is of one object, never of a class or a module. An attribute that has gone raises
AttributeError when a call is made.
"""

import asyncio
import logging
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, NamedTuple, TypeAlias

from aioice import Candidate, Connection
from aioice.ice import StunProtocol
from aiortc import (
    RTCDtlsTransport,
    RTCPeerConnection,
    RTCRtpReceiver,
    RTCRtpTransceiver,
    RTCSctpTransport,
)
from aiortc.rtcrtpparameters import RTCRtpReceiveParameters
from aiortc.rtcrtpreceiver import StreamStatistics
from aiortc.rtcsctptransport import WEBRTC_BINARY, WEBRTC_STRING
from aiortc.rtp import RtpPacket as AiortcPacket
from OpenSSL import SSL

log = logging.getLogger(__name__)

OPUS_MIME_TYPE = "audio/opus"

Gather: TypeAlias = Callable[[int, list[str]], Awaitable[list[Candidate]]]
"""A function that takes the component and the local addresses, and returns the candidates."""


class RtpPayload(NamedTuple):
    """The data of a packet of audio."""

    sequence: int
    timestamp: int
    data: bytes


def report_connect_failure(
    connection: RTCPeerConnection, on_failure: Callable[[Exception], None]
) -> None:
    """Call `on_failure` when ICE, DTLS or SCTP cannot be started.

    aiortc runs __connect() by ensure_future() and keeps no reference: its exception is logged when
    the task is collected, no state changes, and the call would last until it times out.
    """
    private: Any = connection
    connect = private._RTCPeerConnection__connect

    async def reported() -> None:
        try:
            await connect()
        except Exception as exc:  # noqa: BLE001  whatever a client's description leads to
            on_failure(exc)

    private._RTCPeerConnection__connect = reported


def accept_invalid_messages(transport: RTCSctpTransport) -> None:
    """Deliver text that is not UTF-8 as binary, and ignore invalid requests to open a channel.

    aiortc decodes and unpacks without a handler: UnicodeDecodeError, struct.error or AssertionError
    ends the task that receives from the DTLS transport, and with it the whole connection.
    """
    private: Any = transport
    receive = private._data_channel_receive

    async def receive_any(stream_id: int, protocol: int, data: bytes) -> None:
        if protocol == WEBRTC_STRING and not _is_utf8(data):
            protocol = WEBRTC_BINARY
        try:
            await receive(stream_id, protocol, data)
        except (AssertionError, UnicodeError, struct.error) as exc:
            log.info("a data channel was not opened: %r", exc)

    private._data_channel_receive = receive_any


def drop_what_a_closed_transport_cannot_send(transport: RTCSctpTransport) -> None:
    """Let data be lost, without an error in the log, where the DTLS transport has closed first.

    aiortc sends by ensure_future() and keeps no reference: the exception is logged when the task is
    collected, where a client leaves while events are sent.
    """
    private: Any = transport
    for name in ("_transmit", "_transmit_reconfig"):
        setattr(private, name, _until_closed(getattr(private, name)))


def _until_closed(send: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    async def sent() -> None:
        with suppress(ConnectionError, SSL.Error):
            await send()

    return sent


def ice_connection(transport: RTCDtlsTransport) -> Connection:
    """The aioice connection below a DTLS transport. aiortc has no public way to it."""
    connection: Connection = transport.transport._connection
    return connection


def observe_packets(connection: Connection, on_packet: Callable[[], None]) -> None:
    """Call `on_packet` for every packet, of whatever kind.

    aioice detects a lost client only by consent checks (RFC 7675): six at five seconds each, and
    none before ICE has completed. Audio does not show it either, because a client may send none.
    """
    private: Any = connection
    received, requested = private.data_received, private.request_received

    def data_received(*arguments: Any) -> None:
        on_packet()
        received(*arguments)

    def request_received(*arguments: Any) -> None:
        on_packet()
        requested(*arguments)

    private.data_received = data_received
    private.request_received = request_received


def replace_gathering(connection: Connection, gather: Gather) -> Gather:
    """Let `gather` find the candidates; return the function that found them before.

    aioice binds a free port of each address, knows neither a range of ports nor addresses to
    announce, and never binds loopback.
    """
    private: Any = connection
    original: Gather = private.get_component_candidates

    async def get_component_candidates(
        component: int, addresses: list[str], timeout: int = 5
    ) -> list[Candidate]:
        return await gather(component, addresses)

    private.get_component_candidates = get_component_candidates
    return original


def add_sockets(connection: Connection, bound: list[StunProtocol]) -> None:
    """Add bound sockets to the connection, which closes them when it is closed.

    `gather` has to call this, because aioice keeps its sockets in a private list.
    """
    connection._protocols += bound


class PayloadReceiver(RTCRtpReceiver):
    """Passes the payload of each Opus packet on as it arrives.

    It takes the place of the transceiver's receiver. aiortc's own would start a thread for each
    call, hold back four packets and wait for sixteen where one is lost, and decode to stereo.
    """

    def __init__(
        self, transceiver: RTCRtpTransceiver, on_payload: Callable[[RtpPayload], None]
    ) -> None:
        super().__init__("audio", transceiver.receiver.transport)
        self._set_rtcp_ssrc(transceiver.sender._ssrc)
        _set(transceiver, "_RTCRtpTransceiver__receiver", self)
        self._on_payload = on_payload
        self._payload_types: set[int] = set()
        self._statistics: dict[int, StreamStatistics] = {}
        _set(self, "_RTCRtpReceiver__remote_streams", self._statistics)  # for receiver reports

    async def receive(self, parameters: RTCRtpReceiveParameters) -> None:
        """Start, as aiortc's does but for the thread that decodes."""
        if self._payload_types:
            return
        opus = [codec for codec in parameters.codecs if codec.mimeType.lower() == OPUS_MIME_TYPE]
        self._payload_types = {codec.payloadType for codec in opus if codec.payloadType is not None}
        self.transport._register_rtp_receiver(self, parameters)
        _set(self, "_RTCRtpReceiver__rtcp_task", asyncio.ensure_future(self._run_rtcp()))
        _set(self, "_RTCRtpReceiver__started", True)

    async def _handle_rtp_packet(self, packet: AiortcPacket, arrival_time_ms: int) -> None:
        if packet.payload_type not in self._payload_types or not packet.payload:
            return
        if packet.ssrc not in self._statistics:
            self._statistics.clear()  # a client has one microphone: a new stream replaces the old
            self._statistics[packet.ssrc] = StreamStatistics(48_000)  # hertz, RFC 7587, 4.1
        self._statistics[packet.ssrc].add(packet)
        self._on_payload(RtpPayload(packet.sequence_number, packet.timestamp, packet.payload))


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _set(target: object, name: str, value: Any) -> None:
    """Set an attribute that must be there."""
    getattr(target, name)
    setattr(target, name, value)
