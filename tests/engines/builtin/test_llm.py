import asyncio
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
import pytest

from vivavoce.engines.base import (
    CallDelta,
    CallStarted,
    ChatEnded,
    ChatEvent,
    ChatRequest,
    ChatUsage,
    TextDelta,
)
from vivavoce.engines.builtin.llm import BuiltinLLM, BuiltinSettings
from vivavoce.engines.builtin.tokens import tokens
from vivavoce.errors import SettingsError
from vivavoce.protocol.items import (
    FunctionCall,
    FunctionCallOutput,
    FunctionTool,
    InputAudio,
    InputImage,
    InputText,
    Item,
    Message,
    OutputAudio,
    ToolChoice,
    ToolName,
)
from vivavoce.testing.virtual_time import run

WEATHER = FunctionTool(
    name="get_weather",
    description="Get the weather of a city",
    parameters={
        "type": "object",
        "properties": {"location": {"type": "string"}},
        "required": ["location"],
    },
)
LIGHT = FunctionTool(name="turn_on_light")


def now() -> datetime:
    return datetime(2026, 11, 21, 15, 45)


def user(text: str) -> Message:
    return Message(role="user", content=(InputAudio(transcript=text),))


def assistant(text: str) -> Message:
    return Message(role="assistant", content=(OutputAudio(text),))


def system(text: str) -> Message:
    return Message(role="system", content=(InputText(text),))


def called(name: str, arguments: str = "{}") -> FunctionCall:
    return FunctionCall(call_id="c", name=name, arguments=arguments)


def returned(output: str) -> FunctionCallOutput:
    return FunctionCallOutput(call_id="c", output=output)


def request(*items: Item, instructions: str = "", **more: Any) -> ChatRequest:
    return ChatRequest(instructions=instructions, items=items, **more)


async def events(asked: ChatRequest, **options: Any) -> list[ChatEvent]:
    async with BuiltinLLM(BuiltinSettings(**options), now) as llm:
        return [event async for event in llm.generate(asked)]


def said(happened: Sequence[ChatEvent]) -> str:
    return "".join(e.text for e in happened if isinstance(e, TextDelta))


def calls(happened: Sequence[ChatEvent]) -> list[tuple[str, Any]]:
    """Names and arguments; deltas are taken only for the call that was begun last."""
    made: list[list[str]] = []
    for event in happened:
        match event:
            case CallStarted(index, call_id, name):
                assert index == len(made)
                assert call_id
                made.append([name, ""])
            case CallDelta(index, arguments):
                assert index == len(made) - 1
                made[-1][1] += arguments
            case _:
                pass
    return [(name, json.loads(arguments)) for name, arguments in made]


def answer(*items: Item, **more: Any) -> str:
    return said(run(events(request(*items, **more))))


def calling(*items: Item, **more: Any) -> list[tuple[str, Any]]:
    return calls(run(events(request(*items, **more))))


@pytest.mark.parametrize(
    ("heard", "begins"),
    [
        ("hello", "Hello!"),
        ("hello world", "Hello, world!"),
        ("good morning", "Hello!"),
        ("Hello! What time is it?", "Hello! It is three forty-five"),
        ("what time is it", "It is three forty-five in the afternoon."),
        ("my name is ada", "Nice to meet you, Ada!"),
        ("what's my name", "You haven't told me your name yet."),
        ("are you an ai", "I'm a small program that works by rules"),
        ("which model are you", "I'm a small program that works by rules"),
        ("how do i connect a real model", "To connect a language model, set CHAT_COMPLETION"),
        ("what is this server", "This is Vivavoce"),
        ("what can you do", "I can "),
        ("go forward ten meters", "I heard: go forward ten meters. But I have no wheels"),
        ("ten of clubs", "The ten of clubs, a fine card."),
        ("eight of spades for of clubs", "I have the eight of spades and the four of clubs."),
        ("spell banana", "B, A, N, A, N, A."),
        ("count to three", "One, two, three."),
        ("say hello world", "Hello world."),
        ("what is twelve times seven", "Twelve times seven is eighty-four."),
        ("let's talk about my dog", "Gladly, let's talk about your dog."),
        ("i feel very sad", "I'm sorry that you feel sad."),
        ("don't do that", "All right, I won't."),
    ],
)
def test_what_it_answers(heard: str, begins: str) -> None:
    assert answer(user(heard)).startswith(begins)


@pytest.mark.parametrize("heard", ["", " ", "[NOISE]", "um"])
def test_speech_without_words_is_asked_for_again(heard: str) -> None:
    assert "again?" in answer(user(heard))


def test_what_is_out_of_reach_is_referred_to() -> None:
    replies = {answer(user(f"the {thing} is blue")) for thing in ("sky", "sea", "bird", "wall")}
    assert len(replies) == 4
    for reply in replies:
        assert " I can " in reply
        assert any(thing in reply for thing in ("sky", "sea", "bird", "wall", "blue"))


@pytest.mark.parametrize(
    ("heard", "said_then"),
    [
        ("what is my name", "Your name is Ada."),
        ("what were we talking about", "We were talking about steam trains."),
        ("can you say that again", "Gladly."),
        ("goodbye", "Ada!"),
    ],
)
def test_it_remembers_the_conversation(heard: str, said_then: str) -> None:
    past = (user("my name is ada"), assistant("Hi."), user("let's talk about steam trains"))
    assert answer(*past, assistant("Gladly."), user(heard)).endswith(said_then)


