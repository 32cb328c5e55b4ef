"""Speech synthesis behind POST /audio/speech of any endpoint that speaks OpenAI's API.

The audio is passed on as it comes: chunked PCM or WAV, or server-sent events
(`speech.audio.delta`).
"""

import asyncio
import base64
import binascii
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from vivavoce.audio.resample import Resampler
from vivavoce.engines.base import OPENAI_VOICES, Capabilities, Speech, Voice
from vivavoce.engines.http import HttpResponse, PositiveSeconds, ResponseTimeouts
from vivavoce.engines.openai.endpoint import Endpoint, EndpointSettings, SpeechEngine
from vivavoce.engines.remote import RemoteServer, ServerKind
from vivavoce.engines.speech_text import says_something
from vivavoce.engines.sse import SseReader
from vivavoce.errors import AudioError, EngineError
from vivavoce.protocol import json

MAX_HEAD_BYTES = 1 << 16
"""Of a WAV file, before its samples."""
COMPRESSED_TYPES = ("audio/mpeg", "audio/mp3", "audio/aac", "audio/ogg", "audio/opus", "audio/flac")
COMPRESSED = (b"ID3", b"OggS", b"fLaC")
"""The first bytes of MP3, Ogg and FLAC files: not to be played as PCM."""

_KIND = ServerKind("TTS", "speech", "model, voice, response_format and extra")
_decoder = msgspec.json.Decoder(dict[str, Any])


