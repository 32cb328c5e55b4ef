"""What WebRTC's module makes of a microphone that hears the server's own voice.

Each test that nothing is taken for speech stands beside one where the same sound is.
"""

import asyncio
from functools import cache
from importlib.util import find_spec

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("livekit", reason="the extra `room` is not installed")

from vivavoce.audio.formats import RATE
from vivavoce.audio.resample import resample
from vivavoce.engines import registry
from vivavoce.engines.base import VAD, Cleaner
from vivavoce.testing.conformance import check_clean

if not (find_spec("espeakng_loader") and find_spec("faster_whisper")):
    pytest.skip("the extra `local` is not installed", allow_module_level=True)

Sound = NDArray[np.float64]
PIECE = RATE // 10
ANSWER = (
    "The weather will be fine today, with a little wind from the west. Tomorrow there may be "
    "some rain in the evening, so take an umbrella with you when you go out."
)
QUESTION = "Please stop, I want something else."
ASKED_AT = 4 * RATE
SPEECH = 0.5  # the threshold that a session begins with


@cache
def spoken(text: str) -> Sound:
    """The text in espeak's voice, at 24 kHz."""

    async def main() -> Sound:
        async with registry.create("tts", "espeak", {}) as tts:
            speaking = tts.synthesize(
                text, voice=tts.default_voice, speed=1.0, language=None, instructions=""
            )
            pcm = b"".join([piece.audio async for piece in speaking])
        return np.frombuffer(resample(pcm, tts.sample_rate, RATE), "<i2").astype(np.float64)

    return asyncio.run(main())


def at(sound: Sound, start: int, samples: int, db: float = 0.0) -> Sound:
    """The sound so much later and so much louder, in so many samples."""
    placed = np.zeros(samples)
    placed[start : start + len(sound)] = sound * 10 ** (db / 20)
    return placed


def pcm(sound: Sound) -> bytes:
    return np.clip(sound, -32768, 32767).astype("<i2").tobytes()


def room(echo_db: float, echo_ms: int, question: bool = False) -> tuple[bytes, bytes]:
    """What is played and what the microphone hears of it, a little noise and the user too."""
    answer = spoken(ANSWER)
    samples = len(answer) // PIECE * PIECE + 10 * PIECE
    heard = at(answer, echo_ms * RATE // 1000, samples, echo_db)
    heard += np.random.default_rng(1).normal(0, 20, samples)
    if question:
        heard += at(spoken(QUESTION), ASKED_AT, samples)
    return pcm(at(answer, 0, samples)), pcm(heard)


def cleaned(cleaner: Cleaner, played: bytes, heard: bytes, field: str) -> bytes:
    stream = cleaner.open("near" if field == "near" else "far")
    made = b""
    for start in range(0, len(heard), 2 * PIECE):
        stream.play(played[start : start + 2 * PIECE])
        made += stream.process(heard[start : start + 2 * PIECE])
    stream.close()
    return made


def judged(vad: VAD, heard: bytes) -> NDArray[np.bool_]:
    """Whether each window is speech."""
    samples = np.frombuffer(resample(heard, RATE, vad.sample_rate), "<i2")
    count = len(samples) // vad.window_samples
    windows = samples[: count * vad.window_samples].reshape(count, -1).astype(np.float32) / 32768
    stream = np.array([vad.open()], dtype=np.intp)
    return np.array([vad.score(window[None], stream)[0] for window in windows]) > SPEECH


def speech(played: bytes, heard: bytes, field: str) -> NDArray[np.bool_]:
    """Whether each window is speech; field: "" for sound as it came."""

    async def main() -> NDArray[np.bool_]:
        async with (
            registry.create("vad", "silero", {}) as vad,
            registry.create("clean", "webrtc", {}) as cleaner,
        ):
            return judged(vad, cleaned(cleaner, played, heard, field) if field else heard)

    return asyncio.run(main())


@pytest.mark.parametrize("field", ["near", "far"])
@pytest.mark.parametrize("echo_ms", [60, 150, 300])
@pytest.mark.parametrize("echo_db", [-20, 0])
def test_echo_of_the_answer_is_not_speech(echo_db: float, echo_ms: int, field: str) -> None:
    assert np.count_nonzero(speech(*room(echo_db, echo_ms), field)) == 0


def test_uncleaned_echo_is_speech() -> None:
    assert np.count_nonzero(speech(*room(-20, 60), "")) > 200


def test_sound_that_was_not_played_is_kept() -> None:
    played, heard = room(-20, 60)
    assert np.count_nonzero(speech(bytes(len(played)), heard, "near")) > 100


@pytest.mark.parametrize("field", ["near", "far"])
def test_user_over_the_answer_is_speech(field: str) -> None:
    windows = speech(*room(-20, 60, question=True), field)
    per_second = 16_000 / 512
    begin = int(ASKED_AT / RATE * per_second)
    end = int((ASKED_AT + len(spoken(QUESTION))) / RATE * per_second) + 1
    assert np.count_nonzero(windows[begin:end]) > (end - begin) / 2
    assert np.count_nonzero(windows[:begin]) == 0
    assert np.count_nonzero(windows[end + 10 :]) == 0


@pytest.mark.parametrize("size", [2, 478, 480, 482, 2048, 24_000])
def test_output_does_not_depend_on_the_cutting(size: int) -> None:
    played, heard = room(-20, 60)
    played, heard = played[:48_000], heard[:48_000]

    async def main() -> tuple[bytes, bytes]:
        async with registry.create("clean", "webrtc", {}) as cleaner:
            whole, cut = cleaner.open("near"), cleaner.open("near")
            at_once = b""
            for start in range(0, len(heard), 480):
                whole.play(played[start : start + 480])
                at_once += whole.process(heard[start : start + 480])
            made = b""
            for start in range(0, len(heard), size):
                piece = heard[start : start + size]
                cut.play(played[start : start + size])
                out = cut.process(piece)
                assert len(out) == len(piece)
                made += out
            whole.close()
            cut.close()
            return at_once, made

    at_once, made = asyncio.run(main())
    assert made[:480] == bytes(480)
    assert len(made) == len(at_once) == len(heard)
    assert made == at_once


def test_cleaner_conforms_to_the_contract() -> None:
    async def main() -> None:
        async with registry.create("clean", "webrtc", {}) as cleaner:
            await check_clean(cleaner)

    asyncio.run(main())
