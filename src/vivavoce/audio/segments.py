"""Where the speech is in a sound, by its probability in each window. Arithmetic only, no sound.

A Segmenter cuts long sound at its pauses, while it comes, into pieces that a recogniser can take;
the sound itself stays with the caller, who holds it from `needed_from` on. speech_segments() finds
the speech of a whole recording.
"""

from collections.abc import Iterable, Iterator, Sequence

import msgspec


class Segment(msgspec.Struct, frozen=True):
    """A stretch of sound with speech in it: samples from `start` up to, not including, `end`."""

    start: int
    end: int


class SegmentSettings(msgspec.Struct, frozen=True):
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


CUT_PAUSE_SECONDS = 0.1
"""Speech that is too long is cut in a pause of this length, as Silero's own function does."""


class SpeechRules(msgspec.Struct, frozen=True):
    """What is speech in a recording. The defaults are those of speaches."""

    threshold: float = 0.75
    """A window from this probability on begins speech."""
    silence_threshold: float | None = None
    """Below it a window is silence; between the two it is what the window before it was. None:
    0.15 below `threshold`."""
    min_speech_seconds: float = 0.0
    max_speech_seconds: float | None = None
    min_silence_seconds: float = 1.0
    padding_seconds: float = 0.0

    @property
    def silent_below(self) -> float:
        if self.silence_threshold is None:
            return max(self.threshold - 0.15, 0.01)
        return min(self.silence_threshold, self.threshold)


def speech_segments(
    probabilities: Sequence[float],
    rules: SpeechRules,
    *,
    samples: int,
    window_samples: int = 512,
    sample_rate: int = 16_000,
) -> list[Segment]:
    """The speech of a recording of `samples` samples, in order, without overlaps.

    probabilities: of each of its windows, the last of which may be incomplete.
    """
    speech = list(_speech_flags(probabilities, rules))
    silence = max(1, round(rules.min_silence_seconds * sample_rate / window_samples))
    most = len(speech)
    if rules.max_speech_seconds is not None:
        most = max(1, int(rules.max_speech_seconds * sample_rate / window_samples))
    pause = max(1, round(CUT_PAUSE_SECONDS * sample_rate / window_samples))
    found = [
        Segment(start * window_samples, min(end * window_samples, samples))
        for run in _runs(speech, silence)
        for start, end in _parts(speech, *run, most, pause)
    ]
    least = max(1, round(rules.min_speech_seconds * sample_rate))
    return _padded(
        [segment for segment in found if segment.end - segment.start >= least],
        round(rules.padding_seconds * sample_rate),
        samples,
    )


def _speech_flags(probabilities: Iterable[float], rules: SpeechRules) -> Iterator[bool]:
    """Whether each window is speech, with the hysteresis of the two thresholds."""
    speech = False
    for probability in probabilities:
        speech = probability >= (rules.silent_below if speech else rules.threshold)
        yield speech


def _runs(speech: Sequence[bool], silence: int) -> Iterator[tuple[int, int]]:
    """Windows of speech, start and end; less than `silence` windows between them are part of it."""
    start = end = -1
    for at, is_speech in enumerate(speech):
        if is_speech:
            if start < 0:
                start = at
            elif at - end >= silence:
                yield start, end
                start = at
            end = at + 1
    if start >= 0:
        yield start, end


def _parts(
    speech: Sequence[bool], start: int, end: int, most: int, pause: int
) -> Iterator[tuple[int, int]]:
    """A run in parts of at most `most` windows, cut in the last pause that a part has."""
    while end - start > most:
        quiet, part_end = 0, start + most
        for at in range(start + most - 1, start, -1):
            quiet = 0 if speech[at] else quiet + 1
            if quiet >= pause and speech[at - 1]:
                part_end = at
                break
        yield start, part_end
        start = next(at for at in range(part_end, end) if speech[at])
    yield start, end


def _padded(found: list[Segment], padding: int, samples: int) -> list[Segment]:
    """With `padding` samples on either side, half of a shorter silence between two segments."""
    made = []
    for i, segment in enumerate(found):
        before = segment.start - (found[i - 1].end if i else 0)
        after = (found[i + 1].start if i + 1 < len(found) else samples) - segment.end
        left = min(padding, before // 2 if i else before)
        right = min(padding, after - after // 2 if i + 1 < len(found) else after)
        made.append(Segment(segment.start - left, segment.end + right))
    return made
