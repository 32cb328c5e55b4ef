"""Reads the weights out of an ONNX file, and nothing else of it: no graph is run.

The protobuf wire format is a few lines, where the onnx package costs 60 ms, 12 MB and a dependency.
Field numbers are those of onnx.proto: ModelProto.graph, GraphProto.initializer, and the members of
TensorProto.
"""

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from vivavoce.errors import EngineError

_GRAPH = 7
_INITIALIZER = 5
_DIMS, _DATA_TYPE, _FLOAT_DATA, _NAME, _RAW_DATA = 1, 2, 4, 8, 9
_FLOAT = 1  # TensorProto.DataType

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_SIZE = {_FIXED64: 8, _FIXED32: 4}

_Field: TypeAlias = tuple[int, int | memoryview]


class _Damaged(Exception):
    """The bytes are not what they claim to be."""


def read(path: Path) -> dict[str, NDArray[np.float32]]:
    """All initializers of type float32, by name. Raises EngineError: unreadable or damaged."""
    try:
        model = memoryview(path.read_bytes())
    except OSError as exc:
        raise EngineError(f"the weights {path} cannot be read: {exc.strerror}") from exc
    try:
        tensors = (
            _tensor(_message(initializer))
            for number, graph in _fields(model)
            if number == _GRAPH
            for inner, initializer in _fields(_message(graph))
            if inner == _INITIALIZER
        )
        return {name: values for name, values in tensors if values is not None}
    except (_Damaged, UnicodeDecodeError) as exc:
        raise EngineError(f"the weights {path} are damaged: {exc}") from exc


def _tensor(message: memoryview) -> tuple[str, NDArray[np.float32] | None]:
    name, kind, dims, raw = "", 0, list[int](), list[memoryview]()
    for number, value in _fields(message):
        if number == _NAME:
            name = str(_message(value), "utf-8")
        elif number == _DATA_TYPE:
            kind = _number(value)
        elif number == _DIMS:  # one by one, or packed
            dims += [value] if isinstance(value, int) else _varints(value)
        elif number in (_RAW_DATA, _FLOAT_DATA):  # the same bytes: little-endian floats
            raw.append(_message(value))
    if kind != _FLOAT:
        return name, None
    data = b"".join(raw)
    if len(data) != 4 * prod(dims):
        raise _Damaged(f"{name!r} holds {len(data)} bytes, but is of shape {dims}")
    return name, np.frombuffer(data, "<f4").reshape(dims)


def _fields(message: memoryview) -> Iterator[_Field]:
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire == _BYTES:
            size, at = _varint(message, at)
        elif wire in _SIZE:
            size = _SIZE[wire]
        else:
            raise _Damaged(f"no wire type {wire}")
        if at + size > len(message):
            raise _Damaged("it ends too soon")
        yield number, message[at : at + size]
        at += size


def _varints(packed: memoryview) -> Iterator[int]:
    at = 0
    while at < len(packed):
        value, at = _varint(packed, at)
        yield value


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Seven bits a byte, the lowest first; the eighth bit says that more follow."""
    value = 0
    for shift in range(0, 64, 7):
        if at >= len(message):
            raise _Damaged("it ends too soon")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _Damaged("a number has no end")


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise _Damaged("a number stands where bytes belong")
    return value


def _number(value: int | memoryview) -> int:
    if isinstance(value, int):
        return value
    raise _Damaged("bytes stand where a number belongs")
