"""Moonshine with its real weights: `vivavoce models pull` fetches them."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from tests.engines.pocketsphinx.speech import RECORDINGS, recording, synthetic
from vivavoce.audio.resample import resample
from vivavoce.engines.base import Transcript
from vivavoce.engines.moonshine.stt import PACK, MoonshineSettings, MoonshineSTT
from vivavoce.engines.packs import problem_of
from vivavoce.errors import EngineError
from vivavoce.media import files
from vivavoce.runtime.transcription import RecordedAudio, transcripts
from vivavoce.testing.conformance import check_stt, check_transcripts

pulled = pytest.mark.skipif(problem_of(PACK) is not None, reason=f"{PACK} is not installed")
RATE = 16_000


async def pieces(audio: bytes, size: int = 640) -> AsyncIterator[bytes]:
    for start in range(0, len(audio), size):
        yield audio[start : start + size]


def worker_pid() -> int:
    """The process of the engine: the only child of this one that runs engines."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    (worker,) = (
        int(child)
        for child in children
        if b"vivavoce.engines.worker" in Path(f"/proc/{child}/cmdline").read_bytes()
    )
    return worker


def transcripts_of(*recordings: bytes) -> list[list[Transcript]]:
    """What one worker recognises in each, all at once."""

    async def one(engine: MoonshineSTT, audio: bytes) -> list[Transcript]:
        heard = engine.transcribe(pieces(audio), language=None, prompt="")
        return check_transcripts([each async for each in heard])

    async def main() -> list[list[Transcript]]:
        async with MoonshineSTT(MoonshineSettings()) as engine:
            return list(await asyncio.gather(*(one(engine, audio) for audio in recordings)))

    return asyncio.run(main())


@pulled
def test_moonshine_conforms_to_the_contract() -> None:
    speech = synthetic("what is the weather like")

    async def main() -> None:
        async with MoonshineSTT(MoonshineSettings()) as engine:
            await check_stt(engine, speech, language="en")

    asyncio.run(main())


@pulled
@pytest.mark.skipif(not RECORDINGS.is_dir(), reason="needs real recordings beside the project")
def test_utterance_in_a_process_that_hangs_is_recognised_by_its_successor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(MoonshineSTT, "hang_seconds", 1.0)
    audio = recording("go_forward_ten_meters")

    async def main() -> str:
        async with MoonshineSTT(MoonshineSettings()) as engine:
            await engine.host.loaded(object)
            os.kill(worker_pid(), signal.SIGSTOP)
            given = RecordedAudio(audio, RATE, RATE)
            heard = [each async for each in transcripts(engine, given)]
            return heard[-1].text

    assert asyncio.run(main()).lower().strip(".") in (
        "go forward ten meters",
        "go forward 10 meters",
    )


@pulled
def test_silence_noise_hum_and_clicks_have_no_words() -> None:
    random, at = np.random.default_rng(1), np.arange(2 * RATE) / RATE
    sounds = [np.zeros(2 * RATE), *(random.normal(size=2 * RATE) * level for level in (1e-3, 0.1))]
    sounds += [0.3 * np.sin(2 * np.pi * hertz * at) for hertz in (50, 140, 440, 1000)]
    vowel = 0.5 * np.sin(2 * np.pi * 140 * at) + 0.2 * np.sin(2 * np.pi * 700 * at)
    clicks = np.zeros(2 * RATE)
    clicks[::4000] = 0.9
    pcm = [(32767 * np.clip(s, -1, 1)).astype("<i2").tobytes() for s in (*sounds, vowel, clicks)]
    assert [heard[-1].text for heard in transcripts_of(*pcm)] == [""] * len(pcm)


@pulled
def test_music_like_sounds_have_no_words_at_any_level() -> None:
    at = np.arange(3 * RATE) / RATE
    notes = np.array([262, 294, 330, 349, 392, 440])[np.minimum((at * 2).astype(int), 5)]
    melody = np.zeros(len(at))
    for ratio in (1, 1.5, 2):
        melody += np.sin(2 * np.pi * notes * ratio * (at % 0.5)) * np.exp(-(at % 0.5) * 4) / 3
    chord = sum(np.sin(2 * np.pi * hertz * at) for hertz in (220, 277, 330)) / 3
    sweep = np.sin(2 * np.pi * (200 + 200 * at) * at)
    trill = np.sin(2 * np.pi * 200 * at) * (1 + np.sin(2 * np.pi * 4 * at)) / 2
    pcm = [
        (32767 * np.clip(sound * 10 ** (level / 20), -1, 1)).astype("<i2").tobytes()
        for sound in (melody, chord, sweep, trill)
        for level in (-50, -20, -6)
    ]
    heard = transcripts_of(*pcm)
    assert [each.text for one in heard for each in one if each.text] == []


@pulled
@pytest.mark.skipif(not RECORDINGS.is_dir(), reason="needs real recordings beside the project")
def test_recordings_at_once_are_recognised_with_partials_and_times() -> None:
    pcm24 = files.read((RECORDINGS / "jfk.flac").read_bytes())
    jfk = resample(pcm24, 24_000, RATE)
    long, short = transcripts_of(jfk, recording("go_forward_ten_meters"))
    assert short[-1].text.lower().strip(".") in ("go forward ten meters", "go forward 10 meters")
    words = "".join(c for c in long[-1].text.lower() if c.isalpha() or c == " ").split()
    expected = "and so my fellow americans ask not what your country can do for you "
    expected += "ask what you can do for your country"
    assert sum(a != b for a, b in zip(words, expected.split(), strict=True)) <= 1
    assert len(long) > 4
    assert any(each.stable and not each.final for each in long)
    asked = next(w for w in reversed(long[-1].words) if w.text.lower() == "ask")
    assert 7_000 < asked.start_ms < 9_000  # spoken at about 8 s; times are estimated
    scores = [word.logprob for transcript in (*long, *short) for word in transcript.words]
    assert all(score is not None and score <= 0.0 for score in scores)
    assert sum(score or 0.0 for score in scores) / len(scores) > -0.5


def test_missing_folder_and_foreign_folder_are_refused_with_the_place(tmp_path: Path) -> None:
    async def enter(model: str) -> None:
        async with MoonshineSTT(MoonshineSettings(model=model)):
            pass

    with pytest.raises(EngineError, match="neither a folder nor the name of a model; known: moon"):
        asyncio.run(enter("no-such-model"))
    with pytest.raises(EngineError, match=r"holds no Moonshine model: there is no encoder_model"):
        asyncio.run(enter(str(tmp_path)))
