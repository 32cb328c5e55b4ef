"""Resemblyzer with its real weights: `vivavoce models pull resemblyzer` fetches them."""

import asyncio
import os
import pickle
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from tests.api.routes_stage import wav_of
from tests.engines.pocketsphinx.speech import RECORDINGS
from vivavoce.engines.packs import cache_folder, problem_of
from vivavoce.engines.resemblyzer.model import (
    BANDS,
    FRAMES,
    VoiceEncoder,
    clip_windows,
    read_weights,
)
from vivavoce.engines.resemblyzer.speaker import (
    PACK,
    ResemblyzerSettings,
    ResemblyzerSpeaker,
)
from vivavoce.engines.scripted.engines import ScriptedSpeaker
from vivavoce.engines.scripted.scripts import SpeakerScript
from vivavoce.engines.silero.vad import SileroSettings, SileroVAD
from vivavoce.errors import EngineError
from vivavoce.media import files
from vivavoce.media.decoding import SoundFile
from vivavoce.runtime.diarization import diarize
from vivavoce.runtime.vad_batcher import VadBatcher
from vivavoce.testing.conformance import check_speaker

pulled = pytest.mark.skipif(problem_of(PACK) is not None, reason=f"{PACK} is not installed")
recorded = pytest.mark.skipif(not RECORDINGS.is_dir(), reason="needs recordings beside the project")
detected = pytest.mark.skipif(
    problem_of("silero-vad-v6") is not None, reason="silero-vad-v6 is not installed"
)


def test_scripted_speaker_conforms_to_the_contract() -> None:
    asyncio.run(check_speaker(ScriptedSpeaker(SpeakerScript())))


@pulled
def test_resemblyzer_conforms_to_the_contract() -> None:
    async def main() -> None:
        async with ResemblyzerSpeaker(ResemblyzerSettings()) as speaker:
            await check_speaker(speaker)

    asyncio.run(main())


@pulled
@recorded
@detected
def test_two_speakers_who_take_turns_are_told_apart() -> None:
    pause = bytes(24_000)
    jfk = files.read(RECORDINGS / "jfk.flac")
    reader = files.read(RECORDINGS / "austen_0870.wav")
    talk = (jfk[: 4 * 48_000], reader, jfk[4 * 48_000 : 9 * 48_000])

    async def main() -> list[str]:
        async with (
            SileroVAD(SileroSettings()) as vad,
            ResemblyzerSpeaker(ResemblyzerSettings()) as speaker,
        ):
            file = SoundFile(BytesIO(wav_of(pause.join(talk))))
            turns = await diarize(file, VadBatcher(vad), speaker)
        changes = zip([""] + [turn.speaker for turn in turns], turns, strict=False)
        return [turn.speaker for last, turn in changes if turn.speaker != last]

    assert asyncio.run(main()) == ["A", "B", "A"]


@pulled
def test_windows_overlap_by_half_and_clips_of_any_level_are_alike() -> None:
    hum = np.sin(np.arange(16_000 * 4) * 0.1).astype(np.float32)
    assert clip_windows(hum).shape == (4, FRAMES, BANDS)
    assert clip_windows(hum[:1]).shape == (1, FRAMES, BANDS)
    encoder = VoiceEncoder(read_weights(cache_folder() / PACK / "pretrained.pt"))
    loud, soft = (encoder.embed(clip_windows(hum * level)) for level in (0.02, 0.001))
    assert np.allclose(loud, soft, atol=1e-2)


class Command:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("exit 1",)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Ran out of input"),
        (b"no weights", "does not hold the weights"),
        (pickle.dumps(1) * 3 + pickle.dumps(Command()), "it holds a posix.system"),
        (pickle.dumps(1) * 3 + pickle.dumps({"model_state": {}}) + pickle.dumps([]), "no tensor"),
    ],
)
def test_file_that_is_not_the_weights_is_refused(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    (tmp_path / "pretrained.pt").write_bytes(content)
    with pytest.raises(EngineError, match=reason):
        VoiceEncoder(read_weights(tmp_path / "pretrained.pt"))


def test_folder_without_the_weights_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with ResemblyzerSpeaker(ResemblyzerSettings(model=str(tmp_path))):
            pass

    with pytest.raises(EngineError, match=r"there is no pretrained\.pt"):
        asyncio.run(main())
