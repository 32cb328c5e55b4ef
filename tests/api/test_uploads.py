"""Uploads that are wrong or hostile are refused with a reason, and leave nothing behind."""

import asyncio
import errno
import os
import struct
import tempfile
import zipfile
import zlib
from base64 import b64encode
from collections.abc import AsyncGenerator, AsyncIterator
from io import BytesIO
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any

import aiohttp
import openai
import pytest

from tests import idle_clock
from tests.api.audio_stage import Stage, quiet, stage, tone
from tests.api.routes_stage import wav_of
from tests.media.sound import container
from vivavoce.api import uploads
from vivavoce.api.uploads import MAX_FIELD_BYTES, Form, raw_audio
from vivavoce.engines.base import Transcript
from vivavoce.engines.scripted.engines import ScriptedSTT
from vivavoce.engines.scripted.scripts import STTScript
from vivavoce.errors import InvalidRequest
from vivavoce.media.decoding import Raw

SPOKEN = wav_of(tone(1.0))
linux = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="looks into /proc")
KIND = {"Content-Type": "multipart/form-data; boundary=xyz"}


WRONG = (
    *("empty", "zeros", "a letter", "an m4a cut off", "a head alone"),
    *("no samples", "a zip", "compressed zeros", "half a head"),
)


def a_zip() -> bytes:
    made = BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        file.writestr("speech.wav", SPOKEN)
    return made.getvalue()


def a_claim_of_two_gigabytes() -> bytes:
    head = bytearray(wav_of(tone(0.02)))
    struct.pack_into("<I", head, 40, 2_000_000_000)
    return bytes(head)


def form(*parts: tuple[str, bytes], end: bytes = b"--xyz--\r\n") -> bytes:
    lines = [
        f'--xyz\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + value + b"\r\n"
        for name, value in parts
    ]
    return b"".join(lines) + end


def open_files() -> set[str]:
    """Files without a name that this process holds open."""
    links = (path.readlink() for path in Path("/proc/self/fd").iterdir() if path.is_symlink())
    return {str(link) for link in links if str(link).startswith(tempfile.gettempdir())}


async def refusal(here: Stage, file: bytes) -> tuple[int, str | None, str | None, str]:
    status, body = await here.transcribe(file)
    error = body["error"]
    return status, error["param"], error["code"], error["message"]


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (b"", "The file is empty."),
        (b"\0" * 5000, "The file is not an audio file that can be read: Invalid data"),
        (b"Dear Sir or Madam, " * 100, "The file is not an audio file that can be read: "),
        (container("mp4", "aac", tone(1.0))[:3000], "The file is not an audio file"),
        (SPOKEN[:44], "The file has no audio in it."),
        (wav_of(b""), "The file has no audio in it."),
        (a_zip(), "The file is not an audio file that can be read: it is a zip archive."),
        (zlib.compress(bytes(1 << 20)), "The file is not an audio file"),
        (b"RIFF" + b"\xff" * 40, "The file is not an audio file"),
    ],
    ids=WRONG,
)
def test_unreadable_file_is_refused_with_the_reason(file: bytes, reason: str) -> None:
    async def main() -> tuple[int, str | None, str | None, str]:
        async with stage() as here:
            return await refusal(here, file)

    status, param, code, message = idle_clock.run(main())
    assert (status, param, code) == (400, "file", "invalid_audio")
    assert message.startswith(reason)


def test_playlist_opens_neither_file_nor_address(tmp_path: Path) -> None:
    secret = tmp_path / "secret.wav"
    secret.write_bytes(SPOKEN)
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.close()

    async def main() -> list[tuple[int, str | None, str | None, str]]:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, stage() as here:
            refusals = []
            for target in (secret.as_uri(), str(secret), f"http://127.0.0.1:{port}/a.ts"):
                for playlist in (
                    f"#EXTM3U\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n",
                    f"ffconcat version 1.0\nfile '{target}'\n",
                    f"[playlist]\nFile1={target}\nNumberOfEntries=1\n",
                    f"v=0\nc=IN IP4 127.0.0.1\nm=audio {port} RTP/AVP 0\n",
                    f'<?xml version="1.0"?><MPD><BaseURL>{target}</BaseURL></MPD>',
                ):
                    refusals.append(await refusal(here, playlist.encode()))
            return refusals

    refusals = idle_clock.run(main())
    assert {refusal[:3] for refusal in refusals} == {(400, "file", "invalid_audio")}
    assert asked == []


