"""What the client's player has played of what it was sent, as far as one can tell from here.

It is taken to begin with the first sound and to play on, in order, for as long as it has any.
"""

from vivavoce.audio.formats import RATE


class Playout:
    """Sound on its way to the ear, by item. Counts samples at 24 kHz; the time is an argument."""

    def __init__(self) -> None:
        self.until = float("-inf")
        """When all that was sent will have been played."""
        self._sent: dict[str, int] = {}  # since the player last ran dry

    def add(self, item_id: str, samples: int, now: float) -> None:
        """More sound of that item was sent."""
        if self.until <= now:
            self._sent.clear()
        self._sent[item_id] = self._sent.get(item_id, 0) + samples
        self.until = max(self.until, now) + samples / RATE

    def played(self, item_id: str, samples: int, now: float) -> None:
        """Nobody tells: the player is not ours."""

    def ended(self, response_id: str, now: float) -> None:
        """The end of an answer changes nothing of what is played."""

    def drop(self, item_id: str, now: float) -> int:
        """That item is played no further; return how many of its samples were not."""
        unplayed = self._unplayed(now).get(item_id, 0)
        self._sent.pop(item_id, None)
        self.until -= unplayed / RATE
        return unplayed

    def stop(self, now: float) -> dict[str, int]:
        """Nothing is played any further; return the samples of each item that were not."""
        unplayed = self._unplayed(now)
        self._sent.clear()
        self.until = min(self.until, now)
        return {item_id: samples for item_id, samples in unplayed.items() if samples}

    def _unplayed(self, now: float) -> dict[str, int]:
        """The last sound sent is the last to be played."""
        left = max(0, round((self.until - now) * RATE)) if self._sent else 0
        unplayed = {}
        for item_id, samples in reversed(self._sent.items()):
            unplayed[item_id] = min(samples, left)
            left -= unplayed[item_id]
        return unplayed
