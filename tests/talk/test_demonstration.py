import asyncio
from importlib.util import find_spec
from io import StringIO
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from tests.talk.stage import heard, silence, tone, word
from vivavoce.engines.scripted.engines import ScriptedTTS
from vivavoce.limits.keys import hash_of
from vivavoce.media import files
from vivavoce.talk import DemoOptions, demo
from vivavoce.talk.demonstration import spoken, verdict
from vivavoce.talk.events import Event
from vivavoce.talk.loudness import speech_end_ms
from vivavoce.talk.turn import Turn

NO_WORDS, NO_ANSWER, NO_SPEECH = (
    "no transcript of the question came",
    "no answer came",
    "the reply has no speech in it",
)


def test_a_question_is_spoken_after_a_moment_of_silence() -> None:
    async def main() -> bytes:
        async with ScriptedTTS(msgspec.convert({}, ScriptedTTS.Settings)) as tts:
            return await spoken("one two three", tts)

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
def test_a_conversation_needs_words_an_answer_and_sound(
    user: str, answer: str, reply: bytes, missing: list[str]
) -> None:
    turn = Turn("spoken", 0.0)
    turn.feed(Event(heard(user)), 0.1)
    turn.feed(Event(word(answer)), 0.2)
    assert verdict([turn], reply) == missing


def test_without_a_server_the_status_is_2_and_nothing_is_written(tmp_path: Path) -> None:
    if find_spec("espeakng_loader") is None:
        pytest.skip("the embedded engines are not installed")
    page, wav = StringIO(), tmp_path / "reply.wav"
    options = DemoOptions(save=wav, config=tmp_path / "lacking.toml")
    assert demo(options, Console(file=page, width=120)) == 2
    assert "ended with status 2 before it was ready" in page.getvalue()
    assert not wav.exists()


def test_the_embedded_engines_answer_the_question_on_a_server_with_keys_and_tls_too(
    tmp_path: Path,
) -> None:
    if find_spec("espeakng_loader") is None or find_spec("pocketsphinx") is None:
        pytest.skip("the embedded engines are not installed")
    config = tmp_path / "vivavoce.toml"
    config.write_text(
        f'[models.default]\nllm = "builtin"\n[keys]\nme = "{hash_of("nobody")}"\n'
        f'[server]\ntls_certificate = "c.pem"\ntls_key = "k.pem"\n'
    )
    page, wav = StringIO(), tmp_path / "reply.wav"
    options = DemoOptions(save=wav, config=config)
    assert demo(options, Console(file=page, width=200)) == 0, page.getvalue()
    assert "you: what can you do\n" in page.getvalue()
    assert len(files.read(wav)) > 48_000
