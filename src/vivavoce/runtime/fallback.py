"""Engines that replace each other when one fails: `stt = ["groq", "moonshine"]`.

A chain has the Protocol of its engines. The first engine that works is used. If it fails, or gives
nothing in time, the next one takes over in the middle of the turn, with the audio so far, the text
that was not spoken yet, or the rest of the answer. An engine that has failed is skipped for a while
(a circuit breaker); the first request after that tries it again.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

import msgspec
from msgspec import Meta

from vivavoce.engines.base import BaseEngine, Capabilities, health_of, translator_of, warm
from vivavoce.errors import EngineError, NoSound
from vivavoce.runtime.tasks import StallGuard
from vivavoce.session.facts import Stage

log = logging.getLogger(__name__)

T = TypeVar("T")
E = TypeVar("E")

MAX_PAUSE_S = 600.0
"""The longest time for which an engine that keeps failing is skipped."""
FIRST_BACKOFF_S = 0.1
MAX_SAID = 64
"""How many languages are remembered for which it was logged that another engine is used."""
MAX_TAG_LETTERS = 3
"""The length of the language code in a tag (ISO 639)."""
MAX_TRIES = 3
"""How many time-outs of an inner chain the outer chain waits for."""
MAX_RETRY_WAIT_S = 2.0
"""The longest wait for a server that says when it can be asked again."""

Seconds = Annotated[float, Meta(gt=0, le=600)]


class FallbackSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[fallback]: when the next engine of a list is used, and what is said if none works."""

    stt_seconds: Seconds = 3.0
    """From the end of the user's speech to the next words of the transcript."""
    llm_seconds: Seconds = 4.0
    """From the request to the first word of the answer."""
    tts_seconds: Seconds = 2.0
    """From a clause to its first sound."""
    gap_seconds: Seconds = 2.0
    """The longest silence within an answer or within speech."""
    hedge_seconds: Annotated[float, Meta(ge=0, le=600)] = 0.0
    """After this time the next engine is asked as well, and the first to answer is used; 0:
    never."""
    retries: Annotated[int, Meta(ge=0, le=5)] = 2
    """How often the engines are asked again, if all have failed before anything was heard."""
    recovery_seconds: Seconds = 30.0
    """How long an engine that has failed is skipped; twice as long each time it fails again."""
    apology: str = "Sorry, I cannot answer just now. Please try again in a moment."
    """Spoken when no language model answers. Empty: nothing is said."""


class _Breaker:
    """Whether an engine has failed recently."""

    def __init__(self) -> None:
        self.failures = 0
        self.open_until = float("-inf")

    def fail(self, now: float, seconds: float) -> None:
        pause = max(seconds, 0.0) * 2**self.failures
        self.failures = min(self.failures + 1, 16)
        self.open_until = now + min(pause, MAX_PAUSE_S)

    def succeed(self) -> bool:
        """Whether the engine had failed before."""
        failed, self.failures, self.open_until = self.failures > 0, 0, float("-inf")
        return failed


@dataclass(frozen=True, slots=True)
class Member(Generic[E]):
    """An engine of a chain, and its name in the settings."""

    name: str
    engine: E
    breaker: _Breaker = field(default_factory=_Breaker)


