"""`vivavoce run` against servers in this process: the example flows, failures, judges, reports."""

import asyncio
import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console

from tests.clients.loop import awaited
from tests.server import scripted, serving
from vivavoce.cli import cli
from vivavoce.scenarios.command import RunOptions, run_scenarios
from vivavoce.settings import Settings
from vivavoce.settings_sources import load

EXAMPLES = Path(__file__).parents[2] / "examples"
FLOWS = sorted((EXAMPLES / "flows").glob("*.toml"))


async def run_against(
    settings: Settings, files: list[Path], **options: Any
) -> tuple[int, str, str]:
    """Exit status, report, and notes of a run with tones, faster than real time."""
    out, notes = (Console(file=StringIO(), width=200, no_color=True, record=True) for _ in "12")
    async with serving(settings) as server:
        given = RunOptions(
            **{
                "server": server.http,
                "voice": "tone",
                "fast": True,
                "llm": f"{server.http}/v1",
                **options,
            }
        )
        status = await asyncio.to_thread(run_scenarios, files, given, out, notes)
    return status, out.export_text(), notes.export_text()


@awaited
async def test_example_flows_all_pass_and_are_reported(tmp_path: Path) -> None:
    settings, _ = load(EXAMPLES / "flows_server.toml", {}, {})
    junit, page = tmp_path / "run.xml", tmp_path / "run.html"
    status, text, _ = await run_against(settings, FLOWS, junit=junit, html=page)
    assert (status, text.count("failed")) == (0, 0), text
    suites = ElementTree.parse(junit).getroot()
    assert [suite.get("name") for suite in suites] == [
        "Interruption",
        "Two questions at once",
        "Session set-up",
        "Tool round trip",
    ]
    assert {suite.get("failures") for suite in suites} == {"0"}
    assert suites[1].get("skipped") == "2"  # what a judge would say
    html = page.read_text("utf-8")
    assert html.count("<audio controls") == html.count("Latency of each turn") == len(FLOWS)
    assert "http://" not in html.replace("http://127.0.0.1", "")
    assert "get_weather {&#x27;city&#x27;: &#x27;Rome&#x27;}" in html


@awaited
async def test_user_in_real_time_interrupts_what_is_heard_and_truncates_it(tmp_path: Path) -> None:
    text = """
    [[steps]]
    says = "Story."
    expect = {interrupted = true}
    [[steps]]
    says = "Stop."
    interrupts_after_ms = 300
    [steps.expect]
    said = "yes"
    event = "conversation.item.truncated"
    """
    answers = ["word " * 200, "Yes?"]  # a minute, all of which is made at once
    status, report, _ = await run_against(
        scripted(llm={"answers": answers}), flow(tmp_path, text), fast=False
    )
    assert status == 0, report


def flow(folder: Path, text: str) -> list[Path]:
    path = folder / "flow.toml"
    path.write_text(text, encoding="utf-8")
    return [path]


UNMET = {
    'said = "rainy"': "said 'rainy': the answer was 'It is sunny.'",
    'not_said = "sunny"': "not said 'sunny': the answer was 'It is sunny.'",
    'tool_call = "get_weather"': "calls get_weather: it called nothing",
    'event = "no.such.event"': "comes to its end: an event no.such.event did not come within 0.3 s",
    "interrupted = true": "is interrupted: the answer was not interrupted",
    'error = "overloaded"': "error 'overloaded': no such error came",
    "stop_ms = 5": "the interrupted answer stops within 5 ms: it did not come",
    "first_audio_ms = 0": "first audio within 0 ms: it took",
}


@awaited
async def test_unmet_expectations_all_fail_the_run(tmp_path: Path) -> None:
    text = "".join(
        f'[[steps]]\ntypes = "How is the weather?"\nwithin = {0.3 if "no.such" in expect else 20}\n'
        f"expect = {{{expect}}}\n"
        for expect in UNMET
    )
    settings = scripted(llm={"answers": ["It is sunny."]}, tts={"first_audio_seconds": 0.01})
    status, report, _ = await run_against(settings, flow(tmp_path, text))
    assert status == 1
    assert [sentence for sentence in UNMET.values() if sentence not in report] == []


