"""The official client: every error is sent once, with its event_id, and the session continues.

Every test ends with a turn that works.
"""

import asyncio
import base64
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.clients.line import Line, calling
from tests.clients.loop import awaited
from tests.clients.sound import TURN, tone
from tests.server import scripted, serving
from vivavoce.protocol.bounds import MAX_FRAME_BYTES

ERRORS = {"failure_errors": True}
"""Session settings: an `error` event follows a failed response."""

Mistake = Callable[[Any, str], Awaitable[None]]


async def unknown_event(to: Any, event_id: str) -> None:
    await to.send({"type": "scooby.dooby.doo", "event_id": event_id})


async def no_type(to: Any, event_id: str) -> None:
    await to.send({"event_id": event_id})


async def no_base64(to: Any, event_id: str) -> None:
    await to.input_audio_buffer.append(audio="***", event_id=event_id)


async def no_audio(to: Any, event_id: str) -> None:
    await to.input_audio_buffer.append(audio="", event_id=event_id)


async def empty_commit(to: Any, event_id: str) -> None:
    await to.input_audio_buffer.commit(event_id=event_id)


async def unknown_item(to: Any, event_id: str) -> None:
    await to.conversation.item.delete(item_id="item_nobody", event_id=event_id)


async def unknown_setting(to: Any, event_id: str) -> None:
    await to.session.update(session={"type": "realtime", "colour": "blue"}, event_id=event_id)


async def session_without_type(to: Any, event_id: str) -> None:
    await to.session.update(session={"instructions": "Sing."}, event_id=event_id)


async def both_modalities(to: Any, event_id: str) -> None:
    await to.response.create(response={"output_modalities": ["text", "audio"]}, event_id=event_id)


async def too_fast(to: Any, event_id: str) -> None:
    session = {"type": "realtime", "audio": {"output": {"speed": 9}}}
    await to.session.update(session=session, event_id=event_id)


async def oversize(to: Any, event_id: str) -> None:
    await to.input_audio_buffer.append(audio="A" * (MAX_FRAME_BYTES + 4), event_id=event_id)


async def playout_of_a_telephone(to: Any, event_id: str) -> None:
    await to.output_audio_buffer.clear(event_id=event_id)


async def hold_a_turn(line: Line) -> None:
    await line.say(TURN)
    answer = await line.answer()
    assert answer.status == "completed"


@pytest.mark.parametrize(
    ("mistake", "code", "param"),
    [
        (unknown_event, "invalid_value", "type"),
        (no_type, "invalid_event", None),
        (no_base64, "invalid_value", "audio"),
        (no_audio, "invalid_value", "audio"),
        (empty_commit, "input_audio_buffer_commit_empty", None),
        (unknown_item, "item_delete_invalid_item_id", None),
        (unknown_setting, "unknown_parameter", "session.colour"),
        (session_without_type, "missing_required_parameter", "session.type"),
        (both_modalities, "invalid_value", "response.output_modalities"),
        (too_fast, "invalid_value", "session.audio.output.speed"),
        (oversize, "event_too_large", None),
        (playout_of_a_telephone, "invalid_value", "type"),
    ],
)
@awaited
async def test_invalid_event_gets_one_error_with_its_event_id(
    mistake: Mistake, code: str, param: str | None
) -> None:
    async with serving() as server, calling(server) as line:
        await mistake(line.to, "the-culprit")
        got = (await line.until("error")).error
        assert got.event_id == "the-culprit"
        assert (got.type, got.code, got.param) == ("invalid_request_error", code, param)
        await hold_a_turn(line)
        assert len(line.of("error")) == 1


@awaited
async def test_invalid_json_gets_an_error() -> None:
    async with serving() as server, calling(server) as line:
        for text in ('{"type": ', "[]", "3", '"x"'):
            await line.to.send_raw(text)
            assert (await line.until("error")).error.type == "invalid_request_error"
        await hold_a_turn(line)
        assert len(line.of("error")) == 4


@awaited
async def test_odd_byte_count_gets_an_error_with_the_id_of_its_append() -> None:
    async with serving() as server, calling(server) as line:
        await line.update(audio={"input": {"turn_detection": None}})
        odd = base64.b64encode(tone(300) + b"\1").decode()
        await line.to.input_audio_buffer.append(audio=odd, event_id="odd")
        await line.to.input_audio_buffer.commit()
        got = (await line.until("error")).error
        assert (got.event_id, got.param) == ("odd", "audio")
        await line.until("input_audio_buffer.committed")
        await line.to.response.create()
        assert (await line.answer()).status == "completed"