def test_hours_of_silence_in_few_bytes_are_refused() -> None:
    bomb = container("flac", "flac", quiet(30.0))
    assert len(bomb) < 20_000

    async def main() -> Any:
        async with stage(max_seconds=10.0) as here:
            return await refusal(here, bomb)

    assert idle_clock.run(main()) == (
        400,
        "file",
        "invalid_audio",
        "The file lasts longer than 10 s.",
    )


def test_file_above_the_limit_is_413_with_or_without_a_length() -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield form(("file", b""), end=b"").removesuffix(b"\r\n")
        while True:
            yield bytes(1 << 16)

    async def main() -> list[tuple[int, Any]]:
        async with stage(max_bytes=200_000) as here:
            return [
                await here.transcribe(wav_of(tone(4.0)) + bytes(10_000)),
                await here.transcribe(bytes(10_000_000)),
                await here.post(data=endless(), headers=KIND),
                await here.post(
                    data=BytesIO(form(("prompt", bytes(MAX_FIELD_BYTES + 1_000_000)))), headers=KIND
                ),
            ]

    answers = idle_clock.run(main())
    assert [status for status, _ in answers] == [413] * 4
    assert {body["error"]["code"] for _, body in answers} == {"request_too_large"}


def test_file_as_large_as_the_limit_is_accepted() -> None:
    file = wav_of(tone(4.0))

    async def main() -> tuple[int, Any]:
        async with stage(max_bytes=len(file)) as here:
            return await here.transcribe(file)

    assert idle_clock.run(main())[0] == 200


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_multipart"),
        (b"no form at all", "invalid_multipart"),
        (b"--xyz\r\n", "invalid_multipart"),
        (form(("file", SPOKEN), end=b""), "invalid_multipart"),
        (form(("model", b"m")), "missing_required_parameter"),
        (form(("file", SPOKEN), ("file", SPOKEN)), None),
        (form(*[("x", b"y")] * 200), "invalid_multipart"),
        (form(("file", SPOKEN), ("prompt", b"\xff")), None),
        (form(("file", SPOKEN)).replace(b"form-data", b"\x01"), None),
        (
            b"--xyz\r\nContent-Type: multipart/mixed; boundary=abc\r\n\r\n--abc--\r\n--xyz--\r\n",
            "invalid_multipart",
        ),
    ],
)
def test_body_that_is_not_a_form_is_refused(body: bytes, code: str | None) -> None:
    async def main() -> tuple[int, Any]:
        async with stage() as here:
            return await here.post(data=body, headers=KIND)

    status, answer = idle_clock.run(main())
    assert status == 400
    assert code is None or answer["error"]["code"] == code


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "multipart/mixed; boundary=x"])
def test_body_of_another_type_is_415(kind: str) -> None:
    async def main() -> tuple[int, Any]:
        async with stage() as here:
            return await here.post(data=b"{}", headers={"Content-Type": kind})

    status, body = idle_clock.run(main())
    assert status == 415
    assert "multipart/form-data" in body["error"]["message"]


def test_form_without_a_boundary_is_refused() -> None:
    async def main() -> tuple[int, Any]:
        async with stage() as here:
            return await here.post(data=b"x", headers={"Content-Type": "multipart/form-data"})

    status, body = idle_clock.run(main())
    assert (status, body["error"]["code"]) == (400, "invalid_multipart")


