"""What the documentation promises is there, and what is there is documented."""

import asyncio
import inspect
import json
import re
import shutil
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import AsyncIterator, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from cyclopts import App

from tests.server import serving_beside
from vivavoce import testing
from vivavoce.api.provider_signatures import TelephonySettings
from vivavoce.cli import cli
from vivavoce.engines import registry, worker
from vivavoce.engines.host import WorkerHost
from vivavoce.limits.prices import ModelPrice
from vivavoce.models import CANDIDATES, Surroundings
from vivavoce.providers import PROVIDERS, add_providers
from vivavoce.runtime.cluster import ClusterSettings
from vivavoce.runtime.moderation import ModerationSettings
from vivavoce.runtime.tools import ToolSettings
from vivavoce.runtime.voice_rules import VoiceRule
from vivavoce.session.policy import Policy
from vivavoce.settings import (
    CascadeModel,
    RelayModel,
    ServerSettings,
    SessionSettings,
    Settings,
)
from vivavoce.settings_sources import _CHAT, _TELEPHONY, load_tree
from vivavoce.store.base import StoreSettings
from vivavoce.telemetry.recorder import RecorderSettings
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
        ("[telephony]", TelephonySettings),
        ("[models.NAME]", CascadeModel),
        ('[models.NAME] type = "relay"', RelayModel),
        ("[policies.NAME]", Policy),
        ("[tools.NAME]", ToolSettings),
        ("[moderation.NAME]", ModerationSettings),
        ("[store]", StoreSettings),
        ("[cluster]", ClusterSettings),
        ("[recorder]", RecorderSettings),
        ("[prices.NAME]", ModelPrice),
        ("[voices.rules.NAME]", VoiceRule),
    ],
)
def test_settings_are_all_documented(table: str, struct: type) -> None:
    _, _, rest = page("docs/settings.md").partition(f"## `{table}`")
    section = rest.partition("\n## ")[0]
    documented = set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))
    assert documented == set(inspect.signature(struct).parameters)


def test_environment_variables_are_all_documented() -> None:
    text = page("docs/settings.md")
    for name in ("OPENAI_API_KEY", *_CHAT, *_TELEPHONY):
        assert f"`{name}`" in text


@pytest.mark.parametrize("entry", ENGINES, ids=lambda entry: str(entry.name))
def test_engines_and_their_options_are_all_documented(entry) -> None:  # type: ignore[no-untyped-def]
    text = page("docs/engines.md")
    name = entry.name.partition(":")[2]
    if name == "scripted":
        row = next(line for line in text.splitlines() if line.startswith(f"| `{entry.name}` |"))
    else:
        row = text.partition(f"## `{entry.name}`")[2].partition("\n## ")[0]
    if name == "openai":  # options that these engines have in common
        row += text.partition("## Endpoints that speak OpenAI's API")[2].partition("\n### ")[0]
    try:
        options = inspect.signature(entry.load().Settings).parameters
    except ModuleNotFoundError as missing:
        pytest.skip(f"{missing.name} is not installed")
    assert [o for o in options if f"`{o}`" not in row] == []


def _commands(app: App, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], App]]:
    """Each command that does something, with its words."""
    for name in app:
        if not name.startswith("-"):
            inner = list(_commands(app[name], (*path, name)))
            yield from inner or [((*path, name), app[name])]


@pytest.mark.parametrize(
    ("path", "command"), [pytest.param(*each, id=" ".join(each[0])) for each in _commands(cli)]
)
def test_command_and_its_options_are_documented(path: tuple[str, ...], command: App) -> None:
    sections = re.split(r"^## ", page("docs/cli.md"), flags=re.MULTILINE)
    section = next((s for s in sections if f"`{path[0]}`" in s or f"`vivavoce {path[0]}`" in s), "")
    pages = re.findall(r"\]\((\w+\.md)", section)  # those that it refers to
    section += "".join(page(f"docs/{name}") for name in pages)
    assert " ".join(path) in section
    arguments = command.assemble_argument_collection()
    options = {
        name
        for argument in arguments
        if argument.field_info.kind is not argument.field_info.POSITIONAL_OR_KEYWORD
        for name in argument.names
        if name.startswith("--") and not name.startswith("--no-")
    }
    assert {name for name in options if name not in section} == set()


