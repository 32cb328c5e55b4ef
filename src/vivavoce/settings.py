"""The operator's settings: one file, the environment on top of it, flags on top of that.

The only place that knows their names. Everything below is handed values.
"""

import ipaddress
import re
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_origin

import msgspec
from msgspec import Meta

from vivavoce.engines.registry import mistake
from vivavoce.errors import SettingsError
from vivavoce.secret import Secret, conceal
from vivavoce.session.limits import SessionLimits

FILE = "vivavoce.toml"
# options of engines that nobody should see
_SECRET = re.compile(r"(?i)(?:^|_)(?:key|token|password|secret|authorization)$|^headers$")
_ADDRESS_WITH_SECRET = re.compile(r"://[^/]*@|://.*\?")
KINDS = ("vad", "turn", "stt", "llm", "tts", "clean")
LOOPBACK = ("127.0.0.1", "::1", "localhost")
_LONGEST = 1e9  # 32 years; TOML has `inf` too, and that cannot be counted down
IceServer: TypeAlias = Annotated[str, Meta(pattern="^(stun|turns?):[^@/]+$")]
Seconds: TypeAlias = Annotated[float, Meta(gt=0, le=_LONGEST)]
SecondsOrZero: TypeAlias = Annotated[float, Meta(ge=0, le=_LONGEST)]
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
    drain_seconds: SecondsOrZero = 10.0
    """How long answers under way may take to end at shutdown."""
    no_auth: bool = False
    """Let anybody in although the server is open to a network."""
    max_upload_mb: Annotated[int, Meta(ge=1)] = 25
    """Body of one HTTP request, a sound file for example."""
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
    voice: str = ""
    """Empty: marin, or the default of an engine that has no such voice."""
    max_seconds: Seconds = 3600.0
    idle_seconds: SecondsOrZero = 0.0
    stall_seconds: Seconds = 10.0
    gap_seconds: SecondsOrZero = 3.0
    max_buffer_seconds: Seconds = 600.0
    kept_audio_seconds: SecondsOrZero = 600.0
    lock_voice: bool = False
    failure_errors: bool = True

    @property
    def limits(self) -> SessionLimits:
        return SessionLimits(
            max_seconds=self.max_seconds,
            idle_seconds=self.idle_seconds,
            stall_seconds=self.stall_seconds,
            gap_seconds=self.gap_seconds,
            max_buffer_seconds=self.max_buffer_seconds,
            kept_audio_seconds=self.kept_audio_seconds,
        )


class WebRTCSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[webrtc]: how calls are reached."""

    ice_servers: tuple[IceServer, ...] = ()
    """URLs of a STUN and a TURN server. Without any, the server's own addresses are all."""
    turn_username: str = ""
    turn_password: str = ""
    udp_ports: Annotated[str, Meta(pattern=r"^(\d{1,5}-\d{1,5})?$")] = ""
    """The range of ports for calls, such as "40000-40099"; empty: any."""
    announce_address: tuple[str, ...] = ()
    """Addresses by which clients reach this machine, where it does not have them itself."""

    def __post_init__(self) -> None:
        conceal(self, "turn_password")
        if self.port_range is not None:
            first, last = self.port_range
            if not 1024 <= first <= last <= 65535:
                raise ValueError(f"udp_ports {self.udp_ports!r} is no range within 1024-65535")
        for address in self.announce_address:
            ipaddress.ip_address(address)

    @property
    def port_range(self) -> tuple[int, int] | None:
        first, _, last = self.udp_ports.partition("-")
        return (int(first), int(last)) if first else None


class ModelSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[models.NAME]: the engines behind a name that clients may ask for."""

    vad: str = "auto"
    turn: str = "words"
    stt: str = "pocketsphinx"
    llm: str = "auto"
    tts: str = "espeak"
    clean: str = "auto"


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file.

    [engines.KIND.NAME] holds the options of an engine; with `engine = "…"` in it, NAME is a second
    set of options for that engine.
    """

    server: ServerSettings = ServerSettings()
    session: SessionSettings = SessionSettings()
    webrtc: WebRTCSettings = WebRTCSettings()
    models: dict[str, ModelSettings] = msgspec.field(
        default_factory=lambda: {"default": ModelSettings()}
    )
    default_model: str = "default"
    keys: dict[str, str] = {}
    """[keys]: names of API keys, and their hashes as `vivavoce keys new` prints them."""
    engines: dict[
        Literal["vad", "turn", "stt", "llm", "tts", "clean"], dict[str, dict[str, Any]]
    ] = {}

    def __post_init__(self) -> None:
        if self.default_model not in self.models:
            raise ValueError(
                f"default_model {self.default_model!r} is none of the models: "
                f"{', '.join(self.models)}; say which one it is"
            )
        for named in self.engines.values():
            for options in named.values():
                options.update({name: _hidden(name, value) for name, value in options.items()})


