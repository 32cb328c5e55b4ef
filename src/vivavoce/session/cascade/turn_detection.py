"""When a user's turn begins and ends, in samples of audio. No clock.

The same recording gives the same edges at whatever speed it comes. A turn begins with two windows
in a row at or above the threshold, so that a click is not a turn; it ends when the windows have
stayed below the threshold less 0.15 (the hysteresis that Silero's authors use) for long enough.
"""

import math
from dataclasses import dataclass
from enum import Enum
from typing import assert_never

from vivavoce.audio.formats import to_samples
from vivavoce.protocol.session import Eagerness, SemanticVad, ServerVad, TurnDetection

WINDOW = 768  # samples at 24 kHz: 32 ms, the window of Silero
ONSET_WINDOWS = 2
HYSTERESIS = 0.15
FLOOR = 0.01
PAUSE = to_samples(200)  # a silence after which the words are scored
SEMANTIC_PREFIX_MS = 300
SEMANTIC_THRESHOLD = 0.5


class Edge(Enum):
    """What a window changed."""

    STARTED = "started"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class PauseRules:
    """Silence, in samples, after which a turn that sounds finished or unfinished ends."""

    finished: int
    unfinished: int

    def wait(self, likelihood: float) -> int:
        """Between the two on a geometric scale: likelihood 1 gives the one, 0 the other."""
        share = min(1.0, max(0.0, likelihood))
        return int(self.unfinished * math.pow(self.finished / self.unfinished, share))


PAUSE_RULES: dict[Eagerness, PauseRules] = {
    "low": PauseRules(to_samples(800), to_samples(8_000)),
    "medium": PauseRules(to_samples(400), to_samples(4_000)),
    "auto": PauseRules(to_samples(400), to_samples(4_000)),
    "high": PauseRules(to_samples(256), to_samples(2_000)),
}


class TurnDetector:
    """Turns probabilities of speech, one a window, into the edges of a turn."""

    def __init__(self, settings: TurnDetection) -> None:
        self.settings = settings
        self.speaking = False
        self.onset = 0
        self.silence = 0
        self._loud = 0
        self._needed = self._default_silence()

    @property
    def threshold(self) -> float:
        match self.settings:
            case ServerVad(threshold=threshold):
                return threshold
            case SemanticVad():
                return SEMANTIC_THRESHOLD
            case _:
                assert_never(self.settings)

    @property
    def prefix(self) -> int:
        """Samples kept from before the onset."""
        match self.settings:
            case ServerVad(prefix_padding_ms=ms):
                return to_samples(ms)
            case SemanticVad():
                return to_samples(SEMANTIC_PREFIX_MS)
            case _:
                assert_never(self.settings)

    @property
    def needs_score(self) -> bool:
        """Whether the likelihood that the turn is finished matters now."""
        semantic = isinstance(self.settings, SemanticVad)
        return semantic and self.speaking and self.silence >= PAUSE

    @property
    def lacking(self) -> int:
        """Samples of silence that would end the turn."""
        return max(0, self._needed - self.silence)

    def apply_settings(self, settings: TurnDetection) -> None:
        """From now on these hold; a turn under way goes on."""
        if settings != self.settings:
            self.settings = settings
            self._needed = self._default_silence()

    def feed(self, at: int, speech: float) -> Edge | None:
        """Take the window that begins at `at`."""
        if not self.speaking:
            return self._wait_for_onset(at, speech)
        if speech >= max(self.threshold - HYSTERESIS, FLOOR):
            self.silence = 0
            self._needed = self._default_silence()
            return None
        self.silence += WINDOW
        return self.end_if_silent()

    def set_likelihood(self, likelihood: float) -> None:
        """Adjust the silence that ends the turn. Call end_if_silent() next."""
        if isinstance(self.settings, SemanticVad) and self.needs_score:
            self._needed = PAUSE_RULES[self.settings.eagerness].wait(likelihood)

    def end_if_silent(self) -> Edge | None:
        """End the turn if it has been silent for long enough."""
        if self.speaking and self.silence >= self._needed:
            self.reset()
            return Edge.STOPPED
        return None

    def resume(self, at: int) -> None:
        """A turn is under way already."""
        self.onset = at
        self.speaking = True

    def reset(self) -> None:
        """Nobody speaks."""
        self.speaking = False
        self.silence = self._loud = 0
        self._needed = self._default_silence()

    def _wait_for_onset(self, at: int, speech: float) -> Edge | None:
        if speech < max(self.threshold, FLOOR):
            self._loud = 0
            return None
        if self._loud == 0:
            self.onset = at
        self._loud += 1
        if self._loud < ONSET_WINDOWS:
            return None
        self.speaking = True
        return Edge.STARTED

    def _default_silence(self) -> int:
        match self.settings:
            case ServerVad(silence_duration_ms=ms):
                return max(WINDOW, to_samples(ms))
            case SemanticVad(eagerness=eagerness):
                return PAUSE_RULES[eagerness].unfinished
            case _:
                assert_never(self.settings)
