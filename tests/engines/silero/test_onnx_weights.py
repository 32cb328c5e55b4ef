from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.engines.silero.onnx_weights import read
from vivavoce.engines.silero.vad import packaged_weights
from vivavoce.errors import EngineError, SettingsError


def varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def model(*tensors: bytes) -> bytes:
    """Producer and version around a graph of these initializers, and a node that is passed over."""
    node = field(1, field(4, b"Conv"))
    graph = node + b"".join(field(5, tensor) for tensor in tensors)
    fixed = varint(15 << 3 | 5) + bytes(4) + varint(16 << 3 | 1) + bytes(8)
    return field(1, 8) + field(2, b"by hand") + fixed + field(7, graph)


def floats(*values: float) -> bytes:
    return np.array(values, "<f4").tobytes()


PLAIN = field(1, 2) + field(1, 3) + field(2, 1) + field(8, b"plain") + field(9, floats(*range(6)))
PACKED = field(1, b"\x01\x02") + field(2, 1) + field(4, floats(0.5, -0.5)) + field(8, b"packed")
SCALAR = field(2, 1) + field(8, b"scalar") + field(9, floats(2.0))
INTEGER = field(1, 1) + field(2, 7) + field(8, b"integer") + field(9, bytes(8))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "net.onnx"


def test_float_tensors_of_every_encoding_are_read(path: Path) -> None:
    path.write_bytes(model(PLAIN, PACKED, SCALAR, INTEGER))
    assert {name: values.tolist() for name, values in read(path).items()} == {
        "plain": [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]],
        "packed": [[0.5, -0.5]],
        "scalar": 2.0,
    }


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (model(PLAIN)[:-1], "it ends too soon"),
        (model(PLAIN) + b"\x80", "it ends too soon"),
        (b"\x80" * 11, "a number has no end"),
        (b"\x0b", "no wire type 3"),
        (model(field(1, 7) + PLAIN), r"'plain' holds 24 bytes, but is of shape \[7, 2, 3\]"),
        (model(field(8, 5)), "a number stands where bytes belong"),
        (model(field(2, b"1")), "bytes stand where a number belongs"),
        (model(field(8, b"\xff")), "can't decode"),
    ],
)
def test_damaged_file_names_the_damage(path: Path, data: bytes, reason: str) -> None:
    path.write_bytes(data)
    with pytest.raises(EngineError, match=rf"net\.onnx are damaged: .*{reason}"):
        read(path)


def test_unreadable_file_is_named(path: Path) -> None:
    with pytest.raises(EngineError, match=r"net\.onnx cannot be read: No such file"):
        read(path)


@given(st.one_of(st.binary(), st.binary().map(lambda data: model(data))))
def test_any_bytes_give_weights_or_engine_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.onnx"
    path.write_bytes(data)
    try:
        tensors = read(path)
    except EngineError:
        return
    assert all(values.dtype == np.float32 for values in tensors.values())


def test_real_weights_equal_those_of_the_onnx_package() -> None:
    onnx = pytest.importorskip("onnx")
    try:
        weights = packaged_weights()
    except SettingsError:
        pytest.skip("the weights of Silero are not installed")
    expected = {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in onnx.load(weights).graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
    }
    found = read(weights)
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
