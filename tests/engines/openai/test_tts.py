"""Text is sent to POST /audio/speech, and its audio is passed on as it comes."""

import asyncio
import base64
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import msgspec
import pytest
from aiohttp import web

from tests.engines.openai.chat_server import (
    KEY,
    TICK,
    ChatServer,
    Reply,
    drops,
    falls_silent,
    gives,
    hangs,
    serve_engine,
    streams,
)
from vivavoce.engines.openai.stt import wav_file
from vivavoce.engines.openai.tts import OpenAITTS, OpenAITTSSettings
from vivavoce.errors import EngineError
from vivavoce.testing import check_tts

TONE = b"\x00\x40\x00\xc0" * 1000


def sound(*parts: bytes, content_type: str = "audio/pcm") -> Reply:
    """Audio in these chunks."""

    async def reply(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": content_type})
        await response.prepare(request)
        for part in parts:
            await response.write(part)
            await asyncio.sleep(0.002)
        return response

    return reply


def delta(audio: bytes) -> str:
    text = base64.b64encode(audio).decode()
    return msgspec.json.encode({"type": "speech.audio.delta", "audio": text}).decode()


async def spoken(tts: OpenAITTS, text: str = "Hello.", **how: Any) -> bytes:
    given: dict[str, Any] = {
        "voice": tts.default_voice,
        "speed": 1.0,
        "language": None,
        "instructions": "",
    } | how
    async with aclosing(tts.synthesize(text, **given)) as pieces:
        return b"".join([piece.audio async for piece in pieces])


def serve(
    *replies: Reply, test: Callable[[ChatServer, OpenAITTS], Awaitable[Any]], **options: Any
) -> ChatServer:
    return serve_engine(OpenAITTS, *replies, test=test, **options)


def test_request_names_model_voice_speed_and_instructions() -> None:
    async def test(server: ChatServer, tts: OpenAITTS) -> None:
        assert await spoken(tts, voice="nova", speed=1.25, instructions="Whisper.") == TONE

    server = serve(sound(TONE), test=test, extra={"seed": 7})
    (asked,) = server.asked
    assert asked.path == "/v1/audio/speech"
    assert asked.body == {
        **{"model": "gpt-4o-mini-tts", "input": "Hello.", "voice": "nova", "speed": 1.25},
        **{"response_format": "pcm", "instructions": "Whisper.", "seed": 7},
    }


def test_audio_is_passed_on_in_whole_samples() -> None:
    async def test(server: ChatServer, tts: OpenAITTS) -> None:
        assert await spoken(tts) == TONE

    serve(sound(TONE[:1], TONE[1:2], TONE[2:7], TONE[7:1001], TONE[1001:]), test=test)


@pytest.mark.parametrize("cut", [1, 4, 30, 44, 45])
def test_head_of_a_wav_file_is_taken_off(cut: int) -> None:
    file = wav_file(TONE, 24_000) + b"LIST\x04\x00\x00\x00abcd"

    async def test(server: ChatServer, tts: OpenAITTS) -> None:
        assert await spoken(tts) == TONE

    serve(sound(file[:cut], file[cut:], content_type="audio/wav"), test=test)


def test_wav_file_of_unknown_length_and_another_rate_is_resampled() -> None:
    head = bytearray(wav_file(b"", 48_000))
    head[40:44] = b"\xff\xff\xff\xff"

    async def test(server: ChatServer, tts: OpenAITTS) -> None:
        assert len(await spoken(tts)) == 4800

    serve(sound(bytes(head) + bytes(9600), content_type="audio/wav"), test=test)


def test_audio_in_events_is_decoded() -> None:
    async def test(server: ChatServer, tts: OpenAITTS) -> None:
        assert await spoken(tts) == TONE

    reply = streams(delta(TONE[:999]), delta(TONE[999:]), '{"type": "speech.audio.done"}')
    (asked,) = serve(reply, test=test, stream_format="sse").asked
    assert asked.body["stream_format"] == "sse"


def test_text_without_words_is_not_sent() -> None:
    async def test(server: ChatServer, tts: OpenAITTS) -> None:
        assert await spoken(tts, "...") == b""

    assert serve(hangs, test=test).asked == []


def test_voices_are_those_of_the_settings() -> None:
    async def test(server: ChatServer, tts: OpenAITTS) -> None:
        assert [voice.id for voice in tts.voices] == ["af_sky", "af_heart"]
        assert tts.default_voice == "af_sky"
        with pytest.raises(EngineError, match="has no voice 'nova'; add it to voices"):
            await spoken(tts, voice="nova")

    serve(hangs, test=test, voice="af_sky", voices=["af_heart"])


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (gives(401, {"error": {"message": f"wrong key {KEY}"}}), r"\(401\): wrong key \*\*\*;"),
        (gives(400, {"error": {"message": "no voice"}}), "no voice; check model, voice"),
        (gives(200, {"error": {"message": "no credit"}}), "failed while it answered: no credit"),
        (gives(200, b"<html>", "text/html"), "a web page instead of speech"),
        (sound(TONE, content_type="audio/mpeg"), "audio/mpeg in place of PCM"),
        (sound(b"ID3\x04" + TONE), "a compressed file in place of PCM"),
        (sound(), "no sound"),
        (sound(wav_file(b"", 24_000)[:22] + b"\x02\x00" + wav_file(TONE)[24:]), "2 channels"),
        (sound(wav_file(TONE, 23_999)), "audio of 23999 Hz"),
        (streams(delta(TONE)), "broke off"),
        (streams('{"type": "speech.audio.delta", "audio": "?"}'), "something else"),
        (streams('{"error": {"message": "no"}}'), "failed while it answered: no"),
        (streams("no JSON"), "something else"),
        (falls_silent(delta(TONE)), "fell silent"),
        (drops(delta(TONE)), "broke off"),
        (hangs, "did not begin to answer"),
    ],
)
def test_failure_is_one_sentence_with_a_remedy(reply: Reply, message: str) -> None:
    async def test(server: ChatServer, tts: OpenAITTS) -> None:
        with pytest.raises(EngineError, match=message):
            await spoken(tts)

    serve(
        reply,
        test=test,
        first_audio_seconds=TICK if reply is hangs else 60.0,
        gap_seconds=TICK if message == "fell silent" else 60.0,
    )


def test_settings_without_a_voice_are_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="voices: name at least one"):
        msgspec.convert({"voices": []}, OpenAITTSSettings)


async def _speaks(request: web.Request) -> web.StreamResponse:
    body = await request.json()
    samples = int(len(body["input"]) * 100 / body.get("speed", 1.0))
    return await sound(*[b"\x00\x40" * 400] * (samples // 400 + 1))(request)


def test_tts_passes_the_conformance_checks() -> None:
    async def test(server: ChatServer, tts: OpenAITTS) -> None:
        await check_tts(tts)

    serve(_speaks, test=test)
