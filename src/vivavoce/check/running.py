"""Runs scenarios against a server, and judges the recordings."""

import contextlib
import fnmatch
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, TypeAlias

import aiohttp

from vivavoce.check import (
    dialects,
    items_behaviour,
    other_scenarios,
    response_behaviour,
    scenarios,
    shapes,
    speech_behaviour,
    speech_scenarios,
    streams,
    tables,
    turn_streams,
)
from vivavoce.check.connection import CheckTarget, EventMissing
from vivavoce.check.recording import (
    CheckFailed,
    CheckRecording,
    ConformanceCheck,
    EventFields,
    NotApplicable,
    shortened,
)
from vivavoce.talk.client import ServerLost

Outcome: TypeAlias = Literal["passed", "failed", "skipped"]
RunScenario: TypeAlias = Callable[[CheckTarget, CheckRecording], Awaitable[None]]
SCENARIOS: Final[Mapping[str, RunScenario]] = {
    run.__name__: run
    for run in (
        scenarios.connect,
        scenarios.settings,
        scenarios.errors,
        scenarios.items,
        scenarios.text_response,
        scenarios.audio_response,
        scenarios.cancellation,
        scenarios.out_of_band,
        scenarios.tools,
        speech_scenarios.manual_turn,
        speech_scenarios.spoken_turn,
        speech_scenarios.semantic_turn,
        speech_scenarios.turn_without_response,
        speech_scenarios.interruption,
        speech_scenarios.no_interruption,
        speech_scenarios.transcription,
        speech_scenarios.g711_turn,
        other_scenarios.wrong_key,
        other_scenarios.beta,
        other_scenarios.beta_subprotocol,
        other_scenarios.beta_transcription,
        other_scenarios.http,
        other_scenarios.webrtc,
    )
}
SPOKEN: Final = {
    "manual_turn",
    "spoken_turn",
    "semantic_turn",
    "turn_without_response",
    "interruption",
    "no_interruption",
    "transcription",
}
"""Scenarios that need a spoken sentence."""
NO_SPEECH: Final = "nothing can be spoken: give a recording by --speech, or install vivavoce[local]"
CHECKS: Final[tuple[ConformanceCheck, ...]] = tuple(
    check
    for module in (
        items_behaviour,
        tables,
        response_behaviour,
        speech_behaviour,
        streams,
        turn_streams,
        shapes,
        dialects,
    )
    for check in module.checks.checks
)


class CheckResult(NamedTuple):
    """The result of a check. `evidence`: the events that show it, texts shortened."""

    check: ConformanceCheck
    outcome: Outcome
    message: str = ""
    scenario: str = ""
    """The recording that failed."""
    evidence: tuple[EventFields, ...] = ()


@dataclass(slots=True)
class CheckReport:
    """All results, and the recordings that they are based on."""

    url: str
    results: list[CheckResult] = field(default_factory=list)
    recordings: list[CheckRecording] = field(default_factory=list)

    def count(self, outcome: Outcome) -> int:
        """How many checks had that result."""
        return sum(result.outcome == outcome for result in self.results)


def selected(patterns: Iterable[str]) -> list[ConformanceCheck]:
    """The checks whose id matches one of the patterns, `tools.*`; all without a pattern."""
    wanted = tuple(patterns)
    return [
        check
        for check in CHECKS
        if not wanted or any(fnmatch.fnmatchcase(check.id, pattern) for pattern in wanted)
    ]


def needed_scenarios(checks: Iterable[ConformanceCheck]) -> list[str]:
    """The scenarios that these checks judge; all, where one judges every stream."""
    names = {check.scenario for check in checks}
    return list(SCENARIOS) if "" in names else [name for name in SCENARIOS if name in names]


async def run_scenario(name: str, target: CheckTarget) -> CheckRecording:
    """The recording of one scenario. Never raises, whatever the server does."""
    recording = CheckRecording(name)
    if name in SPOKEN and not target.speech:
        recording.unsupported = NO_SPEECH
        return recording
    try:
        with contextlib.suppress(EventMissing):  # the recording says so
            await SCENARIOS[name](target, recording)
    except (ServerLost, aiohttp.ClientError, ConnectionError, TimeoutError) as exc:
        recording.missing.append(str(exc) or type(exc).__name__)
    return recording


async def run_checks(
    target: CheckTarget,
    checks: list[ConformanceCheck],
    *,
    only_scenarios: Iterable[str] = (),
    progress: Callable[[str], None] = lambda _: None,
) -> CheckReport:
    """Run what the checks need, one scenario after the other, and apply them."""
    report = CheckReport(target.url)
    for name in tuple(only_scenarios) or needed_scenarios(checks):
        progress(name)
        report.recordings.append(await run_scenario(name, target))
    report.results = [judged(check, report.recordings) for check in checks]
    return report


def judged(check: ConformanceCheck, recordings: Iterable[CheckRecording]) -> CheckResult:
    """The result of a check on those recordings to which it applies."""
    reasons, passed = [], False
    for recording in recordings:
        if check.scenario not in ("", recording.scenario):
            continue
        if not check.scenario and recording.dialect not in check.dialects:
            continue
        if recording.unsupported:
            reasons.append(recording.unsupported)
            continue
        try:
            check.judge(recording)
            passed = True
        except NotApplicable as exc:
            reasons.append(f"{exc}; {recording.missing[0]}" if recording.missing else str(exc))
        except CheckFailed as exc:
            events = tuple(shortened(event) for event in exc.evidence)
            return CheckResult(check, "failed", str(exc), recording.scenario, events)
        except (KeyError, TypeError, AttributeError) as exc:
            # a value of a wrong type, which another check reports
            reason = f"an event has another form: {type(exc).__name__}: {exc}"
            return CheckResult(check, "failed", reason, recording.scenario)
    if passed:
        return CheckResult(check, "passed")
    return CheckResult(check, "skipped", reasons[0] if reasons else "its scenario did not run")
