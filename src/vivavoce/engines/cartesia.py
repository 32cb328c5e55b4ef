"""Synthesis with Cartesia: wss://api.cartesia.ai/tts/websocket.

https://docs.cartesia.ai/api-reference/tts/websocket
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from vivavoce.engines.base import Capabilities, Mark, Speech
from vivavoce.engines.remote import ServerKind
from vivavoce.engines.socket_tts import SocketTTS, SocketTTSSettings, SpeechContext, SpeechProgress
from vivavoce.engines.sockets import Query, server_of

VERSION = "2025-04-16"
MIN_SPEED, MAX_SPEED = 0.6, 1.5


class CartesiaSettings(SocketTTSSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[engines.tts.cartesia]`."""

    base_url: str = "https://api.cartesia.ai"
    model: str = "sonic-3"
    voices: dict[str, str] = msgspec.field(
        default_factory=lambda: {"katie": "f786b574-daa5-4673-aa0c-cbe3e8534c02"}
    )
    language: str = "en"
    """Where neither the session nor the script of the text says another."""


class CartesiaTTS(SocketTTS):
    """One connection for all; a context a text, or an answer that is given as it comes."""

    Settings = CartesiaSettings
    capabilities = Capabilities(streams_text=True, word_times="exact", models="those of Cartesia")

    def __init__(self, settings: CartesiaSettings) -> None:
        self._language = settings.language
        kind = ServerKind("TTS", "speech", "model, voices and language")
        server = server_of(settings, kind, key_header="X-API-Key", key_scheme="")
        self.connect_to(settings, server, "tts/websocket")
        self.speak_with(settings)

    def first_query(self) -> Query:
        return {"cartesia_version": VERSION, **self._settings.query}

    def path_for(self, voice: str) -> str:
        return "tts/websocket"

    def whole(self, context: SpeechContext, text: str) -> Iterable[object]:
        return (self._request(context, text, goes_on=False),)

    def piece(self, context: SpeechContext, text: str) -> Iterable[object]:
        return (self._request(context, text, goes_on=True),)

    def finishing(self, context: SpeechContext) -> Iterable[object]:
        return (self._request(context, "", goes_on=False),)

    def _request(self, context: SpeechContext, text: str, *, goes_on: bool) -> object:
        request: dict[str, Any] = {
            "model_id": self._settings.model,
            "transcript": text,
            "voice": {"mode": "id", "id": context.voice},
            "language": (context.language or self._language).partition("-")[0].lower(),
            "context_id": context.id,
            "output_format": {
                "container": "raw",
                "encoding": "pcm_s16le",
                "sample_rate": self.sample_rate,
            },
            "add_timestamps": True,
            "continue": goes_on,
        }
        if goes_on:
            request["max_buffer_delay_ms"] = 0  # text comes in pieces that can be spoken
        if context.speed != 1.0:
            request["generation_config"] = {"speed": min(max(context.speed, MIN_SPEED), MAX_SPEED)}
        return request

    def cancelling(self, context: str) -> object:
        return {"context_id": context, "cancel": True}

    def context_of(self, event: dict[str, Any]) -> str:
        return str(event.get("context_id", ""))

    def read(self, event: dict[str, Any], spoken: SpeechProgress) -> Speech | None:
        match event:
            case {"type": "chunk", "data": str(audio)}:
                return Speech(spoken.take(audio))
            case {
                "type": "timestamps",
                "word_timestamps": {"words": list() as words, "start": list() as starts},
            }:
                marks: tuple[Mark, ...] = ()
                for word, start in zip(words, starts, strict=False):
                    marks += spoken.mark(
                        str(word), spoken.begun + round(float(start) * spoken.rate)
                    )
                return Speech(b"", marks)
            case {"type": "error"}:
                reason = event.get("message") or event.get("error") or event.get("title")
                raise self._server.failed(reason)
            case {"type": "done"}:
                return None
        return Speech(b"")
