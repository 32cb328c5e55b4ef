"""GET /openapi.json, the OpenAPI 3.1 document of the HTTP API, and /docs, which shows it.

`reference/openapi.json` holds paths, parameters and texts. Added here: the schemas, which are made
of the msgspec types that read and write the bodies, and the errors that any operation can return.
/docs is Swagger UI, which is part of the package: the page sends requests to this server only.
"""

from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType

from vivavoce.api.admin import (
    NewBudget,
    NewKey,
    OwnerChange,
    RecordList,
    ShownBudget,
    ShownKey,
)
from vivavoce.api.chat.request import ChatCompletion, ChatCompletionRequest
from vivavoce.api.client_secrets import (
    BetaSecretLifetime,
    ClientSecret,
    ClientSecretRequest,
    ClientSecretResponse,
    TokenResponse,
)
from vivavoce.api.cluster import ClusterNodeList, NodeDrain
from vivavoce.api.http_errors import Problem, VoxrayError
from vivavoce.api.models import AudioModelList, EngineList, ModelList, ModelObject, VoiceList
from vivavoce.api.packs import DeletedModel, LoadedModel, LoadedModels, PackList, PulledModel
from vivavoce.api.public import (
    CONTENT_TYPES,
    FilesOnDemand,
    HealthStatus,
    ReadyStatus,
    StaticFile,
)
from vivavoce.api.sessions import LiveSessionList
from vivavoce.api.usage import UsageReport
from vivavoce.api.voxray import VoxrayData
from vivavoce.protocol.beta import BetaSession, BetaTranscriptionSession
from vivavoce.protocol.beta_client import BetaSessionPatch, BetaTranscriptionSessionPatch
from vivavoce.protocol.rest_audio import (
    DiarizationJson,
    DiarizationRequest,
    EmbeddingList,
    EmbeddingRequest,
    ServerVadChunking,
    SpeechRequest,
    SpeechTimestamp,
    TimestampsRequest,
    TranscriptionDiarized,
    TranscriptionJson,
    TranscriptionRequest,
    TranscriptionVerbose,
)
from vivavoce.protocol.rtvi_requests import (
    CandidatesRequest,
    ConnectResponse,
    OfferAnswer,
    OfferRequest,
    PatchStatus,
    StartedData,
    StartRequest,
    StartResponse,
    VoxrayAnswerData,
    VoxrayCallData,
    VoxrayOffer,
)

Json: TypeAlias = dict[str, Any]

REFERENCE: Final = "#/components/schemas/{name}"
FOLDER: Final = Path(__file__).parent / "reference"
INDEX: Final = "index.html"
DOCUMENT: Final = "openapi.json"
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""Of /docs. The style sheet of Swagger UI has its images in data: URLs."""
LIST_FIELDS: Final = frozenset(
    {
        *("timestamp_granularities", "include", "keywords"),
        *("known_speaker_names", "known_speaker_references"),
    }
)
"""Fields of forms that are lists; a form sends them as `name[]`."""


FORMS: Final[tuple[type[msgspec.Struct], ...]] = (
    DiarizationRequest,
    EmbeddingRequest,
    TimestampsRequest,
    TranscriptionRequest,
)
"""Requests that a form sends, with a file: the schema of TranscriptionRequest is
TranscriptionForm."""


class BetaSessionRequest(BetaSessionPatch, frozen=True, kw_only=True):
    """The settings of the session, and the lifetime of the key."""

    client_secret: BetaSecretLifetime | UnsetType | None = UNSET


class BetaTranscriptionSessionRequest(BetaTranscriptionSessionPatch, frozen=True, kw_only=True):
    """The settings of the session, and the lifetime of the key."""

    client_secret: BetaSecretLifetime | UnsetType | None = UNSET


class BetaSessionResponse(BetaSession, frozen=True, kw_only=True):
    """The session that the key opens, and the key."""

    client_secret: ClientSecret  # type: ignore[assignment]  # null in events, the key here


class BetaTranscriptionSessionResponse(BetaTranscriptionSession, frozen=True, kw_only=True):
    """The session that the key opens, and the key."""

    client_secret: ClientSecret  # type: ignore[assignment]  # null in events, the key here


TYPES: Final[tuple[type[msgspec.Struct], ...]] = (
    BetaSessionRequest,
    BetaSessionResponse,
    BetaTranscriptionSessionRequest,
    BetaTranscriptionSessionResponse,
    CandidatesRequest,
    ChatCompletion,
    ChatCompletionRequest,
    ClientSecretRequest,
    ClientSecretResponse,
    ConnectResponse,
    DeletedModel,
    LoadedModel,
    LoadedModels,
    NewBudget,
    NewKey,
    OfferAnswer,
    OfferRequest,
    OwnerChange,
    PackList,
    PatchStatus,
    PulledModel,
    RecordList,
    ShownBudget,
    ShownKey,
    StartRequest,
    StartResponse,
    StartedData,
    TokenResponse,
    VoxrayAnswerData,
    VoxrayCallData,
    VoxrayData,
    VoxrayError,
    VoxrayOffer,
    HealthStatus,
    AudioModelList,
    LiveSessionList,
    ClusterNodeList,
    NodeDrain,
    EngineList,
    ModelList,
    ModelObject,
    Problem,
    ReadyStatus,
    SpeechRequest,
    SpeechTimestamp,
    ServerVadChunking,
    DiarizationJson,
    EmbeddingList,
    TranscriptionDiarized,
    TranscriptionJson,
    TranscriptionVerbose,
    UsageReport,
    VoiceList,
)
"""The types that `openapi.json` refers to as #/components/schemas/NAME."""


