"""POST /v1/chat/completions: chat with text or speech as input and output."""

import asyncio
import hashlib
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from functools import partial

import msgspec
from aiohttp import web

from vivavoce.api.chat import completion as chat_completion
from vivavoce.api.chat import request as chat_request
from vivavoce.api.chat.audio import (
    ENCODED_MS,
    AnswerSpeech,
    SpokenAnswers,
    StreamedSpeech,
    decoded,
    speak,
)
from vivavoce.api.chat.completion import FIELDS, CompletionChunk, CompletionJob, SendChunk
from vivavoce.api.chat.endpoint import ChatEndpoint, EndpointAnswer, pass_on
from vivavoce.api.chat.request import (
    AudioOptions,
    ChatCall,
    EarlierAnswer,
    ErrorPlace,
    InputRecording,
)
from vivavoce.api.http_errors import json_response
from vivavoce.api.metered import CompletionTap, RequestMeter, chat_quantities, check_model, metered
from vivavoce.api.requests import CONTEXT, read_body, unless_gone
from vivavoce.api.sse import EventStream
from vivavoce.api.uploads import sentence
from vivavoce.engines.base import LLM, STT
from vivavoce.errors import AudioError, EngineError, InvalidRequest
from vivavoce.runtime.catalog import ModelCatalog
from vivavoce.runtime.concurrency import in_thread, task_group
from vivavoce.runtime.synthesis import Synthesis
from vivavoce.runtime.transcript_cache import TranscriptCache
from vivavoce.runtime.transcription import transcript_of

MAX_BODY_BYTES = 25 << 20
READ_TIMEOUT_S = 300.0
"""For the whole body of a request."""
MAX_RECORDING_SECONDS = 1500.0
_LARGE = 1 << 18  # bytes: more are parsed in a thread
# OpenAI's models with audio input and output; the model behind this server gets text alone.
_FOR_SPEECH = re.compile(r"(?<![a-z])(audio|realtime)(?![a-z])")


