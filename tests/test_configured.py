"""Names of models that clients give, against the settings and the weights on this machine."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from tests.engines.openai.chat_server import ChatServer, gives, lists
from tests.server import scripted, serving
from vivavoce.engines import registry
from vivavoce.engines.openai.stt import OpenAISTT
from vivavoce.models import built_models
from vivavoce.runtime.catalog import ModelCatalog
from vivavoce.settings import ALIASES, Settings, aliases_of
from vivavoce.settings_sources import parse


def tables(**more: Any) -> Settings:
    """A scripted model, and engines beside it that no model uses."""
    tree = msgspec.to_builtins(scripted(), enc_hook=str)
    tree["engines"]["stt"]["deaf"] = {"engine": "scripted", "transcripts": ["from deaf"]}
    tree["engines"]["tts"]["bass"] = {"engine": "scripted", "voices": ["low"]}
    tree["models"]["second"] = {**tree["models"]["default"], "tts": "bass"}
    for name, value in more.items():
        tree[name] = value
    return parse(tree)


def with_catalog(settings: Settings, test: Callable[[ModelCatalog], Any]) -> None:
    async def main() -> None:
        async with built_models(settings, ()) as built:
            await test(built.catalog)

    asyncio.run(main())


def test_names_of_clients_find_tables_models_and_aliases() -> None:
    async def test(catalog: ModelCatalog) -> None:
        cascade = catalog.of("default")
        assert cascade.transcription_model("deaf") == "deaf"  # a table that no model uses
        assert cascade.speech_model("bass") == "bass"  # the engine of another model
        assert cascade.speech_model("second") == "second"  # that model's name
        assert cascade.voice("low", "bass") == "low"
        assert cascade.transcription_model("whisper-1") == "scripted"
        assert cascade.transcription_model("pocketsphinx") == "scripted"  # no table: not offered
        assert cascade.transcription_model("mine") == "pocketsphinx:hmm"
        assert cascade.transcription_model("ours") == "scripted"  # no engine has that name
        assert cascade.transcription_model("Systran/faster-distil-whisper-small.en") == "deaf"
        assert catalog.name_of("fast") == "second"
        assert catalog.name_of("whisper-1", "second") == "second"
        async with cascade.use_stt("deaf") as stt:
            assert stt.sample_rate
        async with cascade.use_stt("deaf") as stt:
            assert stt.sample_rate  # it is loaded

    aliases = {
        "mine": "pocketsphinx:hmm",
        "ours": ["nobody", "default"],
        "fast": "second",
        "Systran/faster-distil-whisper-small.en": "deaf",
    }
    settings = tables(aliases=aliases)
    assert aliases_of(settings)["whisper-1"] == ALIASES["whisper-1"]
    with_catalog(settings, test)


def test_pack_that_is_installed_serves_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    pack = "moonshine-tiny-en"

    async def missing(catalog: ModelCatalog) -> None:
        assert catalog.of("").transcription_model(pack) == "scripted"

    async def installed(catalog: ModelCatalog) -> None:
        cascade = catalog.of("")
        assert cascade.transcription_model(pack) == pack
        assert cascade.speech_model(pack) == "scripted"  # it does not speak
        async with cascade.use_stt(pack) as stt:  # it is damaged: the own engine takes over
            assert stt is cascade.stt

    with_catalog(tables(), missing)
    (tmp_path / "vivavoce" / "models" / pack).mkdir(parents=True)
    with_catalog(tables(), installed)


def test_default_names_of_speaches_stand_for_installed_packs_whose_engine_is_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    heard, spoken = "Systran/faster-distil-whisper-small.en", "speaches-ai/Kokoro-82M-v1.0-ONNX"
    missing: dict[str, str] = {}
    monkeypatch.setattr(registry, "problem_of", lambda _, engine: missing.get(engine))

    async def without(catalog: ModelCatalog) -> None:
        assert catalog.of("").transcription_model(heard) == "scripted"
        assert catalog.of("").speech_model(spoken) == "scripted"

    async def with_packs(catalog: ModelCatalog) -> None:
        cascade = catalog.of("")
        assert cascade.transcription_model("whisper-1") == "scripted"
        assert cascade.transcription_model(heard) == "whisper-base"
        assert cascade.speech_model(spoken) == "kokoro-82m"
        assert cascade.voice("af_heart", spoken) == "af_heart"  # it is not loaded yet

    with_catalog(tables(), without)
    for pack in ("whisper-base", "kokoro-82m"):
        (tmp_path / "vivavoce" / "models" / pack).mkdir(parents=True)
    with_catalog(tables(), with_packs)
    missing.update(whisper="faster-whisper is missing", kokoro="onnxruntime is missing")
    with_catalog(tables(), without)


def test_model_that_another_endpoint_lists_is_asked_for_there() -> None:
    async def main() -> None:
        async with ChatServer([lists("whisper-9"), gives(200, {"text": "far"})]) as server:
            settings = tables()
            options = {"engine": "openai", "base_url": server.base_url, "api_key": "key-of-far"}
            settings.engines["stt"]["far"] = options
            settings.models["third"] = msgspec.structs.replace(
                settings.models["default"],
                stt="far",
            )
            async with built_models(settings, ()) as built:
                cascade = built.catalog.of("default")
                assert cascade.transcription_model("whisper-9") == "scripted"
                far = built.engines["stt:far"]
                assert isinstance(far, OpenAISTT)
                await far._endpoint.listed.refresh()
                assert cascade.transcription_model("whisper-9") == "whisper-9"

    asyncio.run(main())


def test_session_uses_the_models_that_its_client_names_from_the_next_turn_on() -> None:
    async def main() -> None:
        async with (
            serving(tables()) as server,
            aiohttp.ClientSession() as http,
            http.ws_connect(
                f"{server.ws}/v1/realtime?speech_model=bass&voice=low&transcription_model=deaf"
            ) as socket,
        ):
            session = (await socket.receive_json(timeout=60))["session"]
            assert session["served_by"] == {
                **{"model": "default", "voice": "low"},
                **{"transcription_model": "deaf", "speech_model": "bass"},
            }
            update = {"type": "realtime", "speech_model": None, "transcription_model": "unheard-of"}
            await socket.send_json({"type": "session.update", "session": update})
            session = (await socket.receive_json(timeout=60))["session"]
            assert session["served_by"] == {
                **{"model": "default", "voice": "marin"},
                "transcription_model": "scripted",
            }
            assert session["audio"]["input"]["transcription"] == {"model": "unheard-of"}

    asyncio.run(main())


def test_transcription_session_takes_its_model_from_the_query() -> None:
    async def main() -> None:
        async with (
            serving(tables()) as server,
            aiohttp.ClientSession() as http,
            http.ws_connect(
                f"{server.ws}/v1/realtime?intent=transcription&model=deaf&language=de"
            ) as socket,
        ):
            session = (await socket.receive_json(timeout=60))["session"]
            assert session["audio"]["input"]["transcription"] == {"model": "deaf", "language": "de"}
            assert session["served_by"] == {"model": "default", "transcription_model": "deaf"}

    asyncio.run(main())


def test_audio_requests_use_the_model_that_they_name() -> None:
    async def main() -> None:
        async with serving(tables()) as server, aiohttp.ClientSession() as http:
            body = {"model": "bass", "input": "Hello.", "voice": "low", "response_format": "wav"}
            async with http.post(f"{server.http}/v1/audio/speech", json=body) as answer:
                assert answer.status == 200
                wav = await answer.read()
            assert server.tts.spoken == []  # another engine has spoken
            form = aiohttp.FormData({"model": "deaf"})
            form.add_field("file", wav, filename="a.wav")
            async with http.post(f"{server.http}/v1/audio/transcriptions", data=form) as answer:
                assert (await answer.json())["text"] == "from deaf"

    asyncio.run(main())
