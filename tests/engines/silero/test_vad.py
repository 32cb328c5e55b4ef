import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vivavoce.audio.resample import resample
from vivavoce.engines import base
from vivavoce.engines.silero.vad import SileroSettings, SileroVAD, packaged_weights
from vivavoce.errors import EngineError, SettingsError
from vivavoce.media.files import read
from vivavoce.testing.conformance import check_vad

Floats = NDArray[np.float32]

SECOND_SCORE_AFTER = "vivavoce.engines.silero.vad._HISSING_WINDOWS"
SPEECH = Path(__file__).parents[4] / "shared" / "audio"

try:
    WEIGHTS = packaged_weights()
except SettingsError:
    pytest.skip("the weights of Silero are not installed", allow_module_level=True)


def hummed(seconds: float, seed: int) -> Floats:
    """Voiced syllables with pauses: harmonics of a gliding pitch under two formants, and noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(16_000 * seconds)) / 16_000
    pitch = 120 + 30 * np.sin(2 * np.pi * 0.7 * t + seed)
    phase = 2 * np.pi * np.cumsum(pitch) / 16_000
    voice = np.zeros_like(t)
    for k in range(1, 26):
        for formant in (650, 1_200, 2_500):
            near = np.exp(-(((k * pitch - formant) / 200) ** 2))
            voice += (near + 0.01) * np.sin(k * phase)
    syllables = np.clip(np.sin(2 * np.pi * 3.3 * t + seed), 0, 1) * (np.sin(t + seed) > -0.3)
    sound: Floats = 0.1 * voice * syllables + 0.003 * rng.standard_normal(len(t))
    return sound.astype(np.float32)


@cache
def recordings() -> list[Floats]:
    """Streams of sound at 16 kHz: real speech where there is some."""
    found = sorted(SPEECH.glob("*.wav")) + sorted(SPEECH.glob("*.flac"))
    return [recording(path) for path in found] + [hummed(6, seed) for seed in range(4)]


def recording(path: Path) -> Floats:
    pcm = np.frombuffer(resample(read(path), 24_000, 16_000), "<i2")
    return pcm.astype(np.float32) / np.float32(32768)


def windows_of(sound: Floats) -> Floats:
    return sound[: len(sound) // 512 * 512].reshape(-1, 512)


def batch_of_streams(streams: int, length: int) -> Floats:
    """[length, streams, 512]: stretches of the recordings, each from its own place on."""
    stretches = [w[at : at + length] for w in map(windows_of, recordings()) for at in (0, 11, 23)]
    long_enough = [stretch for stretch in stretches if len(stretch) == length]
    return np.stack([long_enough[k % len(long_enough)] for k in range(streams)], axis=1)


class Reference:
    """The network as onnxruntime runs it: one stream."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._h = self._c = np.zeros((1, 1, 128), np.float32)
        self._context = np.zeros(64, np.float32)

    def score(self, window: Floats) -> float:
        heard = np.concatenate((self._context, window))[None]
        self._context = window[-64:]
        speech, self._h, self._c = self._session.run(
            None, {"input": heard, "h": self._h, "c": self._c}
        )
        return float(speech[0])

    def hear(self, window: Floats) -> None:
        """What is kept of a window that the network is spared."""
        self._context = window[-64:]


@asynccontextmanager
async def opened(streams: int) -> AsyncIterator[tuple[base.VAD, NDArray[np.intp]]]:
    async with SileroVAD(SileroSettings()) as vad:
        yield vad, np.array([vad.open() for _ in range(streams)], np.intp)


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await test()

    asyncio.run(main())


