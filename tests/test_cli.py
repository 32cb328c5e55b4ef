"""The command line: what it refuses, it refuses in one sentence, with exit code 2."""

import asyncio
import errno
import os
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import IO

import msgspec
import pydantic  # noqa: F401  the parser checks more where it is imported, such as defaults
import pytest

from tests.engines.plugins import install
from tests.server import scripted
from tests.server import serving as serving_vivavoce
from tests.talk.scripted_server import OPENING, RESPONSE, Script, serving
from vivavoce.cli import cli
from vivavoce.limits.keys import hash_of
from vivavoce.talk.options import TalkOptions

FULL = Path("/dev/full")
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
def test_serve_with_wrong_settings_prints_one_sentence(
    refused: Refused, settings: str, sentence: str
) -> None:
    assert refused("serve", "--port", "0", settings=settings).startswith(sentence)


def test_serve_with_missing_package_prints_one_sentence(
    refused: Refused, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = {"lost": "import package_that_nobody_has\n"}
    install(home, "lost", source, "tts:lost = lost:Lost\n")
    monkeypatch.syspath_prepend(str(home))
    settings = SCRIPTED.replace('tts = "scripted"', 'tts = "lost"')
    settings += "[server]\nstrict = true\n"
    assert refused("serve", "--port", "0", settings=settings) == (
        "vivavoce: [engines.tts.lost] needs the package 'package_that_nobody_has', which is not "
        "installed; try: pip install package_that_nobody_has"
    )


def test_serve_on_port_in_use_prints_one_sentence(refused: Refused) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        said = refused("serve", "--port", port, settings=SCRIPTED)
    assert said.startswith(f"vivavoce: [server] port {port} on 127.0.0.1 is in use; stop what ")
    with socket.socket() as free:
        free.bind(("127.0.0.1", int(port)))


def test_serve_on_public_host_without_keys_is_refused(refused: Refused) -> None:
    said = refused("serve", "--host", "0.0.0.0", settings=SCRIPTED)
    assert said.startswith("vivavoce: [server] host 0.0.0.0 can be reached from other machines")
    assert said.endswith("or say --no-auth")


def test_config_with_missing_file_is_refused(refused: Refused) -> None:
    said = refused("config", "--config", "nowhere.toml")
    assert said == "vivavoce: the settings file does not exist: nowhere.toml"


def test_config_prints_settings_and_sources_without_secrets(
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


def run(*command: str, stdout: IO[bytes] | int) -> tuple[int, str]:
    """The exit status of `vivavoce`, and what it says on stderr."""
    program = [sys.executable, "-m", "vivavoce", *command]
    done = subprocess.run(program, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)
    return done.returncode, done.stderr


@pytest.fixture
def nobody_reads() -> Iterator[int]:
    """The writing end of a pipe whose reader is gone."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


@pytest.mark.parametrize("command", ["--help", "config", "keys new me", "serve --port 0"], ids=str)
@pytest.mark.usefixtures("home")
def test_command_with_a_full_standard_output_says_so_and_exits_with_2(
    command: str, full: IO[bytes]
) -> None:
    assert run(*command.split(), stdout=full) == (
        2,
        "vivavoce: the standard output cannot be written: No space left on device\n",
    )


@pytest.mark.usefixtures("home")
def test_command_with_a_closed_pipe_exits_with_1_silently(nobody_reads: int) -> None:
    assert run("config", stdout=nobody_reads) == (1, "")


@pytest.fixture
def full() -> Iterator[IO[bytes]]:
    """A file on a disk that is full."""
    if not FULL.is_char_device():
        pytest.skip("there is no device that is always full")
    with FULL.open("wb") as file:
        yield file


@pytest.mark.parametrize(
    ("command", "key"), [((), SECRET), (("--api-key", "other"), "other")], ids=str
)
@pytest.mark.usefixtures("home")
def test_talk_key_comes_from_the_option_or_the_environment(
    command: tuple[str, ...], key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    bound = cli.parse_args(["talk", *command])[1]
    given = bound.arguments.get("options", TalkOptions())
    assert (given.api_key.reveal(), SECRET in repr(bound)) == (key, False)


@pytest.mark.usefixtures("home")
def test_talk_with_an_unwritable_standard_output_ends(full: IO[bytes], nobody_reads: int) -> None:
    script: Script = {**OPENING, ("response.create", 1): [(0, RESPONSE)]}

    async def main(stdout: IO[bytes] | int) -> tuple[int, str]:
        async with serving(script) as server:
            command = ("talk", "--url", server.url, "--text", "hello")
            return await asyncio.to_thread(run, *command, stdout=stdout)

    assert asyncio.run(main(full)) == (
        2,
        "vivavoce: the standard output cannot be written: No space left on device\n",
    )
    assert asyncio.run(main(nobody_reads)) == (1, "")


@pytest.mark.skipif(find_spec("espeakng_loader") is None, reason="there is no embedded voice")
@pytest.mark.usefixtures("home")
def test_demo_with_a_closed_pipe_leaves_no_server() -> None:
    program = (sys.executable, "-m", "vivavoce", "demo")
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        asking = (line for line in process.stdout if line.startswith(b"asking ws://127.0.0.1:"))
        line = next(asking, b"")
        assert line, process.stderr.read().decode()
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == (b"", 1)
    port = int(line.partition(b"127.0.0.1:")[2].partition(b"/")[0])
    with socket.socket() as visitor:
        assert visitor.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


def test_closed_standard_stream_number_is_given_to_no_socket() -> None:
    program = (
        "import os, socket; from vivavoce.standard_streams import keep_standard_descriptors; "
        "os.close(0); os.close(1); keep_standard_descriptors(); "
        "os.write(2, b'%d' % socket.socket().fileno())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert int(done.stderr) > 2


def test_prices_are_printed_with_the_operators_own(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "vivavoce.toml").write_text('[prices."my-model"]\ntext_input = 0.25\n')
    cli(["prices", "gpt-realtime-2.1-mini", "--form", "json"], result_action="return_value")
    found = msgspec.json.decode(capsys.readouterr().out)
    assert {(one["provider"], one["audio_cached"]) for one in found} >= {("openai", "0.30")}
    cli(["prices", "my-model", "--form", "csv"], result_action="return_value")
    head, row = capsys.readouterr().out.splitlines()
    assert head.startswith("provider,model,text_input,")
    assert row.startswith(",my-model,0.25,")
    cli(["prices", "gpt-realtime-2.1-mini"], result_action="return_value")
    heads, *rows = capsys.readouterr().out.splitlines()
    assert heads.split()[:4] == ["provider", "model", "text", "input"]
    assert "source" not in heads
    assert any(row.startswith("openai    gpt-realtime-2.1-mini") for row in rows)  # uncut
    cli(["prices", "nobody-knows-it"], result_action="return_value")
    assert capsys.readouterr().out == "Nothing was found.\n"


@pytest.mark.parametrize(
    ("option", "value", "kind"),
    [
        ("--workers", "none", "int|Literal[auto]"),
        ("--workers", "null", "int|Literal[auto]"),
        ("--workers", "many", "int|Literal[auto]"),
        ("--port", "none", "int"),
    ],
)
def test_option_of_serve_with_a_word_for_a_number_is_refused(
    capsys: pytest.CaptureFixture[str], option: str, value: str, kind: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli(["serve", option, value])
    said = " ".join(capsys.readouterr().err.replace("│", "").split())
    assert f'Invalid value for {option}: unable to convert "{value}" into {kind}.' in said


def test_price_that_is_no_date_is_refused(refused: Refused) -> None:
    said = refused("prices", settings='[prices.m]\neffective_from = "soon"\n')
    assert said == "vivavoce: [prices] m: effective_from 'soon' is not an ISO date"


STORE = '[store]\nurl = "sqlite:accounts.db"\n'


def test_key_added_is_shown_once_and_listed_without_its_text(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "vivavoce.toml").write_text(STORE)
    cli(["users", "set", "ada", "--team", "math"], result_action="return_value")
    added = ["keys", "add", "laptop", "--user", "ada", "--max-sessions", "2", "--days", "30"]
    cli(added, result_action="return_value")
    said = capsys.readouterr()
    assert said.out.startswith("vv-")
    assert said.err == "Keep it: it is shown this once.\n"
    assert said.out.strip().encode() not in (home / "accounts.db").read_bytes()
    cli(["keys", "list", "--form", "json"], result_action="return_value")
    (key,) = msgspec.json.decode(capsys.readouterr().out)
    assert (key["name"], key["user"], key["state"], key["max_sessions"]) == (
        *("laptop", "ada", "valid"),
        2,
    )
    cli(["keys", "allow", "laptop", "gpt", "default"], result_action="return_value")
    cli(["keys", "list", "--form", "json"], result_action="return_value")
    (key,) = msgspec.json.decode(capsys.readouterr().out)
    assert key["models"] == "gpt, default"
    cli(["keys", "revoke", "laptop"], result_action="return_value")
    cli(["keys", "list", "--form", "csv"], result_action="return_value")
    assert ",revoked," in capsys.readouterr().out
    cli(["users", "list", "--form", "csv"], result_action="return_value")
    assert capsys.readouterr().out == "kind,name,team,state\nuser,ada,math,active\n"


@pytest.mark.parametrize("name", ["ada", "ada.smith", "ada@home", 'a "b" c'])
def test_line_of_a_new_key_is_taken_as_settings(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    cli(["keys", "new", name], result_action="return_value")
    said = capsys.readouterr()
    keys = tomllib.loads(said.err.partition("In the settings:\n")[2])["keys"]
    assert keys == {name: hash_of(said.out.strip())}


def test_budget_set_is_listed_with_what_is_left(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "vivavoce.toml").write_text(STORE)
    budget = ["budgets", "set", "user", "2.50", "usd", "month", "--name", "ada"]
    cli(budget, result_action="return_value")
    cli(["budgets", "list", "--form", "json"], result_action="return_value")
    (found,) = msgspec.json.decode(capsys.readouterr().out)
    assert (found["name"], found["limit"], found["left"]) == ("user:ada:usd:month", "2.50", "2.50")
    cli(["budgets", "remove", "user:ada:usd:month"], result_action="return_value")
    cli(["budgets", "list"], result_action="return_value")
    cli(["usage"], result_action="return_value")
    assert capsys.readouterr().out == "Nothing was found.\n" * 2


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("keys", "revoke", "x"), "the store has no key 'x'; list them with: vivavoce keys list"),
        (("keys", "allow", "x", "gpt"), "the store has no key 'x'; list them with: vivavoce"),
        (("budgets", "remove", "x"), "there is no budget 'x'"),
        (("budgets", "set", "user", "1", "usd", "day"), "a budget of user has a --name"),
        (("budgets", "set", "all", "1", "usd", "day", "--name", "x"), "a budget of all has no"),
        (("budgets", "set", "all", "much", "usd", "day"), "'much' is not an amount; write it as"),
        (("usage", "--since", "soon"), "since 'soon' is not a date; write it as 2026-11-28."),
        (("usage", "--by", "mood"), "Usage cannot be grouped by 'mood'; only by day, key, user"),
        (("users", "set", "a:b"), "'a:b' cannot be the name of a key, user or team; names are 1"),
        (("keys", "add", "a b"), "'a b' cannot be the name of a key, user or team; names are 1"),
        (("keys", "add", "x", "--user", "a b"), "'a b' cannot be the name of a key, user or team"),
        (("keys", "add", "x", "--team", "a:b"), "'a:b' cannot be the name of a key, user or team"),
        (("users", "set", "x", "--team", "é"), "'é' cannot be the name of a key, user or team"),
        (("keys", "add", "a\n"), r"'a\n' cannot be the name of a key, user or team; names are 1"),
        (("keys", "add", "x", "--days", "0"), "--days is a number of days above 0; without it"),
        (("keys", "add", "x", "--max-sessions", "-1"), "--max-sessions and --max-requests are 0"),
    ],
)
def test_mistake_about_accounts_is_named(
    refused: Refused, command: tuple[str, ...], said: str
) -> None:
    assert refused(*command, settings=STORE).startswith(f"vivavoce: {said}")


def test_recordings_of_a_server_that_refuses_or_is_not_there_name_the_remedy(
    refused: Refused,
) -> None:
    async def main() -> str:
        keys = {"ada": hash_of("vv-key")}
        async with serving_vivavoce(msgspec.structs.replace(scripted(), keys=keys)) as server:
            return await asyncio.to_thread(refused, "recordings", "--url", server.http)

    assert asyncio.run(main()).endswith(
        "the server does not accept the key (401); give an admin key with --api-key or in "
        "VIVAVOCE_API_KEY, made by: vivavoce keys add NAME --admin"
    )
    for url in ("http://127.0.0.1:9", "127.0.0.1:9"):
        assert refused("recordings", "--url", url) == (
            f"vivavoce: no server answers at {url}: connection refused; start one with "
            "`vivavoce serve`"
        )


def test_store_that_does_not_exist_is_named(refused: Refused) -> None:
    said = refused("usage", settings='[store]\nurl = "mysql://x"\n')
    assert said.startswith("vivavoce: [store] url is none of sqlite:PATH, redis://HOST:PORT")
    assert "nowhere" in refused("usage", settings='[store]\nurl = "sqlite:nowhere/s.db"\n')
