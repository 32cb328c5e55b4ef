"""Whisper with its real weights: `vivavoce models pull whisper-tiny.en whisper-base`."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.engines.pocketsphinx.speech import RECORDINGS, recording, synthetic
from vivavoce.audio.resample import resample
from vivavoce.engines.base import Transcript
from vivavoce.engines.packs import problem_of
from vivavoce.errors import EngineError
from vivavoce.media import files
from vivavoce.testing.conformance import check_stt, check_transcripts

pytest.importorskip("faster_whisper", reason="faster-whisper is not installed")

from vivavoce.engines.whisper.stt import WhisperSettings, WhisperSTT

TINY, BASE = "whisper-tiny.en", "whisper-base"
RATE = 16_000
JFK = (
    "and so my fellow americans ask not what your country can do for you "
    "ask what you can do for your country"
)


def needs(pack: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(problem_of(pack) is not None, reason=f"{pack} is not installed")


recordings = pytest.mark.skipif(
    not RECORDINGS.is_dir(), reason="needs real recordings beside the project"
)


async def pieces(audio: bytes, size: int = 6400) -> AsyncIterator[bytes]:
    for start in range(0, len(audio), size):
        yield audio[start : start + size]


def heard(
    settings: WhisperSettings, audio: Sequence[bytes], prompt: str = "", *, english: bool = False
) -> list[list[Transcript]]:
    """What one worker recognises in each, all at once."""

    async def one(engine: WhisperSTT, sound: bytes) -> list[Transcript]:
        made = engine.transcribe(pieces(sound), language=None, prompt=prompt)
        return check_transcripts([each async for each in made])

    async def main() -> list[list[Transcript]]:
        async with WhisperSTT(settings) as engine:
            asked = engine.for_translation() if english else engine
            assert asked is not None
            return list(await asyncio.gather(*(one(asked, sound) for sound in audio)))

    return asyncio.run(main())


def plain(text: str) -> str:
    return "".join(c for c in text.lower() if c.isalpha() or c == " ").strip()


def jfk() -> bytes:
    return resample(files.read((RECORDINGS / "jfk.flac").read_bytes()), 24_000, RATE)


@needs(TINY)
def test_whisper_conforms_to_the_contract() -> None:
    speech = synthetic("what is the weather like")

    async def main() -> None:
        async with WhisperSTT(WhisperSettings(model=TINY)) as engine:
            await check_stt(engine, speech, language="en")

    asyncio.run(main())


@needs(TINY)
def test_silence_noise_hum_and_clicks_have_no_words() -> None:
    random, at = np.random.default_rng(1), np.arange(2 * RATE) / RATE
    sounds = [np.zeros(2 * RATE), *(random.normal(size=2 * RATE) * level for level in (1e-3, 0.1))]
    sounds += [0.3 * np.sin(2 * np.pi * hertz * at) for hertz in (50, 140, 440, 1000)]
    clicks = np.zeros(2 * RATE)
    clicks[::4000] = 0.9
    pcm = [(32767 * np.clip(s, -1, 1)).astype("<i2").tobytes() for s in (*sounds, clicks)]
    found = heard(WhisperSettings(model=TINY), pcm)
    assert [each[-1].text for each in found] == [""] * len(pcm)


@needs(TINY)
@recordings
def test_batch_of_recordings_has_words_times_and_probabilities() -> None:
    short = recording("go_forward_ten_meters")
    first, second = heard(WhisperSettings(model=TINY), [jfk(), short])
    assert plain(first[-1].text) == JFK
    assert first[-1].language == "en"
    asked = [word for word in first[-1].words if plain(word.text) == "ask"][-1]
    assert 7_800 < asked.start_ms < 8_500  # spoken at 8.1 s
    assert all(word.logprob is not None and word.logprob <= 0 for word in first[-1].words)
    assert plain(second[-1].text).split()[:2] == ["go", "forward"]


@needs(BASE)
@recordings
def test_language_is_detected_and_long_audio_is_cut_into_passages() -> None:
    (found,) = heard(
        WhisperSettings(model=BASE), [jfk() + bytes(2 * RATE) + jfk() + jfk()[: 22 * RATE]]
    )
    assert found[-1].language == "en"
    # the end stands in a passage of its own, too short for the model to be sure of every word
    assert plain(found[-1].text).count("ask not what your country can do for you") >= 2
    assert plain(found[-1].text).count("and so my fellow") == 3
    assert found[-1].words[-1].end_ms > 33_000


def test_english_model_and_unknown_folder_are_refused_with_the_place(tmp_path: Path) -> None:
    async def enter(model: str) -> None:
        async with WhisperSTT(WhisperSettings(model=model)):
            pass

    with pytest.raises(EngineError, match="neither a folder nor the name of a model"):
        asyncio.run(enter("smal"))
    with pytest.raises(EngineError, match=r"holds no Whisper model of CTranslate2"):
        asyncio.run(enter(str(tmp_path)))
    assert WhisperSTT(WhisperSettings(model=TINY)).for_translation() is None


def test_damaged_model_is_one_sentence_with_the_remedy(tmp_path: Path) -> None:
    for name in ("model.bin", "config.json", "tokenizer.json"):
        (tmp_path / name).write_text("{}")

    async def main() -> None:
        async with WhisperSTT(WhisperSettings(model=str(tmp_path))) as engine:
            async for _ in engine.transcribe(pieces(bytes(9600)), language=None, prompt=""):
                pass

    with pytest.raises(EngineError, match=r"model: .* cannot be used: .*; check model, device"):
        asyncio.run(main())
