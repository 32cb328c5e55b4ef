"""Analyses of recordings, before scripted engines: a voice is the pitch of a tone."""

from base64 import b64encode
from typing import Any

import aiohttp
import pytest

from tests import idle_clock
from tests.api.audio_stage import quiet, stage, tone
from tests.api.routes_stage import wav_of
from vivavoce.engines.scripted.scripts import SpeakerScript

EMBEDDING, DIARIZATION = "/audio/speech/embedding", "/audio/diarization"
LOW, HIGH = 250.0, 650.0
TALK = wav_of(tone(2.0, LOW) + quiet(0.6) + tone(2.0, HIGH) + quiet(0.6) + tone(2.0, LOW))
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
    found = idle_clock.run(
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
    ((status, found),) = idle_clock.run(answers(TIMESTAMPS, form(wav_of(sound or bytes(2)))))
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
    ((status, body),) = idle_clock.run(answers(TIMESTAMPS, form(file, **fields)))
    assert status == 400
    assert (body["error"]["param"], body["error"]["code"]) == (param, code)


def test_recording_beyond_the_limits_is_refused() -> None:
    ((large, _),) = idle_clock.run(answers(TIMESTAMPS, form(TWICE), max_bytes=1000))
    ((long, body),) = idle_clock.run(answers(TIMESTAMPS, form(TWICE), max_seconds=1.0))
    assert (large, long) == (413, 400)
    assert body["error"]["message"] == "The file lasts longer than 1 s."


def reference(sound: bytes) -> str:
    return f"data:audio/wav;base64,{b64encode(wav_of(sound)).decode()}"


def test_embedding_has_the_shape_of_text_embeddings() -> None:
    low = wav_of(tone(1.5, LOW) + quiet(1.0) + tone(0.5, LOW))
    ((status, body),) = idle_clock.run(answers(EMBEDDING, form(low, model="any")))
    assert status == 200
    assert (body["object"], body["model"]) == ("list", "scripted")
    (made,) = body["data"]
    assert (made["object"], made["index"]) == ("embedding", 0)
    assert [i for i, value in enumerate(made["embedding"]) if value > 0.5] == [2]
    assert body["usage"] == {"prompt_tokens": 30, "total_tokens": 30}


def test_diarization_labels_the_turns_of_each_speaker() -> None:
    json, rttm, named = idle_clock.run(diarized())
    assert [segment["speaker"] for segment in json["segments"]] == ["A", "B", "A"]
    assert json["duration"] == pytest.approx(7.2)
    edges = [edge for segment in json["segments"] for edge in (segment["start"], segment["end"])]
    assert edges == pytest.approx([0.0, 2.0, 2.6, 4.6, 5.2, 7.2], abs=0.15)
    assert [line.split()[7] for line in rttm.splitlines()] == ["A", "B", "A"]
    assert rttm.startswith("SPEAKER a 1 0.000 2.")
    assert [segment["speaker"] for segment in named["segments"]] == ["A", "Ada Byron", "A"]


async def diarized() -> tuple[Any, str, Any]:
    async with stage() as here:
        status, json = await here.post(DIARIZATION, data=form(TALK))
        assert status == 200
        lines = form(TALK, response_format="rttm")
        async with here.http.post(f"{here.base}{DIARIZATION}", data=lines) as response:
            rttm = await response.text()
        known = form(TALK)
        known.add_field("known_speaker_names[]", "Ada Byron")
        known.add_field("known_speaker_references[]", reference(tone(2.0, HIGH)))
        return json, rttm, (await here.post(DIARIZATION, data=known))[1]


def test_change_of_speaker_without_a_pause_is_found() -> None:
    talk = wav_of(tone(3.0, LOW) + tone(3.0, HIGH))
    ((_, body),) = idle_clock.run(answers(DIARIZATION, form(talk)))
    low, high = body["segments"]
    assert (low["speaker"], high["speaker"]) == ("A", "B")
    assert low["end"] == high["start"] == pytest.approx(3.0, abs=0.5)


def test_diarization_of_silence_has_no_segments() -> None:
    ((status, body),) = idle_clock.run(answers(DIARIZATION, form(wav_of(quiet(2)))))
    assert (status, body) == (200, {"duration": 2.0, "segments": []})


@pytest.mark.parametrize("path", [EMBEDDING, DIARIZATION])
@pytest.mark.parametrize(
    ("file", "fields", "param", "code"),
    [
        (TALK, {"pad": "1"}, "pad", "unknown_parameter"),
        (b"", {}, "file", "invalid_audio"),
        (b"these bytes are no sound at all", {}, "file", "invalid_audio"),
    ],
)
def test_analysis_request_that_is_invalid_is_400(
    path: str, file: bytes, fields: dict[str, str], param: str, code: str
) -> None:
    ((status, body),) = idle_clock.run(answers(path, form(file, **fields)))
    assert status == 400
    assert (body["error"]["param"], body["error"]["code"]) == (param, code)


def test_embedding_of_silence_is_refused_and_of_one_sample_is_none() -> None:
    (quiet_one, one) = idle_clock.run(
        answers(EMBEDDING, form(wav_of(quiet(2))), form(wav_of(bytes(2))))
    )
    for status, body in (quiet_one, one):
        assert (status, body["error"]["message"]) == (400, "There is no speech in the file.")


@pytest.mark.parametrize(
    ("references", "param", "message"),
    [
        ([], "known_speaker_references", "There are 1 names of speakers and 0 references"),
        (["a.wav"], "known_speaker_references[0]", "expected a data URL"),
        (["data:audio/wav;base64,?"], "known_speaker_references[0]", "not valid base64"),
        (["data:text/plain,hello"], "known_speaker_references[0]", "is not an audio file"),
        ([reference(quiet(1))], "known_speaker_references[0]", "There is no speech in"),
    ],
)
def test_reference_that_cannot_be_used_is_named(
    references: list[str], param: str, message: str
) -> None:
    async def main() -> tuple[int, Any]:
        asked = form(TALK)
        asked.add_field("known_speaker_names[]", "Ada")
        for each in references:
            asked.add_field("known_speaker_references[]", each)
        return (await answers(DIARIZATION, asked))[0]

    status, body = idle_clock.run(main())
    assert (status, body["error"]["param"]) == (400, param)
    assert message in body["error"]["message"]


@pytest.mark.parametrize("path", [EMBEDDING, DIARIZATION])
def test_server_without_a_speaker_model_says_how_to_install_one(path: str) -> None:
    ((status, body),) = idle_clock.run(answers(path, form(TALK), speaker=None))
    assert (status, body["error"]["code"]) == (400, "unsupported")
    assert "vivavoce models pull resemblyzer" in body["error"]["message"]


def test_speaker_model_that_fails_is_503() -> None:
    failing = SpeakerScript(error="out of order")
    ((status, body),) = idle_clock.run(answers(DIARIZATION, form(TALK), speaker=failing))
    assert status == 503
    assert "out of order" in body["error"]["message"]
