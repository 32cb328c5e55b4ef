"""All voices of all configured engines speak the texts of a study, and are measured."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from vivavoce.accounting import price_ref, price_table
from vivavoce.audio.formats import BYTES_PER_MS, RATE
from vivavoce.engines import registry
from vivavoce.engines.base import STT, TTS, BaseEngine
from vivavoce.engines.openai import discovery
from vivavoce.errors import EngineError, SettingsError
from vivavoce.media import files
from vivavoce.models import NONE, Selected, Surroundings, select
from vivavoce.runtime.synthesis import Synthesis
from vivavoce.runtime.transcription import RecordedAudio
from vivavoce.settings import AUTO, CascadeModel, Settings
from vivavoce.telemetry.rating import PriceRef, Rater, Tariff
from vivavoce.testing.clips import ENGINE, SpeechCache
from vivavoce.testing.words import word_error_rate, words_of
from vivavoce.voices.measures import levelled, measured
from vivavoce.voices.study import CLIPS, RatedClip, StudyVoice, TextItem

PARTNER: Final = "echo"
"""The embedded voice of the user's lines in dialogues."""
TURN_GAP_MS: Final = 350
MAX_VOICES: Final = 24
"""The most voices of one engine, unless some are named."""


@dataclass(slots=True)
class Speakers:
    """The engines that speak, entered, and the voices that are chosen of each."""

    settings: Settings
    stack: AsyncExitStack
    engines: dict[str, TTS] = field(default_factory=dict)
    selected: dict[str, Selected] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    """Why engines or voices are left out, one sentence each."""

    async def enter_all(self, only: Sequence[str]) -> None:
        """Every synthesiser that a model or a table of the settings names; `only`: these.

        Raises SettingsError: none can be used.
        """
        at = Surroundings(self.settings, discovery.LOCAL_SERVERS)
        names: list[str] = []
        for model in self.settings.models.values():
            if isinstance(model, CascadeModel):
                names += [model.engines["tts"], *model.fallbacks["tts"]]
        names += self.settings.engines.get("tts", {})
        for name in dict.fromkeys(only or names or (AUTO,)):
            chosen = await select("tts", name, at)
            if chosen.name in self.engines:
                continue
            try:
                self.engines[chosen.name] = await self._enter("tts", chosen)
                self.selected[chosen.name] = chosen
            except (SettingsError, EngineError) as exc:
                self.left_out.append(f"{chosen.name}: {exc}")
        if not self.engines:
            raise SettingsError(f"no engine can speak: {'; '.join(self.left_out)}")

    async def recogniser(self, name: str) -> STT | None:
        """The one that measures intelligibility; "": that of the default model; "none": none.

        Raises SettingsError.
        """
        if name == NONE:
            return None
        default = self.settings.models[self.settings.default_model]
        own = default.engines["stt"] if isinstance(default, CascadeModel) else AUTO
        chosen = await select("stt", name or own, Surroundings(self.settings, ()))
        try:
            found: STT = await self._enter("stt", chosen)
        except EngineError as exc:
            self.left_out.append(f"intelligibility is not measured: {chosen.name}: {exc}")
            return None
        return found

    async def _enter(self, kind: Any, chosen: Selected) -> Any:
        options = {**self.settings.engines.get(kind, {}).get(chosen.name, {}), **chosen.options}
        real = options.pop("engine", chosen.name)
        made = registry.create(kind, real, options, table=chosen.name)
        entered = await self.stack.enter_async_context(made)
        if isinstance(entered, BaseEngine):
            await entered.load()
        return entered

    def voices(self, wanted: Sequence[str], language: str) -> list[StudyVoice]:
        """The voices of the language, each once; wanted: these alone, as VOICE or ENGINE:VOICE.

        Raises SettingsError: one of them is nowhere.
        """
        if wanted:
            names = {
                StudyVoice(engine=engine, voice=voice.id): self._names(engine, voice.id)
                for engine, tts in self.engines.items()
                for voice in tts.voices
                if not voice.alias_of
            }
            for name in wanted:
                if not any(name in known for known in names.values()):
                    raise SettingsError(f"--voices: no engine has a voice {name!r}; see --list")
            return [voice for voice, known in names.items() if known & set(wanted)]
        chosen: list[StudyVoice] = []
        for engine, tts in self.engines.items():
            fitting = [
                voice.id
                for voice in tts.voices
                if _speaks(voice.languages, language) and not voice.alias_of
            ]
            if len(fitting) > MAX_VOICES:
                self.left_out.append(
                    f"{engine} has {len(fitting)} voices for {language}: the first {MAX_VOICES} "
                    f"are taken; name others with --voices"
                )
            chosen += [StudyVoice(engine=engine, voice=name) for name in fitting[:MAX_VOICES]]
        return chosen

    def aliases(self, engine: str, voice: str) -> list[str]:
        """The other names of a voice."""
        return [each.id for each in self.engines[engine].voices if each.alias_of == voice]

    def _names(self, engine: str, voice: str) -> set[str]:
        """The names by which it can be wanted."""
        ids = {voice, *self.aliases(engine, voice)}
        return ids | {f"{engine}:{each}" for each in ids}


