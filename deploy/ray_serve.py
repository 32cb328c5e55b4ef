"""Speech recognition and synthesis on Ray Serve, with the audio endpoints of OpenAI's API.

    pip install 'vivavoce[local]' 'ray[serve]' python-multipart
    python deploy/ray_serve.py --port 8100 stt=moonshine tts=hibari max_replicas=4
    serve run ray_serve:build stt=moonshine tts=hibari     # the same, from this folder

Each engine is a deployment with replicas of its own, which Ray starts and ends by the number of
requests under way, on as many machines as the Ray cluster has. A Vivavoce before it:

    [engines.stt.ray]
    engine = "openai"
    base_url = "http://127.0.0.1:8100/v1"

Several Ray clusters, or the proxies of several of their machines, are a pool: `base_url = [...]`.

A replica works on batches: requests that come within batch_wait_seconds, at most max_batch. Their
utterances are given to the engine together, and each result goes to its client as it comes.
"""

import argparse
import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, Literal

import msgspec
from fastapi import FastAPI, Form, UploadFile
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict
from ray import serve
from ray.serve.handle import DeploymentHandle

from vivavoce.audio.formats import RATE
from vivavoce.audio.resample import Resampler, resample
from vivavoce.engines import registry
from vivavoce.errors import AudioError, VoiceError
from vivavoce.media import files

MAX_BATCHES = 2
"""Batches of a replica that are worked on at once: one slow utterance holds up only its own."""
RESULTS_AHEAD = 16
"""Of a request, before its client has taken them."""
MAX_UTTERANCE_S = 900.0

Result = tuple[Literal["text", "final", "audio", "error"], Any]


class Options(BaseModel):
    """Arguments of build(): NAME=VALUE on the command line."""

    model_config = ConfigDict(extra="forbid")

    stt: str = "moonshine"
    """A recogniser of the registry, as in [models.NAME] stt."""
    stt_options: str = "{}"
    """Its options, JSON."""
    tts: str = "hibari"
    tts_options: str = "{}"
    min_replicas: int = 1
    """Of each engine."""
    max_replicas: int = 4
    requests_per_replica: float = 2.0
    """Under way: with more, a replica is added."""
    max_batch: int = 4
    batch_wait_seconds: float = 0.005
    cpus: float = 1.0
    """Of each replica, as Ray counts them."""
    gpus: float = 0.0


class Job:
    """A request: what an engine makes of it goes into a queue."""

    def __init__(self, stream: AsyncGenerator[Result]) -> None:
        self._stream = stream
        self._results: asyncio.Queue[Result | None] = asyncio.Queue(RESULTS_AHEAD)
        self._given_up = False
        self._work: asyncio.Task[None] | None = None

    async def results(self) -> AsyncGenerator[Result]:
        """All results, up to an error if there is one. Closing it ends the work."""
        try:
            while (result := await self._results.get()) is not None:
                yield result
        finally:
            self._given_up = True
            if self._work is not None:
                self._work.cancel()

    async def run(self) -> None:
        """Do the work. Never raises of itself."""
        if self._given_up:
            return
        self._work = asyncio.create_task(self._run())
        await asyncio.wait((self._work,))

    async def _run(self) -> None:
        try:
            async with aclosing(self._stream) as stream:
                async for result in stream:
                    await self._results.put(result)
        except VoiceError as exc:
            await self._results.put(("error", str(exc)))
        await self._results.put(None)


@serve.deployment
class EngineReplica:
    """One engine of the registry. It is loaded before the replica gets requests."""

    async def __init__(self, kind: str, name: str, options: str, args: Options) -> None:
        self._work.set_max_batch_size(args.max_batch)
        self._work.set_batch_wait_timeout_s(args.batch_wait_seconds)
        made = registry.create(kind, name, msgspec.json.decode(options))
        self._engine = await made.__aenter__()
        await self._engine.load()

    async def __del__(self) -> None:
        if (engine := getattr(self, "_engine", None)) is not None:
            await engine.__aexit__(None, None, None)

    def check_health(self) -> None:
        """Ray replaces a replica for which this raises, three times in a row."""
        if problem := self._engine.health():
            raise RuntimeError(problem)

    async def transcribe(
        self, pcm24: bytes, language: str | None, prompt: str
    ) -> AsyncGenerator[Result]:
        """The words so far, again and again, and the final transcript."""

        async def heard() -> AsyncGenerator[Result]:
            pcm = await asyncio.to_thread(resample, pcm24, RATE, self._engine.sample_rate)
            stream = self._engine.transcribe(_once(pcm), language=language, prompt=prompt)
            async with aclosing(stream) as transcripts:
                async for found in transcripts:
                    yield ("final" if found.final else "text"), found.text

        async with aclosing(self._results_of(heard())) as results:
            async for result in results:
                yield result

    async def speak(
        self, text: str, voice: str, speed: float, instructions: str
    ) -> AsyncGenerator[Result]:
        """PCM at 24 kHz as it is made."""

        async def made() -> AsyncGenerator[Result]:
            known = {each.id for each in self._engine.voices}
            resampler = Resampler(self._engine.sample_rate, RATE)
            stream = self._engine.synthesize(
                text,
                voice=voice if voice in known else self._engine.default_voice,
                speed=speed,
                language=None,
                instructions=instructions,
            )
            async with aclosing(stream) as speech:
                async for piece in speech:
                    if pcm := resampler.feed(piece.audio):
                        yield "audio", pcm
            if rest := resampler.flush():
                yield "audio", rest

        async with aclosing(self._results_of(made())) as results:
            async for result in results:
                yield result

    async def _results_of(self, stream: AsyncGenerator[Result]) -> AsyncGenerator[Result]:
        job = Job(stream)
        working = asyncio.create_task(self._work(job))
        try:
            async with aclosing(job.results()) as results:
                async for result in results:
                    yield result
        finally:
            await asyncio.wait((working,))

    @serve.batch(max_concurrent_batches=MAX_BATCHES)
    async def _work(self, jobs: list[Job]) -> list[None]:
        """Work on a batch. An engine that takes several utterances at once gets them together."""
        await asyncio.gather(*(job.run() for job in jobs))
        return [None] * len(jobs)


