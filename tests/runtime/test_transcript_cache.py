"""A recording is transcribed once, however often it is sent."""

import asyncio

import pytest

from vivavoce.errors import EngineError, LimitReached
from vivavoce.runtime.transcript_cache import TranscriptCache
from vivavoce.testing.virtual_time import run


class CountedJob:
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


def test_recording_is_transcribed_once() -> None:
    async def main() -> None:
        cache, job = TranscriptCache(), CountedJob()
        for key in ("a", "a", "b"):
            assert await cache.transcript(key, job) == "hello"
        assert job.begun == 2

    run(main())


def test_concurrent_requests_share_one_job() -> None:
    async def main() -> None:
        cache, job = TranscriptCache(), CountedJob()
        heard = await asyncio.gather(*(cache.transcript("a", job) for _ in range(3)))
        assert (heard, job.begun) == (["hello"] * 3, 1)

    run(main())


def test_failure_is_raised_to_all_and_not_kept() -> None:
    async def main() -> None:
        cache, job = TranscriptCache(), CountedJob(error="deaf")
        both = (cache.transcript("a", job) for _ in range(2))
        got = await asyncio.gather(*both, return_exceptions=True)
        assert list(map(str, got)) == ["deaf", "deaf"]
        assert await cache.transcript("a", CountedJob("now")) == "now"

    run(main())


def test_job_is_cancelled_with_its_last_request() -> None:
    async def main() -> None:
        cache, job = TranscriptCache(), CountedJob()
        first, second = (asyncio.create_task(cache.transcript("a", job)) for _ in range(2))
        await asyncio.sleep(0.5)
        first.cancel()
        await asyncio.sleep(0.1)
        assert await second == "hello"
        third = asyncio.create_task(cache.transcript("b", job))
        await asyncio.sleep(0.5)
        third.cancel()
        await asyncio.wait((third,))
        await asyncio.sleep(2)
        assert (job.begun, job.ended) == (2, 1)

    run(main())


def test_jobs_at_a_time_are_bounded() -> None:
    async def main() -> None:
        cache, job = TranscriptCache(max_running=2), CountedJob()
        await asyncio.gather(*(cache.transcript(n, job) for n in range(4)))
        assert asyncio.get_running_loop().time() == pytest.approx(2)

    run(main())


@pytest.mark.parametrize("bound", [{"max_entries": 2}, {"max_bytes": 2 * (128 + 5)}])
def test_least_recently_used_transcript_is_dropped(bound: dict[str, int]) -> None:
    async def main() -> None:
        cache, job = TranscriptCache(**bound), CountedJob()
        for key in ("a", "b", "a", "c"):
            await cache.transcript(key, job)
        assert job.begun == 3
        await cache.transcript("a", job)
        assert job.begun == 3
        await cache.transcript("b", job)
        assert job.begun == 4

    run(main())


def test_jobs_that_wait_are_bounded() -> None:
    async def main() -> None:
        cache, job = TranscriptCache(max_running=1, max_waiting=1), CountedJob()
        results = await asyncio.gather(
            *(cache.transcript(n, job) for n in range(3)), return_exceptions=True
        )
        assert results[:2] == ["hello"] * 2
        assert isinstance(results[2], LimitReached)
        assert await cache.transcript(2, job) == "hello"

    run(main())
