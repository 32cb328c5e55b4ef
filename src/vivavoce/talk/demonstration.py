"""`vivavoce demo`: a server, a spoken question, its answer, and a verdict."""

import asyncio
import secrets
import signal
import time
from contextlib import aclosing, suppress

from rich.console import Console

from vivavoce.audio.formats import BYTES_PER_MS
from vivavoce.engines import registry
from vivavoce.engines.base import TTS
from vivavoce.errors import AudioError, EngineError, SettingsError
from vivavoce.limits.tokens import Grant, TokenMint
from vivavoce.media import files
from vivavoce.runtime.synthesis import Synthesis
from vivavoce.secret import Secret
from vivavoce.talk.command import ANSWERED, FAILED, INTERRUPTED, REFUSED, Plan, converse
from vivavoce.talk.loudness import level_db
from vivavoce.talk.options import DemoOptions, TalkOptions
from vivavoce.talk.screen import Screen
from vivavoce.talk.server_process import ServerProcess, started
from vivavoce.talk.turn import Turn

_KEY_SECONDS = 600  # for a server that has [keys]: this one opens it, and no other
_LEAD_MS = 300  # of silence before the question: a microphone is on before one speaks
_SPEECH_DB = -50.0  # anything that can be heard is louder
# Of the embedded voices the one that the embedded recogniser understands best; not the assistant's.
_VOICE, _SPEED = "alloy", 0.9


def demo(options: DemoOptions, console: Console) -> int:
    """Start a server, ask it a spoken question, show and keep the answer.

    Returns the exit status. 0: a transcript came, an answer came, and the reply has speech in it.
    1: it did not. 2: the server or the voice did not start, or the reply cannot be written.
    130: interrupted. The server is ended in every case. Runs its own event loop.
    """
    screen = Screen(console, timeline=options.timeline)
    try:
        return asyncio.run(_demonstrated(options, screen))
    except (SettingsError, AudioError, EngineError) as exc:
        screen.problem(str(exc))
        return REFUSED
    except (KeyboardInterrupt, asyncio.CancelledError):
        screen.note("interrupted")
        return INTERRUPTED


async def spoken(question: str, tts: TTS) -> bytes:
    """The question as PCM of 24 kHz, after a moment of silence. Raises EngineError."""
    pcm24 = bytearray(_LEAD_MS * BYTES_PER_MS)
    known = any(voice.id == _VOICE for voice in tts.voices)
    voice = _VOICE if known else tts.default_voice
    synthesis = Synthesis(tts, voice, speed=_SPEED, language="en")
    async with aclosing(synthesis.text(question)) as pieces:
        async for piece in pieces:
            pcm24 += piece.audio
    return bytes(pcm24)


def verdict(turns: list[Turn], reply: bytes) -> list[str]:
    """What is missing for a conversation; nothing: it was one."""
    missing = []
    if not any(text for turn in turns for text in turn.heard):
        missing.append("no transcript of the question came")
    if not any(text for turn in turns for text in turn.answers):
        missing.append("no answer came")
    if level_db(reply) < _SPEECH_DB:
        missing.append("the reply has no speech in it")
    return missing


async def _demonstrated(options: DemoOptions, screen: Screen) -> int:
    main = asyncio.current_task()
    assert main is not None
    with suppress(NotImplementedError):  # Windows: there the group of the console ends together
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, main.cancel)
    async with registry.create("tts", "espeak", {}) as tts:
        question = await spoken(options.question, tts)
    arguments = ["--log-level", "warning"]
    if options.config is not None:
        arguments += ["--config", str(options.config)]
    screen.note("starting a server")
    secret = Secret(secrets.token_hex(32))
    async with started(
        arguments,
        start_seconds=options.start_seconds,
        stop_seconds=options.stop_seconds,
        secret=secret,
    ) as server:
        grant = Grant(id="demo", expires_at=int(time.time()) + _KEY_SECONDS)
        talking = TalkOptions(
            url=server.url, api_key=TokenMint(secret).issue(grant), waits=options.waits
        )
        status = await _asked(options, talking, question, server, screen)
        if options.keep:
            screen.note(f"the server stays at {server.url}; ctrl-C ends it")
            with suppress(asyncio.CancelledError):  # the user's way to end it
                await server.ended()
                screen.problem(f"the server has ended: {server.printed()}")
    return status


async def _asked(
    options: DemoOptions,
    talking: TalkOptions,
    question: bytes,
    server: ServerProcess,
    screen: Screen,
) -> int:
    screen.note(f"asking {server.url}, aloud: {options.question}")
    turns: list[Turn] = []
    problem = await converse(talking, Plan(sounds=(question,)), screen, None, turns, server.url)
    reply = b"".join(turn.audio for turn in turns)
    await asyncio.to_thread(files.write_wav, options.save, reply)
    seconds = len(reply) / BYTES_PER_MS / 1000
    screen.note(f"wrote {options.save.resolve()}: {seconds:.2f} s at {level_db(reply):.1f} dB")
    missing = verdict(turns, reply)
    if problem and not (turns and problem in turns[-1].problems):
        missing.insert(0, problem)
    if not missing:
        return FAILED if any(turn.problems for turn in turns) else ANSWERED
    for lack in missing:
        screen.problem(lack)
    screen.note(f"the server printed: {server.printed() or 'nothing'}")
    return FAILED
