"""Long sound cut at its pauses into pieces that a recogniser can take. Arithmetic only, no sound.

The sound itself stays with the caller, who holds it from `needed_from` on.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of sound with speech in it: samples from `start` up to, not including, `end`."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class SegmentSettings:
    """How sound is cut."""

    threshold: float = 0.5
    """A window from this probability on is speech."""
    max_seconds: float = 30.0
    """No segment is longer. Many recognisers take 30 s at a time."""
    pause_seconds: float = 1.0
    """A pause of this length ends a segment; shorter ones are part of it."""
    padding_seconds: float = 0.2
    """Silence that is left on either side of speech, where there is so much."""


class Segmenter:
    """One recording, given as the speech probability of each of its windows.

    Segments come in order, do not overlap, and together hold every window of speech; long silence
    is in none of them. Where speech goes on for too long, it is cut in the longest pause of the
    segment's second half, or, without any, before the window that is least like speech. Bounds are
    multiples of a window: the caller cuts off what lies behind the end of the sound.
    """

    def __init__(
        self,
        window_samples: int = 512,
        sample_rate: int = 16_000,
        settings: SegmentSettings | None = None,
    ) -> None:
        settings = settings or SegmentSettings()
        per_second = sample_rate / window_samples
        self._window_samples = window_samples
        self._threshold = settings.threshold
        # From here on everything is counted in windows.
        self._most = max(4, int(settings.max_seconds * per_second))
        self._padding = min(round(settings.padding_seconds * per_second), self._most // 4)
        self._pause = max(round(settings.pause_seconds * per_second), 2 * self._padding, 1)
        self._fed = 0
        self._ended = 0  # where the last segment ended
        self._open: list[float] = []  # of the segment in progress; its last window is the last fed
        self._quiet = 0  # windows at the end of it

    @property
    def needed_from(self) -> int:
        """No segment to come starts before this sample."""
        behind = len(self._open) or min(self._padding, self._fed - self._ended)
        return (self._fed - behind) * self._window_samples

    def feed(self, probabilities: Iterable[float]) -> list[Segment]:
        """The segments that these windows bring to an end."""
        found = []
        for probability in probabilities:
            self._add(probability)
            if self._open and self._quiet >= self._pause:
                found.append(self._close(len(self._open) - self._quiet + self._padding))
            elif len(self._open) > self._most:
                end = self._cut()
                rest = self._open[end:]
                found.append(self._close(end))
                self._fed -= len(rest)
                for again in rest:  # fewer than fill a segment, or make a pause that ends one
                    self._add(again)
        return found

    def flush(self) -> list[Segment]:
        """The end of the sound: the segment that was in progress, if any."""
        if not self._open:
            return []
        speech = len(self._open) - self._quiet
        return [self._close(min(speech + self._padding, len(self._open)))]

    def _add(self, probability: float) -> None:
        speech = probability >= self._threshold
        if not self._open and speech:
            self._open = [0.0] * min(self._padding, self._fed - self._ended)
        self._fed += 1
        if self._open or speech:
            self._open.append(probability)
            self._quiet = 0 if speech else self._quiet + 1

    def _close(self, end: int) -> Segment:
        start = self._fed - len(self._open)
        self._ended = start + end
        self._open = []
        self._quiet = 0
        return Segment(start * self._window_samples, self._ended * self._window_samples)

    def _cut(self) -> int:
        """After how many windows a segment that has one too many had best end."""
        half = self._most // 2
        longest, begins, run = 0, 0, 0
        for at, probability in enumerate(self._open):
            run = run + 1 if probability < self._threshold else 0
            if at >= half and run >= max(1, longest):
                longest, begins = run, at + 1 - run
        if longest:
            return min(begins + min(self._padding, (longest + 1) // 2), self._most)
        return min(range(half, self._most + 1), key=lambda at: (self._open[at], -at))
