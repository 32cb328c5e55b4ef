"""Engines by name. An installed package adds one with an entry point in group vivavoce.engines."""

import functools
import importlib
import sys
from collections.abc import Mapping
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import msgspec

from vivavoce.errors import EngineError, EngineNotUsable, SettingsError

GROUP = "vivavoce.engines"


def names(kind: str) -> list[str]:
    """The names installed for a kind: `vad`, `turn`, `stt`, `llm`, `tts`, `clean`. No loading."""
    prefix = f"{kind}:"
    found = _entries()
    return sorted({e.name.removeprefix(prefix) for e in found if e.name.startswith(prefix)})


def refresh() -> None:
    """Packages may have been installed since engines were looked for."""
    _entries_in.cache_clear()


def _entries() -> tuple[EntryPoint, ...]:
    """Those of all packages that can be imported now."""
    return _entries_in(tuple(sys.path))


@functools.lru_cache(maxsize=1)
def _entries_in(_path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Opens the metadata of every package."""
    return tuple(entry_points(group=GROUP))


def create(kind: str, name: str, options: Mapping[str, object], *, table: str = "") -> Any:
    """Import one engine and build it from its own Settings. Loads no weights: entering it does.

    table: where the options stand in the settings, if under another name. Raises SettingsError:
    no such engine, a package it needs is missing or broken, or a bad option.
    """
    place = f"[engines.{kind}.{table or name}]"
    entry = _entry(kind, name)
    engine = _loaded(entry, place)
    try:
        settings = msgspec.convert(options, engine.Settings)
    except msgspec.ValidationError as exc:
        raise SettingsError(f"{place} {mistake(exc, engine.Settings)}") from exc
    try:
        return engine(settings)
    except (EngineError, SettingsError) as exc:
        raise SettingsError(with_place(place, exc)) from exc


def problem_of(kind: str, name: str) -> str | None:
    """Why the class of an engine cannot be used here, in a sentence; None: it can.

    Imports its module, which is small: a library that it needs is only looked for.
    """
    try:
        _loaded(_entry(kind, name), f"[engines.{kind}.{name}]")
    except SettingsError as exc:
        return str(exc)
    return None


def with_place(place: str, error: Exception) -> str:
    """The message of the error, led by the place, which it may name itself."""
    message = str(error)
    return message if message.startswith("[") else f"{place} {message}"


def mistake(exc: msgspec.ValidationError, struct: Any) -> str:
    """What is wrong with a table of settings: the key first, and a remedy for a misspelt one."""
    reason, _, at = str(exc).partition(" - at `$")
    key = at.rstrip("`").lstrip(".")
    start = "Object contains unknown field `"
    if reason.startswith(start):
        unknown = reason.removeprefix(start).rstrip("`")
        known = () if key else struct.__struct_fields__
        reason = f"there is no setting {unknown!r} here{_hint(unknown, known)}"
    return f"{key}: {reason}" if key else reason


def _hint(unknown: str, known: tuple[str, ...]) -> str:
    if close := get_close_matches(unknown, known, 1):
        return f"; did you mean {close[0]!r}?"
    return f"; there are: {', '.join(known)}" if known else ""


def _entry(kind: str, name: str) -> EntryPoint:
    found = tuple(entry for entry in _entries() if entry.name == f"{kind}:{name}")
    if not found:
        raise SettingsError(f"no {kind} engine {name!r}; installed: {', '.join(names(kind))}")
    if len({entry.value for entry in found}) > 1:
        packages = " and ".join(sorted({_package(entry) for entry in found}))
        raise SettingsError(
            f"the {kind} engine {name!r} is offered by {packages}; uninstall all but one of them"
        )
    return found[0]


def _loaded(entry: EntryPoint, place: str) -> Any:
    """The class that an entry point names. Raises SettingsError."""
    try:
        module = importlib.import_module(entry.module)
    except ModuleNotFoundError as exc:
        raise EngineNotUsable(f"{place} {_missing(entry, exc)}") from exc
    except (ImportError, OSError) as exc:
        raise EngineNotUsable(
            f"{place} a package it needs is installed but cannot be loaded: {exc}"
        ) from exc
    try:
        engine = functools.reduce(getattr, entry.attr.split("."), module)
        engine.Settings  # noqa: B018  every engine has them
    except AttributeError as exc:
        raise SettingsError(
            f"{place} the package {_package(entry)} names {entry.value}, "
            f"which is not an engine: {exc}"
        ) from exc
    return engine


def _missing(entry: EntryPoint, exc: ModuleNotFoundError) -> str:
    """What to install. The entry point's extra names it: "my:Engine [extra]"."""
    package, own = (exc.name or "").split(".")[0], entry.module.split(".")[0]
    if package == own:
        return (
            f"the installation of {_package(entry)} is incomplete: there is no module "
            f"{exc.name!r}; reinstall it"
        )
    if not package:
        return f"a package it needs is not installed: {exc}"
    remedy = f"'{_package(entry)}[{','.join(entry.extras)}]'" if entry.extras else package
    return f"needs the package {package!r}, which is not installed; try: pip install {remedy}"


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else entry.module.split(".")[0]
