"""The speaker of a session: enrolled, or the first who speaks."""

import asyncio
import wave
from collections.abc import Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.runtime.stage import ScriptedEngines
from vivavoce.audio.formats import RATE
from vivavoce.errors import EngineError, SettingsError
from vivavoce.runtime.catalog import Cascade, ModelCatalog
from vivavoce.runtime.speaker_gate import CHECK_TIMEOUT_S, SessionGate, SpeakerGate, speaker_gate
from vivavoce.runtime.tasks import Tasks
from vivavoce.session.effects import CheckSpeaker
from vivavoce.session.facts import SpeakerChecked
from vivavoce.session.speaker_gate import SpeakerGateSettings
from vivavoce.testing.virtual_time import run

LOW, MIDDLE, HIGH = 100, 130, 400


class Voices:
    """A speaker model: a voice is an angle, its pitch over 400 Hz, in quarters of a circle."""

    sample_rate, dimensions, window_ms = RATE, 2, 1600
    same_voice = same_windows = 0.75

    def __init__(self, problem: str = "") -> None:
        self.problem = problem

    async def embed(self, clips: Sequence[bytes]) -> Any:
        if self.problem == "late":
            await asyncio.sleep(10 * CHECK_TIMEOUT_S)
        if self.problem:
            raise EngineError(self.problem)
        return np.array([self._embedded(clip) for clip in clips], np.float32)

    def _embedded(self, clip: bytes) -> tuple[float, float]:
        samples = np.frombuffer(clip, "<i2").astype(np.float64)
        crossings = np.count_nonzero(np.diff(samples > 0)) / 2
        angle = crossings / (len(samples) / RATE) / 400 * np.pi / 2
        return float(np.cos(angle)), float(np.sin(angle))

    @asynccontextmanager
    async def use(self) -> Any:
        yield self


def cascade(voices: Voices | None) -> Cascade:
    return replace(ScriptedEngines().cascade, speaker=voices)  # type: ignore[arg-type]


def voice(pitch: int, seconds: float = 2.0) -> bytes:
    at = np.arange(int(seconds * RATE)) / RATE
    return (12_000 * np.sin(2 * np.pi * pitch * at)).astype("<i2").tobytes()


def likenesses(gate: SpeakerGate, spoken: list[bytes], problem: str = "") -> list[SpeakerChecked]:
    found: list[SpeakerChecked] = []

    async def main() -> None:
        came = asyncio.Event()

        def take(fact: SpeakerChecked) -> None:
            found.append(fact)
            came.set()

        def fail(exc: Exception) -> None:
            raise exc

        async with asyncio.TaskGroup() as group:
            tasks = Tasks(group, fail, lambda: None)
            session = SessionGate(gate, cascade(Voices(problem)), tasks, take)
            for n, pcm in enumerate(spoken):
                session.check(CheckSpeaker(f"item_{n}", pcm))
                await came.wait()
                came.clear()

    run(main())
    return found


FIRST = SpeakerGate(SpeakerGateSettings("first"))


def test_first_who_speaks_for_a_second_is_the_speaker() -> None:
    short, low, middle, high = voice(HIGH, 0.5), voice(LOW), voice(MIDDLE), voice(HIGH)
    found = likenesses(FIRST, [short, low, middle, high, low])
    assert [one.likeness >= one.same_voice for one in found] == [True, True, True, False, True]
    assert {one.same_voice for one in found} == {0.75}


@pytest.mark.parametrize("problem", ["broken", "late"])
def test_everybody_is_let_in_where_the_speaker_model_fails(
    problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    found = likenesses(FIRST, [voice(LOW), voice(HIGH)], problem)
    assert [(one.likeness, one.same_voice) for one in found] == [(1.0, -1.0)] * 2
    (message,) = caplog.messages
    assert message.startswith("speakers are not told apart, everybody is let in: ")


def written(path: Path, pcm: bytes) -> str:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(pcm)
    return str(path)


def gate_of(settings: SpeakerGateSettings, voices: Voices | None) -> SpeakerGate:
    return asyncio.run(speaker_gate(settings, ModelCatalog({"a": cascade(voices)}, "a")))


def test_enrolled_voices_are_let_in_and_no_others(tmp_path: Path) -> None:
    files = tuple(written(tmp_path / f"{p}.wav", voice(p)) for p in (LOW, HIGH))
    gate = gate_of(SpeakerGateSettings("enrolled", files), Voices())
    found = likenesses(gate, [voice(HIGH), voice(LOW), voice(250)])
    assert [one.likeness > 0.95 for one in found] == [True, True, False]


def test_mistake_in_the_settings_is_named(tmp_path: Path) -> None:
    silent = written(tmp_path / "silent.wav", bytes(2 * RATE))
    missing = str(tmp_path / "missing.wav")
    for settings, voices, said in (
        (SpeakerGateSettings("first"), None, "vivavoce models pull"),
        (SpeakerGateSettings("enrolled", (silent,)), Voices(), "there is no speech in"),
        (SpeakerGateSettings("enrolled", (missing,)), Voices(), "No such file"),
        (SpeakerGateSettings("enrolled", (silent,)), Voices("broken"), "broken|no speech"),
    ):
        with pytest.raises(SettingsError, match=said) as caught:
            gate_of(settings, voices)
        assert str(caught.value).startswith("[speaker_gate] ")


def test_gate_that_is_off_needs_no_speaker_model() -> None:
    assert gate_of(SpeakerGateSettings(), None).voices == ()