@pytest.mark.parametrize(
    ("name", "block"),
    [
        pytest.param(path.name, block, id=f"{path.name}:{block.splitlines()[0]}")
        for path in (*sorted(ROOT.glob("docs/*.md")), ROOT / "README.md")
        for block in re.findall(r"```toml\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
        if not block.startswith("[project.")
    ],
)
def test_settings_shown_as_an_example_are_valid(name: str, block: str) -> None:
    tree = tomllib.loads(block)
    if "models" in tree:  # an excerpt leaves the model out that a client without a name gets
        tree["models"].setdefault(tree.get("default_model", "default"), {})
    assert load_tree(tree, name, {}, {})


@pytest.mark.parametrize(
    "path", [*sorted(ROOT.glob("docs/*.md")), ROOT / "README.md"], ids=lambda path: path.name
)
def test_links_all_resolve(path: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text(encoding="utf-8"))
    dead = [link for link in links if "://" not in link and not (path.parent / link).exists()]
    assert dead == []


def test_readme_banner_gives_the_reasons_that_the_server_gives() -> None:
    shown = re.findall(r"^    (clean|speaker) +none: (.+)$", page("README.md"), re.MULTILINE)
    nothing = Surroundings(Settings(), local_servers=())

    async def main() -> dict[str, str]:
        last = {kind: candidates[-1] for kind, candidates in CANDIDATES.items()}
        found = {kind: await each.condition(nothing) for kind, each in last.items()}
        return {kind: each.reason for kind, each in found.items() if each}

    reasons = asyncio.run(main())
    assert dict(shown) == {kind: reasons[kind] for kind in ("clean", "speaker")}


def test_readme_program_is_answered() -> None:
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
            async with asyncio.timeout(60):
                written, _ = await process.communicate()
            return written.decode()

    assert asyncio.run(main()) == "Twelve times seven is eighty-four."


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_readme_curl_commands_are_answered(tmp_path: Path) -> None:
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
                async with asyncio.timeout(60):
                    written, _ = await process.communicate()
                assert process.returncode == 0, written
                answers.append(written.decode())
        return answers

    speech, transcription, chat, secret = asyncio.run(main())
    assert (speech, (tmp_path / "question.wav").read_bytes()[:4]) == ("", b"RIFF")
    assert json.loads(transcription)["text"]
    assert json.loads(chat)["choices"][0]["message"]["content"] == "Two plus two is four."
    assert json.loads(secret)["value"].startswith("ek_")


def test_make_targets_in_docs_all_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", page("Makefile"), re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", page("README.md"), re.MULTILINE))
    assert {"serve", "test", "demo", "bench"} <= named <= targets


