import random
from array import array

import pytest

from tests.engines.pocketsphinx.speech import synthetic
from vivavoce.engines.pocketsphinx import worker as decoding
from vivavoce.engines.worker import HeardWord

MODEL = decoding.SphinxModel()
DECODER = MODEL.decoder()


def noise(seconds: float, level: int, seed: int = 1) -> bytes:
    source = random.Random(seed)
    samples = [source.randint(-level, level) for _ in range(int(16_000 * seconds))]
    return array("h", samples).tobytes()


def finish(recognition: decoding.Recognition) -> list[str]:
    recognition.end()
    while not recognition.finished:
        recognition.step()
    recognition.release()
    return [word.text for word in recognition.words]


def begun(audio: bytes, part_ms: int = decoding.PART_MS) -> decoding.Recognition:
    recognition = decoding.Recognition(part_ms)
    recognition.feed(audio)
    recognition.begin(DECODER)
    return recognition


def test_step_takes_one_slice() -> None:
    recognition = begun(bytes(decoding.HOLD_BYTES + 10))
    recognition.end()
    steps = []
    while not recognition.finished:
        steps.append(recognition.step())
    recognition.release()
    assert steps == [decoding.SLICE_BYTES] * 6 + [10]


@pytest.mark.parametrize("size", [0, 1, 2, 3, 300, decoding.SLICE_BYTES])
def test_audio_of_any_length_is_finished(size: int) -> None:
    assert finish(begun(bytes(size))) == []


def test_released_decoder_can_be_used_again() -> None:
    for _ in range(2):
        recognition = begun(noise(1.0, 3000))
        recognition.step()
        assert recognition.release() is DECODER
        assert recognition.release() is None


def recognised(audio: bytes) -> list[HeardWord]:
    recognition = begun(audio)
    finish(recognition)
    return list(recognition.words)


def test_decoder_is_not_influenced_by_the_utterance_before() -> None:
    audio = synthetic("how are you today")
    before = recognised(audio)
    recognised(noise(2.0, 20_000))
    assert before != []
    assert recognised(audio) == before


def test_long_utterance_is_decoded_in_parts_and_its_words_stay() -> None:
    audio = synthetic("yes please") * 3
    recognition = begun(audio, part_ms=600)
    before: list[str] = []
    while recognition.queued >= decoding.SLICE_BYTES:
        recognition.step()
        words = [word.text for word in recognition.words]
        assert words[: len(before)] == before
        before = words[: recognition.stable]
    finish(recognition)
    times = [time for word in recognition.words for time in (word.start_ms, word.end_ms)]
    assert len(times) >= 6
    assert times == sorted(times)
    assert times[-1] <= len(audio) / decoding.BYTES_PER_MS
