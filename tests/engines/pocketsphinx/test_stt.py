import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from tests.engines.pocketsphinx.speech import recording, synthetic
from vivavoce.audio.formats import RATE
from vivavoce.audio.resample import resample
from vivavoce.engines.base import Transcript
from vivavoce.engines.pocketsphinx.stt import PocketsphinxSettings, PocketsphinxSTT
from vivavoce.errors import EngineError, EngineLost
from vivavoce.runtime.transcription import AudioFeed, transcribe_item
from vivavoce.session.effects import StartTranscription
from vivavoce.session.facts import ItemTranscriptionFailed, TranscriptionKey, TranscriptUpdated
from vivavoce.testing.conformance import check_stt, check_transcripts

ONE_PLACE = PocketsphinxSettings(workers=1, streams_per_worker=1)
TWO_PLACES = PocketsphinxSettings(workers=1, streams_per_worker=2)


@pytest.fixture(scope="module")
def speech() -> bytes:
    return synthetic("what is the weather like")


async def pieces(audio: bytes, size: int = 3_200) -> AsyncIterator[bytes]:
    for start in range(0, len(audio), size):
        yield audio[start : start + size]


async def endless(audio: bytes) -> AsyncIterator[bytes]:
    yield audio
    await asyncio.Event().wait()


async def transcripts(engine: PocketsphinxSTT, audio: AsyncIterator[bytes]) -> list[Transcript]:
    return check_transcripts(
        [one async for one in engine.transcribe(audio, language=None, prompt="")]
    )


async def final(engine: PocketsphinxSTT, audio: AsyncIterator[bytes]) -> Transcript:
    return (await transcripts(engine, audio))[-1]


def test_pocketsphinx_conforms_to_the_contract(speech: bytes) -> None:
    async def main() -> None:
        async with PocketsphinxSTT(TWO_PLACES) as engine:
            await check_stt(engine, speech, language="en")

    asyncio.run(main())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("go_forward_ten_meters", "go forward ten meters"),
        ("ten_of_clubs", "ten of clubs"),
        ("hello_world", "hello world"),
    ],
)
def test_short_commands_are_recognised(name: str, words: str) -> None:
    audio = recording(name)

    async def main() -> Transcript:
        async with PocketsphinxSTT(ONE_PLACE) as engine:
            return await final(engine, pieces(audio))

    heard = asyncio.run(main())
    assert heard.text == words
    assert [word.text for word in heard.words] == words.split()
    assert 0 < heard.words[0].start_ms < heard.words[-1].end_ms <= len(audio) // 32


def test_words_do_not_depend_on_the_cutting_of_the_audio(speech: bytes) -> None:
    async def main() -> list[Transcript]:
        async with PocketsphinxSTT(TWO_PLACES) as engine:
            dumped = await final(engine, pieces(speech, len(speech)))
            dribbled = await final(engine, pieces(speech, 322))
            beside = await asyncio.gather(
                *(final(engine, pieces(speech, size)) for size in (640, 9_998))
            )
            return [dumped, dribbled, *beside]

    heard = asyncio.run(main())
    assert heard[0].text != ""
    assert heard == [heard[0]] * 4


def test_words_come_before_the_audio_ends(speech: bytes) -> None:
    async def main() -> Transcript:
        async with PocketsphinxSTT(ONE_PLACE) as engine:
            hearing = engine.transcribe(endless(speech), language=None, prompt="")
            async with aclosing(hearing):
                return await anext(hearing)

    heard = asyncio.run(main())
    assert heard.text != ""
    assert not heard.final


def test_killed_process_loses_its_utterance_only(speech: bytes) -> None:
    async def main() -> tuple[str, Transcript]:
        async with PocketsphinxSTT(ONE_PLACE) as engine:
            hearing = engine.transcribe(endless(speech), language=None, prompt="")
            async with aclosing(hearing):
                await anext(hearing)
                engine.host.processes[0].kill()
                with pytest.raises(EngineLost) as caught:
                    async for _ in hearing:
                        pass
            return str(caught.value), await final(engine, pieces(speech))

    said, heard = asyncio.run(main())
    assert said == ("[engines.stt.pocketsphinx] its worker process was killed by signal 9")
    assert heard.text != ""


