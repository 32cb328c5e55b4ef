"""The voices that espeak is given: the names OpenAI uses, and espeak's own languages."""

from collections.abc import Iterable
from dataclasses import dataclass

from vivavoce.engines.base import Voice
from vivavoce.engines.espeak.library import Language, Manner
from vivavoce.errors import EngineError


@dataclass(frozen=True, slots=True)
class Timbre:
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


class Catalogue:
    """Every voice, and what espeak needs to know to speak with it."""

    def __init__(self, languages: Iterable[Language], default: str) -> None:
        """`default` is the language that the named voices speak when none is asked for.

        Raises EngineError if espeak does not know it.
        """
        self._by_tag: dict[str, Language] = {}
        self._own: dict[str, Language] = {}
        fitness: dict[str, int] = {}
        for language in languages:
            file_name = language.identifier.rpartition("/")[2].lower()
            self._own[file_name] = language
            for tag, priority in ((file_name, 0), *language.tags):
                if priority < fitness.get(tag, 256):
                    fitness[tag] = priority
                    self._by_tag[tag] = language
        for language in tuple(self._own.values()):
            self._own.setdefault(language.tags[0][0], language)
        found = self._find(default)
        if found is None:
            raise EngineError(
                f"[tts.espeak] espeak-ng has no language {default!r}; it has for example "
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

    def manner(self, voice: str, language: str | None, words_per_minute: int) -> Manner:
        """How to speak a text of that language with that voice.

        A voice of another language gives way to one of the text's; a language that espeak does
        not know is read as the voice's own. Raises EngineError: no such voice.
        """
        timbre = TIMBRES.get(voice)
        native = self._default if timbre else self._own.get(voice)
        if native is None:
            raise EngineError(
                f"tts espeak: no voice {voice!r}; there are {', '.join(TIMBRES)}, "
                "and languages such as en-us, de, fr"
            )
        spoken = native
        if language and not _speaks(native, language):
            spoken = self._find(language) or native
        if timbre is None:
            return Manner(spoken.identifier, words_per_minute)
        return Manner(
            f"{spoken.identifier}+{timbre.variant}",
            words_per_minute,
            timbre.pitch,
            timbre.pitch_range,
        )

    def _find(self, language: str) -> Language | None:
        tag = language.lower().replace("_", "-")
        return self._by_tag.get(tag) or self._by_tag.get(tag.partition("-")[0])


def _speaks(voice: Language, language: str) -> bool:
    return language.lower().replace("_", "-") in {tag for tag, _ in voice.tags}
