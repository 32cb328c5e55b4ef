"""Ends of turns in many voices: `python -m bench.turn_ends --half report --sounds FILE`.

The sentences, pauses in mid-sentence and hesitations of bench.turns and three times as many, with
random speed, pauses and noise of the room, in virtual time as by bench.turns_replay. The two halves
have neither a text nor a voice in common: constants are chosen on one and reported on the other.

--half tune|report   the default is report
--sounds FILE        the sounds are kept there, and taken from there if it exists: voices are not
                     the same in every run
--explain            what each session was given and has sent, with times
"""

import argparse
import asyncio
from pathlib import Path

import msgspec
import numpy as np

from bench.dialogues import (
    BROKEN,
    HESITANT,
    SENTENCES,
    Kind,
    Scenario,
    Sound,
    Speaker,
    pcm16,
    speaking,
)
from bench.overlap_sounds import ROOM_DB
from bench.replay_engines import engines
from bench.report import parser_of, show
from bench.turns import Outcome, figures
from bench.turns_replay import Replay
from vivavoce.audio.formats import RATE

VOICES = {
    "tune": (
        *("espeak ash", "espeak coral", "hibari heart", "kokoro af_bella", "kokoro am_adam"),
        *("kokoro bm_daniel", "kokoro bf_isabella"),
    ),
    "report": (
        *("espeak onyx", "espeak marin", "kokoro bf_lily", "kokoro af_kore", "kokoro bm_george"),
        *("kokoro am_fenrir", "kokoro af_sky"),
    ),
}
PAUSE_S = (0.4, 1.4)
SPEEDS = (0.85, 1.2)
MAX_KNOWN = 1000
"""Decodings that are kept."""
# Every other text is for tuning. "…": a pause.
TEXTS: dict[Kind, tuple[str, ...]] = {
    "complete sentence": (
        *SENTENCES,
        *("How late are you open tonight?", "What does a monthly ticket cost?"),
        *("I need a taxi to the harbour.", "I want to change my booking for Thursday."),
        *("Set an alarm for half past six.", "Play some quiet music in the bedroom."),
        *("Is it going to rain this afternoon?", "Do you have this shirt in blue?"),
        *("My name is Jonathan Miller.", "The number of my room is two hundred and five."),
        *("Yes, that would be perfect.", "No, thank you, that is all."),
        *("We were there last summer with the children.", "They have sent me the wrong parcel."),
        *("Where can I park my car?", "Who is playing in the final?"),
        *("Tomorrow at three.", "Two coffees and a glass of water."),
        *("Could you repeat the last part?", "Can I pay with a credit card?"),
        *("My train was cancelled this morning.", "The heating in my flat has stopped working."),
        *("Translate this letter into French.", "Read me the first paragraph."),
    ),
    "pause in mid-sentence": (
        *(" … ".join(parts) for parts, _ in BROKEN),
        "I would like to speak with … the manager of the shop.",
        "Can you tell me when … the next bus to the centre leaves?",
        "We are going to stay for … three nights, I think.",
        "My flight arrives at … a quarter to nine.",
        "I have a question about the … bill that you sent me.",
        "Please send the parcel to … seventeen Station Road.",
        "The problem is that … the screen stays black.",
        "When I was in Rome … I lost my passport.",
        "Do you know whether … the pool is open in winter?",
        "I am allergic to nuts and … to shellfish.",
        "My phone number is five five five … two zero one four.",
        "The name is Anderson, that is A N … D E R S O N.",
        "He told me that … the shop would be closed.",
        "I ordered two pairs of … black trousers last week.",
        "Remind me on Friday that … the plants need water.",
        "What is the difference between … the two insurance plans?",
        "I can come on Monday or … on Wednesday afternoon.",
        "Because of the storm … all the ferries were late.",
        "Turn the lamp in … the living room to half brightness.",
        "Is it possible to get … a refund for this?",
    ),
    "hesitation": (
        *(" … ".join(parts) for parts, _ in HESITANT),
        "I think, um, … that I would rather take the train.",
        "Could I, uh, … move the appointment to next week?",
        "Well, er, … I have not decided yet.",
        "We need, um, … a table near the window.",
        "The password is, uh, … sunflower.",
        "It starts at, um, … eight o'clock in the evening.",
        "Can you find, uh, … a good restaurant nearby?",
        "My doctor is, um, … Mrs Patterson.",
        "Hmm, let me see, … the twelfth would be fine.",
        "I want to, like, … cancel the whole order.",
        "So, um, … how much is it altogether?",
        "I was, uh, … wondering about the price.",
    ),
}


async def sounds(half: str, seed: int = 1) -> list[Scenario]:
    """Each text of a half in each of its voices."""
    random = np.random.default_rng(seed)
    made = []
    async with speaking(VOICES[half]) as say:
        for voice in VOICES[half]:
            for kind, texts in TEXTS.items():
                for text in texts[half == "report" :: 2]:
                    sound = await _spoken(say, text, voice, random)
                    room = random.normal(0, 10 ** (random.uniform(*ROOM_DB) / 20), len(sound))
                    name, pcm = f"{voice}: {text}", pcm16(sound + room)
                    made.append(Scenario(name, kind, pcm, 0.0, len(sound) / RATE))
    return made


async def _spoken(say: Speaker, text: str, voice: str, random: np.random.Generator) -> Sound:
    """A text at some speed, with silence for its pause: half of the texts are spoken in one flow,
    and half with each part as a sentence of its own."""
    speed = float(random.uniform(*SPEEDS))
    first, *rest = text.split(" … ")
    pause = np.zeros(int(random.uniform(*PAUSE_S) * RATE))
    apart = first.endswith(",") or random.random() < 0.5
    if not rest:
        return await say(first, voice, speed)
    parts = None if apart else await say.in_two(first, rest[0], voice, speed)
    if parts is None:
        parts = await say(first, voice, speed), await say(rest[0], voice, speed)
    return np.concatenate((parts[0], pause, parts[1]))


async def _sounds_of(given: argparse.Namespace) -> list[Scenario]:
    if given.sounds and given.sounds.exists():
        return msgspec.msgpack.decode(given.sounds.read_bytes(), type=list[Scenario])
    made = await sounds(given.half)
    if given.sounds:
        given.sounds.write_bytes(msgspec.msgpack.encode(made))
    return made


async def _main(given: argparse.Namespace) -> list[Outcome]:
    every, at_hand = await _sounds_of(given), await engines()
    outcomes = []
    for one in every:
        replay = Replay(one, at_hand)
        outcomes.append(outcome := replay.run())
        if given.explain:
            print(f"\n{one.name}, to {one.ends * 1000:.0f} ms: {outcome}", *replay.log, sep="\n")
        if len(at_hand.stt.known) > MAX_KNOWN:
            at_hand.stt.known.clear()
    return outcomes


def main() -> None:
    parser = parser_of("turn_ends", __doc__)
    parser.add_argument("--half", choices=tuple(VOICES), default="report")
    parser.add_argument("--sounds", type=Path, metavar="FILE")
    parser.add_argument("--explain", action="store_true")
    outcomes = asyncio.run(_main(parser.parse_args()))
    found = {one.measure.split(",")[0]: one for one in figures(outcomes)}
    show(list(found.values())[:3])


if __name__ == "__main__":
    main()
