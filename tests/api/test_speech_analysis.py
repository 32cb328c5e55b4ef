"""Analyses of recordings, before scripted engines."""

import asyncio
from typing import Any

import aiohttp
import pytest

from tests.api.audio_stage import quiet, stage, tone
from tests.api.routes_stage import wav_of

TIMESTAMPS = "/audio/speech/timestamps"
TWICE = wav_of(quiet(0.64) + tone(0.96) + quiet(0.64) + tone(0.96) + quiet(0.32))


def form(file: bytes, **fields: str) -> aiohttp.FormData:
    made = aiohttp.FormData(fields)
    made.add_field("file", file, filename="a.wav", content_type="audio/wav")
    return made


async def answers(path: str, *forms: aiohttp.FormData, **options: Any) -> list[tuple[int, Any]]:
    async with stage(**options) as here:
        return [await here.post(path, data=each) for each in forms]


def test_timestamps_are_those_of_the_speech() -> None:
    found = asyncio.run(
        answers(
            TIMESTAMPS,
            form(TWICE, min_silence_duration_ms="300"),
            form(TWICE, model="silero_vad_v5"),
            form(TWICE, min_silence_duration_ms="300", speech_pad_ms="100"),
            form(TWICE, min_silence_duration_ms="300", max_speech_duration_s="0.5"),
            form(TWICE, min_silence_duration_ms="300", min_speech_duration_ms="1000"),
        )
    )
    assert [status for status, _ in found] == [200] * 5
    two, one, padded, short, none = (body for _, body in found)
    assert two == [{"start": 640, "end": 1632}, {"start": 2240, "end": 3232}]
    assert one == [{"start": 640, "end": 3232}]
    assert padded == [{"start": 540, "end": 1732}, {"start": 2140, "end": 3332}]
    assert [each["end"] - each["start"] for each in short] == [480, 480, 32] * 2
    assert none == []


@pytest.mark.parametrize("sound", [quiet(2), quiet(0.0001), tone(0.001)])
def test_timestamps_of_silence_or_one_sample_are_few(sound: bytes) -> None:
    ((status, found),) = asyncio.run(answers(TIMESTAMPS, form(wav_of(sound or bytes(2)))))
    assert status == 200
    assert len(found) <= 1


@pytest.mark.parametrize(
    ("file", "fields", "param", "code"),
    [
        (TWICE, {"threshold": "2"}, "threshold", "invalid_value"),
        (TWICE, {"max_speech_duration_s": "-1"}, "max_speech_duration_s", "invalid_value"),
        (TWICE, {"pad": "1"}, "pad", "unknown_parameter"),
        (b"", {}, "file", "invalid_audio"),
        (b"these bytes are no sound at all", {}, "file", "invalid_audio"),
    ],
)
def test_timestamps_request_that_is_invalid_is_400(
    file: bytes, fields: dict[str, str], param: str, code: str
) -> None:
    ((status, body),) = asyncio.run(answers(TIMESTAMPS, form(file, **fields)))
    assert status == 400
    assert (body["error"]["param"], body["error"]["code"]) == (param, code)


def test_recording_beyond_the_limits_is_refused() -> None:
    ((large, _),) = asyncio.run(answers(TIMESTAMPS, form(TWICE), max_bytes=1000))
    ((long, body),) = asyncio.run(answers(TIMESTAMPS, form(TWICE), max_seconds=1.0))
    assert (large, long) == (413, 400)
    assert body["error"]["message"] == "The file lasts longer than 1 s."
