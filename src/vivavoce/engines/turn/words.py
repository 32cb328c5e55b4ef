"""End of turn by the words alone, see engines/turn/text.py. No weights, a few microseconds."""

import msgspec

from vivavoce.engines.base import BaseEngine, Capabilities
from vivavoce.engines.turn.text import likelihood


class WordsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[engines.turn.words]`."""

    default_language: str = "en"
    """Of transcripts whose language is not known."""


class WordsTurn(BaseEngine):
    """Decides by the last and the first words of a turn."""

    Settings = WordsSettings
    capabilities = Capabilities(languages=("en", "de", "fr", "es", "it"), licence="Apache-2.0")

    def __init__(self, settings: WordsSettings) -> None:
        self._settings = settings

    async def score(self, text: str, *, language: str | None) -> float:
        return likelihood(text, language or self._settings.default_language)
