"""An upstream Realtime server that plays a script: what OpenAI's sends, in its order.

Answers come faster than real time, all at once. Each response takes the next behaviour; the last
one is repeated.
"""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from aiohttp import WSMsgType, web

from tests.server import HOST

Behaviour: TypeAlias = Literal["answer", "cut", "stall", "expire"] | dict[str, Any]
"""cut: the connection is lost in the middle of the answer. stall: nothing more comes. expire: the
session hits its maximum duration. A dict: the response fails with that error."""
USAGE = {
    "total_tokens": 150,
    "input_tokens": 100,
    "output_tokens": 50,
    "input_token_details": {
        "text_tokens": 60,
        "audio_tokens": 40,
        "image_tokens": 0,
        "cached_tokens": 64,
        "cached_tokens_details": {"text_tokens": 50, "audio_tokens": 14, "image_tokens": 0},
    },
    "output_token_details": {"text_tokens": 10, "audio_tokens": 40},
}
EXPIRED = {
    "type": "invalid_request_error",
    "code": "session_expired",
    "message": "Your session hit the maximum duration of 60 minutes.",
}
CHUNK = bytes(4800)  # 100 ms


@dataclass
class FakeSession:
    """One connection, and all that came and went on it."""

    headers: Mapping[str, str]
    query: Mapping[str, str]
    socket: web.WebSocketResponse
    number: int
    received: list[bytes] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list)
    over: bool = False
    count: int = 0

    def events(self, kind: str) -> list[dict[str, Any]]:
        decoded = [json.loads(frame) for frame in self.received]
        return [event for event in decoded if event["type"] == kind]

    async def send(self, kind: str, **fields: Any) -> None:
        self.count += 1
        # the spaces show whether a frame was encoded anew
        event = {"type": kind, "event_id": f"event_{self.number}_{self.count}", **fields}
        frame = json.dumps(event, indent=1)
        self.sent.append(frame.encode())
        await self.socket.send_str(frame)

    async def take(self, frame: bytes, upstream: "FakeUpstream") -> None:
        self.received.append(frame)
        event = json.loads(frame)
        match event["type"]:
            case "session.update":
                await self.send("session.updated", session=event["session"])
            case "conversation.item.create":
                item = {**event["item"], "status": "completed"}
                await self.send("conversation.item.added", item=item, previous_item_id=None)
                await self.send("conversation.item.done", item=item, previous_item_id=None)
            case "response.create":
                await self.respond(upstream.next_behaviour())

    async def respond(self, behaviour: Behaviour) -> None:
        self.count += 1
        response = {
            "id": f"resp_{self.number}_{self.count}",
            "object": "realtime.response",
            "conversation_id": "conv_up",
            "output": [],
            "status_details": None,
            "output_modalities": ["audio"],
            "max_output_tokens": "inf",
            "audio": {"output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "marin"}},
            "usage": None,
            "metadata": None,
        }
        if behaviour == "stall":
            return
        if behaviour == "expire":
            await self.send("error", error=EXPIRED)
            await self.socket.close(code=1001, message=EXPIRED["message"].encode())
            return
        await self.send("response.created", response={**response, "status": "in_progress"})
        if isinstance(behaviour, dict):
            details = {"type": "failed", "error": behaviour}
            failed = {**response, "status": "failed", "status_details": details}
            await self.send("response.done", response=failed)
            return
        await self.answer(response, cut=behaviour == "cut")

    async def answer(self, response: dict[str, Any], *, cut: bool) -> None:
        item_id = f"item_{self.number}_{self.count}"
        item: dict[str, Any] = {"id": item_id, "type": "message", "role": "assistant"}
        item |= {"content": [], "status": "in_progress"}
        place = {"response_id": response["id"], "item_id": item_id}
        place |= {"output_index": 0, "content_index": 0}
        added = {"response_id": response["id"], "output_index": 0, "item": item}
        await self.send("response.output_item.added", **added)
        await self.send("conversation.item.added", item=item, previous_item_id=None)
        await self.send("response.content_part.added", part={"type": "audio"}, **place)
        for word in ("It ", "is ", "warm."):
            await self.send("response.output_audio_transcript.delta", delta=word, **place)
            delta = base64.b64encode(CHUNK).decode()
            await self.send("response.output_audio.delta", delta=delta, **place)
            if cut:
                transport = self.socket._req and self.socket._req.transport
                assert transport
                await asyncio.sleep(0)
                transport.close()  # after what is buffered, without a close frame
                return
        await self.send("response.output_audio.done", **place)
        said = {"transcript": "It is warm."}
        await self.send("response.output_audio_transcript.done", **said, **place)
        item = {**item, "status": "completed", "content": [{"type": "output_audio", **said}]}
        await self.send("response.content_part.done", part={"type": "audio", **said}, **place)
        await self.send("response.output_item.done", **{**added, "item": item})
        await self.send("conversation.item.done", item=item, previous_item_id=None)
        done = {**response, "status": "completed", "output": [item], "usage": USAGE}
        await self.send("response.done", response=done)


class FakeUpstream:
    """The server. Change its attributes at any time."""

    def __init__(self, *behaviours: Behaviour) -> None:
        self.behaviours: list[Behaviour] = list(behaviours) or ["answer"]
        self.refusal: tuple[int, Mapping[str, str], str] | None = None
        """Status, headers and body of the answer to a handshake."""
        self.first_error: dict[str, Any] | None = None
        """Comes in place of session.created."""
        self.lifetime_s: float = 3600.0
        self.sessions: list[FakeSession] = []
        self.attempts = 0
        self._changed = asyncio.Event()

    @property
    def open_sessions(self) -> int:
        return sum(not session.over for session in self.sessions)

    async def wait_for_sessions(self, count: int) -> None:
        """Until so many were begun."""
        while len(self.sessions) < count:
            await self._changed.wait()
            self._changed.clear()

    async def wait_closed(self) -> None:
        """Until no session is open."""
        while self.open_sessions:
            await self._changed.wait()
            self._changed.clear()

    def next_behaviour(self) -> Behaviour:
        return self.behaviours.pop(0) if len(self.behaviours) > 1 else self.behaviours[0]

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        """The address of its WebSocket."""
        app = web.Application()
        app.router.add_get("/v1/realtime", self._connect)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, HOST, 0).start()
            yield f"ws://{HOST}:{runner.addresses[0][1]}/v1/realtime"
        finally:
            await runner.cleanup()

    async def _connect(self, request: web.Request) -> web.StreamResponse:
        self.attempts += 1
        if self.refusal:
            status, headers, body = self.refusal
            return web.Response(status=status, headers=headers, text=body)
        socket = web.WebSocketResponse(max_msg_size=0)
        await socket.prepare(request)
        session = FakeSession(request.headers, request.query, socket, len(self.sessions))
        self.sessions.append(session)
        self._changed.set()
        try:
            if self.first_error:
                await session.send("error", error=self.first_error)
                await socket.close(code=4000)
                return socket
            expires_at = int(time.time() + self.lifetime_s)
            await session.send("session.created", session={"expires_at": expires_at})
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    await session.take(message.data.encode(), self)
        except ConnectionError:
            pass
        finally:
            session.over = True
            self._changed.set()
        return socket
