"""`vivavoce replay`: runs a recorded call again, compares it, and makes a test of it."""

import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from cyclopts import Parameter
from msgspec.structs import fields
from rich.console import Console
from rich.markup import escape

from vivavoce.errors import RecordingError, SettingsError
from vivavoce.replay import replayed
from vivavoce.replay.regression import write_test
from vivavoce.replay.report import (
    CallMeasures,
    TimelineLine,
    differences,
    fault_text,
    measures,
    timeline,
)
from vivavoce.replay.session import Mismatch, ReplayedCall
from vivavoce.replay.simulation import ReplayChanges
from vivavoce.session.endpointing import TurnSettings
from vivavoce.session.interruption import InterruptionSettings
from vivavoce.session.limits import SessionLimits
from vivavoce.settings import SessionSettings
from vivavoce.standard_streams import print_error
from vivavoce.telemetry.recording import read_recording

ReportForm: TypeAlias = Literal["text", "json"]
OTHER_TIMEOUT_S = 120.0
MAX_SHOWN = 60
_DETECTION: dict[str, Callable[[Any], tuple[str, Any]]] = {
    "silence_duration_ms": lambda value: ("silence_duration_ms", value),
    "prefix_padding_ms": lambda value: ("prefix_padding_ms", value),
    "vad_threshold": lambda value: ("threshold", value),
    "allow_interruptions": lambda value: ("interrupt_response", value),
    "idle_prompt_ms": lambda value: ("idle_timeout_ms", value or None),
}
"""Settings of [session] that are settings of server_vad on the wire."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ReplayOptions:
    """How to replay, and what to make of it."""

    diff: Path | None = None
    """Another recording, or the source folder of another version of vivavoce: show what differs."""
    settings: Path | None = None
    """A settings file; its [session], [turns] and [interruption] replace those of the call."""
    to_test: Annotated[Path | None, Parameter(name="--to-test")] = None
    """Write a pytest file that fails while the call goes wrong, and the recording beside it."""
    timeline: Annotated[bool, Parameter(negative="")] = False
    """Print all events of the call, with their times."""
    form: ReportForm = "text"
    """text, or json with the timeline."""


class ReplayReport(msgspec.Struct, frozen=True, kw_only=True):
    """What is printed with --form json."""

    call: str
    same: bool
    """Whether the effects are those of the recording, and of --diff."""
    simulated: bool
    milliseconds: float
    measures: CallMeasures
    faults: list[str]
    recorded_faults: list[str]
    mismatch: str = ""
    """The first fact whose effects are other ones than in the recording."""
    differences: list[str] = []
    timeline: list[tuple[float, str]] = []


def replay_call(path: Path, options: ReplayOptions, out: Console, err: Console) -> int:
    """Print the report. 0: the same effects; 1: other ones; 2: the call cannot be replayed."""
    try:
        recording = read_recording(path)
        began = time.perf_counter()
        call = replayed(recording)
        took_ms = (time.perf_counter() - began) * 1000
        lines = timeline(call)
        shown, changed = call, list[str]()
        if options.settings is not None:
            shown = replayed(recording, read_changes(options.settings))
            changed = differences(lines, timeline(shown))
        elif options.diff is not None:
            changed = differences(other_timeline(path, options.diff), lines)
        if options.to_test is not None:
            written = write_test(recording, call, options.to_test)
            err.print(f"written: {', '.join(map(str, written))}", highlight=False, soft_wrap=True)
    except (RecordingError, SettingsError) as exc:
        print_error(err, exc)
        return 2
    report = _report(shown, changed, took_ms, call.mismatch)
    if options.form == "json":
        out.file.write(msgspec.json.format(msgspec.json.encode(report), indent=2).decode() + "\n")
    else:
        _print(report, out, timeline(shown) if options.timeline else [], measures(call))
    return 0 if report.same else 1


def _report(
    call: ReplayedCall, changed: list[str], took_ms: float, mismatch: Mismatch | None
) -> ReplayReport:
    header = call.recording.header
    return ReplayReport(
        call=header.id,
        same=mismatch is None and not changed,
        simulated=call.simulated,
        milliseconds=round(took_ms, 1),
        measures=measures(call),
        faults=[fault_text(fault, header.now) for fault in call.faults],
        recorded_faults=[fault_text(fault, header.now) for fault in call.recording.faults],
        mismatch=_mismatch_text(mismatch, header.now) if mismatch else "",
        differences=changed,
        timeline=[(round(line.at, 6), line.text) for line in timeline(call)],
    )


def _mismatch_text(mismatch: Mismatch, begin: float) -> str:
    old = [str(effect) for effect in mismatch.recorded]
    new = [str(effect) for effect in mismatch.replayed]
    first = next((n for n, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), None)
    first = min(len(old), len(new)) if first is None else first
    recorded = old[first][:300] if first < len(old) else "nothing"
    now = new[first][:300] if first < len(new) else "nothing"
    at = mismatch.at - begin
    return f"{mismatch.fact} at {at:.3f} s: recorded {recorded}; now {now}"


def _print(
    report: ReplayReport, out: Console, lines: list[TimelineLine], before: CallMeasures
) -> None:
    def say(text: str) -> None:
        out.print(escape(text), highlight=False, soft_wrap=True)

    for line in lines:
        say(f"{line.at:9.3f} s  {line.text}")
    figures = msgspec.to_builtins(report.measures)
    say(f"{report.call}: {report.measures.seconds:.1f} s in {report.milliseconds:.0f} ms")
    for name, value in figures.items():
        old = getattr(before, name)
        change = "" if old == value else f"  (was {'none' if old is None else old})"
        say(f"  {name:<12}{'none' if value is None else value}{change}")
    for fault in report.recorded_faults:
        say(f"recorded fault: {fault}")
    for fault in report.faults:
        say(f"fault now: {fault}")
    if report.mismatch:
        say(f"first difference to the recording: {report.mismatch}")
        say("the rest is simulated: see docs/recorder.md")
    for text in report.differences[:MAX_SHOWN]:
        say(text)
    if len(report.differences) > MAX_SHOWN:
        say(f"… and {len(report.differences) - MAX_SHOWN} more lines; --form json has all")
    say("the same effects" if report.same else "other effects")


def read_changes(path: Path) -> ReplayChanges:
    """The settings of a file that a replay can change. Raises SettingsError."""
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise SettingsError(f"the settings file {path} cannot be read: {exc}") from exc
    kinds: dict[str, Any] = {
        "session": SessionSettings,
        "turns": TurnSettings,
        "interruption": InterruptionSettings,
    }
    for table, kind in kinds.items():
        try:
            msgspec.convert(tree.get(table, {}), kind)
        except msgspec.ValidationError as exc:
            raise SettingsError(f"{path}: [{table}] {exc}") from exc
    session = tree.get("session", {})
    known = {one.name for one in fields(SessionLimits)}
    changes = ReplayChanges(
        limits={name: value for name, value in session.items() if name in known},
        turns=tree.get("turns", {}),
        interruption=tree.get("interruption", {}),
        detection=dict(make(session[name]) for name, make in _DETECTION.items() if name in session),
    )
    if not changes.any:
        raise SettingsError(
            f"{path} changes nothing of a call: a replay takes the limits and the turn detection "
            f"of [session], [turns] and [interruption]"
        )
    return changes


def other_timeline(path: Path, other: Path) -> list[TimelineLine]:
    """The timeline of another recording; or of this one, run by another version of the package.

    Raises RecordingError and SettingsError.
    """
    if other.is_file():
        return timeline(replayed(read_recording(other)))
    folder = next(
        (one for one in (other, other / "src") if (one / "vivavoce" / "replay").is_dir()), None
    )
    if folder is None:
        raise SettingsError(f"--diff {other}: no recording, and no folder with a vivavoce to run")
    command = (sys.executable, "-m", "vivavoce", "replay", str(path.resolve()), "--form", "json")
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": str(folder.resolve())},
        capture_output=True,
        timeout=OTHER_TIMEOUT_S,
        check=False,
    )
    if done.returncode > 1:
        raise RecordingError(f"--diff {other}: {done.stderr.decode(errors='replace').strip()}")
    report = msgspec.json.decode(done.stdout)
    return [TimelineLine(at, text) for at, text in report["timeline"]]
