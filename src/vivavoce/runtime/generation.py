"""An answer: the model's words, cut into clauses, spoken while the next ones are thought of."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from typing import TypeAlias

from vivavoce.audio.formats import RATE
from vivavoce.audio.resample import Resampler
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
from vivavoce.runtime.words import SpokenText
from vivavoce.session.effects import Generate, Prompt
from vivavoce.session.facts import (
    AudioGenerated,
    GenerationFact,
    GenerationFailed,
    GenerationFinished,
    GenerationProgress,
    OutputFinished,
    SpokenWord,
    TextGenerated,
    TokenCounts,
    ToolCallArguments,
    ToolCallStarted,
)

CLAUSES_AHEAD = 32  # thought of and not spoken yet; a model that is further ahead waits
ALIVE_SECONDS = 1.0  # between word of a model that thinks, and has no clause complete
LONGEST_PIECE_MS = 400  # what an engine gives at once beyond that goes on in parts of so much

Tell: TypeAlias = Callable[[GenerationFact], None]
Room: TypeAlias = Callable[[], Awaitable[None]]
# the clauses of an answer, then its end: None, or why it broke off
Clause: TypeAlias = str | GenerationFailed | None


async def answer(order: Generate, cascade: Cascade, tell: Tell, room: Room) -> None:
    """Make an answer and tell what comes of it; cancel to stop. `room` waits for the client."""
    clauses: asyncio.Queue[Clause] = asyncio.Queue(CLAUSES_AHEAD)
    async with asyncio.TaskGroup() as tasks:
        thinking = tasks.create_task(_think(order, cascade.llm, tell, clauses))
        if await _say_all(order, cascade, tell, room, clauses):
            tell(OutputFinished(order.response_id))
        thinking.cancel()  # where the voice failed, nobody waits for more words


async def _think(order: Generate, llm: LLM, tell: Tell, clauses: asyncio.Queue[Clause]) -> None:
    """Ask the model; put what is to be said into `clauses`, and the end of it."""
    response_id, cutter, said, ended = order.response_id, Clauses(), False, False
    clock, tell_at = asyncio.get_running_loop().time, float("-inf")
    try:
        async with (
            aclosing(llm.generate(_request(order.prompt))) as given,
            aclosing(_from_the_first_word(given)) as events,
        ):
            async for event in events:
                match event:
                    case TextDelta(text=text):
                        said = True
                        if order.prompt.spoken and clock() >= tell_at:
                            tell(GenerationProgress(response_id))
                            tell_at = clock() + ALIVE_SECONDS
                        for clause in cutter.feed(text) if order.prompt.spoken else [text]:
                            await clauses.put(clause)
                    case CallStarted(index=index, call_id=call_id, name=name):
                        said = True
                        tell(ToolCallStarted(response_id, index, call_id, name))
                    case CallDelta(index=index, arguments=arguments):
                        tell(ToolCallArguments(response_id, index, arguments))
                    case ChatEnded(reason=reason, usage=usage):
                        ended = True
                        if not said and reason == "stop":
                            raise EngineError("the language model gave an empty answer")
                        if rest := cutter.flush():
                            await clauses.put(rest)
                        tell(GenerationFinished(response_id, reason, _tokens(usage)))
        if not ended:
            raise EngineError("the language model's answer broke off without an end")
    except EngineError as exc:
        if rest := cutter.flush():
            await clauses.put(rest)
        await clauses.put(GenerationFailed(response_id, "llm", str(exc)))
    else:
        await clauses.put(None)


async def _from_the_first_word(events: AsyncIterator[ChatEvent]) -> AsyncGenerator[ChatEvent]:
    """Blanks before the first word come with it; alone, or beside a call, they are no answer."""
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


async def _say_all(
    order: Generate, cascade: Cascade, tell: Tell, room: Room, clauses: asyncio.Queue[Clause]
) -> bool:
    """Say clause after clause; False: it failed, and that was told."""
    voice = SpeechWriter(order, cascade, tell, room)
    while True:
        match await clauses.get():
            case None:
                return True
            case GenerationFailed() as failed:
                tell(failed)
                return False
            case str() as clause if not order.prompt.spoken:
                tell(TextGenerated(order.response_id, clause))
                await room()
            case str() as clause:
                try:
                    await voice.say(clause)
                except EngineError as exc:
                    tell(GenerationFailed(order.response_id, "tts", str(exc)))
                    return False


class SpeechWriter:
    """Speaks the clauses of one answer, one after the other."""

    def __init__(self, order: Generate, cascade: Cascade, tell: Tell, room: Room) -> None:
        self._order = order
        self._tts = cascade.tts
        self._voice = cascade.voice(order.prompt.voice)
        self._tell = tell
        self._room = room
        self._samples = 0  # of the answer so far

    async def say(self, clause: str) -> None:
        prompt, base, rate = self._order.prompt, self._samples, self._tts.sample_rate
        self._tell(TextGenerated(self._order.response_id, clause))
        text = SpokenText(clause, base=base, sample_rate=rate, speed=prompt.speed)
        if not clause.strip():  # many a voice refuses to say nothing
            self._spoke(b"", text.rest(0), ends=True)
            return
        resampler = Resampler(rate, RATE)
        async with aclosing(
            self._tts.synthesize(
                clause,
                voice=self._voice,
                speed=prompt.speed,
                language=prompt.language,
                instructions="",  # the session's are for the model, not for the voice
            )
        ) as pieces:
            async for piece in pieces:
                words = text.marked(piece.marks)
                for part in _parts(piece.audio, rate):
                    audio = resampler.feed(part)
                    self._samples += len(audio) // 2
                    self._spoke(audio, words or text.guessed(self._samples - base))
                    words = []
                    await self._room()
                    if len(part) < len(piece.audio):
                        await asyncio.sleep(0)
        audio = resampler.flush()
        self._samples += len(audio) // 2
        self._spoke(audio, text.rest(self._samples - base), ends=True)

    def _spoke(self, audio: bytes, words: list[SpokenWord], *, ends: bool = False) -> None:
        if audio or words or ends:
            self._tell(AudioGenerated(self._order.response_id, audio, tuple(words), ends))


def _parts(audio: bytes, sample_rate: int) -> Iterator[bytes]:
    """One at least, so that the marks of a piece without sound are told, too."""
    size = 2 * (LONGEST_PIECE_MS * sample_rate // 1000)
    for start in range(0, max(1, len(audio)), size):
        yield audio[start : start + size]


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
