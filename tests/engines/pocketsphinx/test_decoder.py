import random
from array import array

import pytest

from tests.engines.pocketsphinx.speech import synthetic
from vivavoce.engines.pocketsphinx import decoder as decoding
from vivavoce.engines.pocketsphinx.frames import HeardWord

MODEL = decoding.Model()
DECODER = MODEL.decoder()


def noise(seconds: float, level: int, seed: int = 1) -> bytes:
    source = random.Random(seed)
    samples = [source.randint(-level, level) for _ in range(int(16_000 * seconds))]
    return array("h", samples).tobytes()


def finish(utterance: decoding.Utterance) -> list[str]:
    utterance.end()
    if not utterance.listening:
        utterance.begin(DECODER)
    while utterance.due:
        utterance.step()
    utterance.release()
    return [word.text for word in utterance.words]


def test_nothing_is_due_before_enough_is_heard_to_know_the_voice() -> None:
    utterance = decoding.Utterance()
    utterance.feed(bytes(decoding.HOLD_BYTES - 2))
    assert not utterance.due
    utterance.feed(bytes(2))
    assert utterance.due


def test_a_step_takes_a_slice_and_no_more() -> None:
    utterance = decoding.Utterance()
    utterance.feed(bytes(decoding.HOLD_BYTES + 10))
    utterance.begin(DECODER)
    steps = []
    while utterance.due:
        steps.append(utterance.step())
    utterance.end()
    while utterance.due:
        steps.append(utterance.step())
    utterance.release()
    assert steps == [decoding.SLICE_BYTES] * 6 + [10]


@pytest.mark.parametrize("size", [0, 1, 2, 3, 300, decoding.SLICE_BYTES])
def test_audio_of_any_length_comes_to_an_end(size: int) -> None:
    utterance = decoding.Utterance()
    utterance.feed(bytes(size))
    assert finish(utterance) == []


def test_a_released_decoder_can_be_used_again() -> None:
    for _ in range(2):
        utterance = decoding.Utterance()
        utterance.feed(noise(1.0, 3000))
        utterance.begin(DECODER)
        utterance.step()
        assert utterance.release() is DECODER
        assert not utterance.listening


def hear(audio: bytes) -> list[HeardWord]:
    utterance = decoding.Utterance()
    utterance.feed(audio)
    finish(utterance)
    return list(utterance.words)


def test_a_decoder_forgets_the_utterance_before() -> None:
    audio = synthetic("how are you today")
    before = hear(audio)
    hear(noise(2.0, 20_000))
    assert before != []
    assert hear(audio) == before


def test_a_long_utterance_is_cut_and_its_words_stay() -> None:
    audio = synthetic("yes please") * 3
    utterance = decoding.Utterance(part_ms=600)
    utterance.feed(audio)
    utterance.begin(DECODER)
    before: list[str] = []
    while utterance.due:
        utterance.step()
        words = [word.text for word in utterance.words]
        assert words[: len(before)] == before
        before = words[: utterance.stable]
    finish(utterance)
    times = [time for word in utterance.words for time in (word.start_ms, word.end_ms)]
    assert len(times) >= 6
    assert times == sorted(times)
    assert times[-1] <= len(audio) / decoding.BYTES_PER_MS
