"""Recordings that cannot be used: which one, and why."""

import zipfile
from base64 import b64encode
from io import BytesIO
from typing import Any

import pytest

from tests import idle_clock
from tests.api.chat.stage import recording, scripted, stage, user, wav
from vivavoce.protocol.bounds import MAX_DEPTH


def _zip() -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as out:
        out.writestr("x.wav", wav())
    return file.getvalue()


def _part(data: str) -> Any:
    return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (_part("this is no base64!"), "not valid base64"),
        (_part("AAA"), "not valid base64"),
        (_part("AAA=AAAA"), "not valid base64"),
        (_part(" "), "is empty"),
        (recording(b"nothing that anyone knows"), "not an audio file"),
        (recording(_zip()), "zip archive"),
        (recording(wav(seconds=0)), "no audio in it"),
        (recording(wav(level=0)), "silent"),
        (recording(b"", "pcm16"), "has no data"),
    ],
)
def test_unusable_recording_is_named_in_the_error(part: Any, reason: str) -> None:
    async def main() -> None:
        async with stage(scripted()) as here:
            good = recording()
            status, param, message = await here.refusal(messages=[user(good), user(good, part)])
            assert (status, param) == (400, "messages[1].content[1].input_audio.data")
            assert reason in message
            assert message[0].isupper()

    idle_clock.run(main())


def test_recording_without_speech_is_refused() -> None:
    async def main() -> None:
        async with stage(scripted(), stt={"transcripts": [""]}) as here:
            status, param, message = await here.refusal(messages=[user(recording())])
            assert (status, param) == (400, "messages[0].content[0].input_audio.data")
            assert message == "No speech was found in the recording."

    idle_clock.run(main())


def test_container_is_found_in_the_bytes_and_raw_samples_need_pcm16() -> None:
    async def main() -> None:
        async with stage(scripted("Yes.")) as here:
            pcm = wav(seconds=0.5)[44:]
            uri = f"data:audio/wav;base64,{b64encode(wav(seconds=0.5)).decode()}"
            for part in (recording(wav(seconds=0.5), "mp3"), recording(pcm, "pcm16"), _part(uri)):
                done = await here.client.chat.completions.create(
                    model="default", messages=[user(part)]
                )
                assert done.choices[0].message.content == "Yes."
            assert here.stt.heard == [8000, 8000, 8000]

    idle_clock.run(main())


def test_recogniser_failure_is_503() -> None:
    async def main() -> None:
        failing = {"text": "", "error": "the recogniser is gone"}
        async with stage(scripted(), stt={"transcripts": [failing]}) as here:
            status, _, message = await here.refusal(messages=[user(recording())])
            assert (status, message) == (503, "the recogniser is gone")

    idle_clock.run(main())


@pytest.mark.parametrize("levels", [MAX_DEPTH + 2, 5_000, 200_000], ids=str)
def test_request_nested_too_deeply_is_refused(levels: int) -> None:
    nested = b"[" * levels + b"]" * levels

    async def main() -> None:
        async with stage(scripted()) as here:
            status, body = await here.post(b'{"model": "default", "messages": ' + nested + b"}")
            assert status == 400
            assert body["error"]["message"] == (
                f"The body of the request is nested too deeply. At most {MAX_DEPTH} levels are "
                "accepted."
            )

    idle_clock.run(main())
