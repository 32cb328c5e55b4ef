"""POST /v1/audio/transcriptions and /translations: a recording in, its words out.

A translation by an engine that does not translate is a transcription.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import AsyncExitStack, aclosing
from typing import Literal, TypeAlias

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType

from vivavoce.api.http_errors import json_response
from vivavoce.api.known_speakers import known_speakers
from vivavoce.api.metered import check_model, metered
from vivavoce.api.requests import CONTEXT, unless_gone
from vivavoce.api.sse import EventStream
from vivavoce.api.uploads import MAX_FILE_BYTES, Form, raw_audio, received, sentence
from vivavoce.audio.formats import RATE
from vivavoce.audio.segments import SegmentSettings
from vivavoce.engines.base import STT, translator_of
from vivavoce.engines.speaker_model import SpeakerModel
from vivavoce.errors import AudioError, InvalidRequest
from vivavoce.media.decoding import Bounds, SoundFile
from vivavoce.protocol import subtitles
from vivavoce.protocol.logprobs import TokenLogprob
from vivavoce.protocol.responses import DurationUsage
from vivavoce.protocol.rest_audio import (
    DiarizedSegment,
    InputTokenDetails,
    TokenUsage,
    TranscriptDelta,
    TranscriptDone,
    TranscriptionDiarized,
    TranscriptionJson,
    TranscriptionRequest,
    TranscriptionVerbose,
    VerboseSegment,
    form_request,
    language_name,
)
from vivavoce.protocol.subtitles import Timed
from vivavoce.runtime.catalog import Cascade
from vivavoce.runtime.concurrency import WorkSlots, in_thread
from vivavoce.runtime.diarization import (
    SPEECH,
    KnownSpeaker,
    diarize,
    passages_of,
    turn_stretches,
)
from vivavoce.runtime.file_transcription import (
    STALL_TIMEOUT_S,
    FileTranscriber,
    Passage,
    PassageDelta,
    SpeechStretch,
    stretches,
)
from vivavoce.session.usage import HEARD_TOKEN, estimate, transcription_usage

MAX_SECONDS = 4 * 3600.0
"""The longest audio of a file: a few compressed bytes can be days of silence."""
MAX_ENGINE_PASSAGES = 3
"""Passages of all recordings that an engine recognises at the same time."""
MAX_FILES = 8
"""Recordings that are decoded and recognised at the same time; others wait."""
MAX_WAITING_FILES = 64
"""The most recordings that wait; the next one is refused with 503."""

Task: TypeAlias = Literal["transcribe", "translate"]


class TranscriptionJob(msgspec.Struct):
    """One recording, its transcript, and the response in the requested format."""

    asked: TranscriptionRequest
    task: Task
    file: SoundFile
    passages: AsyncGenerator[Passage]
    done: list[Passage] = msgspec.field(default_factory=list)

    async def events(self) -> AsyncGenerator[TranscriptDelta | DiarizedSegment]:
        """The text as a stream, read once. Raises InvalidRequest, EngineError."""
        try:
            async with aclosing(self.passages) as passages:
                async for passage in passages:
                    space = " " if self.done else ""
                    async for delta in passage.deltas():
                        yield self._delta(delta, space)
                        space = ""
                    if passage.text:
                        self.done.append(passage)
                        if self.diarized:
                            yield self._segment(len(self.done) - 1)
        except AudioError as exc:
            raise InvalidRequest(sentence(exc), code="invalid_audio", param="file") from exc

    @property
    def diarized(self) -> bool:
        return self.asked.response_format == "diarized_json"

    def _delta(self, delta: PassageDelta, space: str) -> TranscriptDelta:
        return TranscriptDelta(
            space + delta.text,
            logprobs=self._included(_spaced(delta.logprobs, space)),
            segment_id=_segment_id(len(self.done)) if self.diarized else UNSET,
        )

    def _segment(self, number: int) -> DiarizedSegment:
        passage = self.done[number]
        return DiarizedSegment(
            id=_segment_id(number),
            start=passage.start_ms / 1000,
            end=passage.end_ms / 1000,
            speaker=passage.speaker,
            text=passage.text,
        )

    @property
    def text(self) -> str:
        return " ".join(passage.text for passage in self.done)

    @property
    def logprobs(self) -> tuple[TokenLogprob, ...] | UnsetType:
        """Of all tokens, where they are asked for and the engine gives them."""
        return self._included(
            token
            for number, passage in enumerate(self.done)
            for token in _spaced(passage.logprobs, " " if number else "")
        )

    def _included(self, tokens: Iterable[TokenLogprob]) -> tuple[TokenLogprob, ...] | UnsetType:
        return (tuple(tokens) or UNSET) if "logprobs" in self.asked.include else UNSET

    @property
    def samples(self) -> int:
        return round(self.file.seconds * RATE)

    @property
    def tokens(self) -> TokenUsage:
        """In the units of Realtime sessions."""
        sound, prompt = -(-self.samples // HEARD_TOKEN), estimate(self.asked.hint)
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
        match self.asked.response_format:
            case "text":
                return _plain(f"{self.text}\n")
            case "srt":
                return _plain(subtitles.srt(self._lines()))
            case "vtt":
                return _plain(subtitles.vtt(self._lines()), "text/vtt")
            case "verbose_json":
                return json_response(self._verbose())
            case "diarized_json":
                return json_response(self._diarized())
            case "json":
                return json_response(
                    TranscriptionJson(text=self.text, logprobs=self.logprobs, usage=self.duration)
                )

    def _lines(self) -> list[Timed]:
        return [line for passage in self.done for line in _lines(passage)]

    def _diarized(self) -> TranscriptionDiarized:
        return TranscriptionDiarized(
            duration=round(self.file.seconds, 3),
            text=self.text,
            segments=tuple(self._segment(number) for number in range(len(self.done))),
            usage=self.duration,
        )

    def _verbose(self) -> TranscriptionVerbose:
        wanted = self.asked.timestamp_granularities
        words = [word for passage in self.done for word in _words(passage)]
        heard = next((p.language for p in self.done if p.language), None)
        english = "en" if self.task == "translate" else None
        return TranscriptionVerbose(
            task=self.task,
            language=language_name(english or heard or self.asked.language or "en"),
            duration=round(self.file.seconds, 3),
            text=self.text,
            segments=self._segments() if "segment" in wanted else UNSET,
            words=subtitles.words_in_seconds(words) if "word" in wanted else UNSET,
            usage=self.duration,
        )

    def _segments(self) -> tuple[VerboseSegment, ...]:
        made: list[VerboseSegment] = []
        for passage in self.done:
            made += subtitles.segments(
                _lines(passage),
                seek_ms=passage.start_ms,
                first_id=len(made),
                temperature=self.asked.temperature,
            )
        return tuple(made)


class TranscriptionRoutes:
    """Recognises with the configured models."""

    def __init__(
        self,
        *,
        max_bytes: int = MAX_FILE_BYTES,
        max_seconds: float = MAX_SECONDS,
        max_passages: int = MAX_ENGINE_PASSAGES,
        max_files: int = MAX_FILES,
        max_waiting_files: int = MAX_WAITING_FILES,
        stall_timeout_s: float = STALL_TIMEOUT_S,
    ) -> None:
        self._max_bytes = max_bytes
        self._bounds = Bounds(max_seconds=max_seconds)
        self._max_passages = max_passages
        self._files = WorkSlots(max_files, max_waiting_files, "recordings")
        self._stall_timeout_s = stall_timeout_s
        self._slots: dict[int, asyncio.Semaphore] = {}

    def add_to(self, app: web.Application) -> None:
        app.router.add_post("/v1/audio/transcriptions", self.transcribe)
        app.router.add_post("/v1/audio/translations", self.translate)

    async def transcribe(self, request: web.Request) -> web.StreamResponse:
        """Raises VoiceError, or an HTTPException, before the answer has begun."""
        return await unless_gone(request, self._answer(request, "transcribe"))

    async def translate(self, request: web.Request) -> web.StreamResponse:
        return await unless_gone(request, self._answer(request, "translate"))

    async def _answer(self, request: web.Request, task: Task) -> web.StreamResponse:
        async with received(request, max_bytes=self._max_bytes) as form:
            asked = form_request(form.fields, TranscriptionRequest)
            model = asked.model or request.query.get("model", "")  # of an Azure deployment
            asked = msgspec.structs.replace(asked, model=model)
            catalog = request[CONTEXT].catalog
            name, cascade = catalog.name_of(model), catalog.of(model)
            served, own = cascade.transcription_model(model), cascade.transcription_model("")
            check_model(request, model, name, served=served, own=own)
            _check_language(cascade, asked)
            async with (
                metered(request, name) as meter,
                self._files.one(),
                cascade.use_stt(model) as stt,
                AsyncExitStack() as stack,
            ):
                file = self._file(form)
                transcriber = self._transcriber(asked, task, cascade, stt)
                if asked.response_format == "diarized_json":
                    speaker = await stack.enter_async_context(cascade.use_speaker())
                    names, references = asked.known_speaker_names, asked.known_speaker_references
                    known = await known_speakers(names, references, cascade.vad, speaker)
                    speech = _turns(
                        file, self._file(form), cascade, speaker, known, _settings(asked)
                    )
                else:
                    speech = stretches(file, cascade.vad, _settings(asked))
                job = TranscriptionJob(asked, task, file, transcriber.passages(speech))
                try:
                    return await _respond(request, job)
                finally:
                    if job.samples:
                        meter.transcription(name, job.samples * 1000 // RATE)

    def _file(self, form: Form) -> SoundFile:
        return SoundFile(form.file, "the file", raw=raw_audio(form), bounds=self._bounds)

    def _transcriber(
        self, asked: TranscriptionRequest, task: Task, cascade: Cascade, stt: STT
    ) -> FileTranscriber:
        if task == "translate":
            stt = translator_of(stt) or stt
        return FileTranscriber(
            stt,
            self._slots.setdefault(id(cascade.stt), asyncio.Semaphore(self._max_passages)),
            language=asked.language,
            prompt=asked.hint,
            stall_timeout_s=self._stall_timeout_s,
        )


async def _turns(
    file: SoundFile,
    again: SoundFile,
    cascade: Cascade,
    speaker: SpeakerModel,
    known: list[KnownSpeaker],
    settings: SegmentSettings | None,
) -> AsyncGenerator[SpeechStretch]:
    """The speech of a file by speakers.

    It is read twice, because the speakers are known only at its end.
    """
    turns = passages_of(await diarize(file, cascade.vad, speaker, known, settings or SPEECH))
    async with aclosing(turn_stretches(again, turns)) as speech:
        async for stretch in speech:
            yield stretch


def _check_language(cascade: Cascade, asked: TranscriptionRequest) -> None:
    """Raise InvalidRequest for a language that the recogniser does not know."""
    if asked.language and (other := cascade.other_language(asked.model, asked.language)):
        raise InvalidRequest(
            f"The recogniser {cascade.transcription_model(asked.model)!r} does not know the "
            f"language {asked.language!r}, but {other!r}; leave `language` out, or name another "
            f"`model`: GET /v1/models?task=automatic-speech-recognition lists them.",
            param="language",
            code="unsupported_language",
        )


def _settings(asked: TranscriptionRequest) -> SegmentSettings | None:
    """How the client wants its recording to be cut; None: as the server does by default."""
    if isinstance(asked.chunking_strategy, str):
        return None
    vad = asked.chunking_strategy
    return SegmentSettings(
        threshold=vad.threshold,
        pause_seconds=vad.silence_duration_ms / 1000,
        padding_seconds=vad.prefix_padding_ms / 1000,
    )


def _segment_id(number: int) -> str:
    return f"seg_{number:03}"


async def _respond(request: web.Request, job: TranscriptionJob) -> web.StreamResponse:
    if job.asked.stream:
        return await _as_events(request, job)
    async with aclosing(job.events()) as events:
        async for _ in events:
            pass
    return await in_thread(job.response)  # an hour of speech is ten thousand words


async def _as_events(request: web.Request, job: TranscriptionJob) -> web.StreamResponse:
    async with EventStream(request) as stream, aclosing(job.events()) as events:
        async for event in events:
            await stream.send(event)
        await stream.send(TranscriptDone(job.text, logprobs=job.logprobs, usage=job.tokens))
    return stream.response


def _lines(passage: Passage) -> list[Timed]:
    return subtitles.lines(Timed(passage.text, passage.start_ms, passage.end_ms), _words(passage))


def _words(passage: Passage) -> list[Timed]:
    return [Timed(word.text, word.start_ms, word.end_ms) for word in passage.words]


def _spaced(tokens: tuple[TokenLogprob, ...], space: str) -> tuple[TokenLogprob, ...]:
    """With the space that joins a passage to the one before it."""
    if not tokens or not space:
        return tokens
    first, *others = tokens
    token = space + first.token
    return (msgspec.structs.replace(first, token=token, bytes=tuple(token.encode())), *others)


def _plain(text: str, content_type: str = "text/plain") -> web.Response:
    return web.Response(text=text, content_type=content_type, charset="utf-8")
