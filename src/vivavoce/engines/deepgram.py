"""Recognition with Deepgram: wss://api.deepgram.com/v1/listen.

https://developers.deepgram.com/reference/speech-to-text/listen-streaming
"""

from typing import Any

from vivavoce.engines.base import Capabilities, Word
from vivavoce.engines.socket_stt import HeardParts, SocketSTT
from vivavoce.engines.sockets import Query, SocketSettings


class DeepgramSettings(SocketSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[engines.stt.deepgram]`."""

    base_url: str = "https://api.deepgram.com/v1"
    model: str = "nova-3"
    language: str = "en"
    """Where the session names none; `multi`: several."""


class DeepgramSTT(SocketSTT):
    """A connection an utterance; CloseStream asks for the last words."""

    Settings = DeepgramSettings
    capabilities = Capabilities(word_times="exact", models="those of Deepgram")
    path = "listen"
    key_scheme = "Token"
    named_settings = "model, language and query"
    _settings: DeepgramSettings

    def query_for(self, language: str | None) -> Query:
        return {
            "model": self._settings.model,
            "language": language or self._settings.language,
            "encoding": "linear16",
            "sample_rate": str(self.sample_rate),
            "channels": "1",
            "interim_results": "true",
            "smart_format": "true",
        } | self._settings.query

    def end(self) -> tuple[object, ...]:
        return ({"type": "CloseStream"},)

    def read(self, event: dict[str, Any], heard: HeardParts) -> bool:
        match event:
            case {
                "type": "Results",
                "channel": {"alternatives": [{"transcript": str(text)} as best]},
            }:
                if event.get("is_final"):
                    heard.keep(len(heard.parts), text)
                    heard.words += _words(best)
                else:
                    heard.drafts[len(heard.parts)] = text.strip()
            case {"type": "Metadata"}:  # after CloseStream, when all words have come
                return True
            case {"type": "Error"}:
                raise self.failed(event.get("description") or event.get("message") or "")
        return False


def _words(best: dict[str, Any]) -> list[Word]:
    found = []
    for word in best.get("words", ()):
        match word:
            case {
                "word": str(text),
                "start": float() | int() as start,
                "end": float() | int() as end,
            }:
                shown = word.get("punctuated_word") or text
                found.append(Word(str(shown), round(start * 1000), round(end * 1000)))
    return found
