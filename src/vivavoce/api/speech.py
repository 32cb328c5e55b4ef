"""POST /v1/audio/speech: a text, spoken; its audio is sent from the first clause on."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
from aiohttp import web

from vivavoce.api.metered import check_model, metered
from vivavoce.api.requests import CONTEXT, read_body, unless_gone
from vivavoce.api.sse import EventStream, write
from vivavoce.audio.formats import RATE
from vivavoce.errors import EngineError, InvalidRequest
from vivavoce.media.encoding import CONTENT_TYPES, FileEncoder, FileFormat
from vivavoce.protocol import json
from vivavoce.protocol.codec import Reader
from vivavoce.protocol.rest_audio import SpeechDelta, SpeechDone, SpeechRequest, SpeechUsage
from vivavoce.runtime.catalog import Cascade
from vivavoce.runtime.concurrency import in_thread, prefetched
from vivavoce.runtime.synthesis import STALL_TIMEOUT_S, Synthesis
from vivavoce.session.usage import SPOKEN_TOKEN, estimate

MAX_BODY_BYTES = 1 << 20
READ_TIMEOUT_S = 60.0
"""For the body of a request."""
PIECES_AHEAD = 64
ENCODED_MS = 200
"""Encoded at a time: 2 ms of work."""
FLAC_HELD_SECONDS = 30
"""A FLAC answer up to this length is sent only when it is complete, with its length in the header:
libsndfile cannot read one without."""
_SAMPLE_TEXT = "Hello! This is how I sound when I read a sentence aloud."

_reader: Reader[SpeechRequest] = Reader(SpeechRequest)


class SpeechJob(msgspec.Struct):
    """A text, its voice, and the format of the file."""

    synthesis: Synthesis
    text: str
    format: FileFormat = "mp3"
    samples: int = 0
    """Spoken so far."""

    @property
    def usage(self) -> SpeechUsage:
        """In the units of Realtime sessions."""
        text, audio = estimate(self.text), -(-self.samples // SPOKEN_TOKEN)
        return SpeechUsage(text, audio, text + audio)

    async def encoded(self) -> AsyncGenerator[bytes]:
        """The file, as it is made. Raises EngineError."""
        encoder = await in_thread(FileEncoder, self.format)  # the first one loads the codecs
        held: bytearray | None = bytearray() if self.format == "flac" else None
        async with aclosing(self.synthesis.text(self.text)) as pieces:
            async for piece in pieces:
                self.samples += len(piece.audio) // 2
                made = encoder.feed(piece.audio)
                if held is not None:
                    held += made
                    if self.samples <= FLAC_HELD_SECONDS * RATE:
                        continue
                    made, held = bytes(held), None
                if made:
                    yield made
        rest = encoder.finish()
        if held is not None:
            held += rest
            encoder.write_length(held)
            rest = bytes(held)
        if rest:
            yield rest


class SpeechRoutes:
    """Routes for speech synthesis with the configured models."""

    def __init__(self, *, stall_timeout_s: float = STALL_TIMEOUT_S) -> None:
        self._stall_timeout_s = stall_timeout_s

    def add_to(self, app: web.Application) -> None:
        app.router.add_post("/v1/audio/speech", self.create)
        app.router.add_get("/v1/audio/voices/{voice}/sample", self.sample)

    async def create(self, request: web.Request) -> web.StreamResponse:
        """Raises InvalidRequest, and EngineError before the first audio."""
        body = await read_body(request, MAX_BODY_BYTES, READ_TIMEOUT_S)
        asked = _reader.read(json.replace_lone_surrogates(body))
        if not asked.input.strip():
            raise InvalidRequest("There is no text to speak.", code="invalid_value", param="input")
        model = asked.model or request.query.get("model", "")  # of an Azure deployment
        answer = _as_events if asked.stream_format == "sse" else _as_file
        name, cascade = _check_model(request, model)
        async with metered(request, name) as meter, cascade.use_tts(model) as tts:
            synthesis = Synthesis(
                tts,
                cascade.voice_of(tts, asked.voice_id),
                speed=asked.speed,
                instructions=asked.instructions,
                max_piece_ms=ENCODED_MS,
                stall_timeout_s=self._stall_timeout_s,
            )
            job = SpeechJob(synthesis, asked.input, asked.response_format)
            try:
                return await unless_gone(request, answer(request, job))
            finally:
                if job.samples:
                    meter.speech(name, len(asked.input), job.samples * 1000 // RATE)

    async def sample(self, request: web.Request) -> web.StreamResponse:
        model, voice = request.query.get("model", ""), request.match_info["voice"]
        _, cascade = _check_model(request, model)
        async with cascade.use_tts(model) as tts:
            if voice not in {known.id for known in tts.voices}:
                raise web.HTTPNotFound
            synthesis = Synthesis(
                tts, voice, max_piece_ms=ENCODED_MS, stall_timeout_s=self._stall_timeout_s
            )
            return await unless_gone(request, _as_file(request, SpeechJob(synthesis, _SAMPLE_TEXT)))


def _check_model(request: web.Request, asked: str) -> tuple[str, Cascade]:
    """The configured model that speaks. Raises InvalidRequest if the key does not allow it."""
    catalog = request[CONTEXT].catalog
    name, cascade = catalog.name_of(asked), catalog.of(asked)
    served, own = cascade.speech_model(asked), cascade.speech_model("")
    check_model(request, asked, name, served=served, own=own)
    return name, cascade


async def _as_file(request: web.Request, job: SpeechJob) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": CONTENT_TYPES[job.format]})
    try:
        async with prefetched(job.encoded(), PIECES_AHEAD) as pieces:
            async for piece in pieces:
                await write(request, response, piece)
    except EngineError as exc:
        if not response.prepared:
            raise
        # Too late for an error message; at least the file must not look complete.
        raise ConnectionResetError("the synthesiser failed on the way") from exc
    await response.write_eof()
    return response


async def _as_events(request: web.Request, job: SpeechJob) -> web.StreamResponse:
    async with (
        EventStream(request) as stream,
        prefetched(job.encoded(), PIECES_AHEAD) as pieces,
    ):
        async for piece in pieces:
            await stream.send(SpeechDelta(piece))
        await stream.send(SpeechDone(job.usage))
    return stream.response
