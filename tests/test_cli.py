"""The command line: what it refuses, it refuses in one sentence, with exit code 2."""

import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from tests.engines.plugins import install
from vivavoce.cli import cli

SECRET = "sk-that-nobody-should-see"
SCRIPTED = """
[models.default]
vad = "scripted"
turn = "scripted"
stt = "scripted"
llm = "scripted"
tts = "scripted"
"""
Refused = Callable[..., str]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory in which the command is given."""
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "CHAT_COMPLETION_BASE_URL", "CHAT_COMPLETION_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def refused(home: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """What `vivavoce` says when it refuses to do this with these settings."""

    def give(*command: str, settings: str = "") -> str:
        (home / "vivavoce.toml").write_text(settings)
        with pytest.raises(SystemExit) as ended:
            cli(list(command))
        said = capsys.readouterr()
        assert (ended.value.code, said.out) == (2, "")
        assert said.err.count("\n") == 1, said.err
        assert "Traceback" not in said.err
        return said.err.rstrip()

    return give


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            "[server]\nprot = 1",
            "vivavoce: vivavoce.toml: [server] there is no setting 'prot' here; did you mean "
            "'port'?",
        ),
        (
            "[server]\nmax_sessions = 'many'",
            "vivavoce: vivavoce.toml: [server] max_sessions: Expected `int`, got `str`",
        ),
        (
            "[models.default]\nvad = 'ear'",
            "vivavoce: [models.default] no vad engine 'ear'; installed: energy, scripted, silero",
        ),
        (
            f"{SCRIPTED}[engines.stt.scripted]\nword_ms = 'x'",
            "vivavoce: [engines.stt.scripted] word_ms: Expected `int`, got `str`",
        ),
        (
            f"{SCRIPTED}[server]\ntls_key = 'key.pem'",
            "vivavoce: [server] tls_certificate and tls_key go together: one is missing",
        ),
        ("[server", "vivavoce: the settings file vivavoce.toml cannot be read: Expected ']' at "),
    ],
)
def test_a_mistake_in_the_settings_is_one_sentence(
    refused: Refused, settings: str, sentence: str
) -> None:
    assert refused("serve", "--port", "0", settings=settings).startswith(sentence)


def test_a_package_that_is_missing_is_one_sentence(
    refused: Refused, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = {"lost": "import package_that_nobody_has\n"}
    install(home, "lost", source, "tts:lost = lost:Lost\n")
    monkeypatch.syspath_prepend(str(home))
    settings = SCRIPTED.replace('tts = "scripted"', 'tts = "lost"')
    assert refused("serve", "--port", "0", settings=settings) == (
        "vivavoce: [engines.tts.lost] needs the package 'package_that_nobody_has', which is not "
        "installed; try: pip install package_that_nobody_has"
    )


def test_a_port_in_use_is_one_sentence_and_nothing_listens(refused: Refused) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        said = refused("serve", "--port", port, settings=SCRIPTED)
    assert said.startswith(f"vivavoce: [server] port {port} on 127.0.0.1 is in use; stop what ")
    with socket.socket() as free:
        free.bind(("127.0.0.1", int(port)))


def test_an_open_door_is_refused(refused: Refused) -> None:
    said = refused("serve", "--host", "0.0.0.0", settings=SCRIPTED)
    assert said.startswith("vivavoce: [server] host 0.0.0.0 can be reached from other machines")
    assert said.endswith("or say --no-auth")


def test_a_file_that_is_not_there_is_refused(refused: Refused) -> None:
    said = refused("config", "--config", "nowhere.toml")
    assert said == "vivavoce: there is no settings file nowhere.toml"


def test_the_settings_in_force_are_shown_with_their_sources_and_without_secrets(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "vivavoce.toml").write_text(f'[server]\nport = 5\nsecret = "{SECRET}"')
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("VIVAVOCE_SESSION_VOICE", "ash")
    with pytest.raises(SystemExit) as ended:
        cli(["config"])
    assert not ended.value.code
    said = capsys.readouterr()
    shown = msgspec.json.decode(said.out)
    assert (shown["server"]["port"], shown["session"]["voice"]) == (5, "ash")
    assert shown["engines"]["llm"]["openai"]["api_key"] == "***"
    assert said.err == "from: vivavoce.toml, OPENAI_API_KEY, VIVAVOCE_SESSION_VOICE\n"
    assert SECRET not in said.out + said.err


def test_a_stream_that_was_closed_gives_its_number_to_no_socket() -> None:
    program = (
        "import os, socket; from vivavoce.cli import keep_standard_streams; "
        "os.close(0); os.close(1); keep_standard_streams(); "
        "os.write(2, b'%d' % socket.socket().fileno())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert int(done.stderr) > 2
