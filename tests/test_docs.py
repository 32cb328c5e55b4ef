"""What the documentation promises is there, and what is there is documented."""

import asyncio
import importlib
import inspect
import json
import re
import shutil
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from tests.server import serving_beside
from vivavoce.cli import cli
from vivavoce.engines import registry
from vivavoce.settings import _CHAT, CascadeModel, RelayModel, ServerSettings, SessionSettings
from vivavoce.transports.webrtc.settings import WebRTCSettings

ROOT = Path(__file__).parents[1]
ENGINES = sorted(entry_points(group=registry.GROUP), key=lambda entry: entry.name)


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("table", "struct"),
    [
        ("[server]", ServerSettings),
        ("[session]", SessionSettings),
        ("[webrtc]", WebRTCSettings),
        ("[models.NAME]", CascadeModel),
        ('[models.NAME] type = "relay"', RelayModel),
    ],
)
def test_every_setting_stands_in_its_table(table: str, struct: type) -> None:
    _, _, rest = page("docs/settings.md").partition(f"## `{table}`")
    section = rest.partition("\n## ")[0]
    documented = set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))
    assert documented == set(inspect.signature(struct).parameters)


def test_every_environment_variable_is_documented() -> None:
    text = page("docs/settings.md")
    for name in ("OPENAI_API_KEY", *_CHAT):
        assert f"`{name}`" in text


@pytest.mark.parametrize("entry", ENGINES, ids=lambda entry: str(entry.name))
def test_every_engine_and_each_of_its_options_is_documented(entry) -> None:  # type: ignore[no-untyped-def]
    text = page("docs/engines.md")
    name = entry.name.partition(":")[2]
    if name == "scripted":
        row = next(line for line in text.splitlines() if line.startswith(f"| `{entry.name}` |"))
    else:
        row = text.partition(f"## `{entry.name}`")[2].partition("\n## ")[0]
    options = inspect.signature(entry.load().Settings).parameters
    assert [o for o in options if f"`{o}`" not in row] == []


def test_every_command_and_option_is_documented() -> None:
    text = page("docs/cli.md")
    for command in ("serve", "talk", "demo", "config"):
        assert f"## `vivavoce {command}`" in text
        section = text.partition(f"## `vivavoce {command}`")[2].partition("\n## ")[0]
        arguments = cli[command].assemble_argument_collection()
        missing = [
            name
            for argument in arguments
            for name in argument.names
            if name.startswith("--") and not name.startswith("--no-color") and name not in section
        ]
        assert missing == []


@pytest.mark.parametrize(
    "path", [*sorted(ROOT.glob("docs/*.md")), ROOT / "README.md"], ids=lambda path: path.name
)
def test_every_link_leads_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text(encoding="utf-8"))
    dead = [link for link in links if "://" not in link and not (path.parent / link).exists()]
    assert dead == []


def test_the_program_of_the_readme_is_answered() -> None:
    code = re.search(r"```python\n(.*?)```", page("README.md"), re.DOTALL)
    assert code

    async def main() -> str:
        async with serving_beside() as port:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                code[1].replace("localhost:8080", f"127.0.0.1:{port}"),
                stdout=asyncio.subprocess.PIPE,
            )
            async with asyncio.timeout(30):
                written, _ = await process.communicate()
            return written.decode()

    assert asyncio.run(main()) == "Twelve times seven is eighty-four."


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_curl_commands_of_the_readme_are_answered(tmp_path: Path) -> None:
    block = next(
        b for b in re.findall(r"```sh\n(.*?)```", page("README.md"), re.DOTALL) if "curl" in b
    )

    async def main() -> list[str]:
        answers = []
        async with serving_beside() as port:
            for command in block.strip().split("\n\n"):
                process = await asyncio.create_subprocess_shell(
                    command.replace("localhost:8080", f"127.0.0.1:{port}").replace(
                        "curl ", "curl --silent --fail-with-body ", 1
                    ),
                    cwd=tmp_path,
                    stdout=asyncio.subprocess.PIPE,
                )
                async with asyncio.timeout(30):
                    written, _ = await process.communicate()
                assert process.returncode == 0, written
                answers.append(written.decode())
        return answers

    speech, transcription, chat, secret = asyncio.run(main())
    assert (speech, (tmp_path / "question.wav").read_bytes()[:4]) == ("", b"RIFF")
    assert json.loads(transcription)["text"]
    assert json.loads(chat)["choices"][0]["message"]["content"] == "Two plus two is four."
    assert json.loads(secret)["value"].startswith("ek_")


def test_every_make_target_that_is_named_is_one() -> None:
    targets = set(re.findall(r"^([a-z]+):", page("Makefile"), re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", page("README.md"), re.MULTILINE))
    assert {"serve", "test", "demo", "bench"} <= named <= targets


def test_the_engine_of_the_tutorial_is_one() -> None:
    code = re.search(r"```python\n(# my_engines.*?)```", page("docs/engines.md"), re.DOTALL)
    assert code
    namespace: dict[str, object] = {"__name__": "my_engines"}
    exec(code[1], namespace)  # the reader's own file
    engine = namespace["BeepTTS"]
    for name in ("Settings", "sample_rate", "voices", "default_voice", "synthesize"):
        assert hasattr(engine, name)
    assert importlib.import_module("vivavoce.engines.base")
