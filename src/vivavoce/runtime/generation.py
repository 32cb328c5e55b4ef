"""One answer: the model's text, cut into clauses, each spoken while the next ones are generated.

language model → _generate() → queue of clauses → _perform() → SpeechWriter → facts
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import TypeAlias

from vivavoce.engines.base import (
    LLM,
    CallDelta,
    CallStarted,
    ChatEnded,
    ChatEvent,
    ChatRequest,
    ChatUsage,
    TextDelta,
)
from vivavoce.errors import EngineError
from vivavoce.runtime.catalog import Cascade
from vivavoce.runtime.clauses import Clauses
from vivavoce.runtime.synthesis import Synthesis
from vivavoce.session.effects import Generate, Prompt
from vivavoce.session.facts import (
    AudioGenerated,
    GenerationFact,
    GenerationFailed,
    GenerationFinished,
    GenerationProgress,
    OutputFinished,
    TextGenerated,
    TokenCounts,
    ToolCallArguments,
    ToolCallStarted,
)

CLAUSES_AHEAD = 32  # generated and not spoken yet; a model that is further ahead waits
PROGRESS_INTERVAL_S = 1.0  # between facts that a model generates, while no clause is complete

Post: TypeAlias = Callable[[GenerationFact], None]
WaitWritable: TypeAlias = Callable[[], Awaitable[None]]
# the clauses of an answer, then its end: None, or why it broke off
Clause: TypeAlias = str | GenerationFailed | None


async def answer(
    order: Generate, cascade: Cascade, post: Post, wait_writable: WaitWritable
) -> None:
    """Generate an answer and post its facts; cancel to stop.

    `wait_writable` is backpressure: it waits until the client has taken what it was sent.
    """
    clauses: asyncio.Queue[Clause] = asyncio.Queue(CLAUSES_AHEAD)
    async with asyncio.TaskGroup() as tasks:
        generating = tasks.create_task(_generate(order, cascade.llm, post, clauses))
        if await _perform(order, cascade, post, wait_writable, clauses):
            post(OutputFinished(order.response_id))
        generating.cancel()  # where speech failed, no more text is wanted


async def _generate(order: Generate, llm: LLM, post: Post, clauses: asyncio.Queue[Clause]) -> None:
    """Request the model; put its clauses and the end marker into `clauses`."""
    response_id, cutter, said, ended = order.response_id, Clauses(), False, False
    clock, post_at = asyncio.get_running_loop().time, float("-inf")
    try:
        async with (
            aclosing(llm.generate(_request(order.prompt))) as given,
            aclosing(_from_the_first_word(given)) as events,
        ):
            async for event in events:
                match event:
                    case TextDelta(text=text):
                        said = True
                        if order.prompt.spoken and clock() >= post_at:
                            post(GenerationProgress(response_id))
                            post_at = clock() + PROGRESS_INTERVAL_S
                        for clause in cutter.feed(text) if order.prompt.spoken else [text]:
                            await clauses.put(clause)
                    case CallStarted(index=index, call_id=call_id, name=name):
                        said = True
                        post(ToolCallStarted(response_id, index, call_id, name))
                    case CallDelta(index=index, arguments=arguments):
                        post(ToolCallArguments(response_id, index, arguments))
                    case ChatEnded(reason=reason, usage=usage):
                        ended = True
                        if not said and reason == "stop":
                            raise EngineError("the language model gave an empty answer")
                        if rest := cutter.flush():
                            await clauses.put(rest)
                        post(GenerationFinished(response_id, reason, _tokens(usage)))
        if not ended:
            raise EngineError("the language model's answer broke off without an end")
    except EngineError as exc:
        if rest := cutter.flush():
            await clauses.put(rest)
        await clauses.put(GenerationFailed(response_id, "llm", str(exc)))
    else:
        await clauses.put(None)


async def _from_the_first_word(events: AsyncIterator[ChatEvent]) -> AsyncGenerator[ChatEvent]:
    """White space before the first word is kept; alone, or next to a call, it is dropped."""
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


async def _perform(
    order: Generate,
    cascade: Cascade,
    post: Post,
    wait_writable: WaitWritable,
    clauses: asyncio.Queue[Clause],
) -> bool:
    """Post clause after clause, spoken or written; False: it failed, and that was posted."""
    writer = SpeechWriter(order, cascade, post, wait_writable)
    while True:
        match await clauses.get():
            case None:
                return True
            case GenerationFailed() as failed:
                post(failed)
                return False
            case str() as clause if not order.prompt.spoken:
                post(TextGenerated(order.response_id, clause))
                await wait_writable()
            case str() as clause:
                try:
                    await writer.speak(clause)
                except EngineError as exc:
                    post(GenerationFailed(order.response_id, "tts", str(exc)))
                    return False


class SpeechWriter:
    """Synthesises the clauses of one answer in order."""

    def __init__(
        self, order: Generate, cascade: Cascade, post: Post, wait_writable: WaitWritable
    ) -> None:
        prompt = order.prompt
        self._response_id = order.response_id
        self._synthesis = Synthesis(
            cascade.tts,
            cascade.voice(prompt.voice),
            speed=prompt.speed,
            language=prompt.language,
            instructions="",  # the session's are for the model, not for the voice
        )
        self._post = post
        self._wait_writable = wait_writable
        self._samples = 0  # of the answer so far

    async def speak(self, clause: str) -> None:
        """Raises EngineError."""
        self._post(TextGenerated(self._response_id, clause))
        async with aclosing(self._synthesis.clause(clause, self._samples)) as pieces:
            async for piece in pieces:
                self._samples += len(piece.audio) // 2
                self._post(AudioGenerated(self._response_id, piece.audio, piece.words, piece.last))
                await self._wait_writable()


def _tokens(usage: ChatUsage | None) -> TokenCounts | None:
    if usage is None:
        return None
    return TokenCounts(usage.input_tokens, usage.output_tokens, usage.cached_tokens)


def _request(prompt: Prompt) -> ChatRequest:
    return ChatRequest(
        model=prompt.asked_model,
        instructions=prompt.instructions,
        items=prompt.items,
        tools=prompt.tools,
        tool_choice=prompt.tool_choice,
        parallel_tool_calls=prompt.parallel_tool_calls,
        max_output_tokens=prompt.max_output_tokens,
        language=prompt.language,
    )
