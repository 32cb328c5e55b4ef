"""The voice encoder of Resemblyzer in numpy: its weights, and the network. Synchronous.

Wan et al. 2018, "Generalized End-to-End Loss for Speaker Verification": three layers of LSTM over
the mel spectrum of 1.6 s, whose last state becomes a vector of 256 numbers (a d-vector).
"""

import math
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from vivavoce.audio.mel import HOP, WINDOW, Floats, mel_filters, mel_power
from vivavoce.errors import EngineError

BANDS, FRAMES, UNITS, LAYERS = 40, 160, 256, 3
HEADERS = 3
"""Pickled objects before the weights in a file of torch.save(): number, version, machine."""
LOUDNESS_DB = -25.0
"""RMS of every clip. The network was trained with quiet clips raised to -30 and loud ones left,
which takes one voice at two distances for two: 6.8 % errors with four voices, like this 1.7 %."""
MIN_POWER = 1e-12
FILTERS = mel_filters(BANDS)
FILE = "pretrained.pt"


class StoredTensor(NamedTuple):
    """Where the numbers of a tensor are in the file."""

    storage: str
    offset: int
    shape: tuple[int, ...]


class WeightsReader(pickle.Unpickler):
    """Reads tensors of 32-bit floats, and refuses every other object: no code is run."""

    def find_class(self, module: str, name: str) -> Any:
        known: dict[tuple[str, str], Callable[..., Any] | str] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch", "FloatStorage"): "float32",
            ("torch._utils", "_rebuild_tensor_v2"): _stored_tensor,
        }
        try:
            return known[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it holds a {module}.{name}") from None

    def persistent_load(self, pid: Any) -> str:
        return str(pid[2])


def _stored_tensor(storage: str, offset: int, shape: tuple[int, ...], *_: object) -> StoredTensor:
    return StoredTensor(storage, offset, shape)


def read_weights(path: Path) -> dict[str, Floats]:
    """The tensors by name. Raises EngineError: the file is something else."""
    try:
        with path.open("rb") as file:
            return _weights(file)
    except (OSError, pickle.UnpicklingError, LookupError, TypeError, ValueError, EOFError) as exc:
        raise EngineError(
            f"model: {path} does not hold the weights of Resemblyzer: {exc}; try: vivavoce models "
            f"pull resemblyzer"
        ) from exc


def _weights(file: BinaryIO) -> dict[str, Floats]:
    for _ in range(HEADERS):
        WeightsReader(file).load()
    tensors: dict[str, StoredTensor] = WeightsReader(file).load()["model_state"]
    storages = {}
    for key in WeightsReader(file).load():
        count = int.from_bytes(file.read(8), "little")
        storages[key] = np.frombuffer(file.read(4 * count), "<f4")
    return {
        name: storages[at.storage][at.offset : at.offset + math.prod(at.shape)].reshape(at.shape)
        for name, at in tensors.items()
    }


class VoiceEncoder:
    """The network."""

    def __init__(self, weights: dict[str, Floats]) -> None:
        """Raises EngineError: a tensor is missing."""
        try:
            self._layers = [
                (
                    np.ascontiguousarray(weights[f"lstm.weight_ih_l{layer}"].T),
                    np.ascontiguousarray(weights[f"lstm.weight_hh_l{layer}"].T),
                    weights[f"lstm.bias_ih_l{layer}"] + weights[f"lstm.bias_hh_l{layer}"],
                )
                for layer in range(LAYERS)
            ]
            self._matrix, self._bias = weights["linear.weight"].T, weights["linear.bias"]
        except KeyError as exc:
            raise EngineError(
                f"model: the weights have no tensor {exc}: they are not those of Resemblyzer"
            ) from exc

    def embed(self, windows: Floats) -> Floats:
        """[n, UNITS], of length 1 each, of windows [n, FRAMES, BANDS]."""
        steps = np.ascontiguousarray(windows.transpose(1, 0, 2))
        for layer in self._layers:
            steps = _lstm(steps, *layer)
        made: Floats = np.maximum(steps[-1] @ self._matrix + self._bias, 0)
        return unit(made)


def _lstm(steps: Floats, to_gates: Floats, back: Floats, bias: Floats) -> Floats:
    """The states [steps, n, UNITS] of a layer; its gates are in torch's order: i, f, g, o."""
    gates = steps @ to_gates + bias
    state = cell = np.zeros((steps.shape[1], UNITS), np.float32)
    states = np.empty((*steps.shape[:2], UNITS), np.float32)
    for step, given in enumerate(gates):
        both = given + state @ back
        enter, keep, leave = (_sigmoid(both[:, n * UNITS : (n + 1) * UNITS]) for n in (0, 1, 3))
        cell = keep * cell + enter * np.tanh(both[:, 2 * UNITS : 3 * UNITS])
        state = leave * np.tanh(cell)
        states[step] = state
    return states


def _sigmoid(x: Floats) -> Floats:
    half: Floats = np.tanh(x * np.float32(0.5)) * np.float32(0.5) + np.float32(0.5)
    return half


def unit(vectors: Floats) -> Floats:
    """Rows [n, d] brought to length 1; a row of zeros becomes an even one."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    even = np.full_like(vectors, vectors.shape[1] ** -0.5)
    made: Floats = np.where(lengths > 0, vectors / np.maximum(lengths, 1e-9), even)
    return made.astype(np.float32)


def clip_windows(samples: Floats) -> Floats:
    """[n, FRAMES, BANDS] of a clip [samples]: windows that overlap by half, the last at its end."""
    power = max(float(np.mean(samples**2)), MIN_POWER)
    levelled = samples * math.sqrt(10 ** (LOUDNESS_DB / 10) / power)
    spectrum = mel_power(np.pad(levelled, WINDOW // 2).astype(np.float32), FILTERS)
    spectrum = spectrum[: max(1, len(samples) // HOP)]
    if len(spectrum) < FRAMES:
        spectrum = spectrum[np.arange(FRAMES) % len(spectrum)]  # silence would sound like a voice
    last = len(spectrum) - FRAMES
    starts = [*range(0, last, FRAMES // 2), last]
    return np.stack([spectrum[start : start + FRAMES] for start in starts])
