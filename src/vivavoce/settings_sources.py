"""Reads the settings: one file, environment variables on top of it, flags on top of those.

No other module knows the names of the file and the variables.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeAlias, get_origin

import msgspec

from vivavoce.engines import registry
from vivavoce.engines.registry import mistake
from vivavoce.errors import SettingsError
from vivavoce.limits.prices import ModelPrice
from vivavoce.providers import PROVIDER_KINDS, add_providers
from vivavoce.runtime.moderation import ModerationSettings
from vivavoce.runtime.tools import ToolSettings
from vivavoce.runtime.voice_rules import VoiceRule
from vivavoce.session.policy import Policy
from vivavoce.settings import KINDS, CascadeModel, ModelSettings, RelayModel, Settings

FILE = "vivavoce.toml"
_CHAT = {
    "CHAT_COMPLETION_BASE_URL": "base_url",
    "CHAT_COMPLETION_MODEL": "model",
    "CHAT_COMPLETION_API_KEY": "api_key",
}
_TELEPHONY = {
    "TWILIO_AUTH_TOKEN": "twilio_auth_token",
    "TELNYX_PUBLIC_KEY": "telnyx_public_key",
    "PLIVO_AUTH_TOKEN": "plivo_auth_token",
}
_PREFIX = "VIVAVOCE_"
# what Kubernetes puts into every container beside a service called vivavoce, or vivavoce-redis
_FOREIGN = re.compile(_PREFIX + r"(\w+_)?(SERVICE_(HOST|PORT)(_\w+)?=|PORT_\d+_\w+=|PORT=\w+://)")
Place: TypeAlias = tuple[str, ...]
_SECTIONS: dict[str, type[msgspec.Struct]] = {
    field.name: type(field.default)
    for field in msgspec.structs.fields(Settings)
    if isinstance(field.default, msgspec.Struct) and field.name != "voices"
}


def load(
    path: Path | None, environment: Mapping[str, str], flags: Mapping[str, Any]
) -> tuple[Settings, list[str]]:
    """The settings, and where they came from.

    path: a file that must exist; None: ./vivavoce.toml if there is one. flags: values by
    "section.key", None where a flag was not given. Raises SettingsError.
    """
    if path is None and Path(FILE).is_file():
        path = Path(FILE)
    tree = {} if path is None else _read(path)
    return load_tree(tree, str(path or ""), environment, flags)


def load_tree(
    tree: dict[str, Any], file: str, environment: Mapping[str, str], flags: Mapping[str, Any]
) -> tuple[Settings, list[str]]:
    """As load(), of the tree of a file that was read already; `file` is its name."""
    given = [*_from_environment(environment), *_from_flags(flags)]
    for _, place, value in given:
        _put(tree, place, value)
    installed = {kind: registry.names(kind) for kind in PROVIDER_KINDS}
    _check(tree, {place: name for name, place, _ in given}, file or "settings")
    variables = add_providers(tree, environment, installed)
    sources = [file] if file else []
    return parse(tree), sources + [name for name, _, _ in given] + variables


def parse(tree: Mapping[str, Any]) -> Settings:
    """The settings of a file's tree. Raises msgspec.ValidationError."""
    models = tree.get("models")
    if isinstance(models, dict):
        typed = {name: _typed_model(model) for name, model in models.items()}
        tree = {**tree, "models": typed}
    return msgspec.convert(tree, Settings)


def _typed_model(model: Any) -> Any:
    return {"type": "cascade", **model} if isinstance(model, dict) else model


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as exc:
        raise SettingsError(f"the settings file does not exist: {path}") from exc
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise SettingsError(f"the settings file {path} cannot be read: {exc}") from exc


def _from_environment(environment: Mapping[str, str]) -> Iterator[tuple[str, Place, Any]]:
    """(variable, place, value) for each variable that sets something. Raises SettingsError."""
    names = {"OPENAI_API_KEY": "api_key", **_CHAT}
    for name, option in names.items():
        if text := environment.get(name):
            yield name, ("engines", "llm", "openai", option), text
    for name, option in _TELEPHONY.items():
        if text := environment.get(name):
            yield name, ("telephony", option), text
    ours = {
        f"{_PREFIX}{section}_{field.name}".upper(): (section, field)
        for section, kind in _SECTIONS.items()
        for field in msgspec.structs.fields(kind)
    }
    for name, text in environment.items():
        if name.startswith(_PREFIX) and name not in ours and not _FOREIGN.match(f"{name}={text}"):
            raise SettingsError(_stray(name, list(ours)))
    for name, (section, field) in ours.items():
        if (given := environment.get(name)) is not None:
            yield name, (section, field.name), _typed(name, given, field.type)


