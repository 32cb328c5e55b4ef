"""Speech recognition behind POST /audio/transcriptions of any endpoint that speaks OpenAI's API.

An utterance is sent as a WAV file when it is complete; where the service streams, its words come as
server-sent events (`transcript.text.delta`, `transcript.text.done`).
"""

import array
import asyncio
import struct
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import aiohttp
import msgspec

from vivavoce.engines.base import Capabilities, Transcript
from vivavoce.engines.http import HttpResponse, PositiveSeconds, ResponseTimeouts
from vivavoce.engines.openai.endpoint import Endpoint, EndpointSettings, SpeechEngine
from vivavoce.engines.remote import ServerKind
from vivavoce.engines.sse import SseReader
from vivavoce.errors import EngineError
from vivavoce.protocol import json

SAMPLE_RATE = 16_000
MAX_AUDIO_BYTES = 24 << 20
"""13 minutes: OpenAI takes files of at most 25 MB."""
MIN_AUDIO_BYTES = SAMPLE_RATE // 2  # 250 ms; OpenAI refuses less than 100 ms
SILENT_PEAK = 33
"""A recording without a louder sample (-60 dB of full scale) is not sent: it has no words."""
MAX_ANSWER_BYTES = 1 << 22

_KIND = ServerKind("STT", "a transcript")
_decoder = msgspec.json.Decoder(dict[str, Any])


