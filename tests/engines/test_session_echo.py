"""Echo of an answer in the microphone: with echo cancellation it starts no turn.

The client plays what it was sent from the moment it came; its microphone hears that 60 ms later.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from tests.engines.test_clean_webrtc import ANSWER, QUESTION, at, pcm, spoken
from tests.runtime.stage import (
    MODELS,
    RecordingPeer,
    ScriptedEngines,
    make_runner,
    question,
    template,
)
from vivavoce.audio.formats import RATE
from vivavoce.engines import registry
from vivavoce.engines.base import Speech
from vivavoce.engines.scripted.engines import ScriptedTTS
from vivavoce.engines.scripted.scripts import TTSScript
from vivavoce.protocol.client import InputAudioAppend
from vivavoce.protocol.server import OutputAudioDelta, SpeechStarted
from vivavoce.protocol.session import Audio, AudioInput, AudioOutput, NoiseReduction, ServerVad
from vivavoce.runtime.catalog import ModelCatalog
from vivavoce.runtime.vad_batcher import VadBatcher
from vivavoce.session.facts import Disconnected, Received
from vivavoce.session.limits import SessionLimits
from vivavoce.session.shell import Session
from vivavoce.testing.virtual_time import run

PIECE = RATE // 10
ECHO = 60 * RATE // 1000
NEAR = NoiseReduction(type="near_field")


class Espeak(ScriptedTTS):
    """Says the long answer whatever the text, as espeak did before the clock was a virtual one."""

    async def synthesize(self, text: str, **how: Any) -> AsyncGenerator[Speech]:
        yield Speech(pcm(spoken(ANSWER)))


async def converse(
    noise: NoiseReduction | None, echo_db: float, asked_at: int | None
) -> RecordingPeer:
    """A session whose answer comes back into its microphone, ten times a second."""
    peer = RecordingPeer()
    heard = AudioInput(turn_detection=ServerVad(), noise_reduction=noise)
    begun = msgspec.structs.replace(template(), audio=Audio(heard, AudioOutput(voice="alloy")))
    scripted = ScriptedEngines(llm={"answers": ["Yes."], "repeat": True})
    async with AsyncExitStack() as stack:
        vad = await stack.enter_async_context(registry.create("vad", "silero", {}))
        cleaner = await stack.enter_async_context(registry.create("clean", "webrtc", {}))
        tts = Espeak(msgspec.convert({"sample_rate": RATE}, TTSScript))
        cascade = replace(scripted.cascade, vad=VadBatcher(vad), tts=tts, cleaner=cleaner)
        session = Session(begun, MODELS, SessionLimits(), salt="t", now=0.0)
        runner = make_runner(session, peer, ModelCatalog({"default": cascade}, "default"))
        running = asyncio.create_task(runner.run())
        await asyncio.sleep(0)
        for fact in question():
            runner.post(fact)
        await peer.until("response.done")
        sent = b"".join(e.delta for e in peer.events if isinstance(e, OutputAudioDelta))
        for sound in microphone(sent, echo_db, asked_at):
            await asyncio.sleep(0.1)
            runner.post(Received(InputAudioAppend(audio=sound)))
        await asyncio.sleep(1)
        runner.post(Disconnected())
        await running
    return peer


def microphone(sent: bytes, echo_db: float, asked_at: int | None) -> list[bytes]:
    """What it hears while that is played, a tenth of a second each."""
    answer = np.frombuffer(sent, "<i2").astype(np.float64)
    samples = len(answer) // PIECE * PIECE + 5 * PIECE
    sound = at(answer, ECHO, samples, echo_db) + np.random.default_rng(1).normal(0, 20, samples)
    if asked_at is not None:
        sound += at(spoken(QUESTION), asked_at, samples)
    whole = pcm(sound)
    return [whole[start : start + 2 * PIECE] for start in range(0, len(whole), 2 * PIECE)]


def turns(noise: NoiseReduction | None, echo_db: float, asked_at: int | None = None) -> list[int]:
    """When each turn began, in milliseconds of the microphone."""
    spoken(ANSWER), spoken(QUESTION)  # in real time, before the clock is a virtual one
    peer = run(converse(noise, echo_db, asked_at))
    return [e.audio_start_ms for e in peer.events if isinstance(e, SpeechStarted)]


@pytest.mark.parametrize("echo_db", [-20, -6])
@pytest.mark.parametrize("field", ["near_field", "far_field"])
def test_echo_with_noise_reduction_starts_no_turn(field: Any, echo_db: float) -> None:
    assert turns(NoiseReduction(type=field), echo_db) == []


def test_echo_without_noise_reduction_starts_a_turn() -> None:
    assert turns(None, -20)


def test_double_talk_starts_a_turn() -> None:
    began = turns(NEAR, -20, asked_at=4 * RATE)
    assert began
    assert 3500 <= began[0] <= 5000
