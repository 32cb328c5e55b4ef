import asyncio
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.hypothesis_examples import examples
from vivavoce.engines import base
from vivavoce.engines.base import ChatEnded, ChatEvent, ChatRequest, TextDelta
from vivavoce.engines.builtin.llm import BuiltinLLM, BuiltinSettings
from vivavoce.engines.builtin.replies import ABILITIES, CONNECT, NOT_A_MODEL, result_in_words
from vivavoce.errors import SettingsError
from vivavoce.protocol.items import (
    FunctionCall,
    FunctionCallOutput,
    FunctionTool,
    InputAudio,
    InputImage,
    Item,
    Message,
    OutputAudio,
    ToolChoice,
    ToolName,
)
from vivavoce.testing.conformance import check_answer, check_llm
from vivavoce.testing.virtual_time import run


def function(name: str, description: str = "", **properties: object) -> FunctionTool:
    """A function that requires every one of its arguments."""
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return FunctionTool(name=name, description=description, parameters=parameters)


WEATHER = function("get_weather", "The weather of a city", location={"type": "string"})
LIGHT = function("turn_light", state={"enum": ["on", "off"]}, room={"enum": ["kitchen", "hall"]})
TIMER = function("setTimer", minutes={"type": "integer"})


def user(text: str) -> Message:
    return Message(role="user", content=(InputAudio(transcript=text),))


def assistant(text: str) -> Message:
    return Message(role="assistant", content=(OutputAudio(text),))


def called(name: str) -> FunctionCall:
    return FunctionCall(call_id="c", name=name, arguments="{}")


def returned(output: str) -> FunctionCallOutput:
    return FunctionCallOutput(call_id="c", output=output)


def make() -> BuiltinLLM:
    return BuiltinLLM(BuiltinSettings(), lambda: datetime(2026, 11, 21, 15, 45))


def generate(*items: Item, llm: BuiltinLLM | None = None, **more: Any) -> list[ChatEvent]:
    async def main() -> list[ChatEvent]:
        request = ChatRequest(instructions="Be kind.", items=items, **more)
        return [event async for event in (llm or make()).generate(request)]

    return check_answer(run(main()))


