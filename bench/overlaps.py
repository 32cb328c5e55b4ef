"""The judge of interruptions: what it is given, how it is trained, and how often it is right.

    python -m bench.overlaps record FILE            the voices and texts for training
    python -m bench.overlaps record FILE --report   the benchmark, in voices kept for it
    python -m bench.overlaps train FILE             print the weights of the trained judge
    python -m bench.overlaps report FILE            compare the rules with the trained judge

A session is played in virtual time as by bench.turns_replay, and nothing may interrupt the answer
before the transcript is complete. So what is recorded is what any judge would be asked until it
stops the answer, and several can be compared on it. Recording takes about a second of a core for
each sound; it may be ended at any time.
"""

import argparse
import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import numpy as np
from numpy.typing import NDArray

from bench.dialogues import INTERRUPTIONS
from bench.figures import Figure, percentile, spread
from bench.overlap_sounds import REPORT_VOICES, reported, trained
from bench.replay_engines import engines
from bench.report import parser_of, show
from bench.turns_replay import Replay
from vivavoce.session.cascade import overlaps
from vivavoce.session.interruption import (
    InterruptionSettings,
    Overlap,
    Verdict,
    evidence_of,
    judge,
)
from vivavoce.session.interruption_model import WEIGHTS, facts

Matrix = NDArray[np.float64]
SPAN_MS = (96, 1500)
"""Lengths of the sound that are learned from."""
RIDGE = 2.0
RULES = InterruptionSettings(trained=False)


class Moment(msgspec.Struct, frozen=True):
    """What the judge was asked."""

    ms: float
    """Since the onset of the sound."""
    overlap: Overlap


class Recorded(msgspec.Struct, frozen=True):
    """One scenario, in which the answer was not stopped."""

    voice: str
    name: str
    kind: str
    moments: list[Moment]

    @property
    def interrupts(self) -> bool:
        return self.kind in INTERRUPTIONS

    def stopped_ms(self, settings: InterruptionSettings) -> float | None:
        """When a judge with these settings stops the answer, if it does."""
        for moment in self.moments:
            if judge(moment.overlap, settings) == "interruption":
                return moment.ms
        return None


class Recording(Replay):
    """A replay in which nothing interrupts before the transcript is complete."""

    def record(self, voice: str) -> Recorded:
        moments: list[Moment] = []

        def ask(overlap: Overlap, settings: InterruptionSettings) -> Verdict:
            moments.append(Moment((self._now - self._first) * 1000, overlap))
            return judge(overlap, settings) if overlap.complete else "undecided"

        with mock.patch.object(overlaps, "judge", ask):
            self.run()
        over = [moment for moment in moments if moment.ms >= 0]
        return Recorded(voice, self._scenario.name, self._scenario.kind, over)


async def _record(given: argparse.Namespace) -> None:
    at_hand = await engines()
    with given.file.open("wb") as file:
        async for voice, one in (
            reported(given.voices) if given.report else trained(given.variations)
        ):
            file.write(msgspec.json.encode(Recording(one, at_hand).record(voice)) + b"\n")
            file.flush()
            if len(at_hand.stt.known) > 1000:
                at_hand.stt.known.clear()


def read(path: Path) -> list[Recorded]:
    lines = path.read_bytes().split(b"\n")
    return [msgspec.json.decode(line, type=Recorded) for line in lines[:-1]]


def fitted(every: Sequence[Recorded]) -> dict[str, float]:
    """The weights of a logistic regression; no length counts against an interruption.

    Each sound has the same weight, whatever its length. By Newton's method; a length whose weight
    would be negative is left out.
    """
    rows, interrupts, shares = _examples(every)
    names = list(WEIGHTS)
    lengths = np.array([name.startswith("length") for name in names])
    used = np.ones(len(names), bool)
    while True:
        weights = np.zeros(len(names))
        weights[used] = _newton(rows[:, used], interrupts, shares)
        negative = lengths & used & (weights < 0)
        if not negative.any():
            return {name: round(float(one), 2) for name, one in zip(names, weights, strict=True)}
        used &= ~negative


def _examples(every: Sequence[Recorded]) -> tuple[Matrix, Matrix, Matrix]:
    """Facts, whether it is an interruption, and the weight, of each moment."""
    rows, interrupts, shares = [], [], []
    for one in every:
        learned = [
            moment.overlap
            for moment in one.moments
            if SPAN_MS[0] <= moment.overlap.sound_ms <= SPAN_MS[1]
            and not moment.overlap.complete
            and moment.overlap.level_db > -RULES.far_db
            and (evidence_of(moment.overlap, RULES).others or not moment.overlap.words)
        ]
        for overlap in learned:
            rows.append(list(facts(evidence_of(overlap, RULES)).values()))
            interrupts.append(float(one.interrupts))
            shares.append(1 / len(learned))
    return np.array(rows), np.array(interrupts), np.array(shares)


def _newton(rows: Matrix, wanted: Matrix, shares: Matrix) -> Matrix:
    weights = np.zeros(rows.shape[1])
    ridge = np.full(len(weights), RIDGE)
    for _ in range(50):
        likely = 1 / (1 + np.exp(-rows @ weights))
        slope = rows.T @ (shares * (wanted - likely)) - ridge * weights
        curve = (rows * (shares * likely * (1 - likely))[:, None]).T @ rows + np.diag(ridge)
        step = np.linalg.solve(curve, slope)
        weights += step * min(1.0, 3 / float(np.abs(step).max()))
    return weights


def figures(every: Sequence[Recorded], settings: InterruptionSettings, name: str) -> list[Figure]:
    """What a judge with these settings does."""
    times = [(one, one.stopped_ms(settings)) for one in every]
    stops = [ms for one, ms in times if one.interrupts and ms is not None]
    wanted = sum(one.interrupts for one in every)
    soft = [ms is None for one, ms in times if one.kind == "backchannel"]
    other = [
        ms is not None for one, ms in times if not one.interrupts and one.kind != "backchannel"
    ]
    return [
        Figure(
            measure=f"{name}: yields to an interruption, of {wanted}",
            value=100 * len(stops) / wanted,
            unit="%",
        ),
        Figure(
            measure="… stop, median",
            value=percentile(stops, 50),
            unit="ms",
            detail=spread(stops),
        ),
        Figure(
            measure=f"… backchannel selectivity, of {len(soft)}",
            value=sum(soft) / max(1, len(soft)),
            unit="",
        ),
        Figure(
            measure=f"… false starts, of {len(other)}",
            value=100 * sum(other) / max(1, len(other)),
            unit="%",
        ),
    ]


async def _train(given: argparse.Namespace) -> None:
    every = read(given.file)
    print(f"# of {len(every)} sounds, {len({one.voice for one in every})} voices")
    for name, weight in fitted(every).items():
        print(f'    "{name}": {weight},')


async def _report(given: argparse.Namespace) -> None:
    every = read(given.file)
    show(figures(every, RULES, "rules") + figures(every, InterruptionSettings(), "trained"))


def main() -> None:
    parser = parser_of("overlaps", __doc__)
    actions: Any = parser.add_subparsers(required=True)
    for name, run in (("record", _record), ("train", _train), ("report", _report)):
        action = actions.add_parser(name)
        action.add_argument("file", type=Path)
        action.set_defaults(run=run)
        if name == "record":
            action.add_argument("--report", action="store_true")
            action.add_argument("--voices", nargs="+", default=REPORT_VOICES, help="of --report")
            action.add_argument("--variations", type=int, default=1, help="of training")
    given = parser.parse_args()
    asyncio.run(given.run(given))


if __name__ == "__main__":
    main()
