"""`vivavoce check`: the options, the reports and the exit status."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias
from urllib.parse import parse_qs, urlsplit, urlunsplit
from xml.etree import ElementTree

import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from vivavoce.check.connection import CheckTarget
from vivavoce.check.recording import ConformanceCheck
from vivavoce.check.running import (
    SPOKEN,
    CheckReport,
    CheckResult,
    needed_scenarios,
    run_checks,
    run_scenario,
    selected,
)
from vivavoce.errors import AudioError, SettingsError
from vivavoce.secret import Secret
from vivavoce.standard_streams import print_error
from vivavoce.talk.client import endpoint, error_message
from vivavoce.talk.demo import spoken_sentence
from vivavoce.talk.options import DEFAULT_URL

PASSED, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130
"""Exit statuses."""
ADDRESSES: Final = {"openai": "wss://api.openai.com/v1/realtime"}
ReportForm: TypeAlias = Literal["table", "json", "junit"]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """The options of `vivavoce check`."""

    only: Annotated[tuple[str, ...], Parameter(negative="")] = ()
    """Only the checks whose name matches: `--only 'tools.*'`. May be given several times."""
    list_checks: Annotated[bool, Parameter(name="--list", negative="")] = False
    """List the checks and the sections of the documentation that they are based on, and run
    none."""
    against: Literal["", "openai"] = ""
    """Check the server of that provider instead of URL. It needs a key, and costs money."""
    model: str = ""
    """The model to request."""
    api_key: Annotated[Secret, Parameter(env_var="OPENAI_API_KEY", show_env_var=False)] = Secret()
    """The API key, if the server needs one; by default the one in OPENAI_API_KEY."""
    speech: Path | None = None
    """An audio file with one spoken sentence; by default the embedded voice speaks one."""
    form: ReportForm = "table"
    """The report: table, json with the events of each failure, or junit."""
    output: Path | None = None
    """A file for the report; by default the standard output."""
    timeout: Annotated[float, Parameter()] = 30.0
    """Seconds to wait for one event."""
    fast: Annotated[bool, Parameter(negative="")] = False
    """Send audio faster than real time."""


def check_server(url: str, options: CheckOptions, console: Console, notes: Console) -> int:
    """Check a server and print the report. Returns the exit status; runs an event loop.

    0: no check failed. 1: some did. 2: wrong usage, or the server cannot be reached. 130:
    interrupted. notes: where progress and errors are printed.
    """
    try:
        checks = selected(options.only)
        if not checks:
            raise SettingsError(f"--only {' '.join(options.only)} matches no check; see --list")
        if options.list_checks:
            list_checks(checks, console)
            return PASSED
        target = target_of(url, options)
        report = asyncio.run(_run(target, options, checks, notes))
        text = {"json": as_json, "junit": as_junit}.get(options.form, lambda _: "")(report)
        if options.output is not None:
            _write(options.output, text or _table_text(report))
        elif text:
            console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print_table(report, console)
        return FAILED if report.count("failed") else PASSED
    except (SettingsError, AudioError) as exc:
        print_error(notes, exc)
        return REFUSED
    except KeyboardInterrupt:
        return INTERRUPTED


def target_of(url: str, options: CheckOptions) -> CheckTarget:
    """The server to check. Raises SettingsError."""
    if options.against and url:
        raise SettingsError(f"a URL and --against {options.against} exclude each other")
    if options.against and not options.api_key.reveal():
        raise SettingsError(f"--against {options.against} needs a key: set OPENAI_API_KEY")
    if options.timeout <= 0:
        raise SettingsError("--timeout is a number of seconds above 0")
    address = endpoint(ADDRESSES.get(options.against, url or DEFAULT_URL), options.model)
    parts = urlsplit(address)
    return CheckTarget(
        url=urlunsplit((*parts[:3], "", "")),
        model=parse_qs(parts.query)["model"][0],
        api_key=options.api_key,
        timeout_s=options.timeout,
        real_time=not options.fast,
    )


async def _run(
    target: CheckTarget, options: CheckOptions, checks: list[ConformanceCheck], notes: Console
) -> CheckReport:
    first = await run_scenario("connect", target)
    if not first.received:
        why = first.missing[0] if first.missing else "it sends nothing"
        raise SettingsError(f"{target.url} is not checked: {why}")
    for error in (event.get("error") for event in first.all("error")):
        if isinstance(error, dict) and error.get("code") == "invalid_api_key":
            raise SettingsError(f"{target.url} is not checked: {error_message(error)}")
    if SPOKEN.intersection(needed_scenarios(checks)):
        target = replace(target, speech=await spoken_sentence(options.speech))
    return await run_checks(
        target, checks, progress=lambda name: notes.print(f"  {name}", highlight=False)
    )


def list_checks(checks: Iterable[ConformanceCheck], console: Console) -> None:
    """Print the rule that each check tests and the section that states it."""
    table = Table("check", "demands", "rests on", box=None)
    for check in checks:
        table.add_row(check.id, escape(check.statement), escape(check.section))
    console.print(table)


def print_table(report: CheckReport, console: Console) -> None:
    """Print what failed and was skipped, and the counts of each group."""
    groups: dict[str, list[CheckResult]] = {}
    for result in report.results:
        groups.setdefault(result.check.id.partition(".")[0], []).append(result)
    table = Table("group", "passed", "failed", "skipped", box=None)
    for name, results in groups.items():
        outcomes = [result.outcome for result in results]
        counts = [str(outcomes.count(each)) for each in ("passed", "failed", "skipped")]
        table.add_row(name, *counts)
    console.print(table)
    for result in report.results:
        if result.outcome != "passed":
            colour = "red" if result.outcome == "failed" else "yellow"
            console.print(
                f"[{colour}]{result.outcome}[/{colour}] [bold]{result.check.id}[/bold] "
                f"{escape(result.check.statement)}",
                highlight=False,
            )
            console.print(f"    {escape(_reason(result))}", highlight=False)
        for event in result.evidence:
            line = msgspec.json.encode(event).decode()
            console.print(f"    [dim]{escape(line[:300])}[/dim]", highlight=False, soft_wrap=True)
    console.print(
        f"{escape(report.url)}: {report.count('passed')} passed, {report.count('failed')} failed, "
        f"{report.count('skipped')} skipped",
        highlight=False,
        soft_wrap=True,
    )


def as_json(report: CheckReport) -> str:
    """The report as JSON, with the evidence of each failure."""
    found: dict[str, Any] = {
        "url": report.url,
        "passed": report.count("passed"),
        "failed": report.count("failed"),
        "skipped": report.count("skipped"),
        "checks": [
            {
                "check": result.check.id,
                "demands": result.check.statement,
                "rests_on": result.check.section,
                "outcome": result.outcome,
                "message": result.message,
                "scenario": result.scenario or result.check.scenario,
                "evidence": result.evidence,
            }
            for result in report.results
        ],
    }
    return msgspec.json.format(msgspec.json.encode(found), indent=2).decode()


def as_junit(report: CheckReport) -> str:
    """The report as JUnit XML: one test case a check, in classes by group."""
    suite = ElementTree.Element(
        "testsuite",
        name=f"vivavoce check {report.url}",
        tests=str(len(report.results)),
        failures=str(report.count("failed")),
        skipped=str(report.count("skipped")),
    )
    for result in report.results:
        group, _, name = result.check.id.partition(".")
        case = ElementTree.SubElement(suite, "testcase", classname=group, name=name)
        if result.outcome == "failed":
            failure = ElementTree.SubElement(case, "failure", message=_reason(result))
            lines = [msgspec.json.encode(event).decode() for event in result.evidence]
            failure.text = "\n".join((result.check.statement, *lines))
        elif result.outcome == "skipped":
            ElementTree.SubElement(case, "skipped", message=_reason(result))
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True)


def _reason(result: CheckResult) -> str:
    where = f" (in {result.scenario}; {result.check.section})" if result.scenario else ""
    return f"{result.message}{where}"


def _table_text(report: CheckReport) -> str:
    console = Console(width=120, no_color=True, record=True, quiet=True)
    with console.capture() as captured:
        print_table(report, console)
    return captured.get()


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as exc:
        raise SettingsError(f"--output {path} cannot be written: {exc.strerror}") from exc
