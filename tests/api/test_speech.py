"""Text in, speech out: with the official client, before scripted engines."""

import asyncio
from base64 import b64decode
from collections.abc import AsyncGenerator
from contextlib import aclosing
from io import BytesIO
from typing import Any, Literal, Self, get_args

import aiohttp
import msgspec
import openai
import pytest

from tests import idle_clock
from tests.api.audio_stage import stage
from vivavoce.api import speech as speech_routes
from vivavoce.audio.formats import RATE
from vivavoce.engines.base import BaseEngine, Speech, Voice
from vivavoce.engines.scripted.engines import ScriptedTTS
from vivavoce.engines.scripted.scripts import TTSScript
from vivavoce.errors import EngineError, EngineLost
from vivavoce.media import files
from vivavoce.media.encoding import FileFormat

TEXT = "A first clause, then another one. And the last."
SECONDS = len(TEXT) * 0.06
FORMATS: list[Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]] = [
    *("mp3", "opus", "aac", "flac", "wav", "pcm")
]


class Speaker(BaseEngine):
    """Says one clause; the next one it begins and never ends."""

    Settings = None
    sample_rate = RATE
    voices: tuple[Voice, ...] = (Voice("anna", ()),)
    default_voice = "anna"

    def __init__(self, *, error: str = "") -> None:
        self._error = error
        self.said: list[str] = []
        self.closed = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        pass

    async def synthesize(
        self, text: str, *, voice: str, speed: float, language: str | None, instructions: str
    ) -> AsyncGenerator[Speech]:
        self.said.append(text)
        if len(self.said) == 1:
            yield Speech(bytes(RATE))
            return
        try:
            if self._error:
                raise EngineError(self._error)
            await asyncio.Event().wait()
        finally:
            self.closed.set()


def test_speech_in_every_format_is_as_long_as_the_text() -> None:
    async def main() -> dict[str, tuple[str, bytes]]:
        async with stage() as here:
            made: dict[str, tuple[str, bytes]] = {}
            for kind in FORMATS:
                answer = await here.client.audio.speech.create(
                    input=TEXT, model="tts-1", voice="alloy", response_format=kind
                )
                made[kind] = answer.response.headers["Content-Type"], answer.content
            return made

    made = idle_clock.run(main())
    assert {kind: content_type for kind, (content_type, _) in made.items()} == {
        "mp3": "audio/mpeg",
        "opus": "audio/opus",
        "aac": "audio/aac",
        "flac": "audio/flac",
        "wav": "audio/wav",
        "pcm": "audio/pcm",
    }
    _, pcm = made.pop("pcm")
    assert len(pcm) / 2 / RATE == pytest.approx(SECONDS, abs=0.01)
    for kind, (_, file) in made.items():
        assert len(files.read(file)) / 2 / RATE == pytest.approx(SECONDS, abs=0.15), kind


def test_default_format_is_mp3_and_streams_the_same_file() -> None:
    async def main() -> tuple[bytes, bytes]:
        async with stage() as here:
            speech = here.client.audio.speech
            whole = await speech.create(input=TEXT, model="tts-1", voice="alloy")
            async with speech.with_streaming_response.create(
                input=TEXT, model="tts-1", voice="alloy"
            ) as answer:
                assert answer.headers["Content-Type"] == "audio/mpeg"
                assert "Content-Length" not in answer.headers
                pieces = [piece async for piece in answer.iter_bytes()]
            return whole.content, b"".join(pieces)

    whole, streamed = idle_clock.run(main())
    assert whole == streamed


def test_sse_events_hold_the_same_file_and_its_usage() -> None:
    async def main() -> tuple[bytes, list[Any]]:
        async with stage() as here:
            speech = here.client.audio.speech
            whole = await speech.create(input=TEXT, model="m", voice="alloy", response_format="wav")
            async with speech.with_streaming_response.create(
                input=TEXT, model="m", voice="alloy", response_format="wav", stream_format="sse"
            ) as answer:
                assert answer.headers["Content-Type"] == "text/event-stream"
                lines = [line async for line in answer.iter_lines() if line.strip()]
            return whole.content, [
                msgspec.json.decode(line.strip().removeprefix("data: ")) for line in lines
            ]

    whole, (*deltas, done) = idle_clock.run(main())
    assert {event["type"] for event in deltas} == {"speech.audio.delta"}
    assert b"".join(b64decode(event["audio"]) for event in deltas) == whole
    assert done == {
        "type": "speech.audio.done",
        "usage": {"input_tokens": 12, "output_tokens": 57, "total_tokens": 69},
    }


