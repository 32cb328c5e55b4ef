"""Voxray's config.json: its flat keys, translated into the tables of vivavoce.toml.

What has an effect is translated; what has none is named in the notes, with what stands in its
place. Environment variables stand above the file.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from vivavoce.engines import registry
from vivavoce.errors import SettingsError
from vivavoce.limits.keys import hash_of

JSON_FILE = "config.json"
DEFAULT_PROVIDER = "openai"
KINDS = ("stt", "llm", "tts")
TRANSPORTS = ("websocket", "smallwebrtc", "both")
PLACEHOLDER = "sk-..."
MB = 1024 * 1024

_BASE_URLS = {
    "groq": "https://api.groq.com/openai/v1",
    "grok": "https://api.x.ai/v1",
    "cerebras": "https://api.cerebras.ai/v1",
    "mistral": "https://api.mistral.ai/v1",
    "deepseek": "https://api.deepseek.com/v1",
    "anthropic": "https://api.anthropic.com/v1",
    "google": "https://generativelanguage.googleapis.com/v1beta/openai",
    "ollama": "http://localhost:11434/v1",
    "qwen": "https://dashscope.aliyuncs.com/compatible-mode/v1",
    "openpipe": "https://api.openpipe.ai/api/v1",
    "minimax": "https://api.minimax.io/v1",
}
"""Endpoints that speak OpenAI's API, as their documentation gives them."""
_COMPATIBLE = {
    "llm": frozenset(_BASE_URLS),
    "stt": frozenset({"groq", "whisper"}),
    "tts": frozenset({"groq"}),
}
_MODELS = {  # Voxray's defaults, where an endpoint has none of its own
    ("llm", "openai"): "gpt-4o-mini",
    ("llm", "groq"): "llama-3.1-8b-instant",
    ("llm", "grok"): "grok-2",
    ("llm", "cerebras"): "llama3.1-8b",
    ("llm", "mistral"): "mistral-small-latest",
    ("llm", "deepseek"): "deepseek-chat",
    ("llm", "anthropic"): "claude-3-sonnet-20240229",
    ("llm", "google"): "gemini-2.5-flash",
    ("llm", "ollama"): "llama3.2",
    ("llm", "qwen"): "qwen-plus",
    ("llm", "openpipe"): "gpt-4.1",
    ("llm", "minimax"): "abab6.5s-chat",
    ("stt", "groq"): "whisper-large-v3",
    ("stt", "whisper"): "whisper-1",
    ("tts", "groq"): "orpheus-v1-english",
}
_KEY_VARIABLES = {
    "grok": ("XAI_API_KEY",),
    "qwen": ("DASHSCOPE_API_KEY", "QWEN_API_KEY"),
    "whisper": ("WHISPER_API_KEY", "OPENAI_API_KEY"),
}
_KEY_NAMES = {"grok": "xai", "whisper": "openai"}  # in api_keys
_URL_VARIABLES = {"openai": "OPENAI_BASE_URL", "whisper": "WHISPER_BASE_URL"}
_LOG_LEVELS = {
    **{"trace": "debug", "debug": "debug", "info": "info"},
    **{"warn": "warning", "warning": "warning", "error": "error", "fatal": "error"},
}
_VARIABLES = {
    "VOXRAY_CORS_ORIGINS": "cors_allowed_origins",
    "VOXRAY_MAX_BODY_BYTES": "max_request_body_bytes",
    **{
        f"VOXRAY_{key.upper()}": key
        for key in (
            *("host", "port", "log_level", "json_logs", "server_api_key"),
            *("tls_enable", "tls_cert_file", "tls_key_file", "rtc_max_duration_secs"),
        )
    },
}

