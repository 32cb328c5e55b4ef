"""The official client: turns in words and in sound, on engines that play a script."""

import asyncio
import base64

import pytest
from openai import OpenAI

from tests.clients.line import KEY, calling, context
from tests.clients.loop import awaited
from tests.clients.sound import TURN, silence, tone
from tests.server import Server, scripted, serving
from vivavoce.audio.formats import RATE, Format, encode

WHISPER = {"input": {"transcription": {"model": "whisper-1"}}}


@awaited
async def test_text_turn_with_text_output_is_answered_as_text() -> None:
    async with serving(scripted(llm={"answers": ["Rome, of course."]})) as server:
        async with calling(server) as line:
            written = await line.write("What is the capital of Italy?")
            await line.to.response.create(response={"output_modalities": ["text"]})
            answer = await line.answer()
            assert answer.status == "completed"
            assert answer.output[0].content[0].text == "Rome, of course."
            assert answer.output_modalities == ["text"]
            assert line.of("response.output_text.done")[0]["text"] == "Rome, of course."
            assert line.of("conversation.item.added")[1]["previous_item_id"] == written.id
            assert "response.output_audio.delta" not in line.kinds
        (request,) = server.llm.requests
        assert [item.id for item in request.items if hasattr(item, "role")] == [written.id]


@awaited
async def test_text_turn_with_audio_output_is_answered_as_audio() -> None:
    script = scripted(llm={"answers": ["Hi there."]})
    async with serving(script) as server, calling(server) as line:
        await line.write("Hello")
        await line.to.response.create()
        answer = await line.answer()
        assert answer.output[0].content[0].transcript == "Hi there."
        assert len(line.audio()) == 2 * RATE * len("Hi there.") * 60 // 1000


@awaited
async def test_spoken_turn_is_transcribed_and_answered() -> None:
    said, answered = "what is the time", "It is late."
    script = scripted(stt={"transcripts": [said]}, llm={"answers": [answered]})
    async with serving(script) as server, calling(server) as line:
        await line.update(audio=WHISPER)
        await line.say(silence(100) + TURN)
        answer = await line.answer()
        assert answer.output[0].content[0].transcript == answered
        (started,) = line.of("input_audio_buffer.speech_started")
        (stopped,) = line.of("input_audio_buffer.speech_stopped")
        (committed,) = line.of("input_audio_buffer.committed")
        (completed,) = line.of("conversation.item.input_audio_transcription.completed")
        ids = {e["item_id"] for e in (started, stopped, committed, completed)}
        assert ids == {line.of("conversation.item.added")[0]["item"]["id"]}
        assert started["audio_start_ms"] == 0  # the onset at 100 ms, less 300 of padding
        assert 900 <= stopped["audio_end_ms"] <= 1000  # 420 ms of sound, 500 of silence
        assert completed["transcript"] == said
        assert completed["usage"] == {"type": "duration", "seconds": 1}
        assert line.kinds.index("response.created") < line.kinds.index(
            "response.output_audio.delta"
        )


@awaited
async def test_consecutive_turns_form_one_conversation() -> None:
    script = scripted(
        stt={"transcripts": ["first", "second"]},
        llm={"answers": ["One.", "Two."]},
        tts={"ms_per_character": 1},  # so it has been played before the user goes on
    )
    async with serving(script) as server, calling(server) as line:
        await line.say(TURN)
        await line.answer()
        await line.say(TURN)
        await line.answer()
        assert context(server) == ["user: first", "assistant: One.", "user: second"]
        assert len(line.of("input_audio_buffer.committed")) == 2


@pytest.mark.parametrize("eagerness", ["low", "medium", "high", "auto"])
@awaited
async def test_semantic_vad_with_complete_words_ends_after_a_short_silence(
    eagerness: str,
) -> None:
    script = scripted(
        stt={"transcripts": [{"text": "that is all", "partials": True}]},
        turn={"table": {"that is all": 1.0}, "default": 0.0},
    )
    async with serving(script) as server, calling(server) as line:
        vad = {"type": "semantic_vad", "eagerness": eagerness}
        session = await line.update(audio={"input": {"turn_detection": vad}})
        assert session.audio.input.turn_detection.eagerness == eagerness
        await line.say(tone(1000) + silence(1500))
        assert (await line.answer()).status == "completed"
        (stopped,) = line.of("input_audio_buffer.speech_stopped")
        assert stopped["audio_end_ms"] <= 2500


@awaited
async def test_semantic_vad_with_incomplete_words_waits_through_a_pause() -> None:
    script = scripted(
        stt={"transcripts": [{"text": "and then", "partials": True}]}, turn={"default": 0.0}
    )
    async with serving(script) as server, calling(server) as line:
        vad = {"type": "semantic_vad"}
        await line.update(audio={"input": {"turn_detection": vad}})
        await line.say(tone(320) + silence(2000) + tone(320) + silence(4200))
        await line.answer()
        (stopped,) = line.of("input_audio_buffer.speech_stopped")
        assert stopped["audio_end_ms"] > 2640 + 3900
        assert len(line.of("input_audio_buffer.speech_started")) == 1