class OpenAITTSSettings(EndpointSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which server, model and voices, and how long to wait for them."""

    model: str = "gpt-4o-mini-tts"
    voice: str = ""
    """The default voice. Empty: the first of `voices`."""
    voices: tuple[str, ...] = OPENAI_VOICES
    """The names that clients may ask for."""
    response_format: Literal["pcm", "wav"] = "pcm"
    stream_format: Literal["audio", "sse"] = "audio"
    sample_rate: Annotated[int, Meta(ge=8000, le=48_000)] = 24_000
    """Hertz of PCM; a WAV file says it itself."""
    instructions: str = ""
    """How to speak, for models that take instructions."""
    first_audio_seconds: PositiveSeconds = 15.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.voices and not self.voice:
            raise ValueError("voices: name at least one")


class OpenAITTS(SpeechEngine):
    """Requests one clause after another, on kept-alive connections."""

    Settings = OpenAITTSSettings
    capabilities = Capabilities(models="those of the endpoint")

    def __init__(self, settings: OpenAITTSSettings) -> None:
        self._settings = settings
        self._model = settings.model
        self.sample_rate = settings.sample_rate
        names = dict.fromkeys((*([settings.voice] if settings.voice else []), *settings.voices))
        self.voices = tuple(Voice(name, ()) for name in names)
        self.default_voice = self.voices[0].id
        timeouts = ResponseTimeouts(settings.first_audio_seconds, settings.gap_seconds)
        self._endpoint = Endpoint(settings, _KIND, timeouts)

    async def synthesize(
        self, text: str, *, voice: str, speed: float, language: str | None, instructions: str
    ) -> AsyncGenerator[Speech]:
        """As base.TTS has it. Closing it before its end closes the connection at once."""
        server = self._endpoint.server
        if voice not in {known.id for known in self.voices}:
            raise EngineError(f"{server.name} has no voice {voice!r}; add it to voices")
        if not says_something(text):
            return
        self._endpoint.used()
        async with self._endpoint.client.request(
            "POST",
            "audio/speech",
            self._body(text, voice, speed, instructions),
            timeouts=self._endpoint.timeouts,
        ) as response:
            if response.status != 200:
                raise await response.refusal(self._endpoint.connect_timeout_s, self._model)
            samples, made = _Samples(server, self.sample_rate), False
            async with aclosing(self._audio(response)) as parts:
                async for part in parts:
                    if pcm := samples.feed(part):
                        made = True
                        yield Speech(pcm)
            if rest := samples.end():
                made = True
                yield Speech(rest)
            if not made:
                raise server.unexpected("no sound")

    def _body(self, text: str, voice: str, speed: float, instructions: str) -> bytes:
        settings = self._settings
        body: dict[str, Any] = {
            "model": self._model,
            "input": text,
            "voice": voice,
            "response_format": settings.response_format,
            "speed": speed if speed != 1.0 else None,
            "instructions": instructions or settings.instructions or None,
            "stream_format": "sse" if settings.stream_format == "sse" else None,
        } | settings.extra
        return msgspec.json.encode({k: v for k, v in body.items() if v is not None})

    async def _audio(self, response: HttpResponse) -> AsyncGenerator[bytes]:
        """The bytes of the file as they come. Raises EngineError: it is something else."""
        server = self._endpoint.server
        if response.content_type == "text/event-stream":
            async with aclosing(self._events(response)) as pieces:
                async for piece in pieces:
                    yield piece
            return
        if response.content_type == "application/json":
            deadline = asyncio.get_running_loop().time() + self._endpoint.timeouts.first_s
            body = await response.read(MAX_HEAD_BYTES, deadline)
            raise server.failed(self._object(body.decode(errors="replace")))
        if response.content_type.startswith("text/"):
            raise server.unexpected("a web page")
        if response.content_type in COMPRESSED_TYPES:
            raise server.unexpected(f"{response.content_type} in place of PCM or WAV")
        async with aclosing(response.parts()) as parts:
            async for part in parts:
                yield part

    async def _events(self, response: HttpResponse) -> AsyncGenerator[bytes]:
        reader, server = SseReader(self._endpoint.server.name), self._endpoint.server
        async with aclosing(response.parts()) as parts:
            async for part in parts:
                for data in reader.feed(part):
                    if data.strip() == "[DONE]":
                        response.complete = True
                        return
                    event = self._object(data)
                    if event.get("error") is not None:
                        raise server.failed(event["error"])
                    match event:
                        case {"type": "speech.audio.delta", "audio": str(audio)} | {
                            "audio": str(audio)
                        }:
                            yield self._decoded(audio)
                        case {"type": "speech.audio.done"}:
                            response.complete = True
                            return
        raise server.broken_off()

    def _decoded(self, audio: str) -> bytes:
        try:
            return base64.b64decode(audio, validate=True)
        except binascii.Error as exc:
            raise self._endpoint.server.unexpected("something else") from exc

    def _object(self, data: str) -> dict[str, Any]:
        try:
            return json.decode(data, _decoder)
        except (ValueError, RecursionError) as exc:
            raise self._endpoint.server.unexpected("something else") from exc


class _Samples:
    """The 16-bit mono PCM in the bytes of a file that is PCM itself or a WAV file."""

    def __init__(self, server: RemoteServer, sample_rate: int) -> None:
        self._server = server
        self._rate = sample_rate
        self._resampler: Resampler | None = None
        self._held = bytearray()
        self._begun = False
        self._left: int | None = None  # bytes of samples in the WAV file; None: until the end

    def feed(self, part: bytes) -> bytes:
        """Whole samples at the rate of the engine. Raises EngineError: another kind of file."""
        self._held += part
        if not self._begun:
            if len(self._held) < 4:
                return b""
            if self._held.startswith(b"RIFF"):
                if not self._read_head():
                    return b""
            elif self._held.startswith(COMPRESSED):
                raise self._server.unexpected("a compressed file in place of PCM or WAV")
            self._begun = True
        whole = len(self._held) // 2 * 2
        if self._left is not None:
            whole = min(whole, self._left)
            self._left -= whole
        pcm = bytes(self._held[:whole])
        del self._held[:whole]
        return self._resampler.feed(pcm) if self._resampler else pcm

    def end(self) -> bytes:
        return self._resampler.flush() if self._resampler else b""

    def _read_head(self) -> bool:
        """Whether the samples begin in what has come: the chunks before `data` are read."""
        held, at = self._held, 12
        while len(held) >= at + 8:
            name = bytes(held[at : at + 4])
            size = int.from_bytes(held[at + 4 : at + 8], "little")
            if name == b"data":
                del held[: at + 8]
                # a service that streams does not know the size: 0 or the greatest possible
                self._left = size if 0 < size < 0x7FFF_0000 else None
                return True
            if name == b"fmt " and len(held) >= at + 24:
                self._read_format(bytes(held[at + 8 : at + 24]))
            at += 8 + size + size % 2
            if at > MAX_HEAD_BYTES:
                raise self._server.unexpected("a broken WAV file")
        return False

    def _read_format(self, chunk: bytes) -> None:
        channels, bits = chunk[2], chunk[14]
        rate = int.from_bytes(chunk[4:8], "little")
        if (channels, bits) != (1, 16):
            raise self._server.unexpected(f"{bits}-bit audio with {channels} channels")
        if rate != self._rate:
            try:
                self._resampler = Resampler(rate, self._rate)
            except (AudioError, ValueError) as exc:
                raise self._server.unexpected(f"audio of {rate} Hz") from exc
