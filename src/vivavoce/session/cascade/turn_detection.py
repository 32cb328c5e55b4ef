"""When a user's turn begins and ends, in samples of audio. No clock.

The same recording gives the same edges at whatever speed it comes. A turn begins with two windows
in a row at or above the threshold, so that a click is not a turn. The network is late on soft
onsets, so evidence is summed, too: of each window how far its probability is above or below RISING,
and, where it may be speech, how far its level is above that of the windows before it. The sum is
multiplied by EVIDENCE_KEPT for each window, and begins a turn when it reaches 1. The network takes
an "s" or "sh" for noise, so after such a sound one window from RISING on begins a turn. A turn ends
when the windows have stayed below the threshold less 0.15 (the hysteresis that Silero's authors
use) for as many whole windows as fit in the silence that is asked for.
"""

from enum import Enum
from typing import TypeAlias, assert_never

import numpy as np
from numpy.typing import NDArray

from vivavoce.audio.formats import to_samples
from vivavoce.protocol.session import SemanticVad, ServerVad, TurnDetection
from vivavoce.session.endpointing import PAUSE_RULES

Samples: TypeAlias = NDArray[np.int16]
Numbers: TypeAlias = NDArray[np.floating]

WINDOW = 768  # samples at 24 kHz: 32 ms, the window of Silero
ONSET_WINDOWS = 2
HYSTERESIS = 0.15
RISING = 0.25  # below the usual threshold of 0.5; it moves with the threshold of the client
MIN_RISING, MIN_STARTING = (
    0.4,
    0.57,
)  # from this probability on the level of a window counts, and it may begin a turn
RISING_WEIGHT, LEVEL_WEIGHT = 0.8, 0.7
# a rise counts from the first value on, and fully with the second more
MIN_RISE_DB, RISE_SPAN_DB = 9.0, 17.0
MAX_FALL = 0.6  # subtracted from the evidence for each window
EVIDENCE_KEPT = 0.6
# windows before the one measured; the rise is counted from the lowest level among them
RISE_WINDOWS = 9
# a window hisses if this share of its samples differs in sign from the one before
MIN_CROSSINGS = 0.35
HISS_WINDOWS, MIN_HISSING = 3, 2  # of the windows before so many are looked at, and so many hiss
MIN_LEVEL = 10 ** (-66 / 20) * 32768  # root mean square below which audio is silence
FLOOR = 0.01
PAUSE = to_samples(160)  # length of a silence after which the words and the sound are scored
SEMANTIC_PREFIX_MS = 300
SEMANTIC_THRESHOLD = 0.5


class Edge(Enum):
    """What changed with a window."""

    STARTED = "started"
    STOPPED = "stopped"


