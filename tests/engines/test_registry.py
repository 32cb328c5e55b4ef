"""Engines are found by name, built from their settings, and refused with the place named."""

import importlib
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest

from tests.engines.plugins import install
from vivavoce.engines import registry
from vivavoce.engines.base import Capabilities
from vivavoce.engines.scripted.engines import ScriptedSTT, ScriptedTTS, ScriptedVAD
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


MODULES = {
    "hum_plugin": PLUGIN,
    "lost_plugin": "import package_that_nobody_has.part\n",
    "odd_plugin": "raise ModuleNotFoundError('no idea which')\n",
    "sick_plugin": "raise OSError('libsick.so: cannot open shared object file')\n",
    "old_plugin": "from msgspec import a_thing_of_tomorrow\n",
    "grown_plugin": "import grown_plugin.missing\n",
    "moody_plugin": """
import msgspec
from vivavoce.errors import EngineError

class Moody:
    class Settings(msgspec.Struct):
        pass

    def __init__(self, settings):
        raise EngineError("there is no sound card")
""",
}
ENTRIES = """
tts:hum = hum_plugin:Hum
tts:gone = hum_plugin:Gone
tts:number = hum_plugin:msgspec
vad:lost = lost_plugin:Lost
vad:extra = lost_plugin:Lost [more]
vad:odd = odd_plugin:Odd
vad:sick = sick_plugin:Sick
vad:old = old_plugin:Old
vad:absent = absent_plugin:Absent
vad:grown = grown_plugin:Grown
vad:ours = vivavoce.engines.vad_that_was_deleted:Ours
llm:moody = moody_plugin:Moody
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where packages are installed."""
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    importlib.invalidate_caches()


@pytest.fixture
def plugin(site: Path) -> None:
    """A package that offers `hum`, and a number of engines that cannot be loaded."""
    install(site, "hum-plugin", MODULES, ENTRIES)


@pytest.mark.parametrize("kind", ["vad", "turn", "stt", "llm", "tts"])
def test_each_kind_has_a_scripted_engine(kind: str) -> None:
    names = registry.names(kind)
    assert "scripted" in names
    assert names == sorted(names)
    made = type(registry.create(kind, "scripted", {}))
    assert made.__module__ == "vivavoce.engines.scripted.engines"


def test_unknown_kind_has_no_engines() -> None:
    assert registry.names("smell") == []
    assert registry.names("") == []


def test_engine_is_built_from_its_options() -> None:
    vad = registry.create("vad", "scripted", {"window_samples": 256, "sample_rate": 8000})
    assert isinstance(vad, ScriptedVAD)
    assert (vad.window_samples, vad.sample_rate) == (256, 8000)
    stt = registry.create("stt", "scripted", {"transcripts": ["hello"]})  # TOML knows no tuples
    assert isinstance(stt, ScriptedSTT)


def test_unknown_engine_is_refused_with_the_installed_ones() -> None:
    with pytest.raises(SettingsError, match=r"no vad engine 'ear'; installed: .*scripted"):
        registry.create("vad", "ear", {})


def test_name_of_another_kind_is_refused() -> None:
    assert "silero" in registry.names("vad")
    with pytest.raises(SettingsError, match="no tts engine 'silero'"):
        registry.create("tts", "silero", {})


@pytest.mark.parametrize(
    ("options", "mistake"),
    [
        ({"chunk": 20}, "there is no setting 'chunk' here; did you mean 'chunk_ms'[?]$"),
        ({"zzz": 20}, "there is no setting 'zzz' here; there are: ms_per_character, sample_rate, "),
        ({"chunk_ms": "20"}, "chunk_ms: Expected `int`, got `str`$"),
        ({"default_voice": "nobody"}, "default_voice 'nobody' is not one of voices"),
    ],
)
def test_bad_option_is_refused_with_its_place(options: dict[str, object], mistake: str) -> None:
    with pytest.raises(SettingsError, match=r"^\[engines.tts.scripted\] ") as refused:
        registry.create("tts", "scripted", options)
    refused.match(mistake)


