"""Chat-completions messages as an engine of this process is told a conversation."""

from typing import Any, TypeVar

import msgspec
from msgspec import UNSET

from vivavoce.engines.base import ChatRequest
from vivavoce.errors import InvalidRequest
from vivavoce.protocol.items import (
    FunctionCall,
    FunctionCallOutput,
    FunctionTool,
    InputImage,
    InputText,
    Item,
    Message,
    OutputText,
    Part,
    ToolChoice,
    ToolName,
)

T = TypeVar("T")

_SYSTEM = ("system", "developer")
_ROLES = (*_SYSTEM, "user", "assistant", "tool")


class _ImageUrl(msgspec.Struct):
    url: str
    detail: str | None = None


class _Part(msgspec.Struct):
    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: _ImageUrl | None = None


class _Function(msgspec.Struct):
    name: str
    arguments: str = ""


class _Call(msgspec.Struct):
    id: str = ""
    function: _Function | None = None


class _ChatMessage(msgspec.Struct):
    role: str
    content: str | list[_Part] | None = None
    tool_calls: list[_Call] | None = None
    tool_call_id: str | None = None


class _Offered(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


class _Tool(msgspec.Struct):
    type: str = "function"
    function: _Offered | None = None


class _Fields(msgspec.Struct):
    tools: list[_Tool] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    max_completion_tokens: int | None = None
    max_tokens: int | None = None


FIELDS = _Fields.__struct_fields__
"""What an engine is told of a request, besides its messages."""


class _Named(msgspec.Struct):
    name: str


class _Choice(msgspec.Struct):
    function: _Named


def chat_request(messages: list[Any], fields: dict[str, Any]) -> ChatRequest:
    """What the model is told. `fields`: those of FIELDS that the request has.

    Raises InvalidRequest, which names the place.
    """
    if not messages:
        raise InvalidRequest("There are no messages.", param="messages")
    read = [_read(m, _ChatMessage, f"messages[{i}]") for i, m in enumerate(messages)]
    leading = 0
    while leading < len(read) and read[leading].role in _SYSTEM:
        leading += 1
    items: list[Item] = []
    for number, message in enumerate(read[leading:], leading):
        items += _items(message, f"messages[{number}]")
    told = _read(fields, _Fields, "")
    most = told.max_completion_tokens
    return ChatRequest(
        instructions="\n\n".join(
            text for message in read[:leading] if (text := _text(message.content))
        ),
        items=tuple(items),
        tools=_tools(told.tools),
        tool_choice=_tool_choice(told.tool_choice),
        parallel_tool_calls=told.parallel_tool_calls is not False,
        max_output_tokens=told.max_tokens if most is None else most,
    )


def _items(message: _ChatMessage, where: str) -> list[Item]:
    content = message.content
    match message.role:
        case "system" | "developer":
            return [Message(role="system", content=(InputText(_text(content)),))]
        case "user":
            parts = [content] if isinstance(content, str) else content or []
            return [Message(role="user", content=tuple(map(_user_part, parts)))]
        case "assistant":
            text = _text(content)
            said: list[Item] = []
            if text:
                said.append(Message(role="assistant", content=(OutputText(text),)))
            for call in message.tool_calls or ():
                if call.function is not None:
                    function = call.function
                    said.append(
                        FunctionCall(
                            call_id=call.id, name=function.name, arguments=function.arguments
                        )
                    )
            return said
        case "tool":
            call_id = message.tool_call_id or ""
            return [FunctionCallOutput(call_id=call_id, output=_text(content))]
        case role:
            raise InvalidRequest(
                f"There is no role {role!r}; there are {', '.join(_ROLES)}.", param=f"{where}.role"
            )


def _user_part(part: str | _Part) -> Part:
    if isinstance(part, str):
        return InputText(part)
    if part.image_url is not None:
        detail = part.image_url.detail
        known = detail if detail in ("auto", "low", "high") else UNSET
        return InputImage(part.image_url.url, known)  # type: ignore[arg-type]  # mypy forgets
    return InputText(part.text or "")


def _text(content: str | list[_Part] | None) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(text for part in content or () if (text := part.text or part.refusal))


def _tools(offered: list[_Tool] | None) -> tuple[FunctionTool, ...]:
    return tuple(
        FunctionTool(
            tool.function.name,
            UNSET if tool.function.description is None else tool.function.description,
            UNSET if tool.function.parameters is None else tool.function.parameters,
        )
        for tool in offered or ()
        if tool.function is not None
    )


def _tool_choice(choice: Any) -> ToolChoice:
    match choice:
        case None:
            return "auto"
        case "none" | "auto" | "required":
            return choice  # type: ignore[no-any-return]
        case dict():
            return ToolName(_read(choice, _Choice, "tool_choice").function.name)
        case _:
            raise InvalidRequest(
                "tool_choice is none, auto, required, or a function.", param="tool_choice"
            )


def _read(value: Any, kind: type[T], where: str) -> T:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as exc:
        what, _, place = str(exc).partition(" - at `$")
        param = (where + place.rstrip("`")).lstrip(".")
        raise InvalidRequest(f"{what} at {param}.", param=param) from exc
