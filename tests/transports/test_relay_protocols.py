"""Clients of the other wire protocols over a relay: the upstream server speaks GA alone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.clients.loop import awaited
from tests.fake_upstream import Answer, Behaviour, FakeUpstream
from tests.protocol.telephony_samples import stop_of
from tests.server import Server
from tests.transports import test_raw_ws, test_rtvi_ws, test_telephony_ws
from tests.transports.test_relay import TIMEOUT_S, relaying
from tests.transports.webrtc.caller import LOUD, SOFT
from vivavoce.protocol.telephony_messages import PROVIDERS, Provider

SPEECH = LOUD * 8 + SOFT * 40
SENTENCE = "Nobody is. Go away now."
LONG = Answer("word " * 40, pause_s=0.05, chunks=3)


@asynccontextmanager
async def before(*script: Behaviour, **options: Any) -> AsyncIterator[tuple[FakeUpstream, Server]]:
    """An upstream server with a script, and a server all of whose clients get it."""
    fake = FakeUpstream(*script)
    fake.transcript = "who is there"
    async with fake.serve() as url, relaying(url, is_default=True, **options) as (server, _):
        yield fake, server
        async with asyncio.timeout(TIMEOUT_S):
            await fake.wait_closed()


@awaited
async def test_raw_client_over_a_relay_gets_words_and_paced_sound() -> None:
    async with (
        before(Answer(SENTENCE)) as (fake, server),
        test_raw_ws.client(server) as caller,
    ):
        await caller.socket.send(SPEECH)
        transcribed = await caller.until("TranscriptionFrame")
        assert transcribed["text"] == "who is there"
        assert await caller.answer() == SENTENCE
        assert caller.sound == 5 * 3200  # 100 ms a word, at 16 kHz
        assert fake.sessions[0].events("input_audio_buffer.append")


@awaited
async def test_raw_client_interrupts_an_answer_of_a_relay() -> None:
    async with before(LONG, Answer("Yes.")) as (fake, server), test_raw_ws.client(server) as caller:
        await caller.socket.send(SPEECH)
        await caller.until("BotStartedSpeakingFrame")
        await caller.socket.send(SPEECH)
        await caller.until("BotStoppedSpeakingFrame")
        await caller.until("TextFrame", text="Yes.")
        async with asyncio.timeout(TIMEOUT_S):
            (cut,) = await fake.sessions[0].wait_for("conversation.item.truncate")
        assert cut["audio_end_ms"] < 40 * 300


@pytest.mark.parametrize("binary", [True, False])
@awaited
async def test_rtvi_client_over_a_relay_has_a_spoken_and_a_typed_turn(binary: bool) -> None:
    async with (
        before(Answer(SENTENCE)) as (_, server),
        test_rtvi_ws.client(server, binary=binary) as one,
    ):
        await one.speak()
        await one.until("bot-stopped-speaking")
        transcripts = [m["data"] for m in one.got if m["type"] == "user-transcription"]
        assert transcripts[-1]["text"] == "who is there"
        assert one.audio == 5 * 4800
        said = "".join(m["data"]["text"] for m in one.got if m["type"] == "bot-llm-text")
        assert said.split() == SENTENCE.split()
        await one.send("send-text", {"content": "And now?"})
        await one.until("bot-stopped-speaking")
        assert one.audio == 2 * 5 * 4800


@pytest.mark.parametrize("provider", PROVIDERS)
@awaited
async def test_caller_on_a_telephone_is_answered_over_a_relay(provider: Provider) -> None:
    async with (
        before(Answer(SENTENCE)) as (_, server),
        test_telephony_ws.calling_from(server, provider) as phone,
    ):
        await phone.start()
        await phone.say(SPEECH)
        rate = 16_000 if provider == "exotel" else 8_000  # bytes a second
        while len(phone.sound) < rate * 0.5 * 0.99:
            await phone.next()
        await phone.send(stop_of(provider))
        assert await phone.closed() == 1000
