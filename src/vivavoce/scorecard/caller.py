"""One caller: speaks to a server in real time, and notes when each stage of an answer came.

Only what the protocol shows is measured: the times at which events arrive here. Zero is the moment
at which the last sound of the user, or the written request, was sent.
"""

import asyncio
import base64
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import msgspec

from vivavoce.audio.formats import BYTES_PER_MS
from vivavoce.secret import Secret
from vivavoce.talk.client import ServerLost, error_message, open_socket

FRAME_MS: Final = 40
MAX_ANSWER_S: Final = 3.0
"""An answer is cancelled so long after its first sound: how long it is does not matter here."""
SILENCE: Final = bytes(FRAME_MS * BYTES_PER_MS)
STAGES: Final = (
    ("speech_stopped", "end of the turn"),
    ("transcript", "transcript"),
    ("created", "response created"),
    ("first_text", "first text"),
    ("first_audio", "first audio"),
)
"""Stages of a waterfall: the field of StageTimes, and what it is called."""
_TYPE = re.compile(r'"type"\s*:\s*"([^"]+)"')
_EVENTS: Final = {
    "input_audio_buffer.speech_stopped": "speech_stopped",
    "conversation.item.input_audio_transcription.completed": "transcript",
    "response.created": "created",
    "response.output_audio_transcript.delta": "first_text",
    "response.audio_transcript.delta": "first_text",
    "response.output_text.delta": "first_text",
    "response.text.delta": "first_text",
    "response.output_audio.delta": "first_audio",
    "response.audio.delta": "first_audio",
}


@dataclass(slots=True)
class StageTimes:
    """Milliseconds from the end of the user's turn to the first event of each stage."""

    stages: dict[str, float] = field(default_factory=dict)
    usage: Any = None
    """The usage in response.done."""


@dataclass(frozen=True, slots=True)
class BenchTarget:
    """A server, and what is said to it."""

    url: str
    """The WebSocket address with ?model=."""
    api_key: Secret
    speech: bytes
    """One sentence, PCM at 24 kHz; empty: turns are written, and answers, too."""
    timeout_s: float
    text: str = "Say one short sentence."

    @property
    def spoken(self) -> bool:
        """Whether turns are spoken."""
        return bool(self.speech)


