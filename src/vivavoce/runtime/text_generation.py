"""The text of one answer: the model's output, and its calls of functions of this server.

Such calls are hidden from clients. The model is requested again with their results, within the same
response. Calls and results are not items of the conversation: in every later request of the
session, they follow the item that was the last one when the model made the calls.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Literal, Protocol, TypeAlias

from vivavoce.engines.base import (
    CallDelta,
    CallStarted,
    ChatEnded,
    ChatEvent,
    ChatRequest,
    ChatUsage,
    TextDelta,
)
from vivavoce.errors import EngineError
from vivavoce.protocol.items import FunctionCall, FunctionCallOutput, Item
from vivavoce.runtime.catalog import Cascade
from vivavoce.session.effects import CALL_RUNS, TOO_MANY_CALLS, Generate, Prompt, RunTool
from vivavoce.session.facts import (
    GenerationFact,
    GenerationFailed,
    GenerationFinished,
    GenerationProgress,
    TokenCounts,
    ToolCallArguments,
    ToolCallStarted,
)
from vivavoce.session.limits import MAX_BACKGROUND_CALLS, MAX_CALLS_PER_RESPONSE

MAX_ROUNDS = 8
"""How many requests in a row may call such functions; the next one may not."""
PROGRESS_INTERVAL_S = 1.0
"""How often it is reported that a model generates, while no clause is complete."""
MAX_KEPT_ROUNDS = 64
"""The most calls of one session whose results are in later requests."""

RunServerTool: TypeAlias = Callable[[RunTool], Awaitable[str]]


class TextSink(Protocol):
    """Receives the text of an answer."""

    async def put(self, text: str) -> None: ...
    async def flush(self) -> None: ...
    def end(self, failed: GenerationFailed | None) -> None: ...


class ServerCalls:
    """The calls of one session, and their results."""

    def __init__(
        self, run: RunServerTool, begin: Callable[[RunTool], None] = lambda _: None
    ) -> None:
        """begin: runs a call in the background, which must end with finish()."""
        self._run = run
        self._begin = begin
        self._rounds: deque[tuple[str, tuple[Item, ...]]] = deque(maxlen=MAX_KEPT_ROUNDS)
        self._running: set[str] = set()  # ids of calls in the background
        self._finished: list[Item] = []  # ids of calls whose results no request has had

    async def run(self, order: RunTool, background: frozenset[str]) -> str:
        """The result of a call; for one in the background, that it is running."""
        if order.name not in background:
            return await self._run(order)
        if len(self._running) >= MAX_BACKGROUND_CALLS:
            return TOO_MANY_CALLS
        self._running.add(order.call_id)
        self._begin(order)
        return CALL_RUNS

    def finish(self, order: RunTool, output: str) -> None:
        """A call in the background has returned: the model gets the result as a further call."""
        self._running.discard(order.call_id)
        call_id = f"{order.call_id}_result"
        self._finished += [
            FunctionCall(call_id=call_id, name=order.name, arguments=order.arguments or "{}"),
            FunctionCallOutput(call_id=call_id, output=output),
        ]

    def place_finished(self, items: tuple[Item, ...]) -> None:
        """What has finished in the background, after these items."""
        if self._finished:
            self.keep(items, tuple(self._finished))
            self._finished.clear()

    def keep(self, items: tuple[Item, ...], results: tuple[Item, ...]) -> None:
        """items: those of the request in which the model made the calls."""
        self._rounds.append((items[-1].id if items else "", results))

    def with_results(self, items: tuple[Item, ...]) -> tuple[Item, ...]:
        """The items of the conversation, with the calls at the places where they were made."""
        if not self._rounds:
            return items
        found: list[Item] = [one for last, results in self._rounds if not last for one in results]
        for item in items:
            found.append(item)
            found += [one for last, results in self._rounds if last == item.id for one in results]
        return tuple(found)


class CallRound:
    """The calls of such functions in one output of the model."""

    def __init__(self, names: frozenset[str] = frozenset()) -> None:
        self._names = names
        self._calls: dict[int, tuple[CallStarted, list[str]]] = {}  # by the model's index

    def __bool__(self) -> bool:
        return bool(self._calls)

    def take(self, event: ChatEvent) -> bool:
        """Whether an event is about such a call, so that only this class handles it."""
        match event:
            case CallStarted(index=index, name=name) if name in self._names:
                if len(self._calls) < MAX_CALLS_PER_RESPONSE:
                    self._calls[index] = (event, [])
                return True
            case CallDelta(index=index, arguments=arguments) if index in self._calls:
                self._calls[index][1].append(arguments)
                return True
        return False

    async def results(
        self, run: RunServerTool, waiting: Callable[[], None], every_s: float
    ) -> tuple[Item, ...]:
        """Run the calls at the same time.

        Returns each call, and its output after it. waiting: called every `every_s` seconds while
        they run.
        """
        calls = [(started, "".join(parts)) for started, parts in self._calls.values()]
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(_output(run, RunTool(started.call_id, started.name, arguments)))
                for started, arguments in calls
            ]
            pending = set(tasks)
            while pending:
                waiting()
                _, pending = await asyncio.wait(pending, timeout=every_s)
        items: list[Item] = []
        for (started, arguments), task in zip(calls, tasks, strict=True):
            call_id = started.call_id
            items += [
                FunctionCall(call_id=call_id, name=started.name, arguments=arguments or "{}"),
                FunctionCallOutput(call_id=call_id, output=task.result()),
            ]
        return tuple(items)


async def _output(run: RunServerTool, order: RunTool) -> str:
    return await run(order)


class TextGenerator:
    """Requests one answer from the model, and passes its text and its end to `clauses`.

    If the model fails before its first word, the apology of the cascade is spoken before the
    failure. If it calls functions of this server, it is requested again with their results.
    """

    def __init__(
        self,
        order: Generate,
        cascade: Cascade,
        post: Callable[[GenerationFact], None],
        clauses: TextSink,
        opened: Callable[[], Awaitable[None]] | None,
        calls: ServerCalls | None,
    ) -> None:
        """opened: waits until calls may be made; None: they may be made at once."""
        self._id, self._prompt = order.response_id, order.prompt
        self._cascade = cascade
        self._post = post
        self._clauses = clauses
        self._opened = opened
        self._calls = calls
        self._said = False
        self._post_at = float("-inf")  # when progress is next reported
        self._tokens: TokenCounts | None = None

    async def run(self) -> None:
        try:
            await self._run()
        except EngineError as exc:
            if not self._said and self._prompt.spoken and self._cascade.apology:
                await self._clauses.put(self._cascade.apology)
            await self._clauses.flush()
            self._clauses.end(GenerationFailed(self._id, "llm", str(exc)))
        else:
            self._clauses.end(None)

    async def _run(self) -> None:
        prompt, calls = self._prompt, self._calls
        if calls is None or not prompt.server_tools:
            await self._request(_request(prompt, self._cascade, prompt.items), CallRound())
            return
        declared = frozenset(tool.name for tool in prompt.server_tools)
        if prompt.background_tools:
            calls.place_finished(prompt.items)
        for count in range(MAX_ROUNDS + 1):
            last = count == MAX_ROUNDS
            request = _request(prompt, self._cascade, calls.with_results(prompt.items))
            if not last:
                request = replace(request, tools=prompt.tools + prompt.server_tools)
            if count:  # a function that must be called would be called for ever
                request = replace(request, tool_choice="none" if last else "auto")
            asked = CallRound(frozenset() if last else declared)
            again = await self._request(request, asked)
            if asked:
                if self._opened is not None:
                    await self._opened()
                run = partial(calls.run, background=prompt.background_tools)
                results = await asked.results(run, self._on_tool, PROGRESS_INTERVAL_S)
                calls.keep(prompt.items, results)
            if not again:
                return

    async def _request(self, request: ChatRequest, hidden: CallRound) -> bool:
        """Pass on one output of the model; return whether it is to be requested again with
        results."""
        called = ended = again = False
        async with (
            self._cascade.use_llm(self._prompt.asked_model) as llm,
            aclosing(llm.generate(request)) as given,
            aclosing(_from_the_first_word(given)) as events,
        ):
            async for event in events:
                if hidden.take(event):
                    continue
                match event:
                    case TextDelta(text=text):
                        await self._add_text(text)
                    case CallStarted(index=index, call_id=call_id, name=name):
                        self._said = called = True
                        self._post(ToolCallStarted(self._id, index, call_id, name))
                    case CallDelta(index=index, arguments=arguments):
                        self._post(ToolCallArguments(self._id, index, arguments))
                    case ChatEnded(reason=reason, usage=usage):
                        ended = True
                        again = bool(hidden) and not called and reason == "stop"
                        await self._finish(reason, usage, again=again, silent=not hidden)
        if not ended:
            raise EngineError("the language model's answer broke off without an end")
        return again

    async def _finish(
        self,
        reason: Literal["stop", "length", "content_filter"],
        usage: ChatUsage | None,
        *,
        again: bool,
        silent: bool,
    ) -> None:
        """The model has ended. silent: it has not called a function of this server."""
        if not self._said and silent and reason == "stop":
            raise EngineError("the language model gave an empty answer")
        self._tokens = _sum(self._tokens, token_counts(usage))
        if again and self._said:
            await self._clauses.put(" ")
        await self._clauses.flush()
        if not again:
            self._post(GenerationFinished(self._id, reason, self._tokens))

    async def _add_text(self, text: str) -> None:
        self._said, now = True, asyncio.get_running_loop().time()
        if self._prompt.spoken and now >= self._post_at:
            self._post(GenerationProgress(self._id))
            self._post_at = now + PROGRESS_INTERVAL_S
        await self._clauses.put(text)

    def _on_tool(self) -> None:
        """A function of this server runs: the answer continues, without text for now."""
        self._post(GenerationProgress(self._id, writes=False))


async def _from_the_first_word(events: AsyncIterator[ChatEvent]) -> AsyncGenerator[ChatEvent]:
    """Pass on text.

    White space before the first word is kept until then; alone, or next to a call, it is dropped.
    """
    blank: str | None = ""
    async for event in events:
        if isinstance(event, TextDelta) and blank is not None:
            blank += event.text
            if not blank.strip():
                continue
            yield TextDelta(blank)
            blank = None
        else:
            yield event


def token_counts(usage: ChatUsage | None) -> TokenCounts | None:
    if usage is None:
        return None
    return TokenCounts(usage.input_tokens, usage.output_tokens, usage.cached_tokens)


def _sum(one: TokenCounts | None, other: TokenCounts | None) -> TokenCounts | None:
    if one is None or other is None:
        return other or one
    return TokenCounts(
        one.input + other.input, one.output + other.output, one.cached + other.cached
    )


def _request(prompt: Prompt, cascade: Cascade, items: tuple[Item, ...]) -> ChatRequest:
    return ChatRequest(
        model=cascade.choice.model(prompt.asked_model),
        instructions=prompt.instructions,
        items=items,
        tools=prompt.tools,
        tool_choice=prompt.tool_choice,
        parallel_tool_calls=prompt.parallel_tool_calls,
        max_output_tokens=prompt.max_output_tokens,
        language=prompt.language,
        conversation_id=prompt.conversation_id,
    )
