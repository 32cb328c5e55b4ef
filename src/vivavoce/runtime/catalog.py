"""The configured models, by the names that clients use: engines, or an upstream server."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from vivavoce.engines.base import LLM, STT, TTS, Cleaner, TurnModel
from vivavoce.runtime.vad_batcher import VadBatcher
from vivavoce.secret import Secret
from vivavoce.session.options import AvailableModels, ModelInfo


@dataclass(frozen=True, slots=True)
class Cascade:
    """The engines of one model. They are entered, and outlive every session."""

    vad: VadBatcher
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
class Relay:
    """A model behind an upstream Realtime server."""

    url: str
    """Of its WebSocket, without a query: wss://api.openai.com/v1/realtime."""
    model: str
    """The model to ask the upstream server for."""
    key: Secret = Secret("")
    default_voice: str = "marin"
    fallback: str = ""
    """The cascade that goes on when the upstream server is lost; "": the default one."""

    @property
    def info(self) -> ModelInfo:
        """What a session has to know of this model."""
        return ModelInfo(voices=None, default_voice=self.default_voice)


@dataclass(frozen=True, slots=True)
class ModelCatalog:
    """Models by name."""

    cascades: Mapping[str, Cascade]
    default: str
    """The name of the cascade that serves unknown names."""
    relays: Mapping[str, Relay] = field(default_factory=dict)

    def of(self, model: str) -> Cascade:
        """The cascade of that name, or the default one."""
        return self.cascades.get(model, self.cascades[self.default])

    def fallback(self, model: str) -> str:
        """The name of the cascade that goes on when the upstream server of `model` is lost."""
        relay = self.relays.get(model)
        wanted = relay.fallback if relay else ""
        return wanted if wanted in self.cascades else self.default

    def available(
        self, *, default_model: str = "", lock_voice: bool = False, failure_errors: bool = False
    ) -> AvailableModels:
        """The names that a session has to know."""
        infos = {name: relay.info for name, relay in self.relays.items()}
        infos |= {name: cascade.info for name, cascade in self.cascades.items()}
        return AvailableModels(infos, default_model or self.default, lock_voice, failure_errors)
