"""The scripted engines play what stands in their scripts, when it stands there."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import numpy as np
import pytest

from tests.engines.timed import timed, until_error
from vivavoce.engines.base import (
    Mark,
    Speech,
    Transcript,
    Word,
)
from vivavoce.engines.scripted.engines import (
    ScriptedLLM,
    ScriptedSTT,
    ScriptedTTS,
    ScriptedTurn,
    ScriptedVAD,
)
from vivavoce.engines.scripted.scripts import (
    LLMScript,
    ScriptedAnswer,
    ScriptedCall,
    ScriptedTranscript,
    STTScript,
    TTSScript,
    TurnScript,
    VADScript,
)
from vivavoce.errors import EngineError
from vivavoce.testing.conformance import (
    HELLO,
    check_llm,
    check_speech,
    check_stt,
    check_transcripts,
    check_tts,
    check_turn,
    check_vad,
)
from vivavoce.testing.virtual_time import run

SECOND = b"\1\0" * 16_000


async def pieces(audio: bytes, ms: int = 20) -> AsyncIterator[bytes]:
    """Audio of 16 kHz as it comes from a microphone: each piece when it is over."""
    size = ms * 32
    for start in range(0, len(audio), size):
        await asyncio.sleep(ms / 1000)
        yield audio[start : start + size]


def hear(stt: ScriptedSTT, audio: bytes = SECOND) -> list[tuple[float, Transcript]]:
    return run(timed(stt.transcribe(pieces(audio), language=None, prompt="")))


def say(
    tts: ScriptedTTS, text: str, voice: str = "alloy", speed: float = 1.0
) -> list[tuple[float, Speech]]:
    speaking = tts.synthesize(text, voice=voice, speed=speed, language=None, instructions="")
    return run(timed(speaking))


def final(text: str) -> Transcript:
    return Transcript(text, len(text), final=True)


def test_scripted_engines_conform_to_the_contract() -> None:
    async def main() -> None:
        async with ScriptedVAD(VADScript()) as vad:
            await check_vad(vad)
        async with ScriptedTurn(TurnScript(table={"yes": 1.0}, delay_seconds=0.1)) as turn:
            await check_turn(turn)
        heard = ("", ScriptedTranscript("one two three", 0.2, partials=True))
        async with ScriptedSTT(STTScript(transcripts=heard, hears_silence=False)) as stt:
            await check_stt(stt)
        called = ScriptedAnswer("Let me see.", (ScriptedCall("look", {"at": "the sea"}),), 0.3, 20)
        async with ScriptedLLM(LLMScript(answers=("Hello.", called))) as llm:
            await check_llm(llm)
        async with ScriptedTTS(TTSScript(first_audio_seconds=0.1, realtime_factor=0.5)) as tts:
            await check_tts(tts)

    run(main())


def test_loud_sample_is_speech() -> None:
    vad = ScriptedVAD(VADScript(level=0.1, window_samples=4, sample_rate=8000))
    windows = np.array(
        [[0, 0, 0, 0], [0, 0.2, 0, 0], [0, 0, -0.2, 0], [0.1, -0.1, 0.1, 0]], dtype=np.float32
    )
    streams = np.array([vad.open() for _ in windows])
    assert vad.score(windows, streams).tolist() == [0.0, 1.0, 1.0, 0.0]
    assert (vad.sample_rate, vad.window_samples) == (8000, 4)


def test_number_of_a_closed_stream_is_used_again() -> None:
    vad = ScriptedVAD(VADScript())
    first, second = vad.open(), vad.open()
    vad.close(first)
    assert vad.open() == first
    assert second != first


def test_turn_probability_is_looked_up() -> None:
    turn = ScriptedTurn(TurnScript(table={"i want": 0.1}, default=0.9, delay_seconds=0.25))

    async def main() -> list[float]:
        found = [
            await turn.score(" i want ", language=None),
            await turn.score("go", language="en"),
        ]
        return [*found, asyncio.get_running_loop().time()]

    assert run(main()) == [0.1, 0.9, 0.5]
    assert turn.asked == [" i want ", "go"]


def test_transcripts_come_in_order_and_repeat() -> None:
    stt = ScriptedSTT(STTScript(transcripts=("one", ScriptedTranscript("two"))))
    assert [hear(stt) for _ in range(3)] == [
        [(1.0, final("one"))],
        [(1.0, final("two"))],
        [(1.0, final("one"))],
    ]
    assert stt.heard == [16_000, 16_000, 16_000]


def test_transcripts_without_repeat_end_with_engine_error() -> None:
    stt = ScriptedSTT(STTScript(transcripts=("one",), repeat=False))
    hear(stt)
    with pytest.raises(EngineError, match=r"\[engines.stt.scripted\] the script is at its end"):
        hear(stt)


def test_final_comes_after_its_delay() -> None:
    stt = ScriptedSTT(STTScript(transcripts=(ScriptedTranscript("well", delay_seconds=0.4),)))
    assert hear(stt) == [(1.4, final("well"))]


def test_partials_grow_with_the_audio() -> None:
    spoken = ScriptedTranscript("it is  so", delay_seconds=0.1, partials=True)
    stt = ScriptedSTT(STTScript(transcripts=(spoken,), word_ms=300))
    heard = hear(stt)
    assert heard == [
        (0.3, Transcript("it", 0)),
        (0.6, Transcript("it is", 2)),
        (0.9, Transcript("it is  so", 5)),
        (1.1, final("it is  so")),
    ]
    check_transcripts([transcript for _, transcript in heard])


def test_words_have_times_where_set() -> None:
    stt = ScriptedSTT(STTScript(transcripts=("so it is",), word_ms=400, word_times=True))
    [(_, transcript)] = hear(stt, SECOND[:19_200])
    assert transcript.words == (Word("so", 0, 200), Word("it", 200, 400), Word("is", 400, 600))


def test_silence_takes_no_transcript_where_set() -> None:
    stt = ScriptedSTT(STTScript(transcripts=("one", "two"), hears_silence=False))
    assert hear(stt, bytes(3200)) == [(0.1, final(""))]
    assert hear(stt, bytes(3200) + SECOND) == [(1.1, final("one"))]
    deaf = ScriptedSTT(STTScript(transcripts=("one",)))
    assert hear(deaf, bytes(3200)) == [(0.1, final("one"))]


def test_transcript_with_error_raises_it() -> None:
    stt = ScriptedSTT(STTScript(transcripts=(ScriptedTranscript(error="the line is dead"), "one")))
    with pytest.raises(EngineError, match="the line is dead"):
        hear(stt)
    assert hear(stt) == [(1.0, final("one"))]


def test_stt_and_tts_can_stall() -> None:
    stt = ScriptedSTT(
        STTScript(transcripts=(ScriptedTranscript("a b", partials=True, stall=True),))
    )
    hearing = stt.transcribe(pieces(SECOND), language=None, prompt="")
    partials = [Transcript("a", 0), Transcript("a b", 1)]
    assert run(until_error(hearing, 3600)) == (partials, "TimeoutError")

    tts = ScriptedTTS(TTSScript(stall_on="b", fail_after_ms=60))
    speaking = tts.synthesize("a b c", voice="alloy", speed=1.0, language=None, instructions="")
    spoken, error = run(until_error(speaking, 3600))
    assert ([len(piece.audio) for piece in spoken], error) == ([1920, 960], "TimeoutError")


def test_speech_is_as_long_as_its_text() -> None:
    tts = ScriptedTTS(TTSScript(ms_per_character=50, chunk_ms=100, sample_rate=8000))
    spoken = [speech for _, speech in say(tts, "so it")]
    assert [len(speech.audio) for speech in spoken] == [1600, 1600, 800]
    assert [speech.marks for speech in spoken] == [(Mark(0, 0, 2),), (Mark(1200, 3, 5),), ()]
    assert check_speech(spoken, "so it") == 2000
    assert sum(len(speech.audio) for _, speech in say(tts, "so it", speed=2.0)) == 2000
    assert say(tts, "") == []
    assert tts.spoken == [("so it", "alloy", 1.0), ("so it", "alloy", 2.0), ("", "alloy", 1.0)]


def test_speech_follows_its_realtime_factor() -> None:
    script = TTSScript(first_audio_seconds=0.3, realtime_factor=0.5, chunk_ms=200, marks=False)
    spoken = say(ScriptedTTS(script), "0123456789")
    assert [at for at, _ in spoken] == [0.3, 0.4, 0.5]
    assert [speech.marks for _, speech in spoken] == [(), (), ()]


def test_sound_depends_on_text_and_voice_only() -> None:
    tts = ScriptedTTS(TTSScript(ms_per_character=500))
    audio = b"".join(speech.audio for _, speech in say(tts, "hello"))
    again = b"".join(speech.audio for _, speech in say(tts, "hello"))
    other = b"".join(speech.audio for _, speech in say(tts, "hello", voice="verse"))
    samples = np.frombuffer(audio, "<i2").astype(int)
    assert audio == again
    assert len(other) == len(audio)
    assert other != audio
    assert np.all(samples != 0)
    assert np.abs(samples).max() == 12_000
    assert np.abs(np.diff(samples)).max() < 1000  # seconds and pieces join without a click


def test_chosen_text_fails() -> None:
    tts = ScriptedTTS(TTSScript(fail_on="bang"))
    with pytest.raises(EngineError, match="fails on 'bang'"):
        say(tts, "a bang")
    assert len(say(tts, "a whisper")) == 14


@pytest.mark.parametrize(("voice", "speed"), [("nobody", 1.0), ("alloy", 0.0)])
def test_unknown_voice_and_speed_zero_are_refused(voice: str, speed: float) -> None:
    with pytest.raises(EngineError, match=r"\[engines.tts.scripted\]"):
        say(ScriptedTTS(TTSScript()), "hello", voice=voice, speed=speed)


def test_default_voice_is_the_first_unless_set() -> None:
    assert ScriptedTTS(TTSScript(voices=("ada", "bob"))).default_voice == "ada"
    assert ScriptedTTS(TTSScript(voices=("ada", "bob"), default_voice="bob")).default_voice == "bob"


def test_work_without_delays_yields_to_other_tasks() -> None:
    llm = ScriptedLLM(LLMScript(answers=("word " * 1000,)))
    tts = ScriptedTTS(TTSScript())
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def main() -> float:
        counting = asyncio.create_task(count())
        await timed(llm.generate(HELLO))
        speaking = tts.synthesize("x" * 400, voice="alloy", speed=1, language=None, instructions="")
        await timed(speaking)
        counting.cancel()
        return asyncio.get_running_loop().time()

    assert run(main()) == 0.0
    assert turns > 50


@pytest.mark.parametrize(
    ("script", "options"),
    [
        (VADScript, {"level": 2}),
        (TurnScript, {"table": {"a": 1.5}}),
        (STTScript, {"transcripts": []}),
        (STTScript, {"transcripts": [{"txt": "a"}]}),
        (LLMScript, {"answers": [{"text": "a", "first_token_seconds": -1}]}),
        (LLMScript, {"answer": ["a"]}),
        (TTSScript, {"ms_per_character": 0}),
        (TTSScript, {"default_voice": "nobody"}),
    ],
)
def test_script_with_a_mistake_is_refused(script: type, options: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(options, script)


def test_script_can_stand_in_the_settings() -> None:
    answers = ["Hello.", {"text": "Bye.", "calls": [{"name": "hang_up", "arguments": {"now": 1}}]}]
    assert msgspec.convert({"answers": answers}, LLMScript) == LLMScript(
        answers=("Hello.", ScriptedAnswer("Bye.", (ScriptedCall("hang_up", {"now": 1}),)))
    )
    assert msgspec.convert({"transcripts": ["a", {"text": "b", "stall": True}]}, STTScript) == (
        STTScript(transcripts=("a", ScriptedTranscript("b", stall=True)))
    )