# keys without an effect, and what stands in their place
REPLACED = {
    "plugins": "the pipeline is built in: turn detection, transcripts, interruption",
    "plugin_options": "see plugins",
    "stt_language": "clients name it: ?language= at /ws, or the session's transcription settings",
    "turn_detection": "always on; a client switches it off in its session",
    "turn_max_duration_secs": "a turn may last as long as [session] max_buffer_seconds",
    "turn_async": "the end of a turn is always found beside the other work",
    "user_turn_stop_timeout_secs": "[session] gap_seconds ends a turn whose audio stops arriving",
    "user_idle_timeout_secs": "clients set idle_timeout_ms in their session",
    "vad_start_secs": "speech starts with the first windows of speech",
    "vad_threshold": "a level; vad_confidence sets the probability that is speech",
    "vad_start_secs_vad": "see vad_start_secs",
    "vad_stop_secs": "turn_stop_secs is the silence that ends a turn",
    "vad_min_volume": "the level of noise is followed",
    "vad_batch_size": "sessions are batched by themselves",
    "interruption_strategy": "any speech interrupts; clients may switch that off",
    "min_words": "see interruption_strategy",
    "runner_transport": "WebSocket, WebRTC and telephony are served at the same time",
    "runner_port": "port is the one port",
    "dialin": "there are no telephone calls through Daily",
    "daily_dialin_webhook_secret": "see dialin",
    "session_ttl_secs": "a session ends with its connection",
    "pipeline_input_queue_cap": "queues are bounded in bytes",
    "ws_write_coalesce_ms": "frames are sent at once",
    "ws_write_coalesce_max_frames": "frames are sent at once",
    "json_logs": "the log is text",
    "mcp": "function tools run in the client",
    "metrics_enabled": "what the server offers is in its reference at /docs",
    "metrics": "see metrics_enabled",
    "recording": "calls are not recorded",
    "transcripts": "clients get them as events",
    "session_cap_memory_percent": "max_concurrent_sessions is the cap",
    "session_cap_process_memory_mb": "max_concurrent_sessions is the cap",
    "session_cap_memory_hysteresis_percent": "max_concurrent_sessions is the cap",
    "legacy_errors": "errors have one shape",
    "shutdown_upload_timeout_secs": "nothing is uploaded",
}
_TRANSLATED = {
    *("host", "port", "provider", "model", "stt_provider", "llm_provider", "tts_provider"),
    *("stt_model", "tts_model", "tts_voice", "system_prompt", "api_keys", "transport"),
    *("webrtc_ice_servers", "rtc_max_duration_secs", "turn_stop_secs", "turn_pre_speech_ms"),
    *("vad_type", "vad_confidence", "allow_interruptions", "log_level", "server_api_key"),
    *("tls_enable", "tls_cert_file", "tls_key_file", "cors_allowed_origins"),
    *("max_request_body_bytes", "max_concurrent_sessions", "session_store", "redis_url"),
    "proxy_host",
}
KNOWN = _TRANSLATED | REPLACED.keys()
_MARKS = {"transport", "provider", "stt_provider", "llm_provider", "tts_provider", "api_keys"}

Tree: TypeAlias = dict[str, Any]


class VoxrayConfig(msgspec.Struct, frozen=True):
    """A config.json as a tree of settings."""

    path: Path
    tree: Tree
    host: str
    """As the file writes it."""
    transport: str
    providers: Mapping[str, str]
    notes: tuple[str, ...] = ()

    def banner(self, port: int) -> str:
        """The two lines of Voxray's guides."""
        engines = "  ".join(f"{kind}: {self.providers[kind]}" for kind in KINDS)
        return f"Vivavoce listening on {self.host}:{port}\ntransport: {self.transport}  {engines}"


