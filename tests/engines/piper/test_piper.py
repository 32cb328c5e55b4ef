"""Piper with a made-up voice, whose sound is as long as its text, and with real ones."""

import asyncio
import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from vivavoce.engines.base import Speech
from vivavoce.errors import EngineError
from vivavoce.testing.conformance import check_tts

if importlib.util.find_spec("piper") is None:
    pytest.skip("piper-tts is not installed", allow_module_level=True)

from vivavoce.engines.piper.tts import PiperSettings, PiperTTS

REAL = os.environ.get("VIVAVOCE_PIPER_VOICES", "")
"""A folder with real voices."""


def write_voice(folder: Path, name: str, rate: int = 22_050) -> None:
    """Its signs are letters, each 0.1 s of a tone; it needs no espeak-ng."""
    value, node = helper.make_tensor_value_info, helper.make_node
    beat = (np.arange(rate // 10, dtype=np.float32) * 0.1)[None, None]
    constants = {
        "axes": np.array([2]),
        "beat": beat,
        "flat": np.array([1, 1, 1, -1]),
        "one": np.array([1]),
        "two": np.array([2]),
        "zero": np.array([0]),
        "size": np.array([float(beat.size)], np.float32),
    }
    graph = helper.make_graph(
        [
            node("Cast", ["input"], ["numbers"], to=TensorProto.FLOAT),
            node("Unsqueeze", ["numbers", "axes"], ["columns"]),
            node("Slice", ["scales", "one", "two", "zero"], ["length_scale"]),
            node("Mul", ["size", "length_scale"], ["wanted"]),
            node("Cast", ["wanted"], ["samples"], to=TensorProto.INT64),
            node("Slice", ["beat", "zero", "samples", "axes"], ["short"]),
            node("Mul", ["columns", "short"], ["rows"]),
            node("Sin", ["rows"], ["waves"]),
            node("Reshape", ["waves", "flat"], ["output"]),
        ],
        "made-up",
        [
            value("input", TensorProto.INT64, [1, "L"]),
            value("input_lengths", TensorProto.INT64, [1]),
            value("scales", TensorProto.FLOAT, [3]),
        ],
        [value("output", TensorProto.FLOAT, [1, 1, 1, "S"])],
        [numpy_helper.from_array(held, name) for name, held in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, str(folder / f"{name}.onnx"))
    signs = ["_", "^", "$", " ", ".", ",", *"abcdefghijklmnopqrstuvwxyzALEO"]
    described = {
        "audio": {"sample_rate": rate},
        "espeak": {"voice": "en"},
        "language": {"code": "en_US"},
        "phoneme_type": "text",
        "num_symbols": len(signs),
        "num_speakers": 1,
        "phoneme_id_map": {sign: [number] for number, sign in enumerate(signs)},
    }
    (folder / f"{name}.onnx.json").write_text(json.dumps(described), "utf-8")


async def spoken(tts: PiperTTS, text: str, voice: str) -> list[Speech]:
    how = {"speed": 1.0, "language": None, "instructions": ""}
    return [piece async for piece in tts.synthesize(text, voice=voice, **how)]  # type: ignore[arg-type]


def test_piper_conforms_to_the_contract(tmp_path: Path) -> None:
    write_voice(tmp_path, "b")
    write_voice(tmp_path, "a", 16_000)

    async def main() -> None:
        async with PiperTTS(PiperSettings(model=str(tmp_path), voice="b")) as tts:
            assert [voice.id for voice in tts.voices] == ["a", "b"]
            assert tts.voices[0].languages == ("en",)
            assert tts.default_voice == "b"
            await check_tts(tts)
            lengths = [
                sum(len(piece.audio) for piece in await spoken(tts, "hello there", voice))
                for voice in ("a", "b")
            ]
            assert abs(lengths[0] - lengths[1]) < 2_000  # of 100,000: the rates are the same

    asyncio.run(main())


def test_folder_without_voices_is_refused_with_the_place(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="model: '' is no folder"):
        PiperTTS(PiperSettings())
    with pytest.raises(EngineError, match=r"there is no NAME\.onnx in the folder"):
        PiperTTS(PiperSettings(model=str(tmp_path)))
    (tmp_path / "x.onnx").write_bytes(b"nothing")
    with pytest.raises(EngineError, match=r"x\.onnx\.json is not the description of a voice"):
        PiperTTS(PiperSettings(model=str(tmp_path)))
    (tmp_path / "x.onnx.json").write_text('{"espeak": {"voice": "de"}}')
    with pytest.raises(EngineError, match=r"there is no y\.onnx"):
        PiperTTS(PiperSettings(model=str(tmp_path), voice="y"))

    async def main() -> None:
        async with PiperTTS(PiperSettings(model=str(tmp_path))) as tts:
            with pytest.raises(EngineError, match=r"x\.onnx cannot be loaded"):
                await spoken(tts, "Hello.", "x")

    asyncio.run(main())


@pytest.mark.skipif(not REAL, reason="VIVAVOCE_PIPER_VOICES names no folder with real voices")
def test_real_voice_conforms_to_the_contract() -> None:
    async def main() -> None:
        async with PiperTTS(PiperSettings(model=REAL)) as tts:
            await check_tts(tts)

    asyncio.run(main())
