"""Made-up models in the formats of sherpa-onnx: a transducer that says "loud", and a voice."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FEATURES = 80
CHUNK = 8
"""Frames of 10 ms that an encoder takes at a time, which gives two of its own."""
STRIDE = 4
LOUD = 8.0
"""Of the mean log energy of a frame: above that of silence, below that of speech."""


def _value(name: str, kind: int, shape: list[str | int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _save(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: dict[str, "np.ndarray[tuple[int, ...], np.dtype[np.generic]]"],
    metadata: dict[str, str],
) -> None:
    held = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "made-up", inputs, outputs, held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    helper.set_model_props(model, metadata)
    onnx.save(model, str(path))


def write_transducer(folder: Path) -> Path:
    """Write encoder, decoder, joiner and tokens."""
    folder.mkdir()
    f, i = TensorProto.FLOAT, TensorProto.INT64
    node = helper.make_node
    _save(
        folder / "encoder.onnx",
        [
            node("ReduceMean", ["x"], ["level"], axes=[2], keepdims=1),
            node("Slice", ["level", "first", "last", "axis", "step"], ["encoder_out"]),
            node("Identity", ["state0"], ["new_state0"]),
            node("Identity", ["state1"], ["new_state1"]),
        ],
        [
            _value("x", f, ["N", CHUNK, FEATURES]),
            _value("state0", f, [1, "N", 1]),
            _value("state1", f, [1, "N", 1]),
        ],
        [
            _value("encoder_out", f, ["N", CHUNK // STRIDE, 1]),
            _value("new_state0", f, [1, "N", 1]),
            _value("new_state1", f, [1, "N", 1]),
        ],
        {
            "first": np.array([0]),
            "last": np.array([CHUNK]),
            "axis": np.array([1]),
            "step": np.array([STRIDE]),
        },
        {
            "model_type": "lstm",
            "T": str(CHUNK),
            "decode_chunk_len": str(CHUNK),
            "num_encoder_layers": "1",
            "rnn_hidden_size": "1",
            "d_model": "1",
        },
    )
    _save(
        folder / "decoder.onnx",
        [
            node("Cast", ["y"], ["numbers"], to=f),
            node("ReduceMean", ["numbers"], ["decoder_out"], axes=[1], keepdims=1),
        ],
        [_value("y", i, ["N", 2])],
        [_value("decoder_out", f, ["N", 1])],
        {},
        {"vocab_size": "2", "context_size": "2"},
    )
    _save(
        folder / "joiner.onnx",
        [
            node("Sub", ["encoder_out", "limit"], ["above"]),
            node("Mul", ["decoder_out", "nothing"], ["quiet"]),
            node("Concat", ["quiet", "above"], ["logit"], axis=1),
        ],
        [_value("encoder_out", f, ["N", 1]), _value("decoder_out", f, ["N", 1])],
        [_value("logit", f, ["N", 2])],
        {"limit": np.array([-LOUD], np.float32), "nothing": np.array([0.0], np.float32)},
        {"joiner_dim": "1"},
    )
    (folder / "tokens.txt").write_text("<blk> 0\n\u2581loud 1\n", "utf-8")
    return folder


def write_voice(folder: Path) -> Path:
    """Write a made-up VITS voice with a lexicon: its sound is as long as its text, at 16 kHz."""
    folder.mkdir()
    f, i = TensorProto.FLOAT, TensorProto.INT64
    node = helper.make_node
    _save(
        folder / "made-up.onnx",
        [
            node("Cast", ["x"], ["numbers"], to=f),
            node("Unsqueeze", ["numbers", "axes"], ["columns"]),
            node("Div", ["beat", "length_scale"], ["unused"]),
            node("Mul", ["columns", "beat"], ["rows"]),
            node("Sin", ["rows"], ["waves"]),
            node("Reshape", ["waves", "flat"], ["y"]),
        ],
        [
            _value("x", i, [1, "L"]),
            _value("x_length", i, [1]),
            _value("noise_scale", f, [1]),
            _value("length_scale", f, [1]),
            _value("noise_scale_w", f, [1]),
        ],
        [_value("y", f, [1, "S"])],
        {
            "axes": np.array([2]),
            "beat": (np.arange(1600, dtype=np.float32) * 0.1)[None, None],
            "flat": np.array([1, -1]),
        },
        {
            "model_type": "vits",
            "comment": "made-up",
            "language": "English",
            "sample_rate": "16000",
            "add_blank": "0",
            "n_speakers": "0",
            "punctuation": ". ,",
        },
    )
    words = ("a", "long", "time", "ago", "yes", "hello", "it", "still", "works", "both", "at")
    lines = [f"{word} {' '.join(word)}" for word in words]
    (folder / "lexicon.txt").write_text("\n".join(lines) + "\n", "utf-8")
    signs = ["_", ".", ",", " ", *"abcdefghijklmnopqrstuvwxyz"]
    tokens = "".join(f"{sign} {number}\n" for number, sign in enumerate(signs))
    (folder / "tokens.txt").write_text(tokens, "utf-8")
    return folder
