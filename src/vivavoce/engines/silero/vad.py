"""The Silero v6 voice activity network, as matrix products in numpy over many streams at once.

Run by onnxruntime the network takes one stream a call. Written out it has a batch axis, which costs
a fifth as much a window. The weights come from an ONNX file, a model pack; onnx is not imported.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Self

import msgspec
import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from vivavoce.engines.base import BaseEngine, Capabilities
from vivavoce.engines.packs import cache_folder, problem_of
from vivavoce.engines.silero.onnx_weights import read
from vivavoce.engines.silero.quiet import QuietStreams
from vivavoce.errors import EngineError, SettingsError

Floats = NDArray[np.float32]

_WINDOW = 512  # new samples
_CONTEXT = 64  # samples before them that the network sees again
_FFT, _HOP, _STEPS = 256, 128, 4
_BINS = _FFT // 2 + 1
_UNITS = 128  # of the LSTM
_ROWS = 64  # worked on at once: with more, what lies between two steps leaves the cache
_FEW_ROWS = 8  # are multiplied one by one: for a product of several, BLAS copies the weights
_SILENCE = _WINDOW * (2.5 / 32768) ** 2  # energy of a window that is as good as digital silence


PACK = "silero-vad-v6"
FILE = "silero_vad_v6.onnx"


class SileroSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`weights`: an ONNX file of Silero v6, 16 kHz; "" is that of the model pack. `skip_quiet`:
    of a stream in long quiet score every second window only, and 0.0 for the others, as long as it
    does not become louder."""

    weights: str = ""
    skip_quiet: bool = True


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
        self._path = Path(settings.weights) if settings.weights else packaged_weights()
        if not self._path.is_file():
            raise SettingsError(
                f"[engines.vad.silero] there are no weights at {self._path}; "
                f"leave the option `weights` out and try: vivavoce models pull {PACK}, "
                f"or use the vad engine 'energy'"
            )
        self._network: _Network | None = None
        self._quiet = QuietStreams() if settings.skip_quiet else None
        self._free: list[int] = []
        # A row is a stream.
        self._hidden = np.zeros((0, _UNITS), np.float32)
        self._cell = np.zeros((0, _UNITS), np.float32)
        self._context = np.zeros((0, _CONTEXT), np.float32)

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
        for state in (self._hidden, self._cell, self._context):
            state[stream] = 0
        if self._quiet is not None:
            self._quiet.open(stream)
        return stream

    def close(self, stream: int) -> None:
        self._free.append(stream)

    def score(self, windows: Floats, streams: NDArray[np.intp]) -> Floats:
        """A window of digital silence, or that is skipped, is 0.0: without a run of the network."""
        assert self._network is not None, "score() before the engine was entered"
        likely = np.zeros(len(windows), np.float32)
        numbers, energies = streams.tolist(), np.vecdot(windows, windows).tolist()
        scored = self._scored(numbers, energies)
        for start in range(0, len(scored), _ROWS):
            # Most often all are scored: a slice then, for a view instead of a copy.
            every = len(scored) == len(windows)
            rows = slice(start, start + _ROWS) if every else scored[start : start + _ROWS]
            which = streams[rows]
            hidden, cell = self._hidden[which], self._cell[which]
            likely[rows] = self._network(self._context[which], windows[rows], hidden, cell)
            self._hidden[which], self._cell[which] = hidden, cell
        self._context[streams] = windows[:, -_CONTEXT:]
        if self._quiet is not None and scored:
            speech = likely.tolist()
            for row in scored:
                self._quiet.scored(numbers[row], energies[row], speech[row])
        return likely

    def _scored(self, streams: list[int], energies: list[float]) -> list[int]:
        """The rows that the network has to score."""
        quiet = self._quiet
        return [
            row
            for row, energy in enumerate(energies)
            if energy > _SILENCE and not (quiet and quiet.skips(streams[row], energy))
        ]

    def _grow(self) -> None:
        old = len(self._hidden)
        new = max(16, 2 * old)
        self._hidden, self._cell, self._context = (
            np.concatenate((state, np.zeros((new - old, state.shape[1]), np.float32)))
            for state in (self._hidden, self._cell, self._context)
        )
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


class _Layer(NamedTuple):
    """y = x @ weight + bias."""

    weight: Floats
    bias: Floats

    def __call__(self, x: Floats, out: Floats | None = None) -> Floats:
        if len(x) > _FEW_ROWS:
            y = np.matmul(x, self.weight, out=out)
        else:
            y = np.empty((len(x), len(self.bias)), np.float32) if out is None else out
            np.matmul(x[:, None], self.weight, out=y[:, None])
        y += self.bias
        return y


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
            _Layer(_by_tap(weight[:, :, taps]), bias)
            for (weight, bias), taps in zip(convolutions, kept, strict=True)
        ]
        # sigmoid(x) is (1 + tanh(x / 2)) / 2: halved here, the three gates (i, o, f) and the
        # candidate (c) that stand side by side need but one tanh.
        half = np.repeat(np.array([0.5, 0.5, 0.5, 1.0], np.float32), _UNITS)
        self.lstm = _Layer(
            np.ascontiguousarray(np.concatenate((of_input, of_hidden), axis=1).T * half),
            (biases[: 4 * _UNITS] + biases[4 * _UNITS :]) * half,
        )
        self.output = _Layer(output[0][0] * half[:1], output[1] * half[:1])


def _by_tap(weight: Floats) -> Floats:
    """A convolution [out, in, taps] as a matrix [taps * in, out]."""
    return np.ascontiguousarray(weight.transpose(2, 1, 0).reshape(-1, len(weight)))