def text_of(events: Sequence[ChatEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def calls_of(events: Sequence[ChatEvent]) -> list[tuple[str, Any]]:
    names = [e.name for e in events if isinstance(e, base.CallStarted)]
    arguments = [json.loads(e.arguments) for e in events if isinstance(e, base.CallDelta)]
    return list(zip(names, arguments, strict=True))


def answer(*items: Item, **more: Any) -> str:
    return text_of(generate(*items, **more))


def calls(said: str, **more: Any) -> list[tuple[str, Any]]:
    return calls_of(generate(user(said), **more))


def test_builtin_conforms_to_the_engine_contract() -> None:
    run(check_llm(make()))


@pytest.mark.parametrize(
    ("said", "reply"),
    [
        ("what is twelve times seven", "Twelve times seven is eighty-four."),
        ("What's two plus two?", "Two plus two is four."),
        ("two plus three times 4", "Two plus three times four is fourteen."),
        ("three minus ten", "Three minus ten is minus seven."),
        ("1 / 3", "One divided by three is zero point three three."),
        ("five over zero", "I cannot divide by zero."),
        ("99 * 99", "Ninety-nine times ninety-nine is nine thousand eight hundred one."),
        ("1000000 times 3", "1000000 times three is 3000000."),
        ("seven time to", "Seven times two is fourteen."),
        ("What can you do?", f"{NOT_A_MODEL} {ABILITIES} {CONNECT}"),
        ("who are you", f"{NOT_A_MODEL} {ABILITIES} {CONNECT}"),
        ("Are you a model?", f"{NOT_A_MODEL} {CONNECT}"),
        ("are you a modal", f"{NOT_A_MODEL} {CONNECT}"),
        ("how do I connect a model", CONNECT),
        ("hello world", "Hello. How can I help?"),
        ("Hello there. How are you today?", "I am fine, thank you. How can I help?"),
        ("hello what time is it", "It is 3:45 PM."),
        ("what day is it", "Today is Saturday, November 21, 2026."),
        ("what is my name", "You have not said your name yet."),
        ("repeat that", "I have not said anything yet."),
        ("[NOISE] um", "I heard no words, and I cannot see pictures. Could you say that again?"),
        ("2 plus 1 hundred", f"You said: 2 plus 1 hundred. {NOT_A_MODEL} Ask me what I can do."),
        ("Count to ten", "One, two, three, four, five, six, seven, eight, nine, ten."),
        ("Please count from 8 up to 11.", "Eight, nine, ten, eleven."),
        ("count to 0.5", f"You said: Count to 0.5. {NOT_A_MODEL} Ask me what I can do."),
    ],
)
def test_request_is_answered_by_its_rule(said: str, reply: str) -> None:
    assert answer(user(said)) == reply


@pytest.mark.parametrize(
    ("said", "reply"),
    [
        ("repeat after me the cat sat", "The cat sat."),
        ('Please say "Hello, World!"', "Hello, World!"),
        ("say two plus two", "Two plus two."),
        ("can you say that again", "Nice to meet you, Ada."),
        ("repeat", "Nice to meet you, Ada."),
    ],
)
def test_words_or_the_last_answer_are_repeated(said: str, reply: str) -> None:
    past = (user("my name is ada"), assistant("Nice to meet you, Ada."))
    assert answer(*past, user(said)) == reply


def test_name_is_remembered() -> None:
    past = (user("My name is Ada"), assistant(answer(user("my name is ada"))))
    assert answer(*past, user("what's my name")) == "Your name is Ada."


def test_story_is_about_the_subject_and_long_enough_to_be_interrupted() -> None:
    story = answer(user("Tell me a story about a dragon."))
    assert story.startswith("Once upon a time there was a dragon, ")
    assert len(story.split()) > 120  # 40 s of speech
    assert "somebody who loved trains" in answer(user("a story about trains"))


def test_request_without_a_new_message_gets_a_question() -> None:
    assert answer() == "Hello. How can I help?"
    assert answer(user("hi"), assistant(answer(user("hi")))) == "What else can I do for you?"


def test_answer_that_has_broken_off_is_continued_also_a_second_time() -> None:
    asked = user("Tell me a story about a dragon.")
    words = answer(asked).split()
    first, second, rest = (" ".join(part) for part in (words[:20], words[20:31], words[31:]))
    assert answer(asked, assistant(first)) == f"{second} {rest}"
    assert answer(asked, assistant(first), assistant(second)) == rest


def test_picture_is_not_seen() -> None:
    assert "cannot see" in answer(Message(role="user", content=(InputImage("data:,"),)))


@pytest.mark.parametrize(
    ("said", "call"),
    [
        ("how is the weather in new york today", ("get_weather", {"location": "new york"})),
        ("paris weather please", ("get_weather", {"location": "paris"})),
        ("turn off the light in the hall", ("turn_light", {"state": "off", "room": "hall"})),
        ("set a timer for twenty-five minutes", ("setTimer", {"minutes": 25})),
    ],
)
def test_function_is_called_with_the_values_of_the_sentence(said: str, call: object) -> None:
    assert calls(said, tools=(WEATHER, LIGHT, TIMER)) == [call]


def test_function_is_not_called_without_being_asked_for() -> None:
    for said in ("hello", "say weather", "do not turn the light on in the hall"):
        assert calls(said, tools=(WEATHER, LIGHT)) == []
    items = (user("weather in paris"), called("get_weather"))
    assert calls_of(generate(*items, tools=(WEATHER,))) == []


def test_function_is_not_called_without_a_required_value() -> None:
    reply = answer(user("how is the weather"), tools=(WEATHER,))
    assert reply == "For get weather I need the location. Please ask again with it."


@pytest.mark.parametrize(
    ("said", "choice", "made"),
    [
        ("weather in paris", "none", []),
        ("hello", "required", [("get_weather", {"location": "hello"})]),
        ("light", "required", [("turn_light", {"state": "on", "room": "kitchen"})]),
        ("weather", ToolName("setTimer"), [("setTimer", {"minutes": 0})]),
        ("weather in paris", ToolName("unknown"), []),
    ],
)
def test_tool_choice_is_obeyed(said: str, choice: ToolChoice, made: list[object]) -> None:
    assert calls(said, tools=(WEATHER, LIGHT, TIMER), tool_choice=choice) == made


def test_argument_has_the_type_or_the_default_of_its_schema() -> None:
    count, gift, unit = {"type": ["number"]}, {"type": "boolean"}, {"default": "box"}
    tool = function("order", count=count, gift=gift, unit=unit, extras={"type": "array"})
    arguments = {"count": 2.5, "gift": True, "unit": "box", "extras": []}
    assert calls("order 2.5, yes", tools=(tool,)) == [("order", arguments)]
    optional = FunctionTool("order", parameters={"properties": {"size": {"enum": ["big"]}}})
    assert calls("order a big one", tools=(optional,)) == [("order", {"size": "big"})]


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ('{"temp": 31, "words": "sunny"}', "The temp is thirty-one and the words are sunny."),
        ("It *rains*.", "It rains."),
        ('{"maxTemp_c": [1.5, true, null]}', "The max temp c is one point five, yes and unknown."),
        ("{}", "That is done."),
        ('[1e999, "\\ud800"]', "Unknown and ?"),
    ],
)
def test_tool_result_is_answered_in_words(output: str, told: str) -> None:
    assert result_in_words(output) == told
    items = (user("weather in paris"), called("get_weather"), returned(output))
    assert answer(*items, tools=(WEATHER,)) == told


