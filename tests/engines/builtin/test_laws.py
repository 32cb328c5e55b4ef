"""What holds for any conversation and any declared function."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engines.builtin.test_llm import (
    assistant,
    called,
    calls,
    events,
    request,
    returned,
    said,
    system,
    user,
)
from vivavoce.engines.base import ChatEnded
from vivavoce.protocol.items import FunctionTool, Item, ToolChoice, ToolName
from vivavoce.testing.virtual_time import run

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
WORDS = st.lists(
    st.sampled_from(
        [
            "what",
            "is",
            "the",
            "weather",
            "in",
            "paris",
            "and",
            "rome",
            "turn",
            "on",
            "off",
            "light",
            "ten",
            "3.5",
            ",",
            ".",
            "?",
            "tell",
            "story",
            "about",
            "my",
            "name",
            "remind",
            "me",
            "tomorrow",
            "at",
            "five",
            "pm",
            "spell",
            "count",
            "to",
            "from",
            "down",
            "say",
            "plus",
            "half",
        ]
    ),
    max_size=25,
).map(" ".join)
TEXT = WORDS | st.text(max_size=200)
KINDS = ["string", "number", "integer", "boolean", "array", "object", "null"]
SCHEMA = st.recursive(
    st.fixed_dictionaries(
        {"type": st.sampled_from(KINDS)},
        optional={"description": TEXT, "format": st.sampled_from(["date", "time", "email"])},
    )
    | st.fixed_dictionaries({"enum": st.lists(JSON, min_size=1, max_size=4)}),
    lambda inner: (
        st.fixed_dictionaries({"type": st.just("array"), "items": inner})
        | st.fixed_dictionaries(
            {"type": st.just("object"), "properties": st.dictionaries(st.text(), inner, max_size=3)}
        )
    ),
    max_leaves=5,
)
NAMES = st.sampled_from(["location", "on", "text", "date", "time", "to", "count", "items", "x"])
PARAMETERS = st.fixed_dictionaries(
    {
        "properties": st.dictionaries(NAMES | st.text(max_size=8), SCHEMA, max_size=4),
        "required": st.lists(NAMES, max_size=3),
    }
)
TOOL = st.builds(
    FunctionTool,
    name=st.sampled_from(["get_weather", "turn_on_light", "remind", "a", "sayStory"]),
    description=TEXT,
    parameters=PARAMETERS | st.dictionaries(st.text(), JSON, max_size=3),
)
ITEM: st.SearchStrategy[Item] = st.one_of(
    st.builds(user, TEXT),
    st.builds(assistant, TEXT),
    st.builds(system, TEXT),
    st.builds(called, TEXT, TEXT),
    st.builds(returned, TEXT | JSON.map(json.dumps)),
)
PYTHON: dict[str, Any] = {
    "string": str, "number": (int, float), "integer": int, "boolean": bool,
    "array": list, "object": dict, "null": type(None),
}  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    items=st.lists(ITEM, max_size=5),
    tools=st.lists(TOOL, max_size=3, unique_by=lambda t: t.name),
    choice=st.sampled_from(["none", "auto", "required", ToolName("remind")]),
    instructions=TEXT,
    limit=st.none() | st.integers(0, 50),
)
def test_whatever_is_asked_it_ends_once_and_calls_rightly(
    items: list[Item],
    tools: list[FunctionTool],
    choice: ToolChoice,
    instructions: str,
    limit: int | None,
) -> None:
    happened = run(
        events(
            request(
                *items,
                instructions=instructions,
                tools=tuple(tools),
                tool_choice=choice,
                max_output_tokens=limit,
            )
        )
    )
    assert [isinstance(e, ChatEnded) for e in happened] == [False] * (len(happened) - 1) + [True]
    assert limit is not None or said(happened) or calls(happened)
    end = happened[-1]
    assert isinstance(end, ChatEnded)
    assert end.usage is not None
    assert limit is None or end.usage.output_tokens <= limit
    declared = {t.name: t.parameters for t in tools}
    for name, arguments in calls(happened):
        assert choice != "none"
        _assert_fits(arguments, declared[name])


def _assert_fits(arguments: Any, schema: Any) -> None:
    properties = schema.get("properties")
    required = schema.get("required")
    for key in required if isinstance(required, list) else []:
        if isinstance(key, str):
            assert key in arguments
    for key, value in arguments.items():
        field = properties.get(key) if isinstance(properties, dict) else None
        if not isinstance(field, dict):
            continue
        if isinstance(field.get("enum"), list) and field["enum"]:
            assert value in field["enum"]
        elif isinstance(kind := field.get("type"), str) and kind in PYTHON:
            assert isinstance(value, PYTHON[kind])
            assert kind == "boolean" or not isinstance(value, bool)
