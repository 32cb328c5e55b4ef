"""What the scripts in scripts/clients share, driven with a client that the tests depend on."""

import ast
import base64
import re
import subprocess
import sys
from pathlib import Path

import pytest
from openai import AsyncOpenAI
from scripts.clients import plumbing
from scripts.clients.plumbing import FailedError, SkippedError, Trial

from tests.clients.loop import awaited

SCRIPTS = Path(plumbing.__file__).parent
NAMES = sorted(path.stem for path in SCRIPTS.glob("with_*.py"))


async def ask(trial: Trial) -> None:
    client = AsyncOpenAI(base_url=f"{trial.http}/v1", api_key=plumbing.KEY)
    async with client, client.realtime.connect(model="gpt-realtime") as connection:
        for piece in plumbing.pieces(plumbing.utterance()):
            await connection.input_audio_buffer.append(audio=base64.b64encode(piece).decode())
        async for event in connection:
            if event.type == "response.done":
                trial.expect(event.response.status == "completed", "spoken turn is answered")
                return


async def expect_nothing(trial: Trial) -> None:
    trial.expect(False, "the impossible")


@awaited
async def test_a_trial_of_an_installed_client_reports_what_was_checked() -> None:
    assert await plumbing.run(ask) == ["spoken turn is answered"]


@awaited
async def test_a_trial_over_a_relay_reports_what_was_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(plumbing.RELAY, "1")
    assert await plumbing.run(ask) == ["spoken turn is answered"]


@awaited
async def test_a_trial_whose_expectation_does_not_hold_fails_with_its_name() -> None:
    with pytest.raises(FailedError, match="the impossible"):
        await plumbing.run(expect_nothing)


@awaited
async def test_a_trial_with_wrong_settings_fails_with_the_servers_words() -> None:
    with pytest.raises(FailedError, match="did not start"):
        await plumbing.run(ask, "[nonsense]")


def test_a_package_that_cannot_be_installed_skips_the_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(plumbing.FOLDER, str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(SkippedError, match="cannot install"):
        plumbing.environment("none", ["vivavoce-no-such-package==1"])


def test_an_environment_with_the_same_requirements_is_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(plumbing.FOLDER, str(tmp_path))
    folder = tmp_path / "kept"
    folder.mkdir()
    (folder / "requirements.txt").write_text("one==1\ntwo==2")
    assert plumbing.environment("kept", ["one==1", "two==2"]) == folder / "bin" / "python"


@pytest.mark.parametrize(
    ("sample", "code"), [(0, 0xFF), (32_767, 0x80), (-32_768, 0x00), (1_000, 0xCE), (-1_000, 0x4E)]
)
def test_mulaw_of_a_sample_is_that_of_the_standard(sample: int, code: int) -> None:
    assert plumbing.mulaw(sample.to_bytes(2, "little", signed=True)) == bytes([code])


@pytest.mark.parametrize("name", NAMES)
def test_each_script_pins_its_client_and_has_a_docstring(name: str) -> None:
    tree = ast.parse((SCRIPTS / f"{name}.py").read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    packages = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PACKAGES"
    )
    assert re.search(r".(==|@)\d", packages[0])


def test_the_runner_prints_a_failure_of_a_script_that_is_missing() -> None:
    run = subprocess.run(
        (sys.executable, SCRIPTS / "run", "no_such_client"), capture_output=True, text=True
    )
    assert run.returncode == 1
    assert "FAIL" in run.stdout
