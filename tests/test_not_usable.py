"""Engines that the settings name and that cannot be used: another serves, or the start is refused.

Each reason is one sentence with the place and the remedy.
"""

import asyncio
import hashlib
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.server import scripted
from vivavoce import configured
from vivavoce.engines import packs, registry
from vivavoce.engines.packs import PackFile
from vivavoce.errors import EngineNotUsable
from vivavoce.models import BuiltModels, built_models
from vivavoce.settings import Settings
from vivavoce.settings_sources import parse

needs_onnx = pytest.mark.skipif(find_spec("onnxruntime") is None, reason="needs onnxruntime")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the packs, empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "vivavoce" / "models"
    folder.mkdir(parents=True)
    return folder


def settings_of(
    engines: Mapping[str, object],
    tables: Mapping[str, Mapping[str, object]] | None = None,
    **server: Any,
) -> Settings:
    """Scripted engines but those; tables: options by kind, of the engine of that name."""
    tree = msgspec.to_builtins(scripted(server=server), enc_hook=str)
    tree["models"]["default"].update(engines)
    for kind, options in (tables or {}).items():
        tree["engines"].setdefault(kind, {})[str(engines[kind])] = dict(options)
    return parse(tree)


def started(settings: Settings, kind: str) -> tuple[str, str]:
    """The name of the engine of a kind, and why it is that one."""

    async def main() -> tuple[str, str]:
        async with asyncio.timeout(60), built_models(settings, ()) as built:
            return selected(built, kind)

    return asyncio.run(main())


def selected(built: BuiltModels, kind: str) -> tuple[str, str]:
    found = next(each for each in built.selected["default"] if each.kind == kind)
    return found.name, found.reason


def refused(settings: Settings) -> str:
    """Why a strict server does not start with these."""
    server = msgspec.structs.replace(settings.server, strict=True)
    strict = msgspec.structs.replace(settings, server=server)

    async def main() -> str:
        with pytest.raises(EngineNotUsable) as exc:
            async with asyncio.timeout(60), built_models(strict, ()):
                pass
        return str(exc.value)

    return asyncio.run(main())


def both(settings: Settings, kind: str, problem: str) -> None:
    """The server starts with another engine and says why; a strict one does not start."""
    wanted = dict(settings.models["default"].engines)[kind]  # type: ignore[union-attr]
    name, reason = started(settings, kind)
    assert name != wanted
    assert reason.startswith(f"in place of {wanted}: {problem}")
    assert refused(settings).startswith(problem)


@needs_onnx
def test_pack_that_is_missing_truncated_or_of_another_hash_is_replaced(cache: Path) -> None:
    settings = settings_of({"turn": "smart-turn"})
    place = "[engines.turn.smart-turn] "
    both(settings, "turn", f"{place}the model smart-turn-v3 is not installed; try: vivavoce models")
    (cache / "smart-turn-v3").mkdir()
    both(settings, "turn", f"{place}{cache}/smart-turn-v3/smart-turn.onnx cannot be read: No such")
    (cache / "smart-turn-v3" / "smart-turn.onnx").write_bytes(b"short")
    both(settings, "turn", f"{place}{cache}/smart-turn-v3/smart-turn.onnx is damaged: its SHA-256")


@needs_onnx
def test_folder_with_another_kind_of_model_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "my-whisper"
    folder.mkdir()
    for file in ("model.bin", "config.json", "tokenizer.json"):
        (folder / file).write_bytes(b"{}")
    both(
        settings_of({"tts": "kokoro"}, {"tts": {"model": str(folder)}}, strict=False),
        "tts",
        f"[engines.tts.kokoro] model: the folder {folder} holds no Kokoro model: there is no ",
    )


@needs_onnx
def test_licence_that_forbids_the_use_is_replaced(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = PackFile("", 4, hashlib.sha256(b"onnx").hexdigest())
    pack = msgspec.structs.replace(
        packs.manifest()["smart-turn-v3"],
        licence="CC-BY-NC-4.0",
        files={"smart-turn.onnx": file},
    )
    for module in (packs, configured):
        monkeypatch.setattr(module, "manifest", lambda: {"smart-turn-v3": pack})
    (cache / "smart-turn-v3").mkdir()
    (cache / "smart-turn-v3" / "smart-turn.onnx").write_bytes(b"onnx")
    both(
        settings_of({"turn": "smart-turn"}, use="commercial"),
        "turn",
        "[engines.turn.smart-turn] the model smart-turn-v3 has the licence CC-BY-NC-4.0, which "
        'forbids commercial use; choose another model, or set [server] use = "any"',
    )


@pytest.mark.skipif(find_spec("espeakng_loader") is None, reason="needs espeak-ng")
@pytest.mark.skipif(find_spec("hibari") is None, reason="needs hibari")
def test_language_that_no_engine_has_is_replaced_by_another_engine() -> None:
    both(
        settings_of({"tts": "espeak"}, {"tts": {"language": "qqq"}}),
        "tts",
        "[engines.tts.espeak] espeak-ng has no language 'qqq'; it has for example ",
    )


def test_engine_without_its_package_is_left_out_of_a_list(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    create = registry.create

    def created(kind: str, name: str, options: Mapping[str, object], *, table: str = "") -> Any:
        if name == "whisper":
            raise EngineNotUsable("[engines.stt.whisper] needs the package 'faster_whisper'")
        return create(kind, name, options, table=table)

    monkeypatch.setattr(registry, "create", created)
    settings = settings_of({"stt": ["whisper", "scripted"]})
    assert started(settings, "stt") == ("scripted", "")
    assert "needs the package 'faster_whisper'; it is left out" in caplog.text
    assert refused(settings) == "[engines.stt.whisper] needs the package 'faster_whisper'"


@needs_onnx
def test_strict_server_refuses_weights_that_do_not_load(tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "smart-turn.onnx").write_bytes(b"no model")
    settings = settings_of({"turn": "smart-turn"}, {"turn": {"model": str(folder)}})
    assert refused(settings).startswith("[engines.turn.smart-turn] its worker process ended ")
