"""What thinks and speaks for a session: engines under the names that clients use."""

from dataclasses import dataclass

from vivavoce.engines.base import LLM, STT, TTS, Cleaner, TurnModel
from vivavoce.runtime.vad_batcher import VadBatcher
from vivavoce.session.options import ModelInfo


@dataclass(frozen=True, slots=True)
class Cascade:
    """The engines of one model. They are entered, and outlive every session."""

    ears: VadBatcher
    turn: TurnModel
    stt: STT
    llm: LLM
    tts: TTS
    cleaner: Cleaner | None = None
    default_voice: str = ""
    """The voice of this model; "" or one that `tts` does not have: the engine's own default."""

    def voice(self, name: str) -> str:
        """The voice that speaks when `name` is asked for: the only place that decides it."""
        known = {voice.id for voice in self.tts.voices}
        wanted = (name, self.default_voice)
        return next((voice for voice in wanted if voice in known), self.tts.default_voice)

    @property
    def info(self) -> ModelInfo:
        """What a session has to know of this model."""
        return ModelInfo(frozenset(voice.id for voice in self.tts.voices), self.voice(""))


@dataclass(frozen=True, slots=True)
class ModelCatalog:
    """Cascades by the model's name."""

    cascades: dict[str, Cascade]
    default: str

    def of(self, model: str) -> Cascade:
        """The cascade of that name, or the default one."""
        return self.cascades.get(model, self.cascades[self.default])
