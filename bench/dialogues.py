"""Scripted dialogues for `bench.turns`: what a user says or what else is heard, and when.

Speech comes from recordings, where there are some beside the project, and from synthesisers in
several voices. Levels are those of full scale: 0.1 is a voice at ordinary distance.
"""

import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from itertools import cycle
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bench.sound import recordings
from vivavoce.audio.formats import RATE
from vivavoce.audio.resample import resample
from vivavoce.engines import registry
from vivavoce.engines.base import TTS
from vivavoce.errors import EngineError, SettingsError

Kind: TypeAlias = Literal[
    "complete sentence",
    "pause in mid-sentence",
    "hesitation",
    "recording",
    "interruption",
    "short interruption",
    "backchannel",
    "cough",
    "music",
    "typing",
    "breath",
    "second speaker",
    "echo",
    "noise, nobody speaks",
]
Sound: TypeAlias = NDArray[np.float64]
Place: TypeAlias = tuple[int, int]

TURNS: frozenset[Kind] = frozenset(
    {"complete sentence", "pause in mid-sentence", "hesitation", "recording"}
)
"""The user speaks, and waits for an answer."""
INTERRUPTIONS: frozenset[Kind] = frozenset({"interruption", "short interruption"})
ECHO_DB = -20.0
FADE = RATE // 50
BOUNDARY = RATE // 8  # before the time that a voice gives for a word
ROOM = 2.5e-4  # standard deviation of a quiet room
VOICE = 0.1  # root mean square of a voice
TALKERS = ("espeak ash", "espeak marin", "hibari heart", "espeak onyx", "espeak coral")

SENTENCES = (
    "What time does the museum open on Sunday?",
    "I would like to book a table for two people tonight.",
    "Can you tell me how far it is to the airport?",
    "Please turn off the lights in the kitchen.",
    "My order number is four seven one nine.",
    "Could you send the invoice to my office?",
    "I have never been to this part of the city before.",
    "Show me all flights to Madrid next Friday.",
)
BROKEN = (
    (("I would like to go to", "the main station, please."), 0.7),
    (("Could you remind me to", "call my sister tomorrow morning?"), 0.9),
    (("The reason why I am calling is", "that my card does not work."), 1.1),
    (("We need a room for", "three adults and one child."), 0.6),
    (("If it rains tomorrow, then", "we will have to stay at home."), 0.8),
    (("My address is twelve", "Garden Street in Oxford."), 1.0),
)
HESITANT = (
    (("I am looking for, um,", "a present for my brother."), 0.8),
    (("Is there, uh,", "a pharmacy near the hotel?"), 0.7),
    (("So, um,", "what would you recommend for dinner?"), 0.9),
    (("It was on, er,", "the fifth of May, I think."), 1.0),
)
LONG_INTERRUPTIONS = (
    "Wait, that is not what I asked for.",
    "No, I meant the train to Boston.",
    "Sorry, can you say that again more slowly?",
    "Hold on, I have another question first.",
    "Actually I need this for tomorrow.",
    "Excuse me, what does it cost?",
    "That's enough, tell me about the weather instead.",
    "But I have already paid for it.",
)
SHORT_INTERRUPTIONS = ("Stop!", "Wait!", "No, no!", "Stop talking.", "Hang on.", "Be quiet.")
BACKCHANNELS = (
    *("Mm-hm.", "Uh-huh.", "Yeah.", "Okay.", "Right.", "I see.", "Mmm.", "Sure.", "Yes.", "Hmm."),
    *("Oh, okay.", "Yeah, yeah."),
)
QUESTION = "Describe in great detail how bread is made."
OTHERS = ("Did you put the bread on the table?", "We should leave in about ten minutes.")


