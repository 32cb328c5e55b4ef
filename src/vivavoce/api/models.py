"""GET /v1/models, /v1/models/{model}, /v1/audio/models, /v1/audio/voices and /v1/engines."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal
from urllib.parse import quote, urlsplit

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType

from vivavoce.api.http_errors import Problem, ProblemBody, json_response
from vivavoce.api.requests import CONTEXT
from vivavoce.engines.base import Capabilities
from vivavoce.errors import InvalidRequest
from vivavoce.runtime.catalog import Cascade
from vivavoce.runtime.inventory import OfferedModel


class SpeakerVoice(msgspec.Struct, frozen=True, kw_only=True):
    """A voice of a model of speech, as clients of speaches read it."""

    id: str
    name: str
    languages: list[str]


class ModelObject(msgspec.Struct, frozen=True, kw_only=True):
    """A model, by the name that clients put into `model`."""

    id: str
    object: Literal["model"] = "model"
    created: int
    """When this server started, in Unix seconds."""
    owned_by: Literal["vivavoce"] = "vivavoce"
    task: str | UnsetType = UNSET
    """Only in a list for a task, like the fields below."""
    language: list[str] | UnsetType = UNSET
    """Language tags; empty: any, or unknown before the model is loaded."""
    sample_rate: int | UnsetType = UNSET
    voices: list[SpeakerVoice] | UnsetType = UNSET


class ModelList(msgspec.Struct, frozen=True):
    data: list[ModelObject]
    object: Literal["list"] = "list"


class AudioModelObject(msgspec.Struct, frozen=True, kw_only=True):
    """A configured model, for clients that choose a model of speech."""

    id: str
    name: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["vivavoce"] = "vivavoce"


class AudioModelList(msgspec.Struct, frozen=True):
    """The same list twice: Open WebUI reads `models`, clients of OpenAI's lists read `data`."""

    data: list[AudioModelObject]
    models: list[AudioModelObject]
    object: Literal["list"] = "list"


class VoiceObject(msgspec.Struct, frozen=True, kw_only=True):
    """A voice of one engine. `name` is the id: engines give their voices no other."""

    id: str
    object: Literal["audio.voice"] = "audio.voice"
    name: str
    languages: list[str]
    """BCP 47 tags; empty: any language of the engine."""
    description: str
    models: list[str]
    """The models that use this engine."""
    default: bool
    """Whether it is used for unknown voice names."""
    sample: str
    """The path of a short recording, mp3."""


class VoiceList(msgspec.Struct, frozen=True):
    """The same list twice: Open WebUI reads `voices`, clients of OpenAI's lists read `data`."""

    data: list[VoiceObject]
    voices: list[VoiceObject]
    object: Literal["list"] = "list"


class EngineObject(msgspec.Struct, frozen=True, kw_only=True):
    """The engine of one stage of a model."""

    stage: Literal["stt", "llm", "tts", "relay"]
    name: str
    """As in the settings; of a relay, the host of its upstream server."""
    model: str = ""
    """The model that the engine uses, where its settings name one."""
    placeholder: bool = False
    """Whether it is a placeholder for a better engine that is not configured."""


class ModelEngines(msgspec.Struct, frozen=True, kw_only=True):
    """The engines of one configured model."""

    id: str
    default: bool
    engines: list[EngineObject]


class EngineList(msgspec.Struct, frozen=True, kw_only=True):
    data: list[ModelEngines]
    probed: list[str]
    """Local servers of language models that the server looks for at its start."""
    object: Literal["list"] = "list"


PLACEHOLDERS: Final = frozenset({("stt", "pocketsphinx"), ("llm", "builtin"), ("tts", "espeak")})
TASKS: Final[Mapping[str, str]] = {
    "automatic-speech-recognition": "stt",
    "text-generation": "llm",
    "text-to-speech": "tts",
    "voice-activity-detection": "vad",
    "turn-detection": "turn",
    "speaker-embedding": "speaker",
}
"""The kinds of engines by the names of tasks that the Hugging Face hub and speaches use."""