@awaited
async def test_push_to_talk_turn_is_what_the_client_commits() -> None:
    async with serving(scripted(stt={"transcripts": ["by hand"]})) as server:
        async with calling(server) as line:
            session = await line.update(audio={"input": {"turn_detection": None}})
            assert session.audio.input.turn_detection is None
            await line.say(tone(400))
            await line.to.input_audio_buffer.commit()
            await line.to.response.create()
            assert (await line.answer()).status == "completed"
            start = line.kinds.index("input_audio_buffer.committed")
            assert line.kinds[start : start + 4] == [
                "input_audio_buffer.committed",
                "conversation.item.added",
                "conversation.item.done",
                "response.created",
            ]
            assert "input_audio_buffer.speech_started" not in line.kinds
        assert server.stt.heard == [16_000 * 400 // 1000]


@awaited
async def test_cleared_buffer_makes_no_turn() -> None:
    async with serving() as server, calling(server) as line:
        await line.update(audio={"input": {"turn_detection": None}})
        await line.say(tone(400))
        await line.to.input_audio_buffer.clear()
        await line.until("input_audio_buffer.cleared")
        await line.to.input_audio_buffer.commit(event_id="late")
        refused = await line.until("error")
        assert refused.error.code == "input_audio_buffer_commit_empty"
        assert refused.error.event_id == "late"


@pytest.mark.parametrize("name", ["audio/pcmu", "audio/pcma"])
@awaited
async def test_g711_is_accepted_and_sent(name: Format) -> None:
    async with serving(scripted(llm={"answers": ["On the line."]})) as server:
        async with calling(server) as line:
            formats = {"format": {"type": name}}
            session = await line.update(
                audio={"input": formats | WHISPER["input"], "output": formats}
            )
            assert session.audio.input.format.type == name
            await line.say(encode(TURN, name), piece_bytes=800)
            answer = await line.answer()
            assert answer.audio.output.format.type == name
            assert len(line.audio()) == pytest.approx(8 * len("On the line.") * 60, abs=16)
            (stopped,) = line.of("input_audio_buffer.speech_stopped")
            assert 800 <= stopped["audio_end_ms"] <= 900
        assert server.stt.heard == [16 * stopped["audio_end_ms"]]


@awaited
async def test_response_done_has_usage() -> None:
    script = scripted(llm={"answers": ["Two words."]})
    async with serving(script) as server, calling(server) as line:
        await line.say(TURN)
        usage = (await line.answer()).usage
        assert usage.input_token_details.audio_tokens > 0
        assert usage.output_token_details.audio_tokens == 12  # 600 ms, one each 50 ms
        assert usage.output_token_details.text_tokens > 0
        assert usage.total_tokens == usage.input_tokens + usage.output_tokens
        assert (await line.until("rate_limits.updated")).rate_limits == []


@awaited
async def test_unknown_names_are_served_by_the_defaults_and_reported() -> None:
    async with serving() as server:
        async with calling(server, model="gpt-realtime-2.1-mini") as line:
            (created,) = line.of("session.created")
            assert created["session"]["model"] == "gpt-realtime-2.1-mini"
            assert created["session"]["served_by"] == {"model": "default", "voice": "marin"}
            await line.update(audio={"output": {"voice": "somebody-new"}})
            session = line.of("session.updated")[-1]["session"]
            assert session["audio"]["output"]["voice"] == "somebody-new"
            assert session["served_by"] == {"model": "default", "voice": "marin"}
            await line.write("Hello")
            await line.to.response.create()
            answer = await line.answer()
            assert answer.audio.output.voice == "somebody-new"
        assert {voice for _, voice, _ in server.tts.spoken} == {"marin"}


@awaited
async def test_answer_at_its_token_limit_is_incomplete() -> None:
    script = scripted(llm={"answers": ["one two three four five six"]})
    async with serving(script) as server, calling(server) as line:
        await line.write("Count")
        await line.to.response.create(
            response={"max_output_tokens": 3, "output_modalities": ["text"]}
        )
        answer = await line.answer()
        assert (answer.status, answer.status_details.reason) == (
            "incomplete",
            "max_output_tokens",
        )
        assert answer.max_output_tokens == 3
        assert answer.output[0].status == "incomplete"
        assert answer.output[0].content[0].text.split() == ["one", "two", "three"]


def turn_of_the_sync_client(server: Server) -> list[str]:
    kinds: list[str] = []
    with (
        OpenAI(api_key=KEY, base_url=f"{server.http}/v1") as client,
        client.realtime.connect(model="gpt-realtime") as connection,
    ):
        connection.session.update(session={"type": "realtime", "output_modalities": ["text"]})
        connection.input_audio_buffer.append(audio=base64.b64encode(TURN).decode())
        for event in connection:
            kinds.append(event.type)
            if event.type == "response.done":
                kinds.append(str(event.response.status))
                break
    return kinds


@pytest.mark.filterwarnings("ignore:connect:DeprecationWarning")  # how that client dials
@awaited
async def test_synchronous_client_completes_a_turn() -> None:
    async with serving() as server:
        kinds = await asyncio.to_thread(turn_of_the_sync_client, server)
        assert kinds[0] == "session.created"
        assert kinds[-2:] == ["response.done", "completed"]
        assert "response.output_text.delta" in kinds
