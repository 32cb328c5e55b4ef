"""Hostile frames on the WebSockets that carry sound: bytes, broken messages, lengths that lie.

A connection gets frames without waiting for answers, and is then closed. It may end earlier, by one
of the codes that name a mistake of the client. What the server keeps is measured after a warm-up.
"""

import asyncio
import base64
import gc
import json
import logging
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from random import Random
from typing import Any, Literal, NamedTuple

import aiohttp
from aiohttp import WSMsgType

from tests.fuzz.entrances import Complaints
from tests.fuzz.mutations import mutated, strings_of
from tests.fuzz.requests import Wrong
from tests.protocol.telephony_samples import digit_of, media_of, returned, start_of, stop_of
from tests.server import Server, scripted, serving
from tests.transports.webrtc.caller import until
from vivavoce.protocol import pipecat_frames
from vivavoce.protocol.telephony_messages import PROVIDERS

WAIT_SECONDS = 60.0  # for one answer: a bound, never a pace
FRAMES_A_CONNECTION = 40
WARM_UP = 0.4
"""The share of the frames after which memory is measured for the first time."""
MAX_GROWTH_BYTES = 500_000
"""Of Python's memory over the rest: less than one large frame takes."""
CLOSE_CODES = {1000, 1002, 1003, 1007, 1008, 1009, 3000}
RESET = 1006
"""Frames that are under way when the server closes are answered by a reset, which may overtake the
close frame."""
SOUND = bytes(range(256)) * 5
RAW: list[Any] = [
    {"type": "text", "text": "Hello"},
    {"type": "config", "data": {"voice": "coral", "tools": [{"name": "f"}], "sample_rate": 24000}},
    {"type": "audio_raw", "data": {"audio": base64.b64encode(SOUND).decode(), "sample_rate": 8000}},
    {"type": "LLMMessagesAppendFrame", "messages": [{"role": "user", "content": "x"}]},
    {"type": "FunctionCallResultFrame", "data": {"tool_call_id": "c", "result": {"a": [1]}}},
    {"model": "gpt-4o", "input": {"stream": True, "format": "f32", "sample_rate": 48000}},
    *({"type": kind} for kind in ("commit", "clear", "interrupt", "ping", "LLMRunFrame")),
]
RTVI: list[Any] = [
    {"label": "rtvi-ai", "id": "m1", "type": kind, "data": data}
    for kind, data in (
        ("client-ready", {"version": "2.1.0", "about": {"library": "x"}}),
        ("send-text", {"content": "Hi", "options": {"run_immediately": True}}),
        ("append-to-context", {"role": "user", "content": "x", "run_immediately": False}),
        ("client-message", {"t": "x", "d": {"a": [1]}}),
        ("llm-function-call-result", {"function_name": "f", "tool_call_id": "c", "result": {}}),
        ("dtmf", {"buttons": ["1", "#"]}),
        ("raw-audio", {"base64Audio": base64.b64encode(SOUND).decode(), "sampleRate": 16000}),
    )
]
CALLS: list[Any] = [
    make(provider)
    for provider in PROVIDERS
    for make in (
        lambda p: start_of(p, voice="coral", greeting="Hi."),
        lambda p: media_of(p, SOUND),
        lambda p: digit_of(p, "5"),
        lambda p: returned(p, "vv-1"),
        stop_of,
    )
]
Kind = Literal["text", "binary", "bytes"]


class HostileFrame(NamedTuple):
    """A message, or bytes below the WebSocket's framing."""

    kind: Kind
    data: bytes


class SoundEntrance(NamedTuple):
    """A WebSocket, valid messages of its protocol, and whether a client's first ones are binary."""

    path: str
    samples: list[Any]
    protobuf: bool = False

    def first(self, rng: Random) -> HostileFrame | None:
        """A valid beginning, mostly."""
        if rng.random() < 0.25:
            return None
        if self.samples is CALLS:
            sample = start_of(rng.choice(PROVIDERS))
        elif self.samples is RTVI:
            sample = RTVI[0]
        else:
            sample = RAW[5]
        data = json.dumps(sample).encode()
        if self.protobuf and rng.random() < 0.5:
            return HostileFrame("binary", pipecat_frames.write_message(data))
        return HostileFrame("text", data)


ENTRANCES = (
    SoundEntrance("/ws", RAW),
    SoundEntrance("/ws?format=protobuf", RAW, protobuf=True),
    SoundEntrance("/ws?rtvi=1", RTVI, protobuf=True),
    SoundEntrance("/v1/voice/stream", RAW),
    SoundEntrance("/telephony/ws", CALLS),
)


