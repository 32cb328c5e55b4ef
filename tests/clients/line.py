"""A client's line to the server: every frame it receives is kept, read strictly and judged.

The client itself is the official one, as it is published; this only stands between its two calls
that receive a message: the one that takes the bytes and the one that makes an event of them.
"""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Protocol

from openai import AsyncOpenAI
from openai.types.beta.realtime import RealtimeServerEvent as BetaServerEvent
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter

from tests.clients.laws import Frame, check
from tests.server import HOST, Server
from vivavoce.protocol.items import Message, Part

WAIT_SECONDS = 60.0  # for one event: a bound, never a pace
KEY = "sk-a-key-that-is-not-checked"

official: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)
official_beta: TypeAdapter[Any] = TypeAdapter(BetaServerEvent)


class Connection(Protocol):
    """What the GA and the beta connection of the official client have in common."""

    async def recv_bytes(self) -> bytes: ...
    def parse_event(self, data: str | bytes) -> Any: ...
    async def send(self, event: Any) -> None: ...


class Line:
    """One connection. `to` is the official client's own object."""

    def __init__(self, to: Any, adapter: TypeAdapter[Any] = official) -> None:
        self.to = to
        self.frames: list[Frame] = []
        self._adapter = adapter
        self._connection: Connection = to

    async def next(self) -> Any:
        """The next event, as the client makes it."""
        async with asyncio.timeout(WAIT_SECONDS):
            raw = await self._connection.recv_bytes()
        frame = json.loads(raw)
        self.frames.append(frame)
        if frame["type"] not in ("transcription_session.created", "transcription_session.updated"):
            self._adapter.validate_json(raw, strict=True)
        return self._connection.parse_event(raw)

    async def until(self, kind: str, **fields: object) -> Any:
        """Read on to the first event of that type with these fields.

        An error on the way is a failure of the test.
        """
        while True:
            event = await self.next()
            if event.type == kind and all(getattr(event, k) == v for k, v in fields.items()):
                return event
            assert event.type != "error", event.error

    async def answer(self) -> Any:
        """Read on to the end of a response; return it."""
        return (await self.until("response.done")).response

    def of(self, kind: str) -> list[Frame]:
        """What came so far of that type."""
        return [frame for frame in self.frames if frame["type"] == kind]

    @property
    def kinds(self) -> list[str]:
        return [str(frame["type"]) for frame in self.frames]

    def after(self, kind: str) -> list[str]:
        """The types of what came after the last event of that type."""
        kinds = self.kinds
        return kinds[len(kinds) - kinds[::-1].index(kind) :]

    def audio(self, item_id: str | None = None) -> bytes:
        """The sound that came, of one item or of all."""
        return b"".join(
            base64.b64decode(frame["delta"], validate=True)
            for frame in self.frames
            if frame["type"] in ("response.output_audio.delta", "response.audio.delta")
            and item_id in (None, frame["item_id"])
        )

    async def write(self, text: str, **placed: Any) -> Any:
        """Put a user's message into the conversation; return it as it was added."""
        part = {"type": "input_text", "text": text}
        item = {"type": "message", "role": "user", "content": [part]}
        await self.to.conversation.item.create(item=item | placed.pop("item", {}), **placed)
        return (await self.until("conversation.item.added")).item

    async def update(self, **session: Any) -> Any:
        """Change the session; return the one in force."""
        await self.to.session.update(session={"type": "realtime", **session})
        return (await self.until("session.updated")).session

    async def say(self, pcm: bytes, piece_bytes: int = 9600) -> None:
        """Send sound, faster than it is spoken."""
        for start in range(0, len(pcm), piece_bytes):
            piece = base64.b64encode(pcm[start : start + piece_bytes]).decode()
            await self.to.input_audio_buffer.append(audio=piece)


@contextmanager
def judged(line: Line) -> Iterator[Line]:
    """Hold what was received against the laws when the test is through with it."""
    yield line
    check(line.frames)


@asynccontextmanager
async def calling(
    server: Server | int, *, model: str | None = "gpt-realtime", query: dict[str, str] | None = None
) -> AsyncIterator[Line]:
    """A call of the official client, greeted and judged. `server` may be just a port."""
    port = server if isinstance(server, int) else server.port
    named: dict[str, Any] = {} if model is None else {"model": model}
    async with (
        AsyncOpenAI(api_key=KEY, base_url=f"http://{HOST}:{port}/v1") as client,
        client.realtime.connect(extra_query=query or {}, **named) as connection,
    ):
        with judged(Line(connection)) as line:
            await line.until("session.created")
            yield line


@asynccontextmanager
async def calling_in_beta(
    server: Server, *, query: dict[str, str] | None = None
) -> AsyncIterator[Line]:
    """A call of the same package's beta client, greeted and judged."""
    async with (
        AsyncOpenAI(api_key=KEY, websocket_base_url=f"{server.ws}/v1") as client,
        client.beta.realtime.connect(
            model="gpt-4o-realtime-preview", extra_query=query or {}
        ) as connection,
    ):
        with judged(Line(connection, official_beta)) as line:
            await line.next()
            yield line


def context(server: Server) -> list[str]:
    """The messages of the last request to the model: (role, text)."""
    return [
        f"{item.role}: {' '.join(map(_words, item.content))}"
        for item in server.llm.requests[-1].items
        if isinstance(item, Message)
    ]


def _words(part: Part) -> str:
    return str(getattr(part, "text", None) or getattr(part, "transcript", None) or "")
