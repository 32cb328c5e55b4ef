"""From the moment a user begins to speak to the last sound of the answer that this interrupts.

The answer is still being made, as fast as it is heard; Silero judges real speech.
"""

import asyncio

import msgspec

from bench.figures import Figure, percentile, spread
from bench.microphones import Microphone, speak
from bench.report import run
from bench.served import SCRIPTED, served
from bench.sound import FRAME_MS, Recording, recordings, silence
from bench.wire import appends, connect, event

TARGET_MS = 120.0
PHASES_MS = range(0, 32, 4)  # where in a window of the judge speech begins
LEAD_SECONDS = 0.8
PREFIX_MS = 300  # the default of prefix_padding_ms
DECIDES_MS = 64  # two windows in a row are an onset
CONFIG = (
    SCRIPTED
    + """
[engines.llm.scripted]
answers = ["This is a long answer, and it is still being made while somebody interrupts it."]

[engines.tts.scripted]
realtime_factor = 1.0
chunk_ms = 20
"""
)


async def measure(quick: bool) -> list[Figure]:
    spoken = await recordings()
    last: dict[str, list[float]] = {}
    told: dict[str, list[float]] = {}
    inside: list[float] = []
    async with served(CONFIG) as server:
        for recording in spoken[:3] if quick else spoken:
            tries = [_interrupt(server.port, recording, phase) for phase in PHASES_MS]
            for delta, started, after in await asyncio.gather(*tries):
                last.setdefault(recording.name, []).append(delta)
                told.setdefault(recording.name, []).append(started)
                inside.append(after)
    every = [ms for each in last.values() for ms in each]
    detail = {
        "onset_to_last_delta_ms": {name: spread(ms) for name, ms in last.items()},
        "onset_to_speech_started_ms": {name: spread(ms) for name, ms in told.items()},
    }
    name = "speech onset → last audio delta of the interrupted answer"
    starts = [ms for each in told.values() for ms in each]
    return [
        Figure(
            measure=f"{name}, median of {len(every)}",
            value=percentile(every, 50),
            unit="ms",
            target=TARGET_MS,
            detail=detail,
        ),
        Figure(measure=f"{name}, slowest", value=max(every), unit="ms", target=TARGET_MS),
        Figure(
            measure="speech onset → speech_started, median", value=percentile(starts, 50), unit="ms"
        ),
        Figure(
            measure="append that decides → end of the interrupted answer, slowest",
            value=max(inside),
            unit="ms",
        ),
    ]


async def _interrupt(port: int, recording: Recording, phase_ms: int) -> tuple[float, float, float]:
    """Milliseconds from the onset to the last delta and to speech_started.

    And from the append that decided to the end of the answer.
    """
    deltas: list[float] = []
    onset = int(recording.begins * 24_000) * 2

    def heard(kind: bytes, _payload: bytes, at: float) -> None:
        if kind == b"response.output_audio.delta":
            deltas.append(at)

    line = await connect(port, heard)
    begun = line.coming("response.output_audio.delta")
    line.write(event("response.create"))
    async with asyncio.timeout(5):
        await begun
    lead = LEAD_SECONDS + phase_ms / 1000
    # quiet, then the recording from its first loud frame on
    frames = appends(silence(lead) + recording.pcm[onset:] + silence(1.0), FRAME_MS)
    microphone = Microphone(line, frames)
    started = line.coming("input_audio_buffer.speech_started")
    done = line.coming("response.done")
    await speak([microphone], lead + 1.0, FRAME_MS)
    async with asyncio.timeout(5):
        beginning, told = await started
        _, ended = await done
    line.close()
    begins = microphone.sent[0] + lead - FRAME_MS / 1000
    last = max(at for at in deltas if at <= ended)
    heard_ms = msgspec.json.decode(beginning)["audio_start_ms"] + PREFIX_MS + DECIDES_MS
    decided = microphone.heard_at(heard_ms, FRAME_MS)
    return (last - begins) * 1000, (told - begins) * 1000, (ended - decided) * 1000


if __name__ == "__main__":
    run(measure)
