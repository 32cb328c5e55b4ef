"""hibari with its real weights, which its package carries."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise

import numpy as np
import pytest

from vivavoce.engines.base import OPENAI_VOICES, Speech
from vivavoce.engines.hibari.tts import HibariSettings, HibariTTS
from vivavoce.engines.hibari.worker import MAX_PIECE, aligned, cuts, sounding
from vivavoce.errors import EngineError, EngineLost, NoSound
from vivavoce.testing.conformance import check_speech, check_tts

RATE = 24_000
TEXT = "Your appointment is on Tuesday, March 3rd at 9:30am, and it costs $45.20. If x < 5."
LONG = "We walked along the river and then we turned back and went home again " * 12


async def speech_of(tts: HibariTTS, text: str, speed: float = 1.0) -> list[Speech]:
    how = {"voice": "heart", "language": "en", "instructions": ""}
    made = [piece async for piece in tts.synthesize(text, speed=speed, **how)]
    if made:
        check_speech(made, text)
    return made


def with_engine(work: Callable[[HibariTTS], Awaitable[None]]) -> None:
    async def main() -> None:
        async with HibariTTS(HibariSettings()) as tts:
            assert tts.loading
            await work(tts)

    asyncio.run(main())


def test_hibari_conforms_to_the_contract_and_streams_sentences() -> None:
    async def work(tts: HibariTTS) -> None:
        await check_tts(tts)
        assert not tts.loading
        two = await speech_of(tts, "Hello there. How are you today?")
        assert len(two) == 2
        assert two == await speech_of(tts, "Hello there. How are you today?")  # the same samples
        assert {voice.id for voice in tts.voices} == {"heart", *OPENAI_VOICES}

    with_engine(work)


def test_hibari_words_are_marked_once_each_where_they_sound() -> None:
    async def work(tts: HibariTTS) -> None:
        first, second = await speech_of(tts, TEXT)
        words = [TEXT[mark.start : mark.end] for mark in (*first.marks, *second.marks)]
        assert words == TEXT.split()
        at = {TEXT[mark.start : mark.end]: mark.at / RATE for mark in first.marks}
        assert 0 <= at["Your"] < 0.2
        assert at["and"] - at["9:30am,"] > 3 * (at["at"] - at["3rd"])  # "nine thirty A.M."
        levels = np.abs(np.frombuffer(first.audio, "<i2").astype(np.float32))
        for mark in first.marks[1:]:  # each word sounds within 200 ms of its mark
            assert levels[mark.at : mark.at + RATE // 5].max() > 1000
        silence = np.nonzero(levels > 33)[0]
        assert silence[0] < 0.04 * RATE  # the model's own beginning is 200 ms of silence

    with_engine(work)


def test_hibari_text_without_a_sound_is_refused_and_an_unspoken_one_is_silent() -> None:
    async def work(tts: HibariTTS) -> None:
        with pytest.raises(NoSound, match="cannot read this text"):
            await speech_of(tts, "你好 世界")
        for nothing in ("", "  ", "\u2026", "\u2192", "\U0001f642"):
            assert sum(len(piece.audio) for piece in await speech_of(tts, nothing)) <= RATE
        with pytest.raises(EngineError, match=r"tts.hibari\] no voice 'nobody'; there are heart"):
            async for _ in tts.synthesize(
                "Hello.", voice="nobody", speed=1, language=None, instructions=""
            ):
                pass
        slow, fast = [
            sum(len(piece.audio) for piece in await speech_of(tts, "How are you?", speed))
            for speed in (0.01, 9.0)
        ]
        assert slow > 2 * fast

    with_engine(work)


def test_hibari_long_sentence_is_spoken_in_pieces_with_all_words() -> None:
    async def work(tts: HibariTTS) -> None:
        made = await speech_of(tts, LONG)
        assert len(made) > 2
        marks = [mark for piece in made for mark in piece.marks]
        assert [LONG[mark.start : mark.end] for mark in marks] == LONG.split()

    with_engine(work)


def test_hibari_process_that_dies_is_replaced() -> None:
    async def work(tts: HibariTTS) -> None:
        stream = tts.synthesize(LONG, voice="heart", speed=1, language=None, instructions="")
        await anext(stream)
        tts.host.processes[0].kill()
        with pytest.raises(EngineLost):
            async for _ in stream:
                pass
        assert await speech_of(tts, "It works again.")

    with_engine(work)


def test_phonemes_are_cut_at_pauses_and_never_too_long() -> None:
    assert list(cuts([])) == []
    assert list(cuts(["ab", "cd."])) == [(0, 2)]
    assert list(cuts(["a" * 99, "b" * 99, "c" * 9 + ",", "d"])) == [(0, 3), (3, 4)]
    endless = list(cuts(["a" * 50] * 40))
    assert [end for _, end in endless[:-1]] == [start for start, _ in endless[1:]]
    assert all((end - start) * 51 <= MAX_PIECE + 51 for start, end in endless)


def test_words_are_aligned_with_what_is_spoken_for_them() -> None:
    assert aligned(["on", "May", "3rd", "we"], ["on", "May", "third", "we"]) == [0, 1, 2, 3]
    assert aligned(["at", "9:30am", "ok"], ["at", "nine", "thirty", "A.M.", "ok"]) == [0, 1, 4]
    assert aligned(["a", "\u2022", "b"], ["a", "b"]) == [0, 1, 1]
    assert aligned(["a"], []) == [0]
    mixed = aligned(["x", "1", "2", "3", "y"], ["one", "x", "two", "y"])
    assert all(a <= b for a, b in pairwise(mixed))


@pytest.mark.parametrize(("sign", "kept"), [("t", 4), (",", 12), (".", 20)])
def test_silence_behind_speech_is_kept_as_its_sign_wants(sign: str, kept: int) -> None:
    frame = 300
    audio = np.zeros(frame * 50, np.float32)
    audio[frame * 10 : frame * 30] = 0.5
    assert sounding(audio, sign) == (8, 30 + kept)
    assert sounding(np.zeros(frame * 3, np.float32), sign) == (0, 3)