def find(given: Path | None, environment: Mapping[str, str], toml: Path) -> Path | None:
    """The config.json to be read; None: there is none, or vivavoce.toml comes first.

    A config.json in the working directory is taken only if it is Voxray's.
    """
    named = given or (Path(text) if (text := environment.get("VOXRAY_CONFIG")) else None)
    if named is not None:
        return named if named.suffix == ".json" else None
    here = Path(JSON_FILE)
    if toml.is_file() or not here.is_file():
        return None
    try:
        keys = json.loads(here.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return None
    return here if isinstance(keys, dict) and not _MARKS.isdisjoint(keys) else None


def read(path: Path, environment: Mapping[str, str] = os.environ) -> VoxrayConfig:
    """Raises SettingsError."""
    try:
        keys = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as exc:
        raise SettingsError(f"the settings file does not exist: {path}") from exc
    except (OSError, ValueError) as exc:
        raise SettingsError(f"the settings file {path} cannot be read: {exc}") from exc
    if not isinstance(keys, dict):
        raise SettingsError(f'{path}: expected an object, such as {{"port": 8080}}')
    return _Translation(path, {**keys, **_from_environment(environment)}, environment).result()


def _from_environment(environment: Mapping[str, str]) -> Tree:
    """Keys that variables set. VOXRAY_HOST stands above HOST."""
    found: Tree = {}
    for name, key in {"HOST": "host", "PORT": "port", **_VARIABLES}.items():
        if text := environment.get(name):
            found[key] = _value(key, text)
    return found


def _value(key: str, text: str) -> Any:
    if key == "cors_allowed_origins":
        return [part.strip() for part in text.split(",") if part.strip()]
    if key in ("host", "log_level", "server_api_key", "tls_cert_file", "tls_key_file"):
        return text
    try:
        return json.loads(text.lower())
    except ValueError:
        return text


class _Translation(msgspec.Struct):
    """One file on its way: fills `tree`, and `notes`."""

    path: Path
    keys: Tree
    environment: Mapping[str, str]
    tree: Tree = msgspec.field(default_factory=dict)
    notes: list[str] = msgspec.field(default_factory=list)

    def result(self) -> VoxrayConfig:
        host = self._get("host", str, "localhost")
        transport = self._get("transport", str, "websocket")
        if transport not in TRANSPORTS:
            raise self._wrong("transport", f"it is one of {', '.join(TRANSPORTS)}")
        self._put("server", "host", "127.0.0.1" if host == "localhost" else host)
        self._server()
        self._session()
        providers = {kind: self._provider(kind) for kind in KINDS}
        for kind, provider in providers.items():
            self._engine(kind, provider)
        self._webrtc()
        for key in self.keys:
            if key in REPLACED:
                self.notes.append(f"{key}: {REPLACED[key]}")
            elif key not in KNOWN:
                self.notes.append(f"{key}: an unknown key")
        return VoxrayConfig(self.path, self.tree, host, transport, providers, tuple(self.notes))

    def _server(self) -> None:
        self._copy("port", int, "server", "port")
        self._copy("max_concurrent_sessions", int, "server", "max_sessions", skip=0)
        if (level := self._get("log_level", str, "")) != "":
            if level.lower() not in _LOG_LEVELS:
                raise self._wrong("log_level", f"it is one of {', '.join(_LOG_LEVELS)}")
            self._put("server", "log_level", _LOG_LEVELS[level.lower()])
        if self._get("tls_enable", bool, False):
            self._copy("tls_cert_file", str, "server", "tls_certificate")
            self._copy("tls_key_file", str, "server", "tls_key")
        if (origins := self._get("cors_allowed_origins", list, None)) is not None:
            self._put("server", "origins", origins)
        if size := self._get("max_request_body_bytes", int, 0):
            self._put("server", "max_upload_mb", max(1, -(-size // MB)))
        if host := self._get("proxy_host", str, ""):
            self._put("telephony", "public_url", host if "://" in host else f"https://{host}")
        if key := self._get("server_api_key", str, ""):
            self._put("keys", "server_api_key", hash_of(key))
        self._store()

    def _store(self) -> None:
        """Redis, if its keys are set: it holds keys, budgets and usage."""
        store, url = self._get("session_store", str, "memory"), self._get("redis_url", str, "")
        if store not in ("memory", "redis"):
            raise self._wrong("session_store", "it is one of memory, redis")
        if store == "redis":
            if not url:
                raise self._wrong("redis_url", "session_store redis needs it: redis://HOST:6379")
            self._put("store", "url", url)

    def _session(self) -> None:
        self._copy("system_prompt", str, "session", "instructions", skip="")
        self._copy("rtc_max_duration_secs", float, "session", "max_seconds", skip=0)
        self._copy("allow_interruptions", bool, "session", "allow_interruptions")
        self._copy("vad_confidence", float, "session", "vad_threshold")
        self._copy("turn_pre_speech_ms", int, "session", "prefix_padding_ms")
        stop = self._get("turn_stop_secs", float, None)
        if stop is not None:
            self._put("session", "silence_duration_ms", round(stop * 1000))
        match self._get("vad_type", str, ""):
            case "silero" | "energy" as vad:
                self._model("vad", vad)
            case "":
                pass
            case other:
                self.notes.append(f"vad_type {other}: the best one that is installed is used")

    def _provider(self, kind: str) -> str:
        fallback = self._get("provider", str, "") or DEFAULT_PROVIDER
        return self._get(f"{kind}_provider", str, "") or fallback

    def _engine(self, kind: str, provider: str) -> None:
        """The options of the engine that serves a provider. Raises SettingsError without one."""
        options: Tree = {}
        installed = registry.names(kind)
        if provider not in installed:
            compatible = provider in _COMPATIBLE[kind] and "openai" in installed
            if not compatible:
                raise self._missing(kind, provider, installed)
            options["engine"] = "openai"
        if url := self.environment.get(_URL_VARIABLES.get(provider, "")) or _BASE_URLS.get(
            provider if "engine" in options else ""
        ):
            options["base_url"] = url
        key = self._key(provider)
        if key and (options or provider == DEFAULT_PROVIDER):
            options["api_key"] = key
        named = self._get("model" if kind == "llm" else f"{kind}_model", str, "")
        if model := named or _MODELS.get((kind, provider), ""):
            options["model"] = model
        self._model(kind, provider)
        if kind == "tts" and (voice := self._get("tts_voice", str, "")):
            self._model("voice", voice)
        if options:
            self.tree.setdefault("engines", {}).setdefault(kind, {})[provider] = options

    def _key(self, provider: str) -> str:
        """The key of a provider: the environment stands above the file."""
        variables = _KEY_VARIABLES.get(provider, (f"{provider.upper()}_API_KEY",))
        for name in variables:
            if key := self.environment.get(name):
                return key
        keys = self._get("api_keys", dict, {})
        key = keys.get(provider) or keys.get(_KEY_NAMES.get(provider, "")) or ""
        if not isinstance(key, str):
            raise SettingsError(f"{self.path}: api_keys.{provider}: expected a string")
        if provider == DEFAULT_PROVIDER and key in ("", PLACEHOLDER):
            note = f"api_keys.{provider}: there is no key yet: set {variables[0]}"
            if note not in self.notes:
                self.notes.append(note)
        return key

    def _missing(self, kind: str, provider: str, installed: list[str]) -> SettingsError:
        ours = f"installed are {', '.join(name for name in installed if name != 'scripted')}"
        if provider in _COMPATIBLE[kind] | {DEFAULT_PROVIDER}:
            remedy = f"it needs the engine {kind}:openai of a newer version"
        else:
            remedy = (
                f"serve it by an endpoint that speaks OpenAI's API: set {kind}_provider to openai "
                f"and OPENAI_BASE_URL to its address, or install a package with the engine "
                f"{kind}:{provider}"
            )
        return SettingsError(
            f"{self.path}: {kind}_provider {provider!r} has no engine here ({ours}); {remedy}"
        )

    def _webrtc(self) -> None:
        urls: list[str] = []
        for server in self._get("webrtc_ice_servers", list, []):
            if isinstance(server, dict):
                listed = server.get("urls", [])
                urls += [listed] if isinstance(listed, str) else listed
                for key, name in {
                    "username": "turn_username",
                    "credential": "turn_password",
                }.items():
                    if server.get(key):
                        self._put("webrtc", name, server[key])
            else:
                urls.append(server)
        if urls:
            self._put("webrtc", "ice_servers", urls)

    def _model(self, key: str, value: str) -> None:
        self.tree.setdefault("models", {}).setdefault("default", {})[key] = value

    def _put(self, table: str, key: str, value: Any) -> None:
        self.tree.setdefault(table, {})[key] = value

    def _copy(self, key: str, kind: Any, table: str, name: str, *, skip: Any = None) -> None:
        value = self._get(key, kind, None)
        if value is not None and value != skip:
            self._put(table, name, value)

    def _get(self, key: str, kind: Any, default: Any) -> Any:
        """A key's value; null is "not given". Raises SettingsError where it has another type."""
        value = self.keys.get(key)
        if value is None:
            return default
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self._wrong(key, f"expected {_NAMES[kind]}")
        return value

    def _wrong(self, key: str, what: str) -> SettingsError:
        return SettingsError(f"{self.path}: {key}: {what}")


_NAMES: dict[Any, str] = {
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}
