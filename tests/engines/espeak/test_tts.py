"""With the real library."""

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import aclosing
from itertools import combinations, pairwise
from typing import NoReturn

import numpy as np
import pytest
import uvloop

from vivavoce.engines import registry
from vivavoce.engines.base import Mark, Speech
from vivavoce.engines.espeak.tts import DATA, EspeakSettings, EspeakTTS
from vivavoce.engines.espeak.voices import TIMBRES, languages_in
from vivavoce.errors import EngineError, EngineLost
from vivavoce.testing.conformance import check_tts

RATE = 22050
FOX = "The quick brown fox jumps over the lazy dog."
STEADY = "onyx"  # its variant has no flutter: the same text gives the same samples
MANY = " ".join(f"This is sentence number {n}." for n in range(40))


async def pieces(
    engine: EspeakTTS,
    text: str,
    voice: str = "marin",
    *,
    speed: float = 1.0,
    language: str | None = None,
) -> list[Speech]:
    spoken = engine.synthesize(text, voice=voice, speed=speed, language=language, instructions="")
    async with aclosing(spoken):
        return [speech async for speech in spoken]


def sound(speech: list[Speech]) -> bytes:
    return b"".join(piece.audio for piece in speech)


def seconds(speech: list[Speech]) -> float:
    return len(sound(speech)) / 2 / RATE


def marks(speech: list[Speech]) -> list[Mark]:
    return [mark for piece in speech for mark in piece.marks]


def speak(text: str, voice: str = "marin", speed: float = 1.0) -> list[Speech]:
    """One text, with an engine of its own."""

    async def main() -> list[Speech]:
        async with EspeakTTS(EspeakSettings()) as engine:
            return await pieces(engine, text, voice, speed=speed)

    return asyncio.run(main())


def kill(engine: EspeakTTS) -> None:
    engine.host.processes[0].kill()


def pitch_hz(audio: bytes) -> float:
    """The median fundamental of the loud windows of 93 ms, by autocorrelation."""
    samples = np.frombuffer(audio, "<i2").astype(float)
    found = []
    for start in range(0, len(samples) - 2048, 1024):
        window = samples[start : start + 2048]
        if window.std() < 800:
            continue
        power = np.abs(np.fft.rfft(window, 8192)) ** 2
        echo = np.fft.irfft(power)
        found.append(RATE / (45 + int(np.argmax(echo[45:400]))))
    return float(np.median(found))


def test_registry_builds_espeak_from_its_settings() -> None:
    engine = registry.create("tts", "espeak", {"language": "de", "words_per_minute": 200})
    assert [type(engine), engine.default_voice] == [EspeakTTS, "marin"]
    assert {voice.id for voice in engine.voices} == set(TIMBRES)


def test_speech_has_a_plausible_length_and_level() -> None:
    speech = speak(FOX)
    samples = np.frombuffer(sound(speech), "<i2").astype(float)
    assert 2.0 < seconds(speech) < 4.5
    assert 1500 < np.sqrt((samples**2).mean()) < 6000
    assert np.abs(samples).max() < 32767
    assert max(len(piece.audio) for piece in speech) < RATE // 4


def test_marks_name_the_words_in_order() -> None:
    text = "Hello there, world. It is 2026 now; über straße 12.5% don't."
    found = marks(speak(text))
    assert [text[mark.start : mark.end] for mark in found] == [
        *("Hello", "there", "world", "It", "is", "2026", "now"),
        *("über", "straße", "12.5", "%", "don't"),
    ]
    assert all(a.at < b.at and a.end <= b.start for a, b in pairwise(found))


def test_mark_is_never_later_than_its_sound() -> None:
    before = 0
    for piece in speak(MANY):
        assert all(mark.at >= before for mark in piece.marks)
        before += len(piece.audio) // 2


def test_mark_after_a_pause_is_where_the_sound_begins() -> None:
    speech = speak("Well. Boat.", STEADY)
    samples = np.abs(np.frombuffer(sound(speech), "<i2").astype(float))
    at = marks(speech)[1].at
    assert samples[at - 1000 : at].max() < 200
    assert samples[at : at + 3000].max() > 2000


def test_sound_does_not_depend_on_the_size_of_the_buffer() -> None:
    async def main() -> tuple[list[Speech], list[Speech]]:
        async with (
            EspeakTTS(EspeakSettings(buffer_seconds=120)) as ample,
            EspeakTTS(EspeakSettings(buffer_seconds=1)) as tight,
        ):
            return await pieces(ample, MANY, STEADY), await pieces(tight, MANY, STEADY)

    ample, tight = asyncio.run(main())
    assert [(m.start, m.end) for m in marks(ample)] == [(m.start, m.end) for m in marks(tight)]
    assert seconds(ample) == pytest.approx(seconds(tight), rel=0.01)
    assert sound(ample)[: 2 * RATE] == sound(tight)[: 2 * RATE]
    assert max(abs(a.at - b.at) for a, b in zip(marks(ample), marks(tight), strict=True)) < RATE


