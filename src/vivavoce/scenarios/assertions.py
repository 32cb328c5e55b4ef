"""Judges what happened: events, words, times, money, and statements for a language model."""

import time
from collections.abc import Iterator
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import msgspec
import numpy as np

from vivavoce.limits.prices import PriceTable, quantities_of, rate, usd
from vivavoce.protocol.responses import Usage
from vivavoce.scenarios.conversation import ScenarioRun, find_event, has_fields
from vivavoce.scenarios.files import ScenarioFile, ScenarioStep, texts
from vivavoce.scenarios.judging import ChatClient, judged
from vivavoce.scenarios.turns import ScenarioTurn
from vivavoce.testing.words import has_words, word_error_rate

CheckState: TypeAlias = Literal["passed", "failed", "skipped"]
NANO: Final = 10**9
NO_JUDGE: Final = "there is no judge: --judge"


class ScenarioCheck(NamedTuple):
    """One assertion, and what it came to."""

    place: str
    """step 2: What is the weather?"""
    what: str
    state: CheckState
    message: str = ""


class ScenarioCost(NamedTuple):
    """What the tokens of all responses cost."""

    nano_usd: int
    problem: str = ""
    """Why that is not known."""
    model: str = ""
    """The name of the model in the price table."""

    @property
    def text(self) -> str:
        """For people: 0.02 USD at the price of gpt-realtime."""
        return self.problem or f"{usd(self.nano_usd)} USD at the price of {self.model}"


def _outcome(place: str, what: str, holds: bool, message: str = "") -> ScenarioCheck:
    return ScenarioCheck(place, what, "passed" if holds else "failed", "" if holds else message)


def step_checks(run: ScenarioRun, place: int, step: ScenarioStep) -> Iterator[ScenarioCheck]:
    """All that a step asserts, but for what needs a language model."""
    label = f"step {place + 1}: {step.text}"
    if place >= len(run.steps):
        why = run.problem or "the conversation broke off before it"
        yield ScenarioCheck(label, "takes place", "failed", why)
        return
    turn, wanted = run.steps[place], step.expect
    yield _outcome(label, "comes to its end", not turn.problem, turn.problem)
    unwanted = [text for text in turn.errors if not wanted.error or wanted.error not in text]
    yield _outcome(label, "without errors", not unwanted, "; ".join(unwanted))
    if wanted.error:
        found = any(wanted.error in text for text in turn.errors)
        yield _outcome(label, f"error {wanted.error!r}", found, "no such error came")
    yield from _word_checks(label, turn, step)
    if wanted.tool_call:
        yield _tool_check(label, turn, step)
    if wanted.event:
        event = find_event(run.recorder.entries, turn, step)
        what = f"event {wanted.event} {wanted.fields or ''}".strip()
        yield _outcome(label, what, event is not None, "it did not come")
    if wanted.interrupted is not None:
        what = "is interrupted" if wanted.interrupted else "is not interrupted"
        message = f"the answer was {'' if turn.interrupted else 'not '}interrupted"
        yield _outcome(label, what, turn.interrupted == wanted.interrupted, message)
    yield from _time_checks(label, turn, step)


def _word_checks(label: str, turn: ScenarioTurn, step: ScenarioStep) -> Iterator[ScenarioCheck]:
    wanted = step.expect
    answered = f"the answer was {turn.answer!r}"
    for text in texts(wanted.said):
        yield _outcome(label, f"said {text!r}", has_words(turn.answer, text), answered)
    for text in texts(wanted.not_said):
        yield _outcome(label, f"not said {text!r}", not has_words(turn.answer, text), answered)
    if wanted.heard:
        heard = " ".join(turn.transcripts)
        errors = word_error_rate(wanted.heard, heard)
        message = f"{errors:.0%} of the words are wrong: {heard!r}"
        yield _outcome(label, f"heard {wanted.heard!r}", errors <= wanted.max_word_errors, message)


def _tool_check(label: str, turn: ScenarioTurn, step: ScenarioStep) -> ScenarioCheck:
    wanted = step.expect
    called = [(call.name, call.arguments) for call in turn.calls]
    found = any(
        name == wanted.tool_call and has_fields(arguments, wanted.arguments)
        for name, arguments in called
    )
    what = f"calls {wanted.tool_call} {wanted.arguments or ''}".strip()
    seen = "; ".join(f"{name} {arguments}" for name, arguments in called) or "nothing"
    return _outcome(label, what, found, f"it called {seen}")


