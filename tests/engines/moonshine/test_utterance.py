"""When an utterance is decoded, with a model that hears one word in everything."""

from collections.abc import Iterator
from typing import cast

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="the extra `local` is not installed")

from vivavoce.engines.moonshine.model import NOTHING, Decoded, MoonshineModel, Samples
from vivavoce.engines.moonshine.utterance import Utterance
from vivavoce.engines.worker import WorkerStream

RATE = 16_000
PIECE = 2 * RATE // 25


class OneWordModel:
    """Notes the milliseconds that it is to decode."""

    def __init__(self) -> None:
        self.decoded: list[int] = []

    def decode(self, samples: Samples, prefix: Decoded = NOTHING) -> Iterator[Decoded | None]:
        self.decoded.append(len(samples) * 1000 // RATE)
        yield None
        yield Decoded((7,), (-0.1, -0.1))

    def text(self, tokens: tuple[int, ...]) -> str:
        return "word" if tokens else ""

    def word_scores(self, result: Decoded) -> list[float]:
        return [-0.1]

    def begins_word(self, token: int) -> bool:
        return True


def decodings_of(seconds: float, *, contended: bool) -> list[int]:
    """What is decoded, in milliseconds, of a hum of that length and half a second of silence."""
    model, stream = OneWordModel(), WorkerStream(1, lambda _: None)
    hum = 8000 * np.sin(np.arange(int(seconds * RATE)) * 0.2)
    pcm = hum.astype("<i2").tobytes() + bytes(RATE)
    turns = Utterance(cast(MoonshineModel, model)).serve(stream)
    needed = next(turns)
    for at in range(0, len(pcm), PIECE):
        stream.add_input(pcm[at : at + PIECE])
        stream.contended = contended
        while stream.queued >= needed:
            needed = next(turns)
    stream.ended = True
    assert list(turns) == []
    return model.decoded


def test_utterance_is_decoded_while_it_goes_on_and_not_again_at_its_end() -> None:
    assert decodings_of(3.0, contended=False) == [200, 320, 440, 1200, 2080, 3080]


def test_utterance_is_decoded_less_often_while_others_wait_and_in_the_pause_all_the_same() -> None:
    assert decodings_of(3.0, contended=True) == [360, 600, 2760, 3240]  # 240 ms of silence
