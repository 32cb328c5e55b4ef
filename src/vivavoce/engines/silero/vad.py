"""The Silero v6 voice activity network, as matrix products in numpy over many streams at once.

Run by onnxruntime the network takes one stream a call. Written out it has a batch axis, which costs
a fifth as much a window. The weights come from an ONNX file, a model pack; onnx is not imported.

The network takes an "s" or "sh" for noise, and its memory of it lowers the probability of the vowel
that follows. So after two windows that hiss, a window of which the network is unsure, and whose
second half does not hiss, is scored once more without memory; the higher probability counts.
"""

from importlib.util import find_spec
from math import tanh
from pathlib import Path
from typing import Any, NamedTuple, Self

import msgspec
import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

try:
    from numpy.fft._pocketfft_umath import rfft_n_even  # type: ignore[import-not-found]
except ImportError:  # a private name, which another numpy may not have
    rfft_n_even = None

from vivavoce.engines.base import BaseEngine, Capabilities
from vivavoce.engines.packs import cache_folder, problem_of
from vivavoce.engines.silero.onnx_weights import read
from vivavoce.errors import EngineError, SettingsError

Floats = NDArray[np.float32]

_WINDOW = 512  # new samples
_CONTEXT = 64  # samples before them that the network sees again
_FFT, _HOP, _STEPS = 256, 128, 4
_BINS = _FFT // 2 + 1
_UNITS = 128  # of the LSTM
_ROWS = 64  # worked on at once: with more, what lies between two steps leaves the cache
_STATE = 2 * _UNITS + _CONTEXT  # of a stream: hidden and cell of the LSTM, and the context
_FEW_ROWS = 8  # see _product()
_ZERO, _HALF, _ONE = (np.array(number, np.float32) for number in (0, 0.5, 1))
_SILENCE = 2.5 / 32768  # the largest sample of a window that is as good as digital silence
# Between these probabilities the network is unsure; a quiet room has at most 0.004.
_MIN_UNSURE, _MAX_UNSURE = 0.01, 0.5
# A window hisses if this share of its samples differs in sign from the one before.
_MIN_HISSING = 0.42
_HISSING_WINDOWS = 2  # in a row, after which a window may be scored once more


PACK = "silero-vad-v6"
FILE = "silero_vad_v6.onnx"


class SileroSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`weights`: an ONNX file of Silero v6, 16 kHz; "" is that of the model pack."""

    weights: str = ""


class SileroVAD(BaseEngine):
    """Silero v6."""

    Settings = SileroSettings
    capabilities = Capabilities(
        licence="MIT",
        extra="local",
        models="Silero v6, 1.2 MB, by: vivavoce models pull silero-vad-v6",
    )
    sample_rate = 16_000
    window_samples = _WINDOW
    max_batch = 128

    def __init__(self, settings: SileroSettings) -> None:
        """Raises SettingsError: there are no weights."""
        self.pack = "" if settings.weights else PACK  # it is not deleted while it is used
        self._path = Path(settings.weights) if settings.weights else packaged_weights()
        if not self._path.is_file():
            raise SettingsError(
                f"[engines.vad.silero] there are no weights at {self._path}; "
                f"leave the option `weights` out and try: vivavoce models pull {PACK}, "
                f"or use the vad engine 'energy'"
            )
        self._network: _Network | None = None
        self._free: list[int] = []
        self._states = np.zeros((0, _STATE), np.float32)  # a row is a stream
        # those of one batch, and its windows where some are silent
        self._gathered = np.empty((_ROWS, _STATE), np.float32)
        self._chosen = np.empty((_ROWS, _WINDOW), np.float32)
        self._hissed: dict[int, int] = {}  # windows in a row that hiss, of the streams with any

    async def __aenter__(self) -> Self:
        # 2 ms of file and arithmetic: no thread is worth it.
        self._network = _Network(_Weights(self._path))
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._network = None

    def open(self) -> int:
        if not self._free:
            self._grow()
        stream = self._free.pop()
        self._states[stream] = 0
        return stream

    def close(self, stream: int) -> None:
        self._hissed.pop(stream, None)
        self._free.append(stream)

    def score(self, windows: Floats, streams: NDArray[np.intp]) -> Floats:
        """A window of digital silence is 0.0, without a run of the network."""
        assert self._network is not None, "score() before the engine was entered"
        numbers, loud = streams.tolist(), _loud(windows)
        likely = [0.0] * len(numbers)
        for start in range(0, len(loud), _ROWS):
            rows = loud[start : start + _ROWS]
            for row, speech in zip(rows, self._speech(rows, numbers, windows), strict=True):
                likely[row] = speech
        if len(loud) < len(numbers):
            self._states[streams, -_CONTEXT:] = windows[:, -_CONTEXT:]
        found = np.array(likely, np.float32)
        if voiced := self._voiced_after_hiss(likely, numbers, windows):
            found[voiced] = np.maximum(found[voiced], self._without_memory(windows[voiced]))
        return found

    def _voiced_after_hiss(
        self, likely: list[float], streams: list[int], windows: Floats
    ) -> list[int]:
        """The rows to be scored without memory, too. Counts the windows that hiss."""
        before = {n: self._hissed.pop(n, 0) for n in streams} if self._hissed else {}
        unsure = [row for row, speech in enumerate(likely) if _MIN_UNSURE < speech < _MAX_UNSURE]
        if not unsure:
            return []
        negative = windows[unsure] < 0
        half = _WINDOW // 2
        voiced = []
        for row, changes in zip(unsure, negative[:, 1:] != negative[:, :-1], strict=True):
            hissed = before.get(streams[row], 0)
            if np.count_nonzero(changes) >= _MIN_HISSING * _WINDOW:
                self._hissed[streams[row]] = hissed + 1
            if hissed < _HISSING_WINDOWS:
                continue
            if np.count_nonzero(changes[-half:]) < _MIN_HISSING * half:
                voiced.append(row)
        return voiced

    def _without_memory(self, windows: Floats) -> list[float]:
        """The probabilities of windows as the first of their streams."""
        assert self._network is not None
        found: list[float] = []
        for start in range(0, len(windows), _ROWS):
            rows = windows[start : start + _ROWS]
            found += self._network(np.zeros((len(rows), _STATE), np.float32), rows)
        return found

    def _speech(self, rows: list[int], streams: list[int], windows: Floats) -> list[float]:
        """The probabilities of some rows, at most _ROWS."""
        assert self._network is not None
        if len(rows) == 1:  # views, which need no copy back
            row, stream = rows[0], streams[rows[0]]
            return self._network(self._states[stream : stream + 1], windows[row : row + 1])
        which = [streams[row] for row in rows]
        states = self._gathered[: len(which)]
        np.take(self._states, which, 0, states, "clip")  # "raise" would make a copy
        if len(rows) < len(windows):
            windows = np.take(windows, rows, 0, self._chosen[: len(rows)], "clip")
        found = self._network(states, windows)
        self._states[which] = states
        return found

    def _grow(self) -> None:
        old = len(self._states)
        new = max(16, 2 * old)
        self._states = np.concatenate((self._states, np.zeros((new - old, _STATE), np.float32)))
        self._free.extend(range(new - 1, old - 1, -1))


def packaged_weights(package: str = "faster_whisper") -> Path:
    """Where they are: in the model pack, or in a package that carries them.

    Raises SettingsError: in neither.
    """
    if (problem := problem_of(PACK)) is None:
        return cache_folder() / PACK / FILE
    # Found, not imported: importing it would load a speech recogniser.
    found = find_spec(package)
    if found is None or found.origin is None:
        raise SettingsError(f"[engines.vad.silero] {problem}, or use the vad engine 'energy'")
    return Path(found.origin).parent / "assets" / FILE


def _loud(windows: Floats) -> list[int]:
    """The rows whose window is louder than digital silence. For most the energy alone shows it."""
    surely = _WINDOW * _SILENCE**2 * 1.001
    energies = np.vecdot(windows, windows).tolist()
    return [
        row
        for row, energy in enumerate(energies)
        if energy > surely or float(np.abs(windows[row]).max()) > _SILENCE
    ]


def _with_bias(weight: Floats, bias: Floats) -> Floats:
    """A layer as one matrix: its input has a one behind the last number of each row."""
    return np.ascontiguousarray(np.concatenate((weight, bias[None])), np.float32)


class _Weights:
    """The tensors of the file as layers. Raises EngineError: it is another network's."""

    def __init__(self, path: Path) -> None:
        tensors = read(path)
        try:
            basis = tensors["encoder.feature_extractor.forward_basis_buffer"]
            convolutions = [
                (
                    tensors[f"encoder.conv_layers.{k}.weight"],
                    tensors[f"encoder.conv_layers.{k}.bias"],
                )
                for k in range(4)
            ]
            of_input, of_hidden, biases = (tensors[f"onnx::LSTM_{n}"][0] for n in (209, 210, 211))
            output = tensors["decoder.conv1d.weight"], tensors["decoder.conv1d.bias"]
        except (KeyError, IndexError) as exc:
            raise EngineError(
                f"the weights {path} are not those of Silero v6: there is no tensor {exc}"
            ) from exc
        # The first row of the basis is a cosine of 0 Hz, hence the window itself.
        self.window = basis[0, 0].copy()
        # The second half of the network works on so few steps that some taps meet only padding.
        kept = (slice(0, 3), slice(0, 3), slice(1, 3), slice(1, 2))
        self.convolutions = [
            _with_bias(_by_tap(weight[:, :, taps]), bias)
            for (weight, bias), taps in zip(convolutions, kept, strict=True)
        ]
        # sigmoid(x) is (1 + tanh(x / 2)) / 2: halved here, the three gates (i, o, f) and the
        # candidate (c) that stand side by side need but one tanh.
        half = np.repeat(np.array([0.5, 0.5, 0.5, 1.0], np.float32), _UNITS)
        self.lstm = _with_bias(
            np.concatenate((of_input, of_hidden), axis=1).T * half,
            (biases[: 4 * _UNITS] + biases[4 * _UNITS :]) * half,
        )
        self.output = _with_bias(output[0][0] * half[:1], output[1] * half[:1])


