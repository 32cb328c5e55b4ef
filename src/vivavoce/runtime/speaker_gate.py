"""Compares voices with those of the accepted speakers, for [speaker_gate]."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vivavoce.audio.formats import RATE, to_samples
from vivavoce.audio.resample import resample
from vivavoce.engines.speaker_model import SpeakerModel
from vivavoce.errors import AudioError, EngineError, InvalidRequest, SettingsError
from vivavoce.media.decoding import Bounds, SoundFile
from vivavoce.runtime.catalog import Cascade, ModelCatalog
from vivavoce.runtime.diarization import voice_of
from vivavoce.runtime.tasks import Tasks
from vivavoce.session.effects import CheckSpeaker
from vivavoce.session.facts import SpeakerChecked
from vivavoce.session.speaker_gate import SpeakerGateSettings

log = logging.getLogger(__name__)

CHECK_TIMEOUT_S = 2.0
"""The longest time for one check; after it the voice is accepted."""
MIN_FIRST = to_samples(1_000)
"""The least speech from which the first speaker's voice is taken."""
MAX_KNOWN = to_samples(30_000)
"""After this much speech of the first speaker, the voice is not changed any more."""
MAX_RECORDING_SECONDS = 60.0
Floats = NDArray[np.float32]


class SpeakerGate:
    """The enrolled voices, for all sessions of a server."""

    def __init__(self, settings: SpeakerGateSettings, voices: Sequence[Floats] = ()) -> None:
        """voices: the enrolled ones."""
        self.settings = settings
        self.voices = tuple(voices)


async def speaker_gate(settings: SpeakerGateSettings, catalog: ModelCatalog) -> SpeakerGate:
    """Read the enrolled voices.

    Raises SettingsError: there is no speaker model, or a recording has no speech.
    """
    if settings.mode == "off":
        return SpeakerGate(settings)
    cascade = catalog.of(catalog.default)
    if cascade.speaker is None:
        raise SettingsError(
            "[speaker_gate] mode: there is no speaker model that tells voices apart; try: vivavoce "
            "models pull resemblyzer"
        )
    try:
        async with cascade.use_speaker() as model:  # loads it
            voices = [await _enrolled(name, cascade, model) for name in settings.recordings]
    except EngineError as exc:
        raise SettingsError(f"[speaker_gate] mode: {exc}") from exc
    return SpeakerGate(settings, voices)


async def _enrolled(name: str, cascade: Cascade, model: SpeakerModel) -> Floats:
    try:
        data = await asyncio.to_thread(_read, name)
        file = SoundFile(BytesIO(data), name, bounds=Bounds(max_seconds=MAX_RECORDING_SECONDS))
        voice = await voice_of(file, cascade.vad, model)
    except (OSError, AudioError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else exc
        raise SettingsError(f"[speaker_gate] recordings: {name}: {reason}") from exc
    if voice is None:
        raise SettingsError(f"[speaker_gate] recordings: there is no speech in {name}")
    return voice


def _read(name: str) -> bytes:
    return Path(name).expanduser().read_bytes()


class SessionGate:
    """The accepted speakers of one session."""

    def __init__(
        self,
        gate: SpeakerGate,
        cascade: Cascade,
        tasks: Tasks,
        post: Callable[[SpeakerChecked], None],
    ) -> None:
        self._voices = gate.voices
        self._learns = gate.settings.mode == "first"
        # of the first speaker: the sum of embeddings times samples
        self._total: Floats | None = None
        self._samples = 0
        self._cascade = cascade
        self._tasks = tasks
        self._post = post
        self._failing = False

    def check(self, order: CheckSpeaker) -> None:
        """Check a voice, and post a SpeakerChecked.

        A later check of the same item replaces this one.
        """
        self._tasks.start(("speaker", order.item_id), self._check(order))

    async def _check(self, order: CheckSpeaker) -> None:
        likeness, same_voice = 1.0, -1.0
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S), self._cascade.use_speaker() as model:
                # three seconds of audio at most: a thread is not worth it
                pcm = resample(order.audio, RATE, model.sample_rate)
                (voice,) = await model.embed([pcm])
                same_voice = model.same_voice
            likeness = self._likeness(voice, len(order.audio) // 2, same_voice)
            self._failing = False
        except (EngineError, InvalidRequest, TimeoutError) as exc:
            if not self._failing:
                reason = str(exc) or f"nothing came within {CHECK_TIMEOUT_S:g} s"
                log.warning("speakers are not told apart, everybody is let in: %s", reason)
            self._failing = True
        self._post(SpeakerChecked(order.item_id, likeness, same_voice))

    def _likeness(self, voice: Floats, samples: int, same_voice: float) -> float:
        """Compare with the most similar of the accepted voices. The first voice is learned."""
        if not self._learns:
            return max(float(voice @ known) for known in self._voices)
        likeness = 1.0
        if self._total is not None:
            likeness = float(voice @ self._total) / float(np.linalg.norm(self._total))
        if samples >= MIN_FIRST and likeness >= same_voice and self._samples < MAX_KNOWN:
            self._total = voice * samples + (0 if self._total is None else self._total)
            self._samples += samples
        return likeness
