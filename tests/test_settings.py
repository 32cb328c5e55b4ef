"""One file, the environment on top of it, flags on top of that; mistakes name their place."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from vivavoce.cli.serving import described
from vivavoce.engines import registry
from vivavoce.errors import SettingsError
from vivavoce.providers import PROVIDERS
from vivavoce.session.limits import SessionLimits
from vivavoce.settings import CascadeModel, RelayModel, Settings
from vivavoce.settings_sources import load, parse

SECRET = "sk-that-nobody-should-see"


FILE = """
default_model = "fast"

[server]
port = 1234

[session]
voice = "ash"

[models.fast]
llm = "builtin"
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory in which the server is started."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(home: Path, text: str, name: str = "vivavoce.toml") -> Path:
    path = home / name
    path.write_text(text)
    return path


def settings(environment: dict[str, str] | None = None, **flags: Any) -> Settings:
    """The settings in force; `flags` are written server_port=80."""
    given = {key.replace("_", ".", 1): value for key, value in flags.items()}
    return load(None, environment or {}, given)[0]


@pytest.mark.usefixtures("home")
def test_load_without_a_file_returns_defaults() -> None:
    assert load(None, {}, {}) == (Settings(), [])
    assert settings().models == {"default": CascadeModel()}


def test_load_reads_the_file_in_the_working_directory(home: Path) -> None:
    written(home, FILE)
    found, sources = load(None, {}, {})
    assert (found.server.port, found.session.voice) == (1234, "ash")
    assert found.models == {"fast": CascadeModel(llm="builtin")}
    assert sources == ["vivavoce.toml"]


def test_load_with_a_path_reads_that_file_alone(home: Path) -> None:
    written(home, "[server]\nport = 1\n")
    other = written(home, "[server]\nport = 2\n", "other.toml")
    found, sources = load(other, {}, {})
    assert (found.server.port, sources) == (2, [str(other)])


def test_environment_overrides_file_and_flags_override_both(home: Path) -> None:
    written(home, "[server]\nport = 1\nhost = '::1'\nmax_sessions = 7\n")
    environment = {"VIVAVOCE_SERVER_PORT": "2", "VIVAVOCE_SERVER_HOST": "localhost", "HOME": "/"}
    found, sources = load(None, environment, {"server.port": 3, "server.log_level": None})
    assert (found.server.port, found.server.host, found.server.max_sessions) == (3, "localhost", 7)
    assert sources == [
        "vivavoce.toml",
        "VIVAVOCE_SERVER_HOST",
        "VIVAVOCE_SERVER_PORT",
        "--port",
    ]


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("VIVAVOCE_SERVER_DRAIN_SECONDS", "2.5", 2.5),
        ("VIVAVOCE_SERVER_NO_AUTH", "true", True),
        ("VIVAVOCE_SERVER_NO_AUTH", "0", False),
        ("VIVAVOCE_SERVER_ORIGINS", "https://a.example, https://b.example", ("https://a.example", "https://b.example")),
        ("VIVAVOCE_SERVER_ORIGINS", "", ()),
        ("VIVAVOCE_SESSION_INSTRUCTIONS", "Be brief.", "Be brief."),
        ("VIVAVOCE_SESSION_VOICE", "1", "1"),
        ("VIVAVOCE_SESSION_IDLE_SECONDS", "60", 60.0),
    ],
)  # fmt: skip
def test_variable_is_converted_to_the_type_of_its_setting(
    variable: str, text: str, value: Any
) -> None:
    section, _, field = variable.removeprefix("VIVAVOCE_").lower().partition("_")
    assert getattr(getattr(settings({variable: text}), section), field) == value


def test_openai_and_chat_completion_variables_configure_the_llm(home: Path) -> None:
    written(home, "[engines.llm.openai]\ntemperature = 0.5\nmodel = 'from-the-file'\n")
    options = settings(
        {
            "OPENAI_API_KEY": "first",
            "CHAT_COMPLETION_BASE_URL": "http://localhost:1/v1",
            "CHAT_COMPLETION_MODEL": "from-the-environment",
            "CHAT_COMPLETION_API_KEY": SECRET,
        }
    ).engines["llm"]["openai"]
    assert options == {
        "base_url": "http://localhost:1/v1",
        "model": "from-the-environment",
        "api_key": SECRET,
        "temperature": 0.5,
    }


