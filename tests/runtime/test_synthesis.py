"""Clauses become PCM with the times of their words, whatever the engine does."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest

from vivavoce.engines.base import BaseEngine, Mark, Speech, Voice
from vivavoce.engines.speech_text import AWAITED
from vivavoce.errors import EngineError, EngineLost
from vivavoce.runtime.synthesis import SpokenPiece, Synthesis, clauses_of
from vivavoce.session.facts import SpokenWord
from vivavoce.testing.virtual_time import run

SAMPLES = b"".join(n.to_bytes(2, "little") for n in range(1, 2_401))  # 100 ms, all different


class ListTTS(BaseEngine):
    """Yields these things at each call, one list a call; an exception is raised, a float slept."""

    Settings: Any = None
    voices: tuple[Voice, ...] = (Voice("anna", ()),)
    default_voice = "anna"

    def __init__(self, *calls: list[Speech | Exception | float], sample_rate: int = 24_000) -> None:
        self.sample_rate = sample_rate
        self._calls = list(calls)
        self.asked: list[tuple[str, str | None]] = []
        self.awaited: list[bool] = []

    async def __aenter__(self) -> "ListTTS":
        return self

    async def __aexit__(self, *exc: object) -> None: ...

    async def synthesize(
        self, text: str, *, language: str | None, **how: Any
    ) -> AsyncGenerator[Speech]:
        self.asked.append((text, language))
        self.awaited.append(AWAITED.get())
        for thing in self._calls.pop(0):
            if isinstance(thing, Exception):
                raise thing
            if isinstance(thing, float):
                await asyncio.sleep(thing)
            else:
                yield thing


def pieces(tts: ListTTS, text: str, start: int = 0, **how: Any) -> list[SpokenPiece]:
    async def main() -> list[SpokenPiece]:
        async with aclosing(Synthesis(tts, "anna", **how).clause(text, start)) as made:
            return [piece async for piece in made]

    return run(main())


def audio(made: list[SpokenPiece]) -> bytes:
    return b"".join(piece.audio for piece in made)


def words(made: list[SpokenPiece]) -> list[SpokenWord]:
    return [word for piece in made for word in piece.words]


def test_marks_time_the_words_of_the_original_text() -> None:
    tts = ListTTS([Speech(SAMPLES, (Mark(0, 0, 5), Mark(1_200, 8, 13)))])
    made = pieces(tts, "**Hello *there*!", start=100)
    assert tts.asked == [("  Hello  there !", None)]
    assert "".join(word.text for word in words(made)) == "**Hello *there*!"
    assert [word.at for word in words(made)] == [100, 1_300, 1_300]
    assert [piece.last for piece in made] == [False, True]


def test_first_clause_of_an_answer_is_awaited_and_a_later_one_is_not() -> None:
    tts = ListTTS([Speech(SAMPLES)], [Speech(SAMPLES)], [Speech(SAMPLES)])

    async def main() -> None:
        for text in ("One day. Then two.", "Again."):
            async with aclosing(Synthesis(tts, "anna").text(text)) as made:
                assert [piece async for piece in made]

    run(main())
    assert tts.awaited == [True, False, True]


def test_written_forms_are_read_and_the_words_stay_those_of_the_text() -> None:
    marks = (Mark(0, 0, 2), Mark(100, 3, 4), Mark(200, 5, 12), Mark(300, 26, 29))
    tts = ListTTS([Speech(SAMPLES, marks)])
    made = pieces(tts, "So $5.50 now.", language="en")
    assert tts.asked == [("So 5 dollars and 50 cents now.", "en")]
    assert words(made) == [SpokenWord("So ", 0), SpokenWord("$5.50 ", 100), SpokenWord("now.", 300)]


def test_voice_of_one_language_reads_the_forms_of_it() -> None:
    tts = ListTTS([Speech(SAMPLES, ())])
    tts.voices = (Voice("anna", ("de",)),)
    pieces(tts, "Das kostet 3 €.")
    assert tts.asked == [("Das kostet 3 Euro.", None)]


@pytest.mark.parametrize("text", ["", "   ", "...", "***", "😀 ", "\u200b"])
def test_clause_with_nothing_to_say_has_its_words_and_no_audio(text: str) -> None:
    tts = ListTTS()
    made = pieces(tts, text)
    assert (tts.asked, audio(made)) == ([], b"")
    assert "".join(word.text for word in words(made)) == text
    assert made[-1].last


@pytest.mark.parametrize(
    ("text", "given", "spoken"),
    [
        ("Hello.", None, None),
        ("Hello.", "fr", "fr"),
        ("Привет.", None, "ru"),
        ("Привет.", "en", "ru"),
        ("Привет.", "uk", "uk"),
    ],
)
def test_language_follows_the_script_unless_it_fits(
    text: str, given: str | None, spoken: str | None
) -> None:
    tts = ListTTS([Speech(SAMPLES, ())])
    pieces(tts, text, language=given)
    assert tts.asked == [(text, spoken)]


def test_audio_is_cut_into_pieces_of_a_bounded_length() -> None:
    made = pieces(ListTTS([Speech(SAMPLES * 10, ())]), "Word.", max_piece_ms=300)
    assert [len(piece.audio) // 48 for piece in made] == [300, 300, 300, 100, 0]


@pytest.mark.parametrize("rate", [16_000, 24_000])
@pytest.mark.parametrize("lost_after", [0, 1, 2])
def test_lost_engine_is_asked_once_more_and_no_sample_is_doubled(
    lost_after: int, rate: int, caplog: pytest.LogCaptureFixture
) -> None:
    parts: list[Any] = [Speech(SAMPLES[at : at + 1_600], ()) for at in (0, 1_600, 3_200)]
    whole = pieces(ListTTS(parts, sample_rate=rate), "One two three.")
    lost = [*parts[:lost_after], EngineLost("it died")]
    made = pieces(ListTTS(lost, parts, sample_rate=rate), "One two three.")
    assert audio(made) == audio(whole)
    assert "".join(word.text for word in words(made)) == "One two three."
    assert caplog.messages == ["TTS worker lost, retrying the clause: it died"]


def test_engine_lost_twice_is_an_error() -> None:
    with pytest.raises(EngineLost, match="again"):
        pieces(ListTTS([EngineLost("it died")], [EngineLost("again")]), "One.")


def test_engine_error_is_not_retried() -> None:
    tts = ListTTS([EngineError("no such voice")])
    with pytest.raises(EngineError, match="no such voice"):
        pieces(tts, "One.")
    assert len(tts.asked) == 1


def test_engine_that_stalls_is_an_error() -> None:
    with pytest.raises(EngineError, match=r"^the synthesiser made no sound for 3 s$"):
        pieces(ListTTS([Speech(SAMPLES, ()), 60.0]), "One.", stall_timeout_s=3.0)


def test_text_is_spoken_clause_by_clause_with_times_from_its_start() -> None:
    tts = ListTTS([Speech(SAMPLES, ())], [Speech(SAMPLES, ())])

    async def main() -> list[SpokenPiece]:
        async with aclosing(Synthesis(tts, "anna").text("One. ... Two.")) as made:
            return [piece async for piece in made]

    made = run(main())
    assert [text for text, _ in tts.asked] == ["One. ", "... Two."]
    assert audio(made) == SAMPLES * 2
    assert words(made)[0].at == 0
    assert words(made)[-1].at >= 2_400


@pytest.mark.parametrize("text", ["", "One.", "a" * 5_000, "Well, it is. " * 400])
def test_clauses_of_a_text_are_the_text_to_the_letter(text: str) -> None:
    assert "".join(clauses_of(text)) == text