def openapi_document(version: str) -> Json:
    """The whole document, ready to be encoded. Reads a file."""
    document: Json = msgspec.json.decode((FOLDER / DOCUMENT).read_bytes())
    document["info"]["version"] = version
    _, schemas = msgspec.json.schema_components(TYPES, ref_template=REFERENCE)
    for shape in FORMS:
        schemas[f"{shape.__name__.removesuffix('Request')}Form"] = _form(shape)
    document["components"]["schemas"] = schemas
    for operations in document["paths"].values():
        for operation in operations.values():
            needs_key = operation.get("security") != []
            for status in (400, *((401,) if needs_key else ()), 403, 405, 500):
                error = {"$ref": f"#/components/responses/{status}"}
                operation["responses"].setdefault(str(status), error)
    return document


def _form(shape: type[msgspec.Struct]) -> Json:
    """The schema of a request as a form sends it, with the file."""
    _, schemas = msgspec.json.schema_components([shape], ref_template=REFERENCE)
    request = schemas[shape.__name__]
    fields: Json = {
        f"{name}[]" if name in LIST_FIELDS else name: _without_null(schema)
        for name, schema in request["properties"].items()
    }
    file = {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}
    return {**request, "properties": {"file": file, **fields}, "required": ["file"]}


def _without_null(schema: Json) -> Json:
    """A form cannot send null: the field is left out."""
    null = {"type": "null"}
    if null not in schema.get("anyOf", ()):
        return schema
    (only,) = (each for each in schema["anyOf"] if each != null)
    return {**only, **{key: schema[key] for key in ("description",) if key in schema}}


class ReferenceRoutes:
    """Serves the document and the page that shows it, which are read when they are asked for: the
    document takes longer to make than all routes."""

    def __init__(self, version: str) -> None:
        self._version = version
        self._files = FilesOnDemand(self._read)
        self._paths = {
            path.name: path
            for path in (
                FOLDER / INDEX,
                FOLDER / "start.js",
                FOLDER / "guides.css",
                FOLDER / "reference.css",
                *(FOLDER / "swagger_ui").glob("*.*s"),
            )
        }

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/openapi.json", self.document)
        app.router.add_get("/docs", self.page)
        app.router.add_get("/docs/{name}", self.file)

    async def document(self, request: web.Request) -> web.Response:
        return await self._files.response(request, DOCUMENT)

    async def page(self, request: web.Request) -> web.Response:
        return await self._files.response(request, INDEX)

    async def file(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in self._paths or name == INDEX:
            raise web.HTTPNotFound
        return await self._files.response(request, name)

    def _read(self, name: str) -> StaticFile:
        if name == DOCUMENT:
            document = msgspec.json.encode(openapi_document(self._version))
            return StaticFile(document, "application/json", POLICY)
        path = self._paths[name]
        return StaticFile(path.read_bytes(), CONTENT_TYPES[path.suffix], POLICY)