class Chain(BaseEngine, Generic[E]):
    """The common part of the chains of all stages. The caller enters the engines."""

    Settings = FallbackSettings
    stage: Stage

    def __init__(self, members: Sequence[Member[E]], settings: FallbackSettings) -> None:
        """members: at least one, in order of preference."""
        self.members = tuple(members)
        self.settings = settings
        self._said: set[str] = set()

    def health(self) -> str | None:
        """The reason why the first engine is down, if none works."""
        reasons = [health_of(member.engine) for member in self.members]
        return reasons[0] if all(reasons) else None

    def warm(self) -> None:
        for member in self.members:
            warm(member.engine)

    def for_model(self, name: str) -> Self | None:
        """The same chain with the engine first that offers the model."""
        for member in self.members:
            found = member.engine.for_model(name) if isinstance(member.engine, BaseEngine) else None
            if found is not None:
                others = (other for other in self.members if other is not member)
                return type(self)((replace(member, engine=found), *others), self.settings)
        return None

    def for_translation(self) -> Self | None:
        """A chain of those recognisers that translate."""
        made = [(member, translator_of(member.engine)) for member in self.members]
        able = [replace(member, engine=engine) for member, engine in made if engine is not None]
        return type(self)(tuple(able), self.settings) if able else None

    def preferred(self, now: float, conversation: str = "") -> Sequence[Member[E]]:
        """The engines in order of preference, if all of them work.

        conversation: the one that the request belongs to; "" for none.
        """
        return self.members

    def watched(
        self, member: Member[E], stream: AsyncGenerator[T], audio: "KeptAudio | None" = None
    ) -> AsyncGenerator[T]:
        """Pass on the output of an engine.

        audio: its input, if the engine waits for the end of the audio.
        """
        return stream

    def note_conversation(self, member: Member[E], conversation: str) -> None:
        """An engine has begun to answer a request that belongs to that conversation."""

    def in_order(self, language: str | None = None, conversation: str = "") -> list[Member[E]]:
        """The engines in order: those that work, and the others behind them, so that all are tried
        if none works. Among those that work, the ones that know the language come first.
        """
        now = asyncio.get_running_loop().time()

        def unfitness(member: Member[E]) -> tuple[bool, bool]:
            return not self._works(member, now), not knows_language(member.engine, language)

        order = sorted(self.preferred(now, conversation), key=unfitness)
        self.say_language(language, order[0])
        return order

    def say_language(self, language: str | None, member: Member[E]) -> None:
        """Log once per language that this engine is used because the first does not know the
        language."""
        if knows_language(self.members[0].engine, language) or member is self.members[0]:
            return
        if language is not None and language not in self._said and len(self._said) < MAX_SAID:
            self._said.add(language)
            first = self.members[0].name
            log.info("%s %s does not know %s; %s is used", self.stage, first, language, member.name)

    def fail(self, member: Member[E], exc: EngineError, rest: Sequence[Member[E]] = ()) -> None:
        """An engine has failed: skip it for a while, unless the text caused the failure.

        Logs one line.
        """
        if not isinstance(exc, NoSound):
            seconds = max(self.settings.recovery_seconds, exc.retry_after_s or 0.0)
            member.breaker.fail(asyncio.get_running_loop().time(), seconds)
        what = f"{rest[0].name} takes over" if rest else "no other is left"
        log.warning("%s %s failed: %s; %s", self.stage, member.name, exc, what)

    def succeed(self, member: Member[E]) -> None:
        if member.breaker.succeed():
            log.info("%s %s works again", self.stage, member.name)

    def late(self, member: Member[E], seconds: float) -> EngineError:
        return EngineError(f"{member.name} gave nothing for {seconds:g} s", retry_after_s=0.0)

    def _works(self, member: Member[E], now: float) -> bool:
        return now >= member.breaker.open_until and health_of(member.engine) is None


def first_engine(engine: Any) -> Any:
    """The engine itself; for a chain its first engine, which determines its properties."""
    while isinstance(engine, Chain):
        engine = engine.members[0].engine
    return engine


def tries_of(engine: object) -> int:
    """How many engines are asked one after the other at most."""
    return min(len(engine.members), MAX_TRIES) if isinstance(engine, Chain) else 1


def languages_of(engine: object) -> tuple[str, ...] | Literal["any"]:
    """The tags of the languages that an engine knows, or any engine of a chain."""
    if not isinstance(engine, Chain):
        known: tuple[str, ...] | Literal["any"]
        known = getattr(engine, "capabilities", Capabilities()).languages
        return known
    found: dict[str, None] = {}
    for member in engine.members:
        known = languages_of(member.engine)
        if known == "any":
            return "any"
        found |= dict.fromkeys(known)
    return tuple(found)


def knows_language(engine: object, language: str | None) -> bool:
    """Whether an engine understands or speaks a language, given as a tag; None: any engine
    will do."""
    known = languages_of(engine)
    if not language or known == "any":
        return True
    base = _base_of(language)
    if len(base) > MAX_TAG_LETTERS:  # the name of a language, or invalid
        return True
    return any(base == _base_of(tag) for tag in known)


def _base_of(tag: str) -> str:
    """The language of a tag: en of en-US and EN_us."""
    return tag.lower().replace("_", "-").partition("-")[0]


@dataclass(slots=True)
class Begun(Generic[E, T]):
    """A stream and its first output; None: it ended without any."""

    member: Member[E]
    stream: AsyncGenerator[T]
    first: T | None


