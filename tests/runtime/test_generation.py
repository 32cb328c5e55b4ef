"""An answer is generated and spoken at the same time; a failure is posted once."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.runtime.stage import ScriptedEngines
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
from vivavoce.protocol.items import FunctionCall, FunctionCallOutput, FunctionTool, Message
from vivavoce.runtime.catalog import Cascade
from vivavoce.runtime.generation import CLAUSES_AHEAD, answer
from vivavoce.runtime.text_generation import MAX_ROUNDS, ServerCalls
from vivavoce.session.effects import (
    CALL_RUNS,
    TOO_MANY_CALLS,
    Filler,
    Generate,
    Prompt,
    RunTool,
)
from vivavoce.session.facts import (
    AudioGenerated,
    GenerationFact,
    GenerationFailed,
    GenerationFinished,
    GenerationProgress,
    OutputFinished,
    SpeechFailed,
    SpokenWord,
    TextGenerated,
    TokenCounts,
    ToolCallArguments,
    ToolCallStarted,
)
from vivavoce.session.limits import MAX_BACKGROUND_CALLS
from vivavoce.testing.virtual_time import run

PROMPT = Prompt(
    model="default",
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
STOCK_TOOL = FunctionTool("stock")


class ListLLM:
    """An LLM that yields these things; an exception is raised."""

    sees = False
    Settings: Any = None

    def __init__(self, *things: ChatEvent | Exception | float) -> None:
        self._things = things
        self.yielded = 0
        self.open = 0

    async def __aenter__(self) -> "ListLLM":
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


class ListTTS(ListLLM):
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
    cascade = ScriptedEngines(**scripts).cascade
    return replace(cascade, llm=llm or cascade.llm, tts=tts or cascade.tts)


async def _no_wait() -> None: ...


async def performed(
    cascade: Cascade, prompt: Prompt = PROMPT
) -> list[tuple[float, GenerationFact]]:
    """What is posted, and when."""
    posted: list[tuple[float, GenerationFact]] = []
    clock = asyncio.get_running_loop().time
    await answer(
        Generate("r", prompt), cascade, lambda fact: posted.append((clock(), fact)), _no_wait
    )
    return posted


def facts(cascade: Cascade, prompt: Prompt = PROMPT) -> list[GenerationFact]:
    return [fact for _, fact in run(performed(cascade, prompt))]


def said(posted: Sequence[GenerationFact]) -> str:
    return "".join(
        word.text for fact in posted if isinstance(fact, AudioGenerated) for word in fact.words
    )


def sound(posted: Sequence[GenerationFact]) -> bytes:
    return b"".join(fact.audio for fact in posted if isinstance(fact, AudioGenerated))


def llm(*answers: Any) -> dict[str, Any]:
    return {"answers": list(answers)}


def test_spoken_answer_posts_progress_finish_text_audio_and_end() -> None:
    posted = facts(cast(tts=ListTTS(Speech(b"\1\0" * 240, (Mark(0, 0, 5),)))))
    text = "Hello! This answer stands in a script."
    assert [type(fact).__name__ for fact in posted if not isinstance(fact, AudioGenerated)] == [
        "GenerationProgress",
        "GenerationFinished",
        "TextGenerated",
        "TextGenerated",
        "OutputFinished",
    ]
    assert "".join(fact.text for fact in posted if isinstance(fact, TextGenerated)) == text
    assert said(posted) == text
    assert len(sound(posted)) == 2 * 2 * 240
    assert [f.reason for f in posted if isinstance(f, GenerationFinished)] == ["stop"]


def test_written_answer_is_posted_as_it_comes_and_not_spoken() -> None:
    tts = ListTTS()
    posted = facts(cast(tts=tts, llm=ListLLM(*map(TextDelta, "a b"), ChatEnded())), WRITTEN)
    assert [fact for fact in posted if not isinstance(fact, GenerationFinished)] == [
        TextGenerated("r", "a"),
        TextGenerated("r", " "),
        TextGenerated("r", "b"),
        OutputFinished("r"),
    ]
    assert tts.asked == []


def test_tool_calls_are_posted_as_they_come_beside_text() -> None:
    call = {"name": "weather", "arguments": {"city": "Rome"}}
    posted = facts(scripted(text="One.", calls=[call]))
    assert ToolCallStarted("r", 0, "call_1", "weather") in posted
    assert (
        "".join(f.arguments for f in posted if isinstance(f, ToolCallArguments))
        == '{"city":"Rome"}'
    )
    assert said(posted) == "One."
    assert posted[-1] == OutputFinished("r")


def scripted(**answered: Any) -> Cascade:
    return ScriptedEngines(llm=llm(answered)).cascade


def test_tool_calls_alone_are_an_answer() -> None:
    posted = facts(scripted(calls=[{"name": "hang_up"}]))
    assert said(posted) == ""
    assert posted[-1] == OutputFinished("r")


CALL = (CallStarted(0, "c1", "stock"), CallDelta(0, '{"of": "lime"}'))
STOCK = replace(
    PROMPT, items=(Message(id="item_1", role="user", content=()),), server_tools=(STOCK_TOOL,)
)


class RoundsLLM(ListLLM):
    """An LLM that yields one of these lists for each request."""

    def __init__(self, *rounds: Sequence[ChatEvent]) -> None:
        super().__init__()
        self.rounds = list(rounds)
        self.requests: list[ChatRequest] = []

    async def generate(self, request: ChatRequest) -> AsyncGenerator[ChatEvent]:
        self.requests.append(request)
        for event in self.rounds.pop(0):
            yield event


def with_tool(llm_: RoundsLLM, prompt: Prompt = STOCK, seconds: float = 0.0) -> Any:
    """What is posted of two answers of one session, and the calls of the function."""
    ran: list[RunTool] = []

    async def stock(order: RunTool) -> str:
        ran.append(order)
        await asyncio.sleep(seconds)
        return "3 left"

    async def main() -> list[tuple[float, GenerationFact]]:
        posted: list[tuple[float, GenerationFact]] = []
        clock, calls = asyncio.get_running_loop().time, ServerCalls(stock)
        while llm_.rounds:
            post = lambda fact: posted.append((clock(), fact))  # noqa: E731
            await answer(Generate("r", prompt), cast(llm=llm_), post, _no_wait, calls=calls)
        return posted

    return run(main()), ran


def test_server_function_is_answered_within_the_answer_and_nobody_sees_it() -> None:
    llm_ = RoundsLLM(
        [TextDelta("Let me look."), *CALL, ChatEnded("stop", ChatUsage(5, 7, 3))],
        [TextDelta("Three."), ChatEnded("stop", ChatUsage(9, 2, 0))],
        [TextDelta("Bye."), ChatEnded()],
    )
    posted, ran = with_tool(llm_)
    facts_ = [fact for _, fact in posted]
    assert ran == [RunTool("c1", "stock", '{"of": "lime"}')]
    assert said(facts_) == "Let me look. Three.Bye."
    assert not [fact for fact in facts_ if isinstance(fact, ToolCallStarted | ToolCallArguments)]
    finished = [fact for fact in facts_ if isinstance(fact, GenerationFinished)]
    assert [fact.tokens for fact in finished] == [TokenCounts(14, 9, 3), None]
    first, second, later = llm_.requests
    assert (first.tools, first.items) == ((STOCK_TOOL,), STOCK.items)
    call, output = second.items[1:]
    assert call == FunctionCall(call_id="c1", name="stock", arguments='{"of": "lime"}')
    assert output == FunctionCallOutput(call_id="c1", output="3 left")
    assert later.items == second.items  # a later answer of the session has it, too


def test_slow_server_function_stops_no_sound_and_is_progress() -> None:
    llm_ = RoundsLLM(
        [TextDelta("Let me look."), *CALL, ChatEnded()], [TextDelta("Three."), ChatEnded()]
    )
    posted, _ = with_tool(llm_, seconds=5.0)
    heard = [at for at, fact in posted if isinstance(fact, AudioGenerated) and fact.audio]
    assert (heard[0], heard[-1]) == (0.0, 5.0)
    waits = [at for at, fact in posted if fact == GenerationProgress("r", writes=False)]
    assert waits == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_server_function_in_the_background_holds_no_answer_up_and_the_next_has_its_result() -> None:
    llm_ = RoundsLLM(
        [*CALL, ChatEnded()],
        [TextDelta("I am looking."), ChatEnded()],
        [TextDelta("Three."), ChatEnded()],
    )
    begun: list[RunTool] = []

    async def main() -> None:
        calls = ServerCalls(_never, begun.append)
        prompt = replace(STOCK, background_tools=frozenset({"stock"}))
        await answer(Generate("r", prompt), cast(llm=llm_), posted.append, _no_wait, calls=calls)
        calls.finish(begun[0], "3 left")
        out_of_band = replace(prompt, background_tools=frozenset())
        assert calls.with_results(out_of_band.items) == llm_.requests[1].items
        await answer(Generate("r", prompt), cast(llm=llm_), posted.append, _no_wait, calls=calls)

    posted: list[GenerationFact] = []
    run(main())
    assert said(posted) == "I am looking.Three."
    assert begun == [RunTool("c1", "stock", '{"of": "lime"}')]
    assert llm_.requests[1].items[-1] == FunctionCallOutput(call_id="c1", output=CALL_RUNS)
    call, output = llm_.requests[2].items[-2:]
    assert call == FunctionCall(call_id="c1_result", name="stock", arguments='{"of": "lime"}')
    assert output == FunctionCallOutput(call_id="c1_result", output="3 left")


async def _never(order: RunTool) -> str:
    raise AssertionError(order)


def test_server_functions_in_the_background_are_bounded() -> None:
    begun: list[RunTool] = []

    async def main() -> list[str]:
        calls = ServerCalls(_never, begun.append)
        orders = [RunTool(f"c{n}", "stock", "") for n in range(MAX_BACKGROUND_CALLS + 1)]
        return [await calls.run(order, frozenset({"stock"})) for order in orders]

    assert run(main()) == [CALL_RUNS] * MAX_BACKGROUND_CALLS + [TOO_MANY_CALLS]
    assert len(begun) == MAX_BACKGROUND_CALLS


def test_server_function_beside_one_of_the_client_leaves_the_next_answer_to_it() -> None:
    both: list[ChatEvent] = [
        *CALL,
        CallStarted(1, "c2", "hang_up"),
        CallDelta(1, "{}"),
        ChatEnded(),
    ]
    llm_ = RoundsLLM(both, [TextDelta("Bye."), ChatEnded()])
    posted, ran = with_tool(llm_, replace(STOCK, tools=(FunctionTool("hang_up"),)))
    assert [fact.name for _, fact in posted if isinstance(fact, ToolCallStarted)] == ["hang_up"]
    assert [order.name for order in ran] == ["stock"]
    assert len(llm_.requests[1].items) == 3  # the next answer has the result


def test_server_function_is_not_called_for_ever() -> None:
    calling: list[ChatEvent] = [*CALL, ChatEnded()]
    llm_ = RoundsLLM(*[calling] * MAX_ROUNDS, [TextDelta("Enough."), ChatEnded()])
    posted, ran = with_tool(llm_, replace(STOCK, tool_choice="required", items=()))
    assert len(ran) == MAX_ROUNDS
    choices = [request.tool_choice for request in llm_.requests]
    assert choices == ["required", *["auto"] * (MAX_ROUNDS - 1), "none"]
    assert llm_.requests[-1].tools == ()
    assert said([fact for _, fact in posted]) == "Enough."


def test_server_function_call_of_a_cut_answer_is_not_followed() -> None:
    llm_ = RoundsLLM([*CALL, ChatEnded("length")])
    posted, _ = with_tool(llm_)
    assert posted[-1][1] == OutputFinished("r")
    assert len(llm_.requests) == 1


def test_token_counts_are_posted() -> None:
    counted = ChatEnded("stop", ChatUsage(5, 7, 3))
    posted = facts(cast(llm=ListLLM(TextDelta("Yes."), counted)))
    assert GenerationFinished("r", "stop", TokenCounts(5, 7, 3)) in posted


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_cut_answer_posts_its_reason_even_if_empty(reason: Any) -> None:
    posted = facts(cast(llm=ListLLM(ChatEnded(reason))))
    assert posted == [GenerationFinished("r", reason), OutputFinished("r")]


@pytest.mark.parametrize("text", ["", " ", "\n\n"])
def test_empty_answer_is_a_failure(text: str) -> None:
    posted = facts(cast(llm=ListLLM(TextDelta(text), ChatEnded())))
    assert posted[-1] == GenerationFailed("r", "llm", "the language model gave an empty answer")
    assert OutputFinished("r") not in posted


def test_model_failure_fails_the_answer() -> None:
    assert facts(scripted(error="no such model")) == [GenerationFailed("r", "llm", "no such model")]


def test_apology_is_spoken_before_the_failure_of_a_model_that_said_nothing() -> None:
    failing = replace(scripted(error="no such model"), apology="Sorry, not now.")
    posted = facts(failing)
    assert said(posted) == "Sorry, not now."
    assert posted[-1] == GenerationFailed("r", "llm", "no such model")
    assert facts(failing, WRITTEN) == [GenerationFailed("r", "llm", "no such model")]
    begun = replace(scripted(text="One two", error="gone", fail_after_words=1), apology="Sorry.")
    assert said(facts(begun)) == "One "


def test_model_failure_in_the_middle_keeps_what_was_spoken() -> None:
    posted = facts(scripted(text="One. Two three four", error="gone", fail_after_words=3))
    assert said(posted) == "One. Two three "
    assert posted[-1] == GenerationFailed("r", "llm", "gone")
    assert not [fact for fact in posted if isinstance(fact, GenerationFinished | OutputFinished)]


def test_model_stream_without_an_end_is_a_failure_and_loses_no_word() -> None:
    posted = facts(cast(llm=ListLLM(TextDelta("One. Two"))))
    assert said(posted) == "One. Two"
    assert posted[-1] == GenerationFailed(
        "r", "llm", "the language model's answer broke off without an end"
    )


@pytest.mark.parametrize("before", [0, 1, 30])
def test_synthesiser_failure_leaves_the_rest_of_the_answer_in_writing(before: int) -> None:
    llm_ = ListLLM(*[TextDelta("Some words. ")] * 50, ChatEnded())
    tts = ListTTS(*[Speech(b"\1\0" * 24)] * before, EngineError("no voice"))
    posted = facts(cast(llm=llm_, tts=tts))
    assert posted[-1] == OutputFinished("r")
    assert posted.count(SpeechFailed("r", "no voice")) == 1
    words = [w for fact in posted if isinstance(fact, AudioGenerated) for w in fact.words]
    assert "".join(word.text for word in words) == said(posted) == "Some words. " * 50
    assert words[-1].at == before * 24 == len(sound(posted)) // 2
    assert (llm_.open, tts.open, tts.asked) == (0, 0, ["Some words. "])


def test_words_of_a_clause_begin_after_the_clause_before() -> None:
    tts = ListTTS(Speech(b"\1\0" * 1000, (Mark(500, 0, 3),)))
    posted = facts(cast(llm=ListLLM(TextDelta("One. Two."), ChatEnded()), tts=tts))
    words = [word for fact in posted if isinstance(fact, AudioGenerated) for word in fact.words]
    assert words == [SpokenWord("One. ", 500), SpokenWord("Two.", 1500)]


def test_blank_clause_is_posted_and_not_spoken() -> None:
    tts = ListTTS(Speech(b"\1\0" * 10))
    blank = " " * 300
    posted = facts(cast(llm=ListLLM(TextDelta(f"One. {blank}Two."), ChatEnded()), tts=tts))
    assert said(posted) == f"One. {blank}Two."
    posted = facts(cast(llm=ListLLM(TextDelta(f"{blank}x"), ChatEnded()), tts=tts))
    assert said(posted) == f"{blank}x"
    assert all(clause.strip() for clause in tts.asked)


def test_long_audio_from_the_engine_is_posted_in_pieces() -> None:
    tts = ListTTS(Speech(b"\1\0" * 24_000, (Mark(0, 0, 4),)))
    posted = facts(cast(llm=ListLLM(TextDelta("Word."), ChatEnded()), tts=tts))
    parts = [fact for fact in posted if isinstance(fact, AudioGenerated)]
    assert [len(part.audio) // 48 for part in parts] == [400, 400, 200, 0]
    assert [bool(part.words) for part in parts] == [True, False, False, False]
    assert [part.ends for part in parts] == [False, False, False, True]


def test_engine_audio_is_resampled_to_24_khz() -> None:
    class Low(ListTTS):
        sample_rate = 16_000

    tts = Low(*[Speech(b"\1\0" * 1600)] * 10)
    posted = facts(cast(llm=ListLLM(TextDelta("Word."), ChatEnded()), tts=tts))
    assert len(sound(posted)) == 2 * 24_000


def test_model_runs_ahead_of_speech_by_a_bounded_number_of_clauses() -> None:
    llm_ = ListLLM(*[TextDelta("Word. ")] * 500, ChatEnded())

    async def main() -> None:
        task = asyncio.create_task(performed(cast(llm=llm_, tts=ListTTS(60.0))))
        await asyncio.sleep(1)
        # one clause is being spoken, and one waits for the queue
        assert llm_.yielded == CLAUSES_AHEAD + 2
        task.cancel()
        await asyncio.wait([task])

    run(main())


def test_progress_is_posted_at_the_first_word_and_each_second() -> None:
    words: list[Any] = [TextDelta("\n"), 5.0, *[TextDelta("word "), 0.5] * 6, ChatEnded()]
    posted = run(performed(cast(llm=ListLLM(*words))))
    assert [at for at, fact in posted if isinstance(fact, GenerationProgress)] == [5.0, 6.0, 7.0]


@pytest.mark.parametrize("prompt", [PROMPT, WRITTEN])
@pytest.mark.parametrize("blank", [[0], [2], [0, 1, 2]])
def test_white_space_around_a_call_is_dropped(prompt: Prompt, blank: list[int]) -> None:
    events: list[Any] = [CallStarted(0, "c", "wave"), CallDelta(0, "{}")]
    for place in reversed(blank):
        events.insert(place, TextDelta("\n"))
    posted = facts(cast(llm=ListLLM(*events, ChatEnded())), prompt)
    assert [type(fact).__name__ for fact in posted] == [
        "ToolCallStarted",
        "ToolCallArguments",
        "GenerationFinished",
        "OutputFinished",
    ]


def test_first_audio_does_not_wait_for_the_last_word() -> None:
    slow = scripted(text="One. Two. Three.", tokens_per_second=1)
    posted = run(performed(slow))
    first = next(at for at, fact in posted if isinstance(fact, AudioGenerated))
    assert (first, posted[-1]) == (0.0, (2.0, OutputFinished("r")))


LONG = "I can help you with that whenever you like because today my calendar is empty all day."


def spoken_clauses(posted: list[tuple[float, GenerationFact]]) -> list[str]:
    return [fact.text for _, fact in posted if isinstance(fact, TextGenerated)]


@pytest.mark.parametrize("tokens_per_second", [12, 40, 200])
def test_first_words_are_spoken_before_their_clause_is_complete(tokens_per_second: int) -> None:
    engines = ScriptedEngines(
        llm=llm({"text": LONG, "first_token_seconds": 0.5, "tokens_per_second": tokens_per_second}),
        tts={"first_audio_seconds": 0.3, "ms_per_character": 65},
    )
    posted = run(performed(engines.cascade))
    heard = [(at, len(f.audio) / 48_000) for at, f in posted if isinstance(f, AudioGenerated)]
    until = heard[0][0]
    assert until <= 0.85 + 1e-6 or tokens_per_second == 12
    for at, seconds in heard:
        assert at <= until + 1e-6, "a pause is heard where the next words come too late"
        until += seconds
    assert said([fact for _, fact in posted]) == LONG
    assert 2 <= len(spoken_clauses(posted)) <= 5


def test_model_slower_than_speech_is_spoken_in_whole_clauses() -> None:
    slow = scripted(text="One two three four, five. Six.", tokens_per_second=2)
    assert spoken_clauses(run(performed(slow))) == ["One two three four, ", "five. ", "Six."]


def test_text_that_is_there_already_is_cut_as_a_whole() -> None:
    assert spoken_clauses(run(performed(scripted(text=LONG)))) == [LONG]


def test_backpressure_holds_synthesis() -> None:
    async def main() -> None:
        posted: list[GenerationFact] = []
        open_ = asyncio.Event()

        async def wait_writable() -> None:
            await open_.wait()

        cascade = ScriptedEngines(llm=llm("word " * 100)).cascade
        task = asyncio.create_task(
            answer(Generate("r", PROMPT), cascade, posted.append, wait_writable)
        )
        await asyncio.sleep(1000)
        assert len([fact for fact in posted if isinstance(fact, AudioGenerated)]) == 1
        open_.set()
        await task
        assert posted[-1] == OutputFinished("r")

    run(main())


@pytest.mark.parametrize(
    "cascade",
    [
        cast(llm=ListLLM(TextDelta("One. "), 60.0), tts=ListTTS(Speech(b"\1\0" * 9))),
        cast(llm=ListLLM(TextDelta("One. Two. ")), tts=ListTTS(Speech(b"\1\0" * 9), 60.0)),
        cast(llm=ListLLM(*[TextDelta("One. ")] * 99), tts=ListTTS(60.0)),
    ],
    ids=["while the model waits", "while the engine waits", "while the model is ahead"],
)
def test_cancelling_closes_both_engines(cascade: Cascade) -> None:
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
    "cascade", [cast(llm=ListLLM(KeyError("bug"))), cast(tts=ListTTS(KeyError("bug")))]
)
def test_unexpected_engine_exception_is_raised(
    cascade: Cascade,
) -> None:
    with pytest.raises(ExceptionGroup) as raised:
        facts(cascade)
    assert raised.group_contains(KeyError)


def test_unknown_voice_is_replaced_by_the_models_own() -> None:
    scripted = ScriptedEngines(tts={"voices": ["bass", "tenor"], "default_voice": "tenor"})
    run(performed(scripted.cascade))
    assert {voice for _, voice, _ in scripted.tts.spoken} == {"tenor"}


def test_chat_request_has_all_settings_of_the_prompt() -> None:
    scripted = ScriptedEngines()
    prompt = replace(PROMPT, language="it", max_output_tokens=9)
    run(performed(scripted.cascade, prompt))
    assert scripted.llm.requests == [
        ChatRequest("Be kind.", (), max_output_tokens=9, language="it"),
    ]
    assert {(voice, speed) for _, voice, speed in scripted.tts.spoken} == {("alloy", 1.0)}


HURRIED = Filler("One moment.", 1.0)


def filled(first_token_seconds: float, **how: Any) -> list[tuple[float, str]]:
    """The clauses of an answer with a filler, and when each goes to the voice."""

    async def main() -> list[tuple[float, GenerationFact]]:
        posted: list[tuple[float, GenerationFact]] = []
        clock = asyncio.get_running_loop().time
        answers = {"text": "It is late.", "first_token_seconds": first_token_seconds} | how
        cascade = ScriptedEngines(llm={"answers": [answers]}).cascade
        order = Generate("r", PROMPT, filler=HURRIED)
        await answer(order, cascade, lambda fact: posted.append((clock(), fact)), _no_wait)
        return posted

    return [(at, fact.text) for at, fact in run(main()) if isinstance(fact, TextGenerated)]


def test_filler_is_said_where_nothing_comes_of_the_model() -> None:
    (first, filler), (second, text) = filled(3.0)
    assert (filler, text) == ("One moment. ", "It is late.")
    assert first == pytest.approx(1.0, abs=0.01)
    assert second == pytest.approx(3.0, abs=0.1)


def test_filler_is_not_said_where_the_model_answers_in_time() -> None:
    assert [text for _, text in filled(0.9)] == ["It is late."]


def test_filler_is_said_before_the_call_of_a_slow_model() -> None:
    said_ = filled(3.0, text="", calls=[{"name": "wave"}])
    assert [text for _, text in said_] == ["One moment. "]