@awaited
async def test_sample_split_between_two_appends_is_accepted() -> None:
    async with serving() as server, calling(server) as line:
        await line.say(TURN, piece_bytes=3333)
        assert (await line.answer()).status == "completed"
        assert line.of("error") == []
        (stopped,) = line.of("input_audio_buffer.speech_stopped")
        assert 800 <= stopped["audio_end_ms"] <= 900


@pytest.mark.parametrize(
    ("engine", "script", "stage"),
    [
        ("llm", {"answers": [{"stall": True}, "Here I am."]}, "llm"),
        ("llm", {"answers": [{"text": "I was about to", "stall": True}, "So."]}, "llm"),
        ("tts", {"stall_on": "unspeakable"}, "tts"),
        ("stt", {"transcripts": [{"stall": True}, "hello"]}, "stt"),
    ],
)
@awaited
async def test_stalled_engine_fails_one_turn(
    engine: str, script: dict[str, Any], stage: str
) -> None:
    scripts: dict[str, Any] = {"llm": {"answers": ["This is unspeakable.", "So."]}}
    settings = scripted(session={"stall_seconds": 0.3, **ERRORS}, **scripts | {engine: script})
    async with serving(settings) as server, calling(server) as line:
        await line.say(TURN)
        failed = await line.answer()
        assert failed.status == "failed"
        assert failed.status_details.error.code == f"{stage}_stalled"
        assert failed.usage.total_tokens == 0
        got = (await line.until("error")).error
        assert (got.type, got.code) == ("server_error", f"{stage}_stalled")
        await hold_a_turn(line)


@pytest.mark.parametrize(
    ("scripts", "stage"),
    [
        ({"llm": {"answers": [{"error": "[llm.x] is away; start it"}, "So."]}}, "llm"),
        ({"llm": {"answers": ["Bad word.", "So."]}, "tts": {"fail_on": "Bad"}}, "tts"),
    ],
)
@awaited
async def test_failing_engine_is_named_and_costs_one_turn_its_voice_or_its_answer(
    scripts: dict[str, Any], stage: str
) -> None:
    async with serving(scripted(session=ERRORS, **scripts)) as server, calling(server) as line:
        await line.say(TURN)
        failed = await line.answer()
        status = "completed" if stage == "tts" else "failed"  # the words are there
        assert (failed.status, failed.status_details.error.code) == (status, f"{stage}_failed")
        got = (await line.until("error")).error
        assert got.message == failed.status_details.error.message
        await hold_a_turn(line)


@awaited
async def test_failed_transcription_fails_one_answer() -> None:
    script = scripted(session=ERRORS, stt={"transcripts": [{"error": "[stt.x] is deaf"}, "hello"]})
    async with serving(script) as server, calling(server) as line:
        await line.update(audio={"input": {"transcription": {"model": "whisper-1"}}})
        await line.say(TURN)
        failed = await line.answer()
        assert failed.status_details.error.code == "stt_failed"
        assert (await line.until("error")).error.message == "[stt.x] is deaf"
        (got,) = line.of("conversation.item.input_audio_transcription.failed")
        assert got["error"]["message"] == "[stt.x] is deaf"
        await hold_a_turn(line)


@awaited
async def test_session_after_max_seconds_gets_an_error_and_closes() -> None:
    script = scripted(session={"max_seconds": 0.3})
    async with serving(script) as server, calling(server) as line:
        got = (await line.until("error")).error
        assert got.code == "session_expired"
        assert got.message == "Your session hit the maximum duration of 0.3 seconds."
        with pytest.raises(ConnectionClosed) as closed:
            await line.next()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
        assert line.kinds[-1] == "error"


@awaited
async def test_session_after_max_seconds_cancels_its_answer() -> None:
    script = scripted(session={"max_seconds": 0.3}, llm={"answers": [{"stall": True}]})
    async with serving(script) as server, calling(server) as line:
        await line.write("Hello?")
        await line.to.response.create()
        assert (await line.until("error")).error.code == "session_expired"
        assert (await line.answer()).status == "cancelled"


@awaited
async def test_client_at_max_sessions_gets_503_until_one_ends() -> None:
    async with serving(scripted(server={"max_sessions": 1})) as server:
        async with calling(server) as line:
            with pytest.raises(Exception, match="503"):
                async with calling(server):
                    raise AssertionError("it was let in")
            await hold_a_turn(line)
        async with asyncio.timeout(60):
            await server.sessions.drain(5)
