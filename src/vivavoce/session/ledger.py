"""What was said in an answer, and at which of its samples: the basis of "what was heard"."""

import msgspec

from vivavoce.session.cascade.input_buffer import BYTES_PER_SAMPLE
from vivavoce.session.facts import SpokenWord


class SavedLedger(msgspec.Struct, frozen=True):
    """A ledger as it is written down."""

    audio: bytes
    words: tuple[tuple[str, int], ...]
    samples: int
    heard: int | None


class Ledger:
    """Words and the sample of the answer at which each begins; 24 kHz."""

    def __init__(self) -> None:
        self.audio = bytearray()  # all of it, or nothing once it was given up; `samples` stays
        self.samples = 0
        self.heard: int | None = None  # samples that reached the ear; None: all of them
        self._words: list[SpokenWord] = []

    def add(self, audio: bytes, words: tuple[SpokenWord, ...]) -> None:
        if len(self.audio) == self.samples * BYTES_PER_SAMPLE:
            self.audio += audio
        self.samples += len(audio) // BYTES_PER_SAMPLE
        self._words.extend(words)

    @property
    def text(self) -> str:
        """All that was said."""
        return "".join(word.text for word in self._words)

    def cut(self, heard: int) -> None:
        """Only the first `heard` samples reached the ear."""
        self.heard = min(heard, self.samples)

    @property
    def heard_text(self) -> str:
        """The words that were heard, up to the first of whose sound less than half was."""
        if self.heard is None:
            return self.text
        ends = [word.at for word in self._words[1:]] + [self.samples]
        text = ""
        for word, end in zip(self._words, ends, strict=False):
            if word.at + max(1, (end - word.at) / 2) > self.heard:
                break
            text += word.text
        return text.rstrip()

    @property
    def heard_audio(self) -> bytes:
        end = None if self.heard is None else self.heard * BYTES_PER_SAMPLE
        return bytes(self.audio[:end])

    def save(self) -> SavedLedger:
        words = tuple((word.text, word.at) for word in self._words)
        return SavedLedger(bytes(self.audio), words, self.samples, self.heard)

    @classmethod
    def load(cls, saved: SavedLedger) -> "Ledger":
        ledger = cls()
        ledger.audio = bytearray(saved.audio)
        ledger.samples = saved.samples
        ledger.heard = saved.heard
        ledger._words = [SpokenWord(text, at) for text, at in saved.words]
        return ledger