def test_first_clause_is_sent_before_the_next_is_synthesised() -> None:
    async def main() -> bytes:
        async with (
            stage(tts=Speaker()) as here,
            here.client.audio.speech.with_streaming_response.create(
                input=TEXT, model="m", voice="anna", response_format="pcm"
            ) as answer,
        ):
            heard = b""
            async for piece in answer.iter_bytes():
                heard += piece
                if len(heard) == RATE:
                    break
            return heard

    assert idle_clock.run(main()) == bytes(RATE)


def test_client_disconnect_stops_the_engine() -> None:
    engine = Speaker()

    async def main() -> None:
        async with stage(tts=engine) as here:
            async with here.client.audio.speech.with_streaming_response.create(
                input=TEXT, model="m", voice="anna", response_format="pcm"
            ) as answer:
                async for _ in answer.iter_bytes():
                    break
            async with asyncio.timeout(60):
                await engine.closed.wait()

    idle_clock.run(main())
    assert engine.said == ["A first clause, ", "then another one. "]


def test_voice_speed_and_instructions_reach_the_engine() -> None:
    got: list[tuple[str, float, str]] = []

    class Attentive(ScriptedTTS):
        async def synthesize(
            self, text: str, *, voice: str, speed: float, language: str | None, instructions: str
        ) -> AsyncGenerator[Speech]:
            got.append((voice, speed, instructions))
            yield Speech(bytes(200))

    async def main() -> None:
        engine = Attentive(TTSScript(voices=("alloy", "cedar", "verse"), default_voice="verse"))
        async with stage(tts=engine, default_voice="cedar") as here:
            create = here.client.audio.speech.create
            voices: list[Any] = ["alloy", {"id": "cedar"}, "nobody", {"id": "voice_1234"}]
            for voice in voices:
                await create(input="Hi.", model="tts-1-hd", voice=voice)
            await create(input="Hi.", model="m", voice="alloy", speed=0.25, instructions="Whisper.")
        async with stage(tts=engine, default_voice="of another engine") as here:
            await here.client.audio.speech.create(input="Hi.", model="tts-1", voice="nobody")

    idle_clock.run(main())
    assert got == [
        ("alloy", 1.0, ""),
        ("cedar", 1.0, ""),
        ("cedar", 1.0, ""),
        ("cedar", 1.0, ""),
        ("alloy", 0.25, "Whisper."),
        ("verse", 1.0, ""),
    ]


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"input": ""}, "input", "invalid_value"),
        ({"input": " \n"}, "input", "invalid_value"),
        ({"input": "a" * 65_537}, "input", "string_above_max_length"),
        ({"input": None}, "input", None),
        ({"speed": 4.1}, "speed", "invalid_value"),
        ({"speed": "fast"}, "speed", "invalid_type"),
        ({"response_format": "ogg"}, "response_format", "invalid_value"),
        ({"stream_format": "chunks"}, "stream_format", "invalid_value"),
        ({"voice": 7}, "voice", "invalid_type"),
    ],
)
def test_invalid_field_is_named_in_the_error(
    fields: dict[str, object], param: str, code: str | None
) -> None:
    body: dict[str, object] = {"input": "Hi.", "model": "tts-1", "voice": "alloy"}

    async def main() -> tuple[int, Any]:
        async with stage() as here:
            return await here.post("/audio/speech", json=body | fields)

    status, answer = idle_clock.run(main())
    assert (status, answer["error"]["param"]) == (400, param)
    assert code is None or answer["error"]["code"] == code


def test_body_that_is_not_json_or_too_large_is_refused() -> None:
    async def main() -> list[tuple[int, Any]]:
        async with stage() as here:
            return [
                await here.post("/audio/speech", data=b"input=Hello"),
                await here.post("/audio/speech", data=b"[]"),
                await here.post("/audio/speech", data=BytesIO(b" " * (1 << 20) + b"{}")),
            ]

    answers = idle_clock.run(main())
    assert [status for status, _ in answers] == [400, 400, 413]


def test_engine_failure_before_the_answer_is_503_with_retry_after() -> None:
    async def main() -> openai.APIStatusError:
        async with stage(tts={"fail_on": "A first"}) as here:
            with pytest.raises(openai.InternalServerError) as caught:
                await here.client.audio.speech.create(input=TEXT, model="m", voice="alloy")
            return caught.value

    error = idle_clock.run(main())
    assert (error.status_code, error.code) == (503, "engine_error")
    assert error.response.headers["Retry-After"] == "5"


def test_engine_failure_on_the_way_aborts_the_connection() -> None:
    async def main() -> int:
        async with stage(tts=Speaker(error="it broke")) as here:
            body = {"input": TEXT, "voice": "anna", "response_format": "pcm"}
            url = f"{here.base}/audio/speech"
            async with here.http.post(url, json=body) as answer:
                with pytest.raises(aiohttp.ClientPayloadError):
                    await answer.read()
                return answer.status

    assert idle_clock.run(main()) == 200


