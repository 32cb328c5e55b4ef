"""`vivavoce check` finds each of many deliberate faults, and nothing on a right server."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from tests.check.fake import fast_settings, faulty, target
from tests.check.faults import FAULTS, DeliberateFault
from tests.server import serving
from vivavoce.check.running import (
    CHECKS,
    NO_SPEECH,
    SCENARIOS,
    SPOKEN,
    judged,
    needed_scenarios,
    run_checks,
    run_scenario,
    selected,
)

DOCS = Path(__file__).parents[2] / "docs"


def test_own_server_passes_every_check() -> None:
    async def main() -> None:
        async with serving(fast_settings()) as server:
            report = await run_checks(replace(target(server.http), timeout_s=20.0), selected(()))
            failed = [
                (r.check.id, r.message, r.evidence) for r in report.results if r.outcome == "failed"
            ]
            skipped = {r.check.id: r.message for r in report.results if r.outcome == "skipped"}
            assert failed == []
            assert set(skipped) == {"auth.wrong_key"}, skipped
            assert {fault.found_by for fault in FAULTS}.isdisjoint(skipped)

    asyncio.run(main())


def test_each_deliberate_fault_is_found() -> None:
    at_a_time = asyncio.Semaphore(3)

    async def failures(fault: DeliberateFault, upstream: str) -> list[str]:
        async with at_a_time, faulty(upstream, fault.make) as url:
            recording = await run_scenario(fault.scenario, target(url))
        results = [judged(check, [recording]) for check in CHECKS]
        return [result.check.id for result in results if result.outcome == "failed"]

    async def main() -> dict[str, list[str]]:
        async with serving(fast_settings()) as server:
            found = await asyncio.gather(*(failures(fault, server.ws) for fault in FAULTS))
        pairs = zip(FAULTS, found, strict=True)
        return {fault.name: failed for fault, failed in pairs if fault.found_by not in failed}

    assert len(FAULTS) >= 30
    assert asyncio.run(main()) == {}


def test_check_names_are_unique_and_rest_on_sections_of_the_documentation() -> None:
    names = [check.id for check in CHECKS]
    assert len(names) == len(set(names)) >= 150
    for check in CHECKS:
        page, _, heading = check.section.partition(": ")
        lines = (DOCS / page).read_text("utf-8").splitlines()
        assert any(line.lstrip("# ") == heading and line[0] == "#" for line in lines if line), check
        assert check.statement, check.id
        assert check.scenario in ("", *SCENARIOS), check.id


def test_spoken_scenarios_without_speech_are_skipped() -> None:
    async def main() -> None:
        silent = replace(target("http://127.0.0.1:9"), speech=b"")
        for name in SPOKEN:
            recording = await run_scenario(name, silent)
            results = [judged(check, [recording]) for check in selected(())]
            assert recording.unsupported == NO_SPEECH
            assert {result.outcome for result in results} == {"skipped"}

    asyncio.run(main())


@pytest.mark.parametrize(
    ("pattern", "scenarios"),
    [("tools.*", ["tools"]), ("connect.expires_at", ["connect"]), ("stream.*", list(SCENARIOS))],
)
def test_scenarios_are_those_that_the_checks_need(pattern: str, scenarios: list[str]) -> None:
    assert needed_scenarios(selected([pattern])) == scenarios