def test_engine_of_the_tutorial_passes_its_own_check(tmp_path: Path) -> None:
    for name in ("my_engines.py", "test_my_engines.py"):
        code = re.search(rf"```python\n(# {name}\n.*?)```", page("docs/engines.md"), re.DOTALL)
        assert code
        (tmp_path / name).write_text(code[1], encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "test_my_engines.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_worker_of_the_tutorial_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = re.search(r"\n(    class UppercaseWorker.*?)\n\n\S", worker.__doc__ or "", re.DOTALL)
    assert code
    head = (
        "from collections.abc import Iterator\nfrom vivavoce.engines.worker import WorkerStream\n"
    )
    (tmp_path / "my_worker.py").write_text(head + textwrap.dedent(code[1]), encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    async def audio() -> AsyncIterator[bytes]:
        yield bytes(5_000)

    async def main() -> tuple[object, list[object]]:
        host = WorkerHost("my_worker:UppercaseWorker", {}, name="stt.mine", message=object)
        async with host:
            async with host.open("hello", audio()) as stream:
                got = [message async for message in stream]
            return await host.loaded(object), got

    assert asyncio.run(main()) == ({"sample_rate": 16_000}, ["HELLO", 3_200, 1_800])


def test_testing_module_names_are_all_documented() -> None:
    section = page("docs/engines.md").partition("## Your own")[2]
    names = {name for name in testing.__all__ if not name.endswith(("Script", "Answer", "Call"))}
    assert [name for name in sorted(names) if f"`{name}`" not in section] == ["ScriptedTranscript"]


def test_named_services_are_all_documented() -> None:
    text = page("docs/engines.md")
    for kind, services in PROVIDERS.items():
        for name, service in services.items():
            row = next(line for line in text.splitlines() if f'`{kind} = "{name}"`' in line)
            assert service.base_url in row
            assert f"`{service.variable}`" in row or not service.variable


VOXRAY = [
    "openai",
    "groq",
    "sarvam",
    "elevenlabs",
    "aws",
    "google",
    "whisper",
    "camb",
    "gradium",
    "soniox",
    "cerebras",
    "mistral",
    "deepseek",
    "grok",
    "anthropic",
    "google_vertex",
    "ollama",
    "qwen",
    "asyncai",
    "fish",
    "inworld",
    "minimax",
    "moondream",
    "openpipe",
    "hume",
    "neuphonic",
    "xtts",
    "deepgram",
    "cartesia",
]
"""Its providers, and two whose keys it takes."""


def providers() -> Iterator[tuple[str, str, str]]:
    """Provider, kind and line of settings, as the table of the engines has them."""
    section = page("docs/engines.md").partition("### Providers that Voxray names")[2]
    for row in re.findall(
        r"^\| ([a-z_]+) \|(.*)\|(.*)\|(.*)\|$", section.partition("\n## ")[0], re.M
    ):
        for kind, cell in zip(("stt", "llm", "tts"), row[1:], strict=True):
            for line in re.findall(r"`([a-z]+(?::[\w.]*)?)`", cell):
                yield row[0], kind, line


def test_providers_of_voxray_are_all_in_the_table() -> None:
    assert sorted(set(VOXRAY) - {provider for provider, _, line in providers() if line}) == []


@pytest.mark.parametrize(("provider", "kind", "line"), [*providers()])
def test_line_of_settings_of_a_provider_makes_its_engine(
    provider: str, kind: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, colon, plugin = line.partition(":")
    table: dict[str, Any] = {"engine": engine} if colon else {}
    if engine == "livekit":
        monkeypatch.setattr("vivavoce.engines.livekit_plugins._class_of", lambda plugin: object)
        table["plugin"] = plugin
        assert f"`{plugin}`" in page("docs/engines.md").partition("## Plug-ins of")[2]
    elif colon:
        table["base_url"] = "https://api.test/v1"
    name = provider if colon else line
    tree: dict[str, Any] = {"models": {"default": {kind: name}}}
    if table:
        tree["engines"] = {kind: {name: table}}
    add_providers(tree, {}, {one: registry.names(one) for one in ("stt", "llm", "tts")})
    options = dict(tree.get("engines", {}).get(kind, {}).get(name, {}))
    made = registry.create(kind, options.pop("engine", name), options, table=name)
    assert made.capabilities is not None


def test_promises_of_the_relay_name_tests_that_exist() -> None:
    page = (ROOT / "docs" / "relay.md").read_text("utf-8")
    named = set(re.findall(r"`(test_\w+)`", page))
    source = "\n".join(
        file.read_text("utf-8")
        for pattern in ("*/test_*.py", "*/*/test_*.py")
        for file in (ROOT / "tests").glob(pattern)
    )
    assert named
    assert named <= set(re.findall(r"def (test_\w+)", source))
