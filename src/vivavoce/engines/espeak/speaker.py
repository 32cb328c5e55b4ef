"""The server's side of the espeak process: its whole life, and the queue of who speaks next."""

import asyncio
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import deque
from contextlib import suppress

import msgspec

from vivavoce.engines.espeak.library import Language
from vivavoce.engines.espeak.utterance import Reply, Utterance
from vivavoce.errors import EngineError

START_WITHIN_S = 20.0
ANSWER_WITHIN_S = 5.0
"""Between two replies. A clause takes milliseconds: this long is an endless loop in the C code."""
STOP_WITHIN_S = 2.0

_LINE_LIMIT = 1 << 18  # the hello, with all languages, is 10 KiB
_GONE = (OSError, EOFError, msgspec.MsgspecError)  # OSError includes TimeoutError


class Hello(msgspec.Struct, frozen=True):
    """What the process says when it has loaded."""

    sample_rate: int = 0
    languages: tuple[tuple[str, str, tuple[tuple[str, int], ...]], ...] = ()
    error: str | None = None


_decode = msgspec.json.Decoder(Reply).decode
_encode = msgspec.json.Encoder().encode


class Speaker:
    """Reads out utterances, one after the other, first come first served.

    One that pauses for want of room lets the others pass. A text that crashes espeak costs its own
    utterance; the process is started anew for the next.
    """

    def __init__(self) -> None:
        self.languages: tuple[Language, ...] = ()
        self.sample_rate = 0
        self._process: Process | None = None
        self._waiting: deque[Utterance] = deque()
        self._current: Utterance | None = None
        self._called = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Start the process and hear that it has loaded. Raises EngineError."""
        self._process = await self._start()
        self._task = asyncio.create_task(self._serve())

    async def close(self) -> None:
        """End the process, and with an EngineError whatever it has not read out."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None
        await self._stop()

    def submit(self, utterance: Utterance) -> None:
        """Put it at the end of the queue. The caller bounds how many there are."""
        if self._task is None or self._task.done():
            utterance.end(EngineError("tts espeak: it is closed; enter the engine before speaking"))
            return
        self._waiting.append(utterance)
        self._called.set()

    def withdraw(self, utterance: Utterance) -> None:
        """Forget it; if it is being read out, stop that at once."""
        utterance.end()
        with suppress(ValueError):
            self._waiting.remove(utterance)
        if utterance is self._current and self._process and _hears(self._process):
            assert self._process.stdin
            self._process.stdin.write(b'{"cancel":%d}\n' % utterance.number)

    async def _serve(self) -> None:
        try:
            while True:
                while not self._waiting:
                    self._called.clear()
                    await self._called.wait()
                self._current = self._waiting.popleft()
                if not self._current.ended:
                    await self._read_out(self._current)
                self._current = None
        finally:
            closed = EngineError("tts espeak: the engine was closed while it spoke")
            for utterance in (self._current, *self._waiting):
                if utterance is not None:
                    utterance.end(closed)
            self._waiting.clear()

    async def _read_out(self, utterance: Utterance) -> None:
        try:
            if self._process and not _hears(self._process):  # it died while it had nothing to do
                await self._stop()
            if self._process is None:
                self._process = await self._start()
        except EngineError as exc:
            utterance.end(exc)
            return
        try:
            await self._converse(self._process, utterance)
        except _GONE:
            code = await self._stop()
            utterance.end(
                EngineError(
                    f"tts espeak: espeak-ng failed on this text (its process ended with {code}); "
                    "speak another text, or choose another tts engine for this language"
                )
            )

    async def _converse(self, process: Process, utterance: Utterance) -> None:
        assert process.stdin  # they are pipes
        assert process.stdout
        process.stdin.write(_encode(utterance.order()) + b"\n")
        await process.stdin.drain()
        ended = False
        while not ended:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                reply = _decode(await process.stdout.readuntil())
                audio = await process.stdout.readexactly(reply.bytes)
            if reply.number == utterance.number:
                utterance.add(reply, audio)
                ended = reply.ended
        if utterance.resume():
            self.submit(utterance)

    async def _start(self) -> Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # modules of the working directory are none of ours
            "-m",
            "vivavoce.engines.espeak.process",
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,  # espeak complains of its own data there
            limit=_LINE_LIMIT,
        )
        assert process.stdout
        try:
            async with asyncio.timeout(START_WITHIN_S):
                hello = msgspec.json.decode(await process.stdout.readuntil(), type=Hello)
        except _GONE as exc:
            await _end(process)
            raise EngineError(
                "tts espeak: its process does not start; "
                "try: python -m vivavoce.engines.espeak.process"
            ) from exc
        except asyncio.CancelledError:
            await _end(process)
            raise
        if hello.error is not None:
            await _end(process)
            raise EngineError(hello.error)
        self.sample_rate = hello.sample_rate
        self.languages = tuple(Language(*one) for one in hello.languages)
        return process

    async def _stop(self) -> int | None:
        process, self._process = self._process, None
        return await _end(process) if process else None


def _hears(process: Process) -> bool:
    """Whether it can be written to. It may have died; then uvloop raises a RuntimeError."""
    assert process.stdin
    return process.returncode is None and not process.stdin.is_closing()


async def _end(process: Process) -> int:
    """Let the process end, by force if it does not; its code. Both pipes are closed afterwards."""
    assert process.stdin
    assert process.stdout
    process.stdin.close()
    try:
        async with asyncio.timeout(STOP_WITHIN_S):
            while await process.stdout.read(_LINE_LIMIT):
                pass
            return await process.wait()
    except TimeoutError:
        process.kill()
        return await process.wait()
