"""`vivavoce demo`: starts a server, asks it a spoken question, and checks the answer."""

import asyncio
import os
import re
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import IO, Final

import aiohttp
from rich.console import Console

from vivavoce.audio.formats import BYTES_PER_MS
from vivavoce.engines import registry
from vivavoce.engines.base import TTS
from vivavoce.errors import AudioError, EngineError, SettingsError
from vivavoce.limits.tokens import Grant, TokenMint
from vivavoce.media import files
from vivavoce.runtime.synthesis import Synthesis
from vivavoce.secret import Secret
from vivavoce.talk.command import ANSWERED, FAILED, INTERRUPTED, REFUSED, Questions, converse
from vivavoce.talk.options import DemoOptions, TalkOptions, Timeouts
from vivavoce.talk.screen import Screen
from vivavoce.talk.turn import Turn, level_db

HOST: Final = "127.0.0.1"
KEY_SECONDS: Final = 600
"""The lifetime of the short-lived key that the demo makes, because a server with [keys] needs
one."""
SENTENCE: Final = "What time is it?"
"""Spoken if a command gets no recording."""
MAX_SPEECH_SECONDS: Final = 30.0
"""The longest recording that a command accepts."""
LEAD_MS: Final = 300
"""Silence before the question, as with a real microphone."""
MIN_SPEECH_DB: Final = -50.0
"""The level of an audible answer."""
QUESTION_VOICE, QUESTION_SPEED = "alloy", 0.9
"""The embedded voice, and its speed, that the embedded recognizer understands best."""
MAX_OUTPUT_BYTES: Final = 4000
"""The end of the server's output that a message quotes."""
_POLL_SECONDS: Final = 0.05
_ADDRESS: Final = re.compile(rf"ws://({re.escape(HOST)}:\d+)/")


def demo(options: DemoOptions, console: Console, timeouts: Timeouts = Timeouts()) -> int:
    """Start a server, ask it a spoken question, show and save the answer.

    Returns the exit status. 0: a transcript and an answer came, and the answer has speech in it.
    1: not so. 2: the server or the voice did not start, or the answer cannot be written. 130:
    interrupted. The server is stopped in every case. Runs an event loop.
    """
    screen = Screen(console, timeline=options.timeline)
    try:
        return asyncio.run(_run_demo(options, screen, timeouts))
    except (SettingsError, AudioError, EngineError) as exc:
        screen.problem(str(exc))
        return REFUSED
    except (KeyboardInterrupt, asyncio.CancelledError):
        screen.note("interrupted")
        return INTERRUPTED


async def speak_question(question: str, tts: TTS) -> bytes:
    """The question as PCM of 24 kHz, after LEAD_MS of silence. Raises EngineError."""
    pcm24 = bytearray(LEAD_MS * BYTES_PER_MS)
    known = any(voice.id == QUESTION_VOICE for voice in tts.voices)
    voice = QUESTION_VOICE if known else tts.default_voice
    synthesis = Synthesis(tts, voice, speed=QUESTION_SPEED, language="en")
    async with aclosing(synthesis.text(question)) as pieces:
        async for piece in pieces:
            pcm24 += piece.audio
    return bytes(pcm24)


async def spoken_sentence(path: Path | None) -> bytes:
    """The sentence in a file, or SENTENCE by the embedded voice, as PCM at 24 kHz.

    Empty if no voice is installed. Raises AudioError.
    """
    if path is not None:
        return await asyncio.to_thread(files.read, path, max_seconds=MAX_SPEECH_SECONDS)
    try:
        async with registry.create("tts", "espeak", {}) as tts:
            return await speak_question(SENTENCE, tts)
    except (SettingsError, EngineError):
        return b""


def missing_parts(turns: list[Turn], answer: bytes) -> list[str]:
    """What a complete conversation has and this one lacks, one sentence each."""
    missing = []
    if not any(text for turn in turns for text in turn.transcripts):
        missing.append("no transcript of the question came")
    if not any(text for turn in turns for text in turn.answers):
        missing.append("no answer came")
    if level_db(answer) < MIN_SPEECH_DB:
        missing.append("the reply has no speech in it")
    return missing


async def _run_demo(options: DemoOptions, screen: Screen, timeouts: Timeouts) -> int:
    main = asyncio.current_task()
    assert main is not None
    with suppress(NotImplementedError):  # Windows, where the console ends both processes
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, main.cancel)
    async with registry.create("tts", "espeak", {}) as tts:
        question = await speak_question(options.question, tts)
    arguments = ["--log-level", "warning"]
    if options.config is not None:
        arguments += ["--config", str(options.config)]
    screen.note("starting a server")
    secret = Secret(secrets.token_hex(32))
    async with start_server(arguments, timeouts, secret) as server:
        grant = Grant(id="demo", expires_at=int(time.time()) + KEY_SECONDS)
        asking = TalkOptions(url=server.url, api_key=TokenMint(secret).issue(grant))
        screen.note(f"asking {server.url}, aloud: {options.question}")
        turns: list[Turn] = []
        questions = Questions((question,))
        problem = await converse(server.url, asking, questions, screen, turns, None, timeouts)
        status = await _report(options, turns, problem, server, screen)
        if options.keep:
            screen.note(f"the server stays at {server.url}; ctrl-C ends it")
            with suppress(asyncio.CancelledError):  # the user ends it
                await server.wait()
                screen.problem(f"the server has ended: {server.output()}")
    return status