@pytest.mark.parametrize("transform", ["private", "public"])
@pytest.mark.parametrize(("streams", "length"), [(1, 300), (7, 60), (64, 12), (128, 5)])
def test_probabilities_equal_those_of_onnxruntime(
    streams: int, length: int, transform: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if transform == "public":
        monkeypatch.setattr("vivavoce.engines.silero.vad.rfft_n_even", None)
    monkeypatch.setattr(SECOND_SCORE_AFTER, 1_000)  # the reference scores every window once
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(str(WEIGHTS), options, providers=["CPUExecutionProvider"])
    sound = batch_of_streams(streams, length) if streams > 1 else hummed(10, 9)[: length * 512]
    sound = sound.reshape(length, streams, 512)
    sound[np.random.default_rng(0).random((length, streams)) < 0.05] = 0
    references = [Reference(session) for _ in range(streams)]

    async def test() -> None:
        async with opened(streams) as (vad, numbers):
            for windows in sound:
                told = vad.score(windows, numbers)
                for row, reference in enumerate(references):
                    if np.abs(windows[row]).max() <= 2.5 / 32768:
                        reference.hear(windows[row])
                        assert told[row] == 0.0
                    else:
                        assert told[row] == pytest.approx(reference.score(windows[row]), abs=1e-4)

    run(test)


def test_speech_is_separated_from_pauses() -> None:
    path = SPEECH / "ten_of_clubs.wav"
    if not path.exists():
        pytest.skip("no recordings here")
    sound = windows_of(np.pad(recording(path), (8_192, 16_384)))

    async def test() -> None:
        async with opened(1) as (vad, numbers):
            told = [float(vad.score(window[None], numbers)[0]) for window in sound]
        heard = np.nonzero(np.array(told) > 0.5)[0]
        assert max(told[:16]) == 0.0
        assert 16 <= heard[0] <= 28
        assert len(heard) > 15
        assert max(told[-25:]) < 0.1

    run(test)


async def told_alone(sound: Floats) -> Floats:
    """[streams, windows] of sound [streams, windows, 512]."""
    async with opened(len(sound)) as (vad, numbers):
        told = np.zeros(sound.shape[:2], np.float32)
        for stream, at in np.ndindex(told.shape):
            told[stream, at] = vad.score(sound[stream, at][None], numbers[stream : stream + 1])[0]
        return told


FIVE = np.stack([windows_of(hummed(1, seed))[:8] for seed in range(5)])


@cache
def five_alone() -> Floats:
    return asyncio.run(told_alone(FIVE))


@settings(max_examples=20)
@given(st.data())
def test_stream_does_not_depend_on_its_batch(
    data: st.DataObject,
) -> None:
    async def together() -> Floats:
        async with opened(5) as (vad, numbers):
            told, at = np.zeros((5, 8), np.float32), np.zeros(5, int)
            while (waiting := np.flatnonzero(at < 8)).size:
                picked = data.draw(st.lists(st.sampled_from(waiting.tolist()), unique=True))
                rows = np.array(picked or [waiting[0]])
                told[rows, at[rows]] = vad.score(FIVE[rows, at[rows]], numbers[rows])
                at[rows] += 1
            return told

    assert np.allclose(asyncio.run(together()), five_alone(), atol=1e-5)


def test_digital_silence_is_not_speech_and_keeps_the_state() -> None:
    sound = windows_of(hummed(2, 3))[:40]
    dither = np.full((2, 512), 2 / 32768, np.float32)

    async def test() -> None:
        async with opened(2) as (vad, numbers):
            for window in sound[:20]:
                vad.score(np.stack((window, window)), numbers)
            assert vad.score(dither, numbers).tolist() == [0.0, 0.0]
            for _ in range(50):  # one of the two is silent for longer
                assert vad.score(dither[:1], numbers[:1]).tolist() == [0.0]
            for window in sound[20:]:
                long_after, soon_after = vad.score(np.stack((window, window)), numbers)
                assert long_after == soon_after

    run(test)


def test_silence_before_a_sound_is_its_context() -> None:
    sound, quiet = windows_of(hummed(1, 2))[:10], np.zeros((1, 512), np.float32)

    async def test() -> None:
        async with opened(2) as (vad, numbers):
            vad.score(quiet, numbers[:1])  # one begins with silence, the other without
            told = [vad.score(np.stack((window, window)), numbers) for window in sound]
        assert [row[0] for row in told] == [row[1] for row in told]

    run(test)


def test_reused_stream_starts_clean() -> None:
    sound = windows_of(hummed(1, 1))

    async def test() -> None:
        async with opened(1) as (vad, numbers):
            first = [vad.score(window[None], numbers)[0] for window in sound]
            vad.close(int(numbers[0]))
            again = vad.open()
            assert again == numbers[0]
            assert [vad.score(window[None], numbers)[0] for window in sound] == first

    run(test)


def test_later_streams_do_not_change_earlier_ones() -> None:
    sound = windows_of(hummed(1, 1))

    async def told(newcomers: int) -> list[float]:
        async with opened(1) as (vad, numbers):
            before = [float(vad.score(window[None], numbers)[0]) for window in sound[:10]]
            others = {vad.open() for _ in range(newcomers)}
            assert len(others) == newcomers
            assert int(numbers[0]) not in others
            return before + [float(vad.score(window[None], numbers)[0]) for window in sound[10:]]

    assert asyncio.run(told(200)) == asyncio.run(told(0))


def hissed(hissing: int, after: Floats) -> Floats:
    """[3 + hissing + n, 512]: silence, an "s" of so many windows, and the n windows of `after`."""
    quiet = np.zeros(3 * 512)
    hiss = 0.03 * np.diff(np.random.default_rng(0).standard_normal(hissing * 512), prepend=0)
    return windows_of(np.concatenate((quiet, hiss, after)).astype(np.float32))


def hissed_vowel(hissing: int, level: float = 0.05) -> Floats:
    """[3 + hissing + 4, 512]: silence, an "s" of so many windows, and a vowel, by default soft."""
    vowel = hummed(2, 2)
    begin = int(np.argmax(np.abs(vowel) > 0.05))
    return hissed(hissing, level * vowel[begin : begin + 4 * 512])


def hissed_whistle() -> Floats:
    """[10, 512]: silence, an "s" of six windows, and a whistle of 2,400 Hz."""
    return hissed(6, 0.8 * np.sin(2 * np.pi * 2_400 / 16_000 * np.arange(512)))


def told_with_memory(sound: Floats, monkeypatch: pytest.MonkeyPatch) -> Floats:
    with monkeypatch.context() as patch:
        patch.setattr(SECOND_SCORE_AFTER, 1_000)
        told: Floats = asyncio.run(told_alone(sound[None]))[0]
        return told


def test_vowel_after_a_hiss_counts_as_without_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = hissed_vowel(6)
    alone = asyncio.run(told_alone(sound[None, 9:10]))[0, 0]
    remembered = told_with_memory(sound, monkeypatch)
    assert remembered[9] < 0.2 < 0.3 < alone
    told = asyncio.run(told_alone(sound[None]))[0]
    assert told[9] == alone
    others = np.arange(len(sound)) != 9
    assert np.array_equal(told[others], remembered[others])  # the state is as it was


@pytest.mark.parametrize(
    ("sound", "low", "high"),
    [(hissed_vowel(6, 0.5), 0.5, 1.0), (hissed_whistle(), 0.0, 0.01)],
    ids=["speech", "whistle"],
)
def test_window_after_a_hiss_of_which_the_network_is_sure_is_scored_once(
    sound: Floats, low: float, high: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    remembered = told_with_memory(sound, monkeypatch)
    assert low < remembered[9] < high
    scored_again = "vivavoce.engines.silero.vad.SileroVAD._without_memory"
    monkeypatch.setattr(scored_again, lambda _, windows: [1.0] * len(windows))
    assert asyncio.run(told_alone(hissed_vowel(6)[None]))[0, 9] == 1.0
    assert asyncio.run(told_alone(sound[None]))[0, 9] == remembered[9]


def test_hiss_that_goes_on_changes_no_score(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = hissed_vowel(12)[:15]
    told = asyncio.run(told_alone(sound[None]))[0]
    assert np.array_equal(told, told_with_memory(sound, monkeypatch))


def test_hiss_is_forgotten_with_its_stream() -> None:
    sound = hissed_vowel(6)

    async def test() -> None:
        async with opened(1) as (vad, numbers):
            for window in sound[:9]:
                vad.score(window[None], numbers)
            vad.close(int(numbers[0]))
            assert vad.open() == numbers[0]
            told = [vad.score(window[None], numbers)[0] for window in sound[8:]]
        assert told == (await told_alone(sound[None, 8:]))[0].tolist()

    run(test)


def test_many_vowels_after_a_hiss_are_scored_in_one_batch() -> None:
    sound = hissed_vowel(6)
    alone = asyncio.run(told_alone(sound[None]))[0]

    async def test() -> None:
        async with opened(70) as (vad, numbers):
            for window, speech in zip(sound, alone, strict=True):
                told = vad.score(np.tile(window, (70, 1)), numbers)
                assert told == pytest.approx(speech, abs=1e-4)

    run(test)


def test_missing_weights_raise_settings_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(SettingsError, match=r"models pull silero-vad-v6, or use .*'energy'"):
        packaged_weights("no_such_package")
    with pytest.raises(
        SettingsError, match=r"\[engines\.vad\.silero\] there are no weights at .*v9\.onnx"
    ):
        SileroVAD(SileroSettings(weights=str(tmp_path / "v9.onnx")))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.onnx"
    path.write_bytes(b"")

    async def test() -> None:
        with pytest.raises(EngineError, match=r"other\.onnx are not those of Silero v6"):
            await SileroVAD(SileroSettings(weights=str(path))).__aenter__()

    run(test)


def test_silero_imports_neither_onnx_nor_faster_whisper() -> None:
    program = """
import asyncio, sys
from vivavoce.engines.silero.vad import SileroSettings, SileroVAD
asyncio.run(SileroVAD(SileroSettings()).__aenter__())
print(*{"onnx", "onnxruntime", "faster_whisper", "ctranslate2", "av"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("\n", "")


def test_silero_conforms_to_the_contract() -> None:
    async def main() -> None:
        async with SileroVAD(SileroSettings()) as vad:
            await check_vad(vad)

    asyncio.run(main())
