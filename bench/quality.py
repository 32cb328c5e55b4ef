"""What recognisers make out, and how well voices are understood.

    python -m bench.quality [--quick | --sentences N] [--stt NAME[=MODEL]]... [--tts NAME]...

* Real speech: the recordings beside the project, where there are some, by every recogniser.
* Synthetic speech: sentences.txt, of which N are taken at equal distances, by every voice and at
  each level of noise (pink, by the power of the whole sentence), by every recogniser. The figure of
  a voice without noise is its intelligibility: a round trip through that recogniser.

A word is wrong that is inserted, left out or replaced, after case, punctuation and the writing of
numbers are made alike. All 302 sentences, three voices and two recognisers take about an hour and
a half of one core, nearly all of it PocketSphinx; 24 sentences take about ten minutes.
"""

import argparse
import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from bench.figures import Figure
from bench.report import perform, show, write
from bench.served import take_other_core
from bench.sound import SPEECH
from vivavoce.audio.formats import RATE
from vivavoce.audio.resample import resample
from vivavoce.engines import registry
from vivavoce.engines.base import STT, TTS
from vivavoce.engines.hosted import HostedEngine
from vivavoce.errors import VoiceError
from vivavoce.media import files

SENTENCES = Path(__file__).with_name("sentences.txt")
RECOGNISERS = ("moonshine", "pocketsphinx")
VOICES = ("hibari", "espeak", "kokoro")
NOISES: tuple[float | None, ...] = (None, 10.0, 5.0)
"""Decibels by which the speech is louder; None: no noise."""
QUICK_SENTENCES = 6
AT_ONCE = 2
"""Utterances that a recogniser gets at the same time."""
PIECE_BYTES = 3_200
MAX_JFK_ERRORS = 1
HANG_S = 120.0
"""How long a worker process may not answer: words are counted here, however busy the machine is."""

TEXTS = {
    "austen_0870": (
        "and mister john dashwood had then leisure to consider how much there might prudently be "
        "in his power to do for them"
    ),
    "austen_0880": "he was not an ill disposed young man",
    "go_forward_ten_meters": "go forward ten meters",
    "hello_world": "hello world",
    "jfk": (
        "and so my fellow americans ask not what your country can do for you ask what you can do "
        "for your country"
    ),
    "ten_of_clubs": "ten of clubs",
    "three_cards": "eight of spades four of clubs seven of hearts",
}
"""What is said in the recordings."""

_UNITS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen"),
    "nineteen",
)
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_ALIKE = {"mr": "mister", "grey": "gray", "neighbour": "neighbor", "favourite": "favorite"}
_ALIKE |= {"colour": "color", "harbour": "harbor", "theatre": "theater", "aeroplanes": "airplanes"}
_ALIKE |= {"cancelled": "canceled", "metres": "meters"}


@dataclass(frozen=True, slots=True)
class Utterance:
    """Speech at 24 kHz and its words."""

    name: str
    pcm: bytes
    words: tuple[str, ...]


def words_of(text: str) -> tuple[str, ...]:
    """The words of a text, written alike: lower case, numbers up to 99 in words."""
    found = re.findall(r"[a-z0-9']+", text.lower().replace("\u2019", "'").replace("-", " "))
    words: list[str] = []
    for word in found:
        if word.isdecimal() and int(word) < 100:
            tens, units = divmod(int(word), 10)
            words += [_UNITS[int(word)]] if tens < 2 else [_TENS[tens - 2]]
            words += [_UNITS[units]] if tens >= 2 and units else []
        else:
            words.append(_ALIKE.get(word, word))
    return tuple(words)


