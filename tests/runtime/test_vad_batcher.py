"""Windows of many sessions are judged together, each session's in order, and none is lost."""

import asyncio
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vivavoce.engines.scripted.engines import ScriptedVAD
from vivavoce.engines.scripted.scripts import VADScript
from vivavoce.runtime.vad_batcher import (
    FULL_LOAD,
    MAX_BACKLOG_WINDOWS,
    MAX_TICK_S,
    SLICE_S,
    VadBatcher,
    VadStream,
)
from vivavoce.session.cascade.turn_detection import WINDOW
from vivavoce.testing.virtual_time import VirtualTimeLoop, run

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


class BatcherRun:
    """A batcher and the scores that each of its streams received."""

    def __init__(self, vad: CountingVAD) -> None:
        self.vad = vad
        self.batcher = VadBatcher(vad)
        self.scores: dict[int, list[tuple[int, float]]] = {}
        self.times: list[float] = []
        self.failed: list[str] = []

    def open(self) -> VadStream:
        def deliver(at: int, speech: tuple[float, ...]) -> None:
            self.scores[stream.stream].extend((at, one) for one in speech)
            self.times.append(asyncio.get_running_loop().time())

        stream = self.batcher.open(deliver, lambda exc: self.failed.append(repr(exc)))
        self.scores[stream.stream] = []
        return stream


async def settled() -> None:
    await asyncio.sleep(1)


def test_windows_of_many_streams_are_scored_in_one_batch() -> None:
    async def main() -> None:
        batching = BatcherRun(CountingVAD())
        streams = [batching.open() for _ in range(5)]
        for n, stream in enumerate(streams):
            stream.score(n * 1000, LOUD if n % 2 else SOFT)
        await settled()
        assert batching.vad.batches == [[0, 1, 2, 3, 4]]
        assert batching.scores == {n: [(n * 1000, float(n % 2))] for n in range(5)}

    run(main())


def test_scores_of_a_stream_are_delivered_in_order() -> None:
    async def main() -> None:
        batching = BatcherRun(CountingVAD())
        stream = batching.open()
        stream.score(0, LOUD + SOFT)
        stream.score(2 * WINDOW, LOUD)
        stream.score(900_000, SOFT + LOUD)  # after a clear the places go on elsewhere
        assert stream.waiting == 5
        await settled()
        assert stream.waiting == 0
        places = [0, WINDOW, 2 * WINDOW, 900_000, 900_000 + WINDOW]
        assert [at for at, _ in batching.scores[0]] == places
        # The engine hears at 16 kHz, through a filter that rings a little beyond each edge.
        assert [speech for _, speech in batching.scores[0]][0::4] == [1.0, 1.0]

    run(main())


def test_batch_is_bounded_and_streams_take_turns() -> None:
    async def main() -> None:
        batching = BatcherRun(CountingVAD(max_batch=2))
        streams = [batching.open() for _ in range(5)]
        for stream in streams:
            stream.score(0, SOFT + SOFT)
        await settled()
        assert batching.vad.batches == [[0, 1], [2, 3], [4, 0], [1, 2], [3, 4]]

    run(main())


def test_scores_delivered_in_slices_let_what_follows_from_the_first_run() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        batcher, order = VadBatcher(CountingVAD()), list[str]()

        def deliver_to(name: str) -> VadStream:
            def deliver(at: int, speech: tuple[float, ...]) -> None:
                order.append(name)
                loop.call_soon(order.append, f"after {name}")
                loop.spend(SLICE_S * 0.6)
                if name == "b":
                    streams[3].close()

            return batcher.open(deliver, lambda exc: order.append(repr(exc)))

        streams = [deliver_to(name) for name in "abcd"]
        for stream in streams:
            stream.score(0, SOFT)
        await settled()
        assert order == ["a", "b", "after a", "after b", "c", "after c"]

    run(main())


def test_window_after_idle_is_scored_at_once() -> None:
    async def main() -> None:
        batching = BatcherRun(CountingVAD())
        stream = batching.open()
        await asyncio.sleep(1)
        stream.score(0, SOFT)
        await settled()
        assert batching.times == [1.0]

    run(main())


