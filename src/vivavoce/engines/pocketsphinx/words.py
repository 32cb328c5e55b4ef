"""The words of a growing transcript, and which of them will not change any more. Pure.

A recogniser revises its hypothesis: a later one may replace words of an earlier one, mostly the
newest. Words that were reported as stable are kept by time: those words, and the words of the
newest hypothesis that end after them.
"""

from collections.abc import Sequence

from vivavoce.engines.worker import HeardWord


class StableWords:
    """The words of one utterance, hypothesis after hypothesis."""

    def __init__(self, *, lag_ms: int, agreeing: int) -> None:
        """Words are stable that ended `lag_ms` ago and were in `agreeing` hypotheses in a row."""
        self._lag_ms = lag_ms
        self._agreeing = agreeing
        self._kept: tuple[HeardWord, ...] = ()
        self._recent: list[tuple[HeardWord, ...]] = []

    @property
    def stable(self) -> int:
        """The number of stable words."""
        return len(self._kept)

    def update(self, words: Sequence[HeardWord], now_ms: int) -> tuple[HeardWord, ...]:
        """Take the hypothesis for the audio up to now_ms; return it with the stable words."""
        kept = self._with_kept(words)
        self._recent = [*self._recent, kept][-self._agreeing :]
        if len(self._recent) == self._agreeing:
            self._settle_until(kept, now_ms - self._lag_ms)
        return kept

    def settle(self, words: Sequence[HeardWord]) -> tuple[HeardWord, ...]:
        """Take the last hypothesis of this part of the audio; all of it is stable."""
        self._kept = self._with_kept(words)
        self._recent = []
        return self._kept

    def _with_kept(self, words: Sequence[HeardWord]) -> tuple[HeardWord, ...]:
        kept_words = self._kept
        if [w.text for w in words[: len(kept_words)]] == [w.text for w in kept_words]:
            return (*kept_words, *words[len(kept_words) :])
        end = kept_words[-1].end_ms
        # A border may move by some frames, so a word belongs where its middle is.
        later = (w for w in words if w.start_ms + w.end_ms > 2 * end)
        return (
            *kept_words,
            *(HeardWord(w.text, max(w.start_ms, end), w.end_ms) for w in later),
        )

    def _settle_until(self, words: tuple[HeardWord, ...], until_ms: int) -> None:
        count = len(self._kept)
        for i in range(count, len(words)):
            texts = {older[i].text if i < len(older) else None for older in self._recent}
            if len(texts) > 1 or words[i].end_ms > until_ms:
                break
            count = i + 1
        self._kept = words[:count]
