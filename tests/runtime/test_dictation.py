"""Sound goes to the recogniser in bounded pieces, and its words come back as facts."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import numpy as np
import pytest

from tests.virtual_time import run
from vivavoce.audio.resample import resample
from vivavoce.engines.base import Transcript
from vivavoce.engines.scripted.engines import ScriptedSTT
from vivavoce.engines.scripted.scripts import STTScript, Utterance
from vivavoce.errors import EngineError, EngineLost
from vivavoce.runtime.transcription import KEPT_BYTES, PIECE_BYTES, AudioFeed, dictate
from vivavoce.session.effects import StartTranscription
from vivavoce.session.facts import ItemTranscriptionFailed, TranscriptionKey, TranscriptUpdated

ORDER = StartTranscription(TranscriptionKey("item_1"), "house", "en", "names: Ada")
SECOND = bytes(48_000)


class Ear(ScriptedSTT):
    """Does what a function says with the sound, and notes how it was asked and that it ended."""

    def __init__(self, listen: Any, sample_rate: int = 16_000) -> None:
        super().__init__(STTScript(sample_rate=sample_rate))
        self.asked: list[tuple[str | None, str]] = []
        self.closed = False
        self._listen = listen

    async def transcribe(
        self, audio: AsyncIterator[bytes], *, language: str | None, prompt: str
    ) -> AsyncGenerator[Transcript]:
        self.asked.append((language, prompt))
        try:
            async for transcript in self._listen(audio):
                yield transcript
        finally:
            self.closed = True


def heard(stt: ScriptedSTT, *pieces: bytes) -> list[TranscriptUpdated | ItemTranscriptionFailed]:
    """What is told of sound that comes in these pieces, one a tenth of a second."""

    async def main() -> list[TranscriptUpdated | ItemTranscriptionFailed]:
        told: list[TranscriptUpdated | ItemTranscriptionFailed] = []
        sound = AudioFeed(stt.sample_rate, lambda: None)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(dictate(stt, ORDER, sound, told.append))
            for piece in pieces:
                sound.feed(piece)
                await asyncio.sleep(0.1)
            sound.finish()
        return told

    return run(main())


def test_words_are_told_as_they_come_and_once_for_all() -> None:
    script = STTScript(transcripts=(Utterance("good day sir", partials=True),), word_ms=1000)
    assert heard(ScriptedSTT(script), SECOND, SECOND) == [
        TranscriptUpdated(TranscriptionKey("item_1"), "good", 0, False),
        TranscriptUpdated(TranscriptionKey("item_1"), "good day", 4, False),
        TranscriptUpdated(TranscriptionKey("item_1"), "good day sir", 12, True),
    ]


def test_an_engine_that_fails_says_why() -> None:
    script = STTScript(transcripts=(Utterance(error="the line is down"),))
    assert heard(ScriptedSTT(script), SECOND) == [
        ItemTranscriptionFailed(TranscriptionKey("item_1"), "the line is down")
    ]


async def _nothing(audio: AsyncIterator[bytes]) -> AsyncIterator[Transcript]:
    async for _ in audio:
        pass
    return
    yield


async def _at_once(audio: AsyncIterator[bytes]) -> AsyncIterator[Transcript]:
    raise EngineError("no model")
    yield


async def _half(audio: AsyncIterator[bytes]) -> AsyncIterator[Transcript]:
    async for _ in audio:
        yield Transcript("good", 4)


def test_an_engine_that_ends_without_a_result_is_found_out() -> None:
    ended = ItemTranscriptionFailed(
        TranscriptionKey("item_1"), "speech recognition ended without a result"
    )
    assert heard(Ear(_nothing), SECOND) == [ended]
    assert heard(Ear(_half), SECOND)[-1] == ended


def test_an_engine_that_fails_at_once_is_told_at_once() -> None:
    assert heard(Ear(_at_once), SECOND, SECOND) == [
        ItemTranscriptionFailed(TranscriptionKey("item_1"), "no model")
    ]


class Mortal(ScriptedSTT):
    """Is lost so many times, each after it has taken so many pieces; notes all it was given."""

    def __init__(self, deaths: int, pieces: int) -> None:
        super().__init__(STTScript(sample_rate=24_000))
        self.lives: list[bytes] = []
        self._deaths, self._pieces = deaths, pieces

    async def transcribe(
        self, audio: AsyncIterator[bytes], *, language: str | None, prompt: str
    ) -> AsyncGenerator[Transcript]:
        self.lives.append(b"")
        taken = 0
        async for piece in audio:
            self.lives[-1] += piece
            taken += 1
            if taken == self._pieces and len(self.lives) <= self._deaths:
                raise EngineLost("it died")
        yield Transcript("good day", 8, final=True)


A, B, C = (bytes([n]) * 48_000 for n in (1, 2, 3))


@pytest.mark.parametrize("pieces", [1, 2, 3])
def test_a_recogniser_that_is_lost_is_replaced_and_hears_all(
    pieces: int, caplog: pytest.LogCaptureFixture
) -> None:
    stt = Mortal(deaths=1, pieces=pieces)
    assert heard(stt, A, B, C) == [
        TranscriptUpdated(TranscriptionKey("item_1"), "good day", 8, True)
    ]
    assert stt.lives == [(A + B + C)[: pieces * 48_000], A + B + C]
    assert caplog.messages == ["an item is dictated again: it died"]


def test_it_is_replaced_once() -> None:
    stt = Mortal(deaths=2, pieces=2)
    assert heard(stt, A, B, C) == [ItemTranscriptionFailed(TranscriptionKey("item_1"), "it died")]
    assert stt.lives == [A + B, A + B]


def test_what_was_said_more_than_a_minute_ago_is_not_kept() -> None:
    stt = Mortal(deaths=1, pieces=KEPT_BYTES // PIECE_BYTES)
    assert heard(stt, bytes(KEPT_BYTES))[-1] == TranscriptUpdated(
        TranscriptionKey("item_1"), "good day", 8, True
    )
    stt = Mortal(deaths=1, pieces=KEPT_BYTES // PIECE_BYTES + 1)
    assert heard(stt, bytes(KEPT_BYTES + 2)) == [
        ItemTranscriptionFailed(TranscriptionKey("item_1"), "it died")
    ]


def test_the_second_hearing_is_at_the_rate_of_the_engine_from_the_first_sample_on() -> None:
    async def main() -> tuple[bytes, bytes]:
        sound = AudioFeed(16_000, lambda: None)
        sound.feed(A)
        await anext(sound)
        assert sound.rewind()
        sound.feed(B)
        sound.finish()
        return b"".join([piece async for piece in sound]), resample(A + B, 24_000, 16_000)

    again, whole = run(main())
    assert again == whole


def test_the_engine_is_told_the_language_and_the_prompt() -> None:
    stt = Ear(_half)
    heard(stt, SECOND)
    assert stt.asked == [("en", "names: Ada")]


def test_what_is_not_on_purpose_is_not_caught() -> None:
    async def listen(audio: AsyncIterator[bytes]) -> AsyncIterator[Transcript]:
        raise KeyError("a bug")
        yield

    with pytest.raises(ExceptionGroup) as raised:
        heard(Ear(listen), SECOND)
    assert raised.group_contains(KeyError, match="a bug")


def test_whoever_stops_the_dictation_stops_the_engine_at_once() -> None:
    async def main() -> None:
        stt = Ear(_half)
        told: list[TranscriptUpdated | ItemTranscriptionFailed] = []
        sound = AudioFeed(16_000, lambda: None)
        task = asyncio.create_task(dictate(stt, ORDER, sound, told.append))
        sound.feed(SECOND)
        await asyncio.sleep(1)
        assert (stt.closed, len(told)) == (False, 1)
        task.cancel()
        await asyncio.wait([task])
        assert stt.closed

    run(main())


@pytest.mark.parametrize("rate", [24_000, 16_000, 8_000])
def test_sound_comes_at_the_rate_of_the_engine_to_the_sample(rate: int) -> None:
    pcm = np.random.default_rng(1).integers(-9000, 9000, 100_003).astype("<i2").tobytes()

    async def main() -> bytes:
        sound = AudioFeed(rate, lambda: None)
        for start in range(0, len(pcm), 30_002):
            sound.feed(pcm[start : start + 30_002])
        sound.finish()
        return b"".join([piece async for piece in sound])

    assert run(main()) == resample(pcm, 24_000, rate)


def test_a_long_recording_is_taken_a_second_at_a_time_while_others_run() -> None:
    async def main() -> None:
        taken: list[int] = []
        sound = AudioFeed(24_000, lambda: taken.append(sound.waiting_bytes))
        sound.feed(bytes(3 * PIECE_BYTES + 10))
        sound.finish()
        others = 0

        async def run_beside() -> None:
            nonlocal others
            while True:
                others += 1
                await asyncio.sleep(0)

        beside = asyncio.create_task(run_beside())
        sizes = [len(piece) async for piece in sound]
        beside.cancel()
        assert sizes == [PIECE_BYTES, PIECE_BYTES, PIECE_BYTES, 10]
        assert taken == [2 * PIECE_BYTES + 10, PIECE_BYTES + 10, 10, 0]
        assert others >= 3

    run(main())


def test_silence_of_no_length_ends_the_sound() -> None:
    async def main() -> list[bytes]:
        sound = AudioFeed(16_000, lambda: None)
        sound.finish()
        return [piece async for piece in sound]

    assert run(main()) == []


def test_small_pieces_that_wait_are_taken_together() -> None:
    async def main() -> list[bytes]:
        sound = AudioFeed(24_000, lambda: None)
        for n in range(10):
            sound.feed(bytes([n, 0]))
        assert sound.waiting_bytes == 20
        sound.finish()
        return [piece async for piece in sound]

    assert run(main()) == [b"".join(bytes([n, 0]) for n in range(10))]
