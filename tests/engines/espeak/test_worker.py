"""The real library, in a process of its own: it must not come into the process of the tests."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from vivavoce.engines.espeak.voices import Manner, SpeakRequest, SpokenChunk
from vivavoce.engines.host import WorkerHost
from vivavoce.errors import EngineError

TEXT = "Hello there, world. This is fine."
Host = WorkerHost[SpokenChunk]


def with_host(main: Callable[[Host], Coroutine[Any, Any, Any]]) -> Any:
    async def entered() -> Any:
        host = WorkerHost(
            "vivavoce.engines.espeak.worker:EspeakWorker", name="tts.espeak", message=SpokenChunk
        )
        async with host:
            return await main(host)

    return asyncio.run(entered())


async def chunks(
    host: Host, text: str, *, voice: str = "gmw/en-US", wpm: int = 175, room: int = 10**9
) -> list[SpokenChunk]:
    async with host.open(SpeakRequest(text, Manner(voice, wpm), room)) as stream:
        return [chunk async for chunk in stream]


def samples(spoken: list[SpokenChunk]) -> int:
    return sum(len(chunk.audio) for chunk in spoken) // 2


def test_words_are_counted_in_characters_and_samples() -> None:
    spoken: list[SpokenChunk] = with_host(lambda host: chunks(host, "Größe über ß, naïve 日本 end"))
    words = [word for chunk in spoken for word in chunk.words]
    first = {position: sample for position, _, sample in reversed(words)}
    assert {0, 6, 11, 14, 20, 23} <= set(first)
    assert list(first.values()) == sorted(first.values(), reverse=True)
    assert 0 < first[23] < samples(spoken)


def test_text_is_left_at_a_clause_when_the_wanted_length_is_reached() -> None:
    async def main(host: Host) -> tuple[list[SpokenChunk], ...]:
        first = await chunks(host, TEXT, room=1)
        rest = await chunks(host, TEXT[first[-1].next_offset :])
        return first, rest, await chunks(host, TEXT)

    first, rest, whole = with_host(main)
    assert TEXT[first[-1].next_offset :] == "world. This is fine."
    assert abs(samples(first) + samples(rest) - samples(whole)) < 500
    assert whole[-1].next_offset is None


def test_leaving_the_stream_stops_the_speech_in_the_middle() -> None:
    async def main(host: Host) -> int:
        long = SpeakRequest("word " * 20_000, Manner("gmw/en-US", 175), 10**9)
        async with host.open(long) as stream:
            await anext(stream)
        return samples(await chunks(host, TEXT))

    assert 22050 < with_host(main) < 5 * 22050


def test_unknown_voice_is_an_error_and_the_process_goes_on() -> None:
    async def main(host: Host) -> tuple[str, int]:
        try:
            await chunks(host, TEXT, voice="xx/none")
        except EngineError as exc:
            return str(exc), samples(await chunks(host, TEXT))
        return "", 0

    message, after = with_host(main)
    assert "[engines.tts.espeak] espeak-ng cannot load the voice 'xx/none'" in message
    assert after > 22050


def test_speech_can_be_faster_than_450_words_a_minute() -> None:
    async def main(host: Host) -> float:
        fast = samples(await chunks(host, TEXT, wpm=450))
        return samples(await chunks(host, TEXT, wpm=900)) / fast

    assert 0.4 < with_host(main) < 0.65
