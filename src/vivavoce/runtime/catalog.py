"""The configured models, by the names that clients use: engines, or an upstream server."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from vivavoce.engines.base import LLM, STT, TTS, Cleaner, TurnModel, engine_for, warm
from vivavoce.runtime.upstream import Relay
from vivavoce.runtime.vad_batcher import VadBatcher
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
    apology: str = ""
    """Spoken where no language model answers; "": nothing is."""

    def voice(self, name: str) -> str:
        """The voice used for the requested `name`. All voice fallback is decided here."""
        known = {voice.id for voice in self.tts.voices}
        wanted = (name, self.default_voice)
        return next((voice for voice in wanted if voice in known), self.tts.default_voice)

    def stt_for(self, model: str) -> STT:
        """The recogniser, with the model of its service that a client names if there is one."""
        return engine_for(self.stt, model)

    def tts_for(self, model: str) -> TTS:
        """The synthesiser, likewise."""
        return engine_for(self.tts, model)

    def warm(self) -> None:
        """Work will follow: engines that speak to a server open their connections."""
        for engine in (self.stt, self.llm, self.tts):
            warm(engine)

    @property
    def info(self) -> ModelInfo:
        """The data of this model that a session needs."""
        return ModelInfo(frozenset(voice.id for voice in self.tts.voices), self.voice(""))


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

    def name_of(self, model: str) -> str:
        """The name of the cascade that serves a name."""
        return model if model in self.cascades else self.default

    def voice_of(self, model: str) -> Cascade:
        """The cascade that speaks for the server itself in a session of that model."""
        return self.of(model if model in self.cascades else self.fallback(model))

    def fallback(self, model: str) -> str:
        """The name of the cascade that continues when the upstream server of `model` fails."""
        relay = self.relays.get(model)
        wanted = relay.fallback if relay else ""
        return wanted if wanted in self.cascades else self.default

    def available(
        self, *, default_model: str = "", lock_voice: bool = False, failure_errors: bool = False
    ) -> AvailableModels:
        """The model and voice names that a session needs."""
        infos = {name: relay.info for name, relay in self.relays.items()}
        infos |= {name: cascade.info for name, cascade in self.cascades.items()}
        return AvailableModels(infos, default_model or self.default, lock_voice, failure_errors)
