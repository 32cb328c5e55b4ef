"""`vivavoce talk`: reads the questions, holds one conversation, saves its results, and returns the
exit status."""

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, TextIO

from rich.console import Console

from vivavoce.errors import AudioError, SettingsError
from vivavoce.media import files
from vivavoce.talk.audio import AudioDevices, LiveAudio, PlaybackQueue
from vivavoce.talk.client import connect, endpoint
from vivavoce.talk.conversation import TalkConversation, open_conversation
from vivavoce.talk.options import TalkOptions, Timeouts
from vivavoce.talk.screen import Screen
from vivavoce.talk.turn import Turn

ANSWERED, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130
"""Exit statuses."""
MAX_LINE_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Questions:
    """The questions: recordings, texts, lines typed at a terminal, or the microphone."""

    recordings: tuple[bytes, ...] = ()
    texts: tuple[str, ...] = ()
    terminal: int | None = None
    """The file descriptor of a terminal."""
    mic: bool = False

    @property
    def open_ended(self) -> bool:
        """Whether the user ends the conversation."""
        return self.mic or self.terminal is not None


class LineReader:
    """Reads a terminal line by line, without a thread. Cancelling line() loses nothing."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._typed = b""
        self._ended = False

    async def line(self) -> str | None:
        """The next line; None at the end of the input. Raises SettingsError on Windows, where a
        terminal cannot be watched."""
        while b"\n" not in self._typed and not self._ended:
            await self._readable()
            more = os.read(self._descriptor, MAX_LINE_BYTES)
            self._typed += more
            self._ended = not more or len(self._typed) > MAX_LINE_BYTES
        if self._ended and not self._typed:
            return None
        line, _, self._typed = self._typed.partition(b"\n")
        return line.decode(errors="replace").strip()

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        try:
            loop.add_reader(self._descriptor, ready.set)
        except NotImplementedError as exc:
            raise SettingsError("this terminal cannot be read; give the words by --text") from exc
        try:
            await ready.wait()
        finally:
            loop.remove_reader(self._descriptor)


def talk(
    options: TalkOptions,
    console: Console,
    stdin: TextIO | None = None,
    timeouts: Timeouts = Timeouts(),
) -> int:
    """Hold one conversation and show it. Returns the exit status.

    0: every turn was answered. 1: the server failed a turn, sent nothing, or closed. 2: wrong
    usage, a file that cannot be read or written, or no connection. 130: interrupted before all
    turns were done; a conversation that the user ends gets 0 or 1. Runs an event loop.
    """
    screen = Screen(console, timeline=options.timeline)
    turns: list[Turn] = []
    try:
        address = endpoint(options.url, options.model)
        questions = read_questions(options, sys.stdin if stdin is None else stdin)
        with _open_record(options.events) as record:
            conversation = converse(address, options, questions, screen, turns, record, timeouts)
            try:
                problem = asyncio.run(conversation)
            except KeyboardInterrupt:
                screen.note("interrupted")
                if not questions.open_ended:
                    return _save(options.save, turns, screen, INTERRUPTED)
                problem = ""
        if problem and not (turns and problem in turns[-1].problems):
            screen.problem(problem)
        failed = problem or any(turn.problems for turn in turns)
        return _save(options.save, turns, screen, FAILED if failed else ANSWERED)
    except (SettingsError, AudioError) as exc:
        screen.problem(str(exc))
        return REFUSED


def read_questions(options: TalkOptions, stdin: TextIO) -> Questions:
    """Read the files or the standard input. Blocks. Raises SettingsError and AudioError."""
    given = [bool(options.files), bool(options.texts), options.mic]
    if sum(given) > 1:
        raise SettingsError("--file, --text and --mic exclude each other; give one of them")
    if options.mic:
        return Questions(mic=True)
    if options.files:
        return Questions(tuple(files.read(path, str(path)) for path in options.files))
    texts = options.texts
    if not texts:
        if stdin.isatty():
            return Questions(terminal=stdin.fileno())
        texts = (stdin.read(),)
    if not all(text.strip() for text in texts):
        raise SettingsError("no input; give --file, --text or --mic")
    return Questions(texts=texts)


async def converse(
    address: str,
    options: TalkOptions,
    questions: Questions,
    screen: Screen,
    turns: list[Turn],
    record: IO[bytes] | None,
    timeouts: Timeouts,
) -> str:
    """Hold the conversation; each turn is added to `turns` when it begins. Returns the problem that
    ended the conversation early, or "".

    Raises SettingsError: no connection, or no microphone.
    """
    spoken = questions.mic or bool(questions.recordings)
    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(connect(address, options.api_key, timeouts))
        playback = PlaybackQueue()
        devices = AudioDevices(playback)
        if questions.mic:
            await stack.enter_async_context(devices)
        conversation = await stack.enter_async_context(
            open_conversation(connection, screen, timeouts, record, turns)
        )
        problem = await conversation.set_up(options, spoken=spoken)
        if problem is None and questions.mic:
            await _talk_by_microphone(conversation, devices, playback, screen)
        elif problem is None:
            await _ask_all(conversation, questions, screen)
    return problem or conversation.lost


async def _ask_all(conversation: TalkConversation, questions: Questions, screen: Screen) -> None:
    for recording in questions.recordings:
        if not conversation.lost:
            await conversation.ask_aloud(recording)
    for text in questions.texts:
        if not conversation.lost:
            await conversation.ask(text)
    if questions.terminal is not None:
        reader = LineReader(questions.terminal)
        while not conversation.lost:
            screen.prompt()
            line = await conversation.unless_lost(reader.line())
            if line is None:
                return
            if line:
                await conversation.ask(line)


async def _talk_by_microphone(
    conversation: TalkConversation, devices: AudioDevices, playback: PlaybackQueue, screen: Screen
) -> None:
    audio = LiveAudio(conversation, playback)
    conversation.on_event = audio.on_event
    screen.note("speak; ctrl-C ends. Wear a headset: a loudspeaker interrupts itself.")
    async with asyncio.TaskGroup() as tasks:
        sending = tasks.create_task(audio.send_all(devices))
        while not conversation.lost:
            await conversation.microphone_turn()
        sending.cancel()


@contextmanager
def _open_record(path: Path | None) -> Iterator[IO[bytes] | None]:
    if path is None:
        yield None
        return
    try:
        file = path.open("wb", buffering=0)  # so that a full disk is noticed at once
    except OSError as exc:
        raise SettingsError(
            f"--events {path} cannot be written: {exc.strerror}; name another file"
        ) from exc
    with file:
        yield file


def _save(path: Path | None, turns: list[Turn], screen: Screen, status: int) -> int:
    """Write the audio of all answers. Returns `status`. Raises AudioError."""
    if path is not None:
        files.write_wav(path, b"".join(turn.audio for turn in turns))
        screen.note(f"wrote {path}")
    return status