def errors(expected: Sequence[str], heard: Sequence[str]) -> int:
    """The least number of words to insert, leave out or replace (Levenshtein)."""
    row = list(range(len(heard) + 1))
    for i, word in enumerate(expected, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(heard, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (word != other))
    return row[-1]


def sentences(count: int) -> list[str]:
    """So many of the file, at equal distances."""
    lines = SENTENCES.read_text("utf-8").splitlines()
    count = min(count, len(lines))
    return [lines[i * len(lines) // count] for i in range(count)]


def with_noise(pcm: bytes, decibels: float, seed: int) -> bytes:
    """Pink noise added, so much quieter than the speech."""
    speech = np.frombuffer(pcm, "<i2").astype(np.float64)
    spectrum = np.fft.rfft(np.random.default_rng(seed).normal(size=len(speech)))
    noise = np.fft.irfft(spectrum / np.sqrt(np.arange(1, len(spectrum) + 1)), len(speech))
    noise *= np.sqrt((speech**2).mean() / (noise**2).mean()) * 10 ** (-decibels / 20)
    return np.clip(speech + noise, -32768, 32767).astype("<i2").tobytes()


async def spoken(tts: TTS, texts: Sequence[str]) -> list[Utterance]:
    made = []
    for text in texts:
        speaking = tts.synthesize(
            text, voice=tts.default_voice, speed=1.0, language="en", instructions=""
        )
        async with aclosing(speaking):
            pcm = b"".join([piece.audio async for piece in speaking])
        made.append(Utterance(text, resample(pcm, tts.sample_rate, RATE), words_of(text)))
    return made


async def wrong_words(stt: STT, utterances: Sequence[Utterance]) -> dict[str, int]:
    """The errors of each utterance."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(utterance: Utterance) -> tuple[str, int]:
        pcm = resample(utterance.pcm, RATE, stt.sample_rate)

        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, len(pcm), PIECE_BYTES):
                yield pcm[start : start + PIECE_BYTES]

        async with places:
            hearing = stt.transcribe(pieces(), language="en", prompt="")
            async with aclosing(hearing):
                text = [transcript async for transcript in hearing][-1].text
        return utterance.name, errors(utterance.words, words_of(text))

    return dict(await asyncio.gather(*map(one, utterances)))


async def voices(names: Sequence[str], texts: Sequence[str]) -> dict[str, list[Utterance]]:
    """The sentences by each voice whose engine can be used here."""
    made: dict[str, list[Utterance]] = {}
    for name in names:
        try:
            async with registry.create("tts", name, {}) as tts:
                made[name] = await spoken(tts, texts)
        except VoiceError as exc:
            print(f"without {name}: {exc}")
    return made


def recordings() -> list[Utterance]:
    found = [path for path in sorted(SPEECH.glob("*.*")) if path.stem in TEXTS]
    return [
        Utterance(path.stem, files.read(path), words_of(TEXTS[path.stem]))
        for path in found
        if path.suffix in (".wav", ".flac")
    ]


async def measure(
    quick: bool,
    *,
    count: int = 0,
    recognisers: Sequence[str] = RECOGNISERS,
    speakers: Sequence[str] = VOICES,
) -> list[Figure]:
    HostedEngine.hang_seconds = HANG_S
    texts = sentences(count or (QUICK_SENTENCES if quick else 1_000))
    by_voice = await voices(speakers, texts)
    figures = []
    for name in recognisers:
        engine, _, model = name.partition("=")
        try:
            async with registry.create("stt", engine, {"model": model} if model else {}) as stt:
                figures += await _of_recordings(name, stt)
                for voice, utterances in by_voice.items():
                    for noise in NOISES:
                        figures.append(await _of_voice(name, stt, voice, utterances, noise))
        except VoiceError as exc:
            print(f"without {name}: {exc}")
    return figures


async def _of_recordings(name: str, stt: STT) -> list[Figure]:
    real = recordings()
    if not real:
        return []
    wrong = await wrong_words(stt, real)
    total = sum(len(each.words) for each in real)
    target = MAX_JFK_ERRORS if name == RECOGNISERS[0] else None
    return [
        Figure(
            measure=f"{name}: words wrong, {len(real)} recordings, {total} words",
            value=100 * sum(wrong.values()) / total,
            unit="%",
            detail=dict(wrong),
        ),
        Figure(
            measure=f"{name}: words wrong, JFK, 22 words",
            value=wrong["jfk"],
            unit="words",
            target=target,
        ),
    ]


async def _of_voice(
    name: str, stt: STT, voice: str, utterances: Sequence[Utterance], noise: float | None
) -> Figure:
    heard = [
        Utterance(each.name, with_noise(each.pcm, noise, seed), each.words) if noise else each
        for seed, each in enumerate(utterances)
    ]
    wrong = await wrong_words(stt, heard)
    total = sum(len(each.words) for each in utterances)
    level = "clean" if noise is None else f"noise {noise:g} dB below"
    return Figure(
        measure=f"{name}: words wrong, {voice}, {level}, {len(heard)} sentences",
        value=100 * sum(wrong.values()) / total,
        unit="%",
        detail={text: count for text, count in wrong.items() if count},
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.quality")
    parser.add_argument("--quick", action="store_true", help="few sentences")
    parser.add_argument("--sentences", type=int, default=0, metavar="N")
    parser.add_argument("--stt", action="append", metavar="NAME[=MODEL]", default=[])
    parser.add_argument("--tts", action="append", metavar="NAME", default=[])
    parser.add_argument("--out", type=Path, default=Path("out/quality.json"), metavar="FILE")
    given = parser.parse_args()
    take_other_core()
    work = partial(
        measure,
        count=given.sentences,
        recognisers=given.stt or RECOGNISERS,
        speakers=given.tts or VOICES,
    )
    figures = perform(work, quick=given.quick)
    write(given.out, [("quality", figure) for figure in figures])
    show(figures)


if __name__ == "__main__":
    main()