@pytest.mark.usefixtures("plugin")
def test_installed_package_adds_an_engine() -> None:
    assert {"hum", "scripted"} <= set(registry.names("tts"))
    assert registry.create("tts", "hum", {"pitch_hz": 220}).pitch_hz == 220
    assert isinstance(registry.create("tts", "scripted", {}), ScriptedTTS)


def test_package_installed_later_is_found_after_a_refresh(site: Path) -> None:
    before = registry.names("tts")
    install(site, "hum-plugin", MODULES, ENTRIES)
    assert registry.names("tts") == before
    registry.refresh()
    assert set(registry.names("tts")) - set(before) >= {"hum"}


def test_bad_option_of_a_named_table_is_refused_with_that_name() -> None:
    with pytest.raises(SettingsError, match=r"^\[engines.tts.deep\] chunk_ms: Expected"):
        registry.create("tts", "scripted", {"chunk_ms": "20"}, table="deep")


NEEDS = "needs the package 'package_that_nobody_has', which is not installed; "
BROKEN = "a package it needs is installed but cannot be loaded: "
INCOMPLETE = "is incomplete: there is no module "


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(
    ("name", "mistake"),
    [
        ("vad:lost", f"{NEEDS}try: pip install package_that_nobody_has"),
        ("vad:odd", "a package it needs is not installed: no idea which"),
        ("vad:sick", f"{BROKEN}libsick.so: cannot open shared object file"),
        ("vad:old", f"{BROKEN}cannot import name 'a_thing_of_tomorrow' from 'msgspec'"),
        ("vad:absent", f"the installation of hum-plugin {INCOMPLETE}'absent_plugin'; reinstall it"),
        ("vad:grown", f"the installation of hum-plugin {INCOMPLETE}'grown_plugin.missing'"),
        ("vad:ours", f"{INCOMPLETE}'vivavoce.engines.vad_that_was_deleted'; reinstall it"),
        (
            "tts:gone",
            "the package hum-plugin names hum_plugin:Gone, which is not an engine: module",
        ),
        ("tts:number", "the package hum-plugin names hum_plugin:msgspec, which is not an engine: "),
        ("llm:moody", "there is no sound card"),
    ],
)
def test_engine_that_cannot_be_loaded_says_why(name: str, mistake: str) -> None:
    kind, _, engine = name.partition(":")
    with pytest.raises(SettingsError) as refused:
        registry.create(kind, engine, {})
    said = str(refused.value)
    assert said.startswith(f"[engines.{kind}.{engine}] ")
    assert mistake in said
    assert ("pip install" in said) == (name == "vad:lost")


def test_name_offered_by_two_packages_is_refused(site: Path) -> None:
    install(site, "hum-plugin", {"hum_plugin": PLUGIN}, "tts:hum = hum_plugin:Hum\n")
    install(site, "buzz-plugin", {"buzz_plugin": PLUGIN}, "tts:hum = buzz_plugin:Hum\n")
    assert registry.names("tts").count("hum") == 1
    with pytest.raises(
        SettingsError, match=r"^the tts engine 'hum' is offered by buzz-plugin and "
    ):
        registry.create("tts", "hum", {})


def test_package_that_offers_a_built_in_name_is_refused(site: Path) -> None:
    install(site, "hum-plugin", {"hum_plugin": PLUGIN}, "tts:scripted = hum_plugin:Hum\n")
    with pytest.raises(SettingsError, match="offered by hum-plugin and vivavoce; uninstall all"):
        registry.create("tts", "scripted", {})


@pytest.mark.parametrize(
    "entry",
    [entry for entry in entry_points(group=registry.GROUP) if entry.module.startswith("vivavoce.")],
    ids=lambda entry: str(entry.name),
)
def test_capabilities_of_each_engine_agree_with_its_entry_point(entry: EntryPoint) -> None:
    capabilities = entry.load().capabilities
    assert isinstance(capabilities, Capabilities)
    assert [capabilities.extra] * bool(capabilities.extra) == list(entry.extras)


def test_missing_package_names_the_extra_of_the_entry_point(plugin: None) -> None:
    with pytest.raises(SettingsError, match=r"try: pip install 'hum-plugin\[more\]'$"):
        registry.create("vad", "extra", {})