@pytest.mark.usefixtures("home")
def test_empty_variable_sets_nothing() -> None:
    assert settings({"OPENAI_API_KEY": "", "CHAT_COMPLETION_MODEL": ""}).engines == {}


OPTIONS = f"""
[engines.llm.openai]
base_url = "https://user:{SECRET}@llm.example/v1"
api_key = "{SECRET}"
max_tokens_field = "max_tokens"

[engines.llm.openai.headers]
X-Anything = "{SECRET}"

[engines.llm.fast]
engine = "openai"
base_url = "https://llm.example/v1?key={SECRET}"
extra = {{ auth_token = "{SECRET}", user = "me" }}

[server]
secret = "{SECRET}"
"""


def test_secrets_are_masked_in_repr_and_json(home: Path) -> None:
    found, sources = load(written(home, OPTIONS), {"OPENAI_API_KEY": SECRET}, {})
    shown = described(found).decode()
    for text in (repr(found), str(found), f"{found.engines}", shown, str(sources)):
        assert SECRET not in text
    assert msgspec.json.decode(shown)["engines"]["llm"]["fast"]["extra"] == {
        "auth_token": "***",
        "user": "me",
    }
    assert '"max_tokens_field": "max_tokens"' in shown


def test_engine_receives_its_secrets(home: Path) -> None:
    options = dict(load(written(home, OPTIONS), {}, {})[0].engines["llm"]["openai"])
    del options["base_url"]
    engine = registry.create("llm", "openai", options)
    assert engine._settings.api_key.reveal() == SECRET  # what it sends is tested at the engine


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("sever = 1", "there is no setting 'sever' here; did you mean 'server'?"),
        ("zzz = 1", "there is no setting 'zzz' here; there are: server, session, webrtc, "),
        ("server = 1", "[server] Expected `object`, got `int`"),
        ("models = 1", "models: Expected `object`, got `int`"),
        ("engines = [1]", "engines: Expected `object`, got `array`"),
        ("[server]\nprot = 1", "[server] there is no setting 'prot' here; did you mean 'port'?"),
        ("[server]\nport = '80'", "[server] port: Expected `int`, got `str`"),
        ("[server]\nport = 70000", "[server] port: Expected `int` <= 65535"),
        ("[server]\nlog_level = 'loud'", "[server] log_level: Invalid enum value 'loud'"),
        ("[session]\nmax_seconds = 0", "[session] max_seconds: Expected `float` > 0.0"),
        ("[session]\nmax_seconds = inf", "[session] max_seconds: Expected `float` <= 1000000"),
        ("[session]\nkept_audio_seconds = inf", "[session] kept_audio_seconds: Expected `float`"),
        ("[models.a]\nsst = 'x'", "[models.a] there is no setting 'sst' here; did you mean 'stt'?"),
        ("[models.fast]\nstt = 5", "[models.fast] stt: Expected `str | array`, got `int`"),
        ("models.fast = 5", "[models.fast] Expected `object`, got `int`"),
        ("[models.far]\ntype = 'relai'", "[models.far] type: Invalid value 'relai'"),
        ("[models.far]\ntype = 5", "[models.far] type: Expected `str`"),
        ("[models.far]\ntype = 'relay'", "[models.far] Object missing required field `upstream`"),
        (
            "[models.far]\ntype = 'relay'\nupstream = 'wss://x'\nstt = 'y'",
            "[models.far] there is no setting 'stt' here; there are: upstream, api_key, ",
        ),
        (
            "[models.far]\ntype = 'relay'\nupstream = 'wss://me:word@x'",
            "[models.far] upstream: Expected `str` matching regex",
        ),
        (
            "[models.default]\n[models.far]\ntype='relay'\nupstream='wss://x'\nfallback = 'far'",
            "[models.far] fallback 'far' is none of the cascade models: default",
        ),
        ("[engines.lmm.openai]", "[engines.lmm] unknown kind of engine; there are: vad, "),
        ("[engines.llm]\nopenai = 'x'", "[engines.llm.openai] Expected `object`, got `str`"),
        ("[engines]\nllm = 'x'", "Expected `object`, got `str`"),
        ("default_model = 'fast'", "default_model 'fast' is none of the models: default"),
    ],
)  # fmt: skip
def test_mistake_names_file_table_and_key(home: Path, text: str, mistake: str) -> None:
    written(home, text)
    with pytest.raises(SettingsError) as refused:
        settings()
    said = str(refused.value)
    assert said.startswith("vivavoce.toml: ")
    assert mistake in said
    assert "\n" not in said


