"""Limits of HTTP connections: from where, how many, and how slowly a request may arrive."""

import ipaddress
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

Seconds: TypeAlias = Annotated[float, Meta(gt=0, le=1e9)]
MIN_RESERVED_DESCRIPTORS = 16
RESERVED_SHARE = 4  # of the descriptors, one in this many is reserved for other things than clients
MIN_CONNECTIONS = 8


class ConnectionLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The limits in [server] that hold before and between requests."""

    head_seconds: Seconds = 10.0
    """The time for a TLS handshake, and for the head of a request from its first byte."""
    keep_alive_seconds: Seconds = 75.0
    """An idle connection is closed after this time."""
    min_body_bytes_per_second: Annotated[int, Meta(ge=0)] = 500
    """A request body that arrives at a lower rate, over `head_seconds`, is dropped; 0: any rate."""
    max_connections: Annotated[int, Meta(ge=0)] = 0
    """The most connections.

    0: as many as the file descriptors allow, with a reserve for engines and calls.
    """
    max_open_files: Annotated[int, Meta(ge=64)] = 65536
    """The limit of file descriptors is raised to this at start, within the hard limit."""
    overload_lag_ms: Annotated[float, Meta(ge=0)] = 200.0
    """New sessions are refused while the timers of the process fire this late; 0: never."""
    overload_vad_share: Annotated[float, Meta(ge=0, le=1)] = 0.5
    """New sessions are refused while this share of the sessions waits for voice activity detection;
    0: never."""

    @property
    def min_body_bytes(self) -> float:
        """Bytes of a body that must arrive within each `head_seconds`."""
        return self.min_body_bytes_per_second * self.head_seconds


def connections_for(limits: ConnectionLimits, descriptors: int, in_use: int) -> int:
    """How many connections a server may hold.

    descriptors: the process's limit; in_use: those that are open at start. A quarter stays free for
    engine processes, calls and requests to models.
    """
    reserve = max(MIN_RESERVED_DESCRIPTORS, descriptors // RESERVED_SHARE)
    possible = max(MIN_CONNECTIONS, descriptors - in_use - reserve)
    return min(limits.max_connections, possible) if limits.max_connections else possible


def is_loopback(host: str) -> bool:
    """Whether a host name or address is that of this machine: 127.0.0.0/8, ::1, localhost."""
    name = host.removeprefix("[").removesuffix("]").rstrip(".").lower()
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
