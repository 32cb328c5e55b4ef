"""Two processes of one store, of which one is cut off: who has the conversation, and who pays."""

from collections.abc import Awaitable, Callable

import msgspec

from tests.runtime.processes import Process, now, process, until, with_store
from tests.store.line import InlineSQLite
from vivavoce.limits.accounts import Budget
from vivavoce.limits.prices import Quantities
from vivavoce.runtime.resume import TAKEN_OVER_CLOSE
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
) -> None:
    """At the end nothing is reserved, and all that was booked was charged once."""

    async def main(store: InlineSQLite) -> None:
        await store.save("budget", BUDGET.id, msgspec.json.encode(BUDGET))
        async with process(store, "one") as one, process(store, "two") as two:
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
