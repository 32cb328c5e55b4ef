"""Which words of a growing transcript will not change any more. No clock, no decoder.

A recogniser revises what it has heard: a later hypothesis may replace words of an earlier one,
mostly the newest. A promise once given is kept by time: the words promised, and those of the
newest hypothesis that are said after them.
"""

from collections.abc import Sequence

from vivavoce.engines.pocketsphinx.frames import HeardWord


class Wording:
    """The words of one utterance, hypothesis after hypothesis."""

    def __init__(self, *, lag_ms: int, agreeing: int) -> None:
        """Promise words that ended `lag_ms` ago and stood in `agreeing` hypotheses in a row."""
        self._lag_ms = lag_ms
        self._agreeing = agreeing
        self._promised: tuple[HeardWord, ...] = ()
        self._recent: list[tuple[HeardWord, ...]] = []

    @property
    def stable(self) -> int:
        """The number of words promised."""
        return len(self._promised)

    def hear(self, words: Sequence[HeardWord], now_ms: int) -> tuple[HeardWord, ...]:
        """Take the hypothesis for the audio up to now_ms; return it with all promises kept."""
        kept = self._keep(words)
        self._recent = [*self._recent, kept][-self._agreeing :]
        if len(self._recent) == self._agreeing:
            self._promise(kept, now_ms - self._lag_ms)
        return kept

    def settle(self, words: Sequence[HeardWord]) -> tuple[HeardWord, ...]:
        """Take the last hypothesis of this stretch of audio; promise all of it."""
        self._promised = self._keep(words)
        self._recent = []
        return self._promised

    def _keep(self, words: Sequence[HeardWord]) -> tuple[HeardWord, ...]:
        promised = self._promised
        if [w.text for w in words[: len(promised)]] == [w.text for w in promised]:
            return (*promised, *words[len(promised) :])
        end = promised[-1].end_ms
        # A border may move by some frames, so a word belongs where its middle is.
        later = (w for w in words if w.start_ms + w.end_ms > 2 * end)
        return (
            *promised,
            *(HeardWord(w.text, max(w.start_ms, end), w.end_ms) for w in later),
        )

    def _promise(self, words: tuple[HeardWord, ...], until_ms: int) -> None:
        count = len(self._promised)
        for i in range(count, len(words)):
            texts = {older[i].text if i < len(older) else None for older in self._recent}
            if len(texts) > 1 or words[i].end_ms > until_ms:
                break
            count = i + 1
        self._promised = words[:count]
