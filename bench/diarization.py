"""Who speaks when: how much speech is given to the wrong speaker, in mixtures of voices.

The voices are the recordings beside the project, hibari, and five of Kokoro where its weights are
installed. A mixture is eight turns of so many speakers, at three loudnesses, with pauses of 0.1 to
1.2 s between them. Wrong is speech, of what is found, whose speaker is not the one that fits best.
"""

import os
import random
import time
from collections import defaultdict
from io import BytesIO
from itertools import permutations

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from bench.figures import Figure
from bench.report import run
from bench.sound import SPEECH, silence
from vivavoce.audio.formats import RATE
from vivavoce.audio.resample import resample
from vivavoce.engines import registry
from vivavoce.engines.base import TTS, SpeakerModel
from vivavoce.engines.packs import problem_of
from vivavoce.engines.silero.vad import SileroSettings, SileroVAD
from vivavoce.media import files
from vivavoce.media.decoding import Raw, SoundFile
from vivavoce.runtime.diarization import SpeakerTurn, diarize
from vivavoce.runtime.vad_batcher import VadBatcher

SENTENCES = (
    "The weather report says that it will rain until the evening.",
    "I would rather take the early train and be there before lunch.",
    "Could you send me the numbers for the last three months, please?",
)
KOKORO = ("af_heart", "am_michael", "bf_emma", "bm_george", "am_puck")
RECORDED = {
    "kennedy": ("jfk",),
    "reader": ("austen_0870", "austen_0880"),
    "cards": ("three_cards", "ten_of_clubs"),
    "robot": ("go_forward_ten_meters",),
}
LEVELS = (800, 2_500, 8_000)
PAUSES = (0.1, 0.3, 0.6, 1.2)
TURNS = 8
MIXTURES = 6
FRAME = RATE // 100

Voices = dict[str, list[bytes]]
Reference = list[tuple[int, int, str]]
"""Samples from and to, and who speaks."""


async def measure(quick: bool) -> list[Figure]:
    voices = await _voices()
    speaker: SpeakerModel
    figures, seconds, heard = [], 0.0, 0.0
    async with (
        SileroVAD(SileroSettings()) as vad,
        registry.create("speaker", "resemblyzer", {}) as speaker,
    ):
        batcher = VadBatcher(vad)
        for count in (1, 2, 3, 4):
            errors = speech = exact = 0
            mixtures = 2 if quick else MIXTURES
            for seed in range(mixtures):
                pcm, reference = _mixture(voices, count, 10 * seed + count)
                began = time.perf_counter()
                turns = await diarize(SoundFile(BytesIO(pcm), raw=Raw()), batcher, speaker)
                seconds += time.perf_counter() - began
                heard += len(pcm) / 2 / RATE
                found, wrong = _errors(reference, turns)
                speech, errors = speech + found, errors + wrong
                exact += len({turn.speaker for turn in turns}) == count
            figures.append(
                Figure(
                    measure=f"speech given to the wrong speaker, of {count}",
                    value=100 * errors / speech,
                    unit="%",
                    target=5,
                    detail={"mixtures": mixtures, "with_the_right_number": exact},
                )
            )
    speed = heard / seconds
    figures.append(Figure(measure="speed of diarization", value=speed, unit="x real time"))
    return figures


async def _voices() -> Voices:
    voices: Voices = defaultdict(list)
    for name, recordings in RECORDED.items():
        for recording in recordings:
            for path in SPEECH.glob(f"{recording}.*"):
                pcm = files.read(path)
                third = len(pcm) // 6 * 2
                parts = 3 if name == "kennedy" else 1
                cuts = [pcm[i * third : (i + 1) * third] for i in range(3)] if parts > 1 else [pcm]
                voices[name] += cuts
    tts: TTS
    async with registry.create("tts", "hibari", {}) as tts:
        voices["hibari"] = [await _spoken(tts, text, tts.default_voice) for text in SENTENCES]
    if problem_of("kokoro-82m") is None:
        async with registry.create("tts", "kokoro", {}) as tts:
            for voice in KOKORO:
                voices[voice] = [await _spoken(tts, text, voice) for text in SENTENCES]
    return voices


async def _spoken(tts: TTS, text: str, voice: str) -> bytes:
    speaking = tts.synthesize(text, voice=voice, speed=1.0, language="en", instructions="")
    pcm = b"".join([piece.audio async for piece in speaking])
    return resample(pcm, tts.sample_rate, RATE)


def _mixture(voices: Voices, count: int, seed: int) -> tuple[bytes, Reference]:
    chance = random.Random(seed)
    names = chance.sample(sorted(voices), count)
    made, reference, last = b"", [], ""
    for _ in range(TURNS):
        last = chance.choice([name for name in names if name != last] or names)
        sound = np.frombuffer(chance.choice(voices[last]), "<i2").astype(np.float64)
        sound *= chance.choice(LEVELS) / np.sqrt((sound**2).mean() + 1)
        pcm = sound.clip(-32_767, 32_767).astype("<i2").tobytes()
        reference.append((len(made) // 2, (len(made) + len(pcm)) // 2, last))
        made += pcm + silence(chance.choice(PAUSES))
    return made, reference


def _errors(reference: Reference, turns: list[SpeakerTurn]) -> tuple[int, int]:
    """Frames in which somebody speaks and is found, and those of them with the wrong speaker."""
    names = sorted({name for _, _, name in reference})
    found = sorted({turn.speaker for turn in turns})
    end = reference[-1][1] // FRAME + 1
    right, given = np.full(end, -1), np.full(end, -1)
    for start, stop, name in reference:
        right[start // FRAME : stop // FRAME] = names.index(name)
    for turn in turns:
        given[turn.start_ms // 10 : turn.end_ms // 10] = found.index(turn.speaker)
    both = (right >= 0) & (given >= 0)
    table = np.zeros((len(names), max(len(names), len(found))), int)
    np.add.at(table, (right[both], given[both]), 1)
    best = max(
        sum(table[i, column] for i, column in enumerate(columns))
        for columns in permutations(range(table.shape[1]), len(names))
    )
    return int(both.sum()), int(both.sum()) - int(best)


if __name__ == "__main__":
    run(measure)
