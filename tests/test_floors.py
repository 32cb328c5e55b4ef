"""Imports point down only: a test of the layers.

Modules are found by walking the package, imports by reading the source: nothing is imported here.
"""

import ast
from collections.abc import Callable, Iterable
from functools import cache
from graphlib import TopologicalSorter
from importlib.metadata import entry_points
from pathlib import Path
from typing import NamedTuple

import vivavoce

FLOORS: dict[str, float] = {
    "errors": 0,
    "secret": 0,
    "protocol": 1,
    "audio": 1,
    "protocol.raw": 1.5,
    "protocol.raw_config": 1.5,
    "protocol.raw_frames": 1.5,
    "protocol.raw_input": 1.5,
    "protocol.raw_messages": 1.5,
    "protocol.rtvi": 1.5,
    "protocol.rtvi_answer": 1.5,
    "protocol.rtvi_output": 1.5,
    "protocol.telephony": 1.5,
    "protocol.telephony_messages": 1.5,
    "protocol.telephony_playback": 1.5,
    "session": 2,
    "limits": 2,
    "store.base": 2,
    "store.cluster": 2,
    "store": 3,
    "telemetry": 4,
    "engines.base": 2,
    "engines.registry": 2,
    "engines.speaker_model": 2,
    "engines.speech_text": 2,
    "engines.spoken_forms": 2,
    "starting": 2.2,
    "engines.worker": 2.5,
    "engines.process": 2.5,
    "engines.worker_link": 2.5,
    "engines.host": 2.5,
    "engines.host_stream": 2.5,
    "engines.shared": 2.5,
    "engines.hosted": 2.5,
    "engines.passages": 2.5,
    "engines.sentences": 2.5,
    "media": 2.5,
    "engines.http": 2.5,
    "engines.remote": 2.5,
    "engines.sse": 2.5,
    "engines.sockets": 2.5,
    "engines.socket_stt": 2.5,
    "engines.socket_tts": 2.5,
    "engines.packs": 2.5,
    "engines.pulling": 2.5,
    "engines.turn.text": 2.5,
    "engines": 3,
    "runtime": 4,
    "relay": 4,
    "transports": 5,
    "api": 5,
    "accounting": 6,
    "app": 6,
    "check": 6,
    "pytest_plugin": 6,
    "replay": 6,
    "scorecard": 6,
    "cli": 6,
    "configured": 6,
    "settings": 6,
    "settings_sources": 6,
    "voxray_config": 6,
    "standard_streams": 6,
    "scenarios": 6,
    "testing": 6,
    "voices": 6,
    "models": 6,
    "providers": 6,
    "reloading": 6,
    "routes": 6,
    "server": 6,
    "talk": 6,
    "workers": 6,
    "__main__": 6,
    "__init__": 6,
}
PURE = 2
"""The highest floor without a clock, chance, input or output."""
IMPURE = {
    *("asyncio", "time", "random", "uuid", "socket", "threading", "os", "logging"),
    *("av", "io", "pathlib", "shutil", "subprocess", "tempfile", "wave"),
}
COMPOSITION = 6
"""The only floor that reads the environment and knows more of engines than their contract."""

ROOT = Path(vivavoce.__file__).parent


