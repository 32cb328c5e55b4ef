"""The console in Chromium with a recorded voice as microphone, and a TCP proxy to cut connections.

A test fails if the page wrote an error to its console or sent a request to another host.
"""

import asyncio
import base64
import functools
import re
import shutil
import wave
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, ParamSpec, TypeVar
from urllib.parse import urlsplit

import numpy as np
import pytest
from playwright.async_api import (
    Browser,
    BrowserContext,
    Locator,
    Page,
    Playwright,
    ViewportSize,
    WebSocket,
    async_playwright,
    expect,
)

from tests.server import HOST

P = ParamSpec("P")
T = TypeVar("T")
CHROMIUM: Final = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed here")
DESKTOP: Final = ViewportSize(width=1280, height=800)
PHONE: Final = ViewportSize(width=390, height=844)
TIMEOUT_MS: Final = 60_000  # for a condition of a page: an upper bound, no pace
CONNECTION_ERRORS: Final = ("WebSocket connection to", "Failed to load resource")
"""How the messages of Chromium begin when a server does not answer, or refuses."""
LIVE: Final = re.compile("off|muted|ready|listening|hearing|thinking|tool|speaking")
RATE: Final = 16_000
FLAGS: Final = (
    *("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--mute-audio"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"),
    *("--disable-background-timer-throttling", "--disable-renderer-backgrounding"),
    *("--disable-backgrounding-occluded-windows", "--ignore-certificate-errors"),
    f"--host-resolver-rules=MAP voice.test {HOST}",
)
MICROPHONE: Final = """
let opened;
const mouths = [];
window.microphone = new Promise((resolve) => (opened = resolve));
if (navigator.mediaDevices) navigator.mediaDevices.getUserMedia = async () => {
  const room = new AudioContext();
  const mouth = room.createMediaStreamDestination();
  const loudness = new GainNode(room, { gain: 0 });
  const hum = new OscillatorNode(room, { frequency: 180 });
  hum.connect(loudness).connect(mouth);
  hum.start();
  mouths.push((seconds) => {
    loudness.gain.setValueAtTime(0.5, room.currentTime);
    loudness.gain.setValueAtTime(0, room.currentTime + seconds);
  });
  opened((seconds) => mouths.forEach((speak) => speak(seconds)));
  return mouth.stream;
};
"""
"""A microphone that hums when a test says so; a recording begins when the page opens it."""
RECORDED: Final = """
window.held = new Promise((resolve) => (window.play = resolve));
if (navigator.mediaDevices) navigator.mediaDevices.getUserMedia = async () => {
  const room = new AudioContext();
  const bytes = Uint8Array.from(atob("WAV"), (char) => char.charCodeAt(0));
  const voice = new AudioBufferSourceNode(room, {
    buffer: await room.decodeAudioData(bytes.buffer),
  });
  const mouth = room.createMediaStreamDestination();
  voice.connect(mouth);
  if (HELD) window.held.then(() => voice.start());
  else voice.start();
  return mouth.stream;
};
"""
"""A microphone that plays a wav file once, from when the page opens it, or from play() on."""
HEARD: Final = """
addEventListener("DOMContentLoaded", () => {
  const meter = document.getElementById("assistant-level");
  const note = () => meter.value > 0 && meter.setAttribute("data-heard", "");
  if (meter) new MutationObserver(note).observe(meter, { attributeFilter: ["value"] });
});
"""
"""Notes that the assistant is heard: a short answer may be over before a test asks."""
Stretch = tuple[float, float]  # seconds, amplitude from 0 to 1

expect.set_options(timeout=TIMEOUT_MS)


@dataclass
class ConsolePage:
    """A page, its errors, and the hosts that it sent requests to."""

    page: Page
    home: str
    errors: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)
    audio_frames: int = 0
    """input_audio_buffer.append events that were sent to the server."""
    _frame_sent: asyncio.Event = field(default_factory=asyncio.Event)

    def watch(self) -> None:
        """Collect errors, hosts and audio frames from now on."""
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on(
            "console",
            lambda message: self.errors.append(message.text) if message.type == "error" else None,
        )
        self.page.on("request", lambda request: self._add_host(request.url))
        self.page.on("websocket", self._watch_socket)

    async def wait_until_live(self) -> None:
        """Wait until the conversation has a session, whatever it is doing."""
        await expect(self.status).to_have_attribute("data-state", LIVE)

    async def wait_for_transcript(self, *texts: str) -> None:
        """Wait until the transcript contains all of these."""
        for text in texts:
            await expect(self.page.get_by_role("log")).to_contain_text(text)

    async def click(self, name: str) -> None:
        """Click the button of that name."""
        await self.page.get_by_role("button", name=name, exact=True).click()

    async def show_tab(self, name: str) -> None:
        await self.page.get_by_role("tab", name=name).click()

    async def type(self, text: str) -> None:
        """Send a text message."""
        await self._forget_sound()
        await self.page.get_by_label("Type instead of speaking").fill(text)
        await self.click("Send")

    async def speak(self, seconds: float) -> None:
        """Hum into the microphone, once the page has opened it."""
        await self._forget_sound()
        await self.page.evaluate("async (seconds) => (await window.microphone)(seconds)", seconds)

    async def wait_for_sound(self) -> None:
        """Wait until an answer to the last message is or was played."""
        await expect(self._meter).to_have_attribute("data-heard", "")

    async def _forget_sound(self) -> None:
        await self._meter.evaluate("(meter) => meter.removeAttribute('data-heard')")

    async def wait_for_silence(self) -> None:
        await expect(self._meter).to_have_js_property("value", 0)

    @property
    def status(self) -> Locator:
        """The state of the connection."""
        return self.page.locator("#status")

    @property
    def banner(self) -> Locator:
        """The problem that is shown."""
        return self.page.get_by_role("alert").first

    async def wait_for_audio_frames(self, count: int) -> None:
        """Wait until so many more audio frames were sent to the server."""
        wanted = self.audio_frames + count
        async with asyncio.timeout(TIMEOUT_MS / 1000):
            while self.audio_frames < wanted:
                self._frame_sent.clear()
                await self._frame_sent.wait()

    @property
    def _meter(self) -> Locator:
        return self.page.get_by_label("Level of the assistant", exact=True)

    def _watch_socket(self, socket: WebSocket) -> None:
        self._add_host(socket.url)
        socket.on("framesent", self._count)

    def _count(self, frame: bytes | str) -> None:
        if "input_audio_buffer.append" in str(frame[:100]):
            self.audio_frames += 1
            self._frame_sent.set()

    def _add_host(self, url: str) -> None:
        if urlsplit(url).scheme in ("http", "https", "ws", "wss"):
            self.hosts.add(urlsplit(url).netloc)


