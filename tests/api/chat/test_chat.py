"""Chat completions with speech, as the official client uses them; and plain ones, as bytes."""

import asyncio
import wave
from base64 import b64decode
from io import BytesIO
from typing import Any

import msgspec
import pytest
from aiohttp import web
from openai import APIError, InternalServerError, NotFoundError

from tests import idle_clock
from tests.api.chat.stage import Stage, recording, said, scripted, stage, stage_before, user, wav
from tests.engines.openai.chat_server import (
    FINISH,
    Reply,
    begin,
    drops,
    falls_silent,
    frame,
    gives,
    hangs,
    says,
    streams,
    text,
)
from vivavoce.audio.formats import RATE
from vivavoce.media.decoding import Raw, SoundFile

SPOKEN: Any = {"modalities": ["text", "audio"], "audio": {"voice": "ash", "format": "pcm16"}}
HELLO: Any = [{"role": "user", "content": "Hello"}]
TWO_CLAUSES = "This is the first sentence. And this is the second one."


def test_recording_becomes_text_and_the_rest_is_forwarded_unchanged() -> None:
    async def main() -> None:
        async with stage_before(
            gives(200, said("Sunny.")), stt={"transcripts": ["what is the weather"]}
        ) as (here, server):
            image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
            done = await here.client.chat.completions.create(
                model="llama",
                messages=[
                    {"role": "developer", "content": "Be brief."},
                    user(recording(), {"type": "text", "text": "in Rome"}, image),
                ],
                seed=7,
                stop=["x"],
                response_format={"type": "json_object"},
                tools=[{"type": "function", "function": {"name": "f", "parameters": {"a": 1}}}],
                extra_body={"unknown": {"deep": [1.0, None]}, "transcription_model": "whisper-1"},
            )
            assert done.choices[0].message.content == "Sunny."
            assert server.asked[0].body == {
                "model": "llama",
                "messages": [
                    {"role": "developer", "content": "Be brief."},
                    {
                        "role": "user",
                        "content": [
                            {"type": "text", "text": "what is the weather"},
                            {"type": "text", "text": "in Rome"},
                            image,
                        ],
                    },
                ],
                "seed": 7,
                "stop": ["x"],
                "response_format": {"type": "json_object"},
                "tools": [{"type": "function", "function": {"name": "f", "parameters": {"a": 1}}}],
                "unknown": {"deep": [1.0, None]},
            }

    idle_clock.run(main())


def test_plain_request_and_answer_are_forwarded_byte_for_byte() -> None:
    body = b'{"messages" : [{"role":"user","content":"H\\u00e9"}],\n "model":"mine", "x": 1.50}'
    answer = b'{ "id":"1",\t"choices": [ ] , "usage":null}\n'

    bodies: list[bytes] = []

    def keeping(reply: Reply) -> Reply:
        async def kept(request: web.Request) -> web.StreamResponse:
            bodies.append(await request.read())
            return await reply(request)

        return kept

    async def main() -> None:
        replies = (
            keeping(gives(200, answer, X_Kept="yes", Set_Cookie="a=b")),
            keeping(gives(429, b"slow down", "text/plain", Retry_After="3")),
        )
        async with stage_before(*replies) as (here, _):
            async with here.http.post(here.url, data=body) as response:
                assert await response.read() == answer
                assert response.headers["X-Kept"] == "yes"
                assert "Set-Cookie" not in response.headers
                assert response.headers["x-request-id"].startswith("req_")
            async with here.http.post(here.url, data=body) as response:
                assert (response.status, response.content_type) == (429, "text/plain")
                assert (await response.read(), response.headers["Retry-After"]) == (
                    b"slow down",
                    "3",
                )
            assert bodies == [body, body]

    idle_clock.run(main())


def test_plain_stream_is_forwarded_as_it_comes() -> None:
    async def main() -> None:
        async with stage_before(falls_silent(text("One "))) as (here, _):
            asked = {"model": "llama", "messages": HELLO, "stream": True}
            async with here.http.post(here.url, json=asked) as response:
                assert response.content_type == "text/event-stream"
                first = await response.content.readany()
                assert first == b"data: " + text("One ").encode() + b"\n\n"

    idle_clock.run(main())


