"""Recognition with AssemblyAI's Universal-Streaming: wss://streaming.assemblyai.com/v3/ws.

https://www.assemblyai.com/docs/api-reference/streaming-api
"""

from typing import Any

from vivavoce.engines.base import Capabilities, Word
from vivavoce.engines.socket_stt import HeardParts, SocketSTT
from vivavoce.engines.sockets import Query, SocketSettings


class AssemblyAISettings(SocketSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[engines.stt.assemblyai]`."""

    base_url: str = "https://streaming.assemblyai.com/v3"
    model: str = "universal-streaming-multilingual"


class AssemblyAISTT(SocketSTT):
    """A connection an utterance: the time that it is open is charged."""

    Settings = AssemblyAISettings
    capabilities = Capabilities(word_times="exact", models="those of AssemblyAI")
    path = "ws"
    key_scheme = ""

    def query_for(self, language: str | None) -> Query:
        return {
            "speech_model": self._settings.model,
            "encoding": "pcm_s16le",
            "sample_rate": str(self.sample_rate),
            "format_turns": "true",
        } | self._settings.query

    def end(self) -> tuple[object, ...]:
        return ({"type": "ForceEndpoint"}, {"type": "Terminate"})

    def read(self, event: dict[str, Any], heard: HeardParts) -> bool:
        match event:
            case {"type": "Turn", "turn_order": int(number), "transcript": str(text)}:
                if event.get("end_of_turn") and event.get("turn_is_formatted"):
                    heard.keep(number, text)
                    heard.words += _words(event)
                elif number not in heard.parts:
                    heard.drafts[number] = text.strip()
            case {"type": "Termination"}:
                return True
            case {"type": "Error"} | {"error": str()}:
                raise self.failed(event.get("error") or "")
        return False


def _words(turn: dict[str, Any]) -> list[Word]:
    found = []
    for word in turn.get("words", ()):
        match word:
            case {"text": str(text), "start": int(start), "end": int(end)}:
                found.append(Word(text, start, end))
    return found
