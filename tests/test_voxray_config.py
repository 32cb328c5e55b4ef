"""Voxray's config.json: the guide's own file, every key, the order of sources, the banner."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vivavoce.engines import registry
from vivavoce.errors import SettingsError
from vivavoce.limits.keys import hash_of
from vivavoce.settings import Settings
from vivavoce.settings_sources import load_tree
from vivavoce.voxray_config import KNOWN, REPLACED, VoxrayConfig, find, read

GUIDE = {
    "host": "localhost",
    "port": 8080,
    "transport": "websocket",
    "stt_provider": "openai",
    "llm_provider": "openai",
    "tts_provider": "openai",
    "model": "gpt-4o-mini",
    "stt_model": "gpt-4o-mini-transcribe",
    "tts_voice": "nova",
    "api_keys": {"openai": "sk-..."},
}
LOCAL = {"stt_provider": "pocketsphinx", "llm_provider": "builtin", "tts_provider": "espeak"}
has_openai = pytest.mark.skipif(
    "openai" not in registry.names("stt"), reason="there is no engine stt:openai"
)


def translated(
    folder: Path, keys: dict[str, Any], environment: dict[str, str] | None = None
) -> VoxrayConfig:
    path = folder / "config.json"
    path.write_text(json.dumps(keys), encoding="utf-8")
    return read(path, environment or {})


def settings_of(
    folder: Path, keys: dict[str, Any], environment: dict[str, str] | None = None
) -> Settings:
    tree = translated(folder, LOCAL | keys, environment).tree
    return load_tree(tree, "config.json", environment or {}, {})[0]


@has_openai
def test_file_of_the_guide_names_the_engines_models_and_the_voice(tmp_path: Path) -> None:
    config = translated(tmp_path, GUIDE)
    assert config.tree == {
        "server": {"host": "127.0.0.1", "port": 8080},
        "models": {"default": {"stt": "openai", "llm": "openai", "tts": "openai", "voice": "nova"}},
        "engines": {
            "stt": {"openai": {"api_key": "sk-...", "model": "gpt-4o-mini-transcribe"}},
            "llm": {"openai": {"api_key": "sk-...", "model": "gpt-4o-mini"}},
            "tts": {"openai": {"api_key": "sk-..."}},
        },
    }
    assert config.banner(8080) == (
        "Vivavoce listening on localhost:8080\n"
        "transport: websocket  stt: openai  llm: openai  tts: openai"
    )
    assert config.notes == ("api_keys.openai: there is no key yet: set OPENAI_API_KEY",)


@has_openai
def test_key_and_address_of_the_environment_stand_above_the_file(tmp_path: Path) -> None:
    environment = {"OPENAI_API_KEY": "sk-env", "OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}
    engines = translated(tmp_path, GUIDE, environment).tree["engines"]
    for kind in ("stt", "llm", "tts"):
        assert engines[kind]["openai"]["api_key"] == "sk-env"
        assert engines[kind]["openai"]["base_url"] == "http://127.0.0.1:9/v1"


def test_keys_of_the_server_and_the_session_take_effect(tmp_path: Path) -> None:
    keys = {
        **{"host": "0.0.0.0", "port": 3042, "log_level": "warn", "server_api_key": "secret"},
        **{"tls_enable": True, "tls_cert_file": "c.pem", "tls_key_file": "k.pem"},
        **{"cors_allowed_origins": ["https://a.example"], "max_request_body_bytes": 1_500_000},
        **{"max_concurrent_sessions": 7, "rtc_max_duration_secs": 60, "system_prompt": "Hi."},
        **{"turn_stop_secs": 1.5, "turn_pre_speech_ms": 200, "vad_confidence": 0.7},
        **{"allow_interruptions": False, "vad_type": "energy", "unset": None},
        "webrtc_ice_servers": [
            "stun:s.example:3478",
            {"urls": ["turn:t.example"], "username": "u", "credential": "p"},
            {"urls": "stun:b.example"},
        ],
    }
    settings = settings_of(tmp_path, keys)
    server, session, webrtc = settings.server, settings.session, settings.webrtc
    assert (server.host, server.port, server.log_level) == ("0.0.0.0", 3042, "warning")
    assert (server.tls_certificate, server.tls_key) == ("c.pem", "k.pem")
    assert (server.origins, server.max_upload_mb) == (("https://a.example",), 2)
    assert (server.max_sessions, settings.keys) == (7, {"server_api_key": hash_of("secret")})
    assert (session.max_seconds, session.instructions) == (60.0, "Hi.")
    assert (session.silence_duration_ms, session.prefix_padding_ms) == (1500, 200)
    assert (session.vad_threshold, session.allow_interruptions) == (0.7, False)
    assert webrtc.ice_servers == ("stun:s.example:3478", "turn:t.example", "stun:b.example")
    assert webrtc.turn_username == "u"


def test_every_key_has_an_effect_or_a_note(tmp_path: Path) -> None:
    notes = translated(tmp_path, LOCAL | dict.fromkeys(REPLACED, 1) | {"colour": "red"}).notes
    noted = {note.partition(":")[0] for note in notes}
    assert noted == REPLACED.keys() | {"colour"}
    contract = """
        host port provider model stt_provider llm_provider tts_provider stt_model stt_language
        tts_model tts_voice system_prompt plugins plugin_options api_keys transport
        webrtc_ice_servers rtc_max_duration_secs turn_detection turn_stop_secs turn_pre_speech_ms
        turn_max_duration_secs vad_start_secs vad_threshold turn_async user_turn_stop_timeout_secs
        user_idle_timeout_secs vad_type vad_confidence vad_start_secs_vad vad_stop_secs
        vad_min_volume vad_batch_size allow_interruptions interruption_strategy min_words
        runner_transport runner_port proxy_host dialin daily_dialin_webhook_secret session_store
        redis_url session_ttl_secs pipeline_input_queue_cap ws_write_coalesce_ms
        ws_write_coalesce_max_frames tls_enable tls_cert_file tls_key_file log_level json_logs
        cors_allowed_origins max_request_body_bytes server_api_key mcp metrics_enabled metrics
        recording transcripts max_concurrent_sessions session_cap_memory_percent
        session_cap_process_memory_mb session_cap_memory_hysteresis_percent legacy_errors
        shutdown_upload_timeout_secs
    """
    assert set(contract.split()) == KNOWN


def test_redis_is_the_store_where_it_is_asked_for(tmp_path: Path) -> None:
    keys = {"session_store": "redis", "redis_url": "redis://127.0.0.1:6379"}
    assert translated(tmp_path, LOCAL | keys).tree["store"] == {"url": "redis://127.0.0.1:6379"}
    assert "store" not in translated(tmp_path, LOCAL | {"redis_url": "redis://x"}).tree


def test_variables_stand_above_the_file(tmp_path: Path) -> None:
    environment = {
        **{"HOST": "10.0.0.1", "VOXRAY_HOST": "localhost", "PORT": "81", "VOXRAY_LOG_LEVEL": ""},
        **{"VOXRAY_CORS_ORIGINS": "https://a.example, https://b.example"},
        **{"VOXRAY_TLS_ENABLE": "False", "VOXRAY_RTC_MAX_DURATION_SECS": "9"},
    }
    settings = settings_of(tmp_path, {"host": "x", "port": 1, "tls_cert_file": "c"}, environment)
    assert (settings.server.host, settings.server.port) == ("127.0.0.1", 81)
    assert settings.server.origins == ("https://a.example", "https://b.example")
    assert (settings.server.tls_certificate, settings.session.max_seconds) == ("", 9.0)


@has_openai
@pytest.mark.parametrize(
    ("kind", "provider", "variable"),
    [
        ("llm", "groq", "GROQ_API_KEY"),
        ("llm", "grok", "XAI_API_KEY"),
        ("llm", "qwen", "QWEN_API_KEY"),
        ("stt", "groq", "GROQ_API_KEY"),
    ],
)
def test_compatible_provider_is_served_at_its_own_address(
    tmp_path: Path, kind: str, provider: str, variable: str
) -> None:
    keys = LOCAL | {f"{kind}_provider": provider}
    options = translated(tmp_path, keys, {variable: "k"}).tree["engines"][kind][provider]
    assert options["engine"] == "openai"
    assert options["base_url"].startswith("https://")
    assert (options["api_key"], bool(options["model"])) == ("k", True)


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"stt_provider": "soniox"}, "stt_provider 'soniox'.*stt:soniox"),
        ({"llm_provider": "aws"}, "llm_provider 'aws'.*OPENAI_BASE_URL"),
        ({"session_store": "redis"}, "redis_url: session_store redis needs it"),
        ({"session_store": "disk"}, "session_store: it is one of memory, redis"),
        ({"transport": "pigeon"}, "transport: it is one of websocket"),
        ({"port": "8080"}, "port: expected an integer"),
        ({"port": True}, "port: expected an integer"),
        ({"allow_interruptions": 1}, "allow_interruptions: expected true or false"),
        ({"log_level": "loud"}, "log_level: it is one of"),
        ({"api_keys": {"builtin": 7}}, "api_keys.builtin: expected a string"),
    ],
)
def test_mistake_names_its_place_and_the_remedy(
    tmp_path: Path, keys: dict[str, Any], named: str
) -> None:
    with pytest.raises(SettingsError, match=named):
        translated(tmp_path, LOCAL | keys)


@pytest.mark.parametrize("text", ["{", "[]", None])
def test_file_that_cannot_be_read_is_refused(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "config.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match=re.escape(str(path))):
        read(path, {})


def test_file_in_the_working_directory_is_found_if_it_is_voxrays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    toml, here = Path("vivavoce.toml"), Path("config.json")
    assert find(None, {}, toml) is None
    here.write_text('{"name": "a page"}', encoding="utf-8")
    assert find(None, {}, toml) is None
    here.write_text("{", encoding="utf-8")
    assert find(None, {}, toml) is None
    here.write_text(json.dumps(LOCAL), encoding="utf-8")
    assert find(None, {}, toml) == here
    toml.write_text("", encoding="utf-8")
    assert find(None, {}, toml) is None
    assert find(None, {"VOXRAY_CONFIG": "other.json"}, toml) == Path("other.json")
    assert find(Path("mine.toml"), {"VOXRAY_CONFIG": "other.json"}, toml) is None


@pytest.mark.parametrize("flag", ["-config", "--config", "-c"])
def test_command_takes_the_file(tmp_path: Path, flag: str) -> None:
    path = tmp_path / "own.json"
    path.write_text(json.dumps(LOCAL | {"port": 3042}), encoding="utf-8")
    command = [sys.executable, "-m", "vivavoce", "config", flag, str(path)]
    kept = {name: text for name, text in os.environ.items() if name not in ("HOST", "PORT")}
    done = subprocess.run(command, capture_output=True, text=True, env=kept, check=True)
    assert json.loads(done.stdout)["server"]["port"] == 3042
    assert str(path) in done.stderr
