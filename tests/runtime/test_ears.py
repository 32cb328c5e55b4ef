"""Windows of many sessions are judged together, each session's in order, and none is lost."""

import asyncio
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vivavoce.engines.scripted.engines import ScriptedVAD
from vivavoce.engines.scripted.scripts import VADScript
from vivavoce.runtime.vad_batcher import DEEP, TICK_SECONDS, VadBatcher, VadStream
from vivavoce.session.cascade.turn_detection import WINDOW
from vivavoce.testing.virtual_time import run

LOUD = b"\x00\x40" * WINDOW
SOFT = bytes(2 * WINDOW)


class CountingVAD(ScriptedVAD):
    """Notes which streams were judged together, and which are open; fails on some streams."""

    def __init__(self, max_batch: int = 512, broken: frozenset[int] = frozenset()) -> None:
        super().__init__(VADScript())
        self.max_batch = max_batch
        self.batches: list[list[int]] = []
        self.held: set[int] = set()
        self._broken = broken

    def open(self) -> int:
        stream = super().open()
        self.held.add(stream)
        return stream

    def close(self, stream: int) -> None:
        self.held.remove(stream)
        super().close(stream)

    def score(self, windows: NDArray[np.float32], streams: NDArray[np.intp]) -> NDArray[np.float32]:
        assert windows.shape == (len(streams), self.window_samples)
        self.batches.append(streams.tolist())
        if self._broken & set(streams.tolist()):
            raise KeyError("a bug")
        return super().score(windows, streams)


class House:
    """Ears, and what each stream was told."""

    def __init__(self, vad: CountingVAD) -> None:
        self.vad = vad
        self.ears = VadBatcher(vad)
        self.told: dict[int, list[tuple[int, float]]] = {}
        self.times: list[float] = []
        self.failed: list[str] = []

    def open(self) -> VadStream:
        def deliver(at: int, speech: tuple[float, ...]) -> None:
            self.told[ear.stream].extend((at, one) for one in speech)
            self.times.append(asyncio.get_running_loop().time())

        ear = self.ears.open(deliver, lambda exc: self.failed.append(repr(exc)))
        self.told[ear.stream] = []
        return ear


async def settled() -> None:
    await asyncio.sleep(1)


def test_windows_of_many_streams_are_judged_in_one_call() -> None:
    async def main() -> None:
        house = House(CountingVAD())
        ears = [house.open() for _ in range(5)]
        for n, ear in enumerate(ears):
            ear.score(n * 1000, LOUD if n % 2 else SOFT)
        await settled()
        assert house.vad.batches == [[0, 1, 2, 3, 4]]
        assert house.told == {n: [(n * 1000, float(n % 2))] for n in range(5)}

    run(main())


def test_a_stream_hears_its_verdicts_in_order() -> None:
    async def main() -> None:
        house = House(CountingVAD())
        ear = house.open()
        ear.score(0, LOUD + SOFT)
        ear.score(2 * WINDOW, LOUD)
        ear.score(900_000, SOFT + LOUD)  # after a clear the places go on elsewhere
        assert ear.waiting == 5
        await settled()
        assert ear.waiting == 0
        places = [0, WINDOW, 2 * WINDOW, 900_000, 900_000 + WINDOW]
        assert [at for at, _ in house.told[0]] == places
        # The engine hears at 16 kHz, through a filter that rings a little beyond each edge.
        assert [speech for _, speech in house.told[0]][0::4] == [1.0, 1.0]

    run(main())


def test_no_batch_is_larger_than_the_engine_takes_and_nobody_is_passed_over() -> None:
    async def main() -> None:
        house = House(CountingVAD(max_batch=2))
        ears = [house.open() for _ in range(5)]
        for ear in ears:
            ear.score(0, SOFT + SOFT)
        await settled()
        assert house.vad.batches == [[0, 1], [2, 3], [4, 0], [1, 2], [3, 4]]

    run(main())


