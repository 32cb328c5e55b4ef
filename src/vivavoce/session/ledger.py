"""The words of an answer, and the sample at which each begins. What was heard follows from that."""

import msgspec

from vivavoce.audio.formats import BYTES_PER_SAMPLE
from vivavoce.session.facts import SpokenWord

MAX_PIECES = 500
"""Pieces of audio that are not joined to the rest yet."""


class SavedLedger(msgspec.Struct, frozen=True):
    """A ledger in a checkpoint: without audio."""

    words: tuple[SpokenWord, ...]
    samples: int
    heard: int | None


class Ledger:
    """Words and the sample of the answer at which each begins; 24 kHz."""

    def __init__(self) -> None:
        self._audio = bytearray()
        # after _audio: a long array is not extended for each, and a frame that is kept for clients
        # that come back shares its audio
        self._pieces: list[bytes] = []
        self.samples = 0
        self.audio_bytes = 0
        """The audio that is kept; 0 once it was dropped, while `samples` stays."""
        self.heard: int | None = None  # samples that were played; None: all of them
        self._words: list[SpokenWord] = []
        # the last result of save(): most ledgers do not change any more
        self._saved: SavedLedger | None = None

    @property
    def audio(self) -> bytearray:
        """The audio that is kept."""
        self._join()
        return self._audio

    def add(self, audio: bytes, words: tuple[SpokenWord, ...]) -> None:
        if self.audio_bytes == self.samples * BYTES_PER_SAMPLE:  # else it was dropped
            if len(self._pieces) == MAX_PIECES:
                self._join()
            self._pieces.append(audio)
            self.audio_bytes += len(audio)
        self.samples += len(audio) // BYTES_PER_SAMPLE
        if words:
            self._words.extend(words)

    def drop_audio(self) -> None:
        """Keep only the words and the lengths."""
        self._pieces.clear()
        self.audio_bytes = 0
        self._audio = bytearray()  # not clear(): of a large block that would keep a page

    def _join(self) -> None:
        self._audio += b"".join(self._pieces)
        self._pieces.clear()

    @property
    def text(self) -> str:
        """All words of the answer."""
        return "".join(word.text for word in self._words)

    def words_within(self, begin: int, end: int) -> str:
        """The words that begin between these samples."""
        return "".join(word.text for word in self._words if begin <= word.at < end)

    def cut(self, heard: int) -> None:
        """Only the first `heard` samples were played."""
        self.heard = min(heard, self.samples)

    @property
    def heard_text(self) -> str:
        """The words that were heard: a word counts if at least half of its audio was played."""
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
    def unheard_text(self) -> str:
        """The words that were not heard."""
        return self.text[len(self.heard_text) :].strip()

    @property
    def heard_audio(self) -> bytes:
        end = None if self.heard is None else self.heard * BYTES_PER_SAMPLE
        return bytes(self.audio[:end])

    def save(self, unplayed: int = 0) -> SavedLedger:
        """unplayed: samples at its end that are still to be played."""
        heard, saved = self.heard, self._saved
        if unplayed:
            heard = min(self.samples - unplayed, self.samples if heard is None else heard)
        if (
            saved is None
            or len(saved.words) != len(self._words)
            or (saved.samples, saved.heard) != (self.samples, heard)
        ):
            saved = self._saved = SavedLedger(tuple(self._words), self.samples, heard)
        return saved

    @classmethod
    def load(cls, saved: SavedLedger) -> "Ledger":
        ledger = cls()
        ledger.samples = saved.samples
        ledger.heard = saved.heard
        ledger._words = list(saved.words)
        return ledger