class SharedBrowser:
    """One Chromium for all tests of a process, and the event loop in which it is used.

    Flags of the command line need one more.
    """

    def __init__(self) -> None:
        self._runner: asyncio.Runner | None = None
        self._playwright: Playwright | None = None
        self._browsers: dict[tuple[str, ...], Browser] = {}

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """As asyncio.run(), in the loop of the browser."""
        if self._runner is None:
            self._runner = asyncio.Runner()
        return self._runner.run(main)

    @asynccontextmanager
    async def context(
        self, recording: Path | None = None, *flags: str, held: bool = False
    ) -> AsyncIterator[BrowserContext]:
        """A window without history. Its microphone plays the recording, once the page has opened
        it, or if `held`, when play() is called; without one it is that of MICROPHONE."""
        browser = self._browsers.get(flags)
        if browser is None or not browser.is_connected():
            self._playwright = self._playwright or await async_playwright().start()
            browser = self._browsers[flags] = await self._playwright.chromium.launch(
                executable_path=CHROMIUM, args=[*FLAGS, *flags], timeout=TIMEOUT_MS
            )
        context = await browser.new_context(
            viewport=DESKTOP, permissions=["microphone", "clipboard-read", "clipboard-write"]
        )
        context.set_default_timeout(TIMEOUT_MS)
        script = MICROPHONE if recording is None else recorded_microphone(recording, held=held)
        await context.add_init_script(script)
        await context.add_init_script(HEARD)
        try:
            yield context
        finally:
            await context.close()

    def close(self) -> None:
        if self._runner is None:
            return
        with self._runner as runner:
            for browser in self._browsers.values():
                runner.run(browser.close())
            if self._playwright is not None:
                runner.run(self._playwright.stop())
        self._runner = self._playwright = None
        self._browsers.clear()


