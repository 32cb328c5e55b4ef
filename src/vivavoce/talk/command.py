"""`vivavoce talk`: what to ask, one conversation, what to keep of it, and the exit status."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TextIO

from rich.console import Console

from vivavoce.errors import AudioError, SettingsError
from vivavoce.media import files
from vivavoce.talk.address import endpoint
from vivavoce.talk.connection import connected
from vivavoce.talk.conversation import Conversation, opened
from vivavoce.talk.microphone import Headset, Microphone
from vivavoce.talk.options import TalkOptions
from vivavoce.talk.prompt import Prompt
from vivavoce.talk.screen import Screen
from vivavoce.talk.speaker import Speaker
from vivavoce.talk.turn import Turn

ANSWERED, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be asked: sound, or texts, or what is typed at a terminal, or said aloud."""

    sounds: tuple[bytes, ...] = ()
    texts: tuple[str, ...] = ()
    terminal: int | None = None
    """The descriptor of a terminal."""
    mic: bool = False

    @property
    def open_ended(self) -> bool:
        """Whether the user ends it."""
        return self.mic or self.terminal is not None


def talk(options: TalkOptions, console: Console, stdin: TextIO | None = None) -> int:
    """Hold one conversation and show it. Returns the exit status; raises nothing of its own.

    0: every turn was answered. 1: the server failed one, was silent, or closed. 2: bad usage, a
    file that cannot be read or written, or no connection. 130: interrupted while turns were left;
    a user who ends a conversation by hand or microphone gets 0 or 1. Runs its own event loop.
    """
    screen = Screen(console, timeline=options.timeline)
    turns: list[Turn] = []
    try:
        address = endpoint(options.url, options.model)
        plan = planned(options, sys.stdin if stdin is None else stdin)
        with _recording(options) as record:
            status = _run(options, plan, screen, record, turns, address)
        if options.save is not None:
            _save(options, turns, screen)
    except (SettingsError, AudioError) as exc:
        screen.problem(str(exc))
        return REFUSED
    return status


def planned(options: TalkOptions, stdin: TextIO) -> Plan:
    """Read what is to be asked. Blocks. Raises SettingsError and AudioError."""
    given = [bool(options.files), bool(options.texts), options.mic]
    if sum(given) > 1:
        raise SettingsError("--file, --text and --mic exclude each other; give one of them")
    if options.mic:
        return Plan(mic=True)
    if options.files:
        return Plan(sounds=tuple(files.read(path, str(path)) for path in options.files))
    texts = options.texts
    if not texts:
        if stdin.isatty():
            return Plan(terminal=stdin.fileno())
        texts = (stdin.read(),)
    if not all(text.strip() for text in texts):
        raise SettingsError("there is nothing to say; give --file, --text or --mic")
    return Plan(texts=texts)


async def converse(
    options: TalkOptions,
    plan: Plan,
    screen: Screen,
    record: IO[bytes] | None,
    turns: list[Turn],
    address: str,
) -> str:
    """Hold the conversation; `turns` grows as they begin. Returns what broke it off, or "".

    Raises SettingsError: no connection, or no microphone.
    """
    async with connected(address, options.api_key, options.waits) as wire:
        if plan.mic:
            speaker = Speaker()
            async with (
                Microphone(speaker) as microphone,
                opened(wire, screen, options.waits, record, turns) as conversation,
            ):
                problem = await conversation.set_up(options, spoken=True)
                if problem is None:
                    await _by_voice(conversation, microphone, speaker, screen)
        else:
            async with opened(wire, screen, options.waits, record, turns) as conversation:
                problem = await conversation.set_up(options, spoken=bool(plan.sounds))
                if problem is None:
                    await _ask(conversation, plan, screen)
        return problem or conversation.lost


async def _ask(conversation: Conversation, plan: Plan, screen: Screen) -> None:
    for sound in plan.sounds:
        if not conversation.lost:
            await conversation.ask_aloud(sound)
    for text in plan.texts:
        if not conversation.lost:
            await conversation.ask(text)
    if plan.terminal is not None:
        prompt = Prompt(plan.terminal)
        while not conversation.lost:
            screen.prompt()
            line = await conversation.unless_lost(prompt.line())
            if line is None:
                return
            if line:
                await conversation.ask(line)


async def _by_voice(
    conversation: Conversation,
    microphone: Microphone,
    speaker: Speaker,
    screen: Screen,
) -> None:
    headset = Headset(conversation, speaker)
    conversation.ear = headset.hear
    screen.note("speak; ctrl-C ends. Wear a headset: a loudspeaker interrupts itself.")
    async with asyncio.TaskGroup() as tasks:
        speaking = tasks.create_task(headset.speak(microphone))
        while not conversation.lost:
            await conversation.overhear()
        speaking.cancel()


def _run(
    options: TalkOptions,
    plan: Plan,
    screen: Screen,
    record: IO[bytes] | None,
    turns: list[Turn],
    address: str,
) -> int:
    try:
        problem = asyncio.run(converse(options, plan, screen, record, turns, address))
    except KeyboardInterrupt:
        screen.note("interrupted")
        if not plan.open_ended:
            return INTERRUPTED
        problem = ""
    if problem and not (turns and problem in turns[-1].problems):
        screen.problem(problem)
    return FAILED if problem or any(turn.problems for turn in turns) else ANSWERED


@contextmanager
def _recording(options: TalkOptions) -> Iterator[IO[bytes] | None]:
    if options.events is None:
        yield None
        return
    try:
        file = options.events.open("wb", buffering=0)  # a full disk is told at once
    except OSError as exc:
        raise SettingsError(
            f"--events {options.events} cannot be written: {exc.strerror}; name another file"
        ) from exc
    with file:
        yield file


def _save(options: TalkOptions, turns: list[Turn], screen: Screen) -> None:
    assert options.save is not None
    sound = b"".join(turn.audio for turn in turns)
    files.write_wav(options.save, sound)
    screen.note(f"wrote {options.save}")