def test_after_a_quiet_time_a_window_is_judged_at_once_and_then_once_a_tick() -> None:
    async def main() -> None:
        house = House(CountingVAD())
        ear = house.open()
        await asyncio.sleep(1)
        ear.score(0, SOFT)
        await asyncio.sleep(TICK_SECONDS / 4)
        ear.score(WINDOW, SOFT)
        await settled()
        assert house.times == [1.0, 1.0 + TICK_SECONDS]

    run(main())


def test_a_recording_sent_at_once_does_not_wait_for_the_ticks() -> None:
    async def main() -> None:
        house = House(CountingVAD())
        ear = house.open()
        ear.score(0, SOFT * 1000)
        await settled()
        assert [at for at, _ in house.told[0]] == [n * WINDOW for n in range(1000)]
        assert house.times[: 1000 - DEEP] == [0.0] * (1000 - DEEP)
        assert house.times[-1] == pytest.approx(DEEP * TICK_SECONDS)

    run(main())


def test_however_a_recording_is_cut_the_engine_hears_the_same() -> None:
    sound = np.random.default_rng(3).integers(-9000, 9000, 40 * WINDOW).astype("<i2").tobytes()

    class Memory(CountingVAD):
        heard = b""

        def score(self, windows: NDArray[np.float32], streams: Any) -> NDArray[np.float32]:
            self.heard += windows.tobytes()
            return super().score(windows, streams)

    async def heard(windows: int) -> bytes:
        vad = Memory()
        ear = House(vad).open()
        size = 2 * WINDOW * windows
        for start in range(0, len(sound), size):
            ear.score(start // 2, sound[start : start + size])
        await settled()
        return vad.heard

    assert run(heard(40)) == run(heard(1)) == run(heard(7))


def test_an_ear_that_closes_while_it_waits_is_not_judged() -> None:
    async def main() -> None:
        house = House(CountingVAD())
        gone, stays = house.open(), house.open()
        gone.score(0, SOFT)
        stays.score(0, SOFT)
        gone.close()
        await settled()
        assert house.told == {0: [], 1: [(0, 0.0)]}
        assert house.vad.batches == [[1]]
        assert house.vad.held == {1}

    run(main())


def test_the_last_ear_may_close_while_it_waits() -> None:
    async def main() -> None:
        house, complaints = House(CountingVAD()), []
        asyncio.get_running_loop().set_exception_handler(lambda _, c: complaints.append(c))
        ear = house.open()
        ear.score(0, SOFT)
        ear.close()
        await settled()
        assert (house.vad.batches, house.vad.held, complaints) == ([], set(), [])

    run(main())


def test_an_ear_may_be_closed_by_its_own_verdict() -> None:
    async def main() -> None:
        vad = CountingVAD()
        ears = VadBatcher(vad)
        told: list[int] = []

        def deliver(at: int, speech: tuple[float, ...]) -> None:
            told.append(at)
            ear.close()

        ear = ears.open(deliver, lambda exc: pytest.fail(repr(exc)))
        ear.score(0, SOFT * 3)
        await settled()
        assert told == [0]
        assert vad.held == set()

    run(main())


def test_an_engine_that_fails_on_one_stream_fails_for_that_one_alone() -> None:
    async def main() -> None:
        house = House(CountingVAD(broken=frozenset({1})))
        ears = [house.open() for _ in range(3)]
        for ear in ears:
            ear.score(0, SOFT)
        await settled()
        assert house.failed == ["KeyError('a bug')"]
        assert house.told == {0: [(0, 0.0)], 1: [], 2: [(0, 0.0)]}
        ears[0].score(WINDOW, SOFT)
        await settled()
        assert house.told[0] == [(0, 0.0), (WINDOW, 0.0)]

    run(main())


def test_windows_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="must last 32 ms"):
        VadBatcher(ScriptedVAD(VADScript(window_samples=480)))
