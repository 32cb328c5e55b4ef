"""What keeps the event loop of the server from its other sessions: CPU time of single callbacks.

The server runs in a thread of this process, on asyncio's own loop, whose every callback is timed
by the clock of that thread. So other work on the machine does not count, and neither does waiting.
Run it by itself: numpy must be told, before it is first imported, to use one thread as the server
does, or the time in which its threads wait for each other counts.
"""

import asyncio
import base64
import gc
import os
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from aiohttp import web

from bench.figures import Figure, percentile
from bench.report import run
from bench.sound import FRAME_MS, recordings, silence
from bench.wire import Line, appends, connect, event
from vivavoce.app import build
from vivavoce.protocol.bounds import MAX_TEXT_BYTES
from vivavoce.protocol.items import MAX_INPUT_ITEMS, MAX_TOOLS
from vivavoce.routes import application
from vivavoce.runtime.sessions import Sessions
from vivavoce.settings_sources import parse

TARGET_MS = 5.0
SESSIONS = 8
LARGEST = 15 * 1024 * 1024  # bytes of sound that one append may hold
WAIT_SECONDS = 60.0
Scene = Callable[[int, bytes], Awaitable[None]]
"""Takes the port, and the sound of somebody who speaks."""

_SCRIPTED = dict.fromkeys(("turn", "stt", "llm", "tts"), "scripted")
_WORDS = "It is a fine day, and we might go out. Would you like to come along with me? "
SETTINGS: dict[str, Any] = {
    "models": {
        "default": {"vad": "silero", **_SCRIPTED},
        "embedded": {"vad": "silero", "llm": "builtin"},
    },
    "engines": {
        "stt": {"scripted": {"transcripts": [{"text": "who is there", "partials": True}]}},
        "llm": {"scripted": {"answers": [_WORDS * 5]}},
    },
}


class Watch:
    """The CPU time of each callback of one thread's loop, by what it ran."""

    def __init__(self) -> None:
        self.thread = 0
        self.seconds: dict[str, list[float]] = {}
        self._run = asyncio.Handle._run

    def __enter__(self) -> "Watch":
        watch, run_ = self, self._run

        def timed(handle: asyncio.Handle) -> None:
            if threading.get_ident() != watch.thread:
                run_(handle)
                return
            name, begin = _name(handle._callback), time.thread_time()  # type: ignore[attr-defined]
            run_(handle)
            watch.seconds.setdefault(name, []).append(time.thread_time() - begin)

        asyncio.Handle._run = timed  # type: ignore[method-assign,assignment]
        return self

    def __exit__(self, *exc: object) -> None:
        asyncio.Handle._run = self._run  # type: ignore[method-assign]

    def take(self) -> dict[str, list[float]]:
        """What was timed since the last time."""
        taken, self.seconds = self.seconds, {}
        return taken


def _name(callback: Any) -> str:
    """A task by its coroutine, anything else by its own name."""
    owner = getattr(callback, "__self__", None)
    if isinstance(owner, asyncio.Task):
        return str(getattr(owner.get_coro(), "__qualname__", owner))
    return str(getattr(callback, "__qualname__", callback))


@asynccontextmanager
async def watched(watch: Watch) -> AsyncIterator[int]:
    """A server in a thread; its port."""
    started: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    ours, stop = asyncio.get_running_loop(), threading.Event()

    async def serve() -> None:
        async with build(parse(SETTINGS), local_servers=()) as built:
            sessions = Sessions(built.context)
            runner = web.AppRunner(application(sessions), access_log=None, handle_signals=False)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            gc.collect()
            gc.freeze()  # as the server does
            watch.thread = threading.get_ident()
            ours.call_soon_threadsafe(started.set_result, runner.addresses[0][1])
            while not stop.is_set():  # noqa: ASYNC110  set by another thread
                await asyncio.sleep(0.1)
            await sessions.drain(0)
            await runner.cleanup()

    def main() -> None:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as own:
            own.run(serve())

    thread = threading.Thread(target=main)
    thread.start()
    try:
        yield await started
    finally:
        stop.set()
        await asyncio.to_thread(thread.join)


def _message(text: str) -> dict[str, Any]:
    content = [{"type": "input_text", "text": text}]
    return {"type": "message", "role": "user", "content": content}


def _question(text: str = "hello") -> bytes:
    return event("conversation.item.create", item=_message(text))


async def _within(future: asyncio.Future[Any]) -> bytes:
    async with asyncio.timeout(WAIT_SECONDS):
        return bytes((await future)[0])


async def _converse(port: int, speech: bytes, turns: int = 2, **session: Any) -> None:
    """One client speaks in real time and is answered."""
    line = await connect(port)
    line.write(event("session.update", session={"type": "realtime", **session}))
    for _ in range(turns):
        done = line.coming("response.done")
        for frame in appends(speech + silence(1.0), FRAME_MS):
            line.write(frame)
            await asyncio.sleep(FRAME_MS / 1000)
        await _within(done)
    line.close()


async def _many(port: int, speech: bytes) -> None:
    await asyncio.gather(*(_converse(port, speech) for _ in range(SESSIONS)))