def hostile_frame(entrance: SoundEntrance, rng: Random) -> HostileFrame:
    return rng.choices(_MAKERS, _WEIGHTS)[0](entrance, rng)


def _noise(entrance: SoundEntrance, rng: Random) -> HostileFrame:
    return HostileFrame("binary", rng.randbytes(rng.choice((0, 1, 2, 3, 40, 639, 640, 5_000))))


def _noise_as_text(entrance: SoundEntrance, rng: Random) -> HostileFrame:
    return HostileFrame("text", rng.randbytes(rng.randrange(200)))


def _message(entrance: SoundEntrance, rng: Random) -> HostileFrame:
    """A message of the protocol, changed; in a protobuf frame or as the wrong kind, too."""
    data = mutated(rng.choice(entrance.samples), strings_of(entrance.samples), rng)
    if entrance.protobuf and rng.random() < 0.6:
        return HostileFrame("binary", pipecat_frames.write_message(data))
    return HostileFrame("text" if rng.random() < 0.9 else "binary", data)


def _broken_protobuf(entrance: SoundEntrance, rng: Random) -> HostileFrame:
    sound = pipecat_frames.write_audio(rng.randrange(9), SOUND, rng.choice((16_000, 24_000, 7)))
    data = bytearray(rng.choice((sound, pipecat_frames.write_message(b'{"label":"rtvi-ai"}'))))
    for _ in range(rng.choice((1, 2, 8))):
        data[rng.randrange(min(len(data), 60))] = rng.randrange(256)
    return HostileFrame("binary", bytes(data[: rng.randrange(len(data) + 1)]))


def _lying_length(entrance: SoundEntrance, rng: Random) -> HostileFrame:
    """A protobuf member that claims to be longer than the frame, up to 2**63 bytes."""
    tag = rng.choice((b"\x0a", b"\x12", b"\x1a", b"\x22"))
    length = rng.choice((b"\x7f", b"\xff\xff\xff\x7f", b"\xff" * 8 + b"\x7f", b"\xff" * 20))
    return HostileFrame("binary", tag + length + rng.randbytes(rng.randrange(30)))