def test_configured_model_name_is_replaced_by_the_endpoints_model() -> None:
    async def main() -> None:
        async with stage_before(gives(200, said("Yes."))) as (here, server):
            for model, extra in (("default", {}), ("gpt-audio", SPOKEN), ("mine", {})):
                await here.client.chat.completions.create(model=model, messages=HELLO, **extra)
            assert [asked.body["model"] for asked in server.asked] == ["llama", "llama", "mine"]

    idle_clock.run(main())


def test_model_unknown_to_the_endpoint_is_replaced_by_the_configured_one() -> None:
    async def main() -> None:
        missing = gives(404, {"error": {"message": "no such model"}})
        async with stage_before(missing, gives(200, said("Yes.")), missing) as (here, server):
            done = await here.client.chat.completions.create(model="gpt-4o", messages=HELLO)
            assert done.choices[0].message.content == "Yes."
            with pytest.raises(NotFoundError):
                await here.client.chat.completions.create(model="llama", messages=HELLO)
            models = [asked.body["model"] for asked in server.asked]
            assert models == ["gpt-4o", "llama", "llama"]

    idle_clock.run(main())


def test_whole_answer_is_spoken_in_the_requested_voice() -> None:
    async def main() -> None:
        async with stage_before(gives(200, said(TWO_CLAUSES))) as (here, server):
            done = await here.client.chat.completions.create(
                model="llama", messages=HELLO, **SPOKEN
            )
            assert server.asked[0].body == {"model": "llama", "messages": HELLO}
            message = done.choices[0].message
            assert message.content is None
            assert message.audio is not None
            assert message.audio.transcript == TWO_CLAUSES
            assert message.audio.id.startswith("audio_")
            assert message.audio.expires_at > done.created
            # 60 ms a character, at 24 kHz
            assert len(b64decode(message.audio.data)) == 2 * 24 * 60 * len(TWO_CLAUSES)
            assert {voice for _, voice, _ in here.tts.spoken} == {"ash"}

    idle_clock.run(main())


def test_unknown_voice_falls_back_to_the_default() -> None:
    async def main() -> None:
        async with stage(scripted("Hello."), default_voice="sage") as here:
            audio: Any = {"voice": {"id": "voice_1"}, "format": "pcm16"}
            await here.client.chat.completions.create(
                model="x", messages=HELLO, modalities=["text", "audio"], audio=audio
            )
            assert here.tts.spoken == [("Hello.", "sage", 1.0)]

    idle_clock.run(main())


def test_streamed_answer_is_spoken_clause_by_clause() -> None:
    """What is at the end of the stream waits until the first clause has been heard."""

    async def main() -> None:
        heard = asyncio.Event()
        usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}

        async def slowly(request: web.Request) -> web.StreamResponse:
            response = await begin(request, *map(text, TWO_CLAUSES.split(" And")[:1]), text(" And"))
            await heard.wait()
            rest = TWO_CLAUSES.partition(" And")[2]
            last = msgspec.json.encode({"choices": [], "usage": usage}).decode()
            await response.write(frame(text(rest), FINISH, last, "[DONE]"))
            return response

        async with stage_before(slowly) as (here, _):
            stream = await here.client.chat.completions.create(
                model="llama",
                messages=HELLO,
                stream=True,
                stream_options={"include_usage": True},
                **SPOKEN,
            )
            chunks = []
            async for chunk in stream:
                chunks.append(chunk)
                audio = chunk.choices[0].delta.audio if chunk.choices else None
                if audio is not None and audio.data:
                    heard.set()
        audios = [c.choices[0].delta.audio for c in chunks if c.choices]
        spoken = [audio for audio in audios if audio is not None]
        assert "".join(audio.transcript or "" for audio in spoken) == TWO_CLAUSES
        assert [audio.id for audio in spoken if audio.id] == [spoken[0].id]
        # joined, the pieces are one text in base64
        sound = b64decode("".join(audio.data or "" for audio in spoken), validate=True)
        assert len(sound) == 2 * 24 * 60 * len(TWO_CLAUSES)
        assert [audio.expires_at is not None for audio in spoken] == [False] * (len(spoken) - 1) + [
            True
        ]
        assert all(c.choices[0].delta.content is None for c in chunks if c.choices)
        assert chunks[-2].choices[0].finish_reason == "stop"
        assert chunks[-1].choices == []
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.total_tokens == 3

    idle_clock.run(main())