def _transform(frames: Floats, spectrum: NDArray[np.complex64]) -> None:
    """The spectrum of the real samples in each row, into `spectrum`.

    numpy's public function computes in double precision, which takes several times as long.
    """
    if rfft_n_even is None:
        np.fft.rfft(frames, out=spectrum)  # type: ignore[arg-type]
    else:
        rfft_n_even(frames, _ONE, spectrum)


def _by_tap(weight: Floats) -> Floats:
    """A convolution [out, in, taps] as a matrix [taps * in, out]."""
    return np.ascontiguousarray(weight.transpose(2, 1, 0).reshape(-1, len(weight)))


class _Network:
    """The network and its work space, for up to _ROWS rows a call."""

    def __init__(self, weights: _Weights) -> None:
        self._weights = weights
        self._arrays = _Arrays.empty(_ROWS)
        self._by_rows: dict[int, _Space] = {}

    def __call__(self, states: Floats, windows: Floats) -> list[float]:
        """Probability of speech of each row. states [n, _STATE]: changed in place."""
        n = len(windows)
        space = self._by_rows.get(n)
        if space is None:
            space = self._by_rows[n] = _Space(self._arrays.first(n), self._weights)
        hidden, cell = states[:, :_UNITS], states[:, _UNITS : 2 * _UNITS]
        self._transform(space, states[:, -_CONTEXT:], windows)
        states[:, -_CONTEXT:] = windows[:, -_CONTEXT:]
        self._encode(space)
        space.hidden[...] = hidden
        np.matmul(*space.lstm)
        np.tanh(space.gates, space.gates)
        np.add(space.opened, _ONE, space.opened)
        np.multiply(space.opened, _HALF, space.opened)
        np.multiply(cell, space.keep, cell)
        np.multiply(space.candidate, space.enter, space.candidate)
        np.add(cell, space.candidate, cell)
        np.tanh(cell, hidden)
        np.multiply(hidden, space.leave, hidden)
        np.maximum(hidden, _ZERO, out=space.hidden)
        np.matmul(*space.output)
        return [(1.0 + tanh(speech)) / 2 for speech in space.speech.tolist()]

    def _transform(self, space: "_Space", context: Floats, windows: Floats) -> None:
        """Sound into the magnitudes of its short-time spectrum, [n, 4, 129]."""
        mirrored = windows[:, -2 : -_CONTEXT - 2 : -1]  # at the last sample
        np.concatenate((context, windows, mirrored), axis=1, out=space.samples)
        np.multiply(space.overlapping, self._weights.window, space.frames)
        _transform(space.frames, space.spectrum)
        np.abs(space.spectrum, space.magnitudes)

    def _encode(self, space: "_Space") -> None:
        """Four convolutions of three taps, to 128 numbers a window, [n, 128]."""
        space.bin_taps[...] = space.overlapping_bins
        np.matmul(*space.first)
        np.maximum(space.first_out, _ZERO, out=space.features)
        space.feature_taps[...] = space.overlapping_features
        np.matmul(*space.second)
        np.maximum(space.second_out, _ZERO, out=space.third_in)
        np.matmul(*space.third)
        np.maximum(space.third_out, _ZERO, out=space.fourth_in)
        np.matmul(*space.fourth)
        np.maximum(space.fourth_out, _ZERO, out=space.code)


