"""From the end of real speech to the first sound of the answer, with the embedded engines.

One session by itself and ten at once, with the default settings and with all of an answer's
beginning anticipated (`[turns] anticipation = "speech"`). The server and the processes of its
engines have all cores, as with a user; the load is small.

Speech ends with the last loud 20 ms of the recording, at the time at which a live microphone hears
them; the append that holds them is sent when its own last sample has been heard.
"""

import asyncio
from typing import NamedTuple

import msgspec

from bench.figures import Figure, percentile, spread
from bench.microphones import Microphone, speak
from bench.report import run
from bench.served import EMBEDDED, USABLE, served
from bench.sound import FRAME_MS, Recording, recordings, silence
from bench.wire import appends, connect

SILENCE_MS = 500  # the default of silence_duration_ms, which this leaves alone
TARGETS_MS = {1: (SILENCE_MS + 100.0, SILENCE_MS + 200.0), 10: (None, SILENCE_MS + 400.0)}
"""Of the median and the p95, by sessions."""
STAGGER_S = 0.37  # between the beginnings of sessions that speak at once
MAX_RECORDING_S = 4.0  # of a recording: the longer ones pause for longer than a turn lasts
REST_SECONDS = 2.0


class Turn(NamedTuple):
    """Milliseconds from the end of speech."""

    recording: str
    stopped_ms: float
    """To the decision."""
    answered_ms: float
    """To the first sound of the answer."""
    inside_ms: float
    """To that from the append that decides."""


async def measure(quick: bool) -> list[Figure]:
    short = [one for one in await recordings() if one.seconds <= MAX_RECORDING_S]
    rounds = 1 if quick else 3
    figures: list[Figure] = []
    for anticipation in ("transcript", "speech"):
        config = f'{EMBEDDED}\n[turns]\nanticipation = "{anticipation}"\n'
        async with served(config, frozenset(USABLE)) as server:  # as a user runs it
            for sessions in TARGETS_MS:
                turns: list[Turn] = []
                for recording in short * rounds:
                    turns += await _turns(server.port, recording, sessions)
                figures += _figures(anticipation, sessions, turns)
    return figures


def _figures(anticipation: str, sessions: int, turns: list[Turn]) -> list[Figure]:
    every = [each.answered_ms for each in turns]
    names = sorted({each.recording for each in turns})
    detail = {
        "silence_duration_ms": SILENCE_MS,
        "turns": len(turns),
        "end_of_speech_to_first_delta_ms": {
            name: spread([each.answered_ms for each in turns if each.recording == name])
            for name in names
        },
        "end_of_speech_to_speech_stopped_ms": {
            name: spread([each.stopped_ms for each in turns if each.recording == name])
            for name in names
        },
    }
    how = f"anticipation {anticipation}, {sessions} session{'s' if sessions > 1 else ''}"
    name = f"end of speech → first audio delta, embedded engines, {how}"
    median, p95 = TARGETS_MS[sessions]
    inside = percentile([each.inside_ms for each in turns], 50)
    return [
        Figure(
            measure=f"{name}, p50",
            value=percentile(every, 50),
            unit="ms",
            target=median,
            detail=detail,
        ),
        Figure(measure=f"{name}, p95", value=percentile(every, 95), unit="ms", target=p95),
        Figure(
            measure=f"append that decides → first audio delta, {how}, p50",
            value=inside,
            unit="ms",
        ),
    ]


async def _turns(port: int, recording: Recording, sessions: int) -> list[Turn]:
    """One turn of each session, begun one after the other."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_turn(port, recording, i * STAGGER_S)) for i in range(sessions)]
    return [each.result() for each in tasks]


async def _turn(port: int, recording: Recording, delay_s: float) -> Turn:
    await asyncio.sleep(delay_s)
    told: dict[bytes, tuple[bytes, float]] = {}

    def heard(kind: bytes, payload: bytes, at: float) -> None:
        if kind == b"input_audio_buffer.speech_started":
            told.clear()  # a pause inside the recording was taken for its end
        told.setdefault(kind, (payload, at))

    line = await connect(port, heard)
    frames = appends(recording.pcm + silence(REST_SECONDS), FRAME_MS)
    microphone = Microphone(line, frames)
    first = line.coming("response.output_audio.delta")
    await speak([microphone], len(frames) * FRAME_MS / 1000, FRAME_MS)
    async with asyncio.timeout(5):
        await first
    line.close()
    ends = microphone.sent[0] + recording.ends - FRAME_MS / 1000
    decision, stopped = told[b"input_audio_buffer.speech_stopped"]
    _, answered = told[b"response.output_audio.delta"]
    decided = microphone.heard_at(msgspec.json.decode(decision)["audio_end_ms"], FRAME_MS)
    return Turn(
        recording.name,
        stopped_ms=(stopped - ends) * 1000,
        answered_ms=(answered - ends) * 1000,
        inside_ms=(answered - decided) * 1000,
    )


if __name__ == "__main__":
    run(measure)