class ChatRoutes:
    """Answers chat completions by the configured models."""

    def __init__(
        self,
        *,
        max_bytes: int = MAX_BODY_BYTES,
        cache: TranscriptCache | None = None,
        answers: SpokenAnswers | None = None,
    ) -> None:
        self._max_bytes = max_bytes
        self._cache = cache or TranscriptCache()
        self._answers = answers or SpokenAnswers()

    def add_to(self, app: web.Application) -> None:
        app.router.add_post("/v1/chat/completions", self.complete)

    async def complete(self, request: web.Request) -> web.StreamResponse:
        """Raises VoiceError or an HTTPException before the answer has begun."""
        body = await read_body(request, self._max_bytes, READ_TIMEOUT_S)
        if len(body) > _LARGE:
            call = await asyncio.to_thread(chat_request.parse, body)
        else:
            call = chat_request.parse(body)
        if not call.model:  # of an Azure deployment
            call = msgspec.structs.replace(call, model=request.query.get("model", ""))
        catalog = request[CONTEXT].catalog
        name = catalog.name_of(call.model)
        check_model(request, call.model, name)
        async with (
            metered(request, name) as meter,
            catalog.of(call.model).use_llm(call.model) as llm,
        ):
            return await unless_gone(request, self._answer(request, call, meter, body, llm))

    async def _answer(
        self, request: web.Request, call: ChatCall, meter: RequestMeter, body: bytes, llm: LLM
    ) -> web.StreamResponse:
        catalog = request[CONTEXT].catalog
        name = catalog.name_of(call.model)
        transcripts = await self._transcripts(catalog, call)
        earlier = {number: self._transcript(answer) for number, answer in call.earlier.items()}
        if isinstance(llm, ChatEndpoint):
            tap = CompletionTap()
            async with _forwarded(catalog, llm, call, transcripts, earlier) as answer:
                try:
                    return await self._passed_on(request, call, answer, tap)
                finally:
                    if answer.status == 200:
                        used, estimated = tap.used(body)
                        meter.completion(name, used, asked=call.model, estimated=estimated)
        messages = call.plain_messages(transcripts, earlier)
        job = CompletionJob(
            llm,
            chat_completion.chat_request(messages, call.fields(FIELDS)),
            call.model or catalog.default,
            call.n,
            include_usage=call.include_usage,
        )
        try:
            if call.stream:
                return await self._streamed(request, call, partial(chat_completion.chunks, job))
            return await self._whole(catalog, call, await chat_completion.completion(job))
        finally:
            counts = [(u.input_tokens, u.cached_tokens, u.output_tokens) for u in job.usages]
            read, cached, written = (sum(n) for n in zip((0, 0, 0), *counts, strict=True))
            meter.completion(name, chat_quantities(read, cached, written), estimated=not counts)

    async def _passed_on(
        self, request: web.Request, call: ChatCall, answer: EndpointAnswer, tap: CompletionTap
    ) -> web.StreamResponse:
        """The answer of an endpoint, spoken if that is requested."""
        if answer.status != 200 or call.audio is None:
            return await pass_on(request, answer, tap.feed)
        if call.stream:
            return await self._streamed(request, call, partial(_copy, answer, tap))
        completion = await answer.completion()
        tap.feed(msgspec.json.encode(completion))
        return await self._whole(request[CONTEXT].catalog, call, completion)

    async def _whole(
        self, catalog: ModelCatalog, call: ChatCall, completion: CompletionChunk
    ) -> web.Response:
        if call.audio is not None:
            async with self._speech(catalog, call, call.audio) as speech:
                completion = await speak(completion, speech)
        return json_response(completion)

    async def _streamed(
        self, request: web.Request, call: ChatCall, chunks: Callable[[SendChunk], Awaitable[None]]
    ) -> web.StreamResponse:
        async with EventStream(request, done=b"[DONE]") as stream:
            if call.audio is None:
                await chunks(stream.send)
            else:
                speaking = self._speech(request[CONTEXT].catalog, call, call.audio)
                async with speaking as kept, task_group() as tasks:
                    speech = StreamedSpeech(kept, tasks, stream.send)
                    await chunks(speech.feed)
                    await speech.end()
        return stream.response

    async def _transcripts(self, catalog: ModelCatalog, call: ChatCall) -> dict[ErrorPlace, str]:
        """The transcript of each recording. Raises InvalidRequest, EngineError, LimitReached."""
        if not call.recordings:
            return {}
        cascade = catalog.of(call.transcription_model, call.model)
        async with cascade.use_stt(call.transcription_model) as stt, task_group() as tasks:
            jobs = {
                place: tasks.create_task(self._transcribe(stt, recording))
                for place, recording in call.recordings.items()
            }
        return {place: task.result() for place, task in jobs.items()}

    async def _transcribe(self, stt: STT, recording: InputRecording) -> str:
        async def transcribe() -> str:
            pcm = await in_thread(
                decoded,
                recording.data,
                recording.format,
                rate=stt.sample_rate,
                max_seconds=MAX_RECORDING_SECONDS,
            )
            return await transcript_of(stt, pcm)

        if len(recording.data) > _LARGE:
            digest = await asyncio.to_thread(_digest, recording)
        else:
            digest = _digest(recording)
        try:
            return await self._cache.transcript((id(stt), digest), transcribe)
        except AudioError as exc:
            raise InvalidRequest(
                sentence(exc), code="invalid_audio", param=f"{recording.param}.data"
            ) from exc

    def _transcript(self, earlier: EarlierAnswer) -> str:
        transcript = self._answers.transcript(earlier.id)
        if transcript is None:
            transcript = earlier.transcript
        if transcript is None:
            raise InvalidRequest(
                f"The audio {earlier.id!r} does not exist or has expired; send its transcript as "
                "content instead.",
                code="audio_not_found",
                param=earlier.param,
            )
        return transcript

    @asynccontextmanager
    async def _speech(
        self, catalog: ModelCatalog, call: ChatCall, audio: AudioOptions
    ) -> AsyncGenerator[AnswerSpeech]:
        cascade = catalog.of(call.speech_model, call.model)
        async with cascade.use_tts(call.speech_model) as tts:
            voice = cascade.voice_of(tts, audio.voice)
            synthesis = Synthesis(tts, voice, max_piece_ms=ENCODED_MS)
            yield AnswerSpeech(synthesis, audio.format, self._answers)


@asynccontextmanager
async def _forwarded(
    catalog: ModelCatalog,
    llm: ChatEndpoint,
    call: ChatCall,
    transcripts: Mapping[ErrorPlace, str],
    earlier: Mapping[int, str],
) -> AsyncGenerator[EndpointAnswer]:
    """The answer of the endpoint behind this server.

    It is asked for the model that the client names. If that is a name of this server, or the
    endpoint does not know it, it is asked for the model of the settings.
    """
    asked = catalog.of(call.model).choice.model(call.model)
    ours = not asked or asked in catalog.cascades
    if ours or (call.concerns_speech and _FOR_SPEECH.search(asked)):
        model = await llm.model()
    else:
        model = asked
    spoken = call.audio is not None and call.stream
    async with AsyncExitStack() as first:
        body = call.rewritten(transcripts, earlier, model=model)
        answer = await first.enter_async_context(llm.forward(body, spoken=spoken))
        own = (await _own_model(llm) or model) if answer.status == 404 else model
        if own == model:
            yield answer
            return
    body = call.rewritten(transcripts, earlier, model=own)
    async with llm.forward(body, spoken=spoken) as second:
        yield second


async def _copy(answer: EndpointAnswer, tap: CompletionTap, send: SendChunk) -> None:
    async with aclosing(answer.chunks()) as chunks:
        async for chunk in chunks:
            tap.feed(b"data:" + msgspec.json.encode(chunk))
            await send(chunk)


async def _own_model(llm: ChatEndpoint) -> str | None:
    with suppress(EngineError):  # the first refusal is passed on
        return await llm.model()
    return None


def _digest(recording: InputRecording) -> bytes:
    """A key for the recording. Raw samples do not contain their format."""
    raw = b"pcm16:" if recording.format == "pcm16" else b""
    return hashlib.sha256(raw + recording.data.encode()).digest()
