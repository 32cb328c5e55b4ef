"""The official client: sessions that only write down what is said."""

import pytest

from tests.clients.line import Line, calling
from tests.clients.loop import awaited
from tests.clients.sound import silence, tone
from tests.server import Server, scripted, serving
from vivavoce.settings import Settings

WORDS = "one two three four"
INTENT = {"intent": "transcription"}


def writer() -> Settings:
    """Tells a word for each 200 ms of sound, and the last one at the end."""
    spoken = {"text": WORDS, "partials": True}
    return scripted(stt={"transcripts": [spoken], "word_ms": 200})


async def transcribe(line: Line) -> None:
    """Speak once, and judge what comes of it."""
    await line.say(tone(700))
    first = await line.until("conversation.item.input_audio_transcription.delta")
    assert "input_audio_buffer.speech_stopped" not in line.kinds
    await line.say(silence(800))
    completed = await line.until("conversation.item.input_audio_transcription.completed")
    assert completed.transcript == WORDS
    assert completed.item_id == first.item_id
    assert not any(kind.startswith("response.") for kind in line.kinds)


async def ask_for_transcription(line: Line) -> None:
    session = {
        "type": "transcription",
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": 24000},
                "transcription": {"model": "gpt-4o-mini-transcribe", "language": "en"},
                "noise_reduction": {"type": "near_field"},
            }
        },
    }
    await line.to.session.update(session=session)
    updated = (await line.until("session.updated")).session
    assert updated.type == "transcription"
    assert updated.audio.input.transcription.language == "en"


@pytest.mark.parametrize("model", [None, "gpt-4o-mini-transcribe"])
@awaited
async def test_transcription_deltas_are_sent_while_audio_arrives(model: str | None) -> None:
    async with serving(writer()) as server, calling(server, model=model, query=INTENT) as line:
        assert line.of("session.created")[0]["session"]["type"] == "transcription"
        await ask_for_transcription(line)
        await transcribe(line)


@awaited
async def test_session_update_makes_a_realtime_session_a_transcription_session() -> None:
    async with serving(writer()) as server, calling(server) as line:
        assert line.of("session.created")[0]["session"]["type"] == "realtime"
        await ask_for_transcription(line)
        await transcribe(line)


@awaited
async def test_manual_commit_is_transcribed() -> None:
    async with serving(writer()) as server, calling(server, model=None, query=INTENT) as line:
        await ask_for_transcription(line)
        session = {"type": "transcription", "audio": {"input": {"turn_detection": None}}}
        await line.to.session.update(session=session)
        await line.say(tone(700))
        first = await line.until("conversation.item.input_audio_transcription.delta")
        await line.to.input_audio_buffer.commit()
        committed = await line.until("input_audio_buffer.committed")
        done = await line.until("conversation.item.input_audio_transcription.completed")
        assert first.item_id == committed.item_id == done.item_id
        assert done.transcript == WORDS


@awaited
async def test_transcription_session_refuses_responses() -> None:
    async with serving(writer()) as server, calling(server, model=None, query=INTENT) as line:
        await line.to.response.create(event_id="no")
        assert (await line.until("error")).error.event_id == "no"
        await ask_for_transcription(line)
        await transcribe(line)


async def failing(server: Server) -> tuple[str, str]:
    async with calling(server, model=None, query=INTENT) as line:
        await ask_for_transcription(line)
        await line.say(tone(320) + silence(800))
        failed = await line.until("conversation.item.input_audio_transcription.failed")
        await line.say(tone(320) + silence(800))
        done = await line.until("conversation.item.input_audio_transcription.completed")
        return failed.error.code, done.transcript


@awaited
async def test_failed_transcription_sends_failed_and_the_next_turn_works() -> None:
    broken = scripted(stt={"transcripts": [{"error": "[stt] out of order"}, "fine again"]})
    async with serving(broken) as server:
        assert await failing(server) == ("stt_failed", "fine again")


@awaited
async def test_stalled_transcription_fails() -> None:
    stalled = scripted(
        stt={"transcripts": [{"stall": True}, "fine again"]}, session={"stall_seconds": 0.3}
    )
    async with serving(stalled) as server:
        assert await failing(server) == ("stt_stalled", "fine again")
