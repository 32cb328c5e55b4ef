"""The description of the HTTP API, and the page that shows it."""

import asyncio
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import aiohttp
import msgspec
import pytest

from tests.api.audio_stage import tone
from tests.api.door_stage import wav_of
from tests.server import Server, scripted, serving
from vivavoce.api import operations
from vivavoce.api.http_errors import Problem
from vivavoce.api.openapi import Answer, Operation, document
from vivavoce.api.operations import OPERATIONS
from vivavoce.api.reference import page
from vivavoce.app import application
from vivavoce.limits.keys import hash_of

DESCRIPTION = document(OPERATIONS, title="Vivavoce", version="1", about=operations.ABOUT)


def refs(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(ref := node.get("$ref"), str):
            yield ref
        for inner in node.values():
            yield from refs(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from refs(inner)


class Page(HTMLParser):
    """What a page asks for, and where its links lead."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: set[str] = set()
        self.places: set[str] = set()
        self.sources: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            known = {"href": self.links, "id": self.places, "src": self.sources}
            if name in known:
                known[name].add(value or "")


def test_every_route_is_described_and_everything_described_is_a_route() -> None:
    async def routes() -> set[tuple[str, str]]:
        async with serving(scripted()) as server:
            app = application(server.hub)
            found = set()
            for route in app.router.routes():
                assert route.resource is not None
                path = re.sub(r"\{(\w+):[^}]*\}", r"{\1}", route.resource.canonical)
                found.add((route.method.lower(), path))
            return {(method, path) for method, path in found if method != "head"}

    described = {
        (method, path) for path, methods in DESCRIPTION["paths"].items() for method in methods
    }
    assert asyncio.run(routes()) == described


def test_every_reference_leads_to_a_schema() -> None:
    known = {f"#/components/schemas/{name}" for name in DESCRIPTION["components"]["schemas"]}
    assert set(refs(DESCRIPTION)) <= known


def test_every_operation_has_a_name_of_its_own_and_tells_its_errors() -> None:
    told = [one for methods in DESCRIPTION["paths"].values() for one in methods.values()]
    assert len({one["operationId"] for one in told}) == len(told)
    for one in told:
        statuses = set(one["responses"])
        assert {"400", "405", "500"} <= statuses
        assert ("401" in statuses) == bool(one["security"])


def test_the_fields_of_a_form_are_named_as_clients_send_them() -> None:
    body = DESCRIPTION["paths"]["/v1/audio/transcriptions"]["post"]["requestBody"]
    schema = body["content"]["multipart/form-data"]["schema"]
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
    }


async def ask(server: Server, session: aiohttp.ClientSession, one: Operation) -> tuple[int, bytes]:
    """An answer that is well to a request as simple as it can be."""
    examples: dict[str, dict[str, Any]] = {
        "createSpeech": {"json": {"input": "Hi."}},
        "createChatCompletion": {"json": {"messages": [{"role": "user", "content": "Hi."}]}},
        "createTranscriptionSession": {"json": {"input_audio_transcription": {"model": "m"}}},
        "createTranscription": {"data": {"response_format": "verbose_json"}},
        "createTranslation": {"data": {"response_format": "verbose_json"}},
    }
    options = examples.get(one.id, {})
    if "data" in options:
        form = aiohttp.FormData(options["data"])
        form.add_field("file", wav_of(tone(0.5)), filename="a.wav")
        options = {"data": form}
    path = one.path.replace("{model}", "default").replace("{voice}", "alloy")
    path = path.replace("{name}", "index.html")
    async with session.request(one.method, server.http + path, **options) as answer:
        return answer.status, await answer.read()


@pytest.mark.parametrize(
    "one",
    [one for one in OPERATIONS if not one.path.startswith("/v1/realtime/calls")],
    ids=lambda one: str(one.id),
)
def test_what_is_answered_is_what_is_described(one: Operation) -> None:
    async def main() -> tuple[int, bytes]:
        async with serving(scripted()) as server, aiohttp.ClientSession() as session:
            return await ask(server, session, one)

    status, body = asyncio.run(main())
    if status in (400, 426):
        assert one.id in ("connectRealtime", "createBetaCall")  # these need more than a request
        msgspec.json.decode(body, type=Problem)
        return
    assert status == 200
    kind = one.answers[200].content.get("application/json")
    for each in kind if isinstance(kind, tuple) else (kind,):
        if isinstance(each, type):
            msgspec.json.decode(body, type=each)


def test_the_description_and_the_page_are_there_without_a_key() -> None:
    settings = scripted()
    settings.keys["ada"] = hash_of("k")

    async def main() -> tuple[Any, str, str]:
        async with serving(settings) as server, aiohttp.ClientSession() as session:
            async with session.get(f"{server.http}/openapi.json") as answer:
                description = await answer.json()
            async with session.get(f"{server.http}/docs") as answer:
                policy = answer.headers["Content-Security-Policy"]
                return description, await answer.text(), policy

    description, html, policy = asyncio.run(main())
    assert description["openapi"] == "3.1.0"
    assert description["paths"].keys() == DESCRIPTION["paths"].keys()
    assert html.startswith("<!doctype html>")
    assert policy.startswith("default-src 'none';")


def test_the_page_shows_all_and_asks_nobody() -> None:
    html = page(DESCRIPTION)
    shown = Page(html)
    assert shown.tags.isdisjoint({"script", "link", "img", "iframe", "object", "form"})
    assert shown.sources == set()
    assert "url(" not in html
    assert "@import" not in html
    anchors = {link for link in shown.links if link.startswith("#")}
    assert shown.links - anchors == {"/openapi.json"}
    assert {anchor.removeprefix("#") for anchor in anchors} <= shown.places
    for one in OPERATIONS:
        assert f"<code>{one.path}</code>" in html


def test_nothing_that_is_described_becomes_part_of_the_page() -> None:
    nasty = "<script>alert(1)</script>`<b>`"
    one = Operation(
        "get", "/<x>", "x", nasty, nasty, nasty, answers={200: Answer(nasty, {"<t>": None})}
    )
    html = page(document([one], title=nasty, version=nasty, about=nasty))
    assert "script" not in Page(html).tags
    assert "<x>" not in html
    assert "<t>" not in html
