"""The OpenAPI document: every route and every schema, and answers that match it."""

import re
from collections.abc import Iterator
from hashlib import sha256
from tomllib import loads
from typing import Any

import aiohttp
import msgspec
import pytest

from tests import idle_clock
from tests.api.audio_stage import tone
from tests.api.routes_stage import wav_of
from tests.server import Server, scripted, serving
from vivavoce.api.openapi import FOLDER, TYPES, openapi_document
from vivavoce.media.encoding import CONTENT_TYPES

DOCUMENT = openapi_document("1")
OPERATIONS = {
    operation["operationId"]: (method, path, operation)
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
}
EXAMPLES: dict[str, dict[str, Any]] = {
    "createSpeech": {"json": {"input": "Hi."}},
    "createChatCompletion": {"json": {"messages": [{"role": "user", "content": "Hi."}]}},
    "createTranscriptionSession": {"json": {"input_audio_transcription": {"model": "m"}}},
    "createTranscription": {"data": {"response_format": "verbose_json"}},
    "createSpeechTimestamps": {"data": {"threshold": "0.5"}},
    "createSpeechEmbedding": {"data": {"threshold": "0.5"}},
    "createDiarization": {"data": {"response_format": "xml"}},
    "createTranslation": {"data": {"response_format": "verbose_json"}},
    "answerCallOfAnyProvider": {"params": {"provider": "exotel"}},
    "createKey": {"json": {"name": "ada"}},
    **{key: {"json": {}} for key in ("setUser", "setTeam")},
    "setBudget": {"json": {"scope": "all", "limit": "1", "unit": "usd", "period": "day"}},
}
"""Requests that need a body."""
EXPECTED_STATUS = {
    "drainNode": 404,  # there is no cluster
    "listNodes": 404,
    "createSpeechEmbedding": 400,
    "createDiarization": 400,
    "connectRealtime": 426,
    "connectRaw": 426,
    "connectVoiceStream": 426,
    "connectRelay": 426,
    "connectTelephony": 426,
    "createBetaCall": 400,
    "createCall": 400,
    "startSessionV1": 201,
    "createKey": 201,
    **dict.fromkeys(("pullModel", "deleteModel", "loadModel", "unloadModel"), 404),
    "retrieveRecording": 404,
    **dict.fromkeys(("endSession", "watchSession"), 404),
    **dict.fromkeys(("revokeKey", "removeUser", "removeTeam", "removeBudget"), 404),
    **dict.fromkeys(("createRtviCall", "addRtviCandidates", "createVoxrayCall"), 400),
    **dict.fromkeys(("createRtviSessionCall", "addRtviSessionCandidates"), 400),
    **dict.fromkeys(("createVoxraySessionCall", "addVoxraySessionCandidates"), 400),
    "createVoxrayCallV1": 400,
}
"""What needs more than one simple request."""


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(reference := node.get("$ref"), str):
            yield reference
        for inner in node.values():
            yield from references(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from references(inner)


def resolved(node: dict[str, Any]) -> dict[str, Any]:
    """The object itself, or the one that it refers to."""
    if "$ref" not in node:
        return node
    found: Any = DOCUMENT
    for key in node["$ref"].removeprefix("#/").split("/"):
        found = found[key]
    assert isinstance(found, dict)
    return found


def test_document_and_routes_have_the_same_operations() -> None:
    async def routes() -> set[tuple[str, str]]:
        async with serving(scripted(), accounts=True) as server:
            found = set()
            for route in server.app.router.routes():
                assert route.resource is not None
                path = re.sub(r"\{(\w+):[^}]*\}", r"{\1}", route.resource.canonical)
                found.add((route.method.lower(), path))
            return {(method, path) for method, path in found if method != "head"}

    described = {(method, path) for method, path, _ in OPERATIONS.values()}
    assert idle_clock.run(routes()) == described


FILES = {
    "/docs": "start.js",
    "/docs/guides": "console.md",
    "/docs/guides/images": "console-talk.png",
    "/testing": "index.js",
}
"""A file for each path with a name in it."""


def test_document_references_all_resolve_and_name_every_component() -> None:
    used = set(references(DOCUMENT))
    components = {
        f"#/components/{kind}/{name}"
        for kind, named in DOCUMENT["components"].items()
        if kind != "securitySchemes"
        for name in named
    }
    assert used == components
    assert {f"#/components/schemas/{each.__name__}" for each in TYPES} <= used


def test_operations_have_unique_ids_and_list_the_common_errors() -> None:
    assert len(OPERATIONS) == sum(map(len, DOCUMENT["paths"].values()))
    for _, _, operation in OPERATIONS.values():
        assert {"400", "403", "405", "500"} <= operation["responses"].keys()
        assert ("401" in operation["responses"]) == (operation.get("security") != [])


def test_path_parameters_are_those_of_the_path() -> None:
    for _, path, operation in OPERATIONS.values():
        parameters = [resolved(one) for one in operation.get("parameters", ())]
        named = [one["name"] for one in parameters if one["in"] == "path"]
        assert named == re.findall(r"\{(\w+)\}", path)


def test_transcription_form_has_the_field_names_that_clients_send() -> None:
    schema = DOCUMENT["components"]["schemas"]["TranscriptionForm"]
    assert schema["required"] == ["file"]
    assert set(schema["properties"]) == {
        "file",
        "model",
        "language",
        "prompt",
        "response_format",
        "temperature",
        "timestamp_granularities[]",
        "include[]",
        "stream",
        "keywords[]",
        "chunking_strategy",
        "known_speaker_names[]",
        "known_speaker_references[]",
    }


def test_speech_response_lists_every_content_type_of_the_encoders() -> None:
    _, _, operation = OPERATIONS["createSpeech"]
    content = set(operation["responses"]["200"]["content"]) - {"text/event-stream"}
    assert content == {kind.partition(";")[0] for kind in CONTENT_TYPES.values()}


async def request(
    server: Server, session: aiohttp.ClientSession, operation_id: str
) -> tuple[int, str, bytes]:
    """Status, content type and body of the answer to a simple request."""
    method, path, _ = OPERATIONS[operation_id]
    options = EXAMPLES.get(operation_id, {})
    if "data" in options:
        form = aiohttp.FormData(options["data"])
        form.add_field("file", wav_of(tone(0.5)), filename="a.wav")
        options = {"data": form}
    path = path.replace("{model}", "default").replace("{voice}", "alloy")
    path = path.replace("{session_id}", "no-uuid")
    path = path.replace("{provider}", "twilio")
    path = path.replace("{name}", FILES.get(path.removesuffix("/{name}"), "index.html"))
    async with session.request(method, server.http + path, **options) as answer:
        return answer.status, answer.content_type, await answer.read()


@pytest.mark.parametrize("operation_id", sorted(OPERATIONS.keys() - {"hangUpCall"}))
def test_answer_of_an_operation_matches_its_description(operation_id: str) -> None:
    async def main() -> tuple[int, str, bytes]:
        async with (
            serving(scripted(), accounts=True) as server,
            aiohttp.ClientSession() as session,
        ):
            return await request(server, session, operation_id)

    status, content_type, body = idle_clock.run(main())
    assert status == EXPECTED_STATUS.get(operation_id, 200)
    _, _, operation = OPERATIONS[operation_id]
    content = resolved(operation["responses"][str(status)])["content"]
    assert content_type in content
    schema = content[content_type].get("schema", {})
    types = {each.__name__: each for each in TYPES}
    kinds: list[Any] = [types[each.rpartition("/")[2]] for each in references(schema)]
    array = schema.get("type") == "array"
    assert not kinds or any(decodes(body, kind, array=array) for kind in kinds)


def decodes(body: bytes, kind: Any, *, array: bool) -> bool:
    try:
        for value in msgspec.json.decode(body) if array else [msgspec.json.decode(body)]:
            msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True


def test_vendored_files_are_those_that_were_recorded() -> None:
    folder = FOLDER / "swagger_ui"
    record = loads((folder / "vendored.toml").read_text("utf-8"))
    hashes = {
        path.name: sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.name != "vendored.toml"
    }
    assert hashes == record["sha256"]
    assert record["license"] == "Apache-2.0"
