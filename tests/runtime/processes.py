"""Several processes of one store in virtual time, and clients that come back to any of them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

from tests.runtime.stage import RecordingPeer, ScriptedEngines, make_context, question
from tests.store.line import InlineSQLite, Line
from vivavoce.limits.prices import PriceTable
from vivavoce.protocol.server import ErrorEvent, ItemDone
from vivavoce.protocol.session import ServerVad
from vivavoce.protocol.wire import Opening
from vivavoce.runtime.resume import ResumeSettings, Resumption, Ticket
from vivavoce.runtime.runner import Runner
from vivavoce.runtime.sessions import Sessions
from vivavoce.session.facts import Disconnected
from vivavoce.session.limits import SessionLimits
from vivavoce.store.base import AccountStore, StoreSettings
from vivavoce.store.buffered import BufferedAccounts
from vivavoce.telemetry.metering import Metering
from vivavoce.telemetry.session_meter import SessionMeter
from vivavoce.testing.virtual_time import run

LIMITS = SessionLimits(say_budget_spent="", say_store_lost="")  # sessions end at once


def now() -> float:
    return 1_796_000_000.0 + asyncio.get_running_loop().time()


def with_store(script: Callable[[InlineSQLite], Awaitable[None]]) -> None:
    """Run a script with an empty store."""

    async def main() -> None:
        async with InlineSQLite(":memory:", wall_clock=now) as store:
            await script(store)

    run(main())


class Caller:
    """A client, and its session in one of the processes."""

    def __init__(self, process: "Process", peer: RecordingPeer, ticket: Any, runner: Any) -> None:
        self.process = process
        self.peer = peer
        self.ticket: Ticket = ticket
        self.token = self.ticket.token.reveal()
        self.runner: Runner = runner
        self.serving = asyncio.create_task(process.sessions.serve(runner))

    async def ask(self) -> None:
        """Ask a question, and wait for the whole answer."""
        before = self.peer.types.count("response.done")
        for fact in question():
            self.runner.post(fact)
        await self.peer.until("response.done", before + 1)
        assert self.peer.endings[-1] == ("completed", None)

    async def leave(self) -> None:
        self.runner.post(Disconnected())
        await self.serving

    @property
    def items(self) -> list[str]:
        """The ids of the items that were sent, also again."""
        return [str(event.item.id) for event in self.peer.events if isinstance(event, ItemDone)]

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
        """Both lines; from then on nothing is stored."""
        self.accounts.cut = self.conversations.cut = cut

    async def call(self, token: str = "") -> Caller:
        """A client that opens a session, or comes back with a token and wants the items again."""
        query = {"resume_token": token, "items": "1"} if token else {}
        ticket = self.resumption.ticket(query, "k")
        await self.sessions.take_over(ticket)
        peer = RecordingPeer()
        runner = self.sessions.open(peer, Opening(who="k"), ticket=ticket)
        caller = Caller(self, peer, ticket, runner)
        await peer.until("session.created")
        return caller


@asynccontextmanager
async def process(
    store: AccountStore,
    name: str,
    engines: ScriptedEngines | None = None,
    *,
    ahead_s: float = 0.0,
    **context: Any,
) -> AsyncIterator[Process]:
    """context: fields of the ServerContext. ahead_s: of its clock, to that of the store."""
    lines = Line(store), Line(store)
    accounts, conversations = (cast(AccountStore, line) for line in lines)

    def own_clock() -> float:
        return now() + ahead_s

    async with (
        Resumption(conversations, ResumeSettings(), owner=name, wall_clock=own_clock) as resumption,
        BufferedAccounts(accounts, StoreSettings(), wall_clock=now) as buffered,
        Metering(buffered, PriceTable([]), {}, wall_clock=now) as meter,
    ):
        plain = make_context(engines or ScriptedEngines(), LIMITS, turn_detection=ServerVad())
        metered = replace(plain, meter=partial(SessionMeter, meter), resumption=resumption)
        sessions = Sessions(replace(metered, **context), wall_clock=now)
        yield Process(sessions, resumption, meter, *lines)
        await sessions.drain(0)


async def pass_time(seconds: float) -> None:
    """Wait in virtual time."""
    await asyncio.sleep(seconds)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.1)
