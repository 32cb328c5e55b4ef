"""How soon the beginning of speech is found, and what else is taken for speech.

    python -m bench.onsets [VOICE …]     voices such as "kokoro af_heart"

Silero and the detector of turns, in the time of the audio: the load of the machine changes nothing.
Each sound comes after two seconds of a quiet room. Speech begins with the first 20 ms within 30 dB
of the loudest (recordings: 20 dB), at eight places in a window of 32 ms and at two levels.
"""

import argparse
import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray

from bench.dialogues import (
    LONG_INTERRUPTIONS,
    NOISES,
    SENTENCES,
    SHORT_INTERRUPTIONS,
    TALKERS,
    VOICE,
    Sound,
    at_level,
    filtered,
    pcm16,
    speaking,
)
from bench.figures import Figure, percentile, spread
from bench.report import parser_of, show
from bench.sound import recordings
from vivavoce.audio.formats import RATE, to_ms
from vivavoce.audio.windows import WindowResampler
from vivavoce.engines.silero.vad import SileroSettings, SileroVAD
from vivavoce.protocol.session import ServerVad
from vivavoce.session.cascade.turn_detection import (
    RISE_WINDOWS,
    WINDOW,
    Edge,
    TurnDetector,
    hisses,
    rise_db,
)

TEXTS = (
    *SENTENCES,
    *LONG_INTERRUPTIONS,
    *SHORT_INTERRUPTIONS,
    *("Yes, please.", "Have you seen it?", "Five o'clock.", "Where is it?", "Hello there."),
    *("Maybe later.", "She sells shoes.", "Thank you very much."),
)
LEAD = 2 * RATE
PLACES = 8
LEVELS = (1.0, 0.35)
ECHOES_DB = (-20, -26)
"""Another voice, or the echo of an answer, below a voice at ordinary distance."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A sound in a quiet room. kind: "speech", or a sound that should begin no turn."""

    kind: str
    half: int
    pcm: bytes
    onset: int
    """The sample at which speech begins."""
    scores: list[float] = field(default_factory=list)
    """Of each window of 32 ms: the probability of speech."""

    def begun(self, *, hissing: bool) -> int | None:
        """The sample at which a turn begins. hissing: whether a hiss before it counts."""
        detector = TurnDetector(ServerVad())
        for n, speech in enumerate(self.scores):
            at = n * WINDOW
            first = max(0, at - RISE_WINDOWS * WINDOW)
            rise = rise_db(self.pcm[2 * first : 2 * (at + WINDOW)])
            hissed = hissing and hisses(self.pcm[2 * first : 2 * at])
            if detector.feed(at, speech, rise, hissed=hissed) is Edge.STARTED:
                return at + WINDOW
        return None


