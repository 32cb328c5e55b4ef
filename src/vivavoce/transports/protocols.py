"""The table of the WebSocket endpoint: which wire protocol serves which path."""

import time
from collections.abc import Callable
from importlib.metadata import version
from typing import TypeAlias

import msgspec

from vivavoce.protocol.beta import Beta
from vivavoce.protocol.codec import BETA_SUBPROTOCOL, GA
from vivavoce.protocol.raw import RawProtocol
from vivavoce.protocol.raw_frames import RawFramesProtocol
from vivavoce.protocol.rtvi import RtviProtocol
from vivavoce.protocol.telephony import TelephonyProtocol
from vivavoce.protocol.wire import ConnectRequest, WireProtocol


def always(request: ConnectRequest) -> bool:
    return True


def wants_beta(request: ConnectRequest) -> bool:
    """The beta is requested by a header, a subprotocol, or an Azure preview version."""
    return (
        "realtime=v1" in request.headers.get("openai-beta", "")
        or BETA_SUBPROTOCOL in request.subprotocols
        or request.query.get("api-version", "").endswith("-preview")
    )


def wants_rtvi(request: ConnectRequest) -> bool:
    return request.query.get("rtvi", "") not in ("", "0", "false")


def wants_frames(request: ConnectRequest) -> bool:
    return request.query.get("format", "").lower() == "protobuf"


def rtvi(*, channel: bool = False) -> RtviProtocol:
    """`channel`: for the data channel of a call."""
    return RtviProtocol(time.time, channel=channel, library_version=version("vivavoce"))


def raw() -> RawProtocol:
    return RawProtocol(time.monotonic)


def raw_frames() -> RawFramesProtocol:
    return RawFramesProtocol(time.monotonic)


def raw_stream() -> RawProtocol:
    """The first message requests the session."""
    return RawProtocol(time.monotonic, waits=True)


def telephony() -> TelephonyProtocol:
    return TelephonyProtocol(time.monotonic)


class WireRoute(msgspec.Struct, frozen=True):
    """A protocol at a path, for the requests that match. `make` builds one object a connection."""

    path: str
    make: Callable[[], WireProtocol]
    matches: Callable[[ConnectRequest], bool] = always


WireTable: TypeAlias = tuple[WireRoute, ...]

WIRE_TABLE: WireTable = (
    WireRoute("/v1/realtime", Beta, wants_beta),
    WireRoute("/v1/realtime", GA),
    WireRoute("/ws", rtvi, wants_rtvi),
    WireRoute("/api/realtime", Beta),
    WireRoute("/ws", raw_frames, wants_frames),
    WireRoute("/ws", raw),
    WireRoute("/v1/voice/stream", raw_stream),
    WireRoute("/telephony/ws", telephony),
)


def paths(table: WireTable = WIRE_TABLE) -> frozenset[str]:
    """The paths at which a connection may be upgraded; its key is checked after the upgrade."""
    return frozenset(route.path for route in table)


def protocol_for(request: ConnectRequest, table: WireTable = WIRE_TABLE) -> WireProtocol:
    """A new object of the first protocol in the table that matches. Raises LookupError."""
    for route in table:
        if route.path == request.path and route.matches(request):
            return route.make()
    raise LookupError(f"no wire protocol is served at {request.path}")
