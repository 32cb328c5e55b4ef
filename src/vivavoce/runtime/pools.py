"""Several servers of one service as one engine: `base_url = ["http://a/v1", "http://b/v1"]`.

A pool is a chain (runtime/fallback.py) that orders its members anew for each request. Two members
are drawn at random, and the one with the shorter expected wait is asked first. The others follow in
the order of their expected waits, and take over if it fails, even in the middle of a turn. The
expected wait of a member is (requests under way + 1) x its recent latency / its weight.

Two choices: M. Mitzenmacher, The Power of Two Choices in Randomized Load Balancing, 2001.
"""

import asyncio
import copy
import logging
import math
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from dataclasses import replace
from random import Random
from typing import Annotated, Any, Generic, NamedTuple, Self, TypeVar

import msgspec
from msgspec import Meta

from vivavoce.engines.base import LLM, STT, TTS, BaseEngine, health_of, translator_of
from vivavoce.errors import EngineError
from vivavoce.runtime.chains import FallbackLLM, FallbackSTT, FallbackTTS
from vivavoce.runtime.fallback import (
    Chain,
    FallbackSettings,
    KeptAudio,
    Member,
    first_engine,
)

log = logging.getLogger(__name__)

T = TypeVar("T")
E = TypeVar("E")

MAX_MEMBERS = 64
MAX_CONVERSATIONS = 4096
"""Conversations whose member a pool remembers; the ones used least recently are dropped."""
CHECK_TIMEOUT_S = 3.0
FAILED_CHECKS = 2
"""A member gets no work after this many failed checks in a row."""
MIN_CHECK_S = 1.0
LATENCY_DECAY_S = 10.0
"""In this time the part of a member's latency above that of the fastest member falls to a third."""
FIRST_LATENCY_S = 0.5
"""The highest latency assumed for a member that has not answered yet."""
MIN_LATENCY_S = 0.01
"""Below this latency only the requests in progress count."""
ALIKE = 1.25
"""Waits whose ratio is below this count as equal: then chance decides, so that each member is
measured."""


class PoolSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[engines.KIND.NAME.pool]: how work is spread over the servers of `base_url`."""

    weights: tuple[Annotated[float, Meta(ge=0, le=1000)], ...] = ()
    """One for each server, in the order of `base_url`: a server of twice the weight takes twice the
    load. 0: it gets no new work. Empty: all are equal."""
    check_seconds: Annotated[float, Meta(ge=0, le=600)] = 5.0
    """Between two checks of a server; 0: there are none, and only failed requests count."""
    check_path: str = "models"
    """What a check requests: a path below the base URL, or one of the host, such as /ready."""
    affinity: bool = True
    """For language models: a conversation stays with one server, whose prompt cache has it."""

    def __post_init__(self) -> None:
        if self.weights and not any(self.weights):
            raise ValueError("weights: at least one must be above 0")
        if 0 < self.check_seconds < MIN_CHECK_S:
            raise ValueError(f"check_seconds is 0 or at least {MIN_CHECK_S:g}")


class MemberStatus(NamedTuple):
    """The state of a member, and its counters."""

    problem: str
    """Why it gets no new work; "": it gets work."""
    in_flight: int
    answered: int
    failed: int
    waited_s: float
    """The sum of the times from requests to their first results."""


class _Load(msgspec.Struct):
    """What is known about a member."""

    weight: float
    in_flight: int = 0
    answered: int = 0
    failed: int = 0
    waited_s: float = 0.0
    latency_s: float | None = None
    """The recent latency, in which longer values weigh more; None: it has not answered yet."""
    measured_at: float = 0.0
    failed_checks: int = 0
    problem: str = ""
    """Found by checks."""

    def latency(self, now: float, fastest_s: float) -> float:
        """The latency now: latency_s approaches that of the fastest member with time."""
        if self.latency_s is None:
            return fastest_s
        left = math.exp((self.measured_at - now) / LATENCY_DECAY_S)
        return max(MIN_LATENCY_S, fastest_s + (self.latency_s - fastest_s) * left)

    def note(self, waited_s: float, now: float, fastest_s: float) -> None:
        """Note a measured latency. A longer one counts fully, a shorter one by half."""
        if self.latency_s is None:
            self.latency_s = waited_s
        else:
            self.latency_s = max(waited_s, (self.latency(now, fastest_s) + waited_s) / 2)
        self.measured_at = now


class _Balance(msgspec.Struct):
    """The loads of all members, and the member of each conversation."""

    loads: dict[str, _Load]
    random: Random
    conversations: OrderedDict[str, str] = msgspec.field(default_factory=OrderedDict)

    def fastest_s(self) -> float:
        known = [load.latency_s for load in self.loads.values() if load.latency_s is not None]
        return max(MIN_LATENCY_S, min([FIRST_LATENCY_S, *known]))

    def waits(self, now: float) -> dict[str, float]:
        """The expected wait of each member with a weight, in seconds divided by the weight."""
        fastest_s = self.fastest_s()
        return {
            name: (load.in_flight + 1) * load.latency(now, fastest_s) / load.weight
            for name, load in self.loads.items()
            if load.weight
        }

    @contextmanager
    def work(self, name: str, since: Callable[[], float | None]) -> Iterator[Callable[[], None]]:
        """A request to a member, in progress until the block ends. Call the yielded function for
        each result. since: returns when the wait for a result began; None: not yet."""
        load, clock = self.loads[name], asyncio.get_running_loop().time
        began, answered = clock(), False

        def waited() -> float | None:
            due = since()
            return None if due is None else clock() - max(began, due)

        def note() -> None:
            nonlocal answered
            if not answered and (seconds := waited()) is not None:
                answered = True
                load.answered += 1
                load.waited_s += seconds
                load.note(seconds, clock(), self.fastest_s())

        load.in_flight += 1
        try:
            yield note
        finally:
            load.in_flight -= 1
            seconds = waited()
            if not answered and seconds is not None and seconds > (load.latency_s or 0.0):
                # given up: the latency is at least that long
                load.note(seconds, clock(), self.fastest_s())


class Pool(Chain[E], Generic[E]):
    """The common part of the pools of all stages.

    Unlike other chains, a pool enters its members itself.
    """

    def __init__(
        self,
        members: Sequence[Member[E]],
        settings: FallbackSettings,
        pool: PoolSettings,
        random: Random | None = None,
    ) -> None:
        """members: their names differ. Raises ValueError if the number of weights is wrong."""
        super().__init__(members, settings)
        weights = pool.weights or (1.0,) * len(members)
        if len(weights) != len(members):
            raise ValueError(
                f"weights: there are {len(weights)}, but base_url names {len(members)} servers"
            )
        loads = {m.name: _Load(weight) for m, weight in zip(members, weights, strict=True)}
        self.pool = pool
        self._balance = _Balance(loads, random or Random())
        self._stack = AsyncExitStack()
        self._checking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            for member in self.members:
                engine: Any = member.engine
                await stack.enter_async_context(engine)
            self._stack = stack.pop_all()
        if self.pool.check_seconds:
            self._checking = asyncio.create_task(self._check_often())
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._checking is not None:
            self._checking.cancel()
            await asyncio.wait((self._checking,))
        await self._stack.aclose()

    @property
    def statuses(self) -> Mapping[str, MemberStatus]:
        """The state of each member, by its name."""
        now = asyncio.get_running_loop().time()
        found = {}
        for member in self.members:
            load = self._balance.loads[member.name]
            found[member.name] = MemberStatus(
                self._problem(member, now),
                load.in_flight,
                load.answered,
                load.failed,
                load.waited_s,
            )
        return found

    def _problem(self, member: Member[E], now: float) -> str:
        load = self._balance.loads[member.name]
        if not load.weight:
            return "its weight is 0: it gets no new work"
        if problem := load.problem or health_of(member.engine):
            return problem
        if now < member.breaker.open_until:
            return f"it failed, and is left out for {member.breaker.open_until - now:.0f} s"
        return ""

    def health(self) -> str | None:
        """The reason of the first member, if no server can be reached."""
        reasons = [
            load.problem or health_of(member.engine)
            for member in self.members
            if (load := self._balance.loads[member.name]).weight
        ]
        return f"no server of {len(reasons)} works: {reasons[0]}" if all(reasons) else None

    def for_model(self, name: str) -> Self | None:
        """A pool of the servers that offer the model."""

        def offered(engine: object) -> Any:
            return engine.for_model(name) if isinstance(engine, BaseEngine) else None

        return self._of(offered)

    def for_translation(self) -> Self | None:
        return self._of(translator_of)

    def _of(self, variant: Callable[[E], E | None]) -> Self | None:
        """The same pool with another engine for each member, and with shared loads."""
        made = [(member, variant(member.engine)) for member in self.members]
        able = [replace(member, engine=engine) for member, engine in made if engine is not None]
        if not able:
            return None
        other = copy.copy(self)
        other.members = tuple(able)
        return other

    def preferred(self, now: float, conversation: str = "") -> Sequence[Member[E]]:
        """The members in the order of their expected waits: see the top of this file."""
        waits = self._balance.waits(now)
        weighted = [member for member in self.members if member.name in waits]
        able = [member for member in weighted if self._works(member, now)]
        drawn = self._balance.random.sample(able, min(2, len(able)))
        first = drawn[0] if drawn else None
        if len(drawn) > 1 and waits[drawn[0].name] > ALIKE * waits[drawn[1].name]:
            first = drawn[1]
        kept = self._balance.conversations.get(conversation)
        for member in able:
            if member.name == kept:
                first = member
        rest = [member for member in weighted if member is not first]
        rest.sort(key=lambda member: waits[member.name])
        return [first, *rest] if first is not None else rest or self.members

    def note_conversation(self, member: Member[E], conversation: str) -> None:
        if not conversation or not self.pool.affinity:
            return
        known = self._balance.conversations
        known[conversation] = member.name
        known.move_to_end(conversation)
        if len(known) > MAX_CONVERSATIONS:
            known.popitem(last=False)

    async def watched(
        self, member: Member[E], stream: AsyncGenerator[T], audio: KeptAudio | None = None
    ) -> AsyncGenerator[T]:
        """The stream, with its latency measured; that of a recogniser counts from the end of its
        audio."""

        def since() -> float | None:
            if audio is None:
                return 0.0
            return audio.ended_at if audio.ended.is_set() else None

        async with aclosing(stream):
            with self._balance.work(member.name, since) as note:
                async for thing in stream:
                    note()
                    yield thing

    def fail(self, member: Member[E], exc: EngineError, rest: Sequence[Member[E]] = ()) -> None:
        self._balance.loads[member.name].failed += 1
        super().fail(member, exc, rest)

    def _works(self, member: Member[E], now: float) -> bool:
        return not self._balance.loads[member.name].problem and super()._works(member, now)

    async def _check_often(self) -> None:
        while True:
            await asyncio.gather(*map(self._check, self.members))
            # so that workers and nodes do not check at the same time
            await asyncio.sleep(self.pool.check_seconds * self._balance.random.uniform(0.8, 1.2))

    async def _check(self, member: Member[E]) -> None:
        """Ask a server whether it works. Never raises."""
        problem = ""
        if isinstance(member.engine, BaseEngine):
            try:
                async with asyncio.timeout(CHECK_TIMEOUT_S):
                    await member.engine.check(self.pool.check_path)
            except EngineError as exc:
                problem = str(exc)
            except TimeoutError:
                problem = f"it did not answer a check within {CHECK_TIMEOUT_S:g} s"
        load = self._balance.loads[member.name]
        load.failed_checks = load.failed_checks + 1 if problem else 0
        if problem and load.failed_checks >= FAILED_CHECKS:
            if not load.problem:
                log.warning("%s %s gets no new work: %s", self.stage, member.name, problem)
            load.problem = problem
        elif not problem and load.problem:
            load.problem = ""
            member.breaker.succeed()
            log.info("%s %s works again", self.stage, member.name)


def pools_of(engines: Mapping[str, object]) -> dict[str, Pool[Any]]:
    """The pools among the engines."""
    return {name: engine for name, engine in engines.items() if isinstance(engine, Pool)}


class PooledSTT(Pool[STT], FallbackSTT):
    """Recognisers of one service."""

    async def _order_for(self, kept: KeptAudio, language: str | None) -> list[Member[STT]]:
        """If the service gets complete utterances, the member is chosen only when one is
        complete."""
        if not first_engine(self).capabilities.streaming_input:
            await kept.gathered.wait()
        return self.in_order(language)


class PooledTTS(Pool[TTS], FallbackTTS):
    """Synthesisers of one service."""


class PooledLLM(Pool[LLM], FallbackLLM):
    """Language models of one service."""

    @property
    def known_model(self) -> str:
        """The context length of the first server; "": not known."""
        return str(getattr(first_engine(self), "known_model", ""))


class PooledEndpoint(PooledLLM):
    """Language models to which requests can be forwarded unchanged."""

    async def model(self) -> str:
        """The model that the settings name. Raises EngineError."""
        order = self.in_order()
        while True:
            member = order.pop(0)
            try:
                name: str = await _as_endpoint(member).model()
            except EngineError as exc:
                self.fail(member, exc, order)
                if not order:
                    raise
            else:
                return name

    @asynccontextmanager
    async def forward(self, body: bytes, *, spoken: bool = False) -> AsyncGenerator[Any]:
        """Forward a request for a chat completion to the first server that does not fail.

        Raises EngineError: none answers.
        """
        order = self.in_order()
        while True:
            member = order.pop(0)
            async with AsyncExitStack() as stack:
                note = stack.enter_context(self._balance.work(member.name, lambda: 0.0))
                try:
                    asked = _as_endpoint(member).forward(body, spoken=spoken)
                    answer = await stack.enter_async_context(asked)
                    if answer.status >= 500 and order:
                        raise EngineError(f"{member.name} answers {answer.status}")
                except EngineError as exc:
                    self.fail(member, exc, order)
                    if not order:
                        raise
                    continue
                note()
                if answer.status < 500:
                    self.succeed(member)
                yield answer
                return


def _as_endpoint(member: Member[LLM]) -> Any:
    """The engine, which has the methods model() and forward()."""
    return member.engine
