"""What a replayed call shows: its timeline, its measures, and how it differs from another."""

import difflib
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from vivavoce.protocol.client import InputAudioAppend
from vivavoce.protocol.server import (
    ErrorEvent,
    OutputAudioDelta,
    ResponseDone,
    SpeechStarted,
    SpeechStopped,
)
from vivavoce.protocol.upstream import UpstreamEvent, read_upstream
from vivavoce.replay.session import ReplayedCall, ReplayedMoment
from vivavoce.session.effects import (
    CancelGeneration,
    Close,
    Effect,
    Generate,
    PlayAudio,
    RequestFallback,
    Send,
    SendRaw,
)
from vivavoce.session.facts import (
    GenerationFailed,
    InvalidFrame,
    ItemTranscriptionFailed,
    Received,
    UpstreamLost,
    VadScores,
)
from vivavoce.telemetry.recording import RecordedFault

BYTES_PER_MS = 48
SPEECH = 0.5
_SHOWN = ("delta", "transcript", "text", "audio_end_ms", "audio_start_ms", "arguments", "name")
_ID = re.compile(r"\b(item|resp|event|call|conv)_[0-9a-z]{4,}")


@dataclass(frozen=True, slots=True)
class TimelineLine:
    """One line of a timeline: seconds from the beginning of the call, and what happened."""

    at: float
    text: str