class Caller:
    """One session."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, target: BenchTarget) -> None:
        self.late: list[float] = []
        """Seconds by which frames of audio were sent too late: the load itself is too slow."""
        self._socket = socket
        self._target = target
        self._seen: dict[str, float] = {}  # when each stage came first, since the last turn
        self._done: asyncio.Event = asyncio.Event()
        self._new = asyncio.Event()
        self._usage: Any = None
        self._problem = ""

    async def read(self) -> None:
        """Note what comes, until the connection ends."""
        async for message in self._socket:
            if message.type is aiohttp.WSMsgType.TEXT:
                self._take(message.data, time.perf_counter())
        self._fail(f"the server closed the connection: {self._socket.close_code}")

    def _take(self, data: str, at: float) -> None:
        found = _TYPE.search(data)
        kind = found[1] if found else ""
        if stage := _EVENTS.get(kind):
            self._note(stage, at)
        elif kind == "input_audio_buffer.speech_started":
            self._note("speech_started", at)
        elif kind == "response.done":
            response = msgspec.json.decode(data)["response"]
            self._usage = response.get("usage")
            if response.get("status") == "failed":
                self._fail("a response failed")
            self._note("done", at)
            self._done.set()
        elif kind == "error":
            error = msgspec.json.decode(data).get("error") or {}
            if error.get("code") != "response_cancel_not_active":
                self._fail((error_message(error) or "error")[:300])

    def _note(self, stage: str, at: float) -> None:
        self._seen.setdefault(stage, at)
        self._new.set()

    def _fail(self, problem: str) -> None:
        self._problem = self._problem or problem
        self._done.set()
        self._new.set()

    async def send(self, kind: str, **fields: Any) -> None:
        """Send an event. Raises ServerLost."""
        try:
            await self._socket.send_str(msgspec.json.encode({"type": kind, **fields}).decode())
        except (ConnectionError, aiohttp.ClientError) as exc:
            raise ServerLost(f"the connection is lost: {exc}") from exc

    async def speak(self, pcm: bytes, *, until: str = "") -> float:
        """Send audio in real time, until a stage was seen if one is named; when it ended."""
        size = FRAME_MS * BYTES_PER_MS
        due = time.perf_counter()
        for start in range(0, len(pcm), size):
            if self._problem or (until and until in self._seen):
                break
            audio = base64.b64encode(pcm[start : start + size]).decode()
            await self.send("input_audio_buffer.append", audio=audio)
            due += FRAME_MS / 1000
            wait = due - time.perf_counter()
            self.late.append(max(0.0, -wait))
            await asyncio.sleep(max(0.0, wait))
        return time.perf_counter()

    async def turn(self) -> StageTimes:
        """One turn and its answer. Raises ServerLost."""
        self._seen.clear()
        self._done.clear()
        self._usage = None
        first = "first_audio" if self._target.spoken else "first_text"
        if self._target.spoken:
            asked = await self.speak(self._target.speech)
            silence = SILENCE * int(self._target.timeout_s * 1000 / FRAME_MS)
            await self.speak(silence, until=first)
        else:
            asked = await self.write(self._target.text)
            await self.wait(first, self._target.timeout_s)
        self._check(first)
        try:
            async with asyncio.timeout(MAX_ANSWER_S):
                await self._done.wait()
        except TimeoutError:
            await self.send("response.cancel")
            await self.wait("done", self._target.timeout_s)
        self._check("done")
        stages = {name: (at - asked) * 1000 for name, at in self._seen.items()}
        return StageTimes(stages, self._usage)

    async def write(self, text: str) -> float:
        """A written turn, and a request for its answer; when it was sent."""
        content = [{"type": "input_text", "text": text}]
        item = {"type": "message", "role": "user", "content": content}
        await self.send("conversation.item.create", item=item)
        await self.send("response.create")
        return time.perf_counter()

    async def interrupt(self) -> float:
        """Milliseconds from the first sound over an answer to the server's word of it.

        That is speech_started, at which clients stop playing, or the end of the answer. Raises
        ServerLost.
        """
        self._seen.clear()
        self._done.clear()
        await self.write("Tell me a long story, at least twenty sentences.")
        await self.wait("first_audio", self._target.timeout_s)
        self._check("first_audio")
        await self.speak(SILENCE * 10)
        self._seen.pop("speech_started", None)
        began = time.perf_counter()
        await self.speak(self._target.speech, until="speech_started")
        self._check("speech_started")
        return (self._seen["speech_started"] - began) * 1000

    async def wait(self, stage: str, seconds: float) -> None:
        """Wait for a stage, a failure, or so long."""
        try:
            async with asyncio.timeout(seconds):
                while stage not in self._seen and not self._problem:
                    self._new.clear()
                    await self._new.wait()
        except TimeoutError:
            pass  # the caller checks

    def _check(self, stage: str) -> None:
        if stage not in self._seen:
            missing = f"no {stage} within {self._target.timeout_s:g} s"
            raise ServerLost(self._problem or missing)


@asynccontextmanager
async def calling(http: aiohttp.ClientSession, target: BenchTarget) -> AsyncIterator[Caller]:
    """A session that is set up. Raises ServerLost."""
    key = target.api_key.reveal()
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    socket = await open_socket(http, target.url, target.timeout_s, headers=headers, max_msg_size=0)
    caller = Caller(socket, target)
    reading = asyncio.create_task(caller.read())
    try:
        await caller.send("session.update", session=_session(spoken=target.spoken))
        yield caller
    finally:
        reading.cancel()
        await asyncio.wait((reading,))
        await socket.close()


def _session(*, spoken: bool) -> dict[str, Any]:
    if not spoken:
        return {"type": "realtime", "output_modalities": ["text"]}
    heard = {"turn_detection": {"type": "server_vad"}, "transcription": {"model": "whisper-1"}}
    return {"type": "realtime", "audio": {"input": heard}}
