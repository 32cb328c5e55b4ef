"""Chat messages as the items that an engine receives."""

from typing import Any

import pytest

from vivavoce.api.chat.completion import chat_request
from vivavoce.engines.base import ChatRequest
from vivavoce.errors import InvalidRequest
from vivavoce.protocol.items import (
    FunctionCall,
    FunctionCallOutput,
    FunctionTool,
    InputImage,
    InputText,
    Message,
    OutputText,
    ToolName,
)

HELLO: Any = {"role": "user", "content": "Hello"}


def test_conversation_with_calls_keeps_its_order() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    image = {"type": "image_url", "image_url": {"url": "data:,", "detail": "low"}}
    assert chat_request(
        [
            {"role": "system", "content": "Be brief."},
            {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
            {"role": "user", "content": [{"type": "text", "text": "Look"}, image]},
            {"role": "assistant", "content": "Wait.", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "42"},
            {"role": "system", "content": "Hurry."},
        ],
        {},
    ) == ChatRequest(
        "Be brief.\n\nBe kind.",
        (
            Message(role="user", content=(InputText("Look"), InputImage("data:,", "low"))),
            Message(role="assistant", content=(OutputText("Wait."),)),
            FunctionCall(call_id="c1", name="f", arguments="{}"),
            FunctionCallOutput(call_id="c1", output="42"),
            Message(role="system", content=(InputText("Hurry."),)),
        ),
    )


def test_tools_and_limits_reach_the_engine() -> None:
    request = chat_request(
        [HELLO],
        {
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {"a": 1}}}],
            "tool_choice": {"type": "function", "function": {"name": "f"}},
            "parallel_tool_calls": False,
            "max_tokens": 5,
        },
    )
    assert request.tools == (FunctionTool("f", parameters={"a": 1}),)
    assert request.tool_choice == ToolName("f")
    assert not request.parallel_tool_calls
    assert request.max_output_tokens == 5
    assert chat_request([HELLO], {"max_completion_tokens": 3}).max_output_tokens == 3
    assert chat_request([HELLO], {"tool_choice": "required"}).tool_choice == "required"


@pytest.mark.parametrize(
    ("messages", "fields", "param"),
    [
        ([], {}, "messages"),
        ([HELLO, {"role": "clown"}], {}, "messages[1].role"),
        ([{"content": "x"}], {}, "messages[0]"),
        ([{"role": "user", "content": [{"type": 3}]}], {}, "messages[0].content[0].type"),
        ([HELLO], {"tools": [{"function": {}}]}, "tools[0].function"),
        ([HELLO], {"tool_choice": "perhaps"}, "tool_choice"),
        ([HELLO], {"tool_choice": {"function": 3}}, "tool_choice.function"),
        ([HELLO], {"max_tokens": "3"}, "max_tokens"),
    ],
)
def test_invalid_field_is_named_by_its_path(messages: Any, fields: Any, param: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        chat_request(messages, fields)
    assert raised.value.param == param