async def _telephone(port: int, speech: bytes) -> None:
    audio = {"output": {"format": {"type": "audio/pcmu"}}}
    await asyncio.gather(*(_converse(port, speech, audio=audio) for _ in range(SESSIONS)))


async def _ask(port: int, speech: bytes, model: str = "default") -> None:
    line = await connect(port)
    line.write(event("session.update", session={"type": "realtime", "model": model}))
    done = line.coming("response.done")
    line.write(_question("tell me a long story"))
    line.write(event("response.create"))
    await _within(done)
    line.close()


async def _large_append(line: Line, pcm: bytes) -> None:
    line.write(event("input_audio_buffer.append", audio=base64.b64encode(pcm).decode()))


async def _recording_judged(port: int, speech: bytes) -> None:
    line = await connect(port)
    started = line.coming("input_audio_buffer.speech_started")
    await _large_append(line, bytes(LARGEST - len(speech)) + speech)
    await _within(started)
    line.close()


async def _recording_committed(port: int, speech: bytes) -> None:
    line = await connect(port)
    audio = {"input": {"turn_detection": None, "transcription": {"model": "x"}}}
    line.write(event("session.update", session={"type": "realtime", "audio": audio}))
    await _large_append(line, bytes(LARGEST))
    written = line.coming("conversation.item.input_audio_transcription.completed")
    line.write(event("input_audio_buffer.commit"))
    await _within(written)
    line.close()


async def _recording_retrieved(port: int, speech: bytes) -> None:
    line = await connect(port)
    sound = base64.b64encode(bytes(LARGEST)).decode()
    item = {
        "type": "message",
        "id": "item_1",
        "role": "user",
        "content": [{"type": "input_audio", "audio": sound, "transcript": "so"}],
    }
    line.write(event("conversation.item.create", item=item))
    shown = line.coming("conversation.item.retrieved")
    line.write(event("conversation.item.retrieve", item_id="item_1"))
    await _within(shown)
    line.close()


async def _flood(port: int, speech: bytes) -> None:
    line = await connect(port)
    line.write(event("nonsense") * 5_000)
    done = line.coming("conversation.item.done")
    line.write(_question())
    await _within(done)
    line.close()


async def _long_history(port: int, speech: bytes) -> None:
    """A conversation of 400 items, answered."""
    line = await connect(port)
    for _ in range(400):
        line.write(_question(_WORDS))
    done = line.coming("response.done")
    line.write(event("response.create"))
    await _within(done)
    line.close()


async def _largest_events(port: int, speech: bytes) -> None:
    """Events at the bounds of what is not audio: bytes of text, tools, values, items."""
    line = await connect(port)
    properties = {f"key{n}": {"type": "string"} for n in range(30)}
    tool = {"type": "function", "name": "dial", "parameters": {"properties": properties}}
    items = [_message("x" * (MAX_TEXT_BYTES // MAX_INPUT_ITEMS - 200))] * MAX_INPUT_ITEMS
    done = line.coming("response.done")
    for one in (
        _question("\n" * (MAX_TEXT_BYTES // 2 - 200)),
        event("session.update", session={"type": "realtime", "tools": [tool] * MAX_TOOLS}),
        event("session.update", session={"type": "realtime", "tracing": {"a": [{"a": 1}] * 3300}}),
        event("response.create", response={"conversation": "none", "input": items}),
    ):
        line.write(one)
    await _within(done)
    line.close()


SCENES: dict[str, Scene] = {
    f"{SESSIONS} clients talk": _many,
    f"{SESSIONS} clients talk, answered in G.711": _telephone,
    "an answer at full speed": _ask,
    "an answer of the embedded engines": lambda port, speech: _ask(port, speech, "embedded"),
    "an answer to 400 items": _long_history,
    "5,000 bad events at once": _flood,
    "the largest events without audio": _largest_events,
    "15 MiB of sound at once, judged": _recording_judged,
    "15 MiB of sound at once, committed": _recording_committed,
    "15 MiB of sound in an item, retrieved": _recording_retrieved,
}


async def measure(quick: bool) -> list[Figure]:
    figures = []
    speech = min((each.pcm for each in await recordings()), key=len)
    with Watch() as watch:
        async with watched(watch) as port:
            await _converse(port, speech, 1)
            watch.take()
            for name, scene in SCENES.items():
                await scene(port, speech)
                await asyncio.sleep(0.2)
                figures.append(_figure(name, watch.take(), bound="15 MiB" not in name))
    return figures


def _figure(name: str, taken: dict[str, list[float]], *, bound: bool) -> Figure:
    """The slowest callback, and the slowest of each kind in the detail."""
    slowest = sorted(((max(each), what) for what, each in taken.items()), reverse=True)
    every = [seconds for each in taken.values() for seconds in each]
    return Figure(
        measure=f"slowest callback: {name} ({slowest[0][1]})",
        value=1000 * slowest[0][0],
        unit="ms",
        target=TARGET_MS if bound else None,
        detail={
            "callbacks": len(every),
            "p99_ms": round(1000 * percentile(every, 99), 3),
            "slowest_ms": {what: round(1000 * s, 3) for s, what in slowest[:6]},
            "beyond_5_ms": sum(seconds > TARGET_MS / 1000 for seconds in every),
        },
    )


if __name__ == "__main__":
    run(measure)
