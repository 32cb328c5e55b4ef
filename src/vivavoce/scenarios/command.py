"""`vivavoce run`: the options, the reports and the exit status."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter
from rich.console import Console

from vivavoce.accounting import price_table
from vivavoce.errors import SettingsError
from vivavoce.limits.prices import PriceTable
from vivavoce.scenarios.assertions import cost_of, judge_checks, limit_checks, step_checks
from vivavoce.scenarios.conversation import ScenarioTarget, run_scenario
from vivavoce.scenarios.files import ScenarioFile, read_scenario
from vivavoce.scenarios.judging import ChatClient
from vivavoce.scenarios.report import ScenarioResult, as_html, as_junit, print_result
from vivavoce.secret import Secret
from vivavoce.settings import Settings
from vivavoce.standard_streams import print_error
from vivavoce.talk.client import endpoint, without_query
from vivavoce.talk.options import DEFAULT_URL
from vivavoce.testing.clips import ENGINE

PASSED, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130
"""Exit statuses."""
OPENAI: Final = "https://api.openai.com/v1"


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The options of `vivavoce run`."""

    server: str = DEFAULT_URL
    """The server: ws(s):// or http(s)://, with or without /v1/realtime and ?model=."""
    model: str = ""
    """The model to ask for, in place of the scenarios'."""
    api_key: Annotated[Secret, Parameter(env_var="OPENAI_API_KEY", show_env_var=False)] = Secret()
    """The API key, if the server wants one; by default the one in OPENAI_API_KEY."""
    voice: str = ""
    """The voice of the user, in place of the scenarios'; tone: a tone as long as the words."""
    engine: str = ENGINE
    """The engine that speaks for the user."""
    fast: Annotated[bool, Parameter(negative="")] = False
    """Send audio faster than it is heard. Times are then those of the server alone."""
    judge: Annotated[bool, Parameter(negative="")] = False
    """Let a language model judge the sentences under `judge`. Without it they are skipped."""
    llm: str = OPENAI
    """The base URL of that model, and of simulated users: an OpenAI-compatible endpoint."""
    llm_model: str = "gpt-5-mini"
    """Its name."""
    llm_key: Annotated[Secret, Parameter(env_var="OPENAI_API_KEY", show_env_var=False)] = Secret()
    """Its API key; by default the one in OPENAI_API_KEY."""
    junit: Path | None = None
    """A file for the report as JUnit XML."""
    html: Path | None = None
    """A file for the report as a page with audio and waterfalls."""


def run_scenarios(
    files: Iterable[Path], options: RunOptions, console: Console, notes: Console
) -> int:
    """Run scenario files against a server and report. Returns the exit status; runs a loop.

    0: all passed. 1: an assertion failed. 2: a file is wrong, or the server cannot be reached. 130:
    interrupted. notes: where mistakes are printed.
    """
    try:
        read = [(path, read_scenario(path)) for path in files]
        if not read:
            raise SettingsError("there is no scenario to run: vivavoce run flows/*.toml")
        results = asyncio.run(_run_all(read, options, console))
        if options.junit is not None:
            _write(options.junit, as_junit(results) + "\n", "--junit")
        if options.html is not None:
            _write(options.html, as_html(results, without_query(options.server)), "--html")
    except SettingsError as exc:
        print_error(notes, exc)
        return REFUSED
    except KeyboardInterrupt:
        return INTERRUPTED
    return PASSED if all(result.passed for result in results) else FAILED


async def _run_all(
    read: list[tuple[Path, ScenarioFile]], options: RunOptions, console: Console
) -> list[ScenarioResult]:
    model = ChatClient(options.llm, options.llm_model, options.llm_key)
    judge = model if options.judge else None
    prices = price_table(Settings())
    results = []
    for path, scenario in read:
        target = ScenarioTarget(
            url=endpoint(options.server, options.model or scenario.model),
            api_key=options.api_key,
            voice=options.voice,
            engine=options.engine,
            real_time=not options.fast,
            user_model=model,
        )
        result = await _result(path, scenario, target, judge, prices)
        print_result(result, console)
        results.append(result)
    return results


async def _result(
    path: Path,
    scenario: ScenarioFile,
    target: ScenarioTarget,
    judge: ChatClient | None,
    prices: PriceTable,
) -> ScenarioResult:
    """Raises SettingsError."""
    run = await run_scenario(scenario, target, path.parent)
    cost = cost_of(scenario, run, prices)
    result = ScenarioResult(path, scenario, run, cost)
    for place, step in enumerate(scenario.steps):
        result.checks += step_checks(run, place, step)
    result.checks += limit_checks(scenario, run, cost)
    result.checks += await judge_checks(scenario, run, judge)
    return result


def _write(path: Path, text: str, option: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise SettingsError(f"{option} {path} cannot be written: {exc.strerror}") from exc