def _time_checks(label: str, turn: ScenarioTurn, step: ScenarioStep) -> Iterator[ScenarioCheck]:
    wanted = step.expect
    for name, limit, took in (
        ("first audio", wanted.first_audio_ms, turn.ms(turn.first_audio)),
        ("whole answer", wanted.answer_ms, turn.ms(turn.done)),
        ("the interrupted answer stops", wanted.stop_ms, turn.stop_ms),
    ):
        if limit is not None:
            yield _limit(label, f"{name} within {limit} ms", took, limit)


def _limit(label: str, what: str, took: float | None, limit: float) -> ScenarioCheck:
    if took is None:
        return _outcome(label, what, False, "it did not come")
    return _outcome(label, what, took <= limit, f"it took {took:.0f} ms")


def first_audio_times(run: ScenarioRun) -> list[float]:
    """Milliseconds to the first sound of each answer."""
    times = (turn.ms(turn.first_audio) for turn in run.recorder.turns)
    return [ms for ms in times if ms is not None]


def cost_of(scenario: ScenarioFile, run: ScenarioRun, prices: PriceTable) -> ScenarioCost:
    """The cost by the price table, of the tokens that the server has reported."""
    model = scenario.price_model or str(run.session.get("model") or scenario.model)
    price = prices.find(model, time.time())
    if price is None:
        why = f"{model or 'the model'} has no price: set price_model, or add it to [prices]"
        return ScenarioCost(0, why)
    total = 0
    for turn in run.recorder.turns:
        for usage in turn.usages:
            total += _priced(usage, price.rates)
    return ScenarioCost(total, model=price.model)


def _priced(usage: dict[str, Any], rates: Any) -> int:
    try:
        used = msgspec.convert(usage, Usage)
    except msgspec.ValidationError:
        return 0
    return rate(quantities_of(used)[0], rates).nano_usd


def limit_checks(
    scenario: ScenarioFile, run: ScenarioRun, cost: ScenarioCost
) -> Iterator[ScenarioCheck]:
    """What [limits] asserts of the whole conversation, and that it took place."""
    limits, label = scenario.limits, "the conversation"
    yield _outcome(label, "takes place", not run.problem, run.problem)
    times = first_audio_times(run)
    if limits.first_audio_ms_p50 is not None:
        median = float(np.median(times)) if times else None
        what = f"median of first audio within {limits.first_audio_ms_p50} ms"
        yield _limit(label, what, median, limits.first_audio_ms_p50)
    if limits.first_audio_ms_max is not None:
        what = f"every first audio within {limits.first_audio_ms_max} ms"
        yield _limit(label, what, max(times, default=None), limits.first_audio_ms_max)
    if limits.usd is not None:
        holds = not cost.problem and cost.nano_usd <= round(limits.usd * NANO)
        yield _outcome(label, f"costs at most {limits.usd:g} USD", holds, cost.text)
    if limits.seconds is not None:
        message = f"it lasted {run.seconds:.1f} s"
        what = f"lasts at most {limits.seconds:g} s"
        yield _outcome(label, what, run.seconds <= limits.seconds, message)


async def judge_checks(
    scenario: ScenarioFile, run: ScenarioRun, judge: ChatClient | None
) -> list[ScenarioCheck]:
    """What a language model says of the conversation. Raises SettingsError."""
    checks: list[ScenarioCheck] = []
    for place, turn in enumerate(run.steps):
        step = scenario.steps[place]
        label = f"step {place + 1}: {step.text}"
        checks += await _judged(label, texts(step.expect.judge), [turn], judge)
    checks += await _judged("the conversation", texts(scenario.judge), run.recorder.turns, judge)
    return checks


async def _judged(
    label: str, statements: tuple[str, ...], turns: list[ScenarioTurn], judge: ChatClient | None
) -> list[ScenarioCheck]:
    if not statements:
        return []
    if judge is None:
        return [ScenarioCheck(label, text, "skipped", NO_JUDGE) for text in statements]
    said = [(turn.text, turn.answer) for turn in turns]
    calls = [f"{call.name} {call.arguments}" for turn in turns for call in turn.calls]
    verdicts = await judged(judge, said, statements, calls)
    return [_outcome(label, each.statement, each.holds, each.reason) for each in verdicts]