class _Arrays(NamedTuple):
    """What lies between the steps of the network, for n rows. A one stands behind each row of the
    input of a layer."""

    samples: Floats
    """[n, 640]: context, window, and the mirrored end of the window."""
    frames: Floats
    spectrum: NDArray[Any]
    bins: Floats
    """One step more at each end, here and in `features`, stays zero: the padding."""
    features: Floats
    bin_taps: Floats
    feature_taps: Floats
    first_out: Floats
    second_out: Floats
    third_in: Floats
    third_out: Floats
    fourth_in: Floats
    fourth_out: Floats
    lstm_in: Floats
    gates: Floats
    speech: Floats

    @classmethod
    def empty(cls, n: int) -> Self:
        half = _UNITS // 2
        return cls(
            np.empty((n, _CONTEXT + _WINDOW + _CONTEXT), np.float32),
            np.empty((n, _STEPS, _FFT), np.float32),
            np.empty((n, _STEPS, _BINS), np.complex64),
            np.zeros((n, _STEPS + 2, _BINS), np.float32),
            np.zeros((n, _STEPS + 2, _UNITS), np.float32),
            np.ones((n, _STEPS, 3 * _BINS + 1), np.float32),
            np.ones((n, _STEPS // 2, 3 * _UNITS + 1), np.float32),
            np.empty((n, _STEPS, _UNITS), np.float32),
            np.empty((n, _STEPS // 2, half), np.float32),
            np.ones((n, _UNITS + 1), np.float32),
            np.empty((n, half), np.float32),
            np.ones((n, half + 1), np.float32),
            np.empty((n, _UNITS), np.float32),
            np.ones((n, 2 * _UNITS + 1), np.float32),
            np.empty((n, 4 * _UNITS), np.float32),
            np.empty((n, 1), np.float32),
        )

    def first(self, n: int) -> "_Arrays":
        return _Arrays(*(each[:n] for each in self))


class _Space:
    """The work space of n rows: views of the arrays, made once, as each costs as much to make as a
    small product."""

    def __init__(self, arrays: _Arrays, weights: _Weights) -> None:
        first, second, third, fourth = weights.convolutions
        self.samples, self.frames, self.spectrum = arrays[:3]
        self.overlapping = _overlapping(self.samples, _STEPS, _FFT, _HOP)
        self.magnitudes = arrays.bins[:, 1:-1]
        self.bin_taps = arrays.bin_taps[..., :-1]
        self.overlapping_bins = _overlapping(arrays.bins, _STEPS, 3 * _BINS, _BINS)
        self.first = _product(arrays.bin_taps, first, arrays.first_out)
        self.first_out = arrays.first_out
        self.features = arrays.features[:, 1:-1]
        self.feature_taps = arrays.feature_taps[..., :-1]
        self.overlapping_features = _overlapping(
            arrays.features, _STEPS // 2, 3 * _UNITS, 2 * _UNITS
        )
        self.second = _product(arrays.feature_taps, second, arrays.second_out)
        self.second_out = arrays.second_out
        self.third_in = _overlapping(arrays.third_in, _STEPS // 2, _UNITS // 2, _UNITS // 2)
        self.third = _product(arrays.third_in, third, arrays.third_out)
        self.third_out = arrays.third_out
        self.fourth_in = arrays.fourth_in[:, :-1]
        self.fourth = _product(arrays.fourth_in, fourth, arrays.fourth_out)
        self.fourth_out = arrays.fourth_out
        self.code = arrays.lstm_in[:, :_UNITS]
        self.hidden = arrays.lstm_in[:, _UNITS:-1]
        self.lstm = _product(arrays.lstm_in, weights.lstm, arrays.gates)
        self.gates = arrays.gates
        self.opened = arrays.gates[:, : 3 * _UNITS]
        self.enter, self.leave, self.keep, self.candidate = np.split(arrays.gates, 4, axis=1)
        self.output = _product(arrays.lstm_in[:, _UNITS:], weights.output, arrays.speech)
        self.speech = arrays.speech[:, 0]


def _product(x: Floats, weight: Floats, out: Floats) -> tuple[Floats, Floats, Floats]:
    """The arguments of matmul. Few rows are multiplied one by one: for a product of several, BLAS
    copies the weights."""
    rows = x if x.ndim == 2 else x.reshape(-1, x.shape[-1])
    made = out.reshape(-1, out.shape[-1])
    few = len(rows) <= _FEW_ROWS
    return (rows[:, None], weight, made[:, None]) if few else (rows, weight, made)


def _overlapping(rows: Floats, count: int, length: int, hop: int) -> Floats:
    """`count` stretches of each row, `hop` apart: a view [n, count, length]."""
    outer, inner = rows.strides[0], rows.strides[-1]
    return as_strided(rows, (len(rows), count, length), (outer, hop * inner, inner))