class ModelRoutes:
    """Lists the configured models, their voices, and what serves each task."""

    def __init__(
        self, wall_clock: Callable[[], float] = time.time, *, probed: Sequence[str] = ()
    ) -> None:
        """probed: see EngineList."""
        self._probed = [*probed]
        self._created = int(wall_clock())

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/v1/models", self.models)
        app.router.add_get("/v1/models/{model:.+}", self.model)
        app.router.add_get("/v1/audio/models", self.audio_models)
        app.router.add_get("/v1/audio/voices", self.voices)
        app.router.add_get("/v1/engines", self.engines)

    async def models(self, request: web.Request) -> web.Response:
        """The configured models; with `?task=` the names for one stage. Raises InvalidRequest."""
        task = request.query.get("task", "")
        if not task:
            return json_response(ModelList([self._model(name) for name in _names(request)]))
        if task not in TASKS:
            raise InvalidRequest(
                f"There is no task {task[:100]!r}; there are: {', '.join(TASKS)}.", param="task"
            )
        return json_response(ModelList(self._of_task(request, task)))

    async def model(self, request: web.Request) -> web.Response:
        name, known = request.match_info["model"], _names(request)
        if name in known:
            return json_response(self._model(name))
        for task in TASKS:
            for found in self._of_task(request, task):
                if found.id == name:
                    return json_response(found)
        body = ProblemBody(
            message=f"The model {name[:100]!r} does not exist; known models: {', '.join(known)}.",
            type="invalid_request_error",
            param="model",
            code="model_not_found",
        )
        return json_response(Problem(body), 404)

    async def audio_models(self, request: web.Request) -> web.Response:
        models = [
            AudioModelObject(id=name, name=name, created=self._created)
            for name in request[CONTEXT].catalog.cascades
        ]
        return json_response(AudioModelList(models, models))

    async def voices(self, request: web.Request) -> web.Response:
        """All voices, or those of one model with `?model=`."""
        asked, catalog = request.query.get("model", ""), request[CONTEXT].catalog
        names: dict[int, list[str]] = {}
        for name, cascade in catalog.cascades.items():
            names.setdefault(id(cascade.tts), []).append(name)
        if asked:
            tts = id(catalog.of(asked).tts)
            names = {tts: names[tts]}
        found = [
            voice for models in names.values() for voice in _voices(catalog.of(models[0]), models)
        ]
        return json_response(VoiceList(found, found))

    async def engines(self, request: web.Request) -> web.Response:
        """What each configured model consists of."""
        context = request[CONTEXT]
        default, catalog = context.models.default_model, context.catalog
        models = [
            ModelEngines(id=name, default=name == default, engines=_engines(cascade))
            for name, cascade in catalog.cascades.items()
        ]
        for name, relay in catalog.relays.items():
            host = urlsplit(relay.url).hostname or ""
            upstream = EngineObject(stage="relay", name=host, model=relay.model)
            models.append(ModelEngines(id=name, default=name == default, engines=[upstream]))
        return json_response(EngineList(data=models, probed=self._probed))

    def _model(self, name: str) -> ModelObject:
        return ModelObject(id=name, created=self._created)

    def _of_task(self, request: web.Request, task: str) -> list[ModelObject]:
        inventory = request[CONTEXT].inventory
        offered = inventory.offered(TASKS[task]) if inventory is not None else ()
        return [self._offered(task, each) for each in offered]

    def _offered(self, task: str, model: OfferedModel) -> ModelObject:
        capabilities = getattr(model.engine, "capabilities", Capabilities())
        languages = capabilities.languages
        voices = getattr(model.engine, "voices", None)
        return ModelObject(
            id=model.name,
            created=self._created,
            task=task,
            language=[] if languages == "any" else list(languages),
            sample_rate=model.engine.sample_rate if voices else UNSET,
            voices=[
                SpeakerVoice(id=one.id, name=one.id, languages=[*one.languages]) for one in voices
            ]
            if voices
            else UNSET,
        )


def _names(request: web.Request) -> list[str]:
    """The configured models, of which conversations may name any."""
    catalog = request[CONTEXT].catalog
    return [*catalog.cascades, *catalog.relays]


def _voices(cascade: Cascade, models: list[str]) -> list[VoiceObject]:
    """The voices of an engine that these models share; `cascade` is the first of these models."""
    default = cascade.voice("")
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
        for voice in cascade.tts.voices
    ]


def _engines(cascade: Cascade) -> list[EngineObject]:
    stages: tuple[tuple[Literal["stt", "llm", "tts"], object], ...] = (
        ("stt", cascade.stt),
        ("llm", cascade.llm),
        ("tts", cascade.tts),
    )
    return [
        EngineObject(
            stage=stage,
            name=cascade.names.get(stage, ""),
            model=str(getattr(engine, "known_model", "")),
            placeholder=(stage, cascade.names.get(stage, "")) in PLACEHOLDERS,
        )
        for stage, engine in stages
    ]
