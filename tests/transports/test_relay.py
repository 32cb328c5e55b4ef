"""A conversation that begins on an upstream Realtime server, and goes on when that is lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Literal

import aiohttp
from aiohttp import web

from tests import idle_clock
from tests.server import HOST, Server, scripted, serving
from vivavoce.app import build
from vivavoce.protocol.items import Message
from vivavoce.routes import application
from vivavoce.runtime.catalog import ModelCatalog
from vivavoce.runtime.sessions import Sessions
from vivavoce.runtime.upstream import HEARTBEAT_S, Hold, Relay
from vivavoce.secret import Secret

ANSWER = "one two three four five six seven eight nine ten"
TIMEOUT_S = 60.0


class Client:
    """A Realtime client that remembers every event."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self.events: list[dict[str, Any]] = []

    async def send(self, kind: str, **fields: Any) -> None:
        await self._socket.send_json({"type": kind, **fields})

    async def until(self, kind: str) -> dict[str, Any]:
        """The next event of that type; those before it are remembered."""
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                event: dict[str, Any] = await self._socket.receive_json()
                self.events.append(event)
                assert event["type"] != "error", event
                if event["type"] == kind:
                    return event

    async def write(self, text: str) -> None:
        content = [{"type": "input_text", "text": text}]
        item = {"type": "message", "role": "user", "content": content}
        await self.send("conversation.item.create", item=item)
        await self.send("response.create")

    def types(self) -> list[str]:
        return [event["type"] for event in self.events]


@asynccontextmanager
async def relaying(
    upstream: str,
    *,
    name: str = "far",
    fallback: str = "",
    hold: Hold | None = None,
    dialect: Literal["", "ga", "xai"] = "",
    heartbeat_s: float = HEARTBEAT_S,
    is_default: bool = False,
    key: str = "sk-upstream",
    **engines: Any,
) -> AsyncIterator[tuple[Server, str]]:
    """A server with scripted engines, and a model "far", or so named, behind an upstream server.

    is_default: it serves every name of a model.
    """
    async with build(scripted(**engines), local_servers=()) as built:
        cascades = built.context.catalog.cascades
        relay = Relay(
            upstream,
            "default",
            key=Secret(key),
            fallback=fallback,
            hold=hold or Hold(),
            dialect=dialect,
            heartbeat_s=heartbeat_s,
        )
        catalog = ModelCatalog(cascades, "default", {name: relay})
        available = catalog.available(default_model=name if is_default else "")
        context = replace(built.context, catalog=catalog, models=available)
        sessions = Sessions(context)
        runner = web.AppRunner(application(sessions), access_log=None, shutdown_timeout=2.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, HOST, 0).start()
            port = runner.addresses[0][1]
            yield Server(port, sessions, cascades), f"ws://{HOST}:{port}/v1/realtime"
            await sessions.drain(0)
        finally:
            await runner.cleanup()


class Line:
    """A TCP connection to a server, which can be cut."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writers: list[asyncio.StreamWriter] = []
        self._flows = asyncio.Event()
        self._flows.set()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        """The beginning of the address of this side."""
        server = await asyncio.start_server(self._carry, HOST, 0)
        async with server:
            yield f"ws://{HOST}:{server.sockets[0].getsockname()[1]}"
            self.cut()

    def stop_reading(self) -> None:
        """Carry nothing more to the client."""
        self._flows.clear()

    def cut(self) -> None:
        self._flows.set()
        for writer in self._writers:
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(HOST, self._port)
        self._writers += [writer, back]
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._copy(reader, back))
            tasks.create_task(self._copy(there, writer))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        writer.transport.abort()


@asynccontextmanager
async def connected(address: str, model: str) -> AsyncIterator[Client]:
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(address, params={"model": model}) as socket,
    ):
        client = Client(socket)
        await client.until("session.created")
        yield client


def test_conversation_on_a_relay_is_that_of_the_upstream_server() -> None:
    async def main() -> None:
        async with (
            serving(scripted(llm={"answers": [ANSWER]})) as upstream,
            relaying(f"{upstream.ws}/v1/realtime") as (here, address),
            connected(address, "far") as client,
        ):
            await client.send(
                "session.update", session={"type": "realtime", "instructions": "Count."}
            )
            updated = await client.until("session.updated")
            assert updated["session"]["model"] == "far"
            await client.write("Count to ten.")
            done = await client.until("response.done")
            (item,) = done["response"]["output"]
            assert item["content"][0]["transcript"].split() == ANSWER.split()
            kinds = client.types()
            for kind in ("session.created", "session.updated", "conversation.item.added"):
                expected = 2 if kind.startswith("conversation") else 1  # question and answer
                assert kinds.count(kind) == expected, kind
            (asked,) = upstream.llm.requests
            assert asked.instructions == "Count."
            assert here.llm.requests == []

    idle_clock.run(main())


def test_cascade_goes_on_with_the_same_history_when_the_upstream_server_dies() -> None:
    """In the middle of an answer: that ends as failed, and another is generated here."""

    async def main() -> None:
        slow = scripted(
            llm={"answers": ["It is warm.", ANSWER]},
            tts={"realtime_factor": 1, "sample_rate": 24000},
        )
        async with (
            serving(slow) as upstream,
            (line := Line(upstream.port)).open() as there,
            relaying(f"{there}/v1/realtime", llm={"answers": ["Here I am."]}) as (
                here,
                address,
            ),
            connected(address, "far") as client,
        ):
            await client.write("How is the weather?")
            await client.until("response.done")
            await client.write("Count to ten.")
            await client.until("response.output_audio.delta")
            line.cut()
            failed = (await client.until("response.done"))["response"]
            assert failed["status"] == "failed"
            assert failed["status_details"]["error"]["code"] == "upstream_lost"
            completed = (await client.until("response.done"))["response"]
            assert completed["status"] == "completed"
            (asked,) = here.llm.requests
            texts = [
                getattr(part, "text", None) or getattr(part, "transcript", None)
                for item in asked.items
                if isinstance(item, Message)
                for part in item.content
            ]
            assert texts[:3] == ["How is the weather?", "It is warm.", "Count to ten."]
            opened = [e["response"]["id"] for e in client.events if e["type"] == "response.created"]
            closed = [e["response"]["id"] for e in client.events if e["type"] == "response.done"]
            assert opened == closed
            assert len(opened) == 3

    idle_clock.run(main())


def test_upstream_server_that_cannot_be_reached_is_replaced_at_once() -> None:
    async def main() -> None:
        async with (
            relaying("ws://127.0.0.1:9/v1/realtime", llm={"answers": ["Here."]}) as (here, address),
            connected(address, "far") as client,
        ):
            await client.write("Is anybody there?")
            done = await client.until("response.done")
            assert done["response"]["status"] == "completed"
            assert len(here.llm.requests) == 1

    idle_clock.run(main())
