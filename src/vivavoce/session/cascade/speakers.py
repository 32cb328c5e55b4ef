"""Which speakers are accepted: requests to the speaker model, and its results."""

import msgspec

from vivavoce.audio.formats import BYTES_PER_SAMPLE, to_ms, to_samples
from vivavoce.session.brain import Shared
from vivavoce.session.effects import CheckSpeaker
from vivavoce.session.facts import SpeakerChecked, TranscriptionKey, TranscriptUpdated
from vivavoce.session.speaker_gate import CHECK_MS, MIN_CHECKED_MS, is_speaker

MAX_CHECKED = to_samples(3_000)  # the end of a turn's speech, which is compared
MAX_TURNS = 8  # turns whose result is kept


class _Voice(msgspec.Struct):
    """What is known about the voice of a turn."""

    speech_ms: int
    """The request that was sent last."""
    admitted: bool | None = None
    """None: not known yet."""
    words: TranscriptUpdated | None = None
    """The final words, which wait for the result."""


class SpeakerChecks:
    """The results for the last turns."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._voices: dict[TranscriptionKey, _Voice] = {}

    @property
    def on(self) -> bool:
        """Whether the operator limits whose speech is accepted."""
        return self._shared.options.speaker_gate.mode != "off"

    def admits(self, key: TranscriptionKey, sound: bytes) -> bool:
        """Whether the speaker of an open turn is accepted, as far as is known; requests a check
        when it is due."""
        voice = self._voices.get(key)
        if voice is None and to_ms(len(sound) // BYTES_PER_SAMPLE) >= CHECK_MS:
            self._ask(key, sound)
        return voice is not None and voice.admitted is True

    def check_all(self, key: TranscriptionKey, sound: bytes) -> None:
        """A turn has ended: request a check with all its speech, unless its speaker was accepted
        already."""
        voice = self._voices.get(key)
        if voice is None or voice.admitted is not True:
            self._ask(key, sound)

    def rejects(self, key: TranscriptionKey) -> bool:
        """Whether another speaker than the accepted ones speaks in a turn."""
        voice = self._voices.get(key)
        return voice is not None and voice.admitted is False

    def keep(self, fact: TranscriptUpdated) -> bool:
        """Keep the final words of a turn until its speaker is known. False: it is known already."""
        voice = self._voices.get(fact.key)
        if voice is None or voice.admitted is not None:
            return False
        voice.words = fact
        return True

    def take(self, fact: SpeakerChecked) -> TranscriptUpdated | None:
        """Take the result of a check; return the words that waited for it."""
        key = next((key for key in self._voices if key.item_id == fact.item_id), None)
        if key is None:
            return None
        voice = self._voices[key]
        required = self._shared.options.speaker_gate.likeness
        if fact.same_voice < 0 or not required:
            required = fact.same_voice
        voice.admitted = is_speaker(fact.likeness, voice.speech_ms, required)
        words, voice.words = voice.words, None
        return words

    def _ask(self, key: TranscriptionKey, sound: bytes) -> None:
        sound = sound[-MAX_CHECKED * BYTES_PER_SAMPLE :]
        speech_ms = to_ms(len(sound) // BYTES_PER_SAMPLE)
        while key not in self._voices and len(self._voices) >= MAX_TURNS:
            del self._voices[next(iter(self._voices))]
        self._voices[key] = _Voice(speech_ms, True if speech_ms < MIN_CHECKED_MS else None)
        if speech_ms >= MIN_CHECKED_MS:
            self._shared.effects.add(CheckSpeaker(key.item_id, sound))