@pytest.mark.parametrize(
    ("instructions", "said_then"),
    [
        ("", "Hello! How can I help?"),
        ("Greet the user.", "Hello! How can I help?"),
        ("You are Max, a guide.", "Hello! I'm Max. How can I help?"),
        ("Say exactly: The cat sat.", "The cat sat."),
        ("Ask the user for their name.", "May I ask for your name?"),
        ("Count to three.", "One, two, three."),
    ],
)
def test_without_a_user_it_does_what_it_is_instructed(instructions: str, said_then: str) -> None:
    begins = said_then.split("How can")[0]
    assert answer(instructions=instructions).startswith(begins)


def test_a_system_message_is_an_instruction() -> None:
    past = (user("hi"), assistant("Hello."))
    order = system("Ask the user if they need help.")
    assert answer(*past, order) == "May I ask if you need help?"


def test_manners_shape_the_answer() -> None:
    assert answer(user("who are you"), instructions="You are Max. Be brief.") == "I'm Max."


def test_it_cannot_see() -> None:
    shown = Message(role="user", content=(InputImage("data:,"), InputText("what time is it")))
    assert answer(shown) == (
        "I can't see pictures, so I can't say what is in yours."
        " It is three forty-five in the afternoon."
    )


@pytest.mark.parametrize(
    ("heard", "choice", "made"),
    [
        ("weather in paris", "auto", [("get_weather", {"location": "Paris"})]),
        ("weather in paris", "none", []),
        ("hello", "auto", []),
        ("hello", "required", [("get_weather", {"location": ""})]),
        ("hello", ToolName("turn_on_light"), [("turn_on_light", {})]),
        ("spell weather", "auto", []),
        (
            "turn on the light and tell me the weather in oslo",
            "auto",
            [("turn_on_light", {}), ("get_weather", {"location": "Oslo"})],
        ),
    ],
)
def test_which_functions_it_calls(
    heard: str, choice: ToolChoice, made: list[tuple[str, Any]]
) -> None:
    assert calling(user(heard), tools=(WEATHER, LIGHT), tool_choice=choice) == made


def test_one_call_at_a_time_where_no_more_are_allowed() -> None:
    asked = user("turn on the light and tell me the weather in oslo")
    more: Any = {"tools": (WEATHER, LIGHT), "parallel_tool_calls": False}
    assert calling(asked, **more) == [("turn_on_light", {})]
    done = (asked, called("turn_on_light"), returned("ok"))
    assert calling(*done, **more) == [("get_weather", {"location": "Oslo"})]


def test_a_result_is_told_and_the_function_is_not_called_again() -> None:
    items = (
        user("weather in paris"),
        called("get_weather", '{"location": "Paris"}'),
        returned('{"temperature_c": 21, "sky": "clear"}'),
    )
    happened = run(events(request(*items, tools=(WEATHER,))))
    assert calls(happened) == []
    assert said(happened) == (
        "For Paris, the temperature is twenty-one degrees Celsius and the sky is clear."
    )


def test_a_missing_value_is_asked_for_and_then_used() -> None:
    asked = user("how is the weather")
    question = answer(asked, tools=(WEATHER,))
    assert question == "For get weather I need to know the location. What should I use?"
    items = (asked, assistant(question), user("in new york please"))
    assert calling(*items, tools=(WEATHER,)) == [("get_weather", {"location": "New York"})]


def test_a_question_for_a_value_may_be_waved_away() -> None:
    asked = user("how is the weather")
    items = (asked, assistant(answer(asked, tools=(WEATHER,))), user("never mind"))
    assert calling(*items, tools=(WEATHER,)) == []


def test_words_come_one_by_one_at_the_pace_that_is_set() -> None:
    async def timed() -> list[tuple[str, float]]:
        llm = BuiltinLLM(BuiltinSettings(words_per_second=4), now)
        clock = asyncio.get_running_loop().time
        asked = request(user("count to three"))
        return [(e.text, clock()) async for e in llm.generate(asked) if isinstance(e, TextDelta)]

    assert run(timed()) == [("One, ", 0.0), ("two, ", 0.25), ("three.", 0.5)]


def test_others_run_while_it_talks() -> None:
    async def turns() -> int:
        seen = 0

        async def other() -> None:
            nonlocal seen
            while True:
                seen += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        told = said(await events(request(user("tell me a story in 800 words"))))
        task.cancel()
        assert len(told.split()) > 600
        return seen

    assert run(turns()) > 70


@pytest.mark.parametrize(
    ("limit", "text", "reason"),
    [(2, "One, two, ", "length"), (3, "One, two, three.", "stop"), (0, "", "length")],
)
def test_it_stops_at_the_token_limit(limit: int, text: str, reason: str) -> None:
    happened = run(events(request(user("count to three"), max_output_tokens=limit)))
    assert said(happened) == text
    assert happened[-1] == ChatEnded(
        "length" if reason == "length" else "stop", ChatUsage(3, tokens(text))
    )


def test_a_call_that_does_not_fit_is_not_begun() -> None:
    asked = request(user("weather in paris"), tools=(WEATHER,), max_output_tokens=2)
    happened = run(events(asked))
    assert [type(e) for e in happened] == [ChatEnded]
    assert isinstance(happened[0], ChatEnded)
    assert happened[0].reason == "length"


def test_usage_counts_all_that_it_was_told() -> None:
    asked = request(user("one two"), assistant("three"), called("four", "five"), instructions="six")
    end = run(events(asked))[-1]
    assert isinstance(end, ChatEnded)
    assert end.usage is not None
    assert end.usage.input_tokens == 6


def test_an_unknown_timezone_is_the_operators_mistake() -> None:
    with pytest.raises(SettingsError, match="unknown timezone 'Mars/North'"):
        BuiltinLLM(BuiltinSettings(timezone="Mars/North"))


def test_a_negative_pace_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"words_per_second": -1}, BuiltinSettings)
