"""Recordings are transcribed piece by piece. Files are read in threads, so this is real time."""

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from io import BytesIO
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.api.audio_stage import quiet, tone
from tests.api.routes_stage import wav_of
from vivavoce.audio.formats import RATE
from vivavoce.engines.base import STT, Transcript, Word
from vivavoce.engines.scripted.engines import ScriptedSTT, ScriptedVAD
from vivavoce.engines.scripted.scripts import STTScript, VADScript
from vivavoce.errors import AudioError, EngineError
from vivavoce.media.decoding import Bounds, SoundFile
from vivavoce.runtime.file_transcription import FileTranscriber, Passage, stretches
from vivavoce.runtime.vad_batcher import VadBatcher

TALK = (tone(0.8) + quiet(1.6)) * 3


def scripted(**script: Any) -> ScriptedSTT:
    return ScriptedSTT(msgspec.convert(script, STTScript))


def vad() -> VadBatcher:
    return VadBatcher(ScriptedVAD(VADScript()))


async def passages(
    stt: STT, file: SoundFile, *, slots: int = 2, stall_timeout_s: float = 5.0
) -> AsyncGenerator[tuple[Passage, list[str]]]:
    """Each with the text as it came."""
    transcriber = FileTranscriber(stt, asyncio.Semaphore(slots), stall_timeout_s=stall_timeout_s)
    async for passage in transcriber.passages(file, vad()):
        yield passage, [delta.text async for delta in passage.deltas()]


async def texts(stt: STT, file: SoundFile, **options: Any) -> list[str]:
    return [passage.text async for passage, _ in passages(stt, file, **options)]


def test_stretches_have_their_times_and_their_sound() -> None:
    pcm = quiet(0.5) + tone(1.0) + quiet(2.0) + tone(0.5)

    async def main() -> list[tuple[int, int, bytes]]:
        file = SoundFile(BytesIO(wav_of(pcm)))
        return [(one.start_ms, one.end_ms, one.pcm) async for one in stretches(file, vad())]

    found = asyncio.run(main())
    assert [(start, end) for start, end, _ in found] == [(288, 1696), (3296, 4000)]
    for start, end, heard in found:
        assert heard == pcm[start * 48 : end * 48]


def test_long_sound_without_a_pause_is_cut() -> None:
    pcm = tone(70.0)

    async def main() -> list[bytes]:
        return [one.pcm async for one in stretches(SoundFile(BytesIO(wav_of(pcm))), vad())]

    found = asyncio.run(main())
    assert max(map(len, found)) <= 30 * 2 * RATE
    assert b"".join(found) == pcm


def test_passages_come_in_order_even_if_a_later_one_is_ready_first() -> None:
    stt = scripted(transcripts=[{"text": "one", "delay_seconds": 0.05}, "two", "three"])
    assert asyncio.run(texts(stt, SoundFile(BytesIO(wav_of(TALK))))) == ["one", "two", "three"]


def test_word_times_count_from_the_start_of_the_recording() -> None:
    async def main() -> list[tuple[Word, ...]]:
        stt = scripted(transcripts=["one two"], word_times=True, word_ms=100)
        file = SoundFile(BytesIO(wav_of(quiet(1.0) + tone(0.5))))
        return [passage.words async for passage, _ in passages(stt, file)]

    assert asyncio.run(main()) == [(Word("one", 800, 900), Word("two", 900, 1000))]


def test_deltas_come_as_text_becomes_stable() -> None:
    class Certain(ScriptedSTT):
        async def transcribe(
            self, audio: AsyncIterator[bytes], *, language: str | None, prompt: str
        ) -> AsyncGenerator[Transcript]:
            async for _ in audio:
                pass
            for heard in (
                Transcript(" one to", 5),
                Transcript(" one two th", 9),
                Transcript(" one two th", 9),
                Transcript(" one two three ", 15, final=True),
            ):
                yield heard
                await asyncio.sleep(0)

    async def main() -> list[list[str]]:
        file = SoundFile(BytesIO(wav_of(tone(0.5))))
        return [deltas async for _, deltas in passages(Certain(STTScript()), file)]

    (deltas,) = asyncio.run(main())
    assert "".join(deltas) == "one two three"
    assert deltas[0] == "one"