@awaited
async def test_misheard_words_and_limits_fail_the_run(tmp_path: Path) -> None:
    text = """
    [limits]
    usd = 0.0
    seconds = 0.001
    first_audio_ms_p50 = 0
    first_audio_ms_max = 0
    [[steps]]
    says = "What time is it?"
    expect = {heard = "what time is it"}
    """
    settings = scripted(stt={"transcripts": ["what dime is"]}, tts={"first_audio_seconds": 0.01})
    status, report, _ = await run_against(settings, flow(tmp_path, text))
    assert status == 1
    assert "heard 'what time is it': 50% of the words are wrong: 'what dime is'" in report
    assert "costs at most 0 USD: 0.0" in report
    assert "USD at the price of gpt-realtime" in report
    for limit in ("median of first audio", "every first audio", "lasts at most 0.001 s"):
        assert f"failed the conversation: {limit}" in report


@awaited
async def test_failed_response_and_unknown_tool_are_reported(tmp_path: Path) -> None:
    tool = '[[session.tools]]\ntype = "function"\nname = "unknown"\n'
    text = f'{tool}[[steps]]\ntypes = "a"\n[[steps]]\ntypes = "b"\n'
    answers = [{"calls": [{"name": "unknown"}]}, "No.", {"text": "", "error": "overloaded"}]
    status, report, _ = await run_against(scripted(llm={"answers": answers}), flow(tmp_path, text))
    assert status == 1
    assert "failed step 2: b: without errors: the response failed: overloaded" in report
    assert "step 1" not in report


@awaited
async def test_refused_settings_break_the_conversation_off(tmp_path: Path) -> None:
    text = '[session]\noutput_modalities = ["smell"]\n[[steps]]\ntypes = "a"\n'
    status, report, _ = await run_against(scripted(), flow(tmp_path, text))
    assert status == 1
    assert "the session was not set up" in report


@awaited
async def test_judge_decides_on_the_transcript(tmp_path: Path) -> None:
    verdicts = {
        "verdicts": [{"true": True, "reason": "yes"}, {"true": False, "reason": "it is not"}]
    }
    text = """
    judge = ["The weather is named.", "The assistant is rude."]
    [[steps]]
    types = "How is the weather?"
    """
    settings = scripted(llm={"answers": ["It is sunny.", f"Here: {json.dumps(verdicts)}"]})
    status, report, _ = await run_against(settings, flow(tmp_path, text), judge=True)
    assert status == 1
    assert "failed the conversation: The assistant is rude.: it is not" in report
    assert "The weather is named" not in report


@awaited
async def test_judge_without_verdicts_ends_the_run(tmp_path: Path) -> None:
    text = 'judge = "It is polite."\n[[steps]]\ntypes = "Hello."\n'
    settings = scripted(llm={"answers": ["Hi.", "I would rather not say."]})
    status, _, notes = await run_against(settings, flow(tmp_path, text), judge=True)
    assert status == 2
    assert "gave 0 verdicts for 1 statements" in notes.replace("\n", " ")


@awaited
async def test_simulated_user_speaks_until_the_goal_is_reached(tmp_path: Path) -> None:
    text = '[user]\ngoal = "Learn when the museum opens."\nmanner = "in a hurry"\n'
    answers = ["When do you open?", "At ten.", "[DONE]"]
    settings = scripted(llm={"answers": answers}, stt={"transcripts": ["when do you open"]})
    status, report, _ = await run_against(settings, flow(tmp_path, text))
    assert status == 0, report
    assert "user: When do you open?" in report
    assert "assistant: At ten." in report


@pytest.mark.parametrize(
    ("files", "options", "sentence"),
    [
        (lambda folder: [], {}, "there is no scenario to run"),
        (lambda folder: [folder / "none.toml"], {}, "cannot be read"),
        (
            lambda folder: flow(folder, '[[steps]]\ntypes = "a"\n'),
            {"server": "ws://127.0.0.1:9"},
            "connection refused",
        ),
        (
            lambda folder: flow(folder, '[[steps]]\nclip = "none.wav"\n'),
            {},
            "none.wav cannot be read",
        ),
        (
            lambda folder: flow(folder, '[[steps]]\ntypes = "a"\n'),
            {"junit": Path("/none/run.xml")},
            "--junit /none/run.xml cannot be written",
        ),
    ],
)
@awaited
async def test_wrong_usage_is_one_sentence_and_status_2(
    tmp_path: Path,
    files: Callable[[Path], list[Path]],
    options: dict[str, Any],
    sentence: str,
) -> None:
    status, _, notes = await run_against(scripted(), files(tmp_path), **options)
    assert status == 2
    assert sentence in notes.replace("\n", " ")


@pytest.mark.parametrize(
    "command", ["run", "clips make", "clips list", "voices rate", "voices report"]
)
def test_help_of_the_command_has_an_example_and_its_exit_status(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli([*command.split(), "--help"], console=Console(width=100))
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert f"    vivavoce {command.split()[0]}" in shown
    assert "Exit status: 0" in shown
