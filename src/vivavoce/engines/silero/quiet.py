"""Windows that need no run of the network: of a stream that has been quiet for long, and still is.

Such a stream is scored in every second window. A window that is louder than the quiet before it is
always scored, so that nothing is found later than one window after the network would find it.
"""

from typing import Final

LONG_QUIET: Final = 16
"""Windows in a row, 0.5 s, that were quiet."""
QUIET_SCORE: Final = 0.1
"""The probability of speech below which a window was quiet."""
LOUDER: Final = 1.4
"""Power of a window over that of the quiet before it, from which on it is scored: 1.5 dB."""
MAX_SKIPPED: Final = 1
"""Windows in a row."""
LEVEL_KEPT: Final = 0.9
"""Of the level of the quiet, a window."""


class QuietStreams:
    """Follows streams by their numbers."""

    def __init__(self) -> None:
        self._quiet: list[int] = []  # windows in a row
        self._power: list[float] = []  # their level

    def open(self, stream: int) -> None:
        """A new stream, of which nothing is known."""
        while len(self._quiet) <= stream:
            self._quiet.append(0)
            self._power.append(0.0)
        self._quiet[stream] = 0

    def skips(self, stream: int, power: float) -> bool:
        """Whether the next window, of that power, is as quiet as those before it."""
        quiet = self._quiet[stream]
        if quiet < LONG_QUIET or power > LOUDER * self._power[stream]:
            return False
        if not quiet % (MAX_SKIPPED + 1):
            return False
        self._extend(stream, power)
        return True

    def scored(self, stream: int, power: float, speech: float) -> None:
        """A window that was not skipped has that probability of speech."""
        if speech >= QUIET_SCORE:
            self._quiet[stream] = 0
        else:
            self._extend(stream, power)

    def _extend(self, stream: int, power: float) -> None:
        if self._quiet[stream]:
            power += LEVEL_KEPT * (self._power[stream] - power)
        self._power[stream] = power
        self._quiet[stream] += 1