def test_first_words_come_while_the_file_is_still_decoded() -> None:
    """The second half of the file is readable only after the first words were reported."""
    heard = threading.Event()
    data = wav_of((tone(2.0) + quiet(3.0)) * 20)

    class Withheld(BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            scanning = size == 1 << 20  # for joined files, before anything is decoded
            if self.tell() > len(data) // 2 and not scanning:
                assert heard.wait(5), "no words of the first half"
            return super().read(size)

    async def main() -> int:
        got = 0
        async for _, _ in passages(scripted(), SoundFile(Withheld(data))):
            got += 1
            heard.set()
        return got

    assert asyncio.run(main()) == 20


def test_passages_before_an_error_are_recognised() -> None:
    got: list[str] = []

    async def main() -> None:
        file = SoundFile(BytesIO(wav_of(TALK)), bounds=Bounds(max_seconds=6.0))
        async for passage, _ in passages(scripted(transcripts=["one", "two"]), file):
            got.append(passage.text)

    with pytest.raises(AudioError, match=r"lasts longer than 6 s"):
        asyncio.run(main())
    assert got == ["one"]


@pytest.mark.parametrize(
    ("transcript", "stall_timeout_s", "message"),
    [
        ({"error": "it broke"}, 5.0, "it broke"),
        ({"stall": True}, 0.01, "speech recognition gave nothing for 0.01 s"),
    ],
)
def test_engine_failure_is_raised(
    transcript: dict[str, object], stall_timeout_s: float, message: str
) -> None:
    stt = scripted(transcripts=[transcript])
    with pytest.raises(EngineError, match=message):
        asyncio.run(texts(stt, SoundFile(BytesIO(wav_of(TALK))), stall_timeout_s=stall_timeout_s))


def test_engine_without_a_final_transcript_is_an_error() -> None:
    class Mute(ScriptedSTT):
        async def transcribe(
            self, audio: AsyncIterator[bytes], *, language: str | None, prompt: str
        ) -> AsyncGenerator[Transcript]:
            async for _ in audio:
                pass
            yield Transcript("so far", 3)

    with pytest.raises(EngineError, match="ended without a result"):
        asyncio.run(texts(Mute(STTScript()), SoundFile(BytesIO(wav_of(TALK)))))


def test_vad_failure_is_an_error() -> None:
    class FailingVad(ScriptedVAD):
        def score(
            self, windows: NDArray[np.float32], streams: NDArray[np.intp]
        ) -> NDArray[np.float32]:
            raise EngineError("no model")

    async def main() -> None:
        async for _ in stretches(
            SoundFile(BytesIO(wav_of(TALK))), VadBatcher(FailingVad(VADScript()))
        ):
            pass

    with pytest.raises(EngineError, match="no model"):
        asyncio.run(main())


def test_leaving_early_closes_the_engines_streams() -> None:
    closed = []

    class Closing(ScriptedSTT):
        async def transcribe(
            self, audio: AsyncIterator[bytes], *, language: str | None, prompt: str
        ) -> AsyncGenerator[Transcript]:
            try:
                yield Transcript("one", 3)
                await asyncio.Event().wait()
            finally:
                closed.append(True)

    async def main() -> str:
        transcriber = FileTranscriber(Closing(STTScript()), asyncio.Semaphore(2))
        found = transcriber.passages(SoundFile(BytesIO(wav_of(TALK))), vad())
        passage = await anext(found)
        delta = await anext(passage.deltas())
        await found.aclose()
        return delta.text

    assert asyncio.run(main()) == "one"
    assert 1 <= len(closed) <= 2
