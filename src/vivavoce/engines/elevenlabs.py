"""Synthesis with ElevenLabs: wss://api.elevenlabs.io/v1/text-to-speech/VOICE/multi-stream-input.

https://elevenlabs.io/docs/api-reference/text-to-speech/v-1-text-to-speech-voice-id-multi-stream-input
"""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from vivavoce.engines.base import Capabilities, Mark, Speech
from vivavoce.engines.remote import ServerKind
from vivavoce.engines.socket_tts import SocketTTS, SocketTTSSettings, SpeechContext, SpeechProgress
from vivavoce.engines.sockets import Query, server_of

MIN_SPEED, MAX_SPEED = 0.7, 1.2
INACTIVITY_TIMEOUT_S = 180
"""The longest that the service allows between two texts of a connection."""


class ElevenLabsSettings(SocketTTSSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[engines.tts.elevenlabs]`."""

    base_url: str = "https://api.elevenlabs.io/v1"
    model: str = "eleven_flash_v2_5"
    voices: dict[str, str] = msgspec.field(
        default_factory=lambda: {"george": "JBFqnCBsd6RMkjVDRZzb"}
    )


class ElevenLabsTTS(SocketTTS):
    """A connection a voice; a context a text, or an answer that is given as it comes."""

    Settings = ElevenLabsSettings
    capabilities = Capabilities(streams_text=True, word_times="exact", models="those of ElevenLabs")

    def __init__(self, settings: ElevenLabsSettings) -> None:
        kind = ServerKind("TTS", "speech", "model, voices and query")
        server = server_of(settings, kind, key_header="xi-api-key", key_scheme="")
        self.connect_to(settings, server, "")
        self.speak_with(settings)

    def first_query(self) -> Query:
        return {
            "model_id": self._settings.model,
            "output_format": f"pcm_{self.sample_rate}",
            "inactivity_timeout": str(INACTIVITY_TIMEOUT_S),
            "sync_alignment": "true",
        } | self._settings.query

    def path_for(self, voice: str) -> str:
        return f"text-to-speech/{voice}/multi-stream-input"

    def whole(self, context: SpeechContext, text: str) -> Iterable[object]:
        return (*self.piece(context, text), *self.finishing(context))

    def piece(self, context: SpeechContext, text: str) -> Iterable[object]:
        if context.empty:
            begin: dict[str, Any] = {"text": " ", "context_id": context.id}
            if context.speed != 1.0:
                speed = min(max(context.speed, MIN_SPEED), MAX_SPEED)
                begin["voice_settings"] = {"speed": speed}
            yield begin
        # flushed: text comes in pieces that can be spoken, and the service would wait for more
        yield {"text": f"{text.rstrip()} ", "context_id": context.id, "flush": True}

    def finishing(self, context: SpeechContext) -> Iterable[object]:
        return (self.cancelling(context.id),)

    def cancelling(self, context: str) -> object:
        return {"context_id": context, "close_context": True}

    def context_of(self, event: dict[str, Any]) -> str:
        return str(event.get("contextId") or event.get("context_id") or "")

    def read(self, event: dict[str, Any], spoken: SpeechProgress) -> Speech | None:
        match event:
            case {"audio": str(audio)} if audio:
                marks: tuple[Mark, ...] = ()
                for word, ms in _words(event.get("alignment")):
                    marks += spoken.mark(word, spoken.samples + ms * spoken.rate // 1000)
                return Speech(spoken.take(audio), marks)
            case {"error": reason}:
                raise self._server.failed(event.get("message") or reason)
            case {"isFinal": True} | {"is_final": True}:
                return None
        return Speech(b"")


def _words(alignment: Any) -> Iterator[tuple[str, int]]:
    """Words, and the milliseconds from the start of their piece at which they begin."""
    match alignment:
        case {"chars": list() as chars, "charStartTimesMs": list() as starts}:
            word, begun = "", 0
            for char, ms in zip(chars, starts, strict=False):
                if str(char).isspace():
                    if word:
                        yield word, begun
                    word = ""
                else:
                    begun = begun if word else int(ms)
                    word += str(char)
            if word:
                yield word, begun
