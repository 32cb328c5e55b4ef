"""A server that is started with Voxray's config.json alone, against a stub of OpenAI's API.

The stub stands on this machine; OPENAI_BASE_URL leads to it. Nothing else differs from what an
operator does.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from aiohttp import web
from websockets.asyncio.client import connect

from tests.clients.loop import awaited
from tests.clients.sound import silence, spoken
from tests.server import HOST
from tests.test_voxray_config import GUIDE
from vivavoce.audio.formats import RATE
from vivavoce.audio.resample import resample

KEY = "sk-of-the-environment"
WORDS = "Go forward ten meters."
ANSWER = ("It", " is", " done", ".")
WAIT_S = 60.0
STOP_S = 10.0
FRAME = 640  # bytes: 20 ms
SPEECH = (np.sin(np.arange(RATE // 2) / 20) * 9000).astype("<i2").tobytes()
"""Half a second of the stub's voice."""


@dataclass
class Stub:
    """OpenAI's three endpoints; `fails` gives a status and body."""

    fails: tuple[int, dict[str, Any]] | None = None
    keys: set[str] = field(default_factory=set)
    asked: dict[str, Any] = field(default_factory=dict)
    port: int = 0

    async def hear(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        if (refused := self._refused(request)) is not None:
            return refused
        self.asked["stt"] = form["model"]
        return web.json_response({"text": WORDS})

    async def think(self, request: web.Request) -> web.StreamResponse:
        if (refused := self._refused(request)) is not None:
            return refused
        self.asked["llm"] = (await request.json())["model"]
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for word in ANSWER:
            choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
            await response.write(f"data: {json.dumps({'choices': [choice]})}\n\n".encode())
        choice = {"index": 0, "delta": {}, "finish_reason": "stop"}
        end = json.dumps({"choices": [choice]})
        await response.write(f"data: {end}\n\ndata: [DONE]\n\n".encode())
        return response

    async def speak(self, request: web.Request) -> web.StreamResponse:
        if (refused := self._refused(request)) is not None:
            return refused
        self.asked["voice"] = (await request.json())["voice"]
        return web.Response(body=SPEECH, content_type="audio/pcm")

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response({"data": []})

    def _refused(self, request: web.Request) -> web.Response | None:
        self.keys.add(request.headers.get("Authorization", ""))
        if self.fails is None:
            return None
        status, body = self.fails
        return web.json_response(body, status=status)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        app = web.Application(client_max_size=1 << 24)
        app.router.add_post("/v1/audio/transcriptions", self.hear)
        app.router.add_post("/v1/chat/completions", self.think)
        app.router.add_post("/v1/audio/speech", self.speak)
        app.router.add_get("/v1/models", self.models)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, HOST, 0).start()
            yield f"http://{HOST}:{runner.addresses[0][1]}/v1"
        finally:
            await runner.cleanup()


@asynccontextmanager
async def voxray(folder: Path, base_url: str) -> AsyncIterator[tuple[int, list[str]]]:
    """The server, its port, and the lines of its banner. Only the port differs from the guide's."""
    (folder / "config.json").write_text(json.dumps(GUIDE | {"port": 0}), encoding="utf-8")
    kept = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "vivavoce", "serve", "-config", "config.json"),
        cwd=folder,
        env=kept | {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": base_url},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(WAIT_S):
            lines = [(await process.stdout.readline()).decode().strip() for _ in range(3)]
        yield int(lines[0].rpartition(":")[2]), lines
        process.terminate()
        async with asyncio.timeout(STOP_S):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def turn(port: int, until: str) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Say something in real time; the frames up to one of that type, and when each type came first.

    "audio" is the first binary frame. Seconds of the loop.
    """
    pcm = resample(silence(300) + await spoken(WORDS) + silence(4000), RATE, 16_000)
    frames: list[dict[str, Any]] = []
    times: dict[str, float] = {}
    clock: Callable[[], float] = asyncio.get_running_loop().time
    async with connect(f"ws://{HOST}:{port}/ws") as socket:

        async def say() -> None:
            began = clock()
            for n, at in enumerate(range(0, len(pcm), FRAME)):
                await socket.send(pcm[at : at + FRAME])
                await asyncio.sleep(max(0.0, began + (n + 1) * 0.02 - clock()))

        saying = asyncio.create_task(say())
        try:
            async with asyncio.timeout(WAIT_S):
                while True:
                    message = await socket.recv()
                    if isinstance(message, bytes):
                        times.setdefault("audio", clock())
                        continue
                    frame = json.loads(message)
                    frames.append(frame)
                    times.setdefault(frame["type"], clock())
                    if frame["type"] == until:
                        return frames, times
        finally:
            saying.cancel()


@awaited
async def test_guide_of_voxray_works_from_the_banner_to_the_first_sound(tmp_path: Path) -> None:
    stub = Stub()
    async with stub.running() as base_url, voxray(tmp_path, base_url) as (port, lines):
        assert lines[:2] == [
            f"Vivavoce listening on localhost:{port}",
            "transport: websocket  stt: openai  llm: openai  tts: openai",
        ]
        frames, times = await turn(port, "BotStoppedSpeakingFrame")
    said = [f["text"] for f in frames if f["type"] == "TranscriptionFrame" and f["final"]]
    assert said == [WORDS]
    text = "".join(f["text"] for f in frames if f["type"] == "TextFrame")
    assert text == "".join(ANSWER)
    assert times["TranscriptionFrame"] <= times["TextFrame"] <= times["audio"]
    assert stub.keys == {f"Bearer {KEY}"}
    assert stub.asked == {
        "stt": GUIDE["stt_model"],
        "llm": GUIDE["model"],
        "voice": GUIDE["tts_voice"],
    }


@awaited
async def test_provider_without_credit_is_named_in_an_error_frame(tmp_path: Path) -> None:
    error = {"message": "You exceeded your current quota.", "code": "insufficient_quota"}
    stub = Stub(fails=(429, {"error": error | {"type": "insufficient_quota"}}))
    async with stub.running() as base_url, voxray(tmp_path, base_url) as (port, _):
        frames, _ = await turn(port, "ErrorFrame")
    assert frames[-1]["code"] == "stt_failed"
    assert "quota" in frames[-1]["error"]
    assert KEY not in json.dumps(frames)


@awaited
async def test_provider_that_refuses_the_key_is_named_in_an_error_frame(tmp_path: Path) -> None:
    error = {"message": "Incorrect API key provided.", "code": "invalid_api_key"}
    stub = Stub(fails=(401, {"error": error}))
    async with stub.running() as base_url, voxray(tmp_path, base_url) as (port, _):
        frames, _ = await turn(port, "ErrorFrame")
    assert frames[-1]["code"] == "stt_failed"
    assert "401" in frames[-1]["error"]