async def _report(
    options: DemoOptions, turns: list[Turn], problem: str, server: "ServerProcess", screen: Screen
) -> int:
    """Save the answer, show what is missing, and return the exit status."""
    answer = b"".join(turn.audio for turn in turns)
    await asyncio.to_thread(files.write_wav, options.save, answer)
    seconds = len(answer) / BYTES_PER_MS / 1000
    screen.note(f"wrote {options.save.resolve()}: {seconds:.2f} s at {level_db(answer):.1f} dB")
    missing = missing_parts(turns, answer)
    if problem and not (turns and problem in turns[-1].problems):
        missing.insert(0, problem)
    if not missing:
        return FAILED if any(turn.problems for turn in turns) else ANSWERED
    for sentence in missing:
        screen.problem(sentence)
    screen.note(f"the server printed: {server.output() or 'nothing'}")
    return FAILED


class ServerProcess:
    """A server in a child process, whose output is kept. Made by start_server()."""

    def __init__(self, process: asyncio.subprocess.Process, output: IO[bytes]) -> None:
        self.url = ""
        """Its address, once it listens."""
        self._process = process
        self._output = output

    def output(self) -> str:
        """The last MAX_OUTPUT_BYTES of what it printed."""
        size = self._output.seek(0, os.SEEK_END)
        self._output.seek(max(0, size - MAX_OUTPUT_BYTES))
        return self._output.read().decode(errors="replace").strip()

    async def wait(self) -> None:
        """Wait until the process ends by itself."""
        await self._process.wait()

    async def wait_ready(self, seconds: float) -> None:
        """Wait until the server accepts sessions. Raises SettingsError with its output."""
        try:
            async with asyncio.timeout(seconds), aiohttp.ClientSession() as http:
                while self._process.returncode is None:
                    if await self._is_ready(http):
                        return
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            reason = f"was not ready after {seconds:g} s"
        else:
            reason = f"ended with status {self._process.returncode} before it was ready"
        raise SettingsError(f"the server {reason}; it printed: {self.output() or 'nothing'}")

    async def stop(self, seconds: float) -> None:
        """End it and all processes that it started: SIGTERM, then SIGKILL."""
        try:
            self._signal(signal.SIGTERM)
            async with asyncio.timeout(seconds):
                await self._process.wait()
        except TimeoutError:
            pass
        finally:  # even if this is cancelled
            self._signal(signal.SIGKILL if sys.platform != "win32" else signal.SIGTERM)
        await self._process.wait()

    async def _is_ready(self, http: aiohttp.ClientSession) -> bool:
        if not self.url:
            found = _ADDRESS.search(self.output())
            if found is None:
                return False
            self.url = f"ws://{found[1]}/v1/realtime"
        ready = self.url.replace("ws://", "http://").replace("/v1/realtime", "/ready")
        try:
            async with http.get(ready) as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False

    def _signal(self, number: signal.Signals) -> None:
        """Signal its process group."""
        try:
            if sys.platform == "win32":
                self._process.terminate()
            else:
                os.killpg(self._process.pid, number)
        except (ProcessLookupError, PermissionError):
            pass  # no process is left; macOS raises the second for a group of zombies


@asynccontextmanager
async def start_server(
    arguments: Sequence[str], timeouts: Timeouts, secret: Secret = Secret()
) -> AsyncIterator[ServerProcess]:
    """A server that accepts sessions: `python -m vivavoce serve` with these arguments, on a port
    that the system chooses.

    It serves plain ws, whatever its settings say. `secret` signs its short-lived keys; without one,
    it makes its own. Raises SettingsError. It is stopped when the block ends.
    """
    plain = {"VIVAVOCE_SERVER_TLS_CERTIFICATE": "", "VIVAVOCE_SERVER_TLS_KEY": ""}
    signing = {"VIVAVOCE_SERVER_SECRET": secret.reveal()} if secret else {}
    with tempfile.TemporaryFile() as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "vivavoce", "serve", *arguments),
            *("--host", HOST, "--port", "0"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **plain, **signing},
        )
        server = ServerProcess(process, output)
        try:
            await server.wait_ready(timeouts.start)
            yield server
        finally:
            await server.stop(timeouts.stop)
