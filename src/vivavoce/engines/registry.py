"""Engines by name. An installed package adds one with an entry point in group vivavoce.engines."""

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

import msgspec

from vivavoce.errors import SettingsError

GROUP = "vivavoce.engines"


def names(kind: str) -> list[str]:
    """The names installed for a kind (`vad`, `turn`, `stt`, `llm`, `tts`). Loads nothing."""
    prefix = f"{kind}:"
    return sorted(
        e.name.removeprefix(prefix) for e in entry_points(group=GROUP) if e.name.startswith(prefix)
    )


def create(kind: str, name: str, options: Mapping[str, object]) -> Any:
    """Import one engine and build it from its own Settings. Loads no weights: entering it does.

    Raises SettingsError: no such engine, a package it needs is missing, or a bad option.
    """
    found = tuple(entry_points(group=GROUP, name=f"{kind}:{name}"))
    if not found:
        raise SettingsError(f"no {kind} engine {name!r}; installed: {', '.join(names(kind))}")
    try:
        engine = found[0].load()
    except ModuleNotFoundError as exc:
        raise SettingsError(
            f"[{kind}.{name}] needs the package {exc.name!r}, which is not installed; "
            f"try: pip install 'vivavoce[local]'"
        ) from exc
    try:
        settings = msgspec.convert(options, engine.Settings)
    except msgspec.ValidationError as exc:
        raise SettingsError(f"[{kind}.{name}] {exc}") from exc
    return engine(settings)
