"""What an engine of this process answers, in the shape of a chat completion."""

import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from vivavoce.api.work import together
from vivavoce.engines.base import (
    LLM,
    CallDelta,
    CallStarted,
    ChatEnded,
    ChatRequest,
    ChatUsage,
    TextDelta,
)

CompletionChunk: TypeAlias = dict[str, Any]
Tell: TypeAlias = Callable[[CompletionChunk], Awaitable[None]]


@dataclass(slots=True)
class Asked:
    """One request to an engine, and so one id for all that comes of it."""

    llm: LLM
    request: ChatRequest
    model: str
    n: int
    include_usage: bool
    """Whether the last chunk tells it."""
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))
    usages: list[ChatUsage] = field(default_factory=list)

    def head(self, kind: str) -> CompletionChunk:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    @property
    def usage(self) -> dict[str, Any]:
        """Of all choices together; nothing where the engine did not count."""
        told, said = (
            sum(u.input_tokens for u in self.usages),
            sum(u.output_tokens for u in self.usages),
        )
        return {
            "prompt_tokens": told,
            "completion_tokens": said,
            "total_tokens": told + said,
            "prompt_tokens_details": {"cached_tokens": sum(u.cached_tokens for u in self.usages)},
        }


async def completion(asked: Asked) -> CompletionChunk:
    """The whole answer, all choices thought of at once. Raises EngineError."""
    async with together() as tasks:
        choices = [tasks.create_task(_choice(asked, index)) for index in range(asked.n)]
    return {
        **asked.head("chat.completion"),
        "choices": [choice.result() for choice in choices],
        "usage": asked.usage,
    }


async def _choice(asked: Asked, index: int) -> CompletionChunk:
    text = ""
    calls: dict[int, CompletionChunk] = {}
    finish: CompletionChunk = {}
    async with aclosing(_deltas(asked)) as deltas:
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


async def chunks(asked: Asked, tell: Tell) -> None:
    """Tell the answer as it comes, all choices at once. Raises EngineError."""
    async with together() as tasks:
        for index in range(asked.n):
            tasks.create_task(_tell(asked, index, tell))
    if asked.include_usage:
        await tell({**asked.head("chat.completion.chunk"), "choices": [], "usage": asked.usage})


async def _tell(asked: Asked, index: int, tell: Tell) -> None:
    head = asked.head("chat.completion.chunk")
    first: CompletionChunk = {"role": "assistant"}
    async with aclosing(_deltas(asked)) as deltas:
        async for delta, reason in deltas:
            choice = {"index": index, "delta": first | delta, "logprobs": None}
            await tell({**head, "choices": [{**choice, "finish_reason": reason}]})
            first = {}


async def _deltas(asked: Asked) -> AsyncGenerator[tuple[CompletionChunk, str | None]]:
    """What is added to a message, and in the last one why it ends."""
    called = False
    async with aclosing(asked.llm.generate(asked.request)) as events:
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
                        asked.usages.append(usage)
                    yield {}, "tool_calls" if called and reason == "stop" else reason
