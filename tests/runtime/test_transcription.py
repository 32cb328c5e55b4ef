"""Audio goes to the recogniser in bounded pieces; its words come back as facts."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import numpy as np
import pytest

from vivavoce.audio.resample import resample
from vivavoce.engines.base import Transcript
from vivavoce.engines.scripted.engines import ScriptedSTT
from vivavoce.engines.scripted.scripts import ScriptedTranscript, STTScript
from vivavoce.errors import AudioError, EngineError, EngineLost
from vivavoce.runtime.transcription import (
    KEPT_BYTES,
    PIECE_BYTES,
    AudioFeed,
    RecordedAudio,
    transcribe_item,
    transcript_of,
    transcripts,
)
from vivavoce.session.effects import StartTranscription
from vivavoce.session.facts import ItemTranscriptionFailed, TranscriptionKey, TranscriptUpdated
from vivavoce.testing.virtual_time import run

KEY = TranscriptionKey("item_1")
ORDER = StartTranscription(KEY, "default", "en", "names: Ada")
SECOND = bytes(48_000)


class FunctionSTT(ScriptedSTT):
    """Transcribes with a function; records how it was called and that it was closed."""

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


def facts_of(stt: ScriptedSTT, *pieces: bytes) -> list[TranscriptUpdated | ItemTranscriptionFailed]:
    """The facts of audio that comes in these pieces, one a tenth of a second."""

    async def main() -> list[TranscriptUpdated | ItemTranscriptionFailed]:
        posted: list[TranscriptUpdated | ItemTranscriptionFailed] = []
        sound = AudioFeed(stt.sample_rate, lambda: None)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(transcribe_item(stt, ORDER, sound, posted.append))
            for piece in pieces:
                sound.feed(piece)
                await asyncio.sleep(0.1)
            sound.finish()
        return posted

    return run(main())


def test_transcripts_are_posted_as_they_come() -> None:
    script = STTScript(
        transcripts=(ScriptedTranscript("good day sir", partials=True),), word_ms=1000
    )
    assert facts_of(ScriptedSTT(script), SECOND, SECOND) == [
        TranscriptUpdated(KEY, "good", 0, False),
        TranscriptUpdated(KEY, "good day", 4, False),
        TranscriptUpdated(KEY, "good day sir", 12, True),
    ]


def test_log_probability_of_the_last_word_is_posted() -> None:
    script = STTScript(transcripts=("good day",), word_times=True, logprob=-0.3)
    (*_, last) = facts_of(ScriptedSTT(script), SECOND)
    assert last == TranscriptUpdated(KEY, "good day", 8, True, certainty=-0.3)


def test_engine_failure_is_posted_with_its_reason() -> None:
    script = STTScript(transcripts=(ScriptedTranscript(error="the line is down"),))
    assert facts_of(ScriptedSTT(script), SECOND) == [
        ItemTranscriptionFailed(KEY, "the line is down")
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


def test_engine_without_a_final_transcript_is_a_failure() -> None:
    ended = ItemTranscriptionFailed(KEY, "speech recognition ended without a result")
    assert facts_of(FunctionSTT(_nothing), SECOND) == [ended]
    assert facts_of(FunctionSTT(_half), SECOND)[-1] == ended


def test_engine_failure_at_once_is_posted() -> None:
    assert facts_of(FunctionSTT(_at_once), SECOND, SECOND) == [
        ItemTranscriptionFailed(KEY, "no model")
    ]


class LosableSTT(ScriptedSTT):
    """Is lost so many times, each after so many pieces; records the audio of each attempt."""

    def __init__(self, losses: int, pieces: int) -> None:
        super().__init__(STTScript(sample_rate=24_000))
        self.attempts: list[bytes] = []
        self._losses, self._pieces = losses, pieces

    async def transcribe(
        self, audio: AsyncIterator[bytes], *, language: str | None, prompt: str
    ) -> AsyncGenerator[Transcript]:
        self.attempts.append(b"")
        taken = 0
        async for piece in audio:
            self.attempts[-1] += piece
            taken += 1
            if taken == self._pieces and len(self.attempts) <= self._losses:
                raise EngineLost("it died")
        yield Transcript("good day", 8, final=True)


A, B, C = (bytes([n]) * 48_000 for n in (1, 2, 3))
PROGRESS = TranscriptUpdated(KEY, "", 0, False)
"""The work goes on: the bound on stalls counts from here."""


@pytest.mark.parametrize("pieces", [1, 2, 3])
def test_lost_recogniser_gets_all_audio_again(
    pieces: int, caplog: pytest.LogCaptureFixture
) -> None:
    stt = LosableSTT(losses=1, pieces=pieces)
    assert facts_of(stt, A, B, C) == [PROGRESS, TranscriptUpdated(KEY, "good day", 8, True)]
    assert stt.attempts == [(A + B + C)[: pieces * 48_000], A + B + C]
    assert caplog.messages == ["STT worker lost, retrying with the same audio: it died"]


def test_recogniser_lost_twice_is_a_failure() -> None:
    stt = LosableSTT(losses=2, pieces=2)
    assert facts_of(stt, A, B, C) == [PROGRESS, ItemTranscriptionFailed(KEY, "it died")]
    assert stt.attempts == [A + B, A + B]


def test_audio_is_kept_for_a_minute_only() -> None:
    stt = LosableSTT(losses=1, pieces=KEPT_BYTES // PIECE_BYTES)
    assert facts_of(stt, bytes(KEPT_BYTES))[-1] == TranscriptUpdated(KEY, "good day", 8, True)
    stt = LosableSTT(losses=1, pieces=KEPT_BYTES // PIECE_BYTES + 1)
    assert facts_of(stt, bytes(KEPT_BYTES + 2)) == [ItemTranscriptionFailed(KEY, "it died")]


def test_rewound_audio_is_resampled_from_its_first_sample() -> None:
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


def test_language_and_prompt_reach_the_engine() -> None:
    stt = FunctionSTT(_half)
    facts_of(stt, SECOND)
    assert stt.asked == [("en", "names: Ada")]


def test_unexpected_exception_is_raised() -> None:
    async def listen(audio: AsyncIterator[bytes]) -> AsyncIterator[Transcript]:
        raise KeyError("a bug")
        yield

    with pytest.raises(ExceptionGroup) as raised:
        facts_of(FunctionSTT(listen), SECOND)
    assert raised.group_contains(KeyError, match="a bug")


def test_cancelling_closes_the_engine() -> None:
    async def main() -> None:
        stt = FunctionSTT(_half)
        posted: list[TranscriptUpdated | ItemTranscriptionFailed] = []
        sound = AudioFeed(16_000, lambda: None)
        task = asyncio.create_task(transcribe_item(stt, ORDER, sound, posted.append))
        sound.feed(SECOND)
        await asyncio.sleep(1)
        assert (stt.closed, len(posted)) == (False, 1)
        task.cancel()
        await asyncio.wait([task])
        assert stt.closed

    run(main())


@pytest.mark.parametrize("rate", [24_000, 16_000, 8_000])
def test_audio_feed_resamples_to_the_engine_rate(rate: int) -> None:
    pcm = np.random.default_rng(1).integers(-9000, 9000, 100_003).astype("<i2").tobytes()

    async def main() -> bytes:
        sound = AudioFeed(rate, lambda: None)
        for start in range(0, len(pcm), 30_002):
            sound.feed(pcm[start : start + 30_002])
        sound.finish()
        return b"".join([piece async for piece in sound])

    assert run(main()) == resample(pcm, 24_000, rate)


def test_audio_feed_lets_other_tasks_run_each_second_of_audio() -> None:
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


def test_empty_audio_feed_ends() -> None:
    async def main() -> list[bytes]:
        sound = AudioFeed(16_000, lambda: None)
        sound.finish()
        return [piece async for piece in sound]

    assert run(main()) == []


def test_small_waiting_pieces_are_taken_together() -> None:
    async def main() -> list[bytes]:
        sound = AudioFeed(24_000, lambda: None)
        for n in range(10):
            sound.feed(bytes([n, 0]))
        assert sound.waiting_bytes == 20
        sound.finish()
        return [piece async for piece in sound]

    assert run(main()) == [b"".join(bytes([n, 0]) for n in range(10))]


@pytest.mark.parametrize("rate", [24_000, 16_000])
def test_recorded_audio_is_resampled_and_read_twice_at_most(rate: int) -> None:
    pcm = np.random.default_rng(1).integers(-9000, 9000, 60_001).astype("<i2").tobytes()

    async def main() -> None:
        audio = RecordedAudio(pcm, 24_000, rate)
        await anext(audio)
        assert audio.rewind()
        assert b"".join([piece async for piece in audio]) == resample(pcm, 24_000, rate)
        assert not audio.rewind()

    run(main())


def test_recording_is_transcribed_again_when_the_recogniser_is_lost() -> None:
    stt = LosableSTT(losses=1, pieces=4)
    assert run(transcript_of(stt, A + B + C)) == "good day"
    assert stt.attempts == [A + B, A + B + C]
    with pytest.raises(EngineLost):
        run(transcript_of(LosableSTT(losses=2, pieces=1), A))


def test_whole_recording_is_transcribed() -> None:
    script = STTScript(sample_rate=24_000, transcripts=(ScriptedTranscript(" hello there "),))
    stt = ScriptedSTT(script)
    assert run(transcript_of(stt, SECOND)) == "hello there"
    assert stt.heard == [len(SECOND) // 2]


def test_recording_without_words_is_an_audio_error() -> None:
    with pytest.raises(AudioError, match="no speech"):
        run(transcript_of(ScriptedSTT(STTScript(transcripts=(ScriptedTranscript(" "),))), SECOND))


def test_engine_that_stalls_is_an_error() -> None:
    async def stall(audio: AsyncIterator[bytes]) -> AsyncIterator[Transcript]:
        yield Transcript("good")
        await asyncio.sleep(1000)

    async def main() -> None:
        audio = RecordedAudio(SECOND, 24_000, 16_000)
        async for _ in transcripts(FunctionSTT(stall), audio, stall_timeout_s=20.0):
            pass

    with pytest.raises(EngineError, match=r"^speech recognition gave nothing for 20 s$"):
        run(main())