class OpenAISTTSettings(EndpointSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which server and model, and how long to wait for them."""

    model: str = "gpt-4o-mini-transcribe"
    first_result_seconds: PositiveSeconds = 20.0
    """From the end of the utterance to the first word."""
    stream: bool = True
    """Ask for words as they are recognised. A service that cannot do that gives all at once."""


class OpenAISTT(SpeechEngine):
    """Sends each utterance when it ends, on kept-alive connections."""

    Settings = OpenAISTTSettings
    capabilities = Capabilities(streaming_input=False, models="those of the endpoint")
    sample_rate = SAMPLE_RATE

    def __init__(self, settings: OpenAISTTSettings) -> None:
        self._model = settings.model
        self._extra = settings.extra
        self._stream = [settings.stream]  # shared by all models of the endpoint
        timeouts = ResponseTimeouts(settings.first_result_seconds, settings.gap_seconds)
        self._endpoint = Endpoint(settings, _KIND, timeouts)

    async def transcribe(
        self, audio: AsyncIterator[bytes], *, language: str | None, prompt: str
    ) -> AsyncGenerator[Transcript]:
        """As base.STT has it. Closing it before its end closes the connection at once."""
        pcm = bytearray()
        async for piece in audio:
            pcm += piece
            if len(pcm) > MAX_AUDIO_BYTES:
                raise EngineError(
                    f"an utterance is longer than {MAX_AUDIO_BYTES >> 20} MiB of audio, more than "
                    f"{self._endpoint.server.name} takes; end turns earlier"
                )
        if _is_silent(pcm):
            yield Transcript("", 0, final=True)
            return
        pcm += bytes(max(0, MIN_AUDIO_BYTES - len(pcm)))
        async with aclosing(self._ask(wav_file(bytes(pcm)), language, prompt)) as transcripts:
            async for transcript in transcripts:
                yield transcript

    async def _ask(
        self, wav: bytes, language: str | None, prompt: str
    ) -> AsyncGenerator[Transcript]:
        endpoint = self._endpoint
        for may_retry in (self._stream[0], False):
            stream = self._stream[0]

            def form(stream: bool = stream) -> aiohttp.FormData:
                return self._form(wav, language, prompt, stream=stream)

            endpoint.used()
            async with endpoint.client.request(
                "POST", "audio/transcriptions", form, timeouts=endpoint.timeouts
            ) as response:
                if response.status == 200:
                    async with aclosing(self._transcripts(response)) as transcripts:
                        async for transcript in transcripts:
                            yield transcript
                    return
                refusal = await response.refusal(endpoint.connect_timeout_s, self._model)
            if not (may_retry and response.status in (400, 422) and "stream" in str(refusal)):
                raise refusal
            self._stream[0] = False

    def _form(
        self, wav: bytes, language: str | None, prompt: str, *, stream: bool
    ) -> aiohttp.FormData:
        fields: dict[str, Any] = {
            "model": self._model,
            "response_format": "json",
            "language": language.partition("-")[0].lower() if language else None,
            "prompt": prompt or None,
            "stream": "true" if stream else None,
        } | self._extra
        form = aiohttp.FormData()
        form.add_field("file", wav, filename="audio.wav", content_type="audio/wav")
        for name, value in fields.items():
            for each in value if isinstance(value, list) else [value]:
                if each is not None:
                    form.add_field(name, str(each).lower() if isinstance(each, bool) else str(each))
        return form

    async def _transcripts(self, response: HttpResponse) -> AsyncGenerator[Transcript]:
        """Raises EngineError: the answer is not a transcript, breaks off, or is late."""
        server = self._endpoint.server
        if response.content_type == "text/event-stream":
            text, ended = "", False
            async with aclosing(self._events(response)) as events:
                async for event in events:
                    whole, delta = _words(event)
                    ended = whole is not None
                    text = text + delta if whole is None else whole
                    if ended:
                        break
                    yield Transcript(text, 0)
            if not ended and not text:
                raise server.broken_off()
            response.complete = True
            yield _final(text)
            return
        deadline = asyncio.get_running_loop().time() + self._endpoint.timeouts.first_s
        body = await response.read(MAX_ANSWER_BYTES, deadline)
        found = self._object(body.decode(errors="replace"))
        if not isinstance(found.get("text"), str):
            raise server.unexpected("something else")
        yield _final(found["text"])

    async def _events(self, response: HttpResponse) -> AsyncGenerator[dict[str, Any]]:
        reader = SseReader(self._endpoint.server.name)
        async with aclosing(response.parts()) as parts:
            async for part in parts:
                for data in reader.feed(part):
                    if data.strip() == "[DONE]":
                        return
                    yield self._object(data)
        for data in reader.close():
            yield self._object(data)

    def _object(self, data: str) -> dict[str, Any]:
        try:
            found = json.decode(data, _decoder)
        except (ValueError, RecursionError) as exc:
            raise self._endpoint.server.unexpected("something else") from exc
        if found.get("error") is not None:
            raise self._endpoint.server.failed(found["error"])
        return found


def wav_file(pcm: bytes, sample_rate: int = SAMPLE_RATE) -> bytes:
    """16-bit mono PCM with the 44 bytes of a RIFF WAVE head before it."""
    head = struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF",
        36 + len(pcm),
        b"WAVE",
        b"fmt ",
        16,  # bytes of this chunk
        1,  # PCM
        1,  # channel
        sample_rate,
        2 * sample_rate,  # bytes a second
        2,  # bytes of a frame
        16,  # bits of a sample
        b"data",
        len(pcm),
    )
    return head + pcm


def _is_silent(pcm: bytearray) -> bool:
    samples = array.array("h", bytes(pcm[: len(pcm) // 2 * 2]))
    return not samples or max(max(samples), -min(samples)) <= SILENT_PEAK


def _words(event: dict[str, Any]) -> tuple[str | None, str]:
    """(the whole text, or None; what the text grew by) of one event.

    Events without a type are segments, as of speaches.
    """
    match event:
        case {"type": "transcript.text.done", "text": str(text)}:
            return text, ""
        case {"type": "transcript.text.delta", "delta": str(delta)}:
            return None, delta
        case {"text": str(text)} if "type" not in event:
            return None, text
    return None, ""


def _final(text: str) -> Transcript:
    text = text.strip()
    return Transcript(text, len(text), final=True)
