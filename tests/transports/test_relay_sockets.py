"""The two sockets of a relayed session: sizes, a client that reads slowly, clients that vanish."""

import asyncio
import base64
import json
from contextlib import suppress

import aiohttp
import pytest

from tests import idle_clock
from tests.fake_upstream import FakeSession, FakeUpstream
from tests.transports.test_relay import TIMEOUT_S, Line, connected, relaying
from tests.transports.test_relay_faults import closed, on_relay
from tests.transports.webrtc.caller import until
from vivavoce.protocol.bounds import MAX_FRAME_BYTES
from vivavoce.transports import send_queue, websocket

MIB = 1024 * 1024
CHUNK = base64.b64encode(bytes(96_000)).decode()  # 2 s of audio


async def flooded(session: FakeSession) -> int:
    """Send audio until the connection is closed; return how much was sent, at most 230 MB."""
    sent = 0
    with suppress(ConnectionError):
        for _ in range(1_800):
            await session.send("response.output_audio.delta", delta=CHUNK)
            sent += len(CHUNK)
    return sent


def test_append_of_20_mib_passes_and_one_above_the_bound_is_refused() -> None:
    async def main() -> None:
        fake = FakeUpstream()
        async with on_relay(fake, session={"max_buffer_seconds": 1.0}) as (_, client):
            await client.send("response.create")
            await client.until("response.done")
            (session,) = fake.sessions
            beginning = '{"type":"input_audio_buffer.append","audio":"'
            whole = beginning + "A" * (20 * MIB) + '"}'
            await client._socket.send_str(whole)
            await client.send("response.create")
            await client.until("response.done")
            assert session.received[-2] == whole.encode()
            await client._socket.send_str(beginning + "A" * MAX_FRAME_BYTES + '"}')
            async with asyncio.timeout(TIMEOUT_S):
                while (await client._socket.receive_json())["type"] != "error":
                    pass
            assert len(session.received[-1]) < MIB

    idle_clock.run(main())


def test_client_that_does_not_read_stops_the_upstream_server_and_is_cut_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The upstream server speaks an hour at once: it is read no faster than the client reads."""
    monkeypatch.setattr(send_queue, "READ_TIMEOUT_S", 0.5)

    async def main() -> None:
        fake = FakeUpstream()
        async with fake.serve() as url, relaying(url) as (here, address):
            port = int(address.rpartition(":")[2].partition("/")[0])
            async with (line := Line(port)).open() as slow, aiohttp.ClientSession() as http:
                query = {"model": "far"}
                socket = await http.ws_connect(f"{slow}/v1/realtime", params=query)
                async with asyncio.timeout(TIMEOUT_S):
                    await fake.wait_for_sessions(1)
                line.stop_reading()
                sent = await flooded(fake.sessions[0])
                await closed(fake)
                assert sent < 32 * MIB  # 8 wait for the client, the rest in buffers of sockets
                await until(lambda: len(here.sessions) == 0)
                line.cut()
                await socket.close()

    idle_clock.run(main())


def test_upstream_session_ends_at_once_when_the_client_closes_or_is_cut_off() -> None:
    async def main() -> None:
        fake = FakeUpstream()
        async with fake.serve() as url, relaying(url) as (_, address):
            async with connected(address, "far") as client:
                await client.send("response.create")
                await client.until("response.done")
                assert fake.open_sessions == 1
            await closed(fake)
            port = int(address.rpartition(":")[2].partition("/")[0])
            async with (
                (line := Line(port)).open() as there,
                connected(f"{there}/v1/realtime", "far") as client,
            ):
                await client.send("response.create")
                await client.until("response.done")
                assert fake.open_sessions == 1
                line.cut()
                await closed(fake)

    idle_clock.run(main())


def test_upstream_session_ends_when_the_client_answers_no_ping(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert websocket.HEARTBEAT_S * 1.5 <= 45
    monkeypatch.setattr(websocket, "HEARTBEAT_S", 0.2)

    async def main() -> None:
        fake = FakeUpstream()
        async with (
            fake.serve() as url,
            relaying(url) as (_, address),
            aiohttp.ClientSession() as http,
            http.ws_connect(address, params={"model": "far"}, autoping=False) as socket,
        ):
            created = json.loads(await socket.receive_str())
            assert created["type"] == "session.created"
            async with asyncio.timeout(TIMEOUT_S):
                await fake.wait_for_sessions(1)
            await closed(fake)

    idle_clock.run(main())
