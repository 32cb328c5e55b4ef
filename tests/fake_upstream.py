"""An upstream Realtime server that plays a script: what OpenAI's sends, in its order.

Answers come faster than real time, all at once where the script sets no pause. Each response takes
the next behaviour; the last one is repeated. Audio that is not silent is speech.
"""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, cast

from aiohttp import WSMsgType, web

from tests.clients.sound import tone
from tests.server import HOST
from vivavoce.audio.formats import Decoder, Format, encode

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
NEWER_FIELDS = ("conversation_id", "output_modalities", "max_output_tokens", "audio")
"""Fields of a response that servers of the GA protocol may leave out."""
CHUNK_MS = 100
SPEECH = tone(CHUNK_MS)
"""Of an answer, the same in each chunk: loud, so that a client can tell it from silence."""
WINDOW_MS = 20  # in which audio is speech or silence
LIMITS = [{"name": "tokens", "limit": 40_000, "remaining": 39_850, "reset_seconds": 0.2}]


@dataclass(frozen=True)
class Answer:
    """A response: words, or calls."""

    text: str = "It is warm."
    calls: tuple[tuple[str, dict[str, Any]], ...] = ()
    """Names and arguments of functions, called in place of the words."""
    usage: Mapping[str, Any] | None = field(default_factory=lambda: USAGE)
    pause_s: float = 0.0
    """After each word: then the response can be interrupted."""
    chunks: int = 1
    """Of audio, 100 ms each, for each word."""
    incomplete: str = ""
    """The reason why it ends before its time."""


Behaviour: TypeAlias = Answer | Literal["answer", "cut", "stall", "expire"] | dict[str, Any]
"""answer: Answer(). cut: the connection is lost in the middle of the answer. stall: nothing more
comes. expire: the session hits its maximum duration. A dict: the response fails with that error."""


class Sidebands:
    """The sockets on which a call is observed, as one that sends."""

    def __init__(self) -> None:
        self.sockets: set[web.WebSocketResponse] = set()

    async def send_str(self, frame: str) -> None:
        for socket in tuple(self.sockets):
            with suppress(ConnectionError):  # it is being closed
                await socket.send_str(frame)

    async def close(self, *, code: int = 1000, message: bytes = b"") -> None:
        for socket in tuple(self.sockets):
            await socket.close(code=code, message=message)


@dataclass
class FakeSession:
    """One connection, or one call, and all that came and went on it."""

    headers: Mapping[str, str]
    query: Mapping[str, str]
    socket: web.WebSocketResponse
    transport: asyncio.Transport
    upstream: "FakeUpstream"
    number: int
    received: list[bytes] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list)
    over: bool = False
    count: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    last_item: str | None = None
    places: dict[str, str | None] = field(default_factory=dict)
    """By item: the one before it."""
    items: list[dict[str, Any]] = field(default_factory=list)
    """Complete items of the conversation, in order."""
    turns: "Turns" = field(init=False)
    responding: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        self.turns = Turns(self)

    def events(self, kind: str) -> list[dict[str, Any]]:
        decoded = [json.loads(frame) for frame in self.received]
        return [event for event in decoded if event["type"] == kind]

    async def wait_for(self, kind: str, count: int = 1) -> list[dict[str, Any]]:
        """The events of that type, as soon as so many have come."""
        while len(self.events(kind)) < count:
            await self.upstream.wait_for_change()
        return self.events(kind)

    def new_id(self, kind: str) -> str:
        self.count += 1
        return f"{kind}_{self.number}_{self.count}"

    async def send(self, kind: str, **fields: Any) -> None:
        # the spaces show whether a frame was encoded anew
        frame = json.dumps({"type": kind, "event_id": self.new_id("event"), **fields}, indent=1)
        self.sent.append(frame.encode())
        await self.socket.send_str(frame)

    async def take(self, frame: bytes) -> None:
        self.received.append(frame)
        self.upstream.note_change()
        event = json.loads(frame)
        match event["type"]:
            case "session.update":
                self.settings |= event["session"]
                await self.send("session.updated", session=event["session"])
            case "conversation.item.create":
                item = {"id": self.new_id("item"), **event["item"], "status": "completed"}
                await self.add(item, **{k: event[k] for k in ("previous_item_id",) if k in event})
                await self.finish(item)
            case "conversation.item.truncate":
                place = {k: event[k] for k in ("item_id", "content_index", "audio_end_ms")}
                await self.send("conversation.item.truncated", **place)
            case "conversation.item.delete":
                await self.send("conversation.item.deleted", item_id=event["item_id"])
            case "input_audio_buffer.append":
                await self.turns.hear(base64.b64decode(event["audio"]))
            case "input_audio_buffer.commit":
                await self.turns.commit()
            case "input_audio_buffer.clear":
                await self.send("input_audio_buffer.cleared")
            case "response.create":
                await self.respond(event.get("response") or {})
            case "response.cancel":
                await self.interrupt("client_cancelled")

    async def add(self, item: dict[str, Any], **place: Any) -> None:
        before = place.get("previous_item_id", self.last_item)
        self.last_item = item["id"]
        self.places[item["id"]] = before
        await self.send("conversation.item.added", item=item, previous_item_id=before)

    async def finish(self, item: dict[str, Any]) -> None:
        self.items.append(item)
        before = self.places[item["id"]]
        await self.send("conversation.item.done", item=item, previous_item_id=before)

    async def respond(self, asked: dict[str, Any]) -> None:
        """Begin a response; one without pauses is over when this returns."""
        settings = {**self.settings, **asked}
        behaviour = await self.upstream.behaviour(self, settings)
        response = Generated(self, settings)
        self.responding = asyncio.create_task(response.play(behaviour))
        if not (isinstance(behaviour, Answer) and behaviour.pause_s):
            await self.responding

    async def interrupt(self, reason: str) -> None:
        if self.responding and not self.responding.done():
            self.responding.cancel(reason)
            await asyncio.wait([self.responding])


