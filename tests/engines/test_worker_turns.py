"""Which stream of a worker process has the next turn."""

import io
from collections.abc import Iterator

import numpy as np

from vivavoce.engines.sentences import SentenceWorker, Sound
from vivavoce.engines.worker import (
    EndOfInput,
    OpenStream,
    StreamInput,
    UtteranceRequest,
    WorkerLoop,
    WorkerStream,
    raw,
)

TURNS = 3


class SlowWorker:
    """Works for some turns on what it has got; urgent where the request says so."""

    def __init__(self) -> None:
        self.order: list[int] = []

    def serve(self, request: tuple[int, bool], stream: WorkerStream) -> Iterator[int]:
        number, stream.urgent = request
        yield 1
        for _ in range(TURNS):
            stream.take(stream.queued)
            self.order.append(number)
            yield 0


def turns_of(*streams: tuple[bool, int, bool]) -> list[int]:
    """The order of turns of streams, each (urgent, bytes of input, whether it has ended)."""
    worker = SlowWorker()
    loop = WorkerLoop(worker, io.BytesIO(), io.BytesIO())
    for number, (urgent, _, _) in enumerate(streams):
        loop.obey(OpenStream(number, raw((number, urgent))))
        loop.take_turn(number)  # up to where it waits for input
    for number, (_, size, ended) in enumerate(streams):
        loop.obey(StreamInput(number, bytes(size)))
        if ended:
            loop.obey(EndOfInput(number))
    while (due := loop.next_stream()) is not None:
        loop.take_turn(due)
    return worker.order


def test_streams_of_the_same_rank_have_their_turns_in_order() -> None:
    assert turns_of((False, 2, False), (False, 1, False)) == [0, 1, 0, 1, 0, 1]


def test_a_stream_whose_input_has_ended_is_served_before_the_others() -> None:
    assert turns_of((False, 2, False), (True, 2, False), (False, 2, True)) == [
        *(2, 2, 2),
        *(1, 1, 1),
        *(0, 0, 0),
    ]


def test_of_the_streams_that_have_ended_the_shortest_is_served_first() -> None:
    assert turns_of((False, 9, True), (False, 2, True)) == [1, 1, 1, 0, 0, 0]


class ContentionWorker:
    """Notes in each turn whether other streams wait."""

    def __init__(self) -> None:
        self.noted: list[tuple[int, bool]] = []

    def serve(self, request: int, stream: WorkerStream) -> Iterator[int]:
        while True:
            yield 1
            stream.take(stream.queued)
            self.noted.append((request, stream.contended))


def test_a_stream_knows_whether_others_wait_for_their_turn() -> None:
    worker = ContentionWorker()
    loop = WorkerLoop(worker, io.BytesIO(), io.BytesIO())
    for number in range(2):
        loop.obey(OpenStream(number, raw(number)))
        loop.take_turn(number)
    for number in (0, 1, 0):
        loop.obey(StreamInput(number, b"x"))
    while (due := loop.next_stream()) is not None:
        loop.take_turn(due)
    assert worker.noted == [(0, True), (1, False)]


class SpokenOrder(SentenceWorker):
    """Speaks a short sound, and notes the order of sentences."""

    def __init__(self) -> None:
        self.order: list[str] = []

    def speak(self, text: str, request: UtteranceRequest) -> Sound:
        self.order.append(text.strip())
        return np.ones(2400, np.float32)


def test_first_sentence_of_an_awaited_utterance_is_spoken_before_those_of_others() -> None:
    worker = SpokenOrder()
    loop = WorkerLoop(worker, io.BytesIO(), io.BytesIO())
    for number, (text, awaited) in enumerate(
        [("One. Two. Three.", False), ("Four. Five. Six.", False), ("Seven. Eight.", True)]
    ):
        loop.obey(OpenStream(number, raw(UtteranceRequest(text, "", 1.0, None, awaited))))
        if not awaited:
            loop.take_turn(number)  # up to its first sentence
    while (due := loop.next_stream()) is not None:
        loop.take_turn(due)
    assert worker.order == ["Seven.", "One.", "Four.", "Eight.", "Two.", "Five.", "Three.", "Six."]
