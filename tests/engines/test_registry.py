"""Engines are found by name, built from their settings, and refused with the place named."""

import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from vivavoce.engines import registry
from vivavoce.engines.scripted import ScriptedSTT, ScriptedTTS, ScriptedVAD
from vivavoce.errors import SettingsError

PLUGIN = """
import msgspec

class HumSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pitch_hz: int = 100

class Hum:
    Settings = HumSettings

    def __init__(self, settings):
        self.pitch_hz = settings.pitch_hz
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package of someone else, installed: it offers `hum`, and `lost`, which misses a package."""
    (tmp_path / "hum_plugin.py").write_text(PLUGIN)
    (tmp_path / "lost_plugin.py").write_text("import package_that_nobody_has\n")
    info = tmp_path / "hum_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hum-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[vivavoce.engines]\ntts:hum = hum_plugin:Hum\nvad:lost = lost_plugin:Lost\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    importlib.invalidate_caches()


@pytest.mark.parametrize("kind", ["vad", "turn", "stt", "llm", "tts"])
def test_each_kind_has_a_scripted_engine(kind: str) -> None:
    names = registry.names(kind)
    assert "scripted" in names
    assert names == sorted(names)
    assert type(registry.create(kind, "scripted", {})).__module__ == "vivavoce.engines.scripted"


def test_an_unknown_kind_has_no_engines() -> None:
    assert registry.names("smell") == []
    assert registry.names("") == []


def test_an_engine_is_built_from_its_options() -> None:
    vad = registry.create("vad", "scripted", {"window_samples": 256, "sample_rate": 8000})
    assert isinstance(vad, ScriptedVAD)
    assert (vad.window_samples, vad.sample_rate) == (256, 8000)
    stt = registry.create("stt", "scripted", {"transcripts": ["hello"]})  # TOML knows no tuples
    assert isinstance(stt, ScriptedSTT)


def test_an_unknown_engine_is_refused_with_those_there_are() -> None:
    with pytest.raises(SettingsError, match=r"no vad engine 'ear'; installed: .*scripted"):
        registry.create("vad", "ear", {})


def test_the_name_of_another_kind_is_not_taken() -> None:
    assert "silero" in registry.names("vad")
    with pytest.raises(SettingsError, match="no tts engine 'silero'"):
        registry.create("tts", "silero", {})


@pytest.mark.parametrize(
    ("options", "mistake"),
    [
        ({"chunk": 20}, "unknown field `chunk`"),
        ({"chunk_ms": "20"}, r"Expected `int`, got `str` - at `\$.chunk_ms`"),
        ({"default_voice": "nobody"}, "default_voice 'nobody' is not one of voices"),
    ],
)
def test_a_bad_option_is_refused_with_its_place(options: dict[str, object], mistake: str) -> None:
    with pytest.raises(SettingsError, match=r"^\[tts.scripted\] ") as refused:
        registry.create("tts", "scripted", options)
    refused.match(mistake)


@pytest.mark.usefixtures("plugin")
def test_an_installed_package_adds_an_engine() -> None:
    assert {"hum", "scripted"} <= set(registry.names("tts"))
    assert registry.create("tts", "hum", {"pitch_hz": 220}).pitch_hz == 220
    assert isinstance(registry.create("tts", "scripted", {}), ScriptedTTS)


@pytest.mark.usefixtures("plugin")
def test_an_engine_that_misses_a_package_says_which() -> None:
    missing = r"^\[vad.lost\] needs the package 'package_that_nobody_has'.*pip install"
    with pytest.raises(SettingsError, match=missing):
        registry.create("vad", "lost", {})
