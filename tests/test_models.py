"""Which engine `auto` stands for, and which voice a model has."""

import asyncio
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.engines.openai.chat_server import ChatServer, gives, lists
from tests.server import scripted
from vivavoce import models
from vivavoce.engines import registry
from vivavoce.engines.openai.discovery import LocalServer
from vivavoce.errors import SettingsError
from vivavoce.models import CANDIDATES, OPENAI_MODEL, Selected, Surroundings, built_models, select
from vivavoce.runtime.chains import FallbackTTS
from vivavoce.runtime.upstream import Relay
from vivavoce.settings import KINDS, CascadeModel, Kind, ServerSettings, Settings
from vivavoce.settings_sources import parse

NOWHERE = Surroundings(Settings(), ())


def selected_llm(
    options: Mapping[str, Any] | None = None, *, reply: Any = None, own: bool = False
) -> Selected:
    """The LLM that `auto` stands for, with a server on this machine that replies so."""

    async def main() -> Selected:
        async with ChatServer([reply or gives(404)]) as server:
            settings = Settings(
                server=ServerSettings(port=server.port if own else 8080),
                engines={"llm": {"openai": dict(options)}} if options else {},
            )
            at = Surroundings(settings, (LocalServer("Library", server.port),))
            selected = await select("llm", "auto", at)
            if "base_url" in selected.options:
                assert selected.options["base_url"] == server.base_url
            return selected

    return asyncio.run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_auto_of_each_kind_is_an_engine_of_that_kind(kind: Kind) -> None:
    selected = asyncio.run(select(kind, "auto", NOWHERE))
    assert selected.name in {*registry.names(kind), "none"}
    best = CANDIDATES[kind][0].engine
    assert selected.name == best or selected.reason


@pytest.mark.parametrize("kind", KINDS)
def test_candidates_of_each_kind_are_installed_engines(kind: Kind) -> None:
    assert {candidate.engine for candidate in CANDIDATES[kind]} <= {*registry.names(kind), "none"}


@pytest.mark.parametrize(
    ("kind", "package", "name", "reason"),
    [
        ("tts", "hibari", "espeak", "hibari-tts, which carries a neural voice, is missing"),
        ("clean", "livekit", "none", "pip install 'vivavoce[room]'"),
    ],
)
def test_auto_without_the_package_of_the_best_engine_is_the_next_one(
    kind: Kind, package: str, name: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "find_spec", lambda found: None if found == package else object())
    selected = asyncio.run(select(kind, "auto", NOWHERE))
    assert selected.name == name
    assert selected.reason.endswith(reason)


@pytest.mark.skipif(find_spec("hibari") is None, reason="hibari-tts is not installed")
def test_auto_tts_has_espeak_behind_the_english_voice() -> None:
    async def main() -> None:
        async with built_models(parse({}), ()) as built:
            cascade = built.catalog.of("default")
            assert built.selected["default"][4].name == "hibari"
            assert {"tts:hibari", "tts:espeak"} <= set(built.engines)
            assert isinstance(cascade.tts, FallbackTTS)
            assert [member.name for member in cascade.tts.members] == ["hibari", "espeak"]
            assert cascade.voice("") == "marin"  # a name that clients of OpenAI know
            assert cascade.voice("de") == "de"  # a voice of espeak

    asyncio.run(main())


