"""POST /v1/audio/speech: a text, spoken; its sound goes out from the first clause on."""

import asyncio
import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass

from aiohttp import web

from vivavoce.api.events import events, write
from vivavoce.api.models import voice_of
from vivavoce.api.uploads import read_body
from vivavoce.api.work import unless_gone
from vivavoce.audio.encoding import CONTENT_TYPES, FileEncoder, FileFormat
from vivavoce.audio.formats import RATE
from vivavoce.audio.resample import Resampler
from vivavoce.engines.base import TTS, Speech
from vivavoce.errors import EngineError, InvalidRequest
from vivavoce.protocol.codec import Reader
from vivavoce.protocol.rest_audio import SpeechDelta, SpeechDone, SpeechRequest, SpeechUsage
from vivavoce.runtime.ahead import ahead
from vivavoce.runtime.blocking import blocking
from vivavoce.runtime.catalog import ModelCatalog
from vivavoce.runtime.clauses import Clauses
from vivavoce.session.usage import SPOKEN_TOKEN, estimate

MOST_BYTES = 1 << 20
READ_SECONDS = 60.0
"""For the body of a request."""
STALL_SECONDS = 30.0
"""How long an engine may make nothing."""
PIECES_AHEAD = 64
_PIECE_BYTES = 2 * RATE // 5  # encoded at a time: 2 ms of work
_FED_CHARACTERS = 1000  # cut into clauses at a time: 3 ms of work at the most
_WORD = re.compile(r"\s*\S+\s*")
_SAMPLE = "Hello! This is how I sound when I read a sentence aloud."

_reader: Reader[SpeechRequest] = Reader(SpeechRequest)


@dataclass(slots=True)
class SpeechJob:
    """What is said, by whom and how."""

    tts: TTS
    text: str
    voice: str
    format: FileFormat = "mp3"
    speed: float = 1.0
    instructions: str = ""
    stall_seconds: float = STALL_SECONDS
    samples: int = 0
    """Spoken so far."""

    @property
    def usage(self) -> SpeechUsage:
        """In the units that Realtime sessions are told, too."""
        text, sound = estimate(self.text), -(-self.samples // SPOKEN_TOKEN)
        return SpeechUsage(text, sound, text + sound)

    async def encoded(self) -> AsyncGenerator[bytes]:
        """A file in the format, as it is made. Raises EngineError."""
        encoder = await blocking(FileEncoder, self.format)  # the first one loads the codecs
        async with aclosing(self.sound()) as sound:
            async for pcm in sound:
                self.samples += len(pcm) // 2
                for piece in _cut(pcm):
                    if made := encoder.feed(piece):
                        yield made
                    await asyncio.sleep(0)  # a long piece must not keep others waiting
        if made := encoder.finish():
            yield made

    async def sound(self) -> AsyncGenerator[bytes]:
        """PCM, clause by clause. Raises EngineError."""
        for clause in _clauses(self.text):
            if not any(character.isalnum() for character in clause):
                await asyncio.sleep(0)  # nothing to say: on to the next, when others had a turn
                continue
            resampler = Resampler(self.tts.sample_rate, RATE)
            async with aclosing(
                self.tts.synthesize(
                    clause,
                    voice=self.voice,
                    speed=self.speed,
                    language=None,
                    instructions=self.instructions,
                )
            ) as speaking:
                while (speech := await self._next(speaking)) is not None:
                    yield resampler.feed(speech.audio)
            yield resampler.flush()

    async def _next(self, speaking: AsyncGenerator[Speech]) -> Speech | None:
        try:
            async with asyncio.timeout(self.stall_seconds):
                return await anext(speaking, None)
        except TimeoutError as exc:
            raise EngineError(f"the voice made no sound for {self.stall_seconds:g} s") from exc


class SpeechRoutes:
    """Speaks with the engines of `brains`. `default_voice` stands for voices that there are not."""

    def __init__(
        self, brains: ModelCatalog, default_voice: str = "", *, stall_seconds: float = STALL_SECONDS
    ) -> None:
        self._brains = brains
        self._default_voice = default_voice
        self._stall_seconds = stall_seconds

    def add_to(self, app: web.Application) -> None:
        app.router.add_post("/v1/audio/speech", self.create)
        app.router.add_get("/v1/audio/voices/{voice}/sample", self.sample)

    async def create(self, request: web.Request) -> web.StreamResponse:
        """Raises InvalidRequest, and EngineError before the first sound."""
        wish = _reader.read(await read_body(request, MOST_BYTES, READ_SECONDS))
        if not wish.input.strip():
            raise InvalidRequest("There is no text to speak.", code="invalid_value", param="input")
        tts = self._brains.of(wish.model).tts
        utterance = SpeechJob(
            tts,
            wish.input,
            voice_of(tts, wish.voice_id, self._default_voice),
            wish.response_format,
            wish.speed,
            wish.instructions,
            self._stall_seconds,
        )
        answer = _as_events if wish.stream_format == "sse" else _as_file
        return await unless_gone(request, answer(request, utterance))

    async def sample(self, request: web.Request) -> web.StreamResponse:
        tts = self._brains.of(request.query.get("model", "")).tts
        voice = request.match_info["voice"]
        if voice not in {one.id for one in tts.voices}:
            raise web.HTTPNotFound
        utterance = SpeechJob(tts, _SAMPLE, voice, stall_seconds=self._stall_seconds)
        return await unless_gone(request, _as_file(request, utterance))


async def _as_file(request: web.Request, utterance: SpeechJob) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": CONTENT_TYPES[utterance.format]})
    try:
        async with ahead(utterance.encoded(), PIECES_AHEAD) as pieces:
            async for piece in pieces:
                await write(request, response, piece)
    except EngineError as exc:
        if not response.prepared:
            raise
        # Nothing can be said any more; at least it must not look whole.
        raise ConnectionResetError("the voice broke off") from exc
    if not response.prepared:  # of a text without a letter nothing is heard
        await response.prepare(request)
    await response.write_eof()
    return response


async def _as_events(request: web.Request, utterance: SpeechJob) -> web.StreamResponse:
    async with events(request) as out, ahead(utterance.encoded(), PIECES_AHEAD) as pieces:
        async for piece in pieces:
            await out.send(SpeechDelta(piece))
        await out.send(SpeechDone(utterance.usage))
    return out.response


def _clauses(text: str) -> Iterator[str]:
    """The first one as short as if the text came word by word, so that it is heard soon; the others
    as long as if it lay there, for the sake of their melody."""
    cutter, at = Clauses(), 0
    for word in _WORD.finditer(text):
        at = word.end()
        if first := cutter.feed(word[0]):
            yield from first
            break
    for begin in range(at, len(text), _FED_CHARACTERS):
        yield from cutter.feed(text[begin : begin + _FED_CHARACTERS])
    yield cutter.flush()


def _cut(pcm: bytes) -> Iterator[bytes]:
    for at in range(0, len(pcm), _PIECE_BYTES):
        yield pcm[at : at + _PIECE_BYTES]
