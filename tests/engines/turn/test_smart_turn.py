"""smart-turn with its real weights: `vivavoce models pull` fetches them."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest

from tests.engines.pocketsphinx.speech import RECORDINGS, recording
from vivavoce.audio.mel import RATE
from vivavoce.audio.resample import resample
from vivavoce.engines.packs import problem_of
from vivavoce.engines.turn.smart_turn import PACK, SmartTurn, SmartTurnSettings
from vivavoce.engines.turn.smart_turn_worker import BANDS, FILTERS, FRAMES, SAMPLES, features
from vivavoce.errors import EngineError
from vivavoce.media import files
from vivavoce.testing.conformance import check_turn

pulled = pytest.mark.skipif(problem_of(PACK) is not None, reason=f"{PACK} is not installed")
recorded = pytest.mark.skipif(not RECORDINGS.is_dir(), reason="needs recordings beside the project")


def with_engine(work: Callable[[SmartTurn], Awaitable[None]]) -> None:
    async def main() -> None:
        async with SmartTurn(SmartTurnSettings()) as turn:
            await turn.score_audio(bytes(4_800), "", language=None)  # the model is loaded
            await work(turn)

    asyncio.run(main())


@pulled
def test_smart_turn_conforms_to_the_contract() -> None:
    with_engine(check_turn)


@pulled
@recorded
def test_speaker_who_pauses_is_held_and_one_who_has_finished_is_not() -> None:
    async def work(turn: SmartTurn) -> None:
        jfk = files.read((RECORDINGS / "jfk.flac").read_bytes())
        for seconds in (2.0, 3.6, 5.6, 8.0):  # in the pauses, and once within a word
            assert (
                await turn.score_audio(
                    jfk[: int(seconds * 24_000) * 2][-384_000:], "", language=None
                )
                < 0.2
            )
        assert await turn.score_audio(jfk[-384_000:], "", language=None) > 0.5
        command = resample(recording("go_forward_ten_meters"), 16_000, 24_000)
        assert await turn.score_audio(command, "", language=None) > 0.9
        assert await turn.score_audio(command, "go forward ten", language="en") > 0.9

    with_engine(work)


@pulled
def test_sound_is_not_scored_while_the_process_is_down() -> None:
    async def work(turn: SmartTurn) -> None:
        host, turn._host = turn._host, None
        with pytest.raises(EngineError):
            await turn.score_audio(bytes(48_000), "what time is it", language="en")
        turn._host = host
        assert 0 <= await turn.score_audio(bytes(48_000), "what time is it", language="en") <= 1

    with_engine(work)


def test_features_are_a_log_mel_spectrogram_of_eight_seconds() -> None:
    assert FILTERS.shape == (BANDS, 201)
    at = np.arange(3 * RATE, dtype=np.float32) / RATE
    made = features((0.3 * np.sin(2 * np.pi * 1000 * at)).astype(np.float32))
    assert made.shape == (BANDS, FRAMES)
    assert made.max() - made.min() == pytest.approx(2.0, abs=1e-5)  # eight decades
    loud = made.max(axis=0) > made.max() - 0.1
    assert np.nonzero(loud)[0][0] == pytest.approx(FRAMES - 300, abs=3)  # the end is filled
    # 1000 Hz is mel 15 of 45.2 on Slaney's scale, so two thirds of the bands lie above it
    assert made[:, -50].argmax() == pytest.approx(BANDS * 15 / 45.2, abs=1.5)
    longer = np.random.default_rng(1).normal(size=SAMPLES + 999).astype(np.float32)
    assert np.array_equal(features(longer), features(longer[-SAMPLES:]))


def test_folder_without_the_model_is_refused_with_the_place(tmp_path: Path) -> None:
    async def enter() -> None:
        async with SmartTurn(SmartTurnSettings(model=str(tmp_path))):
            pass

    with pytest.raises(EngineError, match=r"no smart-turn model: there is no smart-turn\.onnx"):
        asyncio.run(enter())
