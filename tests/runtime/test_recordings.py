"""A recording is heard once, whoever sends it and however often."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

import msgspec
import pytest

from vivavoce.engines.base import Transcript
from vivavoce.engines.scripted.engines import ScriptedSTT
from vivavoce.engines.scripted.scripts import STTScript
from vivavoce.errors import AudioError, EngineError
from vivavoce.runtime.transcript_cache import TranscriptCache, words
from vivavoce.testing.virtual_time import run

LOUD = b"\x00\x20" * 24_000


class Hearing:
    """Takes a second for each recording."""

    def __init__(self, text: str = "hello", error: str = "") -> None:
        self.begun = self.ended = 0
        self._text = text
        self._error = error

    async def __call__(self) -> str:
        self.begun += 1
        await asyncio.sleep(1)
        self.ended += 1
        if self._error:
            raise EngineError(self._error)
        return self._text


def test_what_was_heard_once_is_not_heard_again() -> None:
    async def main() -> None:
        recordings, hear = TranscriptCache(), Hearing()
        for key in ("a", "a", "b"):
            assert await recordings.transcript(key, hear) == "hello"
        assert hear.begun == 2

    run(main())


def test_who_asks_at_the_same_time_waits_for_the_same_hearing() -> None:
    async def main() -> None:
        recordings, hear = TranscriptCache(), Hearing()
        heard = await asyncio.gather(*(recordings.transcript("a", hear) for _ in range(3)))
        assert (heard, hear.begun) == (["hello"] * 3, 1)

    run(main())


def test_a_failure_is_told_to_all_and_tried_again() -> None:
    async def main() -> None:
        recordings, hear = TranscriptCache(), Hearing(error="deaf")
        both = (recordings.transcript("a", hear) for _ in range(2))
        told = await asyncio.gather(*both, return_exceptions=True)
        assert list(map(str, told)) == ["deaf", "deaf"]
        assert await recordings.transcript("a", Hearing("now")) == "now"

    run(main())


def test_the_last_who_goes_stops_the_hearing() -> None:
    async def main() -> None:
        recordings, hear = TranscriptCache(), Hearing()
        first, second = (asyncio.create_task(recordings.transcript("a", hear)) for _ in range(2))
        await asyncio.sleep(0.5)
        first.cancel()
        await asyncio.sleep(0.1)
        assert await second == "hello"
        third = asyncio.create_task(recordings.transcript("b", hear))
        await asyncio.sleep(0.5)
        third.cancel()
        await asyncio.wait((third,))
        await asyncio.sleep(2)
        assert (hear.begun, hear.ended) == (2, 1)

    run(main())


def test_so_many_are_heard_at_once_and_no_more() -> None:
    async def main() -> None:
        recordings, hear = TranscriptCache(most_at_once=2), Hearing()
        await asyncio.gather(*(recordings.transcript(n, hear) for n in range(4)))
        assert asyncio.get_running_loop().time() == pytest.approx(2)

    run(main())


@pytest.mark.parametrize("bound", [{"most_entries": 2}, {"most_bytes": 2 * (128 + 5)}])
def test_the_one_not_asked_for_the_longest_is_forgotten(bound: dict[str, int]) -> None:
    async def main() -> None:
        recordings, hear = TranscriptCache(**bound), Hearing()
        for key in ("a", "b", "a", "c"):
            await recordings.transcript(key, hear)
        assert hear.begun == 3
        await recordings.transcript("a", hear)
        assert hear.begun == 3
        await recordings.transcript("b", hear)
        assert hear.begun == 4

    run(main())


def test_all_of_a_recording_is_heard() -> None:
    async def main() -> None:
        stt = ScriptedSTT(msgspec.convert({"transcripts": [" hello there "]}, STTScript))
        assert await words(stt, LOUD) == "hello there"
        assert stt.heard == [len(LOUD) // 2]

    run(main())


def test_a_recording_without_words_is_refused() -> None:
    stt = ScriptedSTT(msgspec.convert({"transcripts": [" "]}, STTScript))
    with pytest.raises(AudioError, match="no speech"):
        run(words(stt, LOUD))


class Mute(ScriptedSTT):
    """Ends without a final transcript."""

    async def transcribe(
        self, audio: AsyncIterator[bytes], *, language: str | None, prompt: str
    ) -> AsyncGenerator[Transcript]:
        yield Transcript("hel")


def test_an_engine_that_ends_without_a_result_is_an_error() -> None:
    with pytest.raises(EngineError, match="without a result"):
        run(words(Mute(STTScript()), LOUD))