@dataclass
class FakeCall:
    """A WebRTC call without media: its client is the test, by from_client()."""

    id: str
    offer: str
    given: dict[str, Any]
    """The settings that came with the offer."""
    session: FakeSession
    sidebands: Sidebands
    attached: int = 0
    """How often a sideband was opened."""
    hung_up: bool = False

    async def from_client(self, kind: str, **fields: Any) -> None:
        """An event on the data channel of the client, which sees all that a sideband does."""
        await self.session.take(json.dumps({"type": kind, **fields}).encode())


def _text(part: Any) -> str:
    """A part of a form: aiohttp decodes only those of a text type."""
    return part.decode() if isinstance(part, bytearray) else str(part)


ANSWER_SDP = "v=0\r\no=- 1 1 IN IP4 203.0.113.7\r\ns=-\r\nt=0 0\r\n"


class Turns:
    """The input buffer of a session: speech, and the silence that ends a turn."""

    def __init__(self, session: FakeSession) -> None:
        self._session = session
        self._decoder: tuple[Format, Decoder] = ("audio/pcm", Decoder("audio/pcm"))
        self._ms = 0
        self._silent_ms = 0
        self._turn: str | None = None

    async def hear(self, audio: bytes) -> None:
        heard = self._session.settings.get("audio", {}).get("input", {})
        name: Format = heard.get("format", {}).get("type", "audio/pcm")
        if name != self._decoder[0]:
            self._decoder = (name, Decoder(name))
        pcm, size = self._decoder[1].feed(audio), 48 * WINDOW_MS
        for at in range(0, len(pcm), size):
            self._ms += WINDOW_MS
            vad = heard.get("turn_detection", {"type": "server_vad"})
            if vad is not None:
                await self._window(pcm[at : at + size], vad)

    async def _window(self, pcm: bytes, vad: dict[str, Any]) -> None:
        session = self._session
        if any(2 < high < 253 for high in pcm[1::2]):  # louder than a hum
            self._silent_ms = 0
            if self._turn is None:
                self._turn = session.new_id("item")
                place = {"audio_start_ms": self._ms, "item_id": self._turn}
                await session.send("input_audio_buffer.speech_started", **place)
                if vad.get("interrupt_response", True):
                    await session.interrupt("turn_detected")
        elif self._turn is not None:
            self._silent_ms += WINDOW_MS
            if self._silent_ms >= vad.get("silence_duration_ms", 500):
                place = {"audio_end_ms": self._ms, "item_id": self._turn}
                await session.send("input_audio_buffer.speech_stopped", **place)
                await self.commit()
                if vad.get("create_response", True) or session.upstream.always_answers:
                    await session.respond({})

    async def commit(self) -> None:
        session = self._session
        item_id, self._turn, self._silent_ms = self._turn or session.new_id("item"), None, 0
        item = {"id": item_id, "object": "realtime.item", "type": "message", "role": "user"}
        part = {"type": "input_audio", "transcript": None}
        item |= {"status": "completed", "content": [part]}  # type: ignore[dict-item]
        before = session.last_item
        await session.send("input_audio_buffer.committed", item_id=item_id, previous_item_id=before)
        await session.add(item)
        await session.finish(item)
        session.items[-1] = {
            **item,
            "content": [{**part, "transcript": session.upstream.transcript}],
        }
        if session.settings.get("audio", {}).get("input", {}).get("transcription"):
            kind = "conversation.item.input_audio_transcription"
            place = {"item_id": item_id, "content_index": 0}
            heard = session.upstream.transcript
            await session.send(f"{kind}.delta", delta=heard, **place)
            usage = session.upstream.transcription_usage
            await session.send(f"{kind}.completed", transcript=heard, usage=usage, **place)


