"""The operator's settings: one file, the environment on top of it, flags on top of that.

The only place that knows their names. Everything below is handed values.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from vivavoce.errors import SettingsError
from vivavoce.secret import Secret, conceal
from vivavoce.session.machine import Limits

FILE = "vivavoce.toml"
SECRETS = ("api_key",)
KINDS = ("vad", "turn", "stt", "llm", "tts")
LOOPBACK = ("127.0.0.1", "::1", "localhost")
Seconds: TypeAlias = Annotated[float, Meta(gt=0)]
LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]


class ServerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[server]: where it listens."""

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8080
    """0: any free port; the banner tells which."""
    log_level: LogLevel = "info"
    tls_certificate: str = ""
    """A PEM file. With `tls_key` the server speaks https and wss."""
    tls_key: str = ""
    max_sessions: Annotated[int, Meta(ge=1)] = 1000
    drain_seconds: Annotated[float, Meta(ge=0)] = 10.0
    """How long answers under way may take to end at shutdown."""
    no_auth: bool = False
    """Let anybody in although the server is open to a network."""
    origins: tuple[str, ...] = ()
    """Pages elsewhere that may use it, such as https://app.example.com; "*" is all of them."""
    secret: str = ""
    """Signs short-lived keys. Empty: a random one, so that they open this process alone."""

    def __post_init__(self) -> None:
        conceal(self, "secret")


class SessionSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[session]: what every conversation begins with, and its limits."""

    instructions: str = (
        "You are a friendly voice assistant. Answer in one to three short sentences that are "
        "easy to say aloud, without lists or markup."
    )
    voice: str = "marin"
    max_seconds: Seconds = 3600.0
    idle_seconds: Annotated[float, Meta(ge=0)] = 0.0
    stall_seconds: Seconds = 10.0
    max_buffer_seconds: Seconds = 600.0
    kept_audio_seconds: Annotated[float, Meta(ge=0)] = 600.0
    lock_voice: bool = False

    @property
    def limits(self) -> Limits:
        return Limits(
            max_seconds=self.max_seconds,
            idle_seconds=self.idle_seconds,
            stall_seconds=self.stall_seconds,
            max_buffer_seconds=self.max_buffer_seconds,
            kept_audio_seconds=self.kept_audio_seconds,
        )


class ModelSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[models.NAME]: the engines behind a name that clients may ask for."""

    vad: str = "auto"
    turn: str = "words"
    stt: str = "pocketsphinx"
    llm: str = "auto"
    tts: str = "espeak"


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file.

    [engines.KIND.NAME] holds the options of an engine; with `engine = "…"` in it, NAME is a second
    set of options for that engine.
    """

    server: ServerSettings = ServerSettings()
    session: SessionSettings = SessionSettings()
    models: dict[str, ModelSettings] = msgspec.field(
        default_factory=lambda: {"default": ModelSettings()}
    )
    default_model: str = "default"
    keys: dict[str, str] = {}
    """[keys]: names of API keys, and their hashes as `vivavoce keys new` prints them."""
    engines: dict[Literal["vad", "turn", "stt", "llm", "tts"], dict[str, dict[str, Any]]] = {}

    def __post_init__(self) -> None:
        if self.default_model not in self.models:
            raise ValueError(
                f"default_model {self.default_model!r} is none of the models: "
                f"{', '.join(self.models)}"
            )
        for named in self.engines.values():
            for options in named.values():
                options.update({k: Secret(v) for k, v in options.items() if k in SECRETS})


def load(
    path: Path | None, environment: Mapping[str, str], flags: Mapping[str, Any]
) -> tuple[Settings, list[str]]:
    """The settings, and where they came from.

    path: a file that must exist; None: ./vivavoce.toml if there is one. flags: values by
    "section.key", None where a flag was not given. Raises SettingsError.
    """
    sources = []
    tree: dict[str, Any] = {}
    if path is None and Path(FILE).is_file():
        path = Path(FILE)
    if path is not None:
        tree = _read(path)
        sources.append(str(path))
    for name, place, value in _from_environment(environment):
        _put(tree, place, value)
        sources.append(name)
    for key, value in flags.items():
        if value is not None:
            _put(tree, tuple(key.split(".")), value)
            sources.append(f"--{key.split('.')[-1].replace('_', '-')}")
    try:
        return msgspec.convert(tree, Settings, strict=False), sources
    except msgspec.ValidationError as exc:
        raise SettingsError(_place(str(exc), path)) from exc


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise SettingsError(f"there is no settings file {path}") from exc
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise SettingsError(f"the settings file {path} cannot be read: {exc}") from exc


_CHAT = {
    "CHAT_COMPLETION_BASE_URL": "base_url",
    "CHAT_COMPLETION_MODEL": "model",
    "CHAT_COMPLETION_API_KEY": "api_key",
}


def _from_environment(
    environment: Mapping[str, str],
) -> list[tuple[str, tuple[str, ...], str]]:
    """(variable, place, value) for each variable that sets something."""
    found: list[tuple[str, tuple[str, ...], str]] = []
    if key := environment.get("OPENAI_API_KEY"):
        found.append(("OPENAI_API_KEY", ("engines", "llm", "openai", "api_key"), key))
    for name, option in _CHAT.items():
        if value := environment.get(name):
            found.append((name, ("engines", "llm", "openai", option), value))
    for section, kind in (("server", ServerSettings), ("session", SessionSettings)):
        for field in kind.__struct_fields__:
            name = f"VIVAVOCE_{section}_{field}".upper()
            if (given := environment.get(name)) is not None:
                found.append((name, (section, field), given))
    return found


def _put(tree: dict[str, Any], place: tuple[str, ...], value: Any) -> None:
    for part in place[:-1]:
        tree = tree.setdefault(part, {})
    tree[place[-1]] = value


def _place(complaint: str, path: Path | None) -> str:
    """A decoder's complaint, led by the table it is about."""
    reason, _, at = complaint.partition(" - at `$")
    parts = [part for part in at.rstrip("`").split(".") if part]
    where = f"[{'.'.join(parts[:-1]) or parts[0]}] " if parts else ""
    field = f"{parts[-1]}: " if len(parts) > 1 else ""
    return f"{path or 'settings'}: {where}{field}{reason}"
