"""The addresses and ports that a call announces."""

import pytest
from aioice import Candidate, Connection

from tests import idle_clock
from vivavoce.transports.webrtc.ice import CandidateGatherer
from vivavoce.transports.webrtc.settings import WebRTCSettings


def gathered(
    addresses: list[str],
    *,
    local: bool = False,
    asking: bool = False,
    **options: object,
) -> list[Candidate]:
    async def main() -> list[Candidate]:
        connection = Connection(
            ice_controlling=False,
            stun_server=("::1", 1) if asking else None,  # STUN is asked over IPv4 alone
            turn_server=("127.0.0.1", 1) if asking else None,
            turn_transport="tcp",
        )
        settings = WebRTCSettings(**options)  # type: ignore[arg-type]
        CandidateGatherer(connection, settings, local=local)
        try:
            return await connection.get_component_candidates(1, addresses)
        finally:
            await connection.close()

    return idle_clock.run(main())


def ports_of(candidates: list[Candidate], host: str) -> list[int]:
    return [candidate.port for candidate in candidates if candidate.host == host]


def test_announced_address_has_the_ports_of_all_sockets() -> None:
    announced = ("203.0.113.7", "2001:db8::7")
    found = gathered(["127.0.0.2", "127.0.0.3"], local=True, announce_address=announced)
    inside = ports_of(found, "127.0.0.2") + ports_of(found, "127.0.0.3")
    assert len(set(inside)) == 2
    assert ports_of(found, "203.0.113.7") == inside
    assert ports_of(found, "2001:db8::7") == inside
    assert len(ports_of(found, "127.0.0.1")) == 1


def test_announced_address_without_interfaces_has_the_port_of_loopback() -> None:
    found = gathered([], announce_address=("203.0.113.7",), udp_ports="42200-42299")
    assert ports_of(found, "203.0.113.7") == ports_of(found, "127.0.0.1")
    assert 42200 <= found[0].port < 42300


def test_silent_ice_servers_are_logged_by_name(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING")
    assert len(gathered(["127.0.0.1"], asking=True)) == 1
    assert [message.split(";")[0] for message in caplog.messages] == [
        "[webrtc] ice_servers: the STUN server ::1:1 gave no address",
        "[webrtc] ice_servers: the TURN server 127.0.0.1:1 gave no address",
    ]
