"""Conversation items as chat-completions messages that strict servers accept.

* A tool message must follow at once upon the assistant message with its call, so an output that
  came later is moved up to its call. A call without an output gets one that says so.
* An output without its call (the conversation was cut there) becomes a system note.
* A call's id is unique in the request and its arguments are a JSON object.
* No message is empty, and at least one is not of the system.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import msgspec
from msgspec import UNSET

from vivavoce.protocol import json
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
    ToolChoice,
)

ChatMessage: TypeAlias = dict[str, Any]

INAUDIBLE = "(inaudible)"
IMAGE_NOT_SENT = "[a picture, which you cannot see]"
NO_RESULT = "The result of this call is not available."
NO_OUTPUT = "(no output)"
NO_USER_YET = "(nothing was said yet)"

_object_decoder = msgspec.json.Decoder(dict[str, Any])


def messages(instructions: str, items: Sequence[Item], *, sees: bool) -> list[ChatMessage]:
    """All messages of a request. sees: images are sent; else a note stands for each."""
    chat: list[ChatMessage] = []
    if instructions.strip():
        chat.append({"role": "system", "content": instructions})
    ids, outputs = _pair(items)
    results: list[ChatMessage] = []  # of the calls in the last message of `chat`
    for position, item in enumerate(items):
        if not isinstance(item, FunctionCall):
            chat += results
            results = []
        match item:
            case Message():
                if content := _content(item, sees=sees):
                    chat.append({"role": item.role, "content": content})
            case FunctionCall():
                _add_call(chat, item, ids[position])
                output = outputs.get(position, NO_RESULT)
                results.append({"role": "tool", "tool_call_id": ids[position], "content": output})
            case FunctionCallOutput():
                if position not in ids and item.output.strip():
                    note = f"[A function whose call is not on record returned: {item.output}]"
                    chat.append({"role": "system", "content": note})
    chat += results
    # The assistant speaks first: many chat templates fail without a user message.
    if all(message["role"] == "system" for message in chat):
        chat.append({"role": "user", "content": NO_USER_YET})
    return chat


def tools(offered: Sequence[FunctionTool]) -> list[dict[str, Any]]:
    """Function tools in the form of a request."""
    return [{"type": "function", "function": dict(_function(tool))} for tool in offered]


def tool_choice(choice: ToolChoice) -> str | dict[str, Any]:
    """Which function the model may or must call, in the form of a request."""
    if isinstance(choice, str):
        return choice
    return {"type": "function", "function": {"name": choice.name}}


def _function(tool: FunctionTool) -> Iterator[tuple[str, Any]]:
    yield "name", tool.name
    if tool.description is not UNSET:
        yield "description", tool.description
    no_parameters = {"type": "object", "properties": {}}
    yield "parameters", no_parameters if tool.parameters is UNSET else tool.parameters


def _pair(items: Sequence[Item]) -> tuple[dict[int, str], dict[int, str]]:
    """Ids by the positions of calls and of outputs that have a call; outputs by those of calls.

    An output answers the earliest open call of its id before it.
    """
    taken = {item.call_id for item in items if isinstance(item, FunctionCall)}
    ids: dict[int, str] = {}
    outputs: dict[int, str] = {}
    waiting: dict[str, deque[int]] = {}
    used: set[str] = set()
    for position, item in enumerate(items):
        if isinstance(item, FunctionCall):
            call_id = item.call_id
            if not call_id or call_id in used:
                call_id = _unused(position, taken)
                taken.add(call_id)
            used.add(call_id)
            ids[position] = call_id
            waiting.setdefault(item.call_id, deque()).append(position)
        elif isinstance(item, FunctionCallOutput) and waiting.get(item.call_id):
            call = waiting[item.call_id].popleft()
            ids[position] = ids[call]
            outputs[call] = item.output if item.output.strip() else NO_OUTPUT
    return ids, outputs


def _unused(number: int, taken: set[str]) -> str:
    # The same history gives the same ids, so that a server's prompt cache is not missed.
    call_id = f"call_{number}"
    while call_id in taken:
        call_id += "_"
    return call_id


def _add_call(chat: list[ChatMessage], item: FunctionCall, call_id: str) -> None:
    """To the assistant message just before, which may have calls already, or to a new one."""
    if not chat or chat[-1]["role"] != "assistant":
        chat.append({"role": "assistant", "content": None})
    call = {"name": item.name, "arguments": _arguments(item.arguments)}
    chat[-1].setdefault("tool_calls", []).append(
        {"id": call_id, "type": "function", "function": call}
    )


def _arguments(text: str) -> str:
    # Servers parse them for the chat template; those of an interrupted call are cut off.
    try:
        json.decode(text, _object_decoder)
    except (ValueError, RecursionError):
        return "{}"
    return json.replace_lone_surrogates(text).decode() if "\\" in text else text


def _content(message: Message, *, sees: bool) -> str | list[dict[str, Any]]:
    """A string where no image is sent, as many servers know no list; "" for nothing."""
    sees = sees and message.role == "user"
    if not sees or not any(isinstance(part, InputImage) for part in message.content):
        return "\n".join(text for part in message.content if (text := _text(part)))
    return [
        _image(part) if isinstance(part, InputImage) else {"type": "text", "text": _text(part)}
        for part in message.content
        if _text(part)
    ]


def _text(part: Part) -> str:
    match part:
        case InputText(text) | OutputText(text):
            words = text
        case InputAudio(transcript=transcript):
            words = (transcript or "").strip() or INAUDIBLE
        case OutputAudio(transcript=spoken):
            words = spoken
        case InputImage():
            words = IMAGE_NOT_SENT
    return words if words.strip() else ""


def _image(part: InputImage) -> dict[str, Any]:
    url: dict[str, str] = {"url": part.image_url}
    if part.detail is not UNSET:
        url["detail"] = part.detail
    return {"type": "image_url", "image_url": url}
