"""When a worker decodes passages, which of them are one batch, and what it sends."""

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np

from vivavoce.engines.passages import (
    RATE,
    PassageAudio,
    PassageWords,
    PassageWorker,
    RecognitionRequest,
)
from vivavoce.engines.worker import FromWorker, HeardWord, Hypothesis, StreamOutput, WorkerStream


class Ruler(PassageWorker):
    """Its only word is the length of a passage in tenths of a second."""

    max_batch = 2
    max_passage_ms = 4_000

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []
        self.now = 0.0
        self.clock = lambda: self.now

    def recognise(self, passages: Sequence[PassageAudio]) -> list[PassageWords]:
        self.batches.append(len(passages))
        return [
            PassageWords((HeardWord(str(round(len(each.samples) * 10 / RATE)), 0, 0),))
            for each in passages
        ]


class Utterance:
    """One stream of a worker."""

    def __init__(self, worker: Ruler, request: RecognitionRequest | None = None) -> None:
        self.sent: list[Hypothesis] = []
        self._stream = WorkerStream(1, self._report)
        self._worker = worker
        self._turns: Iterator[int] = worker.serve(request or RecognitionRequest(), self._stream)
        next(self._turns)

    def feed(self, level: float, seconds: float) -> None:
        """Audio in real time, 100 ms a piece."""
        for _ in range(round(seconds * 10)):
            self._worker.now += 0.1
            self.add(level, 0.1)

    def add(self, level: float, seconds: float) -> None:
        """Audio at once."""
        noise = np.random.default_rng(1).normal(size=round(seconds * RATE)) * level
        self._stream.add_input((32767 * np.clip(noise, -1, 1)).astype("<i2").tobytes())
        self.turn()

    def turn(self) -> None:
        while next(self._turns, 1) == 0:
            pass

    def finish(self) -> Hypothesis:
        self._stream.ended = True
        for _ in self._turns:
            pass
        return self.sent[-1]

    def _report(self, frame: FromWorker) -> None:
        if isinstance(frame, StreamOutput):
            self.sent.append(msgspec.msgpack.decode(frame.message, type=Hypothesis))


def texts(hypothesis: Hypothesis) -> list[str]:
    return [word.text for word in hypothesis.words]


def test_live_speech_is_decoded_in_its_pause_and_not_again_at_its_end() -> None:
    worker = Ruler()
    utterance = Utterance(worker)
    utterance.feed(0.1, 1.0)
    assert worker.batches == []
    utterance.feed(0.0, 0.5)
    assert [texts(each) for each in utterance.sent] == [["12"]]  # 240 ms of the pause are decoded
    final = utterance.finish()
    assert (texts(final), final.stable, final.final) == (["12"], 1, True)
    assert worker.batches == [1]
    assert 0 <= final.words[0].start_ms < final.words[0].end_ms <= 1_020


def test_live_speech_with_partials_is_decoded_while_it_goes_on() -> None:
    worker = Ruler()
    worker.partial_ms = 500
    utterance = Utterance(worker)
    utterance.feed(0.1, 2.0)
    assert [texts(each) for each in utterance.sent] == [["6"], ["13"]]
    assert all(each.stable == 0 for each in utterance.sent)


def test_recording_is_decoded_once_and_cut_where_it_is_too_long() -> None:
    worker = Ruler()
    utterance = Utterance(worker)
    for _ in range(5):
        utterance.add(0.1, 1.9)
        utterance.add(0.0, 0.2)
    final = utterance.finish()
    assert worker.batches == [1] * len(final.words)
    assert texts(final) == ["40", "42", "23"]
    starts = [word.start_ms for word in final.words]
    assert starts == sorted(starts)
    assert starts[1] >= 4_000


def test_silence_is_never_decoded_and_has_no_words() -> None:
    worker = Ruler()
    utterance = Utterance(worker)
    utterance.add(0.0, 10.0)
    assert texts(utterance.finish()) == []
    assert worker.batches == []


def test_passages_that_wait_at_the_same_time_are_one_batch() -> None:
    worker = Ruler()
    several = [Utterance(worker) for _ in range(3)]
    for each in several:
        each.add(0.1, 1.0)
    ends = []
    for each in several:
        each._stream.ended = True
        ends.append(each._turns)
    assert [next(turns) for turns in ends] == [0, 0, 0]
    for turns in ends:
        list(turns)
    assert worker.batches == [2, 1]
    assert [texts(each.sent[-1]) for each in several] == [["10"]] * 3


def test_cancelled_passage_is_not_in_a_batch() -> None:
    worker = Ruler()
    first, second = Utterance(worker), Utterance(worker)
    for each in (first, second):
        each.add(0.1, 1.0)
        each._stream.ended = True
        next(each._turns)
    first._turns.close()  # type: ignore[attr-defined]
    second.finish()
    assert worker.batches == [1]
