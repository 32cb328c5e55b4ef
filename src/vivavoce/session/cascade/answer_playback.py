"""How far the answers of a cascade were played, and what follows for the conversation."""

from vivavoce.audio.formats import BYTES_PER_SAMPLE, RATE, to_ms
from vivavoce.session.brain import Shared
from vivavoce.session.effects import ClearEchoReference

PLAYED_AUDIO = 3 * RATE  # samples of an answer that the microphone may hear
# ... and of its words: the position of the client's playback is an estimate
PLAYED_WORDS, WORDS_AHEAD = 8 * RATE, RATE // 2


class AnswerPlayback:
    """Keeps the words of answers in the conversation that were heard, and no others."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    def playing(self, now: float) -> tuple[str, bytes]:
        """The words that are being played at this time, and the audio that was played last."""
        if (playing := self._shared.playback.playing(now)) is None:
            return "", b""
        item_id, unplayed = playing
        entry = self._shared.conversation.find(item_id)
        if entry is None or entry.ledger is None:
            return "", b""
        ledger = entry.ledger
        at = ledger.samples - unplayed
        begin = max(0, at - PLAYED_AUDIO) * BYTES_PER_SAMPLE
        audio = bytes(ledger.audio[begin : at * BYTES_PER_SAMPLE])
        return ledger.words_within(at - PLAYED_WORDS, at + WORDS_AHEAD), audio

    def clear(self, now: float) -> None:
        """Drop the audio that was not played, and report how far each answer was.

        Raises InvalidRequest where the client owns the playback.
        """
        conversation, effects = self._shared.conversation, self._shared.effects
        unplayed = self._shared.playback.clear(now)
        self.clear_echo_reference()
        for item_id, samples in unplayed.items():
            entry = conversation.find(item_id)
            if entry and entry.ledger:
                heard_ms = to_ms(entry.ledger.samples - samples)
                conversation.truncate(item_id, 0, heard_ms)
                effects.truncated(item_id, heard_ms)

    def clear_echo_reference(self) -> None:
        """Stop counting answers as playing: the microphone can no longer pick one up."""
        if self._shared.options.noise_reduction:
            self._shared.effects.add(ClearEchoReference())

    def keep_heard(self, item_id: str, unplayed: int) -> None:
        """The rest of an answer was not played: keep only the words that were."""
        entry = self._shared.conversation.find(item_id)
        if entry and entry.ledger:
            self._shared.conversation.cut(item_id, entry.ledger.samples - unplayed)