def _hidden(name: str, value: Any) -> Any:
    """An option, wrapped where it is a secret."""
    if isinstance(value, str) and (_SECRET.search(name) or _ADDRESS_WITH_SECRET.search(value)):
        return Secret(value)
    if isinstance(value, dict):
        inside = name if _SECRET.search(name) else ""
        return {key: _hidden(inside or key, each) for key, each in value.items()}
    return value


def load(
    path: Path | None, environment: Mapping[str, str], flags: Mapping[str, Any]
) -> tuple[Settings, list[str]]:
    """The settings, and where they came from.

    path: a file that must exist; None: ./vivavoce.toml if there is one. flags: values by
    "section.key", None where a flag was not given. Raises SettingsError.
    """
    tree: dict[str, Any] = {}
    if path is None and Path(FILE).is_file():
        path = Path(FILE)
    if path is not None:
        tree = _read(path)
    given = [*_from_environment(environment), *_from_flags(flags)]
    for _, place, value in given:
        _put(tree, place, value)
    _check(tree, {place: name for name, place, _ in given}, str(path or "settings"))
    sources = [str(path)] if path else []
    return msgspec.convert(tree, Settings), sources + [name for name, _, _ in given]


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as exc:
        raise SettingsError(f"there is no settings file {path}") from exc
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise SettingsError(f"the settings file {path} cannot be read: {exc}") from exc


_CHAT = {
    "CHAT_COMPLETION_BASE_URL": "base_url",
    "CHAT_COMPLETION_MODEL": "model",
    "CHAT_COMPLETION_API_KEY": "api_key",
}


_PREFIX = "VIVAVOCE_"
# what Kubernetes puts into every container beside a service called vivavoce, or vivavoce-redis
_FOREIGN = re.compile(_PREFIX + r"(\w+_)?(SERVICE_(HOST|PORT)(_\w+)?=|PORT_\d+_\w+=|PORT=\w+://)")
Place: TypeAlias = tuple[str, ...]
_SECTIONS: dict[str, type[msgspec.Struct]] = {
    "server": ServerSettings,
    "session": SessionSettings,
    "webrtc": WebRTCSettings,
}


def _from_environment(environment: Mapping[str, str]) -> Iterator[tuple[str, Place, Any]]:
    """(variable, place, value) for each variable that sets something. Raises SettingsError."""
    names = {"OPENAI_API_KEY": "api_key", **_CHAT}
    for name, option in names.items():
        if text := environment.get(name):
            yield name, ("engines", "llm", "openai", option), text
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
    """What to say of a variable that sets nothing."""
    if close := get_close_matches(name, known, 1, cutoff=0.75):
        return f"{name}: there is no such variable; did you mean {close[0]}?"
    tables = ", ".join(f"[{section}]" for section in _SECTIONS)
    return f"{name}: there is no such variable; {tables} have some, the rest belongs into {FILE}"


def _typed(name: str, text: str, kind: Any) -> Any:
    """A variable's text as what the setting is; several things are parted by commas."""
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
        if not isinstance(tree, dict):  # the file has something else there: that is told later
            return
    tree[place[-1]] = value


def _check(tree: dict[str, Any], origins: Mapping[Place, str], file: str) -> None:
    """Raise SettingsError for the first mistake: where it was made, in which table, and what."""
    for kind_, _ in _entries(tree, "engines"):
        if kind_ not in KINDS:
            raise SettingsError(
                f"{file}: [engines.{kind_}] there is no such kind of engine; "
                f"there are: {', '.join(KINDS)}"
            )
    for place, value, kind in (*_tables(tree), ((), tree, Settings)):
        try:
            msgspec.convert(value, kind)
        except msgspec.ValidationError as exc:
            what = mistake(exc, kind)
            origin = origins.get((*place, what.partition(":")[0]), file)
            where = f"[{'.'.join(place)}] " if place else ""
            raise SettingsError(f"{origin}: {where}{what}") from exc


def _tables(tree: dict[str, Any]) -> Iterator[tuple[Place, Any, Any]]:
    """Each table with what it should be. Whatever is no table is found when the whole is read."""
    for section, kind in _SECTIONS.items():
        if section in tree:
            yield (section,), tree[section], kind
    for name, model in _entries(tree, "models"):
        yield ("models", name), model, ModelSettings
    for kind_, named in _entries(tree, "engines"):
        for name in named if isinstance(named, dict) else ():
            yield ("engines", kind_, name), named[name], dict[str, Any]


def _entries(tree: dict[str, Any], name: str) -> Iterator[tuple[str, Any]]:
    table = tree.get(name)
    if isinstance(table, dict):
        yield from table.items()
