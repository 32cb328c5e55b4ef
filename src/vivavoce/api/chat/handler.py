"""POST /v1/chat/completions: chat as everyone knows it, with speech in, speech out, or both."""

import asyncio
import hashlib
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from functools import partial

from aiohttp import web

from vivavoce.api.chat import completion as chat_completion
from vivavoce.api.chat import items as chat_items
from vivavoce.api.chat import request as chat_request
from vivavoce.api.chat.answers import SpokenAnswers
from vivavoce.api.chat.completion import Asked, CompletionChunk, Tell
from vivavoce.api.chat.endpoint import ChatEndpoint, EndpointAnswer
from vivavoce.api.chat.items import FIELDS
from vivavoce.api.chat.reply import EventStream, pass_on
from vivavoce.api.chat.request import AudioOptions, ChatCall, Earlier, ErrorPlace, InputRecording
from vivavoce.api.chat.sound import decoded
from vivavoce.api.chat.speech import SpeechOptions, StreamedSpeech, speak
from vivavoce.api.http_errors import json_response
from vivavoce.api.uploads import read_body
from vivavoce.api.work import together, unless_gone
from vivavoce.engines.base import STT
from vivavoce.errors import AudioError, EngineError, InvalidRequest
from vivavoce.runtime.catalog import ModelCatalog
from vivavoce.runtime.transcript_cache import TranscriptCache, words

MOST_BYTES = 25 << 20
READ_SECONDS = 300.0
"""For the whole body of a request."""
MOST_RECORDING_SECONDS = 1500.0
_LARGE = 1 << 18  # bytes that are looked through in a thread
# Models of others that hear and speak: what stands behind us is only told the words.
_FOR_SPEECH = re.compile(r"(?<![a-z])(audio|realtime)(?![a-z])")


