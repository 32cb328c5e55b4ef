"""The ICE candidates of a call: sockets within a range of ports, and addresses to announce."""

import asyncio
import logging
import random
from collections.abc import Iterator

from aioice import Candidate, Connection
from aioice.candidate import candidate_foundation, candidate_priority
from aioice.ice import StunProtocol, server_reflexive_candidate
from aiortc import RTCIceServer

from vivavoce.errors import LimitReached
from vivavoce.secret import Secret
from vivavoce.transports.webrtc.aiortc_patches import add_sockets, replace_gathering
from vivavoce.transports.webrtc.settings import WebRTCSettings

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
STUN_TIMEOUT_S = 3.0


def ice_servers(settings: WebRTCSettings) -> list[RTCIceServer]:
    """The configured servers. An empty list, unlike None, keeps aiortc from a public default."""
    password = Secret(settings.turn_password).reveal()
    return [
        RTCIceServer(url, username=settings.turn_username or None, credential=password)
        if url.startswith("turn")
        else RTCIceServer(url)
        for url in settings.ice_servers
    ]


class CandidateGatherer:
    """Gathers the candidates of one ICE connection as the settings say."""

    def __init__(self, connection: Connection, settings: WebRTCSettings, *, local: bool) -> None:
        """local: whether the client is on this machine, so that loopback is a candidate, too."""
        self._connection = connection
        self._settings = settings
        self._local = local
        self._gather_all = replace_gathering(connection, self._gather)

    async def _gather(self, component: int, addresses: list[str]) -> list[Candidate]:
        """Raises LimitReached where no port is free."""
        bound = await self._bind_all(component, addresses)
        found = [protocol.local_candidate for protocol in bound]
        found += self._announced(component, found)
        reflexive, relayed = await asyncio.gather(
            self._reflexive(bound),
            # without a local address only the TURN server is asked
            self._gather_all(component, []),
        )
        found += reflexive + relayed
        self._warn_of_silent_servers({candidate.type for candidate in found})
        return found

    async def _bind_all(self, component: int, addresses: list[str]) -> list[StunProtocol]:
        if self._local or not addresses:
            addresses = [*addresses, LOOPBACK]
        bound = [p for a in addresses if (p := await self._bind(a, component)) is not None]
        add_sockets(self._connection, bound)
        if not bound:
            raise LimitReached("the server has no free UDP port for one more call")
        return bound

    async def _bind(self, address: str, component: int) -> StunProtocol | None:
        loop = asyncio.get_running_loop()
        for port in self._ports():
            try:
                _, protocol = await loop.create_datagram_endpoint(
                    lambda: StunProtocol(self._connection), local_addr=(address, port)
                )
            except OSError:
                continue
            name = protocol.transport.get_extra_info("sockname")
            protocol.local_candidate = _host_candidate(component, name[0], name[1])
            return protocol
        return None

    def _ports(self) -> Iterator[int]:
        """Each port of the range once, beginning with a random one; 0 means any free port."""
        if self._settings.port_range is None:
            yield 0
            return
        first, last = self._settings.port_range
        count = last - first + 1
        start = random.randrange(count)
        yield from (first + (start + n) % count for n in range(count))

    def _announced(self, component: int, hosts: list[Candidate]) -> list[Candidate]:
        """Announced addresses with the ports of all sockets, because it is unknown which of them a
        NAT maps."""
        outer = [host for host in hosts if host.host != LOOPBACK] or hosts
        found = []
        for address in self._settings.announce_address:
            alike = [host for host in outer if (":" in host.host) == (":" in address)] or outer
            ports = dict.fromkeys(host.port for host in alike)
            found += [_host_candidate(component, address, port) for port in ports]
        return found

    async def _reflexive(self, bound: list[StunProtocol]) -> list[Candidate]:
        """The addresses that a STUN server sees, without those that it does not answer in time."""
        server = self._connection.stun_server
        if server is None:
            return []
        asking = [
            asyncio.create_task(server_reflexive_candidate(protocol, server))
            for protocol in bound
            if ":" not in protocol.local_candidate.host
        ]
        done, late = await asyncio.wait(asking, timeout=STUN_TIMEOUT_S) if asking else ((), ())
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        return [task.result()[0] for task in done if task.exception() is None]

    def _warn_of_silent_servers(self, found: set[str | None]) -> None:
        for name, server, kind in (
            ("STUN", self._connection.stun_server, "srflx"),
            ("TURN", self._connection.turn_server, "relay"),
        ):
            if server and kind not in found:
                log.warning(
                    "[webrtc] ice_servers: the %s server %s:%d gave no address; check that it can "
                    "be reached from here, its certificate, turn_username and turn_password",
                    *(name, *server),
                )


def _host_candidate(component: int, address: str, port: int) -> Candidate:
    return Candidate(
        foundation=candidate_foundation("host", "udp", address),
        component=component,
        transport="udp",
        priority=candidate_priority(component, "host"),
        host=address,
        port=port,
        type="host",
    )