class Generated:
    """One response on its way to the client."""

    def __init__(self, session: FakeSession, settings: Mapping[str, Any]) -> None:
        self._session = session
        self._modalities = settings.get("output_modalities", ["audio"])
        given = settings.get("audio", {}).get("output", {})
        self._format: Format = given.get("format", {}).get("type", "audio/pcm")
        self._response: dict[str, Any] = {
            "id": session.new_id("resp"),
            "object": "realtime.response",
            "conversation_id": "conv_up",
            "output": [],
            "status_details": None,
            "output_modalities": self._modalities,
            "max_output_tokens": settings.get("max_output_tokens", "inf"),
            "audio": {
                "output": {
                    "format": given.get("format", {"type": "audio/pcm", "rate": 24_000}),
                    "voice": given.get("voice", "marin"),
                }
            },
            "usage": None,
            "metadata": settings.get("metadata"),
        }
        for name in session.upstream.omits:
            self._response.pop(name)
        self._open: tuple[dict[str, Any], list[str]] | None = None

    async def play(self, behaviour: Behaviour) -> None:
        session, response = self._session, self._response
        if behaviour == "stall":
            return
        if behaviour == "expire":
            await session.send("error", error=EXPIRED)
            await session.socket.close(code=1001, message=EXPIRED["message"].encode())
            return
        await session.send("response.created", response={**response, "status": "in_progress"})
        if isinstance(behaviour, dict):
            await self._end("failed", {"type": "failed", "error": behaviour}, None)
            return
        answer = behaviour if isinstance(behaviour, Answer) else Answer()
        try:
            for index, (name, arguments) in enumerate(answer.calls):
                await self._call(index, name, json.dumps(arguments))
            if not answer.calls:
                await self._say(answer, cut=behaviour == "cut")
        except asyncio.CancelledError as exc:
            await self._close_item("incomplete")
            details = {"type": "cancelled", "reason": str(exc)}
            await self._end("cancelled", details, answer.usage)
            return
        if behaviour == "cut":
            return
        if answer.incomplete:
            details = {"type": "incomplete", "reason": answer.incomplete}
            await self._end("incomplete", details, answer.usage)
        else:
            await self._end("completed", None, answer.usage)

    async def _end(self, status: str, details: Any, usage: Mapping[str, Any] | None) -> None:
        if usage:
            self._session.upstream.billed.append(usage)
        fields = {"status": status, "status_details": details, "usage": usage}
        await self._session.send("response.done", response={**self._response, **fields})
        await self._session.send("rate_limits.updated", rate_limits=LIMITS)

    def _place(self, index: int, item_id: str) -> dict[str, Any]:
        place = {"response_id": self._response["id"], "item_id": item_id}
        return {**place, "output_index": index, "content_index": 0}

    async def _add(self, item: dict[str, Any], index: int) -> None:
        added = {"response_id": self._response["id"], "output_index": index, "item": item}
        await self._session.send("response.output_item.added", **added)
        await self._session.add(item)

    async def _done(self, item: dict[str, Any], index: int) -> None:
        self._response["output"].append(item)
        added = {"response_id": self._response["id"], "output_index": index, "item": item}
        await self._session.send("response.output_item.done", **added)
        await self._session.finish(item)

    async def _call(self, index: int, name: str, arguments: str) -> None:
        session = self._session
        item = {"id": session.new_id("item"), "object": "realtime.item", "type": "function_call"}
        item |= {"call_id": session.new_id("call"), "name": name, "arguments": ""}
        await self._add({**item, "status": "in_progress"}, index)
        place = {**self._place(index, item["id"]), "call_id": item["call_id"]}
        place.pop("content_index")
        kind = "response.function_call_arguments"
        for at in range(0, len(arguments), 8):
            await session.send(f"{kind}.delta", delta=arguments[at : at + 8], **place)
        await session.send(f"{kind}.done", name=name, arguments=arguments, **place)
        await self._done({**item, "status": "completed", "arguments": arguments}, index)

    async def _say(self, answer: Answer, *, cut: bool) -> None:
        session = self._session
        item: dict[str, Any] = {"id": session.new_id("item"), "object": "realtime.item"}
        item |= {"type": "message", "role": "assistant", "content": [], "status": "in_progress"}
        await self._add(item, 0)
        place, words = self._place(0, item["id"]), answer.text.split(" ")
        kind, part = ("text", "text") if self._modalities == ["text"] else ("audio", "transcript")
        await session.send("response.content_part.added", part={"type": kind, part: ""}, **place)
        said: list[str] = []
        self._open = (item, said)
        delta = "response.output_text" if kind == "text" else "response.output_audio_transcript"
        sound = base64.b64encode(encode(SPEECH, self._format)).decode()
        for n, word in enumerate(words):
            said.append(word if n == len(words) - 1 else f"{word} ")
            await session.send(f"{delta}.delta", delta=said[-1], **place)
            for _ in range(0 if kind == "text" else answer.chunks):
                await session.send("response.output_audio.delta", delta=sound, **place)
            if cut:
                await asyncio.sleep(0)
                session.transport.close()  # after what is buffered, without a close frame
                return
            if answer.pause_s:
                await asyncio.sleep(answer.pause_s)
        await self._close_item("incomplete" if answer.incomplete else "completed")

    async def _close_item(self, status: str) -> None:
        if self._open is None:
            return
        (item, said), self._open = self._open, None
        session, place, text = self._session, self._place(0, item["id"]), "".join(said)
        if self._modalities == ["text"]:
            kind, part = "text", "text"
            await session.send("response.output_text.done", text=text, **place)
        else:
            kind, part = "audio", "transcript"
            await session.send("response.output_audio.done", **place)
            await session.send("response.output_audio_transcript.done", transcript=text, **place)
        shown = {"type": kind, part: text}
        await session.send("response.content_part.done", part=shown, **place)
        content = [{"type": f"output_{kind}", part: text}]
        await self._done({**item, "status": status, "content": content}, 0)


