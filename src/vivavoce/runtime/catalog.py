"""The configured models by the names that clients use.

Each consists of engines, or is an upstream server.
"""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

import msgspec

from vivavoce.audio.formats import RATE
from vivavoce.engines.base import (
    LLM,
    STT,
    TTS,
    AudioTurnModel,
    Capabilities,
    Cleaner,
    TurnModel,
    warm,
)
from vivavoce.engines.speaker_model import SpeakerModel
from vivavoce.errors import InvalidRequest
from vivavoce.runtime.chains import FallbackTTS
from vivavoce.runtime.choice import EngineChoice, EngineMatch, OnDemandEngine, Own
from vivavoce.runtime.fallback import first_engine, knows_language, languages_of
from vivavoce.runtime.upstream import Relay
from vivavoce.runtime.vad_batcher import VadBatcher
from vivavoce.session.facts import Stage
from vivavoce.session.options import AvailableModels, ModelInfo


@dataclass(frozen=True, slots=True)
class Cascade:
    """The engines of one model. They are entered, and are left after all sessions have ended."""

    vad: VadBatcher
    turn: TurnModel
    stt: STT
    llm: LLM
    tts: TTS
    cleaner: Cleaner | None = None
    default_voice: str = ""
    """The configured voice; if it is "", or `tts` does not have it, the engine's default is
    used."""
    apology: str = ""
    """Spoken if no language model answers; "": nothing is."""
    names: Mapping[Stage, str] = field(default_factory=dict)
    """The names of the engines in the settings."""
    choice: EngineChoice = field(default_factory=EngineChoice)
    """Finds other engines for the model names that clients give."""
    speaker: OnDemandEngine | None = None
    """Computes embeddings of voices; it is loaded at its first use."""

    def voice(self, name: str, speech_model: str = "") -> str:
        """The voice used for the requested `name`, with the model that the client names, if any.

        The name is passed unchanged to a synthesiser that is not loaded yet: see voice_of().
        """
        found = self._find("tts", speech_model)
        return name if found.engine is None else self.voice_of(found.engine, name)

    def voice_of(self, tts: TTS, name: str) -> str:
        """The voice that the synthesiser uses for a name.

        All fallback of voices is decided here. In a chain that was made for the client's choice,
        the first engine, which the client chose, decides.
        """
        if isinstance(tts, FallbackTTS) and tts is not self.tts:
            tts = tts.members[0].engine
        known = {voice.id for voice in tts.voices}
        wanted = (name, *self.choice.aliases.get(name, ()), self.default_voice)
        return next((voice for voice in wanted if voice in known), tts.default_voice)

    def transcription_model(self, asked: str) -> str:
        """The name of the recogniser, or of its model, that serves a client's name."""
        return self._find("stt", asked).name

    def other_language(self, asked: str, language: str) -> str:
        """The language to use if the recogniser does not know this one; "" if it does, or is not
        loaded yet."""
        engine = self._find("stt", asked).engine
        if engine is None or knows_language(engine, language):
            return ""
        return languages_of(engine)[0]

    def speech_model(self, asked: str) -> str:
        """The name of the synthesiser, or of its model, that serves a client's name."""
        return self._find("tts", asked).name

    def use_stt(self, asked: str) -> AbstractAsyncContextManager[STT]:
        """The recogniser for a client's name, loaded and ready."""
        return self.choice.use(self._own("stt"), asked)

    def use_llm(self, asked: str) -> AbstractAsyncContextManager[LLM]:
        """The language model for a client's name, loaded and ready."""
        return self.choice.use(self._own("llm"), asked)

    def use_tts(self, asked: str) -> AbstractAsyncContextManager[TTS]:
        """The synthesiser, likewise."""
        return self.choice.use(self._own("tts"), asked)

    def use_speaker(self) -> AbstractAsyncContextManager[SpeakerModel]:
        """The speaker model, loaded.

        Raises InvalidRequest if there is none; EngineError on entering.
        """
        if self.speaker is None:
            raise InvalidRequest(
                "This server cannot tell speakers apart: it has no speaker model. Its operator can "
                "install one: vivavoce models pull resemblyzer, then restart it.",
                code="unsupported",
            )
        return self.speaker.use()

    def _find(self, stage: Stage, asked: str) -> EngineMatch:
        return self.choice.find(self._own(stage), asked)

    def _own(self, stage: Stage) -> Own:
        engines = {"stt": self.stt, "llm": self.llm, "tts": self.tts}
        return Own(stage, self.names.get(stage, ""), engines[stage])

    def warm(self) -> None:
        """Prepare for work: open connections, and load models that were unloaded."""
        for engine in (self.turn, self.stt, self.llm, self.tts):
            warm(engine)

    @property
    def info(self) -> ModelInfo:
        """What a session needs to know about this model."""
        voices = frozenset(voice.id for voice in self.tts.voices)
        seconds = self.turn.audio_seconds if isinstance(self.turn, AudioTurnModel) else 0.0
        capabilities = getattr(first_engine(self.stt), "capabilities", Capabilities())
        return ModelInfo(
            voices,
            self.voice(""),
            self,
            round(seconds * RATE),
            transcribes_at_end=not capabilities.streaming_input,
            decodes_pauses=capabilities.decodes_pauses,
        )


class ModelCatalog(msgspec.Struct, frozen=True):
    """Models by name."""

    cascades: Mapping[str, Cascade]
    default: str
    """The name of the cascade that serves unknown model names."""
    relays: Mapping[str, Relay] = msgspec.field(default_factory=dict)
    aliases: Mapping[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    """The names that are looked up in place of one that is not configured."""

    def of(self, *models: str) -> Cascade:
        """The cascade of the first of these names, or of their aliases, that is a cascade; or the
        default one."""
        return self.cascades[self.name_of(*models)]

    def name_of(self, *models: str) -> str:
        """The name of the cascade that serves these names."""
        names = (name for model in models for name in (model, *self.aliases.get(model, ())))
        return next((name for name in names if name in self.cascades), self.default)

    def voice_of(self, model: str) -> Cascade:
        """The cascade that speaks for the server itself in a session of that model."""
        return self.of(model if model in self.cascades else self.fallback(model))

    def fallback(self, model: str) -> str:
        """The name of the cascade that continues if the upstream server of `model` fails."""
        relay = self.relays.get(model)
        wanted = relay.fallback if relay else ""
        return wanted if wanted in self.cascades else self.default

    def available(
        self, *, default_model: str = "", lock_voice: bool = False, failure_errors: bool = False
    ) -> AvailableModels:
        """The names of models and voices that a session needs."""
        infos = {name: relay.info for name, relay in self.relays.items()}
        infos |= {name: cascade.info for name, cascade in self.cascades.items()}
        return AvailableModels(
            infos, default_model or self.default, lock_voice, failure_errors, self.aliases
        )
