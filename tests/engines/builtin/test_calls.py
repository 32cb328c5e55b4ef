from datetime import datetime
from typing import Any

import pytest

from vivavoce.engines.builtin.calls import Call, Question, forced, wanted
from vivavoce.engines.builtin.tools import read_tool
from vivavoce.engines.builtin.words import Utterance
from vivavoce.protocol.items import FunctionTool

NOW = datetime(2026, 11, 21, 15, 45)
STRING = {"type": "string"}


def tool(name: str, about: str, required: tuple[str, ...] = (), **fields: Any) -> FunctionTool:
    schema = {"type": "object", "properties": fields, "required": list(required)}
    return FunctionTool(name=name, description=about, parameters=schema)


DECLARED = (
    tool(
        "get_weather",
        "Get the current weather for a city.",
        ("location",),
        location={"type": "string", "description": "City name"},
        unit={"enum": ["celsius", "fahrenheit"]},
    ),
    tool(
        "setLight",
        "Turn a light on or off",
        ("room", "on"),
        room={"type": "string", "enum": ["kitchen", "living_room", "bedroom"]},
        on={"type": "boolean"},
        brightness={"type": "integer"},
    ),
    tool("set_timer", "Start a timer", ("seconds",), seconds={"type": "integer"}),
    tool(
        "create_reminder",
        "Remind the user",
        ("text",),
        text=STRING,
        date={"type": "string", "format": "date"},
        time={"type": "string", "format": "time"},
    ),
    tool(
        "send_message",
        "Send a text to a contact",
        ("recipient", "message"),
        recipient=STRING,
        message=STRING,
    ),
    tool("search_web", "Search for information", ("query",), query=STRING),
    tool("end_call", "Ends the call when the user says goodbye"),
    tool(
        "move_robot",
        "Move the robot",
        ("direction", "distance"),
        direction={"type": "string", "enum": ["forward", "backward", "left"]},
        distance={"type": "number", "description": "in meters"},
    ),
    tool("add_items", "Add to a list", ("items",), items={"type": "array", "items": STRING}),
    tool(
        "book_flight",
        "Book a flight",
        ("origin", "destination"),
        origin=STRING,
        destination=STRING,
        passengers={"type": "integer"},
    ),
    tool(
        "create_contact",
        "",
        ("contact",),
        contact={
            "type": "object",
            "properties": {"email": STRING, "age": {"type": "integer"}},
            "required": ["email"],
        },
    ),
)
TOOLS = tuple(map(read_tool, DECLARED))


def weather(city: str, **more: str) -> tuple[str, dict[str, Any]]:
    return "get_weather", {"location": city, **more}


def light(room: str, on: bool, **more: int) -> tuple[str, dict[str, Any]]:
    return "setLight", {"room": room, "on": on, **more}


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("what's the weather in paris", [weather("Paris")]),
        ("What's the weather in San Francisco, CA?", [weather("San Francisco CA")]),
        ("um whats the whether in new york today", [weather("New York")]),
        ("is it raining in berlin", [weather("Berlin")]),
        ("weather in paris and in rome", [weather("Paris"), weather("Rome")]),
        ("weather in paris and rome", [weather("Paris"), weather("Rome")]),
        ("the forecast for oslo in fahrenheit", [weather("Oslo", unit="fahrenheit")]),
        ("turn on the living room lights", [light("living_room", True)]),
        (
            "turn off the bedroom light and tell me the weather in oslo",
            [light("bedroom", False), weather("Oslo")],
        ),
        (
            "turn on the kitchen light with brightness forty",
            [light("kitchen", True, brightness=40)],
        ),
        (
            "turn on the kitchen and bedroom lights",
            [light("kitchen", True), light("bedroom", True)],
        ),
        ("set a timer for one minute and thirty seconds", [("set_timer", {"seconds": 90})]),
        ("set a timer for 2.5 minutes", [("set_timer", {"seconds": 150})]),
        (
            "remind me to buy milk tomorrow",
            [("create_reminder", {"text": "buy milk", "date": "2026-11-22"})],
        ),
        (
            "remind me to call mom at five pm",
            [("create_reminder", {"text": "call mom", "time": "17:00:00"})],
        ),
        (
            "send a message to bob saying I'm late",
            [("send_message", {"recipient": "Bob", "message": "I'm late"})],
        ),
        (
            "search for cheap flights to spain",
            [("search_web", {"query": "cheap flights to spain"})],
        ),
        ("goodbye", [("end_call", {})]),
        ("go forward ten meters", [("move_robot", {"direction": "forward", "distance": 10})]),
        (
            "move left two point five meters",
            [("move_robot", {"direction": "left", "distance": 2.5})],
        ),
        ("add milk and bread to the list", [("add_items", {"items": ["milk", "bread"]})]),
        (
            "book a flight from paris to new york for two passengers",
            [("book_flight", {"origin": "Paris", "destination": "New York", "passengers": 2})],
        ),
        (
            "create a contact joe@example.org age 40",
            [("create_contact", {"contact": {"email": "joe@example.org", "age": 40}})],
        ),
        ("don't turn on the kitchen light", []),
        ("what time is it", []),
        ("tell me a story", []),
        ("hello there", []),
        ("", []),
    ],
)
def test_what_is_asked_for(text: str, made: list[tuple[str, dict[str, Any]]]) -> None:
    assert wanted(Utterance.of(text), TOOLS, NOW) == [Call(name, given) for name, given in made]


def test_what_was_not_said_is_asked_for() -> None:
    (question,) = wanted(Utterance.of("how is the weather"), TOOLS, NOW)
    assert isinstance(question, Question)
    assert question.text == "For get weather I need to know the location. What should I use?"


def test_on_and_off_are_told_apart() -> None:
    both = [read_tool(FunctionTool(name=f"turn_{way}_light")) for way in ("on", "off")]
    assert wanted(Utterance.of("light off please"), both, NOW) == [Call("turn_off_light", {})]
    assert wanted(Utterance.of("turn off the light"), both[:1], NOW) == []


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string", "default": "x"}, "x"),
        ({"type": "string", "enum": ["a", "b"]}, "a"),
        ({"type": "integer", "minimum": 2.5}, 3),
        ({"type": "boolean"}, False),
        ({"type": "array"}, []),
        ({"type": ["null", "number"]}, 0),
        ({"anyOf": [{"type": "null"}, {"type": "boolean"}]}, False),
        ({"$ref": "#/$defs/size"}, "big"),
        ({"const": 7}, 7),
        ({"type": "string", "format": "date"}, ""),
    ],
)
def test_a_forced_call_is_filled_as_well_as_can_be(schema: dict[str, Any], value: Any) -> None:
    parameters = {
        "properties": {"q": schema},
        "required": ["q"],
        "$defs": {"size": {"enum": ["big", "small"]}},
    }
    read = read_tool(FunctionTool(name="t", parameters=parameters))
    assert forced(Utterance.of(""), read, NOW) == Call("t", {"q": value})