class Race(Generic[E, T]):
    """Asks one engine after another, or two at a time, until one gives output.

    Leaving it closes all streams that it began.
    """

    def __init__(
        self,
        chain: Chain[E],
        begin: Callable[[Member[E]], AsyncGenerator[T]],
        members: Sequence[Member[E]],
        seconds: float,
    ) -> None:
        self._chain = chain
        self._begin = begin
        self._waiting = list(members)
        self._seconds = seconds
        self._hedge = chain.settings.hedge_seconds
        self._running: dict[asyncio.Task[T | None], tuple[Begun[E, T], float]] = {}
        self._failed: list[tuple[Member[E], EngineError]] = []
        self._stack = AsyncExitStack()
        self._asked_at = 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stop_running()
        await self._stack.aclose()

    @property
    def rest(self) -> list[Member[E]]:
        """The engines that were not asked yet."""
        return self._waiting

    async def first(self) -> Begun[E, T]:
        """The first output of any engine. Raises EngineError: none gives any, retries included."""
        for attempt in range(self._chain.settings.retries + 1):
            while self._waiting or self._running:
                if (won := await self._step()) is not None:
                    await self._stop_running()
                    return won
            again = [
                (member, exc.retry_after_s)
                for member, exc in self._failed
                if exc.retry_after_s is not None and exc.retry_after_s <= MAX_RETRY_WAIT_S
            ]
            if not again or attempt == self._chain.settings.retries:
                break
            self._failed.clear()
            await asyncio.sleep(max(FIRST_BACKOFF_S * 2**attempt, *(wait for _, wait in again)))
            self._waiting = [member for member, _ in again]
        raise self._failed[-1][1]

    async def _step(self) -> Begun[E, T] | None:
        """Ask the next engine when it is time, and wait for the next event."""
        clock = asyncio.get_running_loop().time
        hedged = self._hedge > 0 and clock() >= self._asked_at + self._hedge
        if self._waiting and (not self._running or hedged):
            self._start(self._waiting.pop(0), clock())
        until = min(deadline for _, deadline in self._running.values())
        if self._hedge > 0 and self._waiting:
            until = min(until, self._asked_at + self._hedge)
        done, _ = await asyncio.wait(
            self._running, timeout=max(0.0, until - clock()), return_when=asyncio.FIRST_COMPLETED
        )
        for task in done:
            begun, _ = self._running.pop(task)
            try:
                begun.first = task.result()
            except EngineError as exc:
                self._fail(begun.member, exc)
            else:
                self._chain.succeed(begun.member)
                return begun
        await self._drop_late(clock())
        return None

    async def _stop_running(self) -> None:
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)
        for task in self._running:
            if not task.cancelled():
                task.exception()  # retrieved: another engine's output is used
        self._running.clear()

    def _start(self, member: Member[E], now: float) -> None:
        stream = self._begin(member)
        self._stack.push_async_callback(stream.aclose)
        task = asyncio.create_task(_next(stream))
        seconds = self._seconds * tries_of(member.engine)
        self._running[task] = (Begun(member, stream, None), now + seconds)
        self._asked_at = now

    async def _drop_late(self, now: float) -> None:
        for task, (begun, deadline) in list(self._running.items()):
            if now >= deadline and not task.done():
                del self._running[task]
                task.cancel()
                await asyncio.wait((task,))
                seconds = self._seconds * tries_of(begun.member.engine)
                self._fail(begun.member, self._chain.late(begun.member, seconds))

    def _fail(self, member: Member[E], exc: EngineError) -> None:
        running = [begun.member for begun, _ in self._running.values()]
        self._failed.append((member, exc))
        self._chain.fail(member, exc, running + self._waiting)


async def _next(stream: AsyncIterator[T]) -> T | None:
    return await anext(stream, None)


async def following(chain: Chain[E], begun: Begun[E, T], seconds: float) -> AsyncGenerator[T]:
    """All output of a stream, the first included. Raises EngineError: it fails or stops."""
    if begun.first is None:
        return
    seconds *= tries_of(begun.member.engine)
    yield begun.first
    async with StallGuard(seconds, partial(chain.late, begun.member, seconds)) as guard:
        guard.begin()
        async for thing in begun.stream:
            guard.end()
            yield thing
            guard.begin()


class KeptAudio:
    """Audio that is read once and can be given to one engine after another, each time from its
    start.

    Bounded: beyond MAX_KEPT_BYTES what an engine has read is dropped, and no other can take over.
    """

    MAX_KEPT_BYTES = 8 << 20  # four minutes at 16 kHz

    def __init__(self, source: AsyncIterator[bytes]) -> None:
        self._source = source
        self._pieces: list[bytes] = []
        self._bytes = 0
        self._dropped = 0  # pieces
        self._read = 0  # pieces, by the engine that reads now
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._error: Exception | None = None
        self.ended = asyncio.Event()
        """All audio has come."""
        self.ended_at = float("inf")
        """When all audio had come, in the loop's time."""
        self.gathered = asyncio.Event()
        """Wait until all audio has come, or as much as is kept while no engine reads it."""

    async def __aenter__(self) -> Self:
        self._reading = asyncio.create_task(self._read_source())
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._reading.cancel()
        await asyncio.wait((self._reading,))

    @property
    def is_whole(self) -> bool:
        """Whether another engine can read it from the start."""
        return self._dropped == 0

    async def pieces(self) -> AsyncGenerator[bytes]:
        """The audio from the start to the end, as it comes."""
        self._read = self._dropped
        while True:
            while self._read - self._dropped < len(self._pieces):
                piece = self._pieces[self._read - self._dropped]
                self._read += 1
                self._drop_read()
                yield piece
            if self.ended.is_set():
                if self._error is not None:
                    raise self._error
                return
            self._changed.clear()
            await self._changed.wait()

    def _drop_read(self) -> None:
        while self._bytes > self.MAX_KEPT_BYTES and self._dropped < self._read:
            self._bytes -= len(self._pieces.pop(0))
            self._dropped += 1
        if self._bytes <= self.MAX_KEPT_BYTES:
            self._room.set()

    async def _read_source(self) -> None:
        try:
            async for piece in self._source:
                self._pieces.append(piece)
                self._bytes += len(piece)
                self._changed.set()
                if self._bytes > self.MAX_KEPT_BYTES:
                    self.gathered.set()
                    self._room.clear()
                    self._drop_read()
                    await self._room.wait()
        except Exception as exc:  # noqa: BLE001  raised again, by pieces()
            self._error = exc
        finally:
            self.ended_at = asyncio.get_running_loop().time()
            self.ended.set()
            self.gathered.set()
            self._changed.set()
