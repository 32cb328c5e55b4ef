"""Speech by espeak-ng: 138 languages, no weights, no network, a synthetic sound.

espeak-ng is GPL-3. It comes with the package espeakng-loader, which only the extra `local`
installs, and it runs in a process of its own.
"""

import asyncio
import importlib.util
import re
import unicodedata
from collections.abc import AsyncGenerator, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Self

import msgspec

from vivavoce.engines.base import Capabilities, Mark, Speech, Voice
from vivavoce.engines.espeak.voices import (
    SAMPLE_RATE,
    SLOWEST_WPM,
    TIMBRES,
    EspeakVoices,
    SpeakRequest,
    SpokenChunk,
    languages_in,
)
from vivavoce.engines.host import HostLimits, WorkerHost
from vivavoce.engines.hosted import HostedEngine
from vivavoce.engines.speech_text import NamedSigns, named_signs, says_something
from vivavoce.errors import EngineError

if (_package := importlib.util.find_spec("espeakng_loader")) is None:
    raise ModuleNotFoundError("No module named 'espeakng_loader'", name="espeakng_loader")

DATA = Path(_package.origin or "").parent / "espeak-ng-data"
WAIT_TIMEOUT_S = 30.0
"""For the texts before this one: each takes milliseconds, a hanging one `hang_seconds`."""

Span = tuple[int, int]

# Replaced by as many spaces: U+0001 begins a command to espeak, NUL ends the text, halves of
# surrogate pairs cannot be encoded, and three dashes before some Hindi words crash it.
_HARMFUL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]|-{3,}")

# Each ideograph is a word of its own: there are no spaces to tell.
_IDEOGRAPH = re.compile("[\u2e80-\u2fdf\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")

# Over one letter a character, see _kind().
_WORD = re.compile("w+(?:jw+)*|s|i")


class EspeakSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[engines.tts.espeak]`."""

    language: str = "en-us"
    """What the named voices speak when no language is asked for: a tag that espeak knows."""
    words_per_minute: Annotated[int, msgspec.Meta(ge=SLOWEST_WPM, le=450)] = 175
    """At speed 1.0. Whatever the speed, it stays between 80 and 900."""
    buffer_seconds: Annotated[float, msgspec.Meta(ge=1, le=120)] = 10.0
    """Audio made ahead of the listener, for one utterance; it ends with the clause after that."""
    max_utterances: Annotated[int, msgspec.Meta(ge=1)] = 1000
    """Utterances at once, speaking and waiting; one more is refused."""


class EspeakTTS(HostedEngine[SpokenChunk]):
    """Speaks with the names of OpenAI's voices or the tags of espeak's languages."""

    Settings = EspeakSettings
    capabilities = Capabilities(
        languages="any",
        word_times="exact",
        licence="GPL-3.0-or-later",
        extra="local",
        models="none: speech by rules and formants, 138 languages",
    )
    name = "tts.espeak"
    default_voice = "marin"

    def __init__(self, settings: EspeakSettings) -> None:
        self.sample_rate = SAMPLE_RATE
        self.voices: tuple[Voice, ...] = tuple(
            Voice(name, (settings.language,), timbre.description)
            for name, timbre in TIMBRES.items()
        )
        self._settings = settings
        self._known: EspeakVoices | None = None
        self._utterances = 0

    async def make_host(self) -> WorkerHost[SpokenChunk]:
        limits = HostLimits(wait_seconds=WAIT_TIMEOUT_S, max_waiting=self._settings.max_utterances)
        worker = "vivavoce.engines.espeak.worker:EspeakWorker"
        return WorkerHost(worker, name=self.name, message=SpokenChunk, limits=limits)

    async def __aenter__(self) -> Self:
        """Start the process. All of espeak's voices are known from here on. Raises EngineError."""
        try:
            languages = await asyncio.to_thread(languages_in, DATA)
        except OSError as exc:
            raise EngineError(
                f"[engines.tts.espeak] cannot read the data of espeak-ng ({exc}); reinstall the "
                f"package espeakng-loader"
            ) from exc
        self._known = EspeakVoices(languages, self._settings.language)
        self.voices = self._known.voices()
        return await super().__aenter__()

    async def synthesize(
        self, text: str, *, voice: str, speed: float, language: str | None, instructions: str
    ) -> AsyncGenerator[Speech]:
        """See the contract of TTS. `instructions` have no effect. Speed is kept within 0.25..4 and
        what `words_per_minute` says."""
        if self._known is None:
            raise EngineError("[engines.tts.espeak] it is closed; enter the engine before its use")
        rate = round(self._settings.words_per_minute * max(0.25, min(speed, 4.0)))
        manner, tag = self._known.manner(text, voice, language, rate)
        plain = _HARMFUL.sub(lambda found: " " * len(found.group()), text)
        if not says_something(plain):
            return
        if self._utterances >= self._settings.max_utterances:
            raise EngineError(
                f"[engines.tts.espeak] {self._settings.max_utterances} utterances at once are its "
                "limit; raise max_utterances"
            )
        named = named_signs(plain, tag)
        room = round(self._settings.buffer_seconds * self.sample_rate)
        words, samples, offset = _WordMarks(named), 0, 0
        self._utterances += 1
        try:
            while offset < len(named.text):
                start, rest = samples, named.text[offset:]
                base, offset = offset, len(named.text)
                async with self.host.open(SpeakRequest(rest, manner, room)) as stream:
                    async for chunk in stream:
                        if chunk.next_offset is not None:
                            offset = base + chunk.next_offset
                            continue
                        samples += len(chunk.audio) // 2
                        yield Speech(chunk.audio, tuple(words.marks(chunk.words, base, start)))
        finally:
            self._utterances -= 1


class _WordMarks:
    """Marks of the words that espeak reports."""

    def __init__(self, named: NamedSigns) -> None:
        self._named = named
        self._finder = WordFinder(named.text)
        self._end = 0  # in the original text

    def marks(
        self, reported: Iterable[tuple[int, int, int]], offset: int, start: int
    ) -> Iterator[Mark]:
        """reported: (offset, length, sample), counted from `offset` of the text and `start`."""
        for position, length, sample in reported:
            if word := self._finder.find(offset + position, length):
                first, end = self._named.original(*word)
                if first >= self._end:  # else a further word of a sign's name
                    self._end = end
                    yield Mark(start + sample, first, end)


def word_spans(text: str) -> list[Span]:
    """Where the words are, [start, end), in order: "don't", "12.5" and "%" are one each."""
    return [found.span() for found in _WORD.finditer("".join(map(_kind, text)))]


def _kind(character: str) -> str:
    """w: of a word; j: joins two parts of one; s: a sign with a name; i: ideograph; "-": none."""
    if character.isascii():
        if character.isalnum():
            return "w"
        if character in ".,:'-":
            return "j"
        return "s" if character in "#$%&*+/<=>@\\^~" else "-"
    if _IDEOGRAPH.match(character):
        return "i"
    if character.isalnum() or character in "\u00ad\u200c\u200d":
        return "w"
    category = unicodedata.category(character)
    if category[0] == "M":
        return "w"
    if character in "\u2019\u2011":
        return "j"
    return "s" if category[0] == "S" else "-"


class WordFinder:
    """Turns the positions that espeak reports, in order, into the words of the text."""

    def __init__(self, text: str) -> None:
        self._spans = word_spans(text)
        self._next = 0
        self._last_end = 0

    def find(self, position: int, length: int) -> Span | None:
        """The word at a position; None if it was found already or there is none.

        espeak reports a number once for each word it says, at any place in it and just behind
        it, and some words at the space or dash before them. Its length counts only where words
        touch, as ideographs do: elsewhere it is often wrong.
        """
        if position < self._last_end:
            return None
        while self._next < len(self._spans) and self._spans[self._next][1] <= position:
            self._next += 1
        if self._next == len(self._spans):
            return None
        start, end = self._spans[self._next]
        if self._next and position == self._last_end and start != position:
            return None
        self._next += 1
        while self._next < len(self._spans):
            following, its_end = self._spans[self._next]
            if following != end or following >= position + length:
                break
            end = its_end
            self._next += 1
        self._last_end = end
        return start, end
