"""The audio endpoints with the engines that need nothing from outside, and the official client."""

from pathlib import Path
from typing import Any

import openai
import pytest

from tests import idle_clock
from tests.server import serving
from vivavoce.audio.formats import RATE
from vivavoce.media import files
from vivavoce.settings_sources import parse

RECORDINGS = Path(__file__).parents[2].parent / "shared" / "audio"
SETTINGS = parse(
    {"models": {"default": {"llm": "builtin", "stt": "pocketsphinx", "tts": "espeak"}}}
)


def test_speech_answer_is_transcribed_to_its_text() -> None:
    async def main() -> tuple[bytes, Any, list[Any]]:
        async with (
            serving(SETTINGS) as server,
            openai.AsyncOpenAI(
                api_key="none", base_url=f"{server.http}/v1", max_retries=0
            ) as client,
        ):
            spoken = await client.audio.speech.create(
                input="Go forward ten meters.", model="tts-1", voice="marin", speed=0.9
            )
            create = client.audio.transcriptions.create
            whole = await create(
                file=("speech.mp3", spoken.content),
                model="whisper-1",
                response_format="verbose_json",
                timestamp_granularities=["word", "segment"],
            )
            stream = await create(file=spoken.content, model="whisper-1", stream=True)
            return spoken.content, whole, [event async for event in stream]

    spoken, whole, (*deltas, done) = idle_clock.run(main())
    seconds = len(files.read(spoken)) / 2 / RATE
    assert whole.duration == pytest.approx(seconds, abs=0.01)
    assert whole.language == "english"
    assert whole.text.split() == [word.word for word in whole.words]
    assert whole.text.startswith("go ")  # the rest of espeak's English it may mistake
    assert all(0 <= word.start <= word.end <= seconds for word in whole.words)
    assert "".join(delta.delta for delta in deltas) == done.text == whole.text


@pytest.mark.skipif(not RECORDINGS.is_dir(), reason="needs real recordings beside the project")
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("go_forward_ten_meters.wav", "go forward ten meters"),
        ("hello_world.wav", "hello world"),
    ],
)
def test_real_recording_is_transcribed(name: str, text: str) -> None:
    async def main() -> str:
        async with (
            serving(SETTINGS) as server,
            openai.AsyncOpenAI(
                api_key="none", base_url=f"{server.http}/v1", max_retries=0
            ) as client,
        ):
            return await client.audio.transcriptions.create(
                file=RECORDINGS / name, model="whisper-1", response_format="text"
            )

    assert idle_clock.run(main()) == f"{text}\n"