def _speaks(languages: Sequence[str], language: str) -> bool:
    plain = {tag.partition("-")[0].lower() for tag in languages}
    return not plain or language.partition("-")[0].lower() in plain


async def spoken_clips(
    speakers: Speakers,
    voices: Sequence[StudyVoice],
    items: Sequence[TextItem],
    folder: Path,
    recogniser: STT | None,
    language: str,
    progress: Callable[[str], None],
) -> AsyncIterator[RatedClip]:
    """Speak every item with every voice, one after the other, so that times are comparable.

    Raises EngineError, AudioError; SettingsError: a dialogue's partner cannot speak.
    """
    prices = price_table(speakers.settings)
    async with SpeechCache(ENGINE) as cache:
        for place, voice in enumerate(voices):
            progress(voice.label)
            ref = price_ref(speakers.settings, speakers.selected[voice.engine])
            for number, item in enumerate(items):
                clip = await _clip(speakers.engines[voice.engine], voice, item, language, cache)
                nano = _nano_usd(Rater(prices, {}), ref, item, clip)
                heard = None if recogniser is None else await _heard(recogniser, clip.own, language)
                rate = None if heard is None else word_error_rate(item.rated, heard, language)
                file = f"{place:03d}-{number:03d}.wav"
                measures = await asyncio.to_thread(
                    measured,
                    clip.own,
                    len(words_of(item.rated, language)),
                    first_chunk_s=clip.first_chunk_s,
                    work_s=clip.work_s,
                    word_error_rate=rate,
                    nano_usd=nano,
                )
                played = await asyncio.to_thread(levelled, bytes(clip.whole), measures.lufs)
                await asyncio.to_thread(files.write_wav, folder / CLIPS / file, played)
                yield RatedClip(voice=place, item=number, file=file, measures=measures)


@dataclass(slots=True)
class _SpokenItem:
    whole: bytearray = field(default_factory=bytearray)
    own: bytes = b""
    """The audio of the rated voice alone."""
    first_chunk_s: float = 0.0
    work_s: float = 0.0


async def _clip(
    tts: TTS, voice: StudyVoice, item: TextItem, language: str, cache: SpeechCache
) -> _SpokenItem:
    made = _SpokenItem()
    for own, words in item.lines:
        if made.whole:
            made.whole += bytes(TURN_GAP_MS * BYTES_PER_MS)
        if not own:
            made.whole += await cache.speak(words, PARTNER)
            continue
        begun, first, pcm = time.perf_counter(), 0.0, bytearray()
        synthesis = Synthesis(tts, voice.voice, language=language)
        async with aclosing(synthesis.text(words)) as pieces:
            async for piece in pieces:
                if piece.audio and not pcm:
                    first = time.perf_counter() - begun
                pcm += piece.audio
        made.first_chunk_s = made.first_chunk_s or first
        made.work_s += time.perf_counter() - begun
        made.own += bytes(pcm)
        made.whole += pcm
    return made


async def _heard(recogniser: STT, pcm: bytes, language: str) -> str:
    """What the recogniser understands. Raises EngineError."""
    audio = RecordedAudio(pcm, RATE, recogniser.sample_rate)
    text = ""
    async with aclosing(recogniser.transcribe(audio, language=language, prompt="")) as found:
        async for transcript in found:
            text = transcript.text
    return text


def _nano_usd(rater: Rater, ref: PriceRef | None, item: TextItem, clip: _SpokenItem) -> int:
    ms = len(clip.own) // BYTES_PER_MS
    return rater.spoken(Tariff(tts=ref), len(item.rated), ms, time.time()).nano_usd
