"""Recordings in, words out: with the official client, before scripted engines."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Literal, Self

import aiohttp
import openai
import pytest
from openai.types.audio import TranscriptionDiarized

from tests import idle_clock
from tests.api.audio_stage import Stage, quiet, stage, tone
from tests.api.routes_stage import wav_of
from tests.media.sound import container
from vivavoce.engines.base import BaseEngine, Capabilities, Transcript
from vivavoce.engines.scripted.engines import ScriptedSTT
from vivavoce.engines.scripted.scripts import STTScript
from vivavoce.errors import EngineError

SPOKEN = wav_of(quiet(0.3) + tone(1.5) + quiet(0.3))
TWICE = wav_of(tone(1.0) + quiet(1.5) + tone(1.0))
GRANULARITIES: list[list[Literal["word", "segment"]]] = [["word"], ["segment"], ["word", "segment"]]
WORDS = {"transcripts": ["one two three"], "word_times": True}


def refused(exc: openai.APIStatusError) -> tuple[int, str | None, str | None]:
    return exc.status_code, exc.param, exc.code


class Listener(BaseEngine):
    """Tells what it was asked, then what a test gives it: texts, an error, or nothing at all."""

    Settings = None
    sample_rate = 16_000

    def __init__(self, *got: str | Exception) -> None:
        self._script = got
        self.asked: list[tuple[str | None, str]] = []
        self.closed = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        pass

    async def transcribe(
        self, audio: AsyncIterator[bytes], *, language: str | None, prompt: str
    ) -> AsyncGenerator[Transcript]:
        self.asked.append((language, prompt))
        try:
            async for _ in audio:
                pass
            for one in self._script:
                if isinstance(one, Exception):
                    raise one
                yield Transcript(one, len(one))
            await asyncio.Event().wait()
        finally:
            self.closed.set()


def test_recording_is_answered_in_every_format() -> None:
    async def main() -> list[Any]:
        async with stage(stt=WORDS) as here:
            create = here.client.audio.transcriptions.create
            return [
                await create(file=("a.wav", SPOKEN), model="whisper-1", response_format=kind)
                for kind in ("json", "text", "srt", "vtt")
            ]

    json, text, srt, vtt = idle_clock.run(main())
    assert (json.text, json.usage.seconds) == ("one two three", 3)
    assert text == "one two three\n"
    assert srt == "1\n00:00:00,096 --> 00:00:00,996\none two three\n\n"
    assert vtt == "WEBVTT\n\n00:00:00.096 --> 00:00:00.996\none two three\n\n"


def test_verbose_json_has_the_requested_times() -> None:
    async def main() -> list[Any]:
        async with stage(stt=WORDS) as here:
            return [
                await here.client.audio.transcriptions.create(
                    file=("a.wav", SPOKEN),
                    model="whisper-1",
                    response_format="verbose_json",
                    timestamp_granularities=granularities,
                )
                for granularities in GRANULARITIES
            ]

    words, segments, both = idle_clock.run(main())
    assert (words.duration, words.language, words.text) == (2.1, "english", "one two three")
    assert [(w.word, w.start, w.end) for w in words.words] == [
        ("one", 0.096, 0.396),
        ("two", 0.396, 0.696),
        ("three", 0.696, 0.996),
    ]
    assert words.segments is None
    assert [(s.id, s.text, s.start, s.end) for s in segments.segments] == [
        (0, "one two three", 0.096, 0.996)
    ]
    assert segments.words is None
    assert (both.words, both.segments) == (words.words, segments.segments)


def test_long_recording_is_cut_at_pauses_and_answered_in_order() -> None:
    transcripts = [{"text": "one", "delay_seconds": 0.05}, "two"]

    async def main() -> Any:
        async with stage(stt={"transcripts": transcripts}) as here:
            return await here.client.audio.transcriptions.create(
                file=("a.wav", TWICE), model="whisper-1", response_format="verbose_json"
            )

    got = idle_clock.run(main())
    assert got.text == "one two"
    assert [(s.id, s.text, s.start, s.end, s.seek) for s in got.segments] == [
        (0, "one", 0.0, 1.216, 0),
        (1, "two", 2.304, 3.5, 230),
    ]


def test_streamed_deltas_concatenate_to_the_text() -> None:
    partly = {"text": "one two three", "partials": True}

    async def main() -> list[Any]:
        script = {"transcripts": [partly, "four"], "word_ms": 200}
        async with stage(stt=script) as here:
            stream = await here.client.audio.transcriptions.create(
                file=("a.wav", TWICE), model="gpt-4o-transcribe", stream=True, prompt="count!"
            )
            return [event async for event in stream]

    *deltas, done = idle_clock.run(main())
    assert [event.delta for event in deltas] == ["one", " two", " three", " four"]
    assert {event.type for event in deltas} == {"transcript.text.delta"}
    assert (done.type, done.text) == ("transcript.text.done", "one two three four")
    assert done.usage.to_dict() == {
        "type": "tokens",
        "input_tokens": 37,
        "output_tokens": 5,
        "total_tokens": 42,
        "input_token_details": {"text_tokens": 2, "audio_tokens": 35},
    }


@pytest.mark.parametrize("logprob", [-0.5, None])
def test_logprobs_are_sent_where_asked_for_and_known(logprob: float | None) -> None:
    partly = {"text": "one two three", "partials": True}
    script = {"transcripts": [partly, "four"], "word_times": True, "logprob": logprob}

    async def main() -> tuple[Any, list[Any], Any]:
        async with stage(stt=script) as here:
            create = here.client.audio.transcriptions.create
            whole = await create(file=("a.wav", TWICE), model="m", include=["logprobs"])
            stream = await create(
                file=("a.wav", TWICE), model="m", include=["logprobs"], stream=True
            )
            events = [event async for event in stream]
            return whole, events, await create(file=("a.wav", TWICE), model="m")

    whole, events, without = idle_clock.run(main())
    assert without.logprobs is None
    *deltas, done = events
    if logprob is None:
        assert all(answer.logprobs is None for answer in (whole, *events))
        return
    for answer in (whole, done):
        assert [token.token for token in answer.logprobs] == ["one", " two", " three", " four"]
        assert {token.logprob for token in answer.logprobs} == {-0.5}
        assert bytes(map(int, answer.logprobs[-1].bytes)) == b" four"
    for event in deltas:
        assert "".join(token.token for token in event.logprobs) == event.delta


def test_diarized_transcript_has_a_segment_for_each_passage_of_a_speaker() -> None:
    talk = wav_of(
        tone(2.0, 250) + quiet(0.6) + tone(1.0, 250) + quiet(0.5) + tone(2.0, 650) + quiet(1.5)
    )
    reference = f"data:audio/wav;base64,{b64encode(wav_of(tone(2.0, 650))).decode()}"

    async def main() -> tuple[Any, list[Any], Any]:
        script = {"transcripts": ["one two", "three"]}
        async with stage(stt=script) as here:
            create = here.client.audio.transcriptions.create
            model: Any = "gpt-4o-transcribe-diarize"
            whole = await create(file=("a.wav", talk), model=model, response_format="diarized_json")
            stream = await create(
                file=("a.wav", talk),
                model=model,
                response_format="diarized_json",
                chunking_strategy={"type": "server_vad", "silence_duration_ms": 300},
                known_speaker_names=["Ada"],
                known_speaker_references=[reference],
                stream=True,
            )
            events = [event async for event in stream]
            silent = await create(
                file=("a.wav", wav_of(quiet(1))), model=model, response_format="diarized_json"
            )
            return whole, events, silent

    whole, events, silent = idle_clock.run(main())
    assert isinstance(whole, TranscriptionDiarized)
    assert (whole.text, whole.duration, whole.task) == ("one two three", 7.6, "transcribe")
    assert [(each.id, each.speaker, each.text) for each in whole.segments] == [
        ("seg_000", "A", "one two"),
        ("seg_001", "B", "three"),
    ]
    edges = [edge for each in whole.segments for edge in (each.start, each.end)]
    assert edges == pytest.approx([0.0, 3.7, 4.0, 6.2], abs=0.15)
    assert [event.type.rpartition(".")[2] for event in events] == [
        *("delta", "segment", "delta", "segment", "done")
    ]
    assert [event.segment_id for event in events[::2][:2]] == ["seg_000", "seg_001"]
    assert [(each.speaker, each.text) for each in events[1:4:2]] == [
        ("A", "one two"),
        ("Ada", "three"),
    ]
    assert (silent.text, silent.segments) == ("", [])


def test_diarized_transcript_without_a_speaker_model_is_refused() -> None:
    async def main() -> tuple[int, Any]:
        async with stage(speaker=None) as here:
            return await here.transcribe(SPOKEN, response_format="diarized_json")

    status, body = idle_clock.run(main())
    assert (status, body["error"]["code"]) == (400, "unsupported")


@pytest.mark.parametrize("sound", [quiet(2), quiet(0.001)])
def test_silent_recording_has_empty_text(sound: bytes) -> None:
    async def main() -> tuple[Any, list[Any]]:
        async with stage(stt={"hears_silence": False}) as here:
            create = here.client.audio.transcriptions.create
            whole = await create(file=("a.wav", wav_of(sound)), model="whisper-1")
            stream = await create(file=("a.wav", wav_of(sound)), model="whisper-1", stream=True)
            return whole, [event async for event in stream]

    whole, streamed = idle_clock.run(main())
    assert whole.text == ""
    assert [(event.type, event.text) for event in streamed] == [("transcript.text.done", "")]


@pytest.mark.parametrize(
    ("kind", "codec"),
    [
        ("wav", "pcm_s16le"),
        ("mp3", "mp3"),
        ("mp4", "aac"),
        ("ogg", "libopus"),
        ("flac", "flac"),
        ("webm", "libopus"),
    ],
)
def test_kind_of_file_is_found_in_its_bytes(kind: str, codec: str) -> None:
    rate = 48_000 if codec == "libopus" else 24_000
    file = container(kind, codec, tone(1.0), rate=rate)

    async def main() -> list[str]:
        async with stage(stt={"transcripts": ["hello"]}) as here:
            create = here.client.audio.transcriptions.create
            named = ("talk.mp3", file, "audio/mpeg"), ("x", file, "text/plain"), file
            return [(await create(file=each, model="whisper-1")).text for each in named]

    assert idle_clock.run(main()) == ["hello"] * 3


@pytest.mark.parametrize(
    ("name", "content_type", "seconds"),
    [
        ("call.pcm", "application/octet-stream", 2),
        ("call", "audio/pcm", 2),
        ("call", "audio/pcm;rate=16000", 3),
        ("call", "audio/PCMU", 12),
    ],
)
def test_raw_samples_are_read_as_declared(name: str, content_type: str, seconds: int) -> None:
    async def main() -> Any:
        async with stage() as here:
            return await here.client.audio.transcriptions.create(
                file=(name, tone(2.0), content_type), model="whisper-1"
            )

    assert idle_clock.run(main()).usage.seconds == seconds


def test_file_without_a_name_and_chunked_upload_are_accepted() -> None:
    boundary = "xyz"
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"\r\n\r\n'.encode()
    tail = f"\r\n--{boundary}--\r\n".encode()

    async def chunks() -> AsyncIterator[bytes]:
        whole = head + SPOKEN + tail
        for at in range(0, len(whole), 1000):
            yield whole[at : at + 1000]

    async def main() -> tuple[int, Any]:
        async with stage() as here:
            kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
            return await here.post(data=chunks(), headers=kind)

    status, body = idle_clock.run(main())
    assert (status, body["text"]) == (200, "hello")


def test_language_and_prompt_reach_the_engine() -> None:
    engine = Listener(EngineError("enough"))

    async def main() -> None:
        async with stage(stt=engine) as here:
            for path in ("transcriptions", "translations"):
                form = aiohttp.FormData({"language": "it", "prompt": "Ciao"})
                form.add_field("file", SPOKEN, filename="a.wav")
                status, _ = await here.post(f"/audio/{path}", data=form)
                assert status == 503

    idle_clock.run(main())
    assert engine.asked == [("it", "Ciao")] * 2


class EnglishListener(Listener):
    capabilities = Capabilities(languages=("en",))


def test_language_that_the_recogniser_does_not_know_is_refused_with_the_remedy() -> None:
    engine = EnglishListener(EngineError("enough"))

    async def main() -> Any:
        async with stage(stt=engine) as here:
            form = aiohttp.FormData({"language": "de"})
            form.add_field("file", SPOKEN, filename="a.wav")
            return await here.post("/audio/transcriptions", data=form)

    status, body = idle_clock.run(main())
    error = body["error"]
    assert (status, error["param"], error["code"]) == (400, "language", "unsupported_language")
    assert "does not know the language 'de', but 'en'; leave `language` out" in error["message"]
    assert engine.asked == []


class Interpreter(ScriptedSTT):
    """Says another text when it is asked for English."""

    def for_translation(self) -> Self:
        return type(self)(STTScript(transcripts=("good day",)))


def test_translation_is_made_by_an_engine_that_translates() -> None:
    async def main() -> tuple[str, str]:
        async with stage(stt=Interpreter(STTScript(transcripts=("guten Tag",)))) as here:
            _, transcript = await here.transcribe(SPOKEN)
            english = await here.client.audio.translations.create(
                model="whisper-1", file=("a.wav", SPOKEN)
            )
            return transcript["text"], english.text

    with pytest.warns(DeprecationWarning, match="deprecated"):  # the client's own
        assert idle_clock.run(main()) == ("guten Tag", "good day")


def test_translation_names_english_as_its_language() -> None:
    async def main() -> Any:
        async with stage(stt=WORDS) as here:
            return await here.client.audio.translations.create(
                file=("a.wav", SPOKEN),
                model="whisper-1",
                response_format="verbose_json",
                extra_body={"language": "de"},
            )

    with pytest.warns(DeprecationWarning, match="deprecated"):  # the client's own
        got = idle_clock.run(main())
    assert (got.language, got.text) == ("english", "one two three")
    assert got.to_dict()["task"] == "translate"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": "mp3"}, "response_format"),
        ({"temperature": "2"}, "temperature"),
        ({"timestamp_granularities[]": "sentence"}, "timestamp_granularities[0]"),
        ({"stream": "perhaps"}, "stream"),
    ],
)
def test_invalid_field_is_named_in_the_error(fields: dict[str, str], param: str) -> None:
    async def main() -> tuple[int, Any]:
        async with stage() as here:
            return await here.transcribe(SPOKEN, **fields)

    status, body = idle_clock.run(main())
    assert (status, body["error"]["param"]) == (400, param)


def test_engine_failure_is_503_with_retry_after() -> None:
    async def main() -> openai.APIStatusError:
        async with stage(stt={"transcripts": [{"error": "it broke"}]}) as here:
            with pytest.raises(openai.InternalServerError) as caught:
                await here.client.audio.transcriptions.create(
                    file=("a.wav", SPOKEN), model="whisper-1"
                )
            return caught.value

    error = idle_clock.run(main())
    assert refused(error) == (503, None, "engine_error")
    assert error.response.headers["Retry-After"] == "5"
    assert "it broke" in error.message


def test_failure_after_the_first_words_is_the_last_event() -> None:
    async def main() -> tuple[Any, str]:
        async with stage(stt={"transcripts": ["one", {"error": "it broke"}]}) as here:
            stream = await here.client.audio.transcriptions.create(
                file=("a.wav", TWICE), model="whisper-1", stream=True
            )
            first = await anext(stream)
            with pytest.raises(openai.APIError) as caught:
                await anext(stream)
            return first.to_dict(), caught.value.message

    assert idle_clock.run(main()) == ({"type": "transcript.text.delta", "delta": "one"}, "it broke")


def test_engine_that_stalls_is_an_error() -> None:
    async def main() -> tuple[int, Any]:
        async with stage(stt=Listener(), stall_timeout_s=0.01) as here:
            return await here.transcribe(SPOKEN)

    status, body = idle_clock.run(main())
    assert status == 503
    assert body["error"]["message"] == "speech recognition gave nothing for 0.01 s"


def test_client_disconnect_stops_the_engine() -> None:
    engine = Listener("some words")

    async def main() -> None:
        async with stage(stt=engine) as here:
            stream = await here.client.audio.transcriptions.create(
                file=("a.wav", SPOKEN), model="whisper-1", stream=True
            )
            async for event in stream:
                assert event.to_dict()["delta"] == "some words"
                break
            await stream.close()
            async with asyncio.timeout(60):
                await engine.closed.wait()

    idle_clock.run(main())


def test_recordings_share_the_slots_of_the_engine() -> None:
    most, now = 0, 0
    full = asyncio.Event()

    class Counting(Listener):
        async def transcribe(
            self, audio: AsyncIterator[bytes], *, language: str | None, prompt: str
        ) -> AsyncGenerator[Transcript]:
            nonlocal most, now
            now += 1
            most = max(most, now)
            if now == 3:
                full.set()
            try:
                await full.wait()
                async for _ in audio:
                    pass
                yield Transcript("word", 4, final=True)
            finally:
                now -= 1

    async def one(here: Stage) -> str:
        _, body = await here.transcribe(wav_of((tone(0.5) + quiet(1.5)) * 4))
        return str(body["text"])

    async def main() -> list[str]:
        async with stage(stt=Counting(), max_passages=3) as here:
            return await asyncio.gather(*(one(here) for _ in range(4)))

    assert idle_clock.run(main()) == ["word word word word"] * 4
    assert most == 3
