"""Utterances are sent as WAV files to POST /audio/transcriptions; words come all at once or as
events."""

from collections.abc import AsyncIterator, Awaitable, Callable
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
    lists,
    serve_engine,
    streams,
)
from vivavoce.engines.base import Transcript
from vivavoce.engines.openai.stt import MAX_AUDIO_BYTES, OpenAISTT, wav_file
from vivavoce.errors import EngineError
from vivavoce.testing import check_stt

SPEECH = b"\x00\x40\x00\xc0" * 8000
"""One second."""


def delta(text: str) -> str:
    return msgspec.json.encode({"type": "transcript.text.delta", "delta": text}).decode()


def done(text: str) -> str:
    return msgspec.json.encode({"type": "transcript.text.done", "text": text}).decode()


async def spoken(audio: bytes = SPEECH) -> AsyncIterator[bytes]:
    for start in range(0, len(audio), 6400):
        yield audio[start : start + 6400]


async def heard(
    stt: OpenAISTT, audio: bytes = SPEECH, language: str | None = None, prompt: str = ""
) -> list[Transcript]:
    async with aclosing(
        stt.transcribe(spoken(audio), language=language, prompt=prompt)
    ) as transcripts:
        return [transcript async for transcript in transcripts]


def serve(
    *replies: Reply, test: Callable[[ChatServer, OpenAISTT], Awaitable[Any]], **options: Any
) -> ChatServer:
    return serve_engine(OpenAISTT, *replies, test=test, **options)


def test_utterance_is_sent_as_a_wav_file_with_model_language_and_prompt() -> None:
    async def test(server: ChatServer, stt: OpenAISTT) -> None:
        found = await heard(stt, language="en-US", prompt="Names: Ada.")
        assert found == [Transcript("Hello, Ada.", 11, final=True)]

    server = serve(
        gives(200, {"text": " Hello, Ada. "}),
        test=test,
        model="whisper-1",
        extra={"temperature": 0},
    )
    (asked,) = server.asked
    assert asked.path == "/v1/audio/transcriptions"
    assert asked.headers["Authorization"] == f"Bearer {KEY}"
    assert asked.form.pop("file") == wav_file(SPEECH)
    assert asked.form == {
        **{"file": wav_file(SPEECH), "model": b"whisper-1", "language": b"en"},
        **{"prompt": b"Names: Ada.", "response_format": b"json", "stream": b"true"},
        "temperature": b"0",
    }


def test_words_come_as_the_service_streams_them() -> None:
    async def test(server: ChatServer, stt: OpenAISTT) -> None:
        found = await heard(stt)
        assert [(t.text, t.final) for t in found] == [
            ("Hel", False),
            ("Hello", False),
            ("Hello.", True),
        ]

    serve(streams(delta("Hel"), delta("lo"), done("Hello.")), test=test)


def test_events_without_a_type_are_segments() -> None:
    async def test(server: ChatServer, stt: OpenAISTT) -> None:
        assert (await heard(stt))[-1] == Transcript("One. Two.", 9, final=True)

    serve(streams('{"text": "One."}', '{"text": " Two."}', "[DONE]"), test=test)


def test_service_that_refuses_to_stream_is_asked_without_and_remembered() -> None:
    refusal = gives(400, {"error": {"message": "unknown parameter: stream"}})

    async def test(server: ChatServer, stt: OpenAISTT) -> None:
        assert (await heard(stt))[-1].text == "yes"
        assert (await heard(stt))[-1].text == "yes"

    server = serve(refusal, gives(200, {"text": "yes"}), test=test)
    assert ["stream" in asked.form for asked in server.asked] == [True, False, False]


@pytest.mark.parametrize("audio", [b"", bytes(32_000), b"\x05\x00\xf0\xff" * 4000])
def test_silence_is_not_sent(audio: bytes) -> None:
    async def test(server: ChatServer, stt: OpenAISTT) -> None:
        assert await heard(stt, audio) == [Transcript("", 0, final=True)]

    assert serve(gives(200, {"text": "You"}), test=test).asked == []


def test_very_short_utterance_is_lengthened_with_silence() -> None:
    async def test(server: ChatServer, stt: OpenAISTT) -> None:
        await heard(stt, b"\x00\x40")

    (asked,) = serve(gives(200, {"text": ""}), test=test).asked
    assert asked.form["file"] == wav_file(b"\x00\x40" + bytes(7998))


def test_utterance_longer_than_the_service_takes_is_an_error() -> None:
    async def test(server: ChatServer, stt: OpenAISTT) -> None:
        async def endless() -> AsyncIterator[bytes]:
            for _ in range(MAX_AUDIO_BYTES // (1 << 20) + 1):
                yield bytes(1 << 20)

        with pytest.raises(EngineError, match="longer than 24 MiB"):
            async for _ in stt.transcribe(endless(), language=None, prompt=""):
                pass

    assert serve(hangs, test=test).asked == []


@pytest.mark.parametrize(
    ("reply", "message", "retry_after_s"),
    [
        (
            gives(401, {"error": {"message": f"wrong key {KEY}"}}),
            r"\(401\): wrong key \*\*\*;",
            None,
        ),
        (gives(404, {"detail": "no model x"}), "does not know the model 'gpt-4o-mini-tr", None),
        (gives(429, {}, Retry_After="7"), "too many requests .* wait 7 s", 7.0),
        (gives(500, {"error": "out of memory"}), "failed .500.: out of memory", 0.0),
        (gives(200, b"<html>", "text/html"), "sent something else", None),
        (gives(200, {"words": []}), "instead of a transcript", None),
        (gives(200, {"error": {"message": "busy"}}), "failed while it answered: busy", None),
        (streams(), "broke off", 0.0),
        (streams('{"error": {"message": "no"}}'), "failed while it answered: no", None),
        (falls_silent(delta("He")), "fell silent", None),
        (drops(delta("He")), "broke off", 0.0),
        (hangs, "did not begin to answer", None),
    ],
)
def test_failure_is_one_sentence_with_a_remedy(
    reply: Reply, message: str, retry_after_s: float | None
) -> None:
    async def test(server: ChatServer, stt: OpenAISTT) -> None:
        with pytest.raises(EngineError, match=message) as failure:
            await heard(stt)
        assert failure.value.retry_after_s == retry_after_s

    serve(reply, test=test, first_result_seconds=4 * TICK, gap_seconds=TICK)


def test_model_that_the_service_lists_can_be_asked_for() -> None:
    async def reply(request: web.Request) -> web.StreamResponse:
        if request.path.endswith("models"):
            return await lists("whisper-1", "gpt-4o-mini-transcribe")(request)
        return await gives(200, {"text": "hi"})(request)

    async def test(server: ChatServer, stt: OpenAISTT) -> None:
        stt.warm()
        await stt._endpoint.listed.refresh()
        whisper = stt.for_model("whisper-1")
        assert whisper is not None
        assert stt.for_model("whisper-9") is None
        await heard(whisper)
        await heard(stt)

    asked = serve(reply, test=test).asked
    assert [each.path for each in asked] == ["/v1/models", *["/v1/audio/transcriptions"] * 2]
    assert [each.form["model"] for each in asked[1:]] == [b"whisper-1", b"gpt-4o-mini-transcribe"]
    assert {each.connection for each in asked} == {0}, "the first turn uses the warm connection"


def test_stt_passes_the_conformance_checks() -> None:
    async def test(server: ChatServer, stt: OpenAISTT) -> None:
        await check_stt(stt)

    serve(streams(delta("Hel"), delta("lo"), done("Hello.")), test=test)
