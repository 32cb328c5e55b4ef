"""The official client: answers that are broken off, by the user's voice or by the client."""

import asyncio
from typing import Any

from tests.clients.line import Line, calling, context
from tests.clients.loop import awaited
from tests.clients.sound import TURN, silence, tone
from tests.server import scripted, serving
from vivavoce.settings import Settings

STORY = " ".join(f"word{n:02}" for n in range(100)) + "."
WORD_MS = 7 * 60  # of the story, the space behind it included


def storyteller(**more: Any) -> Settings:
    """Answers for half a minute, and takes a second or two to say it."""
    return scripted(
        stt={"transcripts": ["tell me a story", "stop"]},
        llm={"answers": [{"text": STORY, "tokens_per_second": 100}, "All right."]},
        tts={"realtime_factor": 0.05},
        **more,
    )


async def hear_the_beginning(line: Line, ms: int = 2000) -> Any:
    """Listen until so much of the answer has come; return the last delta."""
    delta = await line.until("response.output_audio.delta")
    while len(line.audio()) < ms * 48:
        delta = await line.until("response.output_audio.delta")
    return delta


@awaited
async def test_barge_in_cancels_the_answer() -> None:
    async with serving(storyteller()) as server, calling(server) as line:
        await line.say(TURN)
        got = await hear_the_beginning(line)
        await line.say(tone(320))
        started = await line.until("input_audio_buffer.speech_started")
        answer = await line.answer()
        assert answer.id == got.response_id
        assert answer.status == "cancelled"
        assert answer.status_details.reason == "turn_detected"
        assert answer.output[0].status == "incomplete"
        assert "response.output_audio.delta" not in line.after("input_audio_buffer.speech_started")

        await line.to.conversation.item.truncate(
            item_id=got.item_id, content_index=0, audio_end_ms=3 * WORD_MS
        )
        truncated = await line.until("conversation.item.truncated")
        assert truncated.audio_end_ms == 3 * WORD_MS
        await line.say(silence(800))
        assert (await line.answer()).status == "completed"
        assert started.item_id == line.of("input_audio_buffer.committed")[-1]["item_id"]
        assert context(server) == [
            "user: tell me a story",
            "assistant: word00 word01 word02",
            "user: stop",
        ]


@awaited
async def test_speech_without_interrupt_response_waits_for_the_answer() -> None:
    script = scripted(
        stt={"transcripts": ["first", "second"]},
        llm={"answers": [{"text": STORY[:70], "tokens_per_second": 50}, "And now this."]},
        tts={"realtime_factor": 0.05},
    )
    async with serving(script) as server, calling(server) as line:
        vad = {"type": "server_vad", "interrupt_response": False}
        await line.update(audio={"input": {"turn_detection": vad}})
        await line.say(TURN)
        await line.until("response.output_audio.delta")
        await line.say(TURN)
        first, second = await line.answer(), await line.answer()
        assert (first.status, second.status) == ("completed", "completed")
        assert second.output[0].content[0].transcript == "And now this."


@awaited
async def test_second_cancel_of_a_response_is_an_error() -> None:
    async with serving(storyteller()) as server, calling(server) as line:
        await line.write("Tell me a story")
        await line.to.response.create()
        await hear_the_beginning(line, ms=500)
        await line.to.response.cancel()
        answer = await line.answer()
        assert (answer.status, answer.status_details.reason) == ("cancelled", "client_cancelled")
        assert answer.usage.output_token_details.audio_tokens >= 10
        await line.to.response.cancel(event_id="again")
        refused = (await line.until("error")).error
        assert refused.code == "response_cancel_not_active"
        assert refused.message.startswith("Cancellation failed")
        assert refused.event_id == "again"


@awaited
async def test_cancel_by_id_before_the_first_delta_cancels() -> None:
    script = scripted(llm={"answers": [{"text": "Never", "stall": True}, "Here I am."]})
    async with serving(script) as server, calling(server) as line:
        await line.write("Hello?")
        await line.to.response.create()
        created = await line.until("response.created")
        await line.to.response.cancel(response_id=created.response.id)
        answer = await line.answer()
        assert (answer.status, answer.output) == ("cancelled", [])
        await line.to.response.create()
        assert (await line.answer()).output[0].content[0].transcript == "Here I am."


@awaited
async def test_complete_answer_is_truncated_at_the_heard_position() -> None:
    async with serving(scripted(llm={"answers": ["one two three four", "Well."]})) as server:
        async with calling(server) as line:
            await line.write("Count")
            await line.to.response.create()
            item = (await line.answer()).output[0]
            await line.to.conversation.item.truncate(
                item_id=item.id, content_index=0, audio_end_ms=8 * 60
            )
            await line.until("conversation.item.truncated")
            await line.write("Go on")
            await line.to.response.create()
            await line.answer()
        assert context(server) == ["user: Count", "assistant: one two", "user: Go on"]


@awaited
async def test_truncate_beyond_the_audio_or_of_a_user_item_is_refused() -> None:
    async with serving() as server, calling(server) as line:
        written = await line.write("Hello")
        await line.to.response.create()
        item = (await line.answer()).output[0]
        ms = len(line.audio()) // 48
        for item_id, until, name in ((item.id, ms + 1, "far"), (written.id, 0, "user")):
            await line.to.conversation.item.truncate(
                item_id=item_id, content_index=0, audio_end_ms=until, event_id=name
            )
            assert (await line.until("error")).error.event_id == name
        await line.to.conversation.item.truncate(item_id=item.id, content_index=0, audio_end_ms=ms)
        assert (await line.until("conversation.item.truncated")).audio_end_ms == ms


@awaited
async def test_disconnect_during_an_answer_frees_the_session() -> None:
    script = scripted(llm={"answers": [{"text": STORY, "stall": True, "fail_after_words": 9}]})
    async with serving(script) as server:
        async with calling(server) as line:
            await line.write("Tell me a story")
            await line.to.response.create()
            await line.until("response.created")
            assert len(server.sessions) == 1
        async with asyncio.timeout(60):
            await server.sessions.drain(60)  # would wait that long for an answer that is still made