class TurnDetector:
    """Turns the probability of speech of each window into the edges of a turn."""

    settings: TurnDetection
    threshold: float
    """From this probability on a window is speech."""
    prefix: int
    """Samples kept from before the onset."""

    def __init__(self, settings: TurnDetection) -> None:
        self._use(settings)
        self.speaking = False
        self.onset = 0
        self.silence = 0
        self.waited = 0
        """The silence that ended the last turn."""
        self._loud = 0
        self._evidence = 0.0
        self._evidence_from = 0
        self._loud_from = 0
        self._needed = self._default_silence()

    @property
    def pausing(self) -> bool:
        """Whether the turn may be over: it has been silent long enough to be scored."""
        return self.speaking and self.silence >= PAUSE

    @property
    def may_speak(self) -> bool:
        """Whether the user speaks, or the last window was loud enough to begin a turn."""
        return self.speaking or self._loud > 0

    @property
    def is_semantic(self) -> bool:
        """Whether the likelihood of the end of the turn is used now."""
        return isinstance(self.settings, SemanticVad)

    @property
    def lacking(self) -> int:
        """Samples of silence that would end the turn."""
        return max(0, self._needed - self.silence)

    def apply_settings(self, settings: TurnDetection) -> None:
        """Use these settings from now on; an open turn continues."""
        if settings != self.settings:
            self._use(settings)
            self._needed = self._default_silence()

    def feed(
        self, at: int, speech: float, rise: float = 0.0, *, hissed: bool = False
    ) -> Edge | None:
        """Take the window that begins at `at`.

        rise, hissed: of the audio up to its end, and before it; see rise_db() and hisses(). They
        count outside a turn.
        """
        if not self.speaking:
            return self._wait_for_onset(at, speech, rise, hissed=hissed)
        if speech >= self._going_on:
            self.silence = 0
            self._needed = self._default_silence()
            return None
        self.silence += WINDOW
        return self.end_if_silent()

    def goes_on(self, speech: float) -> bool:
        """Whether a window would change nothing: silence goes on, or the user goes on speaking."""
        if self.speaking:
            return self.silence == 0 and speech >= self._going_on
        return speech < self._starting and not (
            self._evidence or self._loud or speech + SEMANTIC_THRESHOLD - self.threshold > RISING
        )

    def wait_for(self, silence: int) -> None:
        """Set the silence that ends the turn, in samples. Call end_if_silent() next."""
        if self.is_semantic and self.pausing:
            self._needed = silence

    def end_soon(self) -> None:
        """Under semantic_vad, wait at most as long as for a turn that sounds finished."""
        if isinstance(self.settings, SemanticVad):
            self.wait_for(PAUSE_RULES[self.settings.eagerness].finished)

    def end_if_silent(self) -> Edge | None:
        """End the turn if it has been silent for long enough: for all whole windows in that time,
        one at least. The network hears the end of speech late, so the silence is longer."""
        if self.speaking and self.silence and self.silence + WINDOW > self._needed:
            self.reset()
            return Edge.STOPPED
        return None

    def resume(self, at: int) -> None:
        """Begin with a turn that is open already."""
        self.onset = at
        self.speaking = True

    def reset(self) -> None:
        """Nobody speaks."""
        self.waited = self.silence
        self.speaking = False
        self.silence = self._loud = 0
        self._evidence = 0.0
        self._needed = self._default_silence()

    def _wait_for_onset(self, at: int, speech: float, rise: float, *, hissed: bool) -> Edge | None:
        sure = self._add_evidence(at, speech, rise) or (
            hissed and min(speech, speech + SEMANTIC_THRESHOLD - self.threshold) > RISING
        )
        if speech >= self._starting:
            if self._loud == 0:
                self._loud_from = at
            self._loud += 1
        else:
            self._loud = 0
        if self._loud < ONSET_WINDOWS and not sure:
            return None
        self.onset = self._loud_from if self._loud else self._evidence_from
        self.speaking = True
        return Edge.STARTED

    def _add_evidence(self, at: int, speech: float, rise: float) -> bool:
        """Add the evidence of a window; return whether it is enough to begin a turn."""
        shifted = speech + SEMANTIC_THRESHOLD - self.threshold  # converted to a threshold of 0.5
        added = RISING_WEIGHT * (shifted - RISING)
        if shifted >= MIN_RISING:
            added += LEVEL_WEIGHT * min(1.0, max(0.0, (rise - MIN_RISE_DB) / RISE_SPAN_DB))
        if self._evidence == 0.0:
            self._evidence_from = at
        self._evidence = max(0.0, self._evidence * EVIDENCE_KEPT + max(-MAX_FALL, added))
        return self._evidence >= 1.0 and shifted >= MIN_STARTING and speech >= FLOOR

    def _use(self, settings: TurnDetection) -> None:
        self.settings = settings
        match settings:
            case ServerVad(threshold=threshold, prefix_padding_ms=prefix_ms):
                pass
            case SemanticVad():
                threshold, prefix_ms = SEMANTIC_THRESHOLD, SEMANTIC_PREFIX_MS
            case _:
                assert_never(settings)
        self.threshold, self.prefix = threshold, to_samples(prefix_ms)
        self._starting = max(threshold, FLOOR)
        self._going_on = max(threshold - HYSTERESIS, FLOOR)

    def _default_silence(self) -> int:
        match self.settings:
            case ServerVad(silence_duration_ms=ms):
                return to_samples(ms)
            case SemanticVad(eagerness=eagerness):
                return PAUSE_RULES[eagerness].unfinished
            case _:
                assert_never(self.settings)


def rise_db(pcm: bytes) -> float:
    """How far the level of the last window of PCM is above the lowest of those before it."""
    windows = _windows(pcm)
    if len(windows) < 2:
        return 0.0
    levels = _levels(windows)
    return float(20 * np.log10(levels[-1] / levels[:-1].min()))


def hisses(pcm: bytes) -> bool:
    """Whether PCM ends in an "s" or the like: windows that are louder than an earlier one by
    MIN_RISE_DB and change their sign often."""
    windows = _windows(pcm)
    hissing = crossings(windows[-HISS_WINDOWS:]) >= MIN_CROSSINGS
    if np.count_nonzero(hissing) < MIN_HISSING:
        return False
    levels = _levels(windows)
    loud = levels[-HISS_WINDOWS:] >= levels.min() * 10 ** (MIN_RISE_DB / 20)
    return bool(np.count_nonzero(loud & hissing) >= MIN_HISSING)


def crossings(windows: Samples) -> Numbers:
    """The share of the samples of each row that differ in sign from the one before."""
    changes = (windows[:, 1:] ^ windows[:, :-1]) < 0
    return np.array([np.count_nonzero(row) / WINDOW for row in changes])  # a mean takes longer


def _windows(pcm: bytes) -> Samples:
    """The whole windows at the end of PCM, [n, WINDOW]."""
    samples = np.frombuffer(pcm, "<i2")
    return samples[len(samples) % WINDOW :].reshape(-1, WINDOW)


def _levels(windows: Samples) -> Numbers:
    """The root mean square of each row, at least MIN_LEVEL."""
    samples = windows.astype(np.float32)
    levels: Numbers = np.maximum(np.sqrt(np.vecdot(samples, samples) / WINDOW), MIN_LEVEL)
    return levels