@pytest.mark.usefixtures("home")
def test_mistake_in_a_variable_names_the_variable(home: Path) -> None:
    written(home, "[server]\nport = 5\n")
    with pytest.raises(SettingsError, match=r"^VIVAVOCE_SERVER_PORT: Expected `int`, got `str`$"):
        settings({"VIVAVOCE_SERVER_PORT": "many"})
    with pytest.raises(SettingsError, match=r"^VIVAVOCE_SERVER_PORT: Expected `int` <= 65535$"):
        settings({"VIVAVOCE_SERVER_PORT": "70000"})


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("variable", "remedy"),
    [
        ("VIVAVOCE_SERVER_PROT", "did you mean VIVAVOCE_SERVER_PORT?"),
        ("VIVAVOCE_SEVER_PORT", "did you mean VIVAVOCE_SERVER_PORT?"),
        ("VIVAVOCE_PORT", "did you mean VIVAVOCE_SERVER_PORT?"),
        ("VIVAVOCE_SESSION_INSTRUCTION", "did you mean VIVAVOCE_SESSION_INSTRUCTIONS?"),
        ("VIVAVOCE_WEBRTC_UDP_PORT", "did you mean VIVAVOCE_WEBRTC_UDP_PORTS?"),
        (
            "VIVAVOCE_ENGINES_LLM_OPENAI_API_KEY",
            "only [server], [session], [webrtc], [telephony], [turns], [interruption], "
            "[speaker_gate], [fallback], [store], [cluster], [resume], [recorder], [spend] have "
            "variables, "
            "other settings belong in vivavoce.toml",
        ),
    ],
)
def test_unknown_variable_is_refused(variable: str, remedy: str) -> None:
    with pytest.raises(SettingsError) as refused:
        settings({variable: SECRET})
    assert str(refused.value) == f"{variable}: unknown variable; {remedy}"


@pytest.mark.usefixtures("home")
def test_every_setting_of_the_sections_has_a_variable() -> None:
    variables = {
        f"VIVAVOCE_{section}_{name}".upper(): "" if value == () else str(value)
        for section in ("server", "session", "webrtc")
        for name, value in msgspec.structs.asdict(getattr(Settings(), section)).items()
    }
    assert load(None, variables, {}) == (Settings(), list(variables))


@pytest.mark.usefixtures("home")
def test_kubernetes_service_variables_are_ignored() -> None:
    got = {
        "VIVAVOCE_SERVICE_HOST": "10.0.0.1",
        "VIVAVOCE_SERVICE_PORT": "80",
        "VIVAVOCE_SERVICE_PORT_HTTP": "80",
        "VIVAVOCE_PORT": "tcp://10.0.0.1:80",
        "VIVAVOCE_PORT_80_TCP": "tcp://10.0.0.1:80",
        "VIVAVOCE_PORT_80_TCP_ADDR": "10.0.0.1",
        "VIVAVOCE_REDIS_SERVICE_HOST": "10.0.0.2",
        "VIVAVOCE_REDIS_PORT": "tcp://10.0.0.2:6379",
        "VIVAVOCE_REDIS_PORT_6379_TCP_PROTO": "tcp",
    }
    assert load(None, got, {}) == (Settings(), [])


@pytest.mark.usefixtures("home")
def test_mistake_in_a_flag_names_the_flag() -> None:
    with pytest.raises(SettingsError, match=re.escape("--port: [server] port: Expected `int` <=")):
        settings(server_port=70000)


def test_variable_for_a_section_that_is_no_table_blames_the_file(home: Path) -> None:
    written(home, "server = 5\n[engines]\nllm = 5\n")
    with pytest.raises(SettingsError, match=r"^vivavoce.toml: \[server\] Expected `object`"):
        settings({"VIVAVOCE_SERVER_PORT": "1", "OPENAI_API_KEY": SECRET})


def test_missing_or_malformed_file_is_refused(home: Path) -> None:
    with pytest.raises(SettingsError, match=r"^the settings file does not exist: .*nowhere.toml$"):
        load(home / "nowhere.toml", {}, {})
    with pytest.raises(SettingsError, match=r"cannot be read: .* line 1"):
        load(written(home, f"api_key = {SECRET}"), {}, {})
    (home / "latin.toml").write_bytes(b"voice = '\xe9'")
    with pytest.raises(SettingsError, match=r"the settings file .*latin.toml cannot be read"):
        load(home / "latin.toml", {}, {})
    with pytest.raises(SettingsError, match="cannot be read"):
        load(home, {}, {})


