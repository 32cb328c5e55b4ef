"""From the decision that a turn has ended to the first sound of the answer, scripted engines.

The decision is the arrival of input_audio_buffer.speech_stopped. What the server takes before it
tells of its decision is a figure of its own: from the append that decided it on.
"""

from dataclasses import dataclass

import msgspec

from bench.figures import Figure, percentile, spread
from bench.microphones import Microphone, speak
from bench.report import run
from bench.served import served
from bench.sound import silence, tone
from bench.wire import appends, connect, event

FRAME_MS = 40
SILENCE_MS = 200
# (sessions, how much faster than real time, targets of p50 and p99 in milliseconds)
CASES = ((1, 6.0, 3.0, 10.0), (10, 4.0, None, None), (100, 1.0, None, 25.0))
QUIET = 0.002  # share of the time that others may be on the server's core without a second try
TRIES = 2
CONFIG = """
[models.default]
vad = "scripted"
turn = "scripted"
stt = "scripted"
llm = "scripted"
tts = "scripted"

[engines.llm.scripted]
answers = ["Here it comes."]

[engines.tts.scripted]
ms_per_character = 40
realtime_factor = REALTIME
"""


class _Turns:
    """Times of the turns of one session."""

    def __init__(self) -> None:
        self.after_decision: list[float] = []
        self.after_append: list[float] = []
        self.microphone: Microphone | None = None
        self._stopped: float | None = None
        self._decided = 0.0

    def heard(self, kind: bytes, payload: bytes, at: float) -> None:
        if kind == b"input_audio_buffer.speech_stopped" and self.microphone:
            self._stopped = at
            ms = msgspec.json.decode(payload)["audio_end_ms"]
            self._decided = self.microphone.heard_at(ms, FRAME_MS)
        elif kind == b"response.output_audio.delta" and self._stopped is not None:
            self.after_decision.append((at - self._stopped) * 1000)
            self.after_append.append((at - self._decided) * 1000)
            self._stopped = None


@dataclass(frozen=True, slots=True)
class Case:
    """What came of one number of sessions. Milliseconds."""

    after_decision: list[float]
    after_append: list[float]
    late: list[float]
    kept_waiting: float
    """Share of the time in which others were on the server's core."""


async def measure(quick: bool) -> list[Figure]:
    figures = []
    for sessions, hurry, p50, p99 in CASES:
        case = await _least_disturbed(sessions, hurry, 5 if quick else 14)
        detail = {
            "turn_decision_to_first_delta_ms": spread(case.after_decision),
            "deciding_append_to_first_delta_ms": spread(case.after_append),
            "load_late_ms_p99": round(percentile(case.late, 99), 2),
            "kept_waiting": case.kept_waiting,
            "times_real_time": hurry,
        }
        people = f"{sessions} session{'s' * (sessions > 1)}"
        name = f"turn decision → first audio delta, {people}"
        for which, target in ((50, p50), (99, p99)):
            value = percentile(case.after_decision, which)
            figures.append(
                Figure(
                    measure=f"{name}, p{which}",
                    value=value,
                    unit="ms",
                    target=target,
                    detail=detail,
                )
            )
        value = percentile(case.after_append, 99)
        name = f"append that decides → first audio delta, {people}, p99"
        figures.append(Figure(measure=name, value=value, unit="ms"))
    return figures


async def _least_disturbed(sessions: int, hurry: float, seconds: float) -> Case:
    """Of some tries the one in which others were least in the way, however it came out."""
    cases = [await _case(sessions, hurry, seconds)]
    while cases[-1].kept_waiting > QUIET and len(cases) < TRIES:
        cases.append(await _case(sessions, hurry, seconds))
    return min(cases, key=lambda case: case.kept_waiting)


async def _case(sessions: int, hurry: float, seconds: float) -> Case:
    # said, then quiet for as long as the answer lasts and longer
    frames = appends(tone(0.3) + silence(0.9), FRAME_MS)
    async with served(CONFIG.replace("REALTIME", str(1 / hurry))) as server:
        turns, people = [], []
        for _ in range(sessions):
            watch = _Turns()
            line = await connect(server.port, watch.heard)
            line.write(_patient())
            people.append(Microphone(line, frames))
            watch.microphone = people[-1]
            turns.append(watch)
        waited = server.kept_waiting_seconds
        late = await speak(people, seconds * hurry, FRAME_MS, hurry=hurry)
        kept_waiting = (server.kept_waiting_seconds - waited) / seconds
        for person in people:
            person.line.close()
    return Case(
        [ms for watch in turns for ms in watch.after_decision],
        [ms for watch in turns for ms in watch.after_append],
        [seconds * 1000 for seconds in late],
        kept_waiting,
    )


def _patient() -> bytes:
    vad = {"type": "server_vad", "silence_duration_ms": SILENCE_MS}
    audio = {"input": {"turn_detection": vad}}
    return event("session.update", session={"type": "realtime", "audio": audio})


if __name__ == "__main__":
    run(measure)