def test_each_choice_has_its_own_speech() -> None:
    async def main() -> None:
        async with stage(scripted("One is this.", "Two is that, and longer.")) as here:
            done = await here.client.chat.completions.create(
                model="default", messages=HELLO, n=2, **SPOKEN
            )
            audios = [choice.message.audio for choice in done.choices]
            assert all(audio is not None for audio in audios)
            assert {audio.transcript for audio in audios if audio} == {
                "One is this.",
                "Two is that, and longer.",
            }
            assert len({audio.id for audio in audios if audio}) == 2

            stream = await here.client.chat.completions.create(
                model="default", messages=HELLO, n=2, stream=True, **SPOKEN
            )
            words, sound = ["", ""], ["", ""]
            async for chunk in stream:
                for choice in chunk.choices:
                    if choice.delta.audio is not None:
                        words[choice.index] += choice.delta.audio.transcript or ""
                        sound[choice.index] += choice.delta.audio.data or ""
            assert sorted(words) == ["One is this.", "Two is that, and longer."]
            assert [len(b64decode(s)) for s in sound] == [2 * 24 * 60 * len(w) for w in words]

    idle_clock.run(main())


def test_function_calls_pass_through_a_spoken_answer() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    whole: Any = said("")
    whole["choices"][0]["message"] |= {"content": None, "tool_calls": [call]}
    whole["choices"][0]["finish_reason"] = "tool_calls"
    delta = {"role": "assistant", "content": None, "tool_calls": [{"index": 0, **call}]}
    begun = {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    ended = {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}
    chunks = [msgspec.json.encode({"id": "1", **chunk}).decode() for chunk in (begun, ended)]

    async def main() -> None:
        async with stage_before(gives(200, whole), streams(*chunks, "[DONE]")) as (here, _):
            done = await here.client.chat.completions.create(
                model="llama", messages=HELLO, **SPOKEN
            )
            message = done.choices[0].message
            assert message.audio is None
            assert message.tool_calls is not None
            assert message.tool_calls[0].id == "call_1"
            stream = await here.client.chat.completions.create(
                model="llama", messages=HELLO, stream=True, **SPOKEN
            )
            choices = [chunk.choices[0] async for chunk in stream]
            assert [choice.delta.audio for choice in choices] == [None, None]
            assert choices[0].delta.tool_calls is not None
            assert choices[1].finish_reason == "tool_calls"

    idle_clock.run(main())


def test_earlier_answer_is_found_by_its_id() -> None:
    async def main() -> None:
        async with stage_before(gives(200, said("I am well."))) as (here, server):
            first = await here.client.chat.completions.create(
                model="llama", messages=HELLO, **SPOKEN
            )
            audio = first.choices[0].message.audio
            assert audio is not None
            earlier: Any = {"role": "assistant", "audio": {"id": audio.id}}
            await here.client.chat.completions.create(
                model="llama", messages=[*HELLO, earlier, *HELLO], **SPOKEN
            )
            assert server.asked[1].body["messages"] == [
                *HELLO,
                {"role": "assistant", "content": "I am well."},
                *HELLO,
            ]
            unknown: Any = {"role": "assistant", "audio": {"id": "audio_0"}}
            status, param, _ = await here.refusal(messages=[*HELLO, unknown])
            assert (status, param) == (400, "messages[1].audio.id")

    idle_clock.run(main())


def test_ten_turns_transcribe_each_recording_once() -> None:
    async def main() -> None:
        heard = [f"this is turn {n}" for n in range(10)]
        async with stage(scripted({"echo": True}), stt={"transcripts": heard}) as here:
            messages: list[Any] = []
            for turn in range(10):
                messages.append(user(recording(wav(turn))))
                stream = await here.client.chat.completions.create(
                    model="default", messages=messages, stream=True, **SPOKEN
                )
                audio_id = words = ""
                async for chunk in stream:
                    if chunk.choices and (audio := chunk.choices[0].delta.audio) is not None:
                        audio_id = audio.id or audio_id
                        words += audio.transcript or ""
                assert words == heard[turn]
                messages.append({"role": "assistant", "audio": {"id": audio_id}})
            assert len(here.stt.heard) == 10

    idle_clock.run(main())


def test_recordings_of_one_request_are_transcribed_concurrently() -> None:
    async def main() -> None:
        slow = [{"text": f"part {n}", "delay_seconds": 0.2} for n in range(4)]
        llm = scripted({"echo": True})
        async with stage(llm, stt={"transcripts": slow}) as here:
            parts = [recording(wav(n)) for n in range(4)]
            started = asyncio.get_running_loop().time()
            await here.client.chat.completions.create(
                model="default", messages=[user(*parts, parts[0])]
            )
            assert asyncio.get_running_loop().time() - started < 4 * 0.2
            assert len(here.stt.heard) == 4

    idle_clock.run(main())


def test_failure_before_the_answer_is_an_error_and_later_an_event() -> None:
    async def main() -> None:
        failing = {"text": TWO_CLAUSES, "error": "the model is gone"}
        llm = scripted({**failing, "fail_after_words": 0}, {**failing, "fail_after_words": 8})
        async with stage(llm) as here:
            create = here.client.chat.completions.create
            with pytest.raises(InternalServerError, match="the model is gone") as raised:
                await create(model="x", messages=HELLO, stream=True, **SPOKEN)
            assert raised.value.status_code == 503
            stream = await create(model="x", messages=HELLO, stream=True, **SPOKEN)
            with pytest.raises(APIError, match="the model is gone"):
                async for _ in stream:
                    pass

    idle_clock.run(main())


def test_endpoint_that_breaks_off_sends_no_done() -> None:
    async def main() -> None:
        async with stage_before(drops(text("Hel"))) as (here, _):
            with pytest.raises(APIError, match="broke off"):
                await _read(here, {})
            with pytest.raises(APIError, match="broke off"):
                await _read(here, SPOKEN)

    idle_clock.run(main())


async def _read(here: Stage, extra: Any) -> None:
    stream = await here.client.chat.completions.create(
        model="llama", messages=HELLO, stream=True, **extra
    )
    async for _ in stream:
        pass


@pytest.mark.parametrize("spoken", [False, True])
def test_client_disconnect_stops_the_work(spoken: bool) -> None:
    async def main() -> None:
        async with stage_before(hangs) as (here, server):
            asked = {"model": "llama", "messages": HELLO, "stream": spoken}
            ask = asyncio.create_task(here.post({**asked, **(SPOKEN if spoken else {})}))
            async with asyncio.timeout(60):
                await server.arrived.wait()
                ask.cancel()
                await server.aborted.wait()

    idle_clock.run(main())


def test_body_that_is_too_large_is_413() -> None:
    async def main() -> None:
        async with stage(scripted(), max_bytes=1000) as here:
            status, param, message = await here.refusal(messages=[user(recording())])
            assert (status, param, message) == (413, None, "The request is too large.")

    idle_clock.run(main())


def test_reasoning_content_is_not_spoken() -> None:
    async def main() -> None:
        async with stage_before(says("<think>hm</think>", "Hello there.")) as (here, _):
            await _read(here, SPOKEN)
            assert [spoken for spoken, _, _ in here.tts.spoken] == ["Hello there."]

    idle_clock.run(main())


@pytest.mark.parametrize("format_", ["wav", "mp3", "opus", "aac", "flac", "pcm16"])
def test_every_format_whole_and_streamed(format_: str) -> None:
    async def main() -> None:
        async with stage(scripted(TWO_CLAUSES)) as here:
            asked: Any = {"model": "default", "messages": HELLO, "modalities": ["text", "audio"]}
            asked["audio"] = {"voice": "ash", "format": format_}
            done = await here.client.chat.completions.create(**asked)
            audio = done.choices[0].message.audio
            assert audio is not None
            sounds = [audio.data, ""]
            async for chunk in await here.client.chat.completions.create(**asked, stream=True):
                if chunk.choices and chunk.choices[0].delta.audio is not None:
                    sounds[1] += chunk.choices[0].delta.audio.data or ""
        seconds = 0.06 * len(TWO_CLAUSES)
        for sound in sounds:
            raw = Raw() if format_ == "pcm16" else None
            file = SoundFile(BytesIO(b64decode(sound, validate=True)), raw=raw)
            list(file.pieces())
            assert file.seconds == pytest.approx(seconds, abs=0.15)
        if format_ == "wav":
            with wave.open(BytesIO(b64decode(sounds[0]))) as got:
                assert got.getnframes() == round(RATE * seconds)

    idle_clock.run(main())
