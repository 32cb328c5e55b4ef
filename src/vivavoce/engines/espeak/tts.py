"""Speech by espeak-ng: 138 languages, no weights, no network, a synthetic sound.

espeak-ng is GPL-3. It comes with the package espeakng-loader, which only the extra `local`
installs, and it runs in a process of its own.
"""

from collections.abc import AsyncGenerator
from typing import Annotated, Self

import msgspec

from vivavoce.engines.base import Speech, Voice
from vivavoce.engines.espeak.library import SLOWEST_WPM
from vivavoce.engines.espeak.speaker import Speaker
from vivavoce.engines.espeak.text import readable
from vivavoce.engines.espeak.utterance import Utterance
from vivavoce.engines.espeak.voices import TIMBRES, Catalogue
from vivavoce.errors import EngineError


class EspeakSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[tts.espeak]`."""

    language: str = "en-us"
    """What the named voices speak when no language is asked for: a tag that espeak knows."""
    words_per_minute: Annotated[int, msgspec.Meta(ge=SLOWEST_WPM, le=450)] = 175
    """At speed 1.0. Whatever the speed, it stays between 80 and 900."""
    buffer_seconds: Annotated[float, msgspec.Meta(ge=1, le=120)] = 10.0
    """Sound made ahead of who listens, for one utterance; it ends with the clause after that."""
    max_utterances: Annotated[int, msgspec.Meta(ge=1)] = 1000
    """Utterances at once, speaking and waiting; one more is refused."""


class EspeakTTS:
    """Speaks with the names of OpenAI's voices or the tags of espeak's languages."""

    Settings = EspeakSettings
    default_voice = "marin"

    def __init__(self, settings: EspeakSettings) -> None:
        self.sample_rate = 22050
        self.voices: tuple[Voice, ...] = tuple(
            Voice(name, (settings.language,), timbre.description)
            for name, timbre in TIMBRES.items()
        )
        self._settings = settings
        self._speaker: Speaker | None = None
        self._catalogue: Catalogue | None = None
        self._utterances: set[Utterance] = set()

    async def __aenter__(self) -> Self:
        """Start the process. All of espeak's voices are known from here on."""
        speaker = Speaker()
        await speaker.open()
        try:
            self._catalogue = Catalogue(speaker.languages, self._settings.language)
        except EngineError:
            await speaker.close()
            raise
        self._speaker = speaker
        self.sample_rate = speaker.sample_rate
        self.voices = self._catalogue.voices()
        return self

    async def __aexit__(self, *exc: object) -> None:
        speaker, self._speaker = self._speaker, None
        if speaker is not None:
            await speaker.close()
        for utterance in self._utterances:
            utterance.end(EngineError("tts espeak: the engine was closed while it spoke"))

    async def synthesize(
        self, text: str, *, voice: str, speed: float, language: str | None, instructions: str
    ) -> AsyncGenerator[Speech]:
        """See the contract of TTS. Signs of markdown and emoji are not spoken; `instructions`
        are beyond espeak. Speed is kept within 0.25..4 and what `words_per_minute` says."""
        speaker, catalogue = self._speaker, self._catalogue
        if speaker is None or catalogue is None:
            raise EngineError("tts espeak: it is closed; enter the engine before speaking")
        rate = round(self._settings.words_per_minute * max(0.25, min(speed, 4.0)))
        manner = catalogue.manner(voice, language, rate)
        plain = readable(text)
        if not plain:
            return
        if len(self._utterances) >= self._settings.max_utterances:
            raise EngineError(
                f"tts espeak: {self._settings.max_utterances} utterances at once are its limit; "
                "raise max_utterances in [tts.espeak]"
            )
        room = round(self._settings.buffer_seconds * self.sample_rate)
        utterance = Utterance(plain, manner, room)
        self._utterances.add(utterance)
        try:
            speaker.submit(utterance)
            while (speech := await utterance.take()) is not None:
                if utterance.resume():
                    speaker.submit(utterance)
                yield speech
        finally:
            self._utterances.discard(utterance)
            speaker.withdraw(utterance)
