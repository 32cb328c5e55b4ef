"""From the end of real speech to the first sound of the answer, with the embedded engines.

Speech ends with the last loud 20 ms of the recording, at the time at which a live microphone hears
them; the append that holds them is sent when its own last sample has been heard.
"""

import asyncio

import msgspec

from bench.figures import Figure, percentile, spread
from bench.microphones import Microphone, speak
from bench.report import run
from bench.served import served
from bench.sound import FRAME_MS, Recording, recordings, silence
from bench.wire import appends, connect

SILENCE_MS = 500  # the default of silence_duration_ms, which this leaves alone
TARGET_MS = SILENCE_MS + 150.0
MAX_RECORDING_S = 4.0  # of a recording: the longer ones pause for longer than a turn lasts
REST_SECONDS = 2.0


async def measure(quick: bool) -> list[Figure]:
    short = [one for one in await recordings() if one.seconds <= MAX_RECORDING_S]
    turns: dict[str, list[float]] = {}
    decided: dict[str, list[float]] = {}
    inside: list[float] = []
    async with served() as server:
        for _ in range(1 if quick else 3):
            for recording in short:
                stopped, answered, served_in = await _turn(server.port, recording)
                decided.setdefault(recording.name, []).append(stopped)
                turns.setdefault(recording.name, []).append(answered)
                inside.append(served_in)
    every = [ms for each in turns.values() for ms in each]
    detail = {
        "silence_duration_ms": SILENCE_MS,
        "end_of_speech_to_first_delta_ms": {name: spread(ms) for name, ms in turns.items()},
        "end_of_speech_to_speech_stopped_ms": {name: spread(ms) for name, ms in decided.items()},
    }
    name = "end of speech → first audio delta, embedded engines"
    return [
        Figure(
            measure=f"{name}, median of {len(every)} turns",
            value=percentile(every, 50),
            unit="ms",
            target=TARGET_MS,
            detail=detail,
        ),
        Figure(measure=f"{name}, slowest", value=max(every), unit="ms", target=TARGET_MS),
        Figure(
            measure="append that decides → first audio delta, embedded engines, median",
            value=percentile(inside, 50),
            unit="ms",
        ),
    ]


async def _turn(port: int, recording: Recording) -> tuple[float, float, float]:
    """Milliseconds to the decision and to the first sound, and to that from the deciding append."""
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
    return (stopped - ends) * 1000, (answered - ends) * 1000, (answered - decided) * 1000


if __name__ == "__main__":
    run(measure)
