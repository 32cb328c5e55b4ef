"""How a call is reached: addresses, ports, and whether anything still comes.

aioice binds a free port of each address. Where a range of ports is given, or an address to
announce, its search for candidates is replaced by one of ours, on the one connection.
"""

import asyncio
import logging
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from aioice import Candidate, Connection
from aioice.candidate import candidate_foundation, candidate_priority
from aioice.ice import StunProtocol, server_reflexive_candidate
from aiortc import RTCIceServer

from vivavoce.errors import LimitReached
from vivavoce.secret import Secret
from vivavoce.transports.webrtc.reach import Reach

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
STUN_SECONDS = 3.0


def servers(reach: Reach) -> list[RTCIceServer]:
    """Never None: that would mean a public server of somebody else's."""
    password = Secret(reach.turn_password).reveal()
    return [
        RTCIceServer(url, username=reach.turn_username or None, credential=password)
        if url.startswith("turn")
        else RTCIceServer(url)
        for url in reach.ice_servers
    ]


@dataclass(slots=True)
class Line:
    """The connection of one call, under our rules."""

    connection: Connection
    reach: Reach
    local: bool
    """Whether the client is on this machine: then loopback is an address, too."""
    heard_at: float = 0.0
    """When the last packet came, of whatever kind."""

    def take_over(self) -> None:
        """Gather as `reach` says, and note when packets come."""
        self.heard_at = asyncio.get_running_loop().time()
        theirs: Any = self.connection
        received, requested = theirs.data_received, theirs.request_received

        def data_received(*arguments: Any) -> None:
            self.heard_at = asyncio.get_running_loop().time()
            received(*arguments)

        def request_received(*arguments: Any) -> None:
            self.heard_at = asyncio.get_running_loop().time()
            requested(*arguments)

        relayed = theirs.get_component_candidates

        async def get_component_candidates(
            component: int, addresses: list[str], timeout: int = 5
        ) -> list[Candidate]:
            bound = await self._bind_all(component, addresses)
            found = [protocol.local_candidate for protocol in bound]
            found += self._announced(component, found)
            asked = await asyncio.gather(
                self._reflexive(bound),
                relayed(component, [], timeout),  # with no address: TURN alone
            )
            found += asked[0] + asked[1]
            self._warn({candidate.type for candidate in found})
            return found

        theirs.data_received = data_received
        theirs.request_received = request_received
        theirs.get_component_candidates = get_component_candidates

    async def _bind_all(self, component: int, addresses: list[str]) -> list[StunProtocol]:
        """Raises LimitReached where no port is free."""
        if self.local or not addresses:
            addresses = [*addresses, LOOPBACK]
        bound = [p for a in addresses if (p := await self._bind(a, component)) is not None]
        self.connection._protocols += bound
        if not bound:
            raise LimitReached("the server has no free UDP port for one more call")
        return bound

    def _announced(self, component: int, hosts: list[Candidate]) -> list[Candidate]:
        """Nobody knows to which address of ours the outside is led: the ports of all are told."""
        outer = [host for host in hosts if host.host != LOOPBACK] or hosts
        found = []
        for address in self.reach.announce_address:
            alike = [host for host in outer if (":" in host.host) == (":" in address)] or outer
            ports = dict.fromkeys(host.port for host in alike)
            found += [_host(component, address, port) for port in ports]
        return found

    def _warn(self, found: set[str | None]) -> None:
        """Say it where a server that is set was asked in vain."""
        for name, server, kind in (
            ("STUN", self.connection.stun_server, "srflx"),
            ("TURN", self.connection.turn_server, "relay"),
        ):
            if server and kind not in found:
                log.warning(
                    "[webrtc] ice_servers: the %s server %s:%d gave no address; check that it can "
                    "be reached from here, its certificate, turn_username and turn_password",
                    *(name, *server),
                )

    async def _bind(self, address: str, component: int) -> StunProtocol | None:
        loop = asyncio.get_running_loop()
        for port in self._ports():
            try:
                _, protocol = await loop.create_datagram_endpoint(
                    lambda: StunProtocol(self.connection), local_addr=(address, port)
                )
            except OSError:
                continue
            name = protocol.transport.get_extra_info("sockname")
            protocol.local_candidate = _host(component, name[0], name[1])
            return protocol
        return None

    def _ports(self) -> Iterator[int]:
        """Each port of the range once, from a random one on; 0 is any free one."""
        if self.reach.port_range is None:
            yield 0
            return
        first, last = self.reach.port_range
        count = last - first + 1
        start = random.randrange(count)
        yield from (first + (start + n) % count for n in range(count))

    async def _reflexive(self, bound: list[StunProtocol]) -> list[Candidate]:
        """What a STUN server sees of us; whatever it does not answer in time is left out."""
        server = self.connection.stun_server
        if server is None:
            return []
        asking = [
            asyncio.create_task(server_reflexive_candidate(protocol, server))
            for protocol in bound
            if ":" not in protocol.local_candidate.host
        ]
        done, late = await asyncio.wait(asking, timeout=STUN_SECONDS) if asking else ((), ())
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        return [task.result()[0] for task in done if task.exception() is None]


def _host(component: int, address: str, port: int) -> Candidate:
    return Candidate(
        foundation=candidate_foundation("host", "udp", address),
        component=component,
        transport="udp",
        priority=candidate_priority(component, "host"),
        host=address,
        port=port,
        type="host",
    )
