"""`vivavoce demo`, and the server that it starts."""

import asyncio
import os
from importlib.util import find_spec
from io import StringIO
from pathlib import Path

import aiohttp
import msgspec
import pytest
from rich.console import Console

from tests.talk.scripted_server import heard, silence, tone, word
from vivavoce.engines.scripted.engines import ScriptedTTS
from vivavoce.errors import SettingsError
from vivavoce.limits.keys import hash_of
from vivavoce.media import files
from vivavoce.talk.client import Event
from vivavoce.talk.demo import demo, missing_parts, speak_question, start_server
from vivavoce.talk.options import DemoOptions, Timeouts
from vivavoce.talk.turn import Turn, speech_end_ms

NO_WORDS, NO_ANSWER, NO_SPEECH = (
    "no transcript of the question came",
    "no answer came",
    "the reply has no speech in it",
)


def test_speak_question_begins_with_silence() -> None:
    async def main() -> bytes:
        async with ScriptedTTS(msgspec.convert({}, ScriptedTTS.Settings)) as tts:
            return await speak_question("one two three", tts)

    pcm = asyncio.run(main())
    assert pcm.startswith(silence(290))
    assert (speech_end_ms(pcm) or 0) > 300


@pytest.mark.parametrize(
    ("user", "answer", "reply", "missing"),
    [
        ("hello", "Hi.", tone(100), []),
        ("", "Hi.", tone(100), [NO_WORDS]),
        ("hello", "", tone(100), [NO_ANSWER]),
        ("hello", "Hi.", silence(100), [NO_SPEECH]),
        ("hello", "Hi.", tone(100, 30), [NO_SPEECH]),
        ("", "", b"", [NO_WORDS, NO_ANSWER, NO_SPEECH]),
    ],
)
def test_missing_parts_are_transcript_answer_and_audible_speech(
    user: str, answer: str, reply: bytes, missing: list[str]
) -> None:
    turn = Turn("spoken", 0.0)
    turn.feed(Event(heard(user)), 0.1)
    turn.feed(Event(word(answer)), 0.2)
    assert missing_parts([turn], reply) == missing


def test_demo_with_a_server_that_does_not_start_returns_2_and_writes_no_file(
    tmp_path: Path,
) -> None:
    if find_spec("espeakng_loader") is None:
        pytest.skip("the embedded engines are not installed")
    page, wav = StringIO(), tmp_path / "reply.wav"
    options = DemoOptions(save=wav, config=tmp_path / "lacking.toml")
    assert demo(options, Console(file=page, width=120)) == 2
    assert "ended with status 2 before it was ready" in page.getvalue()
    assert not wav.exists()


def test_demo_with_keys_and_tls_in_the_settings_is_answered_by_embedded_engines(
    tmp_path: Path,
) -> None:
    if find_spec("espeakng_loader") is None or find_spec("pocketsphinx") is None:
        pytest.skip("the embedded engines are not installed")
    config = tmp_path / "vivavoce.toml"
    config.write_text(
        f'[models.default]\nllm = "builtin"\nstt = "pocketsphinx"\ntts = "espeak"\n'
        f'[keys]\nme = "{hash_of("nobody")}"\n'
        f'[server]\ntls_certificate = "c.pem"\ntls_key = "k.pem"\n'
    )
    page, wav = StringIO(), tmp_path / "reply.wav"
    options = DemoOptions(save=wav, config=config)
    assert demo(options, Console(file=page, width=200)) == 0, page.getvalue()
    assert "you: what can you do\n" in page.getvalue()
    assert len(files.read(wav)) > 48_000


def test_start_server_is_ready_inside_the_block_and_gone_after_it() -> None:
    async def main() -> str:
        async with start_server(["--log-level", "warning"], Timeouts()) as server:
            ready = server.url.replace("ws://", "http://").replace("/v1/realtime", "/ready")
            async with aiohttp.ClientSession() as http, http.get(ready) as response:
                assert response.status == 200
            assert "listens at" in server.output()
        return ready

    ready = asyncio.run(main())

    async def again() -> None:
        async with aiohttp.ClientSession() as http:
            await http.get(ready)

    with pytest.raises(aiohttp.ClientConnectorError):
        asyncio.run(again())


def test_start_server_that_exits_raises_with_its_output() -> None:
    async def main() -> None:
        async with start_server(["--config", os.devnull + "/no"], Timeouts()):
            raise AssertionError("it started")

    with pytest.raises(SettingsError, match=r"ended with status 2 before it was ready; it printed"):
        asyncio.run(main())


def test_start_server_that_is_not_ready_in_time_raises() -> None:
    async def main() -> None:
        async with start_server([], Timeouts(start=0.0)):
            raise AssertionError("it started")

    with pytest.raises(SettingsError, match="the server was not ready after 0 s"):
        asyncio.run(main())