class SpeechRequest(BaseModel):
    """The body of POST /v1/audio/speech; other fields are ignored."""

    input: str
    voice: str = ""
    speed: float = 1.0
    instructions: str = ""
    response_format: str = "pcm"


async def _once(pcm: bytes) -> AsyncIterator[bytes]:
    yield pcm


async def _events(first: Result, results: AsyncIterator[Result]) -> AsyncGenerator[bytes]:
    """Server-sent events: a word is sent when the next transcript has it, too."""
    sent, last = "", first
    async for result in results:
        if result[0] == "error":
            yield _event({"error": {"message": result[1], "type": "server_error"}})
            return
        if last[0] == "text" and result[1].startswith(last[1]) and last[1].startswith(sent):
            if delta := last[1][len(sent) :]:
                yield _event({"type": "transcript.text.delta", "delta": delta})
            sent = last[1]
        last = result
    if last[1].startswith(sent) and (delta := last[1][len(sent) :]):
        yield _event({"type": "transcript.text.delta", "delta": delta})
    yield _event({"type": "transcript.text.done", "text": last[1]})


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(data) + b"\n\n"


async def _audio(first: bytes, results: AsyncIterator[Result]) -> AsyncGenerator[bytes]:
    """The bytes of a file. Raises RuntimeError, which breaks the body off: the engine fails."""
    yield first
    async for kind, given in results:
        if kind == "error":
            raise RuntimeError(given)
        yield given


def _error(status: int, message: str) -> Response:
    kind = "invalid_request_error" if status == 400 else "server_error"
    return JSONResponse({"error": {"message": message, "type": kind}}, status)


# Ray copies what the endpoints use where this class is defined: it has to stand above
api = FastAPI()


@serve.deployment
@serve.ingress(api)
class Gateway:
    """The endpoints."""

    def __init__(self, stt: DeploymentHandle, tts: DeploymentHandle, args: Options) -> None:
        self._stt = stt.options(stream=True)
        self._tts = tts.options(stream=True)
        self._args = args

    @api.get("/v1/models")
    async def models(self) -> dict[str, Any]:
        names = (self._args.stt, self._args.tts)
        data = [{"id": name, "object": "model", "owned_by": "ray"} for name in names]
        return {"object": "list", "data": data}

    @api.post("/v1/audio/transcriptions", response_model=None)
    async def transcriptions(
        self,
        file: UploadFile,
        language: str = Form(""),
        prompt: str = Form(""),
        stream: bool = Form(False),
    ) -> Response:
        data = await file.read()
        try:
            pcm24 = await asyncio.to_thread(
                files.read, data, "the file", max_seconds=MAX_UTTERANCE_S
            )
        except AudioError as exc:
            return _error(400, str(exc))
        results = aiter(self._stt.transcribe.remote(pcm24, language or None, prompt))
        first = await anext(results, ("error", "the recogniser gave no result"))
        if first[0] == "error":
            return _error(503, first[1])
        if stream:
            return StreamingResponse(_events(first, results), media_type="text/event-stream")
        last = first
        async for last in results:
            if last[0] == "error":
                return _error(503, last[1])
        return JSONResponse({"text": last[1]})

    @api.post("/v1/audio/speech", response_model=None)
    async def speech(self, body: SpeechRequest) -> Response:
        if body.response_format not in ("pcm", "wav"):
            return _error(400, f"response_format {body.response_format!r} is not pcm or wav")
        asked = self._tts.speak.remote(body.input, body.voice, body.speed, body.instructions)
        results = aiter(asked)
        first = await anext(results, ("audio", b""))
        if first[0] == "error":
            return _error(503, first[1])
        head = files.streaming_header(RATE) if body.response_format == "wav" else b""
        kind = f"audio/{body.response_format}"
        return StreamingResponse(_audio(head + first[1], results), media_type=kind)


def build(args: Options) -> serve.Application:
    """The application: the endpoints, and a deployment of each engine."""
    deployed = EngineReplica.options(
        max_ongoing_requests=MAX_BATCHES * args.max_batch,
        autoscaling_config={
            "min_replicas": args.min_replicas,
            "max_replicas": args.max_replicas,
            "target_ongoing_requests": args.requests_per_replica,
        },
        ray_actor_options={"num_cpus": args.cpus, "num_gpus": args.gpus},
    )
    stt = deployed.options(name="stt").bind("stt", args.stt, args.stt_options, args)
    tts = deployed.options(name="tts").bind("tts", args.tts, args.tts_options, args)
    return Gateway.options(ray_actor_options={"num_cpus": 0}).bind(stt, tts, args)


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve speech engines on Ray Serve.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8100)
    parser.add_argument("options", nargs="*", metavar="NAME=VALUE", help="see Options")
    given = parser.parse_args()
    named = dict(option.partition("=")[::2] for option in given.options)
    serve.start(http_options={"host": given.host, "port": given.port})
    serve.run(build(Options(**named)), blocking=True)


if __name__ == "__main__":
    main()
