"""The voices of espeak: OpenAI's names and espeak's own languages. What goes to its process."""

import re
from collections.abc import Iterable
from pathlib import Path

import msgspec

from vivavoce.engines.base import Voice
from vivavoce.engines.speech_text import spoken_language
from vivavoce.errors import EngineError

SLOWEST_WPM = 80
"""Words per minute; espeak's own limit."""
SAMPLE_RATE = 22_050
"""Of all voices that espeak has without MBROLA."""
_DEFAULT_PRIORITY = 5
_LINE = re.compile(r"^[ \t]*(name|language|dictionary)[ \t]+(\S.*?)\s*(?://.*)?$", re.MULTILINE)


class EspeakLanguage(msgspec.Struct, frozen=True, array_like=True):
    """A language voice of espeak.

    `identifier` is its file under `lang`, the only name that espeak never takes for another.
    `tags` are (language tag in lower case, priority): the lower, the fitter for that tag.
    """

    identifier: str
    name: str
    tags: tuple[tuple[str, int], ...]

    @property
    def tag(self) -> str:
        """The tag that comes first."""
        return self.tags[0][0]


def languages_in(data: Path) -> list[EspeakLanguage]:
    """The language voices in a folder espeak-ng-data, in the order in which espeak lists them.

    A file of a voice has lines "name NAME", "language TAG PRIORITY" and "dictionary NAME"
    (espeak-ng, docs/voices.md). Voices without a dictionary are left out: those only spell. Raises
    OSError.
    """
    folder = data / "lang"
    found: list[EspeakLanguage] = []
    for path in folder.rglob("*"):
        if path.is_file():
            lines = _LINE.findall(path.read_text(encoding="utf-8", errors="replace"))
            tags = tuple(_tag(value) for word, value in lines if word == "language")
            given = {word: value for word, value in reversed(lines)}
            name = given.get("dictionary", tags[0][0].partition("-")[0] if tags else "")
            if tags and (data / f"{name}_dict").exists():
                identifier = path.relative_to(folder).as_posix()
                found.append(EspeakLanguage(identifier, given.get("name", ""), tags))
    return sorted(found, key=lambda one: (one.tags[0], one.name))


def _tag(value: str) -> tuple[str, int]:
    tag, _, priority = value.partition(" ")
    return tag.lower(), int(priority) if priority.strip().isdigit() else _DEFAULT_PRIORITY


class Manner(msgspec.Struct, frozen=True, array_like=True):
    """How to speak. `voice` is an identifier, or one with "+variant"; pitch and range 0..100."""

    voice: str
    words_per_minute: int
    pitch: int = 50
    pitch_range: int = 50


class SpeakRequest(msgspec.Struct, frozen=True, array_like=True):
    """A text; it is left at the end of a clause when max_samples of audio are made."""

    text: str
    manner: Manner
    max_samples: int


class SpokenChunk(msgspec.Struct, frozen=True, array_like=True):
    """16-bit mono PCM; words as (offset in the text, length, sample since the request).

    `next_offset`: where in the text to go on, if it was left; the last message then.
    """

    audio: bytes = b""
    words: tuple[tuple[int, int, int], ...] = ()
    next_offset: int | None = None


class Timbre(msgspec.Struct, frozen=True):
    """What makes a voice of any language: one of espeak's variants, pitch and range 0..100."""

    variant: str
    pitch: int
    pitch_range: int
    description: str


TIMBRES = {
    "alloy": Timbre("f1", 30, 40, "between the sexes, even"),
    "ash": Timbre("m3", 50, 50, "man, plain"),
    "ballad": Timbre("Reed", 55, 75, "man, soft and melodic"),
    "cedar": Timbre("m1", 40, 45, "man, low and warm"),
    "coral": Timbre("f5", 55, 55, "woman, bright"),
    "echo": Timbre("m7", 65, 35, "man, even"),
    "fable": Timbre("Michael", 72, 80, "man, telling a story"),
    "marin": Timbre("f2", 50, 50, "woman, clear"),
    "nova": Timbre("belinda", 50, 60, "woman, young"),
    "onyx": Timbre("david", 45, 45, "man, deep"),
    "sage": Timbre("f4", 45, 40, "woman, calm"),
    "shimmer": Timbre("Annie", 60, 60, "woman, high and light"),
    "verse": Timbre("pablo", 70, 90, "man, lively"),
}


class EspeakVoices:
    """Every voice, and how to have espeak speak with it."""

    def __init__(self, languages: Iterable[EspeakLanguage], default: str) -> None:
        """`default` is the language that the named voices speak when none is asked for.

        Raises EngineError if espeak does not know it.
        """
        self._by_tag: dict[str, EspeakLanguage] = {}
        self._own: dict[str, EspeakLanguage] = {}
        fitness: dict[str, int] = {}
        for language in languages:
            file_name = language.identifier.rpartition("/")[2].lower()
            self._own[file_name] = language
            for tag, priority in ((file_name, 0), *language.tags):
                if priority < fitness.get(tag, 256):
                    fitness[tag] = priority
                    self._by_tag[tag] = language
        for language in tuple(self._own.values()):
            self._own.setdefault(language.tag, language)
        found = self._find(default)
        if found is None:
            raise EngineError(
                f"[engines.tts.espeak] espeak-ng has no language {default!r}; it has for example "
                f"{', '.join(sorted(self._own)[:5])}, en-us"
            )
        self._default = found

    def voices(self) -> tuple[Voice, ...]:
        """The named ones first, then one for each language."""
        tags = tuple(sorted({tag.partition("-")[0] for tag in self._own}))
        named = (Voice(name, tags, timbre.description) for name, timbre in TIMBRES.items())
        own = (
            Voice(name, tuple(tag for tag, _ in language.tags), language.name)
            for name, language in sorted(self._own.items())
        )
        return (*named, *own)

    def manner(
        self, text: str, voice: str, language: str | None, words_per_minute: int
    ) -> tuple[Manner, str]:
        """How to speak the text with that voice, and the tag of the language that is spoken.

        A text in a script that neither the language nor the voice is written in is spoken in the
        language of its script. A voice of another language gives way to one of the text's; a
        language that espeak does not know is read as the voice's own. Raises EngineError: no such
        voice.
        """
        timbre = TIMBRES.get(voice)
        native = self._default if timbre else self._own.get(voice)
        if native is None:
            raise EngineError(
                f"[engines.tts.espeak] no voice {voice!r}; there are {', '.join(TIMBRES)}, "
                "and languages such as en-us, de, fr"
            )
        wanted = spoken_language(text, language or native.tag)
        if wanted != language:
            wanted = spoken_language(text, native.tag)
        spoken = native
        if wanted and not _speaks(native, wanted):
            spoken = self._find(wanted) or native
        if timbre is None:
            return Manner(spoken.identifier, words_per_minute), spoken.tag
        voice = f"{spoken.identifier}+{timbre.variant}"
        return Manner(voice, words_per_minute, timbre.pitch, timbre.pitch_range), spoken.tag

    def _find(self, language: str) -> EspeakLanguage | None:
        tag = language.lower().replace("_", "-")
        return self._by_tag.get(tag) or self._by_tag.get(tag.partition("-")[0])


def _speaks(voice: EspeakLanguage, language: str) -> bool:
    return language.lower().replace("_", "-") in {tag for tag, _ in voice.tags}
