import asyncio

import numpy as np
from numpy.typing import NDArray

from vivavoce.engines import base
from vivavoce.engines.vad_energy import EnergySettings, EnergyVAD
from vivavoce.testing.conformance import check_vad

Floats = NDArray[np.float32]


def noise(decibels: float, windows: int, seed: int = 0) -> Floats:
    """[windows, 512], at that level of full scale."""
    white = np.random.default_rng(seed).standard_normal((windows, 512))
    return (10 ** (decibels / 20) * white).astype(np.float32)


def drawn(*parts: Floats, vad: EnergyVAD | None = None) -> str:
    """One character a window: # speech, . none."""
    vad = vad or EnergyVAD(EnergySettings())
    streams = np.array([vad.open()])
    told = [vad.score(window[None], streams)[0] for window in np.concatenate(parts)]
    vad.close(int(streams[0]))
    assert all(0 <= likely <= 1 for likely in told)
    return "".join("#" if likely > 0.5 else "." for likely in told)


def test_speech_after_digital_silence_is_found_in_its_first_window() -> None:
    picture = drawn(noise(-200, 10), noise(-25, 8), noise(-200, 12))
    assert picture.startswith("." * 10 + "#" * 8)
    assert picture.endswith("." * 9)  # it lets go within 3 windows


def test_speech_over_noise_is_found() -> None:
    picture = drawn(noise(-48, 20), noise(-25, 8), noise(-48, 12, seed=1))
    assert picture == "." * 20 + "#" * 9 + "." * 11


def test_quiet_noise_is_not_speech_from_its_first_window() -> None:
    assert drawn(noise(-42, 100)) == "." * 100


def test_beginning_noise_is_speech_for_at_most_3_seconds() -> None:
    picture = drawn(noise(-70, 50), noise(-35, 150, seed=1))
    assert "#" in picture
    assert set(picture[50 + 96 :]) == {"."}


def test_stop_within_a_word_is_bridged() -> None:
    word = (noise(-20, 5), noise(-60, 2), noise(-20, 5))
    assert drawn(noise(-60, 20), *word).endswith("#" * 12)


def test_long_speech_with_breaths_stays_speech() -> None:
    breath = np.concatenate((noise(-20, 60), noise(-60, 8, seed=1)))
    last = drawn(noise(-60, 20), *[breath] * 10)[-68:]
    assert last.startswith("#" * 60)
    assert last.endswith("...")


def test_constant_offset_is_silence() -> None:
    assert drawn(np.full((20, 512), 0.3, np.float32)) == "." * 20


def test_streams_do_not_influence_each_other() -> None:
    vad: base.VAD = EnergyVAD(EnergySettings())
    streams = np.array([vad.open() for _ in range(40)])
    loudness = np.where(np.arange(40) % 2, -20.0, -60.0)
    sound = np.stack([noise(float(level), 20, seed) for seed, level in enumerate(loudness)], axis=1)
    order = np.random.default_rng(0).permutation(40)
    told = np.stack([vad.score(windows[order], streams[order]) for windows in sound])
    for row, stream in enumerate(order):
        expected = drawn(sound[:, stream])
        assert "".join("#" if likely > 0.5 else "." for likely in told[:, row]) == expected


def test_reused_stream_starts_clean() -> None:
    vad = EnergyVAD(EnergySettings())
    first = drawn(noise(-60, 20), noise(-20, 5), vad=vad)
    drawn(noise(-10, 200), vad=vad)
    assert drawn(noise(-60, 20), noise(-20, 5), vad=vad) == first


def test_energy_conforms_to_the_contract() -> None:
    async def main() -> None:
        async with EnergyVAD(EnergySettings()) as vad:
            await check_vad(vad)
            assert vad.window_samples == 512

    asyncio.run(main())
