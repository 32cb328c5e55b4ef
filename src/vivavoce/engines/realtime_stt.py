"""Recognition by a transcription session at another Realtime server: OpenAI's, or a Vivavoce."""

import base64
from typing import Any

from vivavoce.engines.base import Capabilities
from vivavoce.engines.socket_stt import HeardParts, SocketSTT
from vivavoce.engines.sockets import Query, Socket, SocketSettings

PREFIX = "conversation.item.input_audio_transcription."


class RealtimeSTTSettings(SocketSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[engines.stt.realtime]`."""

    base_url: str = "https://api.openai.com/v1"
    model: str = "gpt-4o-mini-transcribe"


class RealtimeSTT(SocketSTT):
    """A session an utterance, without turn detection: the end of the audio commits it."""

    Settings = RealtimeSTTSettings
    capabilities = Capabilities(models="those of the server")
    sample_rate = 24_000
    path = "realtime"

    def query_for(self, language: str | None) -> Query:
        return {"intent": "transcription"} | self._settings.query

    async def open(self, socket: Socket, language: str | None, prompt: str) -> None:
        asked = {"model": self._settings.model, "language": language, "prompt": prompt}
        heard = {
            "format": {"type": "audio/pcm", "rate": self.sample_rate},
            "transcription": {name: value for name, value in asked.items() if value},
            "turn_detection": None,
        }
        session = {"type": "transcription", "audio": {"input": heard}}
        await self.send(socket, {"type": "session.update", "session": session})

    def audio(self, pcm: bytes) -> object:
        audio = base64.b64encode(pcm).decode()
        return {"type": "input_audio_buffer.append", "audio": audio}

    def end(self) -> tuple[object, ...]:
        return ({"type": "input_audio_buffer.commit"},)

    def read(self, event: dict[str, Any], heard: HeardParts) -> bool:
        kind = str(event.get("type"))
        match kind.removeprefix(PREFIX), event:
            case "delta", {"delta": str(delta)}:
                heard.drafts[0] = heard.drafts.get(0, "") + delta
            case "completed", {"transcript": str(text)}:
                heard.keep(0, text)
                return True
            case (("failed" | "error"), {"error": reason}):
                raise self.failed(reason)
        return False