def _stray(name: str, known: list[str]) -> str:
    """The error for an unknown variable."""
    if close := get_close_matches(name, known, 1, cutoff=0.75):
        return f"{name}: unknown variable; did you mean {close[0]}?"
    tables = ", ".join(f"[{section}]" for section in _SECTIONS)
    return (
        f"{name}: unknown variable; only {tables} have variables, other settings belong in {FILE}"
    )


def _typed(name: str, text: str, kind: Any) -> Any:
    """A variable's text as the type of its setting; items of a list are separated by commas."""
    parts: Any = text
    if get_origin(kind) is tuple:
        parts = [part.strip() for part in text.split(",") if part.strip()]
    try:
        return msgspec.convert(parts, kind, strict=False)
    except msgspec.ValidationError as exc:
        raise SettingsError(f"{name}: {exc}") from exc


def _from_flags(flags: Mapping[str, Any]) -> Iterator[tuple[str, Place, Any]]:
    for key, value in flags.items():
        if value is not None:
            yield f"--{key.split('.')[-1].replace('_', '-')}", tuple(key.split(".")), value


def _put(tree: dict[str, Any], place: Place, value: Any) -> None:
    for part in place[:-1]:
        tree = tree.setdefault(part, {})
        if not isinstance(tree, dict):  # the file has another value there: _check() reports it
            return
    tree[place[-1]] = value


def _check(tree: dict[str, Any], origins: Mapping[Place, str], file: str) -> None:
    """Raise SettingsError for the first mistake: its origin, its table, and what is wrong."""
    for kind_, _ in _entries(tree, "engines"):
        if kind_ not in KINDS:
            raise SettingsError(
                f"{file}: [engines.{kind_}] unknown kind of engine; there are: {', '.join(KINDS)}"
            )
    for place, value, kind in _tables(tree):
        try:
            msgspec.convert(value, kind)
        except msgspec.ValidationError as exc:
            raise SettingsError(_located(exc, kind, place, origins, file)) from exc
    try:
        parse(tree)
    except msgspec.ValidationError as exc:
        raise SettingsError(_located(exc, Settings, (), origins, file)) from exc


def _located(
    exc: msgspec.ValidationError, kind: Any, place: Place, origins: Mapping[Place, str], file: str
) -> str:
    what = mistake(exc, kind)
    origin = origins.get((*place, what.partition(":")[0]), file)
    return f"{origin}: [{'.'.join(place)}] {what}" if place else f"{origin}: {what}"


def _tables(tree: dict[str, Any]) -> Iterator[tuple[Place, Any, Any]]:
    """Each table with its type. A value that should be a table is found by parse()."""
    for section, kind in _SECTIONS.items():
        if section in tree:
            yield (section,), tree[section], kind
    for name, model in _entries(tree, "models"):
        type_ = model.get("type", "cascade") if isinstance(model, dict) else "cascade"
        known = {"cascade": CascadeModel, "relay": RelayModel}
        yield ("models", name), model, known.get(str(type_), ModelSettings)
    for name, price in _entries(tree, "prices"):
        yield ("prices", name), price, ModelPrice
    for name, rule in _entries(tree.get("voices", {}), "rules"):
        yield ("voices", "rules", name), rule, VoiceRule
    for name, policy in _entries(tree, "policies"):
        yield ("policies", name), policy, Policy
    for name, tool in _entries(tree, "tools"):
        yield ("tools", name), tool, ToolSettings
    for name, check in _entries(tree, "moderation"):
        yield ("moderation", name), check, ModerationSettings
    for kind_, named in _entries(tree, "engines"):
        for name in named if isinstance(named, dict) else ():
            yield ("engines", kind_, name), named[name], dict[str, Any]


def _entries(tree: Any, name: str) -> Iterator[tuple[str, Any]]:
    table = tree.get(name) if isinstance(tree, dict) else None
    if isinstance(table, dict):
        yield from table.items()