async def pieces(voices: Sequence[str]) -> AsyncIterator[Piece]:
    """Speech and other sounds; of each kind one half of the texts or numbers is half 0."""
    for n, one in enumerate(await recordings()):
        sound = np.frombuffer(one.pcm, "<i2") / 32768
        for place in range(PLACES):
            yield _piece("speech", n, sound, place, int(one.begins * RATE))
    async with speaking(voices) as say:
        for voice in voices:
            for n, text in enumerate(TEXTS):
                sound = await say(text, voice)
                for level in LEVELS:
                    for place in range(PLACES):
                        yield _piece("speech", n, level * sound, place, _begins(sound))
                if n % 2:
                    echo = 10 ** (ECHOES_DB[n // 2 % 2] / 20) * sound
                    yield _piece("another voice, an echo", n // 2, echo, n % PLACES)
    for kind, n, sound in _noises(np.random.default_rng(5)):
        yield _piece(kind, n, sound, n % PLACES)


def _noises(random: np.random.Generator) -> Iterator[tuple[str, int, Sound]]:
    for n in range(30):
        for name, make in NOISES.items():
            yield name, n, random.uniform(0.5, 1.5) * make(random)
    at = np.arange(2 * RATE) / RATE
    for n in range(20):
        noise = random.normal(0, 1, 2 * RATE)
        low, high = random.uniform(100, 2500), random.uniform(3000, 11_000)
        loud = VOICE * random.uniform(0.1, 1)
        waves = [np.sin(2 * np.pi * random.uniform(50, 300) * k * at) / k for k in range(1, 6)]
        yield "hum", n, at_level(np.sum(waves, axis=0), loud)
        slam = filtered(noise, 40, 1000) * np.exp(-at / random.uniform(0.02, 0.08))
        yield "slam", n, slam[: RATE // 2] * random.uniform(0.1, 0.5)
        yield (
            "noise begins",
            n,
            at_level(filtered(noise, 50, high), VOICE * random.uniform(0.05, 0.5)),
        )
        swell = np.abs(filtered(random.normal(0, 1, 2 * RATE), 0.5, 10))
        yield "rustle", n, at_level(filtered(noise, low, 11_000) * swell, loud)
        sniff = filtered(noise, low, high)[: int(random.uniform(0.15, 0.5) * RATE)]
        yield "sniff", n, at_level(sniff * np.sin(np.linspace(0, np.pi, len(sniff))), loud)
        hiss = at_level(filtered(noise, low, 11_000)[: int(0.3 * RATE)], loud)
        yield "hiss, then a slam", n, np.concatenate((hiss, slam[: RATE // 2]))
        cymbal = filtered(noise, 5000, 11_900)[: RATE // 8] * np.exp(-at[: RATE // 8] / 0.04)
        music = NOISES["music"](random)
        yield "cymbal, then music", n, np.concatenate((at_level(cymbal, loud), music))


def _piece(kind: str, number: int, sound: Sound, place: int, begins: int = 0) -> Piece:
    start = LEAD + place * WINDOW // PLACES
    heard = sound[: begins + 2 * RATE]
    pcm = pcm16(np.concatenate((np.zeros(start), heard)), seed=number)
    return Piece(kind, number % 2, pcm, start + begins)


def _begins(sound: Sound) -> int:
    frame = RATE // 50
    frames = sound[: len(sound) // frame * frame].reshape(-1, frame)
    levels = np.sqrt(np.square(frames).mean(axis=1))
    return int(np.argmax(levels > levels.max() * 10 ** (-30 / 20))) * frame


def score(every: Sequence[Piece], vad: SileroVAD) -> None:
    """Fill in the scores."""
    convert = WindowResampler(RATE, vad.sample_rate, WINDOW)
    for start in range(0, len(every), vad.max_batch):
        batch = every[start : start + vad.max_batch]
        streams = np.array([vad.open() for _ in batch])
        windows = max(len(one.pcm) for one in batch) // 2 // WINDOW
        sound = np.zeros((len(batch), convert.history + windows * WINDOW), np.int16)
        for row, one in zip(sound, batch, strict=True):
            heard = np.frombuffer(one.pcm, "<i2")[: windows * WINDOW]
            row[convert.history : convert.history + len(heard)] = heard
        for at in range(0, windows * WINDOW, WINDOW):
            seen: NDArray[np.int16] = sound[:, at : at + convert.history + WINDOW].copy()
            for one, speech in zip(batch, vad.score(convert(seen), streams).tolist(), strict=True):
                if at + WINDOW <= len(one.pcm) // 2:
                    one.scores.append(speech)
        for stream in streams.tolist():
            vad.close(stream)


def figures(every: Sequence[Piece], *, hissing: bool) -> Iterator[Figure]:
    """Of all of these pieces."""
    speech = [one for one in every if one.kind == "speech"]
    found = [(one, one.begun(hissing=hissing)) for one in speech]
    late = [float("inf") if at is None else float(to_ms(at - one.onset)) for one, at in found]
    name = "with a hiss before it" if hissing else "by the scores and the rise of the level"
    yield Figure(
        measure=f"beginning of speech, {name}: median of {len(late)}",
        value=percentile(late, 50),
        unit="ms",
        target=80,
        detail=spread(late),
    )
    yield Figure(measure="… 95 %", value=percentile(late, 95), unit="ms", target=130)
    share = sum(ms > 130 for ms in late) / len(late)
    yield Figure(measure="… later than 130 ms", value=100 * share, unit="%")
    for kind in sorted({one.kind for one in every} - {"speech"}):
        begun = [one.begun(hissing=hissing) for one in every if one.kind == kind]
        value = sum(at is not None for at in begun)
        yield Figure(measure=f"… false starts, {kind}, of {len(begun)}", value=value, unit="")


async def measure(voices: Sequence[str]) -> list[Figure]:
    every = [one async for one in pieces(voices)]
    async with SileroVAD(SileroSettings()) as vad:
        score(every, vad)
    found = []
    for half in (0, 1):
        for hissing in (False, True):
            of_half = [one for one in every if one.half == half]
            for figure in figures(of_half, hissing=hissing):
                figure.measure = f"half {half}: {figure.measure}"
                found.append(figure)
    return found


def main() -> None:
    parser: argparse.ArgumentParser = parser_of("onsets", __doc__)
    parser.add_argument("voices", nargs="*", default=TALKERS)
    show(asyncio.run(measure(parser.parse_args().voices)))


if __name__ == "__main__":
    main()
