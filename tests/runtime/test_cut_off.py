"""Two processes of one store, of which one is cut off: who has the conversation, and who pays."""

from collections.abc import Awaitable, Callable

import msgspec

from tests.runtime.processes import Process, now, pass_time, process, until, with_store
from tests.runtime.stage import ScriptedEngines
from tests.runtime.test_pools import Server, pool_of
from tests.store.line import InlineSQLite
from vivavoce.engines.base import ChatEnded, TextDelta
from vivavoce.errors import EngineError
from vivavoce.limits.accounts import Budget
from vivavoce.limits.prices import Quantities
from vivavoce.runtime.client_errors import TAKEN_OVER_CLOSE
from vivavoce.store.base import AccountStore, Balance, Charge, UsageRow

BUDGET = Budget(scope="all", unit="tokens", period="total", limit=10**9)


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
    engines: ScriptedEngines | None = None,
) -> None:
    """At the end nothing is reserved, and all that was booked was charged once.

    engines: of the first process.
    """

    async def main(store: InlineSQLite) -> None:
        await store.save("budget", BUDGET.id, msgspec.json.encode(BUDGET))
        async with process(store, "one", engines) as one, process(store, "two") as two:
            await script(store, one, two)
        used = sum(Quantities(**row.used).tokens for row in await rows_of(store))
        assert await store.balance(BUDGET.id, "total") == Balance(used, 0)

    with_store(main)


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


def test_turns_that_a_pool_saves_while_the_store_is_away_are_booked_once() -> None:
    broken = Server(TextDelta("One, "), EngineError("it is down"))
    engines = ScriptedEngines()
    engines.llm = pool_of(broken, Server(TextDelta("two."), ChatEnded("stop")))

    async def script(store: AccountStore, one: Process, two: Process) -> None:
        caller = await one.call()
        await pass_time(0.1)  # an allowance is drawn
        one.cut()
        while not broken.asked:
            await caller.ask()
        await caller.ask()
        turns = len(caller.peer.responses)
        assert one.meter.store.away
        assert one.meter.store.waiting == turns
        assert caller.errors == []
        one.cut(cut=False)
        await until(lambda: not one.meter.store.away)
        await caller.leave()
        assert len([row for row in await rows_of(store) if row.kind == "response"]) == turns

    in_two_processes(script, engines)