class CallMeasures(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of a call. Medians are milliseconds; null: there is no such thing in it."""

    turns: int
    """That turn detection ended."""
    responses: int
    interrupted: int
    """Responses that were cancelled."""
    decided_ms: float | None
    """From the last sound of a turn to its end."""
    answered_ms: float | None
    """From the end of a turn to the first audio of the answer."""
    seconds: float


def timeline(call: ReplayedCall) -> list[TimelineLine]:
    """What the client sees, and what the engines are asked for; audio is summed up."""
    lines: list[TimelineLine] = []
    begin, names = call.recording.header.now, dict[str, str]()
    for moment in call.moments:
        for text in _moment_lines(moment):
            at = moment.at - begin
            if lines and (merged := _merged(lines[-1].text, text)):
                lines[-1] = TimelineLine(lines[-1].at, merged)
            else:
                lines.append(TimelineLine(at, text))
    counts: dict[str, int] = {}

    def named(found: re.Match[str]) -> str:
        kind = found[1]
        if found[0] not in names:
            counts[kind] = counts.get(kind, 0) + 1
            names[found[0]] = f"{kind}{counts[kind]}"
        return names[found[0]]

    return [TimelineLine(line.at, _ID.sub(named, line.text)) for line in lines]


def _moment_lines(moment: ReplayedMoment) -> list[str]:
    lines = []
    match moment.fact:
        case Received(event=InputAudioAppend()):
            pass
        case Received(event=event):
            lines.append(f"client {type(event).__struct_config__.tag}")
        case InvalidFrame(problem=problem):
            lines.append(f"client sends an invalid frame: {problem.message}")
        case GenerationFailed(stage=stage, reason=reason):
            lines.append(f"engine {stage} failed: {reason}")
        case ItemTranscriptionFailed(reason=reason):
            lines.append(f"engine stt failed: {reason}")
        case UpstreamLost(reason=reason):
            lines.append(f"upstream lost: {reason}")
    lines += [line for effect in moment.effects if (line := _effect_line(effect))]
    if moment.raised:
        lines.append(f"the session raised {moment.raised}")
    return lines


def _effect_line(effect: Effect) -> str:
    match effect:
        case Send(event=OutputAudioDelta(item_id=item_id, delta=audio)):
            return f"server audio {item_id}: {len(audio)} bytes"
        case PlayAudio(item_id=item_id, audio=audio):
            return f"server audio {item_id}: {len(audio)} bytes"
        case Send(event=ErrorEvent(error=error)):
            return f"server error {error.code}: {error.message}"
        case Send(event=event):
            return _event_line(msgspec.to_builtins(event))
        case SendRaw(data=data):
            return _event_line(msgspec.to_builtins(read_upstream(data)))
        case Generate(response_id=response_id, prompt=prompt):
            return f"model {prompt.model} answers {response_id}"
        case CancelGeneration(response_id=response_id):
            return f"model stops {response_id}"
        case RequestFallback(reason=reason):
            return f"fallback: {reason}"
        case Close(code=code, reason=reason):
            return f"close {code} {reason}"
    return ""


def _event_line(event: dict[str, Any]) -> str:
    kind = event["type"]
    if kind in ("response.output_audio.delta", "response.audio.delta"):
        size = len(str(event.get("delta", ""))) * 3 // 4
        return f"server audio {event.get('item_id')}: {size} bytes"
    response = event.get("response") or {}
    item = event.get("item") or {}
    about = event.get("item_id") or event.get("response_id") or response.get("id")
    parts = [f"server {kind}", str(about or item.get("id") or "")]
    if response.get("status") and kind == "response.done":
        parts.append(response["status"])
    parts += [f"{name}={event[name]}" for name in _SHOWN if event.get(name) not in (None, "")]
    return " ".join(part for part in parts if part)


_AUDIO = re.compile(r"(server audio \S+): (\d+) bytes")
_DELTA = re.compile(r"(server \S+\.delta \S+ delta=)(.*)", re.DOTALL)


def _merged(last: str, new: str) -> str | None:
    """One line for two of the same stream."""
    before, after = _AUDIO.fullmatch(last), _AUDIO.fullmatch(new)
    if before and after and before[1] == after[1]:
        return f"{before[1]}: {int(before[2]) + int(after[2])} bytes"
    before, after = _DELTA.fullmatch(last), _DELTA.fullmatch(new)
    if before and after and before[1] == after[1]:
        return before[0] + after[2]
    return None


def measures(call: ReplayedCall) -> CallMeasures:
    """The figures of a call."""
    turns = responses = interrupted = 0
    decided: list[float] = []
    answered: list[float] = []
    last_sound: float | None = None
    ended: float | None = None
    for moment in call.moments:
        if isinstance(moment.fact, VadScores) and max(moment.fact.speech, default=0.0) >= SPEECH:
            last_sound = moment.at
        for kind, status in map(_kind, moment.effects):
            if kind == "speech_stopped":
                turns, ended = turns + 1, moment.at
                if last_sound is not None:
                    decided.append((moment.at - last_sound) * 1000)
            elif kind == "speech_started":
                ended = None
            elif kind == "audio" and ended is not None:
                answered.append((moment.at - ended) * 1000)
                ended = None
            elif kind == "done":
                responses += 1
                interrupted += status == "cancelled"
    end = call.moments[-1].at if call.moments else call.recording.header.now
    return CallMeasures(
        turns=turns,
        responses=responses,
        interrupted=interrupted,
        decided_ms=round(statistics.median(decided), 1) if decided else None,
        answered_ms=round(statistics.median(answered), 1) if answered else None,
        seconds=round(end - call.recording.header.now, 3),
    )


def _kind(effect: Effect) -> tuple[str, str]:
    match effect:
        case PlayAudio() | Send(event=OutputAudioDelta()):
            return "audio", ""
        case Send(event=SpeechStopped()):
            return "speech_stopped", ""
        case Send(event=SpeechStarted()):
            return "speech_started", ""
        case Send(event=ResponseDone(response=response)):
            return "done", response.status
        case SendRaw(data=data):
            return _upstream_kind(read_upstream(data))
    return "", ""


def _upstream_kind(event: UpstreamEvent) -> tuple[str, str]:
    match event.type:
        case "response.output_audio.delta":
            return "audio", ""
        case "input_audio_buffer.speech_stopped":
            return "speech_stopped", ""
        case "input_audio_buffer.speech_started":
            return "speech_started", ""
        case "response.done":
            return "done", event.response.status if event.response else ""
    return "", ""


def differences(old: Sequence[TimelineLine], new: Sequence[TimelineLine]) -> list[str]:
    """Lines that only one of two timelines has: "-" of the old one, "+" of the new one.

    Times are shown, and not compared.
    """
    matcher = difflib.SequenceMatcher(
        None, [line.text for line in old], [line.text for line in new], autojunk=False
    )
    found = []
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        if tag != "equal":
            found += [f"- {line.at:9.3f} s  {line.text}" for line in old[i1:i2]]
            found += [f"+ {line.at:9.3f} s  {line.text}" for line in new[j1:j2]]
    return found


def fault_text(fault: RecordedFault, begin: float) -> str:
    """One line for a fault."""
    return f"{fault.kind} at {fault.at - begin:.3f} s: {fault.detail}"
