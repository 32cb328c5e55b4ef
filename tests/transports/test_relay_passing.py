"""Audio passes through both sockets of a relay as its bytes come, byte for byte and in order."""

import asyncio
import base64
import json
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvloop
from aiohttp import web

from tests import idle_clock
from tests.fake_upstream import Answer, FakeUpstream
from tests.transports.test_relay import TIMEOUT_S, relaying
from tests.transports.test_relay_faults import on_relay
from vivavoce.engines.http import ClientSocket
from vivavoce.protocol.upstream import read_upstream
from vivavoce.runtime import relay_performer
from vivavoce.runtime.runner import Runner
from vivavoce.transports import websocket
from vivavoce.transports.frame_guard import GuardedSocket, MemoryBudget
from vivavoce.transports.send_queue import SendQueue

WORDS = "one two three four five six seven eight nine ten"
APPENDS = 40
MAX_CALLS = 100
TLS = Path(__file__).parent.parent / "data" / "tls"


def appends() -> list[str]:
    """Silence, as no two frames of which are the same."""
    frames = []
    for n in range(APPENDS):
        audio = base64.b64encode(bytes(1920 + 2 * n)).decode()
        event = {"type": "input_audio_buffer.append", "event_id": f"mine_{n}", "audio": audio}
        frames.append(json.dumps(event))
    return frames


def test_audio_of_both_directions_passes_byte_for_byte_and_most_of_it_is_never_parsed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parsed: list[bytes] = []

    def read(raw: bytes) -> Any:
        parsed.append(raw)
        return read_upstream(raw)

    monkeypatch.setattr(relay_performer, "read_upstream", read)

    async def main() -> None:
        fake = FakeUpstream(Answer(WORDS, pause_s=0.001, chunks=4))
        async with (
            fake.serve() as url,
            relaying(url) as (_, address),
            aiohttp.ClientSession() as http,
            http.ws_connect(address, params={"model": "far"}) as socket,
        ):
            sent = appends()
            got: list[bytes] = []
            await socket.send_str('{"type":"response.create"}')
            async with asyncio.timeout(TIMEOUT_S):
                for frame in sent:
                    await socket.send_str(frame)
                    await asyncio.sleep(0)
                while not got or b'"response.done"' not in got[-1]:
                    got.append((await socket.receive_str()).encode())
                (session,) = fake.sessions
                await session.wait_for("input_audio_buffer.append", APPENDS)
            assert [f.decode() for f in session.received if b"append" in f] == sent
            given = [f for f in session.sent if b'"response.' in f]
            assert [f for f in got if b'"response.' in f] == given
            audio = [f for f in given if b"output_audio.delta" in f]
            assert len(audio) == 40
            assert sum(b"output_audio.delta" in f for f in parsed) < 10

    idle_clock.run(main())


def test_delta_is_written_to_its_client_by_few_calls_in_the_callback_that_has_read_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So a session adds the time of these calls and waits for no task of its own: with 200 of them
    on a core that is what bench.relay measures."""
    calls: list[int] = []
    pass_output = Runner.pass_output

    def counted(runner: Runner, frame: bytes) -> bool:
        queue, count = runner._peer, 0
        assert isinstance(queue, SendQueue)
        sent = queue.sent

        def note(*_: object) -> None:
            nonlocal count
            count += 1

        sys.setprofile(note)
        try:
            passed = pass_output(runner, frame)
        finally:
            sys.setprofile(None)
        if passed:
            assert (queue.sent, queue.waiting_bytes) == (sent + 1, 0)
            calls.append(count // 2)  # each is noted as it begins and as it returns
        return passed

    monkeypatch.setattr(Runner, "pass_output", counted)

    async def main() -> None:
        fake = FakeUpstream(Answer(WORDS, pause_s=0.001, chunks=4))
        async with on_relay(fake) as (_, client):
            await client.send("response.create")
            await client.until("response.done")

    idle_clock.run(main())
    assert len(calls) > 30
    assert max(calls) < MAX_CALLS


def test_audio_that_passes_puts_off_the_pings_of_both_sides(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A client that answers no ping stays connected while its audio comes."""
    monkeypatch.setattr(websocket, "HEARTBEAT_S", 0.3)

    async def main() -> None:
        fake = FakeUpstream()
        async with (
            fake.serve() as url,
            relaying(url, heartbeat_s=0.3) as (_, address),
            aiohttp.ClientSession() as http,
            http.ws_connect(address, params={"model": "far"}, autoping=False) as socket,
        ):
            kinds = set()
            for frame in appends():
                await socket.send_str(frame)
                await asyncio.sleep(0.025)
            await socket.send_str('{"type":"response.create"}')
            async with asyncio.timeout(TIMEOUT_S):
                while (message := await socket.receive()).type is not aiohttp.WSMsgType.CLOSE:
                    kinds.add(message.type)
                    if message.type is aiohttp.WSMsgType.TEXT and "response.done" in message.data:
                        break
            assert kinds == {aiohttp.WSMsgType.TEXT}

    idle_clock.run(main())


def test_append_that_the_policy_of_the_wire_refuses_is_answered_among_those_that_pass() -> None:
    async def main() -> None:
        fake = FakeUpstream()
        async with on_relay(fake) as (_, client):
            good = base64.b64encode(bytes(1920)).decode()
            for audio in (good, good, "no base64", good):
                await client.send("input_audio_buffer.append", audio=audio)
            with pytest.raises(AssertionError, match="base64"):
                await client.until("response.done")
            await client.send("response.create")
            await client.until("response.done")
            (session,) = fake.sessions
            assert [e["audio"] for e in session.events("input_audio_buffer.append")] == [good] * 3

    idle_clock.run(main())


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_frame_over_tls_passes_both_sockets(run: Callable[[Any], None]) -> None:
    """TLS has transports of its own, whose protocol is replaced, too."""
    text, messages = b"a" * 200, []

    async def echo(request: web.Request) -> web.StreamResponse:
        socket = GuardedSocket(MemoryBudget(), compress=False, decode_text=False)
        await socket.prepare(request)
        socket.passes = socket.send_now
        messages.append(await socket.receive())
        return socket

    async def main() -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(TLS / "certificate.pem", TLS / "key.pem")
        app = web.Application()
        app.router.add_get("/", echo)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        url = f"wss://127.0.0.1:{runner.addresses[0][1]}/"
        async with (
            asyncio.timeout(TIMEOUT_S),
            aiohttp.ClientSession(ws_response_class=ClientSocket) as http,
            http.ws_connect(url, ssl=False) as socket,
        ):
            assert isinstance(socket, ClientSocket)
            passed: asyncio.Queue[bytes] = asyncio.Queue()

            def take(text: bytes) -> bool:
                passed.put_nowait(text)
                return True

            socket.passes = take
            receiving = asyncio.create_task(socket.receive())
            await asyncio.sleep(0)  # it waits now
            assert socket.send_now(text)
            assert await passed.get() == text
            assert messages == []
            receiving.cancel()
        await runner.cleanup()

    run(main())