def test_sound_does_not_depend_on_speech_between_its_pieces() -> None:
    async def main() -> tuple[bytes, bytes]:
        async with EspeakTTS(EspeakSettings()) as engine:
            await pieces(engine, "Something else.", "coral")
            spoken = engine.synthesize(FOX, voice=STEADY, speed=1, language=None, instructions="")
            slowly = b""
            async with aclosing(spoken):
                async for piece in spoken:
                    await pieces(engine, "Another speaks between.", "nova")
                    slowly += piece.audio
            return slowly, sound(await pieces(engine, FOX, STEADY))

    slowly, at_once = asyncio.run(main())
    assert slowly == at_once


def test_stream_closed_midway_leaves_the_engine_usable() -> None:
    async def main() -> tuple[bytes, bytes]:
        async with EspeakTTS(EspeakSettings()) as engine:
            whole = sound(await pieces(engine, FOX, STEADY))
            for _ in range(20):
                spoken = engine.synthesize(
                    MANY, voice="nova", speed=1, language=None, instructions=""
                )
                async with aclosing(spoken):
                    assert (await anext(spoken)).audio
            return whole, sound(await pieces(engine, FOX, STEADY))

    whole, afterwards = asyncio.run(main())
    assert whole == afterwards


def test_texts_spoken_at_once_do_not_mix() -> None:
    texts = [
        f"Caller {n} says {word}."
        for n, word in enumerate(("a", "bee", "sea", "deep", "eel", "ef"))
    ]
    texts += [MANY, FOX]

    async def main() -> tuple[list[bytes], list[bytes]]:
        async with EspeakTTS(EspeakSettings(buffer_seconds=1)) as engine:
            alone = [sound(await pieces(engine, text, STEADY)) for text in texts]
            together = await asyncio.gather(*(pieces(engine, text, STEADY) for text in texts))
            return alone, [sound(speech) for speech in together]

    alone, together = asyncio.run(main())
    assert len(set(alone)) == len(texts)
    assert together[:6] + together[7:] == alone[:6] + alone[7:]
    assert len(together[6]) == pytest.approx(len(alone[6]), rel=0.01)


@pytest.mark.parametrize(("speed", "least", "most"), [(0.25, 1.8, 2.8), (2.0, 0.3, 0.6)])
def test_speed_scales_the_duration(speed: float, least: float, most: float) -> None:
    ratio = seconds(speak(FOX, speed=speed)) / seconds(speak(FOX))
    assert least < ratio < most