class Speaker:
    """Speaks a text with a voice such as "espeak ash", at the level of a voice; where its engine is
    missing, with espeak."""

    def __init__(self, engines: Mapping[str, TTS]) -> None:
        self._engines = engines

    async def __call__(self, text: str, voice: str, speed: float = 1.0, /) -> Sound:
        sound, _ = await self._spoken(text, voice, speed)
        return at_level(_trimmed(sound), VOICE)

    async def in_two(
        self, first: str, second: str, voice: str, speed: float = 1.0
    ) -> tuple[Sound, Sound] | None:
        """A sentence spoken without a pause, cut where it is softest before the second part; None:
        the voice does not tell where that begins."""
        sound, marks = await self._spoken(f"{first} {second}", voice, speed)
        cuts = [at for at, start in marks if start == len(first) + 1]
        if not cuts:
            return None
        sound = at_level(sound, VOICE)
        near = sound[max(0, cuts[0] - BOUNDARY) : cuts[0] + FADE]
        loudness = np.convolve(np.square(near), np.ones(FADE), "same")
        cut = max(0, cuts[0] - BOUNDARY) + int(np.argmin(loudness))
        before, after = sound[:cut], sound[cut:]
        fade = np.linspace(0, 1, FADE)
        before[-FADE:] *= fade[::-1]
        after[:FADE] *= fade
        return _trimmed(before), _trimmed(after)

    async def _spoken(self, text: str, voice: str, speed: float) -> tuple[Sound, list[Place]]:
        """Sound, and of each word its sample in it and its place in the text."""
        name, timbre = voice.split()
        if name not in self._engines:
            name, timbre = "espeak", "ash"
        tts = self._engines[name]
        pcm, marks = b"", []
        pieces = tts.synthesize(text, voice=timbre, speed=speed, language="en", instructions="")
        async with aclosing(pieces):
            async for piece in pieces:
                pcm += piece.audio
                marks += [(mark.at * RATE // tts.sample_rate, mark.start) for mark in piece.marks]
        pcm = resample(pcm, tts.sample_rate, RATE)
        return np.frombuffer(pcm, "<i2") / 32768, marks


@dataclass(frozen=True, slots=True)
class Scenario:
    """What the microphone hears: PCM at 24 kHz, behind a second of a quiet room."""

    name: str
    kind: Kind
    pcm: bytes
    begins: float
    """Seconds in `pcm` at which what is tested begins, and ends."""
    ends: float
    question: bytes = b""
    """Of what is heard over an answer: PCM of the turn before, in the user's voice."""

    @property
    def over_answer(self) -> bool:
        """Whether it is heard while an answer is spoken."""
        return self.kind not in TURNS and self.kind != "noise, nobody speaks"


async def scenarios(talkers: Sequence[str] = TALKERS) -> list[Scenario]:
    """All of them; of each kind one half is for tuning and the other for reports.

    talkers: who speaks in turn, such as "kokoro af_heart".
    """
    async with speaking(talkers) as say:
        found = [
            Scenario(f"recording {one.name}", "recording", one.pcm, one.begins, one.ends)
            for one in await recordings()
        ]
        voices = cycle(talkers)
        for text in SENTENCES:
            found.append(_spoken("complete sentence", text, await say(text, next(voices))))
        kinds: tuple[Kind, Kind] = ("pause in mid-sentence", "hesitation")
        for kind, lines in zip(kinds, (BROKEN, HESITANT), strict=True):
            for parts, pause in lines:
                voice = next(voices)
                first, second = [await say(part, voice) for part in parts]
                sound = np.concatenate((first, np.zeros(int(pause * RATE)), second))
                found.append(_spoken(kind, " … ".join(parts), sound))
        asked = {voice: pcm16(await say(QUESTION, voice)) for voice in talkers}
        found += await over_answer(say, voices, asked)
        user = asked[talkers[0]]
        for text in OTHERS:  # 18 dB below the user: across the room
            sound = 0.125 * await say(text, talkers[-1])
            found.append(_spoken("second speaker", text, sound, user))
    for n in range(2):
        for kind, make in NOISES.items():
            sound = make(np.random.default_rng(n + 1))
            found.append(_spoken(kind, str(n + 1), sound, user))
            found.append(_spoken("noise, nobody speaks", f"{kind} {n + 1}", sound))
        nothing = pcm16(np.zeros(3 * RATE))
        found.append(Scenario(f"echo: {n + 1}", "echo", nothing, 0.0, 3.0, user))
    return found


async def over_answer(
    say: Speaker, voices: Iterator[str], asked: Mapping[str, bytes]
) -> list[Scenario]:
    """Interruptions and backchannels, each in the next voice; asked: the question in each."""
    found = []
    for text in LONG_INTERRUPTIONS:
        voice = next(voices)
        found.append(_spoken("interruption", text, await say(text, voice), asked[voice]))
    for text in SHORT_INTERRUPTIONS:
        voice = next(voices)
        sound = 1.3 * await say(text, voice)
        found.append(_spoken("short interruption", text, sound, asked[voice]))
    for n, text in enumerate(BACKCHANNELS):  # softer than a turn
        voice = next(voices)
        sound = (0.5, 0.7)[n % 2] * await say(text, voice)
        found.append(_spoken("backchannel", text, sound, asked[voice]))
    return found


def half(every: list[Scenario], which: str) -> list[Scenario]:
    """`tune` or `report`: every other one of each kind; `both`."""
    if which == "both":
        return every
    seen: dict[Kind, int] = {}
    kept = []
    for one in every:
        number = seen[one.kind] = seen.get(one.kind, -1) + 1
        if number % 2 == (0 if which == "tune" else 1):
            kept.append(one)
    return kept


def pcm16(sound: Sound, seed: int = 3) -> bytes:
    """As 16-bit PCM, in a quiet room: digital silence is an exception."""
    room = np.random.default_rng(seed).normal(0, ROOM, len(sound))
    return (np.clip(sound + room, -1, 1) * 32767).astype("<i2").tobytes()


def cough(random: np.random.Generator) -> Sound:
    """Two bursts of noise below 2 kHz that die away."""
    burst = filtered(random.normal(0, 1, int(0.25 * RATE)), 200, 2000)
    burst *= np.exp(-np.arange(len(burst)) / (0.07 * RATE))
    return 3 * VOICE * np.concatenate((burst, np.zeros(int(0.15 * RATE)), burst * 0.7))


def music(random: np.random.Generator) -> Sound:
    """Two seconds of chords with three harmonics each."""
    at = np.arange(RATE // 2) / RATE
    chords = []
    for root in random.choice((131.0, 147.0, 165.0, 196.0), 4):
        tones = (root * ratio * k for ratio in (1, 1.25, 1.5) for k in (1, 2, 3))
        chord = sum(np.sin(2 * np.pi * tone * at) for tone in tones)
        chords.append(chord * np.exp(-at * 3))
    return at_level(np.concatenate(chords), 0.5 * VOICE)


def typing(random: np.random.Generator) -> Sound:
    """Clicks of 5 ms, eight a second."""
    sound = np.zeros(2 * RATE)
    for at in np.arange(0.05, 1.9, 0.125) + random.uniform(0, 0.06, 15):
        click = random.normal(0, 1, RATE // 200) * np.exp(-np.arange(RATE // 200) / 30)
        sound[int(at * RATE) :][: len(click)] += 1.5 * VOICE * click
    return sound


def breath(random: np.random.Generator) -> Sound:
    """Soft noise between 500 and 4000 Hz, a second long, that swells and fades."""
    noise = filtered(random.normal(0, 1, RATE), 500, 4000)
    return at_level(noise * np.sin(np.linspace(0, np.pi, RATE)), 0.12 * VOICE)


NOISES: dict[Kind, Callable[[np.random.Generator], Sound]] = {
    "cough": cough,
    "music": music,
    "typing": typing,
    "breath": breath,
}


def _spoken(kind: Kind, text: str, sound: Sound, question: bytes = b"") -> Scenario:
    return Scenario(f"{kind}: {text}", kind, pcm16(sound), 0.0, len(sound) / RATE, question)


def filtered(sound: Sound, low: float, high: float) -> Sound:
    spectrum = np.fft.rfft(sound)
    hertz = np.fft.rfftfreq(len(sound), 1 / RATE)
    spectrum[(hertz < low) | (hertz > high)] = 0
    return np.fft.irfft(spectrum, len(sound))


def at_level(sound: Sound, level: float) -> Sound:
    return sound * (level / max(1e-9, float(np.sqrt(np.mean(np.square(sound))))))


def _trimmed(sound: Sound) -> Sound:
    """From the first to the last 20 ms that are within 30 dB of the loudest."""
    frame = RATE // 50
    frames = sound[: len(sound) // frame * frame].reshape(-1, frame)
    levels = np.sqrt(np.square(frames).mean(axis=1))
    (loud,) = np.nonzero(levels > levels.max() * 0.03)
    return sound[loud[0] * frame : (loud[-1] + 1) * frame]


@asynccontextmanager
async def speaking(talkers: Sequence[str]) -> AsyncIterator[Speaker]:
    """What speaks with these voices, such as "espeak ash"."""
    engines: dict[str, TTS] = {}
    async with AsyncExitStack() as stack:
        for name in sorted({voice.split()[0] for voice in talkers}):
            try:
                engine: TTS = registry.create("tts", name, {})
            except (EngineError, SettingsError) as exc:
                print(f"without voices of {name}: {exc}", file=sys.stderr)
            else:
                engines[name] = await stack.enter_async_context(engine)
        yield Speaker(engines)