class _Network:
    """The network and its work space, for up to _ROWS rows a call."""

    def __init__(self, weights: _Weights) -> None:
        self._weights = weights
        self._arrays = _Arrays.empty(_ROWS)
        self._by_rows: dict[int, _Space] = {}

    def __call__(self, context: Floats, windows: Floats, hidden: Floats, cell: Floats) -> Floats:
        """Probability of speech [n]. hidden, cell [n, 128]: changed in place."""
        n = len(windows)
        space = self._by_rows.get(n)
        if space is None:
            space = self._by_rows[n] = _Space(self._arrays.first(n))
        self._transform(space, context, windows)
        self._encode(space)
        space.hidden[...] = hidden
        self._weights.lstm(space.lstm_input, space.gates)
        np.tanh(space.gates, out=space.gates)
        space.opened += 1
        space.opened *= 0.5
        cell *= space.keep
        space.candidate *= space.enter
        cell += space.candidate
        np.tanh(cell, out=hidden)
        hidden *= space.leave
        speech = self._weights.output(np.maximum(hidden, 0, out=space.hidden))
        np.tanh(speech, out=speech)
        speech += 1
        speech *= 0.5
        return speech[:, 0]

    def _transform(self, space: "_Space", context: Floats, windows: Floats) -> None:
        """Sound into the magnitudes of its short-time spectrum, [n, 4, 129]."""
        samples = space.samples
        samples[:, :_CONTEXT] = context
        samples[:, _CONTEXT:-_CONTEXT] = windows
        samples[:, -_CONTEXT:] = windows[:, -2 : -_CONTEXT - 2 : -1]  # mirrored at the last sample
        np.multiply(space.overlapping, self._weights.window, out=space.frames)
        np.fft.rfft(space.frames, out=space.spectrum)
        np.abs(space.spectrum, out=space.magnitudes)

    def _encode(self, space: "_Space") -> None:
        """Four convolutions of three taps, to 128 numbers a window, [n, 128]."""
        first, second, third, fourth = self._weights.convolutions
        space.bin_taps[...] = space.overlapping_bins
        first(space.bin_rows, space.convolved_rows)
        np.maximum(space.convolved, 0, out=space.features)
        space.feature_taps[...] = space.overlapping_features
        x = second(space.feature_rows)
        np.maximum(x, 0, out=x)
        x = third(x.reshape(len(space.code), -1))
        np.maximum(x, 0, out=x)
        np.maximum(fourth(x), 0, out=space.code)


class _Arrays(NamedTuple):
    """What lies between the steps of the network, for n rows."""

    samples: Floats
    """[n, 640]: context, window, and the mirrored end of the window."""
    frames: Floats
    spectrum: NDArray[Any]
    bins: Floats
    """One step more at each end, here and in `features`, stays zero: the padding."""
    features: Floats
    bin_taps: Floats
    feature_taps: Floats
    convolved: Floats
    """[n, 4, 128]"""
    lstm_input: Floats
    gates: Floats

    @classmethod
    def empty(cls, n: int) -> Self:
        return cls(
            np.empty((n, _CONTEXT + _WINDOW + _CONTEXT), np.float32),
            np.empty((n, _STEPS, _FFT), np.float32),
            np.empty((n, _STEPS, _BINS), np.complex64),
            np.zeros((n, _STEPS + 2, _BINS), np.float32),
            np.zeros((n, _STEPS + 2, _UNITS), np.float32),
            np.empty((n, _STEPS, 3 * _BINS), np.float32),
            np.empty((n, _STEPS // 2, 3 * _UNITS), np.float32),
            np.empty((n, _STEPS, _UNITS), np.float32),
            np.empty((n, 2 * _UNITS), np.float32),
            np.empty((n, 4 * _UNITS), np.float32),
        )

    def first(self, n: int) -> "_Arrays":
        return _Arrays(*(each[:n] for each in self))


class _Space:
    """The work space of n rows: views of the arrays, made once, as each costs as much to make as a
    small product."""

    def __init__(self, arrays: _Arrays) -> None:
        n = len(arrays.samples)
        self.samples, self.frames, self.spectrum = arrays[:3]
        self.overlapping = _overlapping(self.samples, _STEPS, _FFT, _HOP)
        self.magnitudes = arrays.bins[:, 1:-1]
        self.bin_taps = arrays.bin_taps
        self.overlapping_bins = _overlapping(arrays.bins, _STEPS, 3 * _BINS, _BINS)
        self.bin_rows = arrays.bin_taps.reshape(n * _STEPS, -1)
        self.convolved = arrays.convolved
        self.convolved_rows = arrays.convolved.reshape(n * _STEPS, -1)
        self.features = arrays.features[:, 1:-1]
        self.feature_taps = arrays.feature_taps
        self.overlapping_features = _overlapping(
            arrays.features, _STEPS // 2, 3 * _UNITS, 2 * _UNITS
        )
        self.feature_rows = arrays.feature_taps.reshape(n * _STEPS // 2, -1)
        self.lstm_input = arrays.lstm_input
        self.code, self.hidden = np.split(arrays.lstm_input, 2, axis=1)
        self.gates = arrays.gates
        self.opened = arrays.gates[:, : 3 * _UNITS]
        self.enter, self.leave, self.keep, self.candidate = np.split(arrays.gates, 4, axis=1)


def _overlapping(rows: Floats, count: int, length: int, hop: int) -> Floats:
    """`count` stretches of each row, `hop` apart: a view [n, count, length]."""
    outer, inner = rows.strides[0], rows.strides[-1]
    return as_strided(rows, (len(rows), count, length), (outer, hop * inner, inner))