def dotted(path: Path) -> str:
    """`vivavoce/engines/base.py` is "engines.base", a package is called by its own name."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


SOURCES = {dotted(path): path for path in sorted(ROOT.rglob("*.py"))}


class Names(NamedTuple):
    """What a module mentions, also inside functions."""

    imported: frozenset[str]  # in full: a.b for `from a import b`
    called: frozenset[str]
    attributes: frozenset[str]


@cache
def names(module: str) -> Names:
    imported, called, attributes = set[str](), set[str](), set[str]()
    for node in ast.walk(ast.parse(SOURCES[module].read_text("utf-8"))):
        match node:
            case ast.Import():
                imported |= {alias.name for alias in node.names}
            case ast.ImportFrom():
                assert node.level == 0, f"{module} imports relatively"
                imported |= {f"{node.module}.{alias.name}" for alias in node.names}
            case ast.Call(func=ast.Name(id=function)):
                called.add(function)
            case ast.Attribute():
                attributes.add(node.attr)
    return Names(frozenset(imported), frozenset(called), frozenset(attributes))


def found(
    wrong: Callable[[str], set[str]], modules: Iterable[str] = SOURCES
) -> dict[str, set[str]]:
    """What is wrong, by module."""
    return {module: these for module in modules if (these := wrong(module))}


def floor(module: str) -> float:
    """A module without a layer fails the first test and counts as the highest in the others."""
    return FLOORS.get(module, FLOORS.get(module.split(".")[0], COMPOSITION))


@cache
def own(module: str) -> set[str]:
    """The modules of ours that a module imports."""
    mine = {name.removeprefix("vivavoce.") for name in names(module).imported if ours(name)}
    return {name if name in SOURCES else name.rpartition(".")[0] or "__init__" for name in mine}


def ours(name: str) -> bool:
    return name.split(".")[0] == "vivavoce"


@cache
def vendors() -> dict[str, set[str]]:
    """The entry modules of each vendor: `stt:openai` and `tts:openai` are of one."""
    modules: dict[str, set[str]] = {}
    for entry in entry_points(group="vivavoce.engines"):
        if ours(entry.module):
            vendor = entry.name.partition(":")[2]
            if vendor == "llama":  # a server on this machine, which speaks OpenAI's API
                vendor = "openai"
            modules.setdefault(vendor, set()).add(entry.module.removeprefix("vivavoce."))
    return modules


ENTRIES = {module for modules in vendors().values() for module in modules}


def test_modules_all_have_a_layer() -> None:
    homes = {module.split(".")[0] for module in SOURCES}
    assert homes - FLOORS.keys() == set()


def test_imports_point_down() -> None:
    def upwards(module: str) -> set[str]:
        wrong = {there for there in own(module) if floor(there) > floor(module)}
        if floor(module) != COMPOSITION:
            package = module.split(".")[0]
            siblings = {there for there in own(module) if there.split(".")[0] != package}
            wrong |= {there for there in siblings if floor(there) == floor(module)}
        return wrong

    assert found(upwards) == {}


def test_imports_have_no_cycle() -> None:
    graph = {module: own(module) - {module} for module in SOURCES}
    assert set(TopologicalSorter(graph).static_order()) >= SOURCES.keys()


def test_lower_layers_import_no_io() -> None:
    def impure(module: str) -> set[str]:
        packages = {name.split(".")[0] for name in names(module).imported}
        return packages & IMPURE | names(module).called & {"open", "input", "print"}

    assert found(impure, (module for module in SOURCES if floor(module) <= PURE)) == {}


def test_environment_is_read_by_the_top_layer_only() -> None:
    def read(module: str) -> set[str]:
        last = {name.rpartition(".")[2] for name in names(module).imported}
        return (last | names(module).attributes) & {"environ", "environb", "getenv"}

    assert found(read, (module for module in SOURCES if floor(module) < COMPOSITION)) == {}


def test_engine_vendors_are_imported_by_no_other_package() -> None:
    contract = {"engines", "engines.base", "engines.registry"}
    contract |= {"engines.speaker_model", "engines.speech_text", "engines.spoken_forms"}

    def vendor_modules(module: str) -> set[str]:
        known = {there for there in own(module) if there.split(".")[0] == "engines"}
        if module == "testing":  # offers the scripted engines
            known -= {there for there in known if there.startswith("engines.scripted.")}
        if module in ("runtime.upstream", "runtime.upstream_calls", "runtime.tools") or (
            module == "telemetry.spend"
        ):  # connect as an engine does
            known -= {"engines.http", "engines.remote"}
        if module == "transports.frame_guard":  # its sockets are extended as those of engines are
            known -= {"engines.http"}
        return known & ENTRIES if floor(module) == COMPOSITION else known - contract

    assert found(vendor_modules, (one for one in SOURCES if not 2 < floor(one) <= 3)) == {}


def test_engines_are_imported_by_entry_point_only() -> None:
    def importers(module: str) -> set[str]:
        vendor = {m for modules in vendors().values() if module in modules for m in modules}
        by = {by for by in SOURCES if module in own(by)}
        if module.startswith("engines.scripted."):
            by.discard("testing")
        return by - vendor

    assert found(importers, sorted(ENTRIES & SOURCES.keys())) == {}


def family(entries: set[str]) -> set[str]:
    """All files of engines that these lead to."""
    files: set[str] = set()
    ahead = entries & SOURCES.keys()
    while ahead:
        files |= ahead
        ahead = {there for module in ahead for there in own(module)} - files
        ahead = {there for there in ahead if there.startswith("engines.") and floor(there) == 3}
    return files


def test_vendors_import_no_other_vendor() -> None:
    assert len(ENTRIES) > 1, "the package is not installed: it has no entry points"
    owners: dict[str, list[str]] = {}
    for vendor, entries in vendors().items():
        for module in family(entries):
            owners.setdefault(module, []).append(vendor)
    assert {module: them for module, them in owners.items() if len(them) > 1} == {}
