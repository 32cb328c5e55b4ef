"""GET /v1/models, /v1/models/{model}, and /v1/audio/voices: what can be asked for by name."""

from collections.abc import Callable
from typing import Literal
from urllib.parse import quote

import msgspec
from aiohttp import web

from vivavoce.api.http_errors import Problem, ProblemBody, json_response
from vivavoce.engines.base import TTS
from vivavoce.runtime.catalog import ModelCatalog


class ModelObject(msgspec.Struct, frozen=True, kw_only=True):
    """A name that clients may put into `model`, and the settings put engines behind."""

    id: str
    object: Literal["model"] = "model"
    created: int
    """When this server started, in seconds since 1970."""
    owned_by: Literal["vivavoce"] = "vivavoce"


class ModelList(msgspec.Struct, frozen=True):
    data: list[ModelObject]
    object: Literal["list"] = "list"


class VoiceObject(msgspec.Struct, frozen=True, kw_only=True):
    """A voice of one engine. `name` is the id: engines give their voices no other."""

    id: str
    object: Literal["audio.voice"] = "audio.voice"
    name: str
    languages: list[str]
    """BCP 47 tags; none: any language, as far as the engine goes."""
    description: str
    models: list[str]
    """The models that speak with this engine."""
    default: bool
    """Whether it stands for voices that there are not."""
    sample: str
    """The path of a short recording, mp3."""


class VoiceList(msgspec.Struct, frozen=True):
    """The same list twice: some look into `data`, as in all lists of OpenAI, some into `voices`."""

    data: list[VoiceObject]
    voices: list[VoiceObject]
    object: Literal["list"] = "list"


class ModelRoutes:
    """Answers what there is.

    `default_voice` is the voice of the settings, which an engine need not know.
    """

    def __init__(
        self, brains: ModelCatalog, default_voice: str, wall_clock: Callable[[], float]
    ) -> None:
        self._brains = brains
        self._default_voice = default_voice
        self._created = int(wall_clock())

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/v1/models", self.models)
        app.router.add_get("/v1/models/{model:.+}", self.model)
        app.router.add_get("/v1/audio/voices", self.voices)

    async def models(self, _request: web.Request) -> web.Response:
        return json_response(ModelList([self._model(name) for name in self._brains.cascades]))

    async def model(self, request: web.Request) -> web.Response:
        name = request.match_info["model"]
        if name in self._brains.cascades:
            return json_response(self._model(name))
        body = ProblemBody(
            message=f"The model {name[:100]!r} does not exist; there are: "
            f"{', '.join(self._brains.cascades)}.",
            type="invalid_request_error",
            param="model",
            code="model_not_found",
        )
        return json_response(Problem(body), 404)

    async def voices(self, _request: web.Request) -> web.Response:
        names: dict[int, list[str]] = {}
        engines: dict[int, TTS] = {}
        for name, cascade in self._brains.cascades.items():
            names.setdefault(id(cascade.tts), []).append(name)
            engines[id(cascade.tts)] = cascade.tts
        found = [
            voice for key, engine in engines.items() for voice in self._voices(engine, names[key])
        ]
        return json_response(VoiceList(found, found))

    def _model(self, name: str) -> ModelObject:
        return ModelObject(id=name, created=self._created)

    def _voices(self, engine: TTS, models: list[str]) -> list[VoiceObject]:
        default = voice_of(engine, self._default_voice)
        return [
            VoiceObject(
                id=voice.id,
                name=voice.id,
                languages=[*voice.languages],
                description=voice.description,
                models=models,
                default=voice.id == default,
                sample=f"/v1/audio/voices/{quote(voice.id, safe='')}/sample"
                f"?model={quote(models[0], safe='')}",
            )
            for voice in engine.voices
        ]


def voice_of(engine: TTS, *wanted: str) -> str:
    """The first of these voices that the engine has; else its own default."""
    known = {voice.id for voice in engine.voices}
    return next((name for name in wanted if name in known), engine.default_voice)