def test_turn_in_a_killed_process_is_transcribed_by_the_next(speech: bytes) -> None:
    async def main() -> tuple[str, str]:
        async with PocketsphinxSTT(ONE_PLACE) as engine:
            undisturbed = await final(engine, pieces(speech))
            sound = AudioFeed(engine.sample_rate, lambda: None)
            told: list[TranscriptUpdated | ItemTranscriptionFailed] = []
            begun = asyncio.Event()

            def tell(fact: TranscriptUpdated | ItemTranscriptionFailed) -> None:
                told.append(fact)
                begun.set()

            order = StartTranscription(TranscriptionKey("item_1"), "house", "en", "")
            dictation = asyncio.create_task(transcribe_item(engine, order, sound, tell))
            sound.feed(resample(speech, engine.sample_rate, RATE))
            await begun.wait()
            engine.host.processes[0].kill()
            sound.finish()
            await dictation
            last = told[-1]
            assert isinstance(last, TranscriptUpdated)
            assert last.final
            return undisturbed.text, last.text

    undisturbed, heard = asyncio.run(main())
    assert heard == undisturbed


def test_utterance_beyond_capacity_waits_for_a_place(speech: bytes) -> None:
    async def main() -> Transcript:
        async with PocketsphinxSTT(ONE_PLACE) as engine:
            first = engine.transcribe(endless(speech), language=None, prompt="")
            async with aclosing(first):
                await anext(first)
                waiting = asyncio.create_task(final(engine, pieces(speech)))
                await asyncio.wait([waiting], timeout=0.01)
                assert not waiting.done()
            return await waiting

    assert asyncio.run(main()).final


def test_waiting_for_a_place_ends_with_engine_error(speech: bytes) -> None:
    async def main() -> str:
        settings = PocketsphinxSettings(workers=1, streams_per_worker=1, wait_seconds=0.01)
        async with PocketsphinxSTT(settings) as engine:
            first = engine.transcribe(endless(speech), language=None, prompt="")
            async with aclosing(first):
                await anext(first)
                with pytest.raises(EngineError) as caught:
                    await final(engine, pieces(speech))
                return str(caught.value)

    assert asyncio.run(main()) == (
        "[engines.stt.pocketsphinx] all places were taken for 0.01 s; "
        "raise workers or streams_per_worker"
    )


def test_utterance_closed_during_a_backlog_frees_its_place(speech: bytes) -> None:
    async def main() -> list[int]:
        async with PocketsphinxSTT(ONE_PLACE) as engine:
            hearing = engine.transcribe(endless(speech * 20), language=None, prompt="")
            await anext(hearing)
            await hearing.aclose()
            taken = [process.places_taken for process in engine.host.processes]
            await final(engine, pieces(b""))
            return taken

    assert asyncio.run(main()) == [0]


def test_error_of_the_audio_is_raised() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield bytes(3_200)
        raise EngineError("the line is dead")

    async def main() -> None:
        async with PocketsphinxSTT(ONE_PLACE) as engine:
            with pytest.raises(EngineError, match="the line is dead"):
                await final(engine, broken())
            assert (await final(engine, pieces(b""))).text == ""

    asyncio.run(main())


def test_leaving_the_engine_ends_its_transcriptions(speech: bytes) -> None:
    async def main() -> None:
        engine = PocketsphinxSTT(ONE_PLACE)
        async with engine:
            hearing = engine.transcribe(endless(speech), language=None, prompt="")
            await anext(hearing)
        with pytest.raises(EngineError, match="the engine was closed") as caught:
            async for _ in hearing:
                pass
        assert not isinstance(caught.value, EngineLost)  # nobody should try again

    asyncio.run(main())


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_engine_does_not_import_the_decoder() -> None:
    code = "import sys, vivavoce.engines.pocketsphinx.stt; print('pocketsphinx' in sys.modules)"
    assert python(code) == "False"


def test_missing_package_is_named() -> None:
    code = """
import sys
from importlib.machinery import PathFinder

class WithoutIt(PathFinder):
    @classmethod
    def find_spec(cls, name, *rest):
        return None if name == "pocketsphinx" else super().find_spec(name, *rest)

sys.meta_path = [WithoutIt if finder is PathFinder else finder for finder in sys.meta_path]
try:
    import vivavoce.engines.pocketsphinx.stt
except ModuleNotFoundError as missing:
    print(missing.name)
"""
    assert python(code) == "pocketsphinx"
