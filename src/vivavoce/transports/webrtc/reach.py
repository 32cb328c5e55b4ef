"""How calls are reached, as the operator says it: values, and nothing that must be imported."""

from dataclasses import dataclass

from vivavoce.secret import Secret

GONE_SECONDS = 15.0
NO_PASSWORD = Secret("")


@dataclass(frozen=True, slots=True)
class Reach:
    """Where a call's packets go."""

    ice_servers: tuple[str, ...] = ()
    """URLs of STUN and TURN servers; the first of each kind is used."""
    turn_username: str | None = None
    turn_password: Secret = NO_PASSWORD
    udp_ports: tuple[int, int] | None = None
    """First and last; None: any."""
    announce_address: tuple[str, ...] = ()
    """Addresses by which clients reach this machine, where it has others itself."""
    gone_seconds: float = GONE_SECONDS
    """A client of whom no packet has come for so long has left."""
