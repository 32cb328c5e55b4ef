"""Conversation items as messages that strict servers accept."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.engines.openai.chat_messages import (
    IMAGE_NOT_SENT,
    INAUDIBLE,
    NO_OUTPUT,
    NO_RESULT,
    NO_USER_YET,
    messages,
    tool_choice,
    tools,
)
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
    OutputText,
    Part,
    ToolName,
)

PICTURE = "data:image/png;base64,AA=="


def user(*content: Part) -> Message:
    return Message(role="user", content=content)


def assistant(*content: Part) -> Message:
    return Message(role="assistant", content=content)


def call(call_id: str, name: str = "f", arguments: str = "{}") -> FunctionCall:
    return FunctionCall(call_id=call_id, name=name, arguments=arguments)


def result(call_id: str, output: str = "42") -> FunctionCallOutput:
    return FunctionCallOutput(call_id=call_id, output=output)


def chat(*items: Item, sees: bool = True) -> list[dict[str, Any]]:
    return messages("", items, sees=sees)


def calling(*ids: str, content: str | None = None) -> dict[str, Any]:
    function = {"name": "f", "arguments": "{}"}
    calls = [{"id": call_id, "type": "function", "function": function} for call_id in ids]
    return {"role": "assistant", "content": content, "tool_calls": calls}


def tool(call_id: str, content: str = "42") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


HELLO = {"role": "user", "content": "Hello."}
NOBODY = {"role": "user", "content": NO_USER_YET}


def test_messages_with_instructions_begin_with_them_and_keep_system_items_in_order() -> None:
    items = (user(InputText("Hello.")), Message(role="system", content=(InputText("Be brief."),)))
    assert messages("You are kind.", items, sees=True) == [
        {"role": "system", "content": "You are kind."},
        HELLO,
        {"role": "system", "content": "Be brief."},
    ]


def test_messages_of_audio_are_its_transcripts() -> None:
    said = user(InputAudio(audio=b"\0\0", transcript="Hello."))
    assert chat(said, assistant(OutputAudio("Good day."))) == [
        HELLO,
        {"role": "assistant", "content": "Good day."},
    ]


@pytest.mark.parametrize("transcript", [None, "", "  "])
def test_messages_of_audio_without_transcript_note_it(transcript: str | None) -> None:
    assert chat(user(InputAudio(transcript=transcript))) == [{"role": "user", "content": INAUDIBLE}]


def test_messages_of_several_texts_are_one_string_of_lines() -> None:
    assert chat(user(InputText("Hello."), InputText(""), InputAudio(transcript="You?"))) == [
        {"role": "user", "content": "Hello.\nYou?"}
    ]


def test_messages_with_image_send_it_to_a_model_that_takes_images() -> None:
    shown = user(InputText("What is it?"), InputImage(PICTURE, "low"), InputImage(PICTURE))
    assert chat(shown) == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is it?"},
                {"type": "image_url", "image_url": {"url": PICTURE, "detail": "low"}},
                {"type": "image_url", "image_url": {"url": PICTURE}},
            ],
        }
    ]


def test_messages_with_image_note_it_for_a_model_that_takes_none() -> None:
    assert chat(user(InputText("What is it?"), InputImage(PICTURE)), sees=False) == [
        {"role": "user", "content": f"What is it?\n{IMAGE_NOT_SENT}"}
    ]


def test_messages_without_content_are_left_out() -> None:
    items = (assistant(), assistant(OutputAudio("")), user(InputText(" ")), user())
    assert chat(user(InputText("Hello.")), *items) == [HELLO]


@pytest.mark.parametrize("instructions", ["", " ", "Greet the user."])
def test_messages_without_user_get_a_user_message(instructions: str) -> None:
    system = [{"role": "system", "content": instructions}] if instructions.strip() else []
    assert messages(instructions, (), sees=True) == [*system, NOBODY]


def test_messages_of_consecutive_calls_and_the_text_before_are_one() -> None:
    items = (assistant(OutputText("Wait.")), call("a"), call("b"), result("b", "2"), result("a"))
    assert chat(user(InputText("Hello.")), *items, assistant(OutputText("Done."))) == [
        HELLO,
        calling("a", "b", content="Wait."),
        tool("a"),
        tool("b", "2"),
        {"role": "assistant", "content": "Done."},
    ]


def test_messages_of_call_after_output_begin_a_new_one() -> None:
    assert chat(call("a"), result("a"), call("b"), result("b")) == [
        calling("a"),
        tool("a"),
        calling("b"),
        tool("b"),
    ]


def test_messages_with_late_output_move_it_to_its_call() -> None:
    assert chat(call("a"), user(InputText("Hello.")), result("a")) == [
        calling("a"),
        tool("a"),
        HELLO,
    ]


def test_messages_of_call_without_output_get_one() -> None:
    assert chat(call("a"), call("b"), result("b"), user(InputText("Hello."))) == [
        calling("a", "b"),
        tool("a", NO_RESULT),
        tool("b"),
        HELLO,
    ]


def test_messages_of_output_without_call_are_a_note() -> None:
    note = "[A function whose call is not on record returned: 42]"
    assert chat(user(InputText("Hello.")), result("a"), call("a"), result("x", "")) == [
        HELLO,
        {"role": "system", "content": note},
        calling("a"),
        tool("a", NO_RESULT),
    ]


def test_messages_of_empty_output_note_it() -> None:
    assert chat(call("a"), result("a", "")) == [calling("a"), tool("a", NO_OUTPUT)]


def test_messages_with_empty_or_repeated_call_ids_replace_them_deterministically() -> None:
    items = (call(""), result("", "1"), call("a"), result("a", "2"), call("a"), call("call_4"))
    assert chat(*items, result("a", "3"), result("call_4", "4")) == [
        calling("call_0"),
        tool("call_0", "1"),
        calling("a"),
        tool("a", "2"),
        calling("call_4_", "call_4"),
        tool("call_4_", "3"),
        tool("call_4", "4"),
    ]


@pytest.mark.parametrize(
    ("given_", "sent"),
    [
        ('{"a": 1}', '{"a": 1}'),
        ("", "{}"),
        ('{"city": "Par', "{}"),
        ("[1]", "{}"),
        ("\ud800", "{}"),
        (r'{"a": "\ud800"}', r'{"a": "\ufffd"}'),
        (r'{"a": "\ud83d\ude00"}', r'{"a": "\ud83d\ude00"}'),
        ('{"a": ' + "[" * 10_000, "{}"),
    ],
)
def test_messages_of_call_have_a_json_object_as_arguments(given_: str, sent: str) -> None:
    (message, _) = chat(call("a", arguments=given_))
    assert message["tool_calls"][0]["function"]["arguments"] == sent


def test_tools_without_parameters_get_an_empty_schema() -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    assert tools([FunctionTool("f", "Does f.", schema), FunctionTool("g")]) == [
        {
            "type": "function",
            "function": {"name": "f", "description": "Does f.", "parameters": schema},
        },
        {
            "type": "function",
            "function": {"name": "g", "parameters": {"type": "object", "properties": {}}},
        },
    ]


def test_tool_choice_of_a_function_is_nested() -> None:
    assert tool_choice("required") == "required"
    assert tool_choice(ToolName("f")) == {"type": "function", "function": {"name": "f"}}


IDS = st.sampled_from(["", "a", "b", "call_0", "call_1"])
TEXT = st.sampled_from(["", " ", "Hello."])
PARTS: st.SearchStrategy[Part] = st.one_of(
    st.builds(InputText, TEXT),
    st.builds(InputAudio, transcript=TEXT | st.none()),
    st.just(InputImage(PICTURE)),
    st.builds(OutputText, TEXT),
    st.builds(OutputAudio, TEXT),
)
ITEMS: st.SearchStrategy[Item] = st.one_of(
    st.builds(
        Message,
        role=st.sampled_from(["system", "user", "assistant"]),
        content=st.lists(PARTS, max_size=3).map(tuple),
    ),
    st.builds(
        FunctionCall,
        call_id=IDS,
        name=st.just("f"),
        arguments=st.sampled_from(["", "{}", '{"a": ']),
    ),
    st.builds(FunctionCallOutput, call_id=IDS, output=TEXT),
)


@given(TEXT, st.lists(ITEMS, max_size=12), st.booleans())
def test_messages_of_any_history_are_valid(
    instructions: str, items: list[Item], sees: bool
) -> None:
    seen: set[str] = set()
    open_calls: list[str] = []
    sent = messages(instructions, items, sees=sees)
    for message in sent:
        if message["role"] == "tool":
            assert message["tool_call_id"] in open_calls
            open_calls.remove(message["tool_call_id"])
            assert message["content"].strip()
            continue
        assert open_calls == []  # every call is answered before anyone else speaks
        open_calls = [each["id"] for each in message.get("tool_calls", [])]
        assert seen.isdisjoint(open_calls)
        assert len(set(open_calls)) == len(open_calls)
        seen.update(open_calls)
        for each in message.get("tool_calls", []):
            msgspec.json.decode(each["function"]["arguments"], type=dict)
        content = message["content"]
        assert open_calls or (content.strip() if isinstance(content, str) else content)
        assert isinstance(content, str) or open_calls or (sees and message["role"] == "user")
    assert open_calls == []
    assert any(message["role"] != "system" for message in sent)
    calls = sum(isinstance(item, FunctionCall) for item in items)
    assert len(seen) == calls  # none is lost