@pytest.mark.parametrize(
    ("users", "tick_s"),
    [(1, MAX_TICK_S * 30 / FULL_LOAD), (10, MAX_TICK_S * 300 / FULL_LOAD), (100, MAX_TICK_S)],
)
def test_tick_grows_with_the_load_to_its_bound(users: int, tick_s: float) -> None:
    """Each user sends 30 windows a second; the windows behind the next one wait for the tick."""

    async def main() -> None:
        batching = BatcherRun(CountingVAD())
        streams = [batching.open() for _ in range(users)]
        for n in range(110):
            for stream in streams:
                stream.score(n * WINDOW, SOFT)
            await asyncio.sleep(1 / 30)
        batching.times.clear()
        streams[0].score(110 * WINDOW, SOFT + SOFT)
        await settled()
        first, second = batching.times
        assert second - first == pytest.approx(tick_s, rel=0.05)

    run(main())


def test_backlog_is_scored_without_waiting_for_ticks() -> None:
    async def main() -> None:
        batching = BatcherRun(CountingVAD())
        stream = batching.open()
        stream.score(0, SOFT * 1000)
        await settled()
        assert [at for at, _ in batching.scores[0]] == [n * WINDOW for n in range(1000)]
        assert batching.times[: 1000 - MAX_BACKLOG_WINDOWS] == [0.0] * (1000 - MAX_BACKLOG_WINDOWS)
        assert 0 < batching.times[-1] <= MAX_BACKLOG_WINDOWS * MAX_TICK_S

    run(main())


def test_engine_windows_do_not_depend_on_chunk_size() -> None:
    sound = np.random.default_rng(3).integers(-9000, 9000, 40 * WINDOW).astype("<i2").tobytes()

    class Memory(CountingVAD):
        heard = b""

        def score(self, windows: NDArray[np.float32], streams: Any) -> NDArray[np.float32]:
            self.heard += windows.tobytes()
            return super().score(windows, streams)

    async def heard(windows: int) -> bytes:
        vad = Memory()
        stream = BatcherRun(vad).open()
        size = 2 * WINDOW * windows
        for start in range(0, len(sound), size):
            stream.score(start // 2, sound[start : start + size])
        await settled()
        return vad.heard

    assert run(heard(40)) == run(heard(1)) == run(heard(7))


def test_stream_closed_while_waiting_is_not_scored() -> None:
    async def main() -> None:
        batching = BatcherRun(CountingVAD())
        gone, stays = batching.open(), batching.open()
        gone.score(0, SOFT)
        stays.score(0, SOFT)
        gone.close()
        await settled()
        assert batching.scores == {0: [], 1: [(0, 0.0)]}
        assert batching.vad.batches == [[1]]
        assert batching.vad.held == {1}

    run(main())


def test_last_stream_closed_while_waiting_cancels_the_batch() -> None:
    async def main() -> None:
        batching, complaints = BatcherRun(CountingVAD()), []
        asyncio.get_running_loop().set_exception_handler(lambda _, c: complaints.append(c))
        stream = batching.open()
        stream.score(0, SOFT)
        stream.close()
        await settled()
        assert (batching.vad.batches, batching.vad.held, complaints) == ([], set(), [])

    run(main())


def test_stream_may_be_closed_in_its_own_callback() -> None:
    async def main() -> None:
        vad = CountingVAD()
        batcher = VadBatcher(vad)
        scores: list[int] = []

        def deliver(at: int, speech: tuple[float, ...]) -> None:
            scores.append(at)
            stream.close()

        stream = batcher.open(deliver, lambda exc: pytest.fail(repr(exc)))
        stream.score(0, SOFT * 3)
        await settled()
        assert scores == [0]
        assert vad.held == set()

    run(main())


def test_engine_failure_on_one_stream_fails_only_that_stream() -> None:
    async def main() -> None:
        batching = BatcherRun(CountingVAD(broken=frozenset({1})))
        streams = [batching.open() for _ in range(3)]
        for stream in streams:
            stream.score(0, SOFT)
        await settled()
        assert batching.failed == ["KeyError('a bug')"]
        assert batching.scores == {0: [(0, 0.0)], 1: [], 2: [(0, 0.0)]}
        streams[0].score(WINDOW, SOFT)
        await settled()
        assert batching.scores[0] == [(0, 0.0), (WINDOW, 0.0)]

    run(main())


def test_engine_with_another_window_length_is_refused() -> None:
    with pytest.raises(ValueError, match="must last 32 ms"):
        VadBatcher(ScriptedVAD(VADScript(window_samples=480)))
