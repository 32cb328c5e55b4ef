"""What is sent in the beta protocol, over HTTP, and in a WebRTC call."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec

from vivavoce.check.connection import CheckTarget, EventMissing, connected
from vivavoce.check.recording import CheckRecording, EventFields, RecordedEvent, at
from vivavoce.check.scenarios import METADATA, user_text
from vivavoce.talk.client import ServerLost

if TYPE_CHECKING:
    from aiortc import MediaStreamTrack, RTCPeerConnection

BETA = {"OpenAI-Beta": "realtime=v1"}
WRONG_KEY = "sk-this-key-is-wrong"


async def beta(target: CheckTarget, recording: CheckRecording) -> None:
    """The beta protocol: settings, a written and a spoken answer, errors."""
    recording.dialect, notes = "beta", recording.notes
    async with connected(target, recording, headers={**target.headers, **BETA}) as line:
        created = await line.until("session.created", "error")
        if at(created, "session", "modalities") is None:
            recording.unsupported = "the session is not that of the beta"
            return
        event_id = await line.send(
            "session.update",
            session={
                "instructions": "Be brief.",
                "temperature": 0.7,
                "turn_detection": None,
                "input_audio_format": "g711_ulaw",
                "max_response_output_tokens": 400,
            },
        )
        notes["updated"] = await line.reply(event_id, "session.updated")
        event_id = await line.send("conversation.item.create", item=user_text("Hello."))
        notes["created"] = await line.reply(event_id, "conversation.item.created")
        await line.response("text", modalities=["text"], metadata=METADATA)
        await line.response("audio", modalities=["text", "audio"])
        event_id = await line.send("session.update", session={"no_such_setting": 1})
        notes["refused"] = await line.reply(event_id, "session.updated")
        event_id = await line.send("input_audio_buffer.commit")
        notes["commit"] = await line.reply(event_id, "input_audio_buffer.committed")
        await line.settle()


async def beta_subprotocol(target: CheckTarget, recording: CheckRecording) -> None:
    """The beta as a browser requests it."""
    recording.dialect = "beta"
    offered = ("realtime", "openai-beta.realtime-v1")
    async with connected(target, recording, protocols=offered) as line:
        await line.until("session.created", "error")


async def beta_transcription(target: CheckTarget, recording: CheckRecording) -> None:
    """A transcription session of the beta."""
    recording.dialect = "beta"
    async with connected(
        target, recording, query={"intent": "transcription"}, headers={**target.headers, **BETA}
    ) as line:
        created = await line.until("transcription_session.created", "session.created", "error")
        if created.get("type") != "transcription_session.created":
            recording.unsupported = "no transcription session of the beta was opened"
            return
        session = {"input_audio_format": "pcm16", "turn_detection": None}
        event_id = await line.send("transcription_session.update", session=session)
        recording.notes["updated"] = await line.reply(event_id, "transcription_session.updated")


async def wrong_key(target: CheckTarget, recording: CheckRecording) -> None:
    """A connection with a wrong key, if the server needs one."""
    if not target.api_key.reveal():
        recording.unsupported = "no key was given, so the server is taken to need none"
        return
    headers = {"Authorization": f"Bearer {WRONG_KEY}"}
    with contextlib.suppress(ServerLost):
        async with connected(target, recording, headers=headers) as line:
            await line.until("error")
            await line.settle(target.timeout_s)


async def http(target: CheckTarget, recording: CheckRecording) -> None:
    """The HTTP endpoints beside the WebSocket; each answer is a note."""
    recording.dialect = "http"
    timeout = aiohttp.ClientTimeout(total=target.timeout_s)
    async with aiohttp.ClientSession(timeout=timeout, headers=target.headers) as session:
        for name, method, path, options in _http_requests(target):
            async with session.request(method, target.http + path, **options) as answer:
                found = await _http_answer(name, answer)
            recording.notes[name] = found
            recording.entries.append(RecordedEvent(0.0, False, found))
    key = at(recording.notes["client_secret"], "json", "value")
    if isinstance(key, str):
        with contextlib.suppress(ServerLost, EventMissing):
            secret_recording = CheckRecording("client_secret")
            headers = {"Authorization": f"Bearer {key}"}
            async with connected(target, secret_recording, headers=headers) as line:
                recording.notes["secret_session"] = await line.until("session.created", "error")


def _http_requests(target: CheckTarget) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """(name of the note, method, path, options of aiohttp) of each request."""
    yield "models", "GET", "/models", {}
    yield "not_found", "GET", "/no/such/endpoint", {}
    path, expiry = "/realtime/client_secrets", {"anchor": "created_at", "seconds": 60}
    session = {"type": "realtime", "instructions": "Be brief."}
    yield "client_secret", "POST", path, {"json": {"expires_after": expiry, "session": session}}
    too_long = {"expires_after": {"anchor": "created_at", "seconds": 1_000_000}}
    yield "client_secret_too_long", "POST", path, {"json": too_long}
    yield "beta_session", "POST", "/realtime/sessions", {"json": {"model": target.model}}
    path, speech = "/audio/speech", {"model": "gpt-4o-mini-tts", "voice": "alloy"}
    for kind in ("wav", "pcm"):
        body = {**speech, "input": "Hello there.", "response_format": kind}
        yield f"speech_{kind}", "POST", path, {"json": body}
    yield "speech_without_input", "POST", path, {"json": speech}
    path = "/audio/transcriptions"
    yield "transcription", "POST", path, {"data": _upload(target.speech)}
    yield "transcription_without_file", "POST", path, {"data": {"model": "whisper-1"}}
    path, message = "/chat/completions", {"role": "user", "content": "Hello."}
    yield "chat", "POST", path, {"json": {"model": target.model, "messages": [message]}}
    headers = {"Content-Type": "application/json"}
    yield "bad_json", "POST", path, {"data": b"{", "headers": headers}


async def _http_answer(name: str, answer: aiohttp.ClientResponse) -> EventFields:
    body = await answer.read()
    found: EventFields = {
        "type": name,
        "status": answer.status,
        "content_type": answer.content_type,
        "allow_headers": answer.headers.get("Access-Control-Allow-Headers", ""),
        "bytes": len(body),
        "begins": body[:4].hex(),
    }
    with contextlib.suppress(msgspec.DecodeError, UnicodeError):
        found["json"] = msgspec.json.decode(body)
    return found


def _upload(pcm24: bytes) -> aiohttp.FormData:
    from vivavoce.media.files import streaming_header

    form = aiohttp.FormData()
    form.add_field(
        "file", streaming_header(24_000) + (pcm24 or bytes(48_000)), filename="speech.wav"
    )
    form.add_field("model", "whisper-1")
    return form


async def webrtc(target: CheckTarget, recording: CheckRecording) -> None:
    """A call: an offer, the data channel, a spoken answer, a cancelled one."""
    recording.dialect = "webrtc"
    from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    call = _Call(peer, target, recording)
    try:
        await peer.setLocalDescription(await peer.createOffer())
        answer = await _offer(target, recording, peer.localDescription.sdp)
        if answer is None:
            return
        await peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        await call.until("session.created")
        await call.ask("Say hello.")
        created = await call.until("response.created")
        recording.notes["spoken"] = at(created, "response", "id")
        await call.until("response.done")
        await call.until("output_audio_buffer.stopped")
        recording.notes["loud_frames"] = call.loud_frames
        await call.ask("Please tell me a long story about a fox.")
        created = await call.until("response.created")
        recording.notes["cleared"] = at(created, "response", "id")
        await call.until("output_audio_buffer.started")
        call.send("response.cancel")
        call.send("output_audio_buffer.clear")
        await call.until("output_audio_buffer.cleared")
    except TimeoutError:
        recording.missing.append("the call did not go on in time")
    finally:
        await call.close()


async def _offer(target: CheckTarget, recording: CheckRecording, sdp: str) -> str | None:
    """The answer to an offer; None: the server accepts no calls."""
    timeout = aiohttp.ClientTimeout(total=target.timeout_s)
    headers = {**target.headers, "Content-Type": "application/sdp"}
    url = f"{target.http}/realtime/calls"
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.post(url, params={"model": target.model}, data=sdp, headers=headers) as response,
    ):
        if response.status in (404, 405, 501):
            recording.unsupported = f"POST /realtime/calls answers {response.status}"
            return None
        answer = await response.text()
        recording.notes["offer"] = {
            "type": "offer",
            "status": response.status,
            "content_type": response.content_type,
            "location": response.headers.get("Location", ""),
        }
        return answer if response.ok else None


class _Call:
    """A peer connection with a data channel, whose events are recorded."""

    def __init__(
        self, peer: "RTCPeerConnection", target: CheckTarget, recording: CheckRecording
    ) -> None:
        from aiortc.mediastreams import AudioStreamTrack

        self.loud_frames = 0
        self._peer = peer
        self._target = target
        self._recording = recording
        self._new = asyncio.Event()
        self._read = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._channel = peer.createDataChannel("oai-events")
        self._channel.on("message", self._take)
        peer.addTrack(AudioStreamTrack())
        peer.on("track", self._hear)

    def send(self, kind: str, **fields: Any) -> None:
        event = {"type": kind, **fields}
        self._record(sent=True, event=event)
        self._channel.send(msgspec.json.encode(event).decode())

    async def ask(self, text: str) -> None:
        self.send("conversation.item.create", item=user_text(text))
        self.send("response.create")

    async def until(self, kind: str) -> EventFields:
        """The next event of that type. Raises TimeoutError."""
        async with asyncio.timeout(self._target.timeout_s):
            while True:
                events = self._recording.received
                while self._read < len(events):
                    self._read += 1
                    if events[self._read - 1].get("type") == kind:
                        return events[self._read - 1]
                self._new.clear()
                await self._new.wait()

    async def close(self) -> None:
        await self._peer.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _take(self, message: str | bytes) -> None:
        try:
            event = msgspec.json.decode(message)
        except msgspec.DecodeError:
            event = {"type": "(not JSON)"}
        self._record(sent=False, event=event)
        self._new.set()

    def _record(self, *, sent: bool, event: EventFields) -> None:
        now = asyncio.get_running_loop().time()
        self._recording.entries.append(RecordedEvent(now, sent, event))

    def _hear(self, track: "MediaStreamTrack") -> None:
        task = asyncio.get_running_loop().create_task(self._count(track))
        self._tasks.add(task)

    async def _count(self, track: "MediaStreamTrack") -> None:
        from aiortc.mediastreams import MediaStreamError

        with contextlib.suppress(MediaStreamError):
            while True:
                frame: Any = await track.recv()
                samples = frame.to_ndarray()
                if abs(samples).max() > 500:
                    self.loud_frames += 1
