"""One file, the environment on top of it, flags on top of that; mistakes name their place."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from vivavoce.app import described
from vivavoce.engines import registry
from vivavoce.errors import SettingsError
from vivavoce.session.limits import SessionLimits
from vivavoce.settings import ModelSettings, Settings, load

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
def test_without_a_file_there_are_defaults() -> None:
    assert load(None, {}, {}) == (Settings(), [])
    assert settings().models == {"default": ModelSettings()}
    assert settings().session.limits == SessionLimits()


def test_the_file_in_the_directory_is_read(home: Path) -> None:
    written(home, FILE)
    found, sources = load(None, {}, {})
    assert (found.server.port, found.session.voice) == (1234, "ash")
    assert found.models == {"fast": ModelSettings(llm="builtin")}
    assert sources == ["vivavoce.toml"]


def test_a_file_that_was_named_is_read_instead(home: Path) -> None:
    written(home, "[server]\nport = 1\n")
    other = written(home, "[server]\nport = 2\n", "other.toml")
    found, sources = load(other, {}, {})
    assert (found.server.port, sources) == (2, [str(other)])


def test_the_environment_lies_over_the_file_and_flags_over_both(home: Path) -> None:
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
def test_a_variable_is_read_as_what_the_setting_is(variable: str, text: str, value: Any) -> None:
    section, _, field = variable.removeprefix("VIVAVOCE_").lower().partition("_")
    assert getattr(getattr(settings({variable: text}), section), field) == value


def test_the_names_people_have_already_configure_the_llm(home: Path) -> None:
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
def test_an_empty_variable_sets_no_key() -> None:
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


def test_secrets_are_masked_wherever_settings_are_shown(home: Path) -> None:
    found, sources = load(written(home, OPTIONS), {"OPENAI_API_KEY": SECRET}, {})
    shown = described(found).decode()
    for text in (repr(found), str(found), f"{found.engines}", shown, str(sources)):
        assert SECRET not in text
    assert msgspec.json.decode(shown)["engines"]["llm"]["fast"]["extra"] == {
        "auth_token": "***",
        "user": "me",
    }
    assert '"max_tokens_field": "max_tokens"' in shown


def test_an_engine_is_still_given_its_secrets(home: Path) -> None:
    options = dict(load(written(home, OPTIONS), {}, {})[0].engines["llm"]["openai"])
    del options["base_url"]
    engine = registry.create("llm", "openai", options)
    assert engine._settings.api_key.reveal() == SECRET  # what it sends is tested at the engine


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("sever = 1", "there is no setting 'sever' here; did you mean 'server'?"),
        ("zzz = 1", "there is no setting 'zzz' here; there are: server, session, webrtc, models, "),
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
        ("[models.fast]\nstt = 5", "[models.fast] stt: Expected `str`, got `int`"),
        ("models.fast = 5", "[models.fast] Expected `object`, got `int`"),
        ("[engines.lmm.openai]", "[engines.lmm] there is no such kind of engine; there are: vad, "),
        ("[engines.llm]\nopenai = 'x'", "[engines.llm.openai] Expected `object`, got `str`"),
        ("[engines]\nllm = 'x'", "Expected `object`, got `str`"),
        ("default_model = 'fast'", "default_model 'fast' is none of the models: default"),
    ],
)  # fmt: skip
def test_a_mistake_names_the_file_the_table_and_the_key(
    home: Path, text: str, mistake: str
) -> None:
    written(home, text)
    with pytest.raises(SettingsError) as refused:
        settings()
    said = str(refused.value)
    assert said.startswith("vivavoce.toml: ")
    assert mistake in said
    assert "\n" not in said


@pytest.mark.usefixtures("home")
def test_a_mistake_in_a_variable_names_the_variable(home: Path) -> None:
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
            "[server], [session], [webrtc] have some, the rest belongs into vivavoce.toml",
        ),
    ],
)
def test_a_variable_that_sets_nothing_is_refused(variable: str, remedy: str) -> None:
    with pytest.raises(SettingsError) as refused:
        settings({variable: SECRET})
    assert str(refused.value) == f"{variable}: there is no such variable; {remedy}"


@pytest.mark.usefixtures("home")
def test_every_setting_of_the_three_sections_has_its_variable() -> None:
    variables = {
        f"VIVAVOCE_{section}_{name}".upper(): "" if value == () else str(value)
        for section in ("server", "session", "webrtc")
        for name, value in msgspec.structs.asdict(getattr(Settings(), section)).items()
    }
    assert load(None, variables, {}) == (Settings(), list(variables))


@pytest.mark.usefixtures("home")
def test_what_kubernetes_says_of_a_service_of_that_name_is_let_be() -> None:
    told = {
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
    assert load(None, told, {}) == (Settings(), [])


@pytest.mark.usefixtures("home")
def test_a_mistake_in_a_flag_names_the_flag() -> None:
    with pytest.raises(SettingsError, match=re.escape("--port: [server] port: Expected `int` <=")):
        settings(server_port=70000)


def test_a_variable_for_a_table_that_is_none_is_told_of_the_file(home: Path) -> None:
    written(home, "server = 5\n[engines]\nllm = 5\n")
    with pytest.raises(SettingsError, match=r"^vivavoce.toml: \[server\] Expected `object`"):
        settings({"VIVAVOCE_SERVER_PORT": "1", "OPENAI_API_KEY": SECRET})


def test_a_file_that_is_not_there_or_no_toml_is_refused(home: Path) -> None:
    with pytest.raises(SettingsError, match=r"^there is no settings file .*nowhere.toml$"):
        load(home / "nowhere.toml", {}, {})
    with pytest.raises(SettingsError, match=r"cannot be read: .* line 1"):
        load(written(home, f"api_key = {SECRET}"), {}, {})
    (home / "latin.toml").write_bytes(b"voice = '\xe9'")
    with pytest.raises(SettingsError, match=r"the settings file .*latin.toml cannot be read"):
        load(home / "latin.toml", {}, {})
    with pytest.raises(SettingsError, match="cannot be read"):
        load(home, {}, {})


def test_the_mark_that_some_editors_put_before_the_text_is_passed_over(home: Path) -> None:
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
def test_no_mistake_shows_a_secret(home: Path, text: str) -> None:
    written(home, text)
    with pytest.raises(SettingsError) as refused:
        settings({"OPENAI_API_KEY": SECRET})
    assert SECRET not in str(refused.value)
