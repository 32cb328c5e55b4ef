"""onnx-asr with a made-up CTC model, which says "loud" where the sound is."""

import asyncio
import importlib.util
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from vivavoce.engines.base import Transcript
from vivavoce.errors import EngineError
from vivavoce.testing.conformance import check_stt, check_transcripts

if importlib.util.find_spec("onnx_asr") is None:
    pytest.skip("onnx-asr is not installed", allow_module_level=True)

from vivavoce.engines.onnx_asr.stt import OnnxAsrSettings, OnnxAsrSTT

RATE = 16_000


def write_model(folder: Path, *, config: bool = True) -> Path:
    """NeMo's layout: 80 features a frame of 10 ms, an output for every eighth."""
    folder.mkdir()
    value, node = helper.make_tensor_value_info, helper.make_node
    constants = {
        "first": np.array([0]),
        "last": np.array([1 << 30]),
        "axis": np.array([2]),
        "step": np.array([8]),
        "to_tokens": np.array([[1.0, 0.0]], np.float32),
    }
    graph = helper.make_graph(
        [
            node("ReduceMean", ["audio_signal"], ["level"], axes=[1], keepdims=1),
            node("Slice", ["level", "first", "last", "axis", "step"], ["frames"]),
            node("Transpose", ["frames"], ["columns"], perm=[0, 2, 1]),
            node("MatMul", ["columns", "to_tokens"], ["logprobs"]),
        ],
        "made-up",
        [
            value("audio_signal", TensorProto.FLOAT, ["N", 80, "T"]),
            value("length", TensorProto.INT64, ["N"]),
        ],
        [value("logprobs", TensorProto.FLOAT, ["N", "U", 2])],
        [numpy_helper.from_array(held, name) for name, held in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, str(folder / "model.onnx"))
    (folder / "vocab.txt").write_text("\u2581loud 0\n<blk> 1\n", "utf-8")
    if config:
        made = {"model_type": "nemo-conformer-ctc", "features_size": 80}
        (folder / "config.json").write_text(json.dumps(made), "utf-8")
    return folder


def noise(seconds: float, level: float) -> bytes:
    made = np.random.default_rng(1).normal(size=round(seconds * RATE)) * level
    return (32767 * np.clip(made, -1, 1)).astype("<i2").tobytes()


BURST = noise(0.5, 1e-4) + noise(0.5, 0.3) + noise(0.6, 1e-4)


def heard(*sounds: bytes, **options: Any) -> list[list[Transcript]]:
    async def audio(sound: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(sound), 3200):
            yield sound[start : start + 3200]

    async def one(engine: OnnxAsrSTT, sound: bytes) -> list[Transcript]:
        made = engine.transcribe(audio(sound), language="en", prompt="")
        return check_transcripts([each async for each in made])

    async def main() -> list[list[Transcript]]:
        async with OnnxAsrSTT(OnnxAsrSettings(**options)) as engine:
            return list(await asyncio.gather(*(one(engine, sound) for sound in sounds)))

    return asyncio.run(main())


def test_folder_is_recognised_with_in_batches_and_with_times_of_words(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "made-up")
    first, second, silence = heard(BURST, BURST + BURST, bytes(RATE), model=str(folder))
    assert set(first[-1].text.split()) == {"loud"}
    assert len(second[-1].words) >= 2 * len(first[-1].words)
    assert all(400 <= word.start_ms <= 1_200 for word in first[-1].words)
    assert silence[-1].text == ""


def test_onnx_asr_conforms_to_the_contract(tmp_path: Path) -> None:
    settings = OnnxAsrSettings(
        model=str(write_model(tmp_path / "made-up", config=False)), layout="nemo-conformer-ctc"
    )

    async def main() -> None:
        async with OnnxAsrSTT(settings) as engine:
            await check_stt(engine, BURST, language="en")

    asyncio.run(main())


def test_folder_that_is_no_model_is_refused_with_the_place_and_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="model: name a folder"):
        OnnxAsrSTT(OnnxAsrSettings())
    with pytest.raises(EngineError, match=r"there is no config\.json"):
        heard(BURST, model=str(tmp_path))
    with pytest.raises(EngineError, match=r"cannot be loaded: .*check model, layout"):
        heard(BURST, model=str(tmp_path), layout="whisper")
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(EngineError, match="names no model_type; set layout"):
        heard(BURST, model=str(tmp_path))
