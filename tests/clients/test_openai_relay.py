"""The official package through a relay, before an upstream server that behaves like OpenAI's."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from openai import AsyncOpenAI

from tests.clients.line import Line, calling, calling_in_beta
from tests.clients.loop import awaited
from tests.clients.sound import TURN, silence, tone
from tests.fake_upstream import NEWER_FIELDS, USAGE, Answer, Behaviour, FakeUpstream
from tests.server import Server
from tests.transports.test_relay import relaying
from vivavoce.audio.formats import Format, encode

WEATHER = {"type": "function", "name": "get_weather", "parameters": {"type": "object"}}
BETA = {"name": "gpt-4o-realtime-preview"}  # that package knows no other names of models
TRANSCRIBED = {"input": {"transcription": {"model": "gpt-4o-transcribe"}}}
SLOW = Answer("one two three four five six", pause_s=0.05)


@asynccontextmanager
async def before(*script: Behaviour, **options: Any) -> AsyncIterator[tuple[FakeUpstream, Server]]:
    """An upstream server with a script, and a server whose model "far" is behind it."""
    fake = FakeUpstream(*script)
    async with fake.serve() as url, relaying(url, **options) as (server, _):
        yield fake, server
        await fake.wait_closed()


@asynccontextmanager
async def far(*script: Behaviour, **options: Any) -> AsyncIterator[tuple[FakeUpstream, Line]]:
    async with before(*script, **options) as (fake, server), calling(server, model="far") as line:
        yield fake, line


@awaited
async def test_text_turn_through_a_relay_is_answered_in_writing() -> None:
    async with far(Answer("Rome, of course.")) as (_, line):
        await line.update(output_modalities=["text"])
        await line.write("Which city?")
        await line.to.response.create()
        answer = await line.answer()
        assert answer.output[0].content[0].text == "Rome, of course."
        assert answer.output_modalities == ["text"]


@awaited
async def test_spoken_turn_through_a_relay_is_transcribed_answered_and_counted() -> None:
    async with far(Answer("It is late.", chunks=3)) as (fake, line):
        fake.transcription_usage = {
            "type": "tokens",
            "total_tokens": 12,
            "input_tokens": 10,
            "output_tokens": 2,
            "input_token_details": {"audio_tokens": 10, "text_tokens": 0},
        }
        await line.update(audio=TRANSCRIBED)
        await line.say(silence(100) + TURN)
        answer = await line.answer()
        assert answer.output[0].content[0].transcript == "It is late."
        assert len(line.audio()) == 9 * 48 * 100
        assert answer.usage.input_token_details.cached_tokens_details.audio_tokens == 14
        assert answer.usage.total_tokens == USAGE["total_tokens"]
        (completed,) = line.of("conversation.item.input_audio_transcription.completed")
        assert completed["transcript"] == fake.transcript
        assert line.kinds.index("input_audio_buffer.committed") < line.kinds.index(
            "response.created"
        )


@awaited
async def test_function_is_called_through_a_relay_and_its_output_answered() -> None:
    call = Answer(calls=(("get_weather", {"city": "Rome"}),))
    async with far(call, Answer("It is sunny.")) as (fake, line):
        await line.update(tools=[WEATHER])
        await line.write("How is the weather?")
        await line.to.response.create()
        (item,) = (await line.answer()).output
        assert (item.type, item.name, item.arguments) == (
            "function_call",
            "get_weather",
            '{"city": "Rome"}',
        )
        output = {"type": "function_call_output", "call_id": item.call_id, "output": "sunny"}
        await line.to.conversation.item.create(item=output)
        await line.to.response.create()
        answer = await line.answer()
        assert answer.output[0].content[0].transcript == "It is sunny."
        assert fake.sessions[0].settings["tools"][0]["name"] == "get_weather"


@awaited
async def test_speech_interrupts_an_answer_through_a_relay() -> None:
    async with far(SLOW, Answer("All right.")) as (_, line):
        await line.say(TURN)
        await line.until("response.output_audio.delta")
        await line.say(TURN)
        cut = await line.answer()
        assert (cut.status, cut.status_details.reason) == ("cancelled", "turn_detected")
        assert (await line.answer()).output[0].content[0].transcript == "All right."
        await line.to.conversation.item.truncate(
            item_id=cut.output[0].id, content_index=0, audio_end_ms=60
        )
        await line.until("conversation.item.truncated")


@awaited
async def test_client_cancels_a_response_through_a_relay() -> None:
    async with far(SLOW) as (_, line):
        await line.to.response.create()
        await line.until("response.output_audio.delta")
        await line.to.response.cancel()
        answer = await line.answer()
        assert (answer.status, answer.status_details.reason) == ("cancelled", "client_cancelled")


@pytest.mark.parametrize("name", ["audio/pcmu", "audio/pcma"])
@awaited
async def test_g711_passes_a_relay(name: Format) -> None:
    async with far() as (_, line):
        formats = {"format": {"type": name}}
        await line.update(audio={"input": formats, "output": formats})
        await line.say(encode(TURN, name), piece_bytes=800)
        answer = await line.answer()
        assert answer.audio.output.format.type == name
        assert len(line.audio()) == 3 * 8 * 100


@awaited
async def test_push_to_talk_through_a_relay_is_what_the_client_commits() -> None:
    async with far() as (_, line):
        await line.update(audio={"input": {"turn_detection": None}})
        await line.say(tone(400))
        await line.to.input_audio_buffer.commit()
        await line.to.response.create()
        assert (await line.answer()).status == "completed"
        assert "input_audio_buffer.speech_started" not in line.kinds


@awaited
async def test_incomplete_answer_passes_a_relay_with_its_reason() -> None:
    async with far(Answer(incomplete="max_output_tokens")) as (_, line):
        await line.to.response.create(response={"max_output_tokens": 3})
        answer = await line.answer()
        assert (answer.status, answer.status_details.reason) == ("incomplete", "max_output_tokens")
        assert answer.max_output_tokens == 3


@pytest.mark.parametrize("fault", ["cut", "expire", {"type": "server_error", "code": "x"}])
@awaited
async def test_call_through_a_relay_outlives_a_fault_and_the_client_sees_lawful_events(
    fault: Behaviour,
) -> None:
    async with far("answer", fault, fault, llm={"answers": ["Here."]}) as (_, line):
        written, answers = [], []
        for question in ("How is the weather?", "And tomorrow?"):
            written.append((await line.write(question)).id)
            await line.to.response.create()
            while (answer := await line.answer()).status == "failed":
                pass
            answers.append(answer.output[0].id)
            assert line.audio(answers[-1])
        assert line.kinds.count("session.created") == 1
        items = line.to.conversation.item  # of before the fault: their ids are good still
        await items.retrieve(item_id=written[0])
        retrieved = (await line.until("conversation.item.retrieved")).item
        assert retrieved.content[0].text == "How is the weather?"
        await items.truncate(item_id=answers[0], content_index=0, audio_end_ms=50)
        assert (await line.until("conversation.item.truncated")).item_id == answers[0]
        await items.delete(item_id=written[0])
        assert (await line.until("conversation.item.deleted")).item_id == written[0]


@pytest.mark.parametrize("omits", [(), NEWER_FIELDS])
@awaited
async def test_beta_client_through_a_relay_gets_every_event_of_a_spoken_turn(
    omits: tuple[str, ...],
) -> None:
    async with before(Answer("It is late."), **BETA) as (fake, server):
        fake.omits = omits
        async with calling_in_beta(server) as line:
            await line.to.session.update(
                session={"input_audio_transcription": {"model": "whisper-1"}}
            )
            await line.until("session.updated")
            await line.say(TURN)
            answer = await line.answer()
            assert answer.status == "completed"
            assert answer.output[0].content[0].transcript == "It is late."
            assert answer.modalities == ["text", "audio"]
            assert answer.usage.total_tokens == 150
            assert len(line.of("response.created")) == 1
            assert len(line.of("conversation.item.input_audio_transcription.completed")) == 1
            assert len(line.audio()) == 3 * 48 * 100


@awaited
async def test_beta_client_through_a_relay_calls_a_function() -> None:
    call = Answer(calls=(("get_weather", {"city": "Rome"}),))
    async with before(call, **BETA) as (_, server), calling_in_beta(server) as line:
        await line.to.response.create()
        (item,) = (await line.answer()).output
        assert (item.name, item.arguments) == ("get_weather", '{"city": "Rome"}')


@awaited
async def test_refused_client_event_is_answered_here_and_the_call_goes_on() -> None:
    async with far() as (fake, line):
        await line.to.session.update(session={"type": "realtime", "speed": "fast"}, event_id="mine")
        refused = await line.next()
        assert (refused.type, refused.error.event_id) == ("error", "mine")
        await line.to.response.create()
        await line.answer()
        assert b"fast" not in b"".join(fake.sessions[0].received)


@awaited
async def test_client_secret_opens_a_relayed_model() -> None:
    async with before() as (_, server):
        async with AsyncOpenAI(api_key="sk-any", base_url=f"{server.http}/v1") as client:
            secret = await client.realtime.client_secrets.create(
                session={"type": "realtime", "model": "far"}
            )
        async with (
            AsyncOpenAI(api_key=secret.value, base_url=f"{server.http}/v1") as browser,
            browser.realtime.connect(model="far") as connection,
        ):
            line = Line(connection)
            await line.until("session.created")
            await line.to.response.create()
            assert (await line.answer()).status == "completed"