def test_byte_order_mark_is_ignored(home: Path) -> None:
    (home / "vivavoce.toml").write_bytes(b"\xef\xbb\xbf[server]\nport = 1234\n")
    assert settings().server.port == 1234


@pytest.mark.parametrize(
    "text",
    [
        f"[engines.llm.openai]\napi_key = '{SECRET}'\n[server]\nprot = 1",
        f"[server]\nsecret = ['{SECRET}']",
        f"[engines.llm]\nopenai = '{SECRET}'",
        f"[keys]\nme = ['{SECRET}']",
    ],
)
def test_error_text_contains_no_secret(home: Path, text: str) -> None:
    written(home, text)
    with pytest.raises(SettingsError) as refused:
        settings({"OPENAI_API_KEY": SECRET})
    assert SECRET not in str(refused.value)


def test_model_without_a_type_is_a_cascade(home: Path) -> None:
    written(home, "[models.default]\nstt = 'mine'\n[models.b]\ntype = 'cascade'\nvoice = 'ash'")
    assert settings().models == {
        "default": CascadeModel(stt="mine"),
        "b": CascadeModel(voice="ash"),
    }
    assert parse({"models": {"default": {"tts": "x"}}}).models == {"default": CascadeModel(tts="x")}


def test_relay_model_is_read_and_its_key_is_masked(home: Path) -> None:
    written(
        home,
        "[models.default]\n[models.far]\ntype = 'relay'\nupstream = 'wss://far.example/v1/realtime'\n"
        f"api_key = '{SECRET}'\nmodel = 'gpt-realtime'\nfallback = 'default'",
    )
    found = settings()
    relay = found.models["far"]
    assert isinstance(relay, RelayModel)
    assert (relay.model, relay.fallback) == ("gpt-realtime", "default")
    assert relay.api_key == SECRET
    assert SECRET not in repr(found)
    assert SECRET not in described(found).decode()


def test_session_settings_are_the_limits_of_sessions() -> None:
    assert isinstance(Settings().session, SessionLimits)
    assert not Settings().session.failure_errors


SERVICES = """
[models.default]
stt = ["groq", "pocketsphinx"]
llm = "mistral"

[engines.llm.mistral]
model = "mistral-small-latest"

[engines.llm.groq]
engine = "builtin"
"""


def test_named_service_gets_its_address_model_and_key(home: Path) -> None:
    written(home, SERVICES)
    found, sources = load(None, {"GROQ_API_KEY": SECRET, "MISTRAL_API_KEY": ""}, {})
    assert sources == ["vivavoce.toml", "GROQ_API_KEY"]
    assert found.engines["stt"]["groq"] == {
        "engine": "openai",
        "base_url": "https://api.groq.com/openai/v1",
        "model": "whisper-large-v3",
        "api_key": SECRET,
    }
    assert found.engines["llm"] == {
        "mistral": {
            "engine": "openai",
            "base_url": "https://api.mistral.ai/v1",
            "model": "mistral-small-latest",
        },
        "groq": {"engine": "builtin"},
    }
    model = found.models["default"]
    assert isinstance(model, CascadeModel)
    assert model.engines["stt"] == "groq"
    assert model.fallbacks["stt"] == ("pocketsphinx",)
    assert SECRET not in str(described(found))


def test_every_named_service_is_an_endpoint_that_can_be_built() -> None:
    for kind, services in PROVIDERS.items():
        for name, service in services.items():
            options = {"base_url": service.base_url, "model": "m", **service.options}
            assert registry.create(kind, "openai", options), name


def test_key_of_an_engine_for_one_service_comes_from_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vivavoce.toml").write_text(
        '[models.default]\nstt = "deepgram"\ntts = ["cartesia", "elevenlabs"]\n'
        '[engines.tts.cartesia]\napi_key = "of-the-file"\n'
    )
    variables = dict.fromkeys(("DEEPGRAM_API_KEY", "CARTESIA_API_KEY"), SECRET)
    found, sources = load(None, variables, {})
    assert sources == ["vivavoce.toml", "DEEPGRAM_API_KEY"]
    assert found.engines["stt"]["deepgram"]["api_key"].reveal() == SECRET
    assert found.engines["tts"]["cartesia"]["api_key"].reveal() == "of-the-file"