class ChatRoutes:
    """Answers chat completions by the language models of `brains`."""

    def __init__(
        self,
        brains: ModelCatalog,
        *,
        default_voice: str = "",
        most_bytes: int = MOST_BYTES,
        recordings: TranscriptCache | None = None,
        answers: SpokenAnswers | None = None,
    ) -> None:
        """`default_voice` stands for every voice that the engine does not know; "": its own."""
        self._brains = brains
        self._default_voice = default_voice
        self._most_bytes = most_bytes
        self._recordings = recordings or TranscriptCache()
        self._answers = answers or SpokenAnswers()

    def add_to(self, app: web.Application) -> None:
        app.router.add_post("/v1/chat/completions", self.complete)

    async def complete(self, request: web.Request) -> web.StreamResponse:
        """Raises VoiceError or an HTTPException before the answer has begun."""
        body = await read_body(request, self._most_bytes, READ_SECONDS)
        if len(body) > _LARGE:
            call = await asyncio.to_thread(chat_request.parse, body)
        else:
            call = chat_request.parse(body)
        return await unless_gone(request, self._answer(request, call))

    async def _answer(self, request: web.Request, call: ChatCall) -> web.StreamResponse:
        heard = await self._heard(call)
        said = {number: self._said(earlier) for number, earlier in call.earlier.items()}
        llm = self._brains.of(call.model).llm
        if isinstance(llm, ChatEndpoint):
            async with self._forwarded(llm, call, heard, said) as answer:
                if answer.status != 200 or call.wish is None:
                    return await pass_on(request, answer)
                if call.stream:
                    return await self._streamed(request, call, partial(_copy, answer))
                return await self._whole(call, await answer.completion())
        asked = Asked(
            llm,
            chat_items.chat_request(call.plain_messages(heard, said), call.fields(FIELDS)),
            call.model or self._brains.default,
            call.n,
            include_usage=call.include_usage,
        )
        if call.stream:
            return await self._streamed(request, call, partial(chat_completion.chunks, asked))
        return await self._whole(call, await chat_completion.completion(asked))

    async def _whole(self, call: ChatCall, completion: CompletionChunk) -> web.Response:
        if call.wish is not None:
            completion = await speak(completion, self._tongue(call, call.wish))
        return json_response(completion)

    async def _streamed(
        self, request: web.Request, call: ChatCall, chunks: Callable[[Tell], Awaitable[None]]
    ) -> web.StreamResponse:
        async with EventStream(request) as stream:
            if call.wish is None:
                await chunks(stream.send)
            else:
                tongue = self._tongue(call, call.wish)
                async with together() as tasks:
                    speech = StreamedSpeech(tongue, tasks, stream.send)
                    await chunks(speech.feed)
                    await speech.end()
        return stream.response

    @asynccontextmanager
    async def _forwarded(
        self,
        llm: ChatEndpoint,
        call: ChatCall,
        heard: Mapping[ErrorPlace, str],
        said: Mapping[int, str],
    ) -> AsyncGenerator[EndpointAnswer]:
        """The answer of the endpoint behind us.

        It is asked for the model that the client names. Where that is one of our own names, or the
        endpoint does not know it, it is asked for the one that the settings name.
        """
        ours = not call.model or call.model in self._brains.cascades
        if ours or (call.concerns_speech and _FOR_SPEECH.search(call.model)):
            model = await llm.model()
        else:
            model = call.model
        spoken = call.wish is not None and call.stream
        async with AsyncExitStack() as first:
            body = call.rewritten(heard, said, model=model)
            answer = await first.enter_async_context(llm.forward(body, spoken=spoken))
            own = (await _own_model(llm) or model) if answer.status == 404 else model
            if own == model:
                yield answer
                return
        async with llm.forward(call.rewritten(heard, said, model=own), spoken=spoken) as second:
            yield second

    async def _heard(self, call: ChatCall) -> dict[ErrorPlace, str]:
        """What is said in every recording. Raises InvalidRequest, EngineError."""
        if not call.recordings:
            return {}
        stt = self._brains.of(call.transcription_model or call.model).stt
        async with together() as tasks:
            hearing = {
                place: tasks.create_task(self._hear(stt, recording))
                for place, recording in call.recordings.items()
            }
        return {place: task.result() for place, task in hearing.items()}

    async def _hear(self, stt: STT, recording: InputRecording) -> str:
        async def hear() -> str:
            pcm = await asyncio.to_thread(
                decoded,
                recording.data,
                recording.format,
                rate=stt.sample_rate,
                max_seconds=MOST_RECORDING_SECONDS,
            )
            return await words(stt, pcm)

        if len(recording.data) > _LARGE:
            digest = await asyncio.to_thread(_digest, recording)
        else:
            digest = _digest(recording)
        try:
            return await self._recordings.transcript((id(stt), digest), hear)
        except AudioError as exc:
            raise InvalidRequest(
                f"{str(exc)[0].upper()}{str(exc)[1:]}.",
                code="invalid_audio",
                param=f"{recording.param}.data",
            ) from exc

    def _said(self, earlier: Earlier) -> str:
        transcript = self._answers.transcript(earlier.id)
        if transcript is None:
            transcript = earlier.transcript
        if transcript is None:
            raise InvalidRequest(
                f"There is no audio {earlier.id!r}, or it has expired; send its transcript as "
                "content instead.",
                code="audio_not_found",
                param=earlier.param,
            )
        return transcript

    def _tongue(self, call: ChatCall, wish: AudioOptions) -> SpeechOptions:
        tts = self._brains.of(call.speech_model or call.model).tts
        known = {voice.id for voice in tts.voices}
        wanted = (wish.voice, self._default_voice, tts.default_voice)
        voice = next(voice for voice in wanted if voice in known)
        return SpeechOptions(tts, voice, wish.format, self._answers)


async def _copy(answer: EndpointAnswer, tell: Tell) -> None:
    async with aclosing(answer.chunks()) as chunks:
        async for chunk in chunks:
            await tell(chunk)


async def _own_model(llm: ChatEndpoint) -> str | None:
    with suppress(EngineError):  # what was refused already says what is wrong
        return await llm.model()
    return None


def _digest(recording: InputRecording) -> bytes:
    """Tells recordings apart. Raw samples name no format themselves."""
    raw = b"pcm16:" if recording.format == "pcm16" else b""
    return hashlib.sha256(raw + recording.data.encode()).digest()
