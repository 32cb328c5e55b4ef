"""The official package's beta client: the older dialect of the same server."""

from typing import Any

import pytest

from tests.clients.line import Line, calling_in_beta, context
from tests.clients.loop import awaited
from tests.clients.sound import TURN, silence, tone
from tests.server import scripted, serving


async def update(line: Line, **session: Any) -> Any:
    await line.to.session.update(session=session)
    return (await line.until("session.updated")).session


async def write(line: Line, text: str) -> Any:
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    await line.to.conversation.item.create(item=item)
    return (await line.until("conversation.item.created")).item


@awaited
async def test_beta_session_created_has_the_beta_shape() -> None:
    async with serving() as server, calling_in_beta(server) as line:
        await line.until("conversation.created")
        assert line.kinds == ["session.created", "conversation.created"]
        session = line.frames[0]["session"]
        assert session["modalities"] == ["audio", "text"] or session["modalities"] == [
            "text",
            "audio",
        ]
        assert session["input_audio_format"] == "pcm16"


@awaited
async def test_beta_text_turn_is_answered() -> None:
    async with serving(scripted(llm={"answers": ["In writing."]})) as server:
        async with calling_in_beta(server) as line:
            await write(line, "Hello")
            await line.to.response.create(response={"modalities": ["text"]})
            answer = await line.answer()
            assert answer.status == "completed"
            assert answer.output[0].content[0].text == "In writing."
            assert answer.output[0].content[0].type == "text"
            assert "response.text.delta" in line.kinds
        assert context(server) == ["user: Hello"]


@pytest.mark.parametrize("model", ["whisper-1", "gpt-4o-transcribe"])
@awaited
async def test_beta_spoken_turn_is_answered(model: str) -> None:
    script = scripted(stt={"transcripts": ["hello you"]}, llm={"answers": ["Hello back."]})
    async with serving(script) as server, calling_in_beta(server) as line:
        session = await update(
            line,
            input_audio_transcription={"model": model},
            voice="alloy",
            instructions="Be kind.",
            temperature=0.8,
            turn_detection={"type": "server_vad", "silence_duration_ms": 300},
        )
        assert (session.voice, session.instructions) == ("alloy", "Be kind.")
        assert session.turn_detection.silence_duration_ms == 300
        await line.say(TURN)
        answer = await line.answer()
        assert answer.output[0].content[0].transcript == "Hello back."
        assert len(line.audio()) == 48 * len("Hello back.") * 60
        (completed,) = line.of("conversation.item.input_audio_transcription.completed")
        assert completed["transcript"] == "hello you"
        ours = {"added", "done"}
        assert not {k for k in line.kinds if k.rpartition(".")[0] == "conversation.item"} & ours


@awaited
async def test_beta_barge_in_cancels_the_answer() -> None:
    script = scripted(
        llm={"answers": [{"text": "word " * 200, "tokens_per_second": 100}]},
        tts={"realtime_factor": 0.05},
    )
    async with serving(script) as server, calling_in_beta(server) as line:
        await line.say(TURN)
        await line.until("response.audio.delta")
        await line.say(tone(320))
        await line.until("input_audio_buffer.speech_started")
        answer = await line.answer()
        assert (answer.status, answer.status_details.reason) == ("cancelled", "turn_detected")
        assert "response.audio.delta" not in line.after("input_audio_buffer.speech_started")


@awaited
async def test_beta_function_call_is_answered() -> None:
    calls = [{"name": "roll", "arguments": {"sides": 6}, "call_id": "call_dice"}]
    script = scripted(llm={"answers": [{"calls": calls}, "A four."]})
    async with serving(script) as server, calling_in_beta(server) as line:
        tool = {"type": "function", "name": "roll", "parameters": {"type": "object"}}
        await update(line, tools=[tool], tool_choice="auto", modalities=["text"])
        await write(line, "Roll a die")
        await line.to.response.create()
        (call,) = (await line.answer()).output
        assert (call.call_id, call.arguments) == ("call_dice", '{"sides":6}')
        output = {"type": "function_call_output", "call_id": "call_dice", "output": "4"}
        await line.to.conversation.item.create(item=output)
        await line.to.response.create()
        assert (await line.answer()).output[0].content[0].text == "A four."


@awaited
async def test_beta_error_names_the_beta_parameter() -> None:
    async with serving() as server, calling_in_beta(server) as line:
        await line.to.session.update(session={"turn_detection": {"type": "x"}}, event_id="bad")
        got = (await line.until("error")).error
        assert (got.event_id, got.param) == ("bad", "session.turn_detection.type")


@awaited
async def test_beta_transcription_session_transcribes() -> None:
    spoken = {"text": "one two three", "partials": True}
    script = scripted(stt={"transcripts": [spoken], "word_ms": 100})
    query = {"intent": "transcription"}
    async with serving(script) as server, calling_in_beta(server, query=query) as line:
        assert line.kinds == ["transcription_session.created"]
        session = {
            "input_audio_format": "pcm16",
            "input_audio_transcription": {"model": "gpt-4o-transcribe"},
        }
        await line.to.transcription_session.update(session=session)
        await line.until("transcription_session.updated")
        await line.say(tone(500))
        await line.until("conversation.item.input_audio_transcription.delta")
        await line.say(silence(800))
        done = await line.until("conversation.item.input_audio_transcription.completed")
        assert done.transcript == "one two three"