def test_engine_failure_on_the_way_is_the_last_sse_event() -> None:
    async def main() -> list[Any]:
        async with stage(tts=Speaker(error="it broke")) as here:
            body = {"input": TEXT, "response_format": "pcm", "stream_format": "sse"}
            async with here.http.post(f"{here.base}/audio/speech", json=body) as answer:
                lines = (await answer.read()).split(b"\n\n")
            return [msgspec.json.decode(line.removeprefix(b"data: ")) for line in lines if line]

    *deltas, last = idle_clock.run(main())
    assert b"".join(b64decode(event["audio"]) for event in deltas) == bytes(RATE)
    assert (last["error"]["code"], last["error"]["message"]) == ("engine_error", "it broke")


def test_engine_that_stalls_is_an_error() -> None:
    async def main() -> tuple[int, Any]:
        async with stage(tts={"stall_on": "Hi"}, stall_timeout_s=0.01) as here:
            return await here.post("/audio/speech", json={"input": "Hi."})

    status, body = idle_clock.run(main())
    assert (status, body["error"]["message"]) == (503, "the synthesiser made no sound for 0.01 s")


def test_long_text_begins_with_a_short_clause_then_sentences() -> None:
    engine = ScriptedTTS(TTSScript())

    async def main() -> None:
        async with stage(tts=engine) as here:
            await here.client.audio.speech.create(
                input="Well, all in all, it is so. But, as I said, it goes on. *** And ends",
                model="m",
                voice="alloy",
            )

    idle_clock.run(main())
    assert [text for text, _, _ in engine.spoken] == [
        "Well, all in all, ",
        "it is so. ",
        "But, as I said, it goes on. ",
        "    And ends",
    ]


@pytest.mark.parametrize("text", ["...", "… !", "😀", "—", "***", "\u200b"])
@pytest.mark.parametrize("kind", get_args(FileFormat))
def test_text_with_nothing_to_say_is_a_short_silent_file(text: str, kind: FileFormat) -> None:
    engine = ScriptedTTS(TTSScript())

    async def main() -> bytes:
        async with stage(tts=engine) as here:
            answer = await here.client.audio.speech.create(
                input=text, model="m", voice="alloy", response_format=kind
            )
            return answer.content

    file = idle_clock.run(main())
    pcm = file if kind == "pcm" else files.read(file)
    assert 0.09 < len(pcm) / 2 / RATE < 0.2
    assert {*pcm} <= {0, 1, 2, 3, 253, 254, 255}
    assert engine.spoken == []


def test_flac_answer_has_its_length_unless_it_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    def samples(flac: bytes) -> int:
        return int.from_bytes(flac[18:26]) & (1 << 36) - 1  # RFC 9639, 8.2

    async def main() -> bytes:
        async with stage() as here:
            answer = await here.client.audio.speech.create(
                input="One. Two, three and four.", model="m", voice="v", response_format="flac"
            )
            return answer.content

    file = idle_clock.run(main())
    assert samples(file) == len(files.read(file)) // 2 > 0
    monkeypatch.setattr(speech_routes, "FLAC_HELD_SECONDS", 0)
    streamed = idle_clock.run(main())
    assert samples(streamed) == 0
    assert files.read(streamed) == files.read(file)


def test_lost_synthesiser_is_asked_again_and_no_audio_is_doubled() -> None:
    class Losable(ScriptedTTS):
        losses = 0

        async def synthesize(self, text: str, **how: Any) -> AsyncGenerator[Speech]:
            async with aclosing(super().synthesize(text, **how)) as speech:
                async for piece in speech:
                    yield piece
                    if self.losses:
                        self.losses -= 1
                        raise EngineLost("it died")

    async def main(losses: int) -> bytes:
        engine = Losable(TTSScript())
        engine.losses = losses
        async with stage(tts=engine) as here:
            answer = await here.client.audio.speech.create(
                input="One two three four.", model="m", voice="v", response_format="pcm"
            )
            return answer.content

    whole = idle_clock.run(main(0))
    assert whole
    assert idle_clock.run(main(1)) == whole


def test_lone_surrogates_in_the_text_are_replaced() -> None:
    engine = ScriptedTTS(TTSScript())

    async def main() -> int:
        async with stage(tts=engine) as here:
            body = b'{"model": "m", "voice": "v", "input": "Great \\ud83d day"}'
            async with here.http.post(f"{here.base}/audio/speech", data=body) as answer:
                await answer.read()
                return answer.status

    assert idle_clock.run(main()) == 200
    assert "".join(text for text, _, _ in engine.spoken).startswith("Great ")
