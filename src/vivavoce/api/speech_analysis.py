"""POST /v1/audio/speech/timestamps, /v1/audio/speech/embedding and /v1/audio/diarization.

Where a recording has speech, how its voice sounds, and who speaks when: in the shapes of speaches.
"""

from collections.abc import Awaitable, Callable
from typing import TypeAlias, TypeVar

from aiohttp import web

from vivavoce.api.http_errors import json_response
from vivavoce.api.known_speakers import known_speakers
from vivavoce.api.metered import check_model, metered
from vivavoce.api.requests import CONTEXT, unless_gone
from vivavoce.api.transcription import (
    MAX_FILES,
    MAX_SECONDS,
    MAX_WAITING_FILES,
)
from vivavoce.api.uploads import MAX_FILE_BYTES, raw_audio, received, sentence
from vivavoce.audio.formats import RATE
from vivavoce.audio.segments import Segment, SpeechRules, speech_segments
from vivavoce.errors import AudioError, InvalidRequest
from vivavoce.media.decoding import Bounds, SoundFile
from vivavoce.protocol.rest_audio import (
    DiarizationJson,
    DiarizationRequest,
    DiarizationSegment,
    EmbeddingList,
    EmbeddingRequest,
    EmbeddingUsage,
    SpeechTimestamp,
    TimestampsRequest,
    VoiceEmbedding,
    form_request,
)
from vivavoce.runtime.catalog import Cascade
from vivavoce.runtime.concurrency import WorkSlots, in_thread
from vivavoce.runtime.diarization import SpeakerTurn, diarize, voice_of
from vivavoce.runtime.file_transcription import speech_probabilities
from vivavoce.session.cascade.turn_detection import WINDOW
from vivavoce.session.usage import HEARD_TOKEN

AnalysisT = TypeVar("AnalysisT", TimestampsRequest, EmbeddingRequest, DiarizationRequest)
Analyse: TypeAlias = Callable[[AnalysisT, Cascade, SoundFile, str], Awaitable[web.Response]]
"""Takes a request, the models, the sound and the name of its file. Raises AudioError."""


class SpeechAnalysisRoutes:
    """Analyses recordings with the configured models."""

    def __init__(
        self,
        *,
        max_bytes: int = MAX_FILE_BYTES,
        max_seconds: float = MAX_SECONDS,
        max_files: int = MAX_FILES,
        max_waiting_files: int = MAX_WAITING_FILES,
    ) -> None:
        self._max_bytes = max_bytes
        self._bounds = Bounds(max_seconds=max_seconds)
        self._files = WorkSlots(max_files, max_waiting_files, "recordings")

    def add_to(self, app: web.Application) -> None:
        app.router.add_post("/v1/audio/speech/timestamps", self.timestamps)
        app.router.add_post("/v1/audio/speech/embedding", self.embedding)
        app.router.add_post("/v1/audio/diarization", self.diarization)

    async def timestamps(self, request: web.Request) -> web.StreamResponse:
        work = self._analysed(request, TimestampsRequest, _timestamps)
        return await unless_gone(request, work)

    async def embedding(self, request: web.Request) -> web.StreamResponse:
        work = self._analysed(request, EmbeddingRequest, _embedding)
        return await unless_gone(request, work)

    async def diarization(self, request: web.Request) -> web.StreamResponse:
        work = self._analysed(request, DiarizationRequest, _diarization)
        return await unless_gone(request, work)

    async def _analysed(
        self, request: web.Request, kind: type[AnalysisT], analyse: Analyse[AnalysisT]
    ) -> web.StreamResponse:
        """The answer to a request; the length of its file is booked.

        Raises InvalidRequest, and what metered() and the engines raise.
        """
        async with received(request, max_bytes=self._max_bytes) as form:
            asked, catalog = form_request(form.fields, kind), request[CONTEXT].catalog
            name, cascade = catalog.name_of(asked.model), catalog.of(asked.model)
            check_model(request, asked.model, name, served=name, own=name)
            async with metered(request, name) as meter, self._files.one():
                file = SoundFile(form.file, "the file", raw=raw_audio(form), bounds=self._bounds)
                try:
                    answer = await analyse(asked, cascade, file, form.name)
                except AudioError as exc:
                    raise InvalidRequest(sentence(exc), code="invalid_audio", param="file") from exc
                meter.analysis(name, round(file.seconds * 1000))
                return answer


async def _timestamps(
    asked: TimestampsRequest, cascade: Cascade, file: SoundFile, _name: str
) -> web.Response:
    scores = await speech_probabilities(file, cascade.vad)
    found = await in_thread(_segments, scores, asked, round(file.seconds * RATE))
    return json_response([_timestamp(segment) for segment in found])


async def _embedding(
    _asked: EmbeddingRequest, cascade: Cascade, file: SoundFile, _name: str
) -> web.Response:
    async with cascade.use_speaker() as model:
        voice = await voice_of(file, cascade.vad, model)
    if voice is None:
        raise InvalidRequest("There is no speech in the file.", code="invalid_audio", param="file")
    tokens = -(-round(file.seconds * RATE) // HEARD_TOKEN)
    return json_response(
        EmbeddingList(
            data=(VoiceEmbedding(tuple(voice.tolist())),),
            model=cascade.speaker.name if cascade.speaker else "",
            usage=EmbeddingUsage(tokens, tokens),
        )
    )


async def _diarization(
    asked: DiarizationRequest, cascade: Cascade, file: SoundFile, name: str
) -> web.Response:
    async with cascade.use_speaker() as model:
        names, references = asked.known_speaker_names, asked.known_speaker_references
        known = await known_speakers(names, references, cascade.vad, model)
        turns = await diarize(file, cascade.vad, model, known)
    if asked.response_format == "rttm":
        return web.Response(text=_rttm(name, turns), content_type="text/plain")
    segments = tuple(
        DiarizationSegment(turn.start_ms / 1000, turn.end_ms / 1000, turn.speaker) for turn in turns
    )
    return json_response(DiarizationJson(round(file.seconds, 3), segments))


def _rttm(file_name: str, turns: list[SpeakerTurn]) -> str:
    """Rich Transcription Time Marked (NIST): a line for each turn, without white space in names."""
    name = "_".join(file_name.rpartition(".")[0].split()) or "audio"
    return "".join(
        f"SPEAKER {name} 1 {turn.start_ms / 1000:.3f} {(turn.end_ms - turn.start_ms) / 1000:.3f} "
        f"<NA> <NA> {'_'.join(turn.speaker.split())} <NA> <NA>\n"
        for turn in turns
    )


def _segments(scores: list[float], asked: TimestampsRequest, samples: int) -> list[Segment]:
    rules = SpeechRules(
        threshold=asked.threshold,
        silence_threshold=asked.neg_threshold,
        min_speech_seconds=asked.min_speech_duration_ms / 1000,
        max_speech_seconds=asked.max_speech_duration_s,
        min_silence_seconds=asked.min_silence_duration_ms / 1000,
        padding_seconds=asked.speech_pad_ms / 1000,
    )
    return speech_segments(scores, rules, samples=samples, window_samples=WINDOW, sample_rate=RATE)


def _timestamp(segment: Segment) -> SpeechTimestamp:
    return SpeechTimestamp(segment.start * 1000 // RATE, segment.end * 1000 // RATE)
