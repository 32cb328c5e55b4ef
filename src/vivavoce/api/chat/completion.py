"""Chat completions by a language model of this process: requests in, completions or chunks out."""

import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET

from vivavoce.engines.base import (
    LLM,
    CallDelta,
    CallStarted,
    ChatEnded,
    ChatRequest,
    ChatUsage,
    TextDelta,
)
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
from vivavoce.runtime.concurrency import task_group

T = TypeVar("T")
CompletionChunk: TypeAlias = dict[str, Any]
SendChunk: TypeAlias = Callable[[CompletionChunk], Awaitable[None]]


_SYSTEM = ("system", "developer")
_ROLES = (*_SYSTEM, "user", "assistant", "tool")


class _ImageUrl(msgspec.Struct):
    url: str
    detail: str | None = None


class _ContentPart(msgspec.Struct):
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
    content: str | list[_ContentPart] | None = None
    tool_calls: list[_Call] | None = None
    tool_call_id: str | None = None


class _ToolFunction(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


class _Tool(msgspec.Struct):
    type: str = "function"
    function: _ToolFunction | None = None


class _EngineFields(msgspec.Struct):
    tools: list[_Tool] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    max_completion_tokens: int | None = None
    max_tokens: int | None = None


FIELDS = _EngineFields.__struct_fields__
"""The fields of a request that an engine gets, besides its messages."""


class _Named(msgspec.Struct):
    name: str


class _Choice(msgspec.Struct):
    function: _Named


def chat_request(messages: list[Any], fields: dict[str, Any]) -> ChatRequest:
    """The request for the engine. `fields`: those of FIELDS that the request has.

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
    read_fields = _read(fields, _EngineFields, "")
    max_tokens = read_fields.max_completion_tokens
    return ChatRequest(
        instructions="\n\n".join(
            text for message in read[:leading] if (text := _text(message.content))
        ),
        items=tuple(items),
        tools=_tools(read_fields.tools),
        tool_choice=_tool_choice(read_fields.tool_choice),
        parallel_tool_calls=read_fields.parallel_tool_calls is not False,
        max_output_tokens=read_fields.max_tokens if max_tokens is None else max_tokens,
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
            answer: list[Item] = []
            if text:
                answer.append(Message(role="assistant", content=(OutputText(text),)))
            for call in message.tool_calls or ():
                if call.function is not None:
                    function = call.function
                    answer.append(
                        FunctionCall(
                            call_id=call.id, name=function.name, arguments=function.arguments
                        )
                    )
            return answer
        case "tool":
            call_id = message.tool_call_id or ""
            return [FunctionCallOutput(call_id=call_id, output=_text(content))]
        case role:
            raise InvalidRequest(
                f"Unknown role {role!r}; the roles are {', '.join(_ROLES)}.", param=f"{where}.role"
            )


def _user_part(part: str | _ContentPart) -> Part:
    if isinstance(part, str):
        return InputText(part)
    if part.image_url is not None:
        detail = part.image_url.detail
        known = detail if detail in ("auto", "low", "high") else UNSET
        return InputImage(part.image_url.url, known)  # type: ignore[arg-type]  # mypy forgets
    return InputText(part.text or "")


def _text(content: str | list[_ContentPart] | None) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(text for part in content or () if (text := part.text or part.refusal))


def _tools(tools: list[_Tool] | None) -> tuple[FunctionTool, ...]:
    return tuple(
        FunctionTool(
            tool.function.name,
            UNSET if tool.function.description is None else tool.function.description,
            UNSET if tool.function.parameters is None else tool.function.parameters,
        )
        for tool in tools or ()
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


class CompletionJob(msgspec.Struct):
    """One request to a model, with one id for all of its answer."""

    llm: LLM
    request: ChatRequest
    model: str
    n: int
    include_usage: bool
    """Whether the last chunk has the usage."""
    id: str = msgspec.field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = msgspec.field(default_factory=lambda: int(time.time()))
    usages: list[ChatUsage] = msgspec.field(default_factory=list)

    def head(self, kind: str) -> CompletionChunk:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    @property
    def usage(self) -> dict[str, Any]:
        """Of all choices together; zeros where the engine did not count."""
        read, written = (
            sum(u.input_tokens for u in self.usages),
            sum(u.output_tokens for u in self.usages),
        )
        return {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
            "prompt_tokens_details": {"cached_tokens": sum(u.cached_tokens for u in self.usages)},
        }


async def completion(job: CompletionJob) -> CompletionChunk:
    """The whole answer; all choices are generated at once. Raises EngineError."""
    async with task_group() as tasks:
        choices = [tasks.create_task(_choice(job, index)) for index in range(job.n)]
    return {
        **job.head("chat.completion"),
        "choices": [choice.result() for choice in choices],
        "usage": job.usage,
    }


async def _choice(job: CompletionJob, index: int) -> CompletionChunk:
    text = ""
    calls: dict[int, CompletionChunk] = {}
    finish: CompletionChunk = {}
    async with aclosing(_deltas(job)) as deltas:
        async for delta, reason in deltas:
            text += delta.get("content") or ""
            for part in delta.get("tool_calls", ()):
                call = calls.setdefault(part["index"], {"id": part.get("id"), "type": "function"})
                function = call.setdefault("function", {"name": "", "arguments": ""})
                for name, more in part["function"].items():
                    function[name] += more
            finish = {"finish_reason": reason}
    message: CompletionChunk = {"role": "assistant", "content": text or None, "refusal": None}
    if calls:
        message["tool_calls"] = [calls[place] for place in sorted(calls)]
    elif not text:
        message["content"] = ""
    return {"index": index, "message": message, "logprobs": None, **finish}


async def chunks(job: CompletionJob, send: SendChunk) -> None:
    """Send the answer as it comes, all choices at once. Raises EngineError."""
    async with task_group() as tasks:
        for index in range(job.n):
            tasks.create_task(_send_choice(job, index, send))
    if job.include_usage:
        await send({**job.head("chat.completion.chunk"), "choices": [], "usage": job.usage})


async def _send_choice(job: CompletionJob, index: int, send: SendChunk) -> None:
    head = job.head("chat.completion.chunk")
    first: CompletionChunk = {"role": "assistant"}
    async with aclosing(_deltas(job)) as deltas:
        async for delta, reason in deltas:
            choice = {"index": index, "delta": first | delta, "logprobs": None}
            await send({**head, "choices": [{**choice, "finish_reason": reason}]})
            first = {}


async def _deltas(job: CompletionJob) -> AsyncGenerator[tuple[CompletionChunk, str | None]]:
    """Additions to a message; the last one has the reason why it ends."""
    called = False
    async with aclosing(job.llm.generate(job.request)) as events:
        async for event in events:
            match event:
                case TextDelta(text=text):
                    yield {"content": text}, None
                case CallStarted(index=index, call_id=call_id, name=name):
                    called = True
                    function = {"name": name, "arguments": ""}
                    call = {"index": index, "id": call_id, "type": "function"}
                    yield {"tool_calls": [{**call, "function": function}]}, None
                case CallDelta(index=index, arguments=arguments):
                    part = {"index": index, "function": {"arguments": arguments}}
                    yield {"tool_calls": [part]}, None
                case ChatEnded(reason=reason, usage=usage):
                    if usage is not None:
                        job.usages.append(usage)
                    yield {}, "tool_calls" if called and reason == "stop" else reason
