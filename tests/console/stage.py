"""A browser before a server: the console as a person has it, in Chromium, with a recorded voice.

Every stage fails when the page wrote an error to its console or asked anybody but its own server.
"""

import asyncio
import shutil
import wave
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final
from urllib.parse import urlsplit

import numpy as np
import pytest
from playwright.async_api import Locator, Page, ViewportSize, WebSocket, async_playwright, expect

from tests.server import HOST

CHROMIUM: Final = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed here")
DESKTOP: Final = ViewportSize(width=1280, height=800)
PHONE: Final = ViewportSize(width=390, height=844)
PATIENCE_MS: Final = 15_000  # for a condition of a page: a bound, never a pace
CUT: Final = ("WebSocket connection to", "Failed to load resource")
"""How Chromium begins to tell of a server that is not there."""
RATE: Final = 16_000
FLAGS: Final = (
    *("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--mute-audio"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"),
)
Stretch = tuple[float, float]  # seconds of loudness, from 0 to 1

expect.set_options(timeout=PATIENCE_MS)


@dataclass
class Stage:
    """A page, and what went wrong in it."""

    page: Page
    home: str
    problems: list[str] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)
    """The hosts that the page sent requests to."""
    sent_pieces: int = 0
    """Pieces of sound that went to the server."""
    _spoke: asyncio.Event = field(default_factory=asyncio.Event)

    def watch(self) -> None:
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on(
            "console",
            lambda said: self.problems.append(said.text) if said.type == "error" else None,
        )
        self.page.on("request", lambda request: self._ask(request.url))
        self.page.on("websocket", self._plug)

    async def captions(self, *texts: str) -> None:
        """Wait until the transcript has all of these."""
        for text in texts:
            await expect(self.page.get_by_role("log")).to_contain_text(text)

    async def press(self, name: str) -> None:
        await self.page.get_by_role("button", name=name, exact=True).click()

    async def look_at(self, tab: str) -> None:
        await self.page.get_by_role("tab", name=tab).click()

    async def type(self, text: str) -> None:
        await self.page.get_by_label("Type instead of speaking").fill(text)
        await self.press("Send")

    async def hears_an_answer(self) -> None:
        """Wait until the meter of the answer stands above nothing."""
        await expect(self._meter).not_to_have_js_property("value", 0)

    async def hears_nothing(self) -> None:
        await expect(self._meter).to_have_js_property("value", 0)

    @property
    def status(self) -> Locator:
        """In a word: whether there is a connection."""
        return self.page.locator("#status")

    @property
    def banner(self) -> Locator:
        """What is wrong, and what to do about it."""
        return self.page.get_by_role("alert").first

    async def speaks(self, pieces: int) -> None:
        """Wait until so many more pieces of sound were sent."""
        wanted = self.sent_pieces + pieces
        async with asyncio.timeout(PATIENCE_MS / 1000):
            while self.sent_pieces < wanted:
                self._spoke.clear()
                await self._spoke.wait()

    @property
    def _meter(self) -> Locator:
        return self.page.get_by_label("Level of the answer", exact=True)

    def _plug(self, socket: WebSocket) -> None:
        self._ask(socket.url)
        socket.on("framesent", self._count)

    def _count(self, frame: bytes | str) -> None:
        if "input_audio_buffer.append" in str(frame[:100]):
            self.sent_pieces += 1
            self._spoke.set()

    def _ask(self, url: str) -> None:
        if urlsplit(url).scheme in ("http", "https", "ws", "wss"):
            self.asked.add(urlsplit(url).netloc)


@asynccontextmanager
async def console(
    home: str,
    recording: Path | None = None,
    *,
    size: ViewportSize = DESKTOP,
    expected: Sequence[str] = (),
    flags: Sequence[str] = (),
) -> AsyncIterator[Stage]:
    """The console at that address; the microphone plays the recording, or only beeps.

    expected: beginnings of errors that belong to the test, such as a connection that was cut.
    flags: more of what Chromium is started with.
    """
    voice = () if recording is None else (f"--use-file-for-fake-audio-capture={recording}%noloop",)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=[*FLAGS, *voice, *flags], timeout=PATIENCE_MS
        )
        try:
            context = await browser.new_context(viewport=size, permissions=["microphone"])
            stage = Stage(await context.new_page(), home)
            stage.page.set_default_timeout(PATIENCE_MS)
            stage.watch()
            await stage.page.goto(home)
            yield stage
        finally:
            await browser.close()
    surprises = [text for text in stage.problems if not text.startswith(tuple(expected))]
    assert surprises == []
    assert stage.asked == {urlsplit(home).netloc}


@asynccontextmanager
async def humming(*stretches: Stretch) -> AsyncIterator[Path]:
    """A recording of a hum that comes and goes like speech: (seconds, loudness) in turn."""
    pieces = []
    for seconds, loudness in stretches:
        times = np.arange(int(seconds * RATE)) / RATE
        hum = np.sin(2 * np.pi * 180 * times) * np.sin(2 * np.pi * 3 * times)
        pieces.append((hum * loudness * 32767).astype("<i2"))
    with TemporaryDirectory() as folder:
        path = Path(folder, "hum.wav")
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes(np.concatenate(pieces).tobytes())
        yield path


class Line:
    """A cable between a page and a server, that can be cut and led to another server."""

    def __init__(self) -> None:
        self.port = 0
        self._to: int | None = None
        self._ends: set[asyncio.StreamWriter] = set()

    def lead_to(self, port: int) -> None:
        self._to = port

    def cut(self) -> None:
        """Break what goes through, without a word; and nobody gets through from now on."""
        self._to = None
        for end in self._ends:
            end.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._to is None:
            writer.transport.abort()
            return
        far_reader, far_writer = await asyncio.open_connection(HOST, self._to)
        both = (writer, far_writer)
        self._ends.update(both)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_pass(reader, far_writer))
                tasks.create_task(_pass(far_reader, writer))
        finally:
            self._ends.difference_update(both)
            for end in both:
                end.close()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def line() -> AsyncIterator[Line]:
    """A cable whose near end listens on a free port."""
    cable = Line()
    server = await asyncio.start_server(cable.serve, HOST, 0)
    cable.port = server.sockets[0].getsockname()[1]
    try:
        yield cable
    finally:
        cable.cut()
        server.close()
        await server.wait_closed()
