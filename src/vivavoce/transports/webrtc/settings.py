"""The settings of WebRTC calls. Values only, so that reading them imports no WebRTC library."""

import ipaddress
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from vivavoce.secret import Secret, conceal
from vivavoce.session.limits import Seconds

MIN_PORT = 1024
MAX_PORT = 65535
IceServer: TypeAlias = Annotated[str, Meta(pattern="^(stun|turns?):[^@/]+$")]


class WebRTCSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[webrtc]: the addresses, ports and ICE servers of calls."""

    ice_servers: tuple[IceServer, ...] = ()
    """URLs of STUN and TURN servers; the first of each kind is used."""
    turn_username: str = ""
    turn_password: str = ""
    """A Secret once the struct is made."""
    udp_ports: Annotated[str, Meta(pattern=r"^(\d{1,5}-\d{1,5})?$")] = ""
    """The range of UDP ports, such as "40000-40099"; empty: any free port."""
    announce_address: tuple[str, ...] = ()
    """Addresses at which clients reach this machine, if its own interfaces have other ones."""
    gone_seconds: Seconds = 15.0
    """A call ends when no packet has arrived for this long."""

    def __post_init__(self) -> None:
        conceal(self, "turn_password")
        if self.port_range is not None:
            first, last = self.port_range
            if not MIN_PORT <= first <= last <= MAX_PORT:
                raise ValueError(
                    f"udp_ports {self.udp_ports!r} is no range within {MIN_PORT}-{MAX_PORT}"
                )
        for address in self.announce_address:
            ipaddress.ip_address(address)

    @property
    def port_range(self) -> tuple[int, int] | None:
        """First and last UDP port; None: any."""
        first, _, last = self.udp_ports.partition("-")
        return (int(first), int(last)) if first else None

    @property
    def client_ice_servers(self) -> tuple[dict[str, str], ...]:
        """As browsers take them (RTCIceServer), with the password of TURN in clear."""
        turn = {
            "username": self.turn_username,
            "credential": Secret(self.turn_password).reveal(),
        }
        return tuple(
            {"urls": url, **(turn if url.startswith("turn") else {})} for url in self.ice_servers
        )
