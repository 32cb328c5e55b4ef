"""Which addresses and ports a call is told to be at."""

import asyncio

import pytest
from aioice import Candidate, Connection

from vivavoce.transports.webrtc.ice import Line
from vivavoce.transports.webrtc.reach import Reach


def gathered(
    addresses: list[str],
    *,
    local: bool = False,
    asking: bool = False,
    **reach: object,
) -> list[Candidate]:
    async def main() -> list[Candidate]:
        connection = Connection(
            ice_controlling=False,
            stun_server=("::1", 1) if asking else None,  # STUN is asked over IPv4 alone
            turn_server=("127.0.0.1", 1) if asking else None,
            turn_transport="tcp",
        )
        line = Line(connection, Reach(**reach), local)  # type: ignore[arg-type]
        line.take_over()
        try:
            return await connection.get_component_candidates(1, addresses)
        finally:
            await connection.close()

    return asyncio.run(main())


def places(candidates: list[Candidate], host: str) -> list[int]:
    return [candidate.port for candidate in candidates if candidate.host == host]


def test_an_address_outside_has_the_ports_of_every_address_inside() -> None:
    announced = ("203.0.113.7", "2001:db8::7")
    found = gathered(["127.0.0.2", "127.0.0.3"], local=True, announce_address=announced)
    inside = places(found, "127.0.0.2") + places(found, "127.0.0.3")
    assert len(set(inside)) == 2
    assert places(found, "203.0.113.7") == inside
    assert places(found, "2001:db8::7") == inside
    assert len(places(found, "127.0.0.1")) == 1


def test_without_any_other_loopback_is_announced() -> None:
    found = gathered([], announce_address=("203.0.113.7",), udp_ports="42200-42299")
    assert places(found, "203.0.113.7") == places(found, "127.0.0.1")
    assert 42200 <= found[0].port < 42300


def test_servers_that_give_no_address_are_named(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING")
    assert len(gathered(["127.0.0.1"], asking=True)) == 1
    assert [message.split(";")[0] for message in caplog.messages] == [
        "[webrtc] ice_servers: the STUN server ::1:1 gave no address",
        "[webrtc] ice_servers: the TURN server 127.0.0.1:1 gave no address",
    ]