def test_marks_follow_the_fastest_speech() -> None:
    speech = speak(MANY, speed=4.0)
    assert [MANY[mark.start : mark.end] for mark in marks(speech)] == MANY.replace(".", "").split()
    assert 0.8 < marks(speech)[-1].at / (len(sound(speech)) // 2) < 1


def test_every_named_voice_sounds_different() -> None:
    async def main() -> dict[str, bytes]:
        async with EspeakTTS(EspeakSettings()) as engine:
            return {voice: sound(await pieces(engine, FOX, voice)) for voice in TIMBRES}

    voices = asyncio.run(main())

    def colour(audio: bytes) -> tuple[float, float]:
        """Octaves: of the fundamental, and of the centre of the spectrum."""
        samples = np.frombuffer(audio, "<i2").astype(float)
        power = np.abs(np.fft.rfft(samples)) ** 2
        centre = (np.fft.rfftfreq(len(samples), 1 / RATE) * power).sum() / power.sum()
        return float(np.log2(pitch_hz(audio))), float(np.log2(centre))

    colours = {voice: colour(audio) for voice, audio in voices.items()}
    alike = [
        (one, other)
        for one, other in combinations(colours, 2)
        if np.hypot(*np.subtract(colours[one], colours[other])) < 0.12
    ]
    assert alike == []
    assert pitch_hz(voices["onyx"]) < 90 < 180 < pitch_hz(voices["marin"])


def test_language_changes_pronunciation_and_keeps_the_timbre() -> None:
    async def main() -> tuple[bytes, bytes, bytes, bytes]:
        async with EspeakTTS(EspeakSettings()) as engine:
            text = "Nation und Garage"
            english = await pieces(engine, text, STEADY)
            german = await pieces(engine, text, STEADY, language="de")
            own = await pieces(engine, text, "de")
            unknown = await pieces(engine, text, STEADY, language="xx")
            return sound(english), sound(german), sound(own), sound(unknown)

    english, german, own, unknown = asyncio.run(main())
    assert german != english
    assert pitch_hz(german) == pytest.approx(pitch_hz(english), rel=0.25)
    assert pitch_hz(own) > 1.2 * pitch_hz(german)
    assert unknown == english


def test_every_voice_of_a_language_speaks() -> None:
    async def main() -> tuple[set[str], list[str]]:
        async with EspeakTTS(EspeakSettings()) as engine:
            names = {voice.id for voice in engine.voices}
            mute = [name for name in names if seconds(await pieces(engine, "a 2", name)) < 0.3]
            return names, mute

    names, mute = asyncio.run(main())
    assert {"en-us", "en-gb", "de", "fr", "fr-fr", "cmn", *TIMBRES} < names
    assert mute == []


def test_languages_are_those_of_the_data_that_have_a_dictionary() -> None:
    listed = {language.identifier: language for language in languages_in(DATA)}
    assert (listed["gmw/de"].name, listed["gmw/de"].tags) == ("German", (("de", 5),))
    assert listed["gmw/en-US"].tags == (("en-us", 2), ("en", 3))
    assert listed["iro/chr"].name == "Cherokee"  # a comment follows
    assert len(listed) > 100
    assert listed.keys() & {"gmq/nb", "gmq/fo", "ine/hyw"} == {"gmq/nb", "ine/hyw"}


def test_unreadable_data_is_an_engine_error_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unreadable(_: object) -> NoReturn:
        raise PermissionError(13, "Permission denied", "lang")

    monkeypatch.setattr("vivavoce.engines.espeak.tts.languages_in", unreadable)
    with pytest.raises(EngineError, match=r"Permission denied.*; reinstall the package espeakng"):
        speak(FOX)


def test_unknown_voice_is_refused_with_examples() -> None:
    with pytest.raises(EngineError, match=r"no voice 'nobody'.*marin.*en-us"):
        speak(FOX, "nobody")


def test_unknown_default_language_is_refused() -> None:
    async def main() -> None:
        async with EspeakTTS(EspeakSettings(language="tlh-x")):
            raise AssertionError("it was accepted")

    with pytest.raises(EngineError, match="no language 'tlh-x'"):
        asyncio.run(main())


@pytest.mark.parametrize("text", ["", " \n ", "...", "—", "\x00\x01", "\u200b"])
def test_text_with_nothing_to_speak_gives_no_audio(text: str) -> None:
    assert speak(text) == []


@pytest.mark.parametrize(
    "text", ["a\x00b", "\ud800 x", "<speak>a & b</speak>", "[[h@]] \x01v", "￿a"]
)
def test_unusual_characters_are_spoken_or_skipped(text: str) -> None:
    assert 0.2 < seconds(speak(text)) < 6


def test_text_that_crashes_the_library_loses_only_itself() -> None:
    async def main() -> tuple[str, bytes, bytes]:
        async with EspeakTTS(EspeakSettings()) as engine:
            before = sound(await pieces(engine, FOX, STEADY))
            crash = asyncio.create_task(pieces(engine, "'-'-लच्छेद"))
            behind = asyncio.create_task(pieces(engine, FOX, STEADY))
            try:
                await crash
            except EngineError as exc:
                return str(exc), before, sound(await behind)
            await behind
            return "", before, before

    message, before, behind = asyncio.run(main())
    if not message:
        pytest.skip("this espeak-ng does not crash on that text any more")
    assert "its worker process was killed by signal" in message
    assert before == behind


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_process_killed_while_idle_loses_nothing(
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def main() -> tuple[bytes, bytes]:
        async with EspeakTTS(EspeakSettings()) as engine:
            before = sound(await pieces(engine, FOX, STEADY))
            kill(engine)
            while engine.health() is None:  # noqa: ASYNC110  the process is outside of the loop
                await asyncio.sleep(0.001)
            return before, sound(await pieces(engine, FOX, STEADY))

    with asyncio.Runner(loop_factory=loop) as runner:
        before, after = runner.run(main())
    assert before == after


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_process_killed_while_speaking_raises_engine_lost(
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def main() -> bytes:
        async with EspeakTTS(EspeakSettings()) as engine:
            spoken = engine.synthesize(MANY, voice="nova", speed=1, language=None, instructions="")
            async with aclosing(spoken):
                await anext(spoken)
                kill(engine)
                with pytest.raises(EngineLost, match=r"process was killed by signal 9$"):
                    async for _ in spoken:
                        pass
            return sound(await pieces(engine, FOX))

    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(main())


def test_utterance_beyond_the_limit_is_refused() -> None:
    async def main() -> None:
        async with EspeakTTS(EspeakSettings(max_utterances=1)) as engine:
            first = engine.synthesize(MANY, voice="nova", speed=1, language=None, instructions="")
            async with aclosing(first):
                await anext(first)
                with pytest.raises(EngineError, match="raise max_utterances"):
                    await pieces(engine, FOX)
            assert await pieces(engine, FOX)

    asyncio.run(main())


def test_leaving_the_engine_ends_its_utterances() -> None:
    async def main() -> str:
        async with EspeakTTS(EspeakSettings(buffer_seconds=1)) as engine:
            spoken = engine.synthesize(MANY, voice="nova", speed=1, language=None, instructions="")
            await anext(spoken)
        async with aclosing(spoken):
            with pytest.raises(EngineError) as caught:
                async for _ in spoken:
                    pass
        return str(caught.value)

    assert "closed" in asyncio.run(main())


def test_closed_engine_raises_engine_error() -> None:
    with pytest.raises(EngineError, match="enter the engine"):
        asyncio.run(pieces(EspeakTTS(EspeakSettings()), FOX))


def test_two_engines_and_an_engine_entered_again_speak_alike() -> None:
    async def main() -> list[bytes]:
        async with EspeakTTS(EspeakSettings()) as one, EspeakTTS(EspeakSettings()) as other:
            both = await asyncio.gather(pieces(one, FOX, STEADY), pieces(other, FOX, STEADY))
        async with one:
            return [*map(sound, both), sound(await pieces(one, FOX, STEADY))]

    first, second, third = asyncio.run(main())
    assert first == second == third


@pytest.mark.parametrize(
    ("text", "voice"),
    [
        ("مرحبا بالعالم", "ar"),
        ("你好，世界。今天天气很好。", "cmn"),  # noqa: RUF001  Chinese commas
        ("こんにちは世界", "ja"),
        ("שלום עולם", "he"),
        ("สวัสดีชาวโลก", "th"),
        ("Γειά σου Κόσμε", "el"),  # noqa: RUF001  Greek
        ("Привет мир", "ru"),
        ("नमस्ते दुनिया", "hi"),
        ("안녕하세요", "ko"),
    ],
)
@pytest.mark.parametrize("language", [None, "en"])
def test_named_voice_speaks_a_text_in_the_language_of_its_script(
    text: str, voice: str, language: str | None
) -> None:
    async def main() -> tuple[float, float]:
        async with EspeakTTS(EspeakSettings()) as engine:
            named = await pieces(engine, text, "onyx", language=language)
            return seconds(named), seconds(await pieces(engine, text, voice))

    named, own = asyncio.run(main())
    assert named == pytest.approx(own, rel=0.35)


@pytest.mark.parametrize(
    ("text", "without"),
    [
        ("Two is 5 × 4 here.", "Two is 5 4 here."),  # noqa: RUF001  the sign
        ("Is a < b here?", "Is a b here?"),
        ("I write C# code.", "I write C code."),
        ("We are #1 now.", "We are 1 now."),
        ("About ≈5 minutes.", "About 5 minutes."),
    ],
)
def test_sign_with_a_meaning_is_spoken_and_marked(text: str, without: str) -> None:
    async def main() -> tuple[list[Speech], list[Speech]]:
        async with EspeakTTS(EspeakSettings()) as engine:
            return await pieces(engine, text, STEADY), await pieces(engine, without, STEADY)

    spoken, shorter = asyncio.run(main())
    assert seconds(spoken) > seconds(shorter) + 0.1
    words = [text[mark.start : mark.end] for mark in marks(spoken)]
    assert [word for word in words if not word.isalnum()] == [
        sign
        for sign in text
        if sign in "×<#≈"  # noqa: RUF001  the sign
    ]


def test_espeak_conforms_to_the_contract() -> None:
    async def main() -> None:
        async with EspeakTTS(EspeakSettings()) as engine:
            await check_tts(engine)

    asyncio.run(main())


def test_hanging_process_is_replaced_and_the_clause_can_be_spoken_again() -> None:
    async def main() -> tuple[str, bytes, bytes]:
        async with EspeakTTS(EspeakSettings()) as engine:
            before = sound(await pieces(engine, FOX, STEADY))
            pid = engine.host.processes[0]._link.pid
            assert pid
            os.kill(pid, signal.SIGSTOP)
            with pytest.raises(EngineLost) as caught:
                await pieces(engine, FOX, STEADY)
            return str(caught.value), before, sound(await pieces(engine, FOX, STEADY))

    message, before, after = asyncio.run(main())
    assert message == (
        "[engines.tts.espeak] its worker process gave no sign of life for 5 s, and was killed"
    )
    assert before == after
