"""sherpa-onnx: Moonshine with its weights, made-up models, and folders of all kinds."""

import asyncio
import importlib.util
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.engines.pocketsphinx.speech import recording, synthetic
from tests.engines.sherpa.models import write_transducer, write_voice
from vivavoce.engines.base import Transcript
from vivavoce.engines.packs import problem_of
from vivavoce.engines.sherpa.folders import recognised_folder, voice_folder
from vivavoce.errors import EngineError
from vivavoce.testing.conformance import check_stt, check_transcripts, check_tts

installed = importlib.util.find_spec("sherpa_onnx") is not None
if installed:
    from vivavoce.engines.sherpa.stt import SherpaSettings, SherpaSTT
    from vivavoce.engines.sherpa.tts import SherpaTTS, SherpaVoiceSettings

needs_sherpa = pytest.mark.skipif(not installed, reason="sherpa-onnx is not installed")
needs_weights = pytest.mark.skipif(
    not installed or problem_of("moonshine-tiny-en") is not None,
    reason="sherpa-onnx or moonshine-tiny-en is not installed",
)
RATE = 16_000


async def pieces(audio: bytes, size: int = 3200) -> AsyncIterator[bytes]:
    for start in range(0, len(audio), size):
        yield audio[start : start + size]


def heard(settings: "SherpaSettings", audio: Sequence[bytes]) -> list[list[Transcript]]:
    """What one worker recognises in each, all at once."""

    async def one(engine: SherpaSTT, sound: bytes) -> list[Transcript]:
        made = engine.transcribe(pieces(sound), language=None, prompt="")
        return check_transcripts([each async for each in made])

    async def main() -> list[list[Transcript]]:
        async with SherpaSTT(settings) as engine:
            return list(await asyncio.gather(*(one(engine, sound) for sound in audio)))

    return asyncio.run(main())


@needs_weights
def test_sherpa_with_moonshine_conforms_to_the_contract() -> None:
    speech = synthetic("what is the weather like")

    async def main() -> None:
        async with SherpaSTT(SherpaSettings()) as engine:
            await check_stt(engine, speech, language="en")

    asyncio.run(main())


@needs_weights
def test_recordings_at_once_are_recognised() -> None:
    sound = recording("go_forward_ten_meters")
    for found in heard(SherpaSettings(), [sound, sound]):
        assert found[-1].text.lower().strip(".") in (
            "go forward ten meters",
            "go forward 10 meters",
        )
        assert found[-1].words[-1].end_ms <= len(sound) * 1000 // (2 * RATE)


def noise(seconds: float, level: float) -> bytes:
    made = np.random.default_rng(1).normal(size=round(seconds * RATE)) * level
    return (32767 * np.clip(made, -1, 1)).astype("<i2").tobytes()


@needs_sherpa
def test_streaming_transducer_sends_words_while_audio_comes(tmp_path: Path) -> None:
    folder = write_transducer(tmp_path / "streaming-made-up")
    burst = noise(0.5, 0.0) + noise(0.5, 0.3) + noise(1.0, 0.0)
    settings = SherpaSettings(model=str(folder))
    first, second, third = heard(settings, [burst, burst + burst, noise(1.0, 0.0)])
    assert set(first[-1].text.split()) == {"loud"}
    assert len(second[-1].words) == 2 * len(first[-1].words)
    assert any(not each.final and each.stable for each in second)
    assert all(400 <= word.start_ms <= 1_200 for word in first[-1].words)
    assert third[-1].text == ""


@needs_sherpa
def test_streaming_transducer_conforms_to_the_contract(tmp_path: Path) -> None:
    folder = write_transducer(tmp_path / "streaming-made-up")

    async def main() -> None:
        async with SherpaSTT(SherpaSettings(model=str(folder))) as engine:
            await check_stt(engine, noise(0.7, 0.3))

    asyncio.run(main())


@needs_sherpa
def test_voice_in_a_folder_conforms_to_the_contract(tmp_path: Path) -> None:
    folder = write_voice(tmp_path / "voice")

    async def main() -> None:
        async with SherpaTTS(SherpaVoiceSettings(model=str(folder))) as engine:
            text = "Hello. " + "A long time ago, it still works, a long time ago. " * 5
            await check_tts(engine, text, speed=False)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("name", "files", "layout"),
    [
        ("streaming-zipformer-en", ("encoder.onnx", "decoder.onnx", "joiner.onnx"), "streaming"),
        ("nemo-parakeet-tdt", ("encoder.onnx", "decoder.onnx", "joiner.onnx"), "nemo_transducer"),
        ("zipformer-en", ("encoder-epoch.onnx", "decoder.onnx", "joiner.onnx"), "transducer"),
        ("sense-voice-zh-en", ("model.int8.onnx", "model.onnx"), "sense_voice"),
        ("nemo-ctc-en", ("model.onnx",), "nemo_ctc"),
        ("moonshine", ("encoder_model.ort", "decoder_model_merged.ort"), "moonshine"),
        ("whisper-tiny", ("tiny-encoder.onnx", "tiny-decoder.onnx"), "whisper"),
    ],
)
def test_recogniser_is_known_by_its_files(
    tmp_path: Path, name: str, files: tuple[str, ...], layout: str
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    for file in (*files, "tokens.txt"):
        (folder / file).touch()
    found = recognised_folder(folder)
    assert found.layout == layout
    assert Path(next(iter(found.paths.values()))).name == files[0]


@pytest.mark.parametrize(
    ("files", "layout"),
    [
        (("model.onnx", "voices.bin"), "kokoro"),
        (("model-steps-3.onnx", "vocos-22khz.onnx"), "matcha"),
        (("en_US-amy-low.onnx",), "vits"),
    ],
)
def test_voice_is_known_by_its_files(tmp_path: Path, files: tuple[str, ...], layout: str) -> None:
    for file in (*files, "tokens.txt"):
        (tmp_path / file).touch()
    assert voice_folder(tmp_path).layout == layout


def test_other_folder_is_refused_with_the_layouts(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"does not hold a recogniser .* one of streaming, nemo"):
        recognised_folder(tmp_path)
    with pytest.raises(EngineError, match=r"does not hold a voice .* with the layout matcha"):
        voice_folder(tmp_path, "matcha")