def _large(entrance: SoundEntrance, rng: Random) -> HostileFrame:
    size = rng.choice((70_000, 262_144, 262_146, 400_000, 1_500_000))
    if rng.random() < 0.5:
        return HostileFrame("binary", rng.randbytes(100) * (size // 100))
    text = json.dumps({"event": "media", "type": "text", "text": "x" * size})
    return HostileFrame("text", text.encode())


def _sound_as_text(entrance: SoundEntrance, rng: Random) -> HostileFrame:
    return HostileFrame("text", base64.b64encode(rng.randbytes(640)))


def _below_the_framing(entrance: SoundEntrance, rng: Random) -> HostileFrame:
    """A header of RFC 6455, 5.2, that may not be: without a mask, of 2**63 bytes, reserved bits."""
    head = rng.choice(
        (
            b"\x82\x7d" + bytes(20),
            b"\x82\xff" + b"\x7f" + b"\xff" * 7 + bytes(4),
            b"\x81\xff" + b"\x00\x00\x00\x01" + bytes(8),
            b"\xf2\x85" + bytes(9),
            b"\x83\x80" + bytes(4),
            b"\x89\xfe\xff\xff" + bytes(4),
        )
    )
    return HostileFrame("bytes", head + rng.randbytes(50))


_MAKERS: tuple[Callable[[SoundEntrance, Random], HostileFrame], ...] = (
    *(_noise, _noise_as_text, _message, _broken_protobuf),
    *(_lying_length, _large, _sound_as_text, _below_the_framing),
)
_WEIGHTS = (25, 1, 40, 10, 8, 2, 10, 1)


class Attack:
    """Connections to one server, one after another."""

    def __init__(self, server: Server, http: aiohttp.ClientSession) -> None:
        self._server = server
        self._http = http
        self.ends: Counter[tuple[str, int]] = Counter()
        """By path and close code."""
        self.sent = 0

    async def connection(self, entrance: SoundEntrance, frames: Iterator[HostileFrame]) -> None:
        """Send frames and close. Raises Wrong: the server closed for no mistake of ours."""
        url = self._server.ws + entrance.path
        socket = await self._http.ws_connect(url, max_msg_size=0)
        reading = asyncio.create_task(_drained(socket))
        allowed = CLOSE_CODES
        try:
            for frame in frames:
                if socket.closed or reading.done():
                    break
                with suppress(ConnectionError):
                    await self._send(socket, frame)
                self.sent += 1
                if frame.kind == "bytes" or (frame.kind == "text" and not _is_utf8(frame.data)):
                    allowed = CLOSE_CODES | {RESET}
            with suppress(ConnectionError):
                await socket.close()
            async with asyncio.timeout(WAIT_SECONDS):
                await reading
        finally:
            reading.cancel()
        code = socket.close_code or 0
        self.ends[entrance.path, code] += 1
        if code not in allowed:
            raise Wrong(f"{entrance.path}: the connection was closed with {code}")

    async def _send(self, socket: aiohttp.ClientWebSocketResponse, frame: HostileFrame) -> None:
        if frame.kind == "bytes":
            connection: Any = socket._conn  # there is no public way below the framing
            connection.transport.write(frame.data)
        else:
            kind = WSMsgType.TEXT if frame.kind == "text" else WSMsgType.BINARY
            await socket.send_frame(frame.data, kind)


def _is_utf8(data: bytes) -> bool:
    with suppress(UnicodeDecodeError):
        data.decode()
        return True
    return False


async def _drained(socket: aiohttp.ClientWebSocketResponse) -> None:
    """Read until the connection is closed."""
    while not socket.closed:
        if (await socket.receive()).type in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.ERROR):
            return


class HostileRun(NamedTuple):
    """What came of a run."""

    ends: Counter[tuple[str, int]]
    """Connections by path and close code."""
    growth: int
    """Bytes of memory after the run that were not there after the warm-up."""


async def attack(frames: int, seed: int = 1) -> HostileRun:
    """Send so many frames, to each entrance in turn.

    Raises Wrong for an error or traceback in the log, for a close without a mistake, and where a
    valid conversation is not served afterwards.
    """
    complaints = Complaints()
    logging.getLogger().addHandler(complaints)
    settings = scripted(llm={"answers": ["Yes."]}, session={"max_items": 300})
    try:
        async with serving(settings) as server, aiohttp.ClientSession() as http:
            run = Attack(server, http)
            before, number = None, 0
            while run.sent < frames:
                if before is None and run.sent >= frames * WARM_UP:
                    await _at_rest(server)
                    tracemalloc.start()
                    before = tracemalloc.get_traced_memory()[0]
                number += 1
                entrance = ENTRANCES[number % len(ENTRANCES)]
                await run.connection(entrance, _frames_of(entrance, Random(f"{seed}:{number}")))
                if complaints.found:
                    raise Wrong(f"connection {number}, seed {seed}: {complaints.found.pop()}")
            await _at_rest(server)
            growth = tracemalloc.get_traced_memory()[0] - (before or 0)
            for entrance in ENTRANCES:
                await _answered(server, http, entrance)
            server.complaints.clear()  # they are among those found here
    finally:
        tracemalloc.stop()
        logging.getLogger().removeHandler(complaints)
    if complaints.found:
        raise Wrong("\n\n".join(complaints.found))
    return HostileRun(run.ends, growth)


def _frames_of(entrance: SoundEntrance, rng: Random) -> Iterator[HostileFrame]:
    first = entrance.first(rng)
    if first is not None:
        yield first
    for _ in range(FRAMES_A_CONNECTION - (first is not None)):
        yield hostile_frame(entrance, rng)


async def _at_rest(server: Server) -> None:
    """Wait until all sessions have ended."""
    await until(lambda: len(server.sessions) == 0)
    for recorded in (server.llm.requests, server.tts.spoken):  # by the scripted engines
        recorded.clear()
    gc.collect()


async def _answered(server: Server, http: aiohttp.ClientSession, entrance: SoundEntrance) -> None:
    """A typed turn, or keys of a telephone, must be answered with sound."""
    turns: list[Any] = [RAW[0]]
    if entrance.samples is RTVI:
        turns = RTVI[:2]
    elif entrance.samples is CALLS:
        turns = [start_of("twilio"), digit_of("twilio", "5"), digit_of("twilio", "#")]
    async with (
        asyncio.timeout(WAIT_SECONDS),
        http.ws_connect(server.ws + entrance.path) as socket,
    ):
        for message in turns:
            await socket.send_json(message)
        async for received in socket:
            if _is_sound(entrance, received):
                return
    raise Wrong(f"{entrance.path}: a turn after all frames was not answered")


def _is_sound(entrance: SoundEntrance, received: aiohttp.WSMessage) -> bool:
    if received.type is not WSMsgType.BINARY:
        return '"bot-tts-audio"' in received.data or '"event":"media"' in received.data
    if "protobuf" not in entrance.path:
        return True
    return isinstance(pipecat_frames.read_frame(received.data), pipecat_frames.AudioFrame)