class FakeUpstream:
    """The server. Change its attributes at any time."""

    def __init__(self, *behaviours: Behaviour) -> None:
        self.behaviours: list[Behaviour] = list(behaviours) or ["answer"]
        self.refusal: tuple[int, Mapping[str, str], str] | None = None
        """Status, headers and body of the answer to a handshake."""
        self.first_error: dict[str, Any] | None = None
        """Comes in place of session.created."""
        self.opens_after: asyncio.Event | None = None
        """A handshake is answered when it is set."""
        self.is_deaf = False
        """Neither pings nor events are answered: half-open."""
        self.always_answers = False
        """Each turn, whatever create_response says: as xAI does."""
        self.lifetime_s: float = 3600.0
        self.transcript = "how is the weather"
        self.transcription_usage: dict[str, Any] = {"type": "duration", "seconds": 1.5}
        self.omits: tuple[str, ...] = ()
        """Fields of responses that are left out."""
        self.sessions: list[FakeSession] = []
        self.calls: list[FakeCall] = []
        self.call_refusal: tuple[int, str] | None = None
        """Status and body of the answer to an offer."""
        self.sideband_refusals: list[int] = []
        """Statuses of the answers to the next handshakes of sidebands; 404 where there are none
        and there is no such call."""
        self.billed: list[Mapping[str, Any]] = []
        """The usage of all responses that reported one."""
        self.attempts = 0
        self._changed = asyncio.Event()

    @property
    def open_sessions(self) -> int:
        return sum(not session.over for session in self.sessions)

    async def wait_for_sessions(self, count: int) -> None:
        """Until so many were begun."""
        while len(self.sessions) < count:
            await self.wait_for_change()

    async def wait_closed(self) -> None:
        """Until no session is open."""
        while self.open_sessions:
            await self.wait_for_change()

    def note_change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait_for_change(self) -> None:
        """Until a session begins, ends or gets an event."""
        await self._changed.wait()

    async def behaviour(self, session: FakeSession, settings: Mapping[str, Any]) -> Behaviour:
        """That of a response with these settings."""
        return self.behaviours.pop(0) if len(self.behaviours) > 1 else self.behaviours[0]

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        """The address of its WebSocket."""
        app = web.Application()
        app.router.add_get("/v1/realtime", self._connect)
        app.router.add_post("/v1/realtime/calls", self._call)
        app.router.add_post("/v1/realtime/calls/{call_id}/hangup", self._hang_up)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, HOST, 0).start()
            yield f"ws://{HOST}:{runner.addresses[0][1]}/v1/realtime"
        finally:
            await runner.cleanup()

    async def _call(self, request: web.Request) -> web.Response:
        if self.call_refusal:
            status, body = self.call_refusal
            return web.Response(status=status, text=body)
        form, transport, sidebands = await request.post(), request.transport, Sidebands()
        assert transport
        session = FakeSession(
            request.headers, {}, cast(Any, sidebands), transport, self, len(self.sessions)
        )
        given = json.loads(_text(form["session"]))
        session.settings |= given
        id_ = f"rtc_up_{len(self.calls)}"
        self.sessions.append(session)
        self.calls.append(FakeCall(id_, _text(form["sdp"]), given, session, sidebands))
        location = f"https://{request.host}/v1/realtime/calls/{id_}"
        return web.Response(
            status=201,
            text=ANSWER_SDP,
            content_type="application/sdp",
            headers={"Location": location},
        )

    def _found(self, call_id: str) -> FakeCall:
        for call in self.calls:
            if call.id == call_id and not call.hung_up:
                return call
        raise web.HTTPNotFound

    async def _hang_up(self, request: web.Request) -> web.Response:
        await self.end_call(self._found(request.match_info["call_id"]))
        return web.Response()

    async def end_call(self, call: FakeCall) -> None:
        call.hung_up = call.session.over = True
        await call.session.interrupt("call_ended")
        await call.sidebands.close()
        self.note_change()

    async def _observe(self, request: web.Request) -> web.StreamResponse:
        """A sideband. It gets no session.created."""
        if self.sideband_refusals:
            return web.Response(status=self.sideband_refusals.pop(0))
        call = self._found(request.query["call_id"])
        socket = web.WebSocketResponse(max_msg_size=0)
        await socket.prepare(request)
        call.sidebands.sockets.add(socket)
        call.attached += 1
        self.note_change()
        async for message in socket:
            if message.type is WSMsgType.TEXT and not self.is_deaf:
                await call.session.take(message.data.encode())
        call.sidebands.sockets.discard(socket)
        return socket

    async def _connect(self, request: web.Request) -> web.StreamResponse:
        if "call_id" in request.query:
            return await self._observe(request)
        self.attempts += 1
        if self.opens_after:
            await self.opens_after.wait()
        if self.refusal:
            status, headers, body = self.refusal
            return web.Response(status=status, headers=headers, text=body)
        socket = web.WebSocketResponse(max_msg_size=0, autoping=not self.is_deaf)
        await socket.prepare(request)
        transport = request.transport
        assert transport
        number = len(self.sessions)
        session = FakeSession(request.headers, request.query, socket, transport, self, number)
        self.sessions.append(session)
        self.note_change()
        try:
            await self._serve(session)
        except ConnectionError:
            pass
        finally:
            if session.responding:
                session.responding.cancel()
            session.over = True
            self.note_change()
        return socket

    async def _serve(self, session: FakeSession) -> None:
        if self.first_error:
            await session.send("error", error=self.first_error)
            await session.socket.close(code=4000)
            return
        expires_at = int(time.time() + self.lifetime_s)
        await session.send("session.created", session={"expires_at": expires_at})
        async for message in session.socket:
            if message.type is WSMsgType.TEXT and not self.is_deaf:
                await session.take(message.data.encode())
