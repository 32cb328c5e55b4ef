"""From the decision that a turn has ended to the first sound of the answer, scripted engines.

The decision is the arrival of input_audio_buffer.speech_stopped. What the server takes before it
tells of its decision is a figure of its own: from the append that decided it on.
"""

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


async def measure(quick: bool) -> list[Figure]:
    figures = []
    for sessions, hurry, p50, p99 in CASES:
        after_decision, after_append, late = await _case(sessions, hurry, 5 if quick else 14)
        detail = {
            "turn_decision_to_first_delta_ms": spread(after_decision),
            "deciding_append_to_first_delta_ms": spread(after_append),
            "load_late_ms_p99": round(percentile(late, 99) * 1000, 2),
            "times_real_time": hurry,
        }
        people = f"{sessions} session{'s' * (sessions > 1)}"
        name = f"turn decision → first audio delta, {people}"
        for which, target in ((50, p50), (99, p99)):
            value = percentile(after_decision, which)
            figures.append(
                Figure(
                    measure=f"{name}, p{which}",
                    value=value,
                    unit="ms",
                    target=target,
                    detail=detail,
                )
            )
        value = percentile(after_append, 99)
        name = f"append that decides → first audio delta, {people}, p99"
        figures.append(Figure(measure=name, value=value, unit="ms"))
    return figures


async def _case(
    sessions: int, hurry: float, seconds: float
) -> tuple[list[float], list[float], list[float]]:
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
        late = await speak(people, seconds * hurry, FRAME_MS, hurry=hurry)
        for person in people:
            person.line.close()
    return (
        [ms for watch in turns for ms in watch.after_decision],
        [ms for watch in turns for ms in watch.after_append],
        late,
    )


def _patient() -> bytes:
    vad = {"type": "server_vad", "silence_duration_ms": SILENCE_MS}
    audio = {"input": {"turn_detection": vad}}
    return event("session.update", session={"type": "realtime", "audio": audio})


if __name__ == "__main__":
    run(measure)
