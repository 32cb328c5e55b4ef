"""What thinks and speaks for a session: engines under the names that clients use."""

from dataclasses import dataclass

from vivavoce.engines.base import LLM, STT, TTS, Cleaner, TurnModel
from vivavoce.runtime.vad_batcher import VadBatcher


@dataclass(frozen=True, slots=True)
class Cascade:
    """The engines of one model. They are entered, and outlive every session."""

    ears: VadBatcher
    turn: TurnModel
    stt: STT
    llm: LLM
    tts: TTS
    cleaner: Cleaner | None = None

    def voice(self, name: str) -> str:
        """The voice of that name, or the engine's own: another model may have other voices."""
        known = any(voice.id == name for voice in self.tts.voices)
        return name if known else self.tts.default_voice


@dataclass(frozen=True, slots=True)
class ModelCatalog:
    """Cascades by the model's name."""

    cascades: dict[str, Cascade]
    default: str

    def of(self, model: str) -> Cascade:
        """The cascade of that name, or the default one."""
        return self.cascades.get(model, self.cascades[self.default])
