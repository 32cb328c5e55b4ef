"""POST /v1/audio/transcriptions and /translations: a recording in, its words out.

A translation is for now a transcription: the engines have no other way to say what they heard, and
the embedded one knows English alone.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from aiohttp import web
from msgspec import UNSET

from vivavoce.api.events import events
from vivavoce.api.http_errors import json_response
from vivavoce.api.raw_sound import described
from vivavoce.api.uploads import MOST_BYTES, Form, received
from vivavoce.api.work import unless_gone
from vivavoce.audio.decoding import Bounds, SoundFile
from vivavoce.audio.formats import RATE
from vivavoce.engines.base import STT
from vivavoce.errors import AudioError, InvalidRequest
from vivavoce.protocol import subtitles
from vivavoce.protocol.responses import DurationUsage
from vivavoce.protocol.rest_audio import (
    InputTokenDetails,
    TokenUsage,
    TranscriptDelta,
    TranscriptDone,
    TranscriptionJson,
    TranscriptionRequest,
    TranscriptionSegment,
    TranscriptionVerbose,
    transcription_request,
)
from vivavoce.protocol.subtitles import Timed
from vivavoce.runtime.blocking import blocking
from vivavoce.runtime.catalog import ModelCatalog
from vivavoce.runtime.file_transcription import STALL_SECONDS, FileTranscriber, Passage
from vivavoce.session.usage import HEARD_TOKEN, estimate, transcription_usage

MOST_SECONDS = 4 * 3600.0
"""Of sound in a file: a few compressed bytes can be days of silence."""
MOST_PASSAGES = 3
"""Of all recordings, that an engine recognises at the same time."""

# code:English name; ISO 639-1, and two codes of 639-3: the languages of Whisper
_LANGUAGES = """
af:afrikaans am:amharic ar:arabic as:assamese az:azerbaijani ba:bashkir be:belarusian
bg:bulgarian bn:bengali bo:tibetan br:breton bs:bosnian ca:catalan cs:czech cy:welsh
da:danish de:german el:greek en:english es:spanish et:estonian eu:basque fa:persian
fi:finnish fo:faroese fr:french gl:galician gu:gujarati ha:hausa haw:hawaiian he:hebrew
hi:hindi hr:croatian ht:haitian hu:hungarian hy:armenian id:indonesian is:icelandic
it:italian ja:japanese jw:javanese jv:javanese ka:georgian kk:kazakh km:khmer kn:kannada
ko:korean la:latin lb:luxembourgish ln:lingala lo:lao lt:lithuanian lv:latvian
mg:malagasy mi:maori mk:macedonian ml:malayalam mn:mongolian mr:marathi ms:malay
mt:maltese my:burmese ne:nepali nl:dutch nn:nynorsk no:norwegian oc:occitan pa:punjabi
pl:polish ps:pashto pt:portuguese ro:romanian ru:russian sa:sanskrit sd:sindhi
si:sinhala sk:slovak sl:slovenian sn:shona so:somali sq:albanian sr:serbian su:sundanese
sv:swedish sw:swahili ta:tamil te:telugu tg:tajik th:thai tk:turkmen tl:tagalog
tr:turkish tt:tatar uk:ukrainian ur:urdu uz:uzbek vi:vietnamese yi:yiddish yo:yoruba
yue:cantonese zh:chinese
"""
LANGUAGE_NAMES: Final = dict(pair.split(":") for pair in _LANGUAGES.split())

Task: TypeAlias = Literal["transcribe", "translate"]


@dataclass(slots=True)
class TranscriptionJob:
    """What is said in one recording, and the ways to tell it."""

    wish: TranscriptionRequest
    task: Task
    file: SoundFile
    passages: AsyncGenerator[Passage]
    heard: list[Passage] = field(default_factory=list)

    async def deltas(self) -> AsyncGenerator[str]:
        """The text as it comes, to be read once. Raises InvalidRequest, EngineError."""
        try:
            async with aclosing(self.passages) as passages:
                async for passage in passages:
                    space = " " if self.heard else ""
                    async for delta in passage.deltas():
                        yield space + delta
                        space = ""
                    if passage.text:
                        self.heard.append(passage)
        except AudioError as exc:
            raise InvalidRequest(
                f"{str(exc)[0].upper()}{str(exc)[1:]}.", code="invalid_audio", param="file"
            ) from exc

    @property
    def text(self) -> str:
        return " ".join(passage.text for passage in self.heard)

    @property
    def samples(self) -> int:
        return round(self.file.seconds * RATE)

    @property
    def tokens(self) -> TokenUsage:
        """In the units that Realtime sessions are told, too."""
        sound, prompt = -(-self.samples // HEARD_TOKEN), estimate(self.wish.prompt)
        said = estimate(self.text)
        return TokenUsage(
            input_tokens=sound + prompt,
            output_tokens=said,
            total_tokens=sound + prompt + said,
            input_token_details=InputTokenDetails(text_tokens=prompt, audio_tokens=sound),
        )

    @property
    def duration(self) -> DurationUsage:
        return transcription_usage(self.samples)

    def response(self) -> web.Response:
        match self.wish.response_format:
            case "text":
                return _plain(f"{self.text}\n")
            case "srt":
                return _plain(subtitles.srt(self._lines()))
            case "vtt":
                return _plain(subtitles.vtt(self._lines()), "text/vtt")
            case "verbose_json":
                return json_response(self._verbose())
            case "json":
                return json_response(TranscriptionJson(text=self.text, usage=self.duration))

    def _lines(self) -> list[Timed]:
        return [line for passage in self.heard for line in _lines(passage)]

    def _verbose(self) -> TranscriptionVerbose:
        wanted = self.wish.timestamp_granularities
        words = [word for passage in self.heard for word in _words(passage)]
        heard = next((p.language for p in self.heard if p.language), None)
        english = "en" if self.task == "translate" else None
        return TranscriptionVerbose(
            task=self.task,
            language=language_name(english or heard or self.wish.language or "en"),
            duration=round(self.file.seconds, 3),
            text=self.text,
            segments=self._segments() if "segment" in wanted else UNSET,
            words=subtitles.words_in_seconds(words) if "word" in wanted else UNSET,
            usage=self.duration,
        )

    def _segments(self) -> tuple[TranscriptionSegment, ...]:
        made: list[TranscriptionSegment] = []
        for passage in self.heard:
            made += subtitles.segments(
                _lines(passage),
                seek_ms=passage.start_ms,
                first_id=len(made),
                temperature=self.wish.temperature,
            )
        return tuple(made)


class TranscriptionRoutes:
    """Recognises with the engines of `brains`."""

    def __init__(
        self,
        brains: ModelCatalog,
        *,
        most_bytes: int = MOST_BYTES,
        most_seconds: float = MOST_SECONDS,
        most_passages: int = MOST_PASSAGES,
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        self._brains = brains
        self._most_bytes = most_bytes
        self._bounds = Bounds(max_seconds=most_seconds)
        self._most_passages = most_passages
        self._stall_seconds = stall_seconds
        self._places: dict[int, asyncio.Semaphore] = {}

    def add_to(self, app: web.Application) -> None:
        app.router.add_post("/v1/audio/transcriptions", self.transcribe)
        app.router.add_post("/v1/audio/translations", self.translate)

    async def transcribe(self, request: web.Request) -> web.StreamResponse:
        """Raises VoiceError, or an HTTPException, before the answer has begun."""
        return await unless_gone(request, self._answer(request, "transcribe"))

    async def translate(self, request: web.Request) -> web.StreamResponse:
        return await unless_gone(request, self._answer(request, "translate"))

    async def _answer(self, request: web.Request, task: Task) -> web.StreamResponse:
        async with received(request, most_bytes=self._most_bytes) as form:
            wish = transcription_request(form.fields)
            account = self._account(form, wish, task)
            if wish.stream:
                async with events(request) as out, aclosing(account.deltas()) as deltas:
                    async for delta in deltas:
                        await out.send(TranscriptDelta(delta))
                    await out.send(TranscriptDone(account.text, usage=account.tokens))
                return out.response
            async with aclosing(account.deltas()) as deltas:
                async for _ in deltas:
                    pass
            return await blocking(account.response)  # of an hour there are ten thousand words

    def _account(self, form: Form, wish: TranscriptionRequest, task: Task) -> TranscriptionJob:
        cascade = self._brains.of(wish.model)
        raw = described(form.content_type, form.name, form.start)
        file = SoundFile(form.file, "the file", raw=raw, bounds=self._bounds)
        hearing = FileTranscriber(
            cascade.stt,
            self._places_of(cascade.stt),
            language=wish.language,
            prompt=wish.prompt,
            stall_seconds=self._stall_seconds,
        )
        return TranscriptionJob(wish, task, file, hearing.passages(file, cascade.vad))

    def _places_of(self, stt: STT) -> asyncio.Semaphore:
        return self._places.setdefault(id(stt), asyncio.Semaphore(self._most_passages))


def _lines(passage: Passage) -> list[Timed]:
    return subtitles.lines(Timed(passage.text, passage.start_ms, passage.end_ms), _words(passage))


def _words(passage: Passage) -> list[Timed]:
    return [Timed(word.text, word.start_ms, word.end_ms) for word in passage.words]


def _plain(text: str, content_type: str = "text/plain") -> web.Response:
    return web.Response(text=text, content_type=content_type, charset="utf-8")


def language_name(tag: str) -> str:
    """The name in `language` of a verbose transcription: english for en-US; an unknown tag itself,
    in small letters."""
    tag = tag.lower().replace("_", "-")
    return LANGUAGE_NAMES.get(tag.partition("-")[0], tag)
