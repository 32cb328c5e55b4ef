"""One text on its way to sound: what espeak is still to read, and what nobody took yet. No I/O."""

import asyncio
import itertools
from collections import deque
from collections.abc import Iterator

import msgspec

from vivavoce.engines.base import Mark, Speech
from vivavoce.engines.espeak.library import Manner
from vivavoce.engines.espeak.text import WordFinder
from vivavoce.errors import EngineError

_numbers = itertools.count(1)


class Order(msgspec.Struct, frozen=True):
    """What the espeak process is told; see process.py."""

    speak: int
    text: str
    voice: str
    words_per_minute: int
    pitch: int
    pitch_range: int
    room: int


class Reply(msgspec.Struct, frozen=True):
    """What it answers. `next`: where in the order's text to go on, if it stopped for want of room.

    `words` are (offset in the order's text, length, sample since the order).
    """

    number: int
    bytes: int = 0
    words: tuple[tuple[int, int, int], ...] = ()
    ended: bool = False
    next: int | None = None
    error: str | None = None


class Utterance:
    """A text, and a buffer of its sound between one producer and one consumer.

    It holds `room` samples, and at most one clause more; then it pauses until half is taken.
    """

    def __init__(self, text: str, manner: Manner, room: int) -> None:
        self.number = next(_numbers)
        self._text = text
        self._manner = manner
        self._room = room
        self._words = WordFinder(text)
        self._reached = _Reached()
        self._pieces: deque[Speech] = deque()
        self._untaken = 0
        self.ended = False
        self._error: EngineError | None = None
        self._news = asyncio.Event()

    def resume(self) -> bool:
        """True, once for each pause, as soon as enough has been taken: submit it again."""
        due = self._reached.paused and not self.ended and self._untaken <= self._room // 2
        if due:
            self._reached.paused = False
        return due

    def order(self) -> Order:
        """The order to read, from where it paused."""
        manner = self._manner
        return Order(
            speak=self.number,
            text=self._text[self._reached.offset :],
            voice=manner.voice,
            words_per_minute=manner.words_per_minute,
            pitch=manner.pitch,
            pitch_range=manner.pitch_range,
            room=max(1, self._room - self._untaken),
        )

    def add(self, reply: Reply, audio: bytes) -> None:
        """Take in a reply to the last order. After an end it is dropped."""
        if self.ended:
            return
        if audio or reply.words:
            self._pieces.append(Speech(audio, tuple(self._marks(reply))))
            self._untaken += len(audio) // 2
            self._reached.samples += len(audio) // 2
        if reply.error is not None:
            self.end(EngineError(reply.error))
        elif reply.ended and reply.next is None:
            self.end()
        elif reply.ended and reply.next is not None:
            self._reached.pause(reply.next)
        self._news.set()

    def end(self, error: EngineError | None = None) -> None:
        """Nothing more will be added; an error is raised when the sound before it is taken."""
        if not self.ended:
            self.ended = True
            self._error = error
        self._news.set()

    async def take(self) -> Speech | None:
        """The next piece; None at the end. Raises the EngineError that ended it."""
        while not self._pieces and not self.ended:
            self._news.clear()
            await self._news.wait()
        if self._pieces:
            piece = self._pieces.popleft()
            self._untaken -= len(piece.audio) // 2
            return piece
        if self._error is not None:
            raise self._error
        return None

    def _marks(self, reply: Reply) -> Iterator[Mark]:
        for position, length, sample in reply.words:
            if word := self._words.find(self._reached.offset + position, length):
                yield Mark(self._reached.start + sample, *word)


class _Reached:
    """How far the reading has come: text in characters, sound in samples of the utterance."""

    def __init__(self) -> None:
        self.offset = 0  # of the text of the last order
        self.start = 0  # sample at which the last order began
        self.samples = 0
        self.paused = False

    def pause(self, characters: int) -> None:
        self.offset += characters
        self.start = self.samples
        self.paused = True