def test_base64_part_is_decoded() -> None:
    async def main() -> tuple[int, Any]:
        async with stage() as here:
            with aiohttp.MultipartWriter("form-data") as writer:
                part = writer.append(b64encode(SPOKEN))
                part.headers["Content-Transfer-Encoding"] = "base64"
                part.set_content_disposition("form-data", name="file", filename="a.wav")
            return await here.post(data=writer)

    status, body = idle_clock.run(main())
    assert (status, body["text"]) == (200, "hello")


@linux
def test_upload_leaves_nothing_on_disk_or_open() -> None:
    large = wav_of(tone(40.0))  # beyond what is kept in memory

    async def main() -> None:
        before = open_files()
        async with stage() as here:
            assert (await here.transcribe(large))[0] == 200
            assert (await here.transcribe(large[:30]))[0] == 400
            assert (await here.transcribe(large, temperature="9"))[0] == 400
            stream = await here.client.audio.transcriptions.create(
                file=("a.wav", large), model="whisper-1", stream=True
            )
            await anext(stream)
            await stream.close()
        assert open_files() == before

    idle_clock.run(main())


@linux
def test_large_upload_is_kept_in_a_nameless_file() -> None:
    while_heard: list[set[str]] = []

    class Looking(ScriptedSTT):
        async def transcribe(
            self, audio: AsyncIterator[bytes], *, language: str | None, prompt: str
        ) -> AsyncGenerator[Transcript]:
            while_heard.append(open_files())
            async for _ in audio:
                pass
            yield Transcript("", final=True)

    async def main() -> None:
        async with stage(stt=Looking(STTScript())) as here:
            assert (await here.transcribe(wav_of(tone(10.0))))[0] == 200
            assert (await here.transcribe(wav_of(tone(25.0))))[0] == 200

    idle_clock.run(main())
    in_memory, on_disk = while_heard
    assert len(on_disk - in_memory) == 1
    assert (on_disk - in_memory).pop().endswith("(deleted)")


def test_official_client_shows_the_reason() -> None:
    async def main() -> openai.BadRequestError:
        async with stage() as here:
            with pytest.raises(openai.BadRequestError) as caught:
                await here.client.audio.transcriptions.create(
                    file=("speech.wav", a_zip()), model="whisper-1"
                )
            return caught.value

    error = idle_clock.run(main())
    assert (error.param, error.code) == ("file", "invalid_audio")
    assert "it is a zip archive" in error.message


@pytest.mark.parametrize(
    ("content_type", "name", "raw"),
    [
        ("audio/pcm", "", Raw("audio/pcm", 24_000)),
        ("audio/pcm; rate=8000", "", Raw("audio/pcm", 8_000)),
        ("AUDIO/PCM;RATE=16000;channels=1", "", Raw("audio/pcm", 16_000)),
        ("audio/x-raw", "", Raw("audio/pcm", 24_000)),
        ("audio/pcma", "", Raw("audio/pcma", 24_000)),
        ("", "a.b.PCM", Raw("audio/pcm", 24_000)),
        ("application/octet-stream", "call.ulaw", Raw("audio/pcmu", 24_000)),
        ("audio/wav", "call.wav", None),
        ("", "", None),
        ("", "pcm.wav", None),
    ],
)
def test_raw_samples_are_read_as_declared(content_type: str, name: str, raw: Raw | None) -> None:
    assert raw_audio(Form(BytesIO(), 16, name, content_type, bytes(16))) == raw


@pytest.mark.parametrize(
    "start", [b"RIFF\0\0\0\0WAVE", b"OggS", b"fLaC", b"\0\0\0\x20ftypM4A ", b"PK\x03\x04"]
)
def test_file_with_a_known_head_is_not_raw_samples(start: bytes) -> None:
    assert raw_audio(Form(BytesIO(), 16, "call.pcm", "audio/pcm", start)) is None


def upload(*fields: tuple[str, str | None, bytes]) -> bytes:
    """A form of these fields: name, file name, value."""
    body = b""
    for name, filename, value in fields:
        place = f'form-data; name="{name}"' + (f'; filename="{filename}"' if filename else "")
        body += f"--xyz\r\nContent-Disposition: {place}\r\n\r\n".encode() + value + b"\r\n"
    return body + b"--xyz--\r\n"


