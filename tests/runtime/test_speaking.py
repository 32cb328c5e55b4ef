"""An answer is thought and spoken at the same time, and whatever breaks off is told once."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.runtime.stage import Troupe
from vivavoce.engines.base import (
    CallDelta,
    CallStarted,
    ChatEnded,
    ChatEvent,
    ChatRequest,
    ChatUsage,
    Mark,
    Speech,
    TextDelta,
)
from vivavoce.errors import EngineError
from vivavoce.runtime.catalog import Cascade
from vivavoce.runtime.generation import CLAUSES_AHEAD, answer
from vivavoce.session.effects import Generate, Prompt
from vivavoce.session.facts import (
    AudioGenerated,
    GenerationFact,
    GenerationFailed,
    GenerationFinished,
    GenerationProgress,
    OutputFinished,
    SpokenWord,
    TextGenerated,
    TokenCounts,
    ToolCallArguments,
    ToolCallStarted,
)
from vivavoce.testing.virtual_time import run

PROMPT = Prompt(
    model="house",
    instructions="Be kind.",
    items=(),
    tools=(),
    tool_choice="auto",
    parallel_tool_calls=True,
    max_output_tokens=None,
    language=None,
    spoken=True,
    voice="alloy",
    speed=1.0,
)
WRITTEN = replace(PROMPT, spoken=False)


class Thinker:
    """An LLM that yields these things; an exception is raised."""

    sees = False
    Settings: Any = None

    def __init__(self, *things: ChatEvent | Exception | float) -> None:
        self._things = things
        self.yielded = 0
        self.open = 0

    async def __aenter__(self) -> "Thinker":
        return self

    async def __aexit__(self, *exc: object) -> None: ...

    async def generate(self, request: ChatRequest) -> AsyncGenerator[ChatEvent]:
        self.open += 1
        try:
            for thing in self._things:
                if isinstance(thing, Exception):
                    raise thing
                if isinstance(thing, float):
                    await asyncio.sleep(thing)
                else:
                    self.yielded += 1
                    yield thing
        finally:
            self.open -= 1


class Mouth(Thinker):
    """A TTS that yields these things for every clause."""

    sample_rate = 24_000
    voices = ()
    default_voice = ""

    def __init__(self, *things: Speech | Exception | float) -> None:
        self._speech = things
        self.asked: list[str] = []
        self.open = 0

    async def synthesize(self, text: str, **how: Any) -> AsyncGenerator[Speech]:
        self.asked.append(text)
        self.open += 1
        try:
            for thing in self._speech:
                if isinstance(thing, Exception):
                    raise thing
                if isinstance(thing, float):
                    await asyncio.sleep(thing)
                else:
                    yield thing
        finally:
            self.open -= 1


def cast(llm: Any = None, tts: Any = None, **scripts: Any) -> Cascade:
    """A cascade: scripted, or with these engines in it."""
    cascade = Troupe(**scripts).cascade
    return replace(cascade, llm=llm or cascade.llm, tts=tts or cascade.tts)


async def _no_wait() -> None: ...


async def performed(
    cascade: Cascade, prompt: Prompt = PROMPT
) -> list[tuple[float, GenerationFact]]:
    """What is told, and when."""
    told: list[tuple[float, GenerationFact]] = []
    clock = asyncio.get_running_loop().time
    await answer(
        Generate("r", prompt), cascade, lambda fact: told.append((clock(), fact)), _no_wait
    )
    return told


def facts(cascade: Cascade, prompt: Prompt = PROMPT) -> list[GenerationFact]:
    return [fact for _, fact in run(performed(cascade, prompt))]


def said(told: Sequence[GenerationFact]) -> str:
    return "".join(
        word.text for fact in told if isinstance(fact, AudioGenerated) for word in fact.words
    )


def sound(told: Sequence[GenerationFact]) -> bytes:
    return b"".join(fact.audio for fact in told if isinstance(fact, AudioGenerated))


def llm(*answers: Any) -> dict[str, Any]:
    return {"answers": list(answers)}


def test_an_answer_is_thought_spoken_concluded_and_ended() -> None:
    told = facts(cast(tts=Mouth(Speech(b"\1\0" * 240, (Mark(0, 0, 5),)))))
    text = "Hello! This answer stands in a script."
    assert [type(fact).__name__ for fact in told if not isinstance(fact, AudioGenerated)] == [
        "GenerationProgress",
        "GenerationFinished",
        "TextGenerated",
        "TextGenerated",
        "OutputFinished",
    ]
    assert "".join(fact.text for fact in told if isinstance(fact, TextGenerated)) == text
    assert said(told) == text
    assert len(sound(told)) == 2 * 2 * 240
    assert [f.reason for f in told if isinstance(f, GenerationFinished)] == ["stop"]


def test_a_written_answer_comes_as_the_model_gives_it_and_is_not_spoken() -> None:
    mouth = Mouth()
    told = facts(cast(tts=mouth, llm=Thinker(*map(TextDelta, "a b"), ChatEnded())), WRITTEN)
    assert [fact for fact in told if not isinstance(fact, GenerationFinished)] == [
        TextGenerated("r", "a"),
        TextGenerated("r", " "),
        TextGenerated("r", "b"),
        OutputFinished("r"),
    ]
    assert mouth.asked == []


def test_calls_are_told_as_they_come_beside_the_words() -> None:
    call = {"name": "weather", "arguments": {"city": "Rome"}}
    told = facts(scripted(text="One.", calls=[call]))
    assert ToolCallStarted("r", 0, "call_1", "weather") in told
    assert (
        "".join(f.arguments for f in told if isinstance(f, ToolCallArguments)) == '{"city":"Rome"}'
    )
    assert said(told) == "One."
    assert told[-1] == OutputFinished("r")


def scripted(**answered: Any) -> Cascade:
    return Troupe(llm=llm(answered)).cascade


def test_calls_alone_are_an_answer() -> None:
    told = facts(scripted(calls=[{"name": "hang_up"}]))
    assert said(told) == ""
    assert told[-1] == OutputFinished("r")


def test_what_the_model_counted_is_told() -> None:
    counted = ChatEnded("stop", ChatUsage(5, 7, 3))
    told = facts(cast(llm=Thinker(TextDelta("Yes."), counted)))
    assert GenerationFinished("r", "stop", TokenCounts(5, 7, 3)) in told


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_an_answer_that_was_cut_says_why_even_if_nothing_came(reason: Any) -> None:
    told = facts(cast(llm=Thinker(ChatEnded(reason))))
    assert told == [GenerationFinished("r", reason), OutputFinished("r")]


@pytest.mark.parametrize("text", ["", " ", "\n\n"])
def test_an_empty_answer_is_a_failure(text: str) -> None:
    told = facts(cast(llm=Thinker(TextDelta(text), ChatEnded())))
    assert told[-1] == GenerationFailed("r", "llm", "the language model gave an empty answer")
    assert OutputFinished("r") not in told


def test_a_model_that_fails_at_once_fails_the_answer() -> None:
    assert facts(scripted(error="no such model")) == [GenerationFailed("r", "llm", "no such model")]


def test_a_model_that_fails_in_the_middle_is_heard_so_far() -> None:
    told = facts(scripted(text="One. Two three four", error="gone", fail_after_words=3))
    assert said(told) == "One. Two three "
    assert told[-1] == GenerationFailed("r", "llm", "gone")
    assert not [fact for fact in told if isinstance(fact, GenerationFinished | OutputFinished)]


def test_a_model_that_ends_without_an_end_is_found_out_and_no_word_is_lost() -> None:
    told = facts(cast(llm=Thinker(TextDelta("One. Two"))))
    assert said(told) == "One. Two"
    assert told[-1] == GenerationFailed(
        "r", "llm", "the language model's answer broke off without an end"
    )


@pytest.mark.parametrize("before", [0, 1, 30])
def test_a_voice_that_fails_ends_the_answer_and_the_thinking(before: int) -> None:
    thinker = Thinker(*[TextDelta("Word. ")] * 500, 1000.0, ChatEnded())
    mouth = Mouth(*[Speech(b"\1\0" * 24)] * before, EngineError("hoarse"))
    told = run(performed(cast(llm=thinker, tts=mouth)))
    assert told[-1] == (0.0, GenerationFailed("r", "tts", "hoarse"))
    assert len(sound([fact for _, fact in told])) == before * 48
    assert (thinker.open, mouth.open, mouth.asked) == (0, 0, ["Word. "])


def test_words_of_a_clause_begin_where_the_one_before_ended() -> None:
    mouth = Mouth(Speech(b"\1\0" * 1000, (Mark(500, 0, 3),)))
    told = facts(cast(llm=Thinker(TextDelta("One. Two."), ChatEnded()), tts=mouth))
    words = [word for fact in told if isinstance(fact, AudioGenerated) for word in fact.words]
    assert words == [SpokenWord("One. ", 500), SpokenWord("Two.", 1500)]


def test_a_clause_of_nothing_but_space_is_told_and_not_spoken() -> None:
    mouth = Mouth(Speech(b"\1\0" * 10))
    blank = " " * 300
    told = facts(cast(llm=Thinker(TextDelta(f"One. {blank}Two."), ChatEnded()), tts=mouth))
    assert said(told) == f"One. {blank}Two."
    told = facts(cast(llm=Thinker(TextDelta(f"{blank}x"), ChatEnded()), tts=mouth))
    assert said(told) == f"{blank}x"
    assert all(clause.strip() for clause in mouth.asked)


def test_a_voice_that_gives_all_at_once_is_told_in_parts() -> None:
    mouth = Mouth(Speech(b"\1\0" * 24_000, (Mark(0, 0, 4),)))
    told = facts(cast(llm=Thinker(TextDelta("Word."), ChatEnded()), tts=mouth))
    parts = [fact for fact in told if isinstance(fact, AudioGenerated)]
    assert [len(part.audio) // 48 for part in parts] == [400, 400, 200, 0]
    assert [bool(part.words) for part in parts] == [True, False, False, False]
    assert [part.ends for part in parts] == [False, False, False, True]


def test_a_voice_of_another_rate_is_heard_at_ours() -> None:
    class Low(Mouth):
        sample_rate = 16_000

    mouth = Low(*[Speech(b"\1\0" * 1600)] * 10)
    told = facts(cast(llm=Thinker(TextDelta("Word."), ChatEnded()), tts=mouth))
    assert len(sound(told)) == 2 * 24_000


def test_the_model_thinks_on_while_the_voice_speaks_but_not_without_bound() -> None:
    thinker = Thinker(*[TextDelta("Word. ")] * 500, ChatEnded())

    async def main() -> None:
        task = asyncio.create_task(performed(cast(llm=thinker, tts=Mouth(60.0))))
        await asyncio.sleep(1)
        # one clause is being spoken, and one waits until there is room for it
        assert thinker.yielded == CLAUSES_AHEAD + 2
        task.cancel()
        await asyncio.wait([task])

    run(main())


def test_a_model_that_finishes_no_clause_is_told_of_at_its_first_word_and_each_second() -> None:
    words: list[Any] = [TextDelta("\n"), 5.0, *[TextDelta("word "), 0.5] * 6, ChatEnded()]
    told = run(performed(cast(llm=Thinker(*words))))
    assert [at for at, fact in told if isinstance(fact, GenerationProgress)] == [5.0, 6.0, 7.0]


@pytest.mark.parametrize("prompt", [PROMPT, WRITTEN])
@pytest.mark.parametrize("blank", [[0], [2], [0, 1, 2]])
def test_blanks_around_a_call_are_no_answer(prompt: Prompt, blank: list[int]) -> None:
    events: list[Any] = [CallStarted(0, "c", "wave"), CallDelta(0, "{}")]
    for place in reversed(blank):
        events.insert(place, TextDelta("\n"))
    told = facts(cast(llm=Thinker(*events, ChatEnded())), prompt)
    assert [type(fact).__name__ for fact in told] == [
        "ToolCallStarted",
        "ToolCallArguments",
        "GenerationFinished",
        "OutputFinished",
    ]


def test_the_first_sound_does_not_wait_for_the_last_word() -> None:
    slow = scripted(text="One. Two. Three.", tokens_per_second=1)
    told = run(performed(slow))
    first = next(at for at, fact in told if isinstance(fact, AudioGenerated))
    assert (first, told[-1]) == (0.0, (2.0, OutputFinished("r")))


def test_a_client_that_is_behind_holds_the_voice_up() -> None:
    async def main() -> None:
        told: list[GenerationFact] = []
        open_ = asyncio.Event()

        async def room() -> None:
            await open_.wait()

        cascade = Troupe(llm=llm("word " * 100)).cascade
        task = asyncio.create_task(answer(Generate("r", PROMPT), cascade, told.append, room))
        await asyncio.sleep(1000)
        assert len([fact for fact in told if isinstance(fact, AudioGenerated)]) == 1
        open_.set()
        await task
        assert told[-1] == OutputFinished("r")

    run(main())


@pytest.mark.parametrize(
    "cascade",
    [
        cast(llm=Thinker(TextDelta("One. "), 60.0), tts=Mouth(Speech(b"\1\0" * 9))),
        cast(llm=Thinker(TextDelta("One. Two. ")), tts=Mouth(Speech(b"\1\0" * 9), 60.0)),
        cast(llm=Thinker(*[TextDelta("One. ")] * 99), tts=Mouth(60.0)),
    ],
    ids=["while it thinks", "while it speaks", "while the one waits for the other"],
)
def test_stopping_closes_both_engines_at_once(cascade: Cascade) -> None:
    async def main() -> None:
        task = asyncio.create_task(performed(cascade))
        await asyncio.sleep(1)
        assert cascade.llm.open + cascade.tts.open > 0  # type: ignore[attr-defined]
        task.cancel()
        await asyncio.wait([task])
        assert asyncio.get_running_loop().time() == 1.0
        assert (cascade.llm.open, cascade.tts.open) == (0, 0)  # type: ignore[attr-defined]

    run(main())


@pytest.mark.parametrize(
    "cascade", [cast(llm=Thinker(KeyError("bug"))), cast(tts=Mouth(KeyError("bug")))]
)
def test_what_an_engine_does_not_raise_on_purpose_is_not_taken_for_a_failure(
    cascade: Cascade,
) -> None:
    with pytest.raises(ExceptionGroup) as raised:
        facts(cascade)
    assert raised.group_contains(KeyError)


def test_a_model_whose_voices_are_others_speaks_with_its_own() -> None:
    troupe = Troupe(tts={"voices": ["bass", "tenor"], "default_voice": "tenor"})
    run(performed(troupe.cascade))
    assert {voice for _, voice, _ in troupe.tts.spoken} == {"tenor"}


def test_the_model_is_told_all_it_should_know() -> None:
    troupe = Troupe()
    prompt = replace(PROMPT, language="it", max_output_tokens=9)
    run(performed(troupe.cascade, prompt))
    assert troupe.llm.requests == [
        ChatRequest("Be kind.", (), max_output_tokens=9, language="it"),
    ]
    assert {(voice, speed) for _, voice, speed in troupe.tts.spoken} == {("alloy", 1.0)}
