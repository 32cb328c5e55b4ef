"""A synthesiser gets the text of an answer while it is written, and others take over from it."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from tests.runtime.stage import ScriptedEngines
from tests.runtime.test_fallback import Engine, members
from tests.runtime.test_generation import ListLLM, performed, said, sound
from vivavoce.engines.base import (
    BaseEngine,
    Capabilities,
    ChatEnded,
    Mark,
    Speech,
    TextDelta,
    Voice,
)
from vivavoce.errors import EngineError, EngineLost
from vivavoce.runtime.catalog import Cascade
from vivavoce.runtime.chains import FallbackTTS
from vivavoce.runtime.fallback import FallbackSettings
from vivavoce.runtime.synthesis import SpokenPiece, Synthesis
from vivavoce.runtime.text_stream import MAX_AHEAD_CHARACTERS, KeptText
from vivavoce.session.facts import AudioGenerated, GenerationFailed, OutputFinished
from vivavoce.testing import check_tts, run

PER_CHARACTER = 240
SETTINGS = FallbackSettings()


class StreamTTS(BaseEngine):
    """Speaks each piece at once, with marks; after a text in `faults` it does what is there."""

    Settings = FallbackSettings
    capabilities = Capabilities(streams_text=True, word_times="exact")
    sample_rate = 24_000
    default_voice = "alloy"
    voices: tuple[Voice, ...] = (Voice("alloy", ()), Voice("own", ()))

    def __init__(self, faults: dict[str, Exception | float] | None = None) -> None:
        self.answers: list[list[str]] = []
        """The pieces of each text."""
        self.given_at: list[float] = []
        self.open = 0
        self.faults = faults or {}
        self.lost_after_s = 0.0

    async def synthesize(self, text: str, **how: Any) -> AsyncGenerator[Speech]:
        async def whole() -> AsyncGenerator[str]:
            if text.strip(" .\u2014"):
                yield text

        if how["voice"] not in ("alloy", "own"):
            raise EngineError("no such voice")
        async with aclosing(self.synthesize_stream(whole(), **how)) as speech:
            async for piece in speech:
                yield piece

    async def synthesize_stream(
        self, pieces: AsyncIterator[str], **how: Any
    ) -> AsyncGenerator[Speech]:
        given: list[str] = []
        self.answers.append(given)
        self.open += 1
        try:
            at = samples = 0
            async for piece in pieces:
                given.append(piece)
                self.given_at.append(asyncio.get_running_loop().time())
                size = int(len(piece) * PER_CHARACTER / how["speed"])
                marks: list[Mark] = []
                for word in piece.split():
                    start = piece.index(word, marks[-1].end - at if marks else 0)
                    place = samples + start * size // len(piece)
                    marks.append(Mark(place, at + start, at + start + len(word)))
                half = size // 2
                yield Speech(
                    b"\1\0" * half, tuple(mark for mark in marks if mark.at < samples + half)
                )
                rest = tuple(mark for mark in marks if mark.at >= samples + half)
                yield Speech(b"\1\0" * (size - half), rest)
                at, samples = at + len(piece), samples + size
                fault = self.faults.get(piece.strip())
                if isinstance(fault, Exception):
                    await asyncio.sleep(self.lost_after_s)
                    raise fault
                if fault is not None:
                    await asyncio.sleep(fault)
        finally:
            self.open -= 1


def cascade(tts: Any, *things: Any) -> Cascade:
    engines = ScriptedEngines().cascade
    llm: Any = ListLLM(*things, ChatEnded())
    return replace(engines, llm=llm, tts=tts)


def test_clauses_are_handed_over_as_they_come_in_one_text() -> None:
    tts = StreamTTS()
    things = [
        TextDelta("It is **very** cold today. "),
        TextDelta("\U0001f600 "),
        0.01,
        TextDelta("Tomorrow it will be warmer. "),
        0.01,
        TextDelta("Bye!"),
    ]
    posted = [fact for _, fact in run(performed(cascade(tts, *things)))]
    text = "It is **very** cold today. \U0001f600 Tomorrow it will be warmer. Bye!"
    assert said(posted) == text
    assert tts.answers == [
        ["It is   very   cold today. ", "  Tomorrow it will be warmer. ", "Bye!"],
    ]
    assert tts.given_at[-1] < 0.1  # the first clause is heard for longer than that
    assert posted[-1] == OutputFinished("r")
    words = [word for fact in posted if isinstance(fact, AudioGenerated) for word in fact.words]
    spoken_before = len("It is   very   cold today.   Tomorrow ")
    assert next(w.at for w in words if w.text == "it ") == spoken_before * PER_CHARACTER
    assert tts.open == 0


def test_answer_without_anything_to_speak_asks_for_no_speech() -> None:
    tts = StreamTTS()
    posted = [fact for _, fact in run(performed(cascade(tts, TextDelta("\U0001f600"))))]
    assert (tts.answers, said(posted), sound(posted)) == ([], "\U0001f600", b"")


def test_interrupted_answer_stops_the_speech() -> None:
    tts = StreamTTS()

    async def main() -> None:
        async with asyncio.timeout(1.0):
            await performed(cascade(tts, TextDelta("Well, I think so. "), 60.0))

    with pytest.raises(TimeoutError):
        run(main())
    assert tts.answers == [["Well, I think so. "]]
    assert tts.open == 0


def test_failure_of_the_speech_leaves_the_answer_in_writing() -> None:
    tts = StreamTTS({"Well, yes.": EngineError("no voice today")})
    posted = [fact for _, fact in run(performed(cascade(tts, TextDelta("Well, yes."))))]
    assert said(posted) == "Well, yes."
    assert posted[-1] == OutputFinished("r")


def test_failure_of_the_model_ends_the_answer_after_its_words() -> None:
    tts = StreamTTS()
    things = [TextDelta("Well, yes. "), EngineError("no tokens left")]
    posted = [fact for _, fact in run(performed(cascade(tts, *things)))]
    assert said(posted) == "Well, yes. "
    assert posted[-1] == GenerationFailed("r", "llm", "no tokens left")


def test_engine_that_is_lost_gets_the_text_once_more() -> None:
    tts = StreamTTS({"Well, I think so.": EngineLost("the connection broke")})

    async def words() -> AsyncGenerator[str]:
        yield "Well, I think so. "
        await asyncio.sleep(0.1)
        tts.faults.clear()
        yield "But who knows that?"

    async def main() -> list[SpokenPiece]:
        async with aclosing(Synthesis(tts, "alloy").stream(words())) as pieces:
            return [piece async for piece in pieces]

    tts.lost_after_s = 0.2
    pieces = run(main())
    text = "Well, I think so. But who knows that?"
    assert "".join(word.text for piece in pieces for word in piece.words) == text
    assert sum(len(piece.audio) for piece in pieces) == 2 * PER_CHARACTER * len(text)
    assert tts.answers == [["Well, I think so. "], [text]]


async def text(*pieces: str | float) -> AsyncIterator[str]:
    for piece in pieces:
        if isinstance(piece, float):
            await asyncio.sleep(piece)
        else:
            yield piece


async def spoken(tts: Any, *pieces: str | float) -> list[Speech]:
    how: dict[str, Any] = {"voice": "own", "speed": 1.0, "language": None, "instructions": ""}
    async with aclosing(tts.synthesize_stream(text(*pieces), **how)) as speech:
        return [piece async for piece in speech]


@pytest.mark.parametrize(
    ("fault", "cause"),
    [(EngineLost("it was cut"), "it was cut"), (60.0, "a gave nothing for 2 s")],
)
def test_next_engine_of_a_chain_speaks_the_rest_of_the_text_as_it_comes(
    fault: Any, cause: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = StreamTTS({"Two of them.": fault})
    second = Engine(Speech(b"\2\0" * 2400))
    chain = FallbackTTS(members(first, second), SETTINGS)
    assert chain.streams_text
    pieces = ("One. ", 1.0, "Two of them. ", 1.0, "Three.")
    speech = run(spoken(chain, *pieces))
    assert first.answers == [["One. ", "Two of them. "]] if fault == 60.0 else True
    rest = "".join(asked[0] for asked in second.asked)
    assert "One. Two of them. Three.".endswith(rest)
    assert rest.startswith("them.")
    assert any(piece.audio.startswith(b"\2") for piece in speech)
    assert [
        record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING
    ] == [f"tts a failed: {cause}; b takes over"]


def test_model_that_is_slower_than_speech_is_no_failure_of_the_voice() -> None:
    tts = StreamTTS()
    chain = FallbackTTS(members(tts, Engine()), SETTINGS)
    speech = run(spoken(chain, "One. ", 8.0, "Two. ", 8.0, "Three."))
    assert tts.answers == [["One. ", "Two. ", "Three."]]
    marks = [mark for piece in speech for mark in piece.marks]
    assert [(mark.start, mark.end) for mark in marks] == [(0, 4), (5, 9), (10, 16)]


def test_chain_whose_last_engine_fails_raises() -> None:
    chain = FallbackTTS(members(StreamTTS({"One.": EngineError("no")})), SETTINGS)
    with pytest.raises(EngineError, match="no"):
        run(spoken(chain, "One. ", 0.1, "Two."))
    assert run(spoken(chain)) == []


def test_engines_that_take_text_as_it_comes_conform_to_the_contract() -> None:
    async def main() -> None:
        await check_tts(StreamTTS())
        await check_tts(FallbackTTS(members(StreamTTS(), ScriptedEngines().tts), SETTINGS))

    run(main())


def test_kept_text_is_read_no_further_than_it_is_bounded_and_passes_errors_on() -> None:
    taken: list[int] = []

    async def source() -> AsyncIterator[str]:
        for n in range(4):
            taken.append(n)
            yield "x" * MAX_AHEAD_CHARACTERS
        raise EngineError("it broke")

    async def main() -> None:
        async with KeptText(source()) as kept:
            assert await kept.reaches()
            await asyncio.sleep(1.0)
            assert len(taken) == 2
            with pytest.raises(EngineError, match="it broke"):
                async for _ in kept.pieces():
                    pass
            with pytest.raises(EngineError, match="it broke"):
                await kept.reaches(len(kept.text))
            assert len(taken) == 4

    run(main())