def test_wav_that_ends_early_or_claims_gigabytes_is_transcribed_as_far_as_it_goes() -> None:
    async def main() -> list[int]:
        async with stage() as here:
            files = (SPOKEN[:30_000], a_claim_of_two_gigabytes())
            return [(await here.transcribe(file))[0] for file in files]

    assert idle_clock.run(main()) == [200, 200]


def test_recordings_beyond_the_bounds_are_refused_with_503() -> None:
    async def main() -> list[int]:
        async with stage(
            stt={"transcripts": [{"text": "one", "delay_seconds": 0.2}] * 9},
            max_files=1,
            max_waiting_files=1,
        ) as here:
            answers = await asyncio.gather(*(here.transcribe(SPOKEN) for _ in range(5)))
            return [status for status, _ in answers]

    assert sorted(idle_clock.run(main())) == [200, 200, 503, 503, 503]


@pytest.mark.parametrize(
    "rate", ["1", "3999", "192001", "999999", "NaN", "-8000", "", "16000.5", "\uff11\uff16"]
)
def test_raw_samples_of_an_impossible_rate_are_refused(rate: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        raw_audio(Form(BytesIO(), 16, "", f"audio/pcm;rate={rate}", bytes(16)))
    assert refused.value.param == "file"


@pytest.mark.parametrize("size", [2_000, 2_000_000])
@pytest.mark.parametrize(
    ("field", "filename"), [("audio", "a.wav"), ("audio_file", None), ("files[]", "a.wav")]
)
def test_file_in_another_field_is_named_as_missing(
    field: str, filename: str | None, size: int
) -> None:
    async def main() -> tuple[int, Any]:
        async with stage() as here:
            data = wav_of(tone(1))[:44] + b"\xff" * size
            return await here.post(data=BytesIO(upload((field, filename, data))), headers=KIND)

    status, body = idle_clock.run(main())
    name = field.removesuffix("[]")
    assert (status, body["error"]["param"]) == (400, "file")
    assert body["error"]["code"] == "missing_required_parameter"
    assert body["error"]["message"] == (
        f"Missing required parameter: 'file'. A file was sent in the field '{name}'."
    )


@pytest.mark.parametrize(
    ("value", "status", "param"),
    [(b"\xff", 400, "prompt"), (b"a" * (MAX_FIELD_BYTES + 100_000), 413, None)],
)
def test_unreadable_field_beside_a_file_is_refused(
    value: bytes, status: int, param: str | None
) -> None:
    async def main() -> tuple[int, Any]:
        async with stage() as here:
            form = BytesIO(upload(("prompt", None, value), ("file", "a.wav", wav_of(tone(1)))))
            return await here.post(data=form, headers=KIND)

    answered, body = idle_clock.run(main())
    assert (answered, body["error"]["param"]) == (status, param)


@pytest.mark.parametrize(("number", "status"), [(errno.ENOSPC, 507), (errno.EMFILE, 503)])
def test_upload_that_cannot_be_stored_is_507_or_503(
    monkeypatch: pytest.MonkeyPatch, number: int, status: int
) -> None:
    class Full(SpooledTemporaryFile[bytes]):
        def write(self, data: Any) -> int:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(uploads, "SpooledTemporaryFile", Full)
    monkeypatch.setattr(uploads.log, "error", lambda *_: None)

    async def main() -> tuple[int, Any]:
        async with stage() as here:
            return await here.transcribe(wav_of(tone(1)))

    answered, body = idle_clock.run(main())
    assert (answered, body["error"]["type"]) == (status, "server_error")


def test_body_with_wrong_content_encoding_is_refused() -> None:
    async def main() -> tuple[int, Any]:
        async with stage() as here:
            headers = {
                "Content-Encoding": "gzip",
                "Content-Type": "multipart/form-data; boundary=b",
            }
            return await here.post(data=b"this is not gzip", headers=headers)

    status, body = idle_clock.run(main())
    assert (status, body["error"]["type"]) == (400, "invalid_request_error")