@pytest.mark.parametrize(
    ("kind", "pack", "file", "fallback"),
    [
        ("stt", "moonshine-tiny-en", "encoder_model.ort", "pocketsphinx"),
        ("turn", "smart-turn-v3", "smart-turn.onnx", "words"),
        ("vad", "silero-vad-v6", "silero_vad_v6.onnx", "energy"),
    ],
)
def test_auto_without_intact_weights_is_the_next_engine_with_the_remedy(
    kind: Kind,
    pack: str,
    file: str,
    fallback: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(models, "find_spec", lambda found: found != "faster_whisper" or None)
    selected = asyncio.run(select(kind, "auto", NOWHERE))
    assert selected.name == fallback
    remedy = f"the model {pack} is not installed; try: vivavoce models pull {pack}"
    assert selected.reason.removeprefix("by loudness: ") == remedy
    damaged = tmp_path / "vivavoce" / "models" / pack
    damaged.mkdir(parents=True)
    (damaged / file).write_bytes(b"cut short")
    selected = asyncio.run(select(kind, "auto", NOWHERE))
    assert selected.name == fallback
    assert f"{file} is damaged" in selected.reason


def test_named_engine_is_selected_without_looking_at_candidates() -> None:
    assert asyncio.run(select("stt", "mine", NOWHERE)) == Selected("stt", "mine")


@pytest.mark.parametrize("options", [{"base_url": "http://x/v1"}, {"model": "m"}])
def test_auto_llm_prefers_the_configured_endpoint(options: dict[str, str]) -> None:
    assert selected_llm(options, reply=lists("llama")) == Selected("llm", "openai", "configured")


def test_auto_llm_with_a_key_alone_is_openai_with_its_model() -> None:
    assert selected_llm({"api_key": "k"}) == Selected(
        "llm", "openai", "configured", {"model": OPENAI_MODEL}
    )


def test_auto_llm_without_configuration_is_a_server_on_this_machine() -> None:
    selected = selected_llm(reply=lists("llama"))
    assert (selected.name, selected.options["model"]) == ("openai", "llama")
    assert selected.reason.startswith("Library answers at http://127.0.0.1:")


def test_auto_llm_does_not_ask_the_own_port() -> None:
    assert selected_llm(reply=lists("llama"), own=True).name == "builtin"


def test_auto_llm_without_any_model_is_builtin_with_the_reason() -> None:
    assert selected_llm() == Selected(
        "llm", "builtin", "no model is configured and none answers on this machine"
    )


def default_voices(**tables: Any) -> dict[str, str]:
    """The default voice of each model; the scripted TTS speaks as bass and tenor."""
    engines = scripted().models["default"]
    settings = scripted(tts={"voices": ["bass", "tenor"]})
    low = {"low": {"engine": "scripted", "voices": ["low", "marin"]}}
    both: dict[Kind, dict[str, dict[str, Any]]] = {
        **settings.engines,
        "tts": settings.engines["tts"] | low,
    }
    deep = msgspec.structs.replace(engines, tts="low", **tables.pop("deep", {}))
    settings = msgspec.structs.replace(
        settings, engines=both, models={"default": engines, "deep": deep}, **tables
    )

    async def main() -> dict[str, str]:
        async with built_models(settings, ()) as built:
            return {name: cascade.default_voice for name, cascade in built.catalog.cascades.items()}

    return asyncio.run(main())


def test_default_voice_is_marin_or_that_of_the_engine() -> None:
    assert default_voices() == {"default": "bass", "deep": "marin"}


def test_default_voice_of_a_model_is_its_setting() -> None:
    assert default_voices(deep={"voice": "low"}) == {"default": "bass", "deep": "low"}


def test_voice_of_the_session_is_used_by_models_that_have_it() -> None:
    session = msgspec.structs.replace(Settings().session, voice="tenor")
    assert default_voices(session=session) == {"default": "tenor", "deep": "marin"}


def test_voice_that_the_model_does_not_have_is_refused_with_its_place() -> None:
    session = msgspec.structs.replace(Settings().session, voice="low")
    with pytest.raises(SettingsError) as refused:
        default_voices(session=session)
    assert str(refused.value) == (
        "[session] voice: 'low' is none of the voices of the model 'default'; some of them: bass, "
        "tenor"
    )
    with pytest.raises(SettingsError, match=r"^\[models.deep\] voice: 'bass' is none of the voi"):
        default_voices(deep={"voice": "bass"})


def test_relay_model_asks_for_its_own_name_and_marin_by_default() -> None:
    engines = scripted().models["default"]
    assert isinstance(engines, CascadeModel)
    tree = {
        "models": {
            "default": engines.engines,
            "far": {
                "type": "relay",
                "upstream": "wss://far.example/v1/realtime",
                "fallback": "default",
            },
        }
    }

    async def main() -> None:
        async with built_models(parse(tree), ()) as built:
            assert list(built.catalog.cascades) == ["default"]
            assert built.catalog.relays == {
                "far": Relay("wss://far.example/v1/realtime", "far", fallback="default")
            }
            assert built.catalog.default == "default"

    asyncio.run(main())


def test_model_of_the_defaults_names_auto_for_each_kind() -> None:
    assert CascadeModel().engines == dict.fromkeys(KINDS, "auto")


def default_of(tree: dict[str, Any]) -> str:
    """The cascade that serves unknown names, of models with scripted engines."""
    engines = scripted().models["default"]
    assert isinstance(engines, CascadeModel)
    for table in tree["models"].values():
        if "type" not in table:
            table.update(engines.engines)

    async def main() -> str:
        async with built_models(parse(tree), ()) as built:
            return built.catalog.default

    return asyncio.run(main())


def test_default_relay_falls_back_to_its_cascade_or_the_first() -> None:
    far: dict[str, Any] = {"type": "relay", "upstream": "wss://far.example"}
    two: dict[str, Any] = {"a": {}, "b": {}}
    assert default_of({"models": {"default": far, **two}}) == "a"
    assert default_of({"models": {"default": {**far, "fallback": "b"}, **two}}) == "b"


def test_relay_without_a_cascade_is_refused_with_the_remedy() -> None:
    with pytest.raises(SettingsError, match=r"^\[models.default\] a relay needs a cascade model"):
        default_of({"models": {"default": {"type": "relay", "upstream": "wss://far.example"}}})