shared_browser: Final = SharedBrowser()
run: Final = shared_browser.run


def awaited(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a test that is a coroutine, in the loop of the browser."""

    @functools.wraps(test)
    def in_loop(*args: P.args, **kwargs: P.kwargs) -> None:
        run(test(*args, **kwargs))

    return in_loop


def recorded_microphone(recording: Path, *, held: bool) -> str:
    """A script after which the microphone plays that wav file."""
    wav = base64.b64encode(recording.read_bytes()).decode()
    return RECORDED.replace("HELD", "true" if held else "false").replace("WAV", wav)


@asynccontextmanager
async def open_console(
    home: str,
    recording: Path | None = None,
    *,
    held: bool = False,
    size: ViewportSize = DESKTOP,
    expected: Sequence[str] = (),
) -> AsyncIterator[ConsolePage]:
    """The console at that address. The microphone plays the recording; without one it is silent but
    while the test lets it speak(). held: it waits until the test calls window.play().

    expected: how errors begin that belong to the test, such as a connection that was cut.
    """
    async with shared_browser.context(recording, held=held) as context:
        console = ConsolePage(await context.new_page(), home)
        await console.page.set_viewport_size(size)
        console.watch()
        await console.page.goto(home)
        yield console
    unexpected = [text for text in console.errors if not text.startswith(tuple(expected))]
    assert unexpected == []
    assert console.hosts == {urlsplit(home).netloc}


@asynccontextmanager
async def recorded_hum(*stretches: Stretch) -> AsyncIterator[Path]:
    """A wav file with a hum in the rhythm of speech: (seconds, amplitude) after each other."""
    pieces = []
    for seconds, amplitude in stretches:
        times = np.arange(int(seconds * RATE)) / RATE
        hum = np.sin(2 * np.pi * 180 * times) * np.sin(2 * np.pi * 3 * times)
        pieces.append((hum * amplitude * 32767).astype("<i2"))
    with TemporaryDirectory() as folder:
        path = Path(folder, "hum.wav")
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes(np.concatenate(pieces).tobytes())
        yield path


class TcpProxy:
    """Forwards connections to a port of this machine; it can cut them and change the port."""

    def __init__(self) -> None:
        self.port = 0
        self._target: int | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    def forward_to(self, port: int) -> None:
        self._target = port

    def cut(self) -> None:
        """Abort all connections, and refuse new ones until the next forward_to()."""
        self._target = None
        for writer in self._writers:
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection to its end."""
        if self._target is None:
            writer.transport.abort()
            return
        far_reader, far_writer = await asyncio.open_connection(HOST, self._target)
        both = (writer, far_writer)
        self._writers.update(both)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_copy(reader, far_writer))
                tasks.create_task(_copy(far_reader, writer))
        finally:
            self._writers.difference_update(both)
            for one in both:
                one.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def tcp_proxy() -> AsyncIterator[TcpProxy]:
    """A proxy that listens on a free port."""
    proxy = TcpProxy()
    server = await asyncio.start_server(proxy.serve, HOST, 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        proxy.cut()
        server.close()
        await server.wait_closed()