def test_answer_ends_at_the_token_limit() -> None:
    *events, end = generate(user("tell me a story"), max_output_tokens=11)
    assert isinstance(end, ChatEnded)
    assert end.usage is not None
    assert text_of(events) == "Once upon a time there was a dragon, "
    assert (end.reason, end.usage.output_tokens) == ("length", 10)


def test_call_longer_than_the_token_limit_is_not_begun() -> None:
    (end,) = generate(user("weather in paris"), tools=(WEATHER,), max_output_tokens=2)
    assert isinstance(end, ChatEnded)
    assert end.reason == "length"


def test_words_come_at_the_pace_of_the_settings() -> None:
    async def main() -> list[tuple[str, float]]:
        llm = BuiltinLLM(BuiltinSettings(words_per_second=4))
        request = ChatRequest("", (user("say one two three"),))
        clock = asyncio.get_running_loop().time
        return [(e.text, clock()) async for e in llm.generate(request) if isinstance(e, TextDelta)]

    assert run(main()) == [("One ", 0.0), ("two ", 0.25), ("three.", 0.5)]


def test_invalid_settings_are_refused() -> None:
    with pytest.raises(SettingsError, match="unknown timezone 'Mars/North'"):
        BuiltinLLM(BuiltinSettings(timezone="Mars/North"))
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"words_per_second": -1}, BuiltinSettings)
    tokyo = BuiltinLLM(BuiltinSettings(timezone="Asia/Tokyo"))
    assert answer(user("what time is it"), llm=tokyo).endswith("M.")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
WORDS = "what is the weather in paris turn on light 3.5 twelve plus , . ? tell story about my name"
SENTENCE = st.lists(st.sampled_from([*WORDS.split(), "repeat", "say", "-", "of"])).map(" ".join)
TEXT = SENTENCE | st.text(max_size=200)
FIELD = st.fixed_dictionaries(
    {"type": st.sampled_from(["string", "number", "boolean", ["null"], [], 3]) | JSON},
    optional={"enum": st.lists(JSON, max_size=3), "default": JSON},
)
NAMES = st.sampled_from(["location", "on", "x"])
PARAMETERS = st.fixed_dictionaries(
    {"properties": st.dictionaries(NAMES, FIELD | JSON), "required": st.lists(NAMES) | JSON}
)
NAME = st.text("a_Bweathr", min_size=1)
TOOL = st.builds(FunctionTool, name=NAME, description=TEXT, parameters=PARAMETERS)
OUTPUT = TEXT | JSON.map(json.dumps)
ITEM = TEXT.map(user) | TEXT.map(assistant) | TEXT.map(called) | OUTPUT.map(returned)


@settings(max_examples=examples(200))
@given(
    items=st.lists(ITEM, max_size=4),
    tools=st.lists(TOOL, max_size=3),
    choice=st.sampled_from(["none", "auto", "required"]),
    limit=st.none() | st.integers(0, 50),
)
def test_any_request_is_answered_within_its_limits_and_repeatably(
    items: list[Item], tools: list[FunctionTool], choice: ToolChoice, limit: int | None
) -> None:
    more: Any = {"tools": tuple(tools), "tool_choice": choice, "max_output_tokens": limit}
    *events, end = generate(*items, **more)
    assert isinstance(end, ChatEnded)
    assert end.usage is not None
    assert limit is not None or events
    assert limit is None or end.usage.output_tokens <= limit
    assert choice != "none" or not calls_of(events)
    assert choice != "required" or not tools or not text_of(events)
    again = generate(*items, **more)
    assert (text_of(again), calls_of(again)) == (text_of(events), calls_of(events))
