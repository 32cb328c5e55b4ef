"""Speech over an answer to train and test the judge of interruptions with; see bench.overlaps.

The texts of TRAINED, and the voices of TRAINED_VOICES, are for training; the dialogues of the
benchmark in the voices of REPORT_VOICES are for the report. No text of the report half of the
benchmark is among those of TRAINED.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import product, repeat

import numpy as np

from bench.dialogues import BACKCHANNELS as PLAYED_BACKCHANNELS
from bench.dialogues import (
    LONG_INTERRUPTIONS,
    NOISES,
    OTHERS,
    QUESTION,
    SHORT_INTERRUPTIONS,
    Kind,
    Scenario,
    Sound,
    Speaker,
    over_answer,
    pcm16,
    speaking,
)
from vivavoce.audio.formats import RATE

KOKORO = (
    "af_heart bf_emma am_michael af_bella am_adam bm_daniel af_sarah am_puck bf_isabella am_onyx "
    "af_sky bm_fable am_fenrir bf_alice af_alloy am_echo"
)
TRAINED_VOICES = (
    *("espeak ash", "espeak marin", "espeak onyx", "espeak coral", "hibari heart"),
    *(f"kokoro {name}" for name in KOKORO.split()),
)
REPORT_VOICES = ("kokoro bf_lily", "kokoro af_kore", "kokoro bm_george")

BACKCHANNELS = (
    *PLAYED_BACKCHANNELS[::2],
    *("Mhm.", "Yep.", "Ah.", "Oh.", "Got it.", "Alright.", "Good.", "Great.", "Exactly."),
    *("Of course.", "That's right.", "Really?", "Wow.", "Cool.", "Aha.", "Go on.", "Yes, yes."),
    *("Makes sense.", "Oh, I see, okay.", "Uh.", "Right, right."),
)
INTERRUPTIONS = (
    *LONG_INTERRUPTIONS[::2],
    *SHORT_INTERRUPTIONS[::2],
    *("No, that's wrong.", "What about rye bread?", "How long does that take?", "Can I ask you"),
    *("I don't want bread.", "Let me stop you there.", "One moment please.", "Tell me a joke."),
    *("Okay, but how much flour?", "Yes, but I have no oven.", "Right, and what comes next?"),
    *("Which flour do you use?", "My sister is allergic to wheat.", "Not so fast.", "Cancel that."),
    *("Repeat the last step.", "Who told you that?", "Is it expensive?", "Hey, listen."),
    *("We were talking about cakes.", "Enough.", "Please stop.", "Shorter please."),
)
BACKCHANNEL_DB, INTERRUPTION_DB = (-4.0, 2.5), (0.5, 2.0)
"""Levels above a turn of the user: mean and standard deviation."""
ROOM_DB = (-72.0, -50.0)
"""Of full scale; a voice has -20."""


async def trained(variations: int, seed: int = 1) -> AsyncIterator[tuple[str, Scenario]]:
    """Voice and scenario, of each text in each voice so many variations."""
    random = np.random.default_rng(seed)
    async with speaking(TRAINED_VOICES) as say:
        for voice in TRAINED_VOICES:
            question = await say(QUESTION, voice)
            asked = pcm16(question)
            for (kind, text), n in product(_texts(), range(variations)):
                sound = await _spoken(say, text, voice, random)
                level = random.normal(
                    *(BACKCHANNEL_DB if kind == "backchannel" else INTERRUPTION_DB)
                )
                yield voice, _scenario(kind, f"{text} {n}", _gain(sound, level), random, asked)
            for text in OTHERS:
                sound = _gain(await _spoken(say, text, voice, random), random.uniform(-26, -17))
                yield voice, _scenario("second speaker", text, sound, random, asked)
            for kind, make in NOISES.items():
                yield voice, _scenario(kind, "", make(random), random, asked)


async def reported(voices: Sequence[str]) -> AsyncIterator[tuple[str, Scenario]]:
    """Voice and scenario: interruptions and backchannels of the benchmark, all in each voice."""
    async with speaking(voices) as say:
        for voice in voices:
            asked = {voice: pcm16(await say(QUESTION, voice))}
            for one in await over_answer(say, repeat(voice), asked):
                yield voice, one


async def _spoken(say: Speaker, text: str, voice: str, random: np.random.Generator) -> Sound:
    """A text at some speed, and a voice a little higher or lower."""
    speed, pitch = random.uniform(0.8, 1.25), random.uniform(0.92, 1.08)
    if not voice.startswith("espeak") and random.random() < 0.5:
        text = text.rstrip(".") + str(random.choice(["!", ",", "..."]))
    sound = await say(text, voice, float(speed))
    at = np.arange(0, len(sound) - 1, pitch)
    return np.asarray(np.interp(at, np.arange(len(sound)), sound), np.float64)


def _texts() -> Iterator[tuple[Kind, str]]:
    for text in BACKCHANNELS:
        yield "backchannel", text
    for text in INTERRUPTIONS:
        yield "interruption", text


def _gain(sound: Sound, decibels: float) -> Sound:
    return sound * 10 ** (decibels / 20)


def _scenario(
    kind: Kind, text: str, sound: Sound, random: np.random.Generator, asked: bytes
) -> Scenario:
    room = random.normal(0, 10 ** (random.uniform(*ROOM_DB) / 20), len(sound))
    return Scenario(f"{kind}: {text}", kind, pcm16(sound + room), 0.0, len(sound) / RATE, asked)
