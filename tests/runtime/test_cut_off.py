"""Two processes of one store, of which one is cut off: who has the conversation, and who pays."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import msgspec

from tests.runtime.stage import RecordingPeer, ScriptedEngines, make_context, question
from tests.store.line import InlineSQLite, Line
from vivavoce.limits.accounts import Budget
from vivavoce.limits.prices import PriceTable, Quantities
from vivavoce.protocol.server import ErrorEvent
from vivavoce.protocol.wire import Opening
from vivavoce.runtime.resume import TAKEN_OVER_CLOSE, ResumeSettings, Resumption
from vivavoce.runtime.sessions import Sessions
from vivavoce.session.facts import Disconnected
from vivavoce.session.limits import SessionLimits
from vivavoce.store.base import AccountStore, Balance, Charge, StoreSettings, UsageRow
from vivavoce.store.buffered import BufferedAccounts
from vivavoce.telemetry.metering import Metering
from vivavoce.telemetry.session_meter import SessionMeter
from vivavoce.testing.virtual_time import run

BUDGET = Budget(scope="all", unit="tokens", period="total", limit=10**9)
LIMITS = SessionLimits(say_budget_spent="", say_store_lost="")  # sessions end at once


def now() -> float:
    return 1_796_000_000.0 + asyncio.get_running_loop().time()


class Caller:
    """A client, and its session in one of the processes."""

    def __init__(self, process: "Process", peer: RecordingPeer, ticket: Any, runner: Any) -> None:
        self.peer = peer
        self.token: str = ticket.token.reveal()
        self._runner = runner
        self.serving = asyncio.create_task(process.sessions.serve(runner))

    async def ask(self) -> None:
        """Ask a question, and wait for the whole answer."""
        before = self.peer.types.count("response.done")
        await self.peer.until("session.created")
        for fact in question():
            self._runner.post(fact)
        await self.peer.until("response.done", before + 1)
        assert self.peer.endings[-1] == ("completed", None)

    async def leave(self) -> None:
        self._runner.post(Disconnected())
        await self.serving

    @property
    def errors(self) -> list[str | None]:
        return [event.error.code for event in self.peer.events if isinstance(event, ErrorEvent)]


@dataclass(frozen=True, slots=True)
class Process:
    """Accounts and conversations have a line of their own to the store."""

    sessions: Sessions
    resumption: Resumption
    meter: Metering
    accounts: Line
    conversations: Line

    def cut(self, *, cut: bool = True) -> None:
        self.accounts.cut = self.conversations.cut = cut

    async def call(self, token: str = "") -> Caller:
        """A client that opens a session, or comes back with a token."""
        ticket = self.resumption.ticket({"resume_token": token} if token else {}, "k")
        await self.sessions.take_over(ticket)
        peer = RecordingPeer()
        runner = self.sessions.open(peer, Opening(who="k"), ticket=ticket)
        caller = Caller(self, peer, ticket, runner)
        await peer.until("session.created")
        return caller


@asynccontextmanager
async def process(store: AccountStore, name: str) -> AsyncIterator[Process]:
    lines = Line(store), Line(store)
    accounts, conversations = (cast(AccountStore, line) for line in lines)
    async with (
        Resumption(conversations, ResumeSettings(), owner=name, wall_clock=now) as resumption,
        BufferedAccounts(accounts, StoreSettings(), wall_clock=now) as buffered,
        Metering(buffered, PriceTable([]), {}, wall_clock=now) as meter,
    ):
        plain = make_context(ScriptedEngines(), LIMITS)
        context = replace(plain, meter=partial(SessionMeter, meter), resumption=resumption)
        sessions = Sessions(context, wall_clock=now)
        yield Process(sessions, resumption, meter, *lines)
        await sessions.drain(0)


async def rows_of(store: AccountStore) -> list[UsageRow]:
    return [row async for page in store.usage(0.0, 1e12) for row in page]


async def spend_all(store: AccountStore) -> None:
    """Somebody else uses the rest of the budget."""
    spent = UsageRow(
        id="other", at=now(), kind="response", model="", used={"text_input": BUDGET.limit}
    )
    await store.settle(spent, [Charge(BUDGET.id, "total", BUDGET.limit)])


def in_two_processes(
    script: Callable[[AccountStore, Process, Process], Awaitable[None]],
) -> None:
    """At the end nothing is reserved, and all that was booked was charged once."""

    async def main() -> None:
        async with InlineSQLite(":memory:", wall_clock=now) as store:
            await store.save("budget", BUDGET.id, msgspec.json.encode(BUDGET))
            async with process(store, "one") as one, process(store, "two") as two:
                await script(store, one, two)
            used = sum(Quantities(**row.used).tokens for row in await rows_of(store))
            assert await store.balance(BUDGET.id, "total") == Balance(used, 0)

    run(main())


def test_session_that_began_just_before_its_process_was_cut_off_ends_as_superseded() -> None:
    async def script(store: AccountStore, one: Process, two: Process) -> None:
        older = await two.call()
        await older.ask()
        await until(lambda: two.resumption.idle)
        two.cut()
        newer = await one.call(older.token)
        for _ in range(3):
            await older.ask()
            await newer.ask()
        assert older.peer.closed is None
        two.cut(cut=False)
        await older.serving
        assert older.peer.closed == (TAKEN_OVER_CLOSE, "session_taken_over")
        assert older.errors == ["session_taken_over"]
        await newer.ask()
        await newer.leave()
        answered = [response.id for each in (older, newer) for response in each.peer.responses]
        await until(lambda: not two.meter.store.away)
        booked = [row.id.rpartition(":")[2] for row in await rows_of(store) if row.used]
        assert sorted(set(booked) & set(answered)) == sorted(answered)

    in_two_processes(script)


def test_session_without_money_whose_conversation_is_elsewhere_ends_as_superseded() -> None:
    async def script(store: AccountStore, one: Process, two: Process) -> None:
        older = await two.call()
        await older.ask()
        await until(lambda: two.resumption.idle)
        two.conversations.cut = True
        two.meter.on_refusal.append(lambda _: two.cut(cut=False))
        newer = await one.call(older.token)
        await spend_all(store)
        await older.ask()  # what was reserved for it before
        await older.serving
        assert newer.peer.closed is None
        assert older.peer.closed == (TAKEN_OVER_CLOSE, "session_taken_over")
        assert older.errors == ["session_taken_over"]

    in_two_processes(script)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.1)
