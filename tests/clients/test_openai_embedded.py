"""The official client and real speech, on the engines that are always there."""

import base64

import pytest

from tests.clients.line import Line, calling
from tests.clients.loop import awaited
from tests.clients.sound import recorded, silence, spoken
from tests.server import scripted, serving, serving_beside
from vivavoce.settings_sources import parse

EMBEDDED = parse({"models": {"default": {"llm": "builtin"}}})
EMBEDDED_POCKETSPHINX = parse({"models": {"default": {"llm": "builtin", "stt": "pocketsphinx"}}})
"""It recognises audio as it comes, also when that is faster than speech."""
NO_PUNCTUATION = str.maketrans("", "", ".,!?")
WHISPER = {"input": {"transcription": {"model": "whisper-1"}}}


async def turn_of(line: Line, pcm: bytes) -> str:
    """Say it; return what was heard, once the answer is through."""
    await line.update(audio=WHISPER)
    await line.say(pcm + silence(900))
    answer = await line.answer()
    assert answer.status == "completed"
    assert answer.output[0].content[0].transcript.strip()
    assert len(line.audio()) > 48 * 300
    heard = line.of("conversation.item.input_audio_transcription.completed")
    if not heard:
        await line.until("conversation.item.input_audio_transcription.completed")
        heard = line.of("conversation.item.input_audio_transcription.completed")
    return str(heard[0]["transcript"])


@awaited
async def test_embedded_engines_answer_synthetic_speech() -> None:
    pcm = await spoken("Hello there. How are you today?")
    async with serving(EMBEDDED) as server, calling(server) as line:
        assert await turn_of(line, pcm)
        (started,) = line.of("input_audio_buffer.speech_started")
        (stopped,) = line.of("input_audio_buffer.speech_stopped")
        assert started["audio_start_ms"] < 300
        assert stopped["audio_end_ms"] > len(pcm) // 48


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("go_forward_ten_meters.wav", "go forward ten meters"),
        ("hello_world.wav", "hello world"),
        ("ten_of_clubs.wav", "ten of clubs"),
    ],
)
@awaited
async def test_embedded_engines_answer_recorded_speech(name: str, words: str) -> None:
    pcm = recorded(name)
    async with serving(EMBEDDED) as server, calling(server) as line:
        heard = (await turn_of(line, pcm)).lower()
        assert heard.translate(NO_PUNCTUATION) == words


@awaited
async def test_embedded_vad_interrupts_on_recorded_speech() -> None:
    """What listens is real, what answers is scripted: it must be at it when the user speaks."""
    pcm = await spoken("Stop it, please.")
    script = scripted(
        llm={"answers": [{"text": "word " * 200, "tokens_per_second": 50}]},
        tts={"realtime_factor": 0.1},
        models={"vad": "auto"},
    )
    async with serving(script) as server, calling(server) as line:
        await line.write("Tell me a story")
        await line.to.response.create()
        await line.until("response.output_audio.delta")
        await line.say(silence(300) + pcm)
        await line.until("input_audio_buffer.speech_started")
        answer = await line.answer()
        assert (answer.status, answer.status_details.reason) == ("cancelled", "turn_detected")
        assert "response.output_audio.delta" not in line.after("input_audio_buffer.speech_started")


@awaited
async def test_embedded_transcription_sends_deltas_while_audio_arrives() -> None:
    pcm, query = recorded("austen_0880.wav"), {"intent": "transcription"}
    async with (
        serving(EMBEDDED_POCKETSPHINX) as server,
        calling(server, model=None, query=query) as line,
    ):
        await line.to.session.update(session={"type": "transcription", "audio": WHISPER})
        await line.say(pcm + silence(900))
        done = await line.until("conversation.item.input_audio_transcription.completed")
        assert len(done.transcript.split()) >= 4
        assert len(line.of("conversation.item.input_audio_transcription.delta")) >= 2


@awaited
async def test_served_process_answers_a_turn() -> None:
    pcm = await spoken("What can you do?")
    async with serving_beside() as port, calling(port) as line:
        await line.update(audio={"input": {"turn_detection": None}})
        sound = base64.b64encode(pcm).decode()
        await line.to.input_audio_buffer.append(audio=sound)
        await line.to.input_audio_buffer.commit()
        await line.to.response.create()
        assert (await line.answer()).status == "completed"
