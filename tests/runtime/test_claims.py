"""Several processes claim one conversation: the newest claim wins, whatever their clocks say."""

import asyncio
import random
import time
from contextlib import AsyncExitStack
from functools import partial
from typing import cast

import msgspec
import pytest

from tests.runtime.processes import Caller, Process, now, pass_time, process, until, with_store
from tests.runtime.stage import question
from tests.session.stage import a_session, write
from tests.store.line import InlineSQLite, Line
from tests.store.redis_server import redis_url
from tests.store.test_conformance import RunStore, run
from vivavoce.runtime.checkpoint_queue import STORE_TIMEOUT_S, StoredSession
from vivavoce.runtime.client_errors import TAKEN_OVER_CLOSE
from vivavoce.runtime.resume import ResumeSettings, Resumption, Ticket
from vivavoce.runtime.store_clock import READ_AGAIN_S, StoreClock
from vivavoce.session.checkpoint import Checkpoint
from vivavoce.store.base import AccountStore
from vivavoce.testing.virtual_time import run as run_virtual

__all__ = ["redis_url", "run"]  # fixtures
MINUTES = 300.0


def said(words: str) -> Checkpoint:
    session = a_session()
    write(session, words)
    checkpoint = session.checkpoint(0.0)
    later = msgspec.structs.replace(checkpoint.session, expires_at=int(time.time() + 3600))
    return msgspec.structs.replace(checkpoint, session=later)


def node(line: Line, name: str, ahead_s: float) -> Resumption:
    store = cast(AccountStore, line)
    clock = lambda: time.time() + ahead_s  # noqa: E731
    return Resumption(store, ResumeSettings(), owner=name, wall_clock=clock)


async def claimed(node: Resumption, token: str) -> Ticket:
    ticket = node.ticket({"resume_token": token}, "k")
    await node.load(ticket)
    return ticket


@pytest.mark.parametrize("ahead_s", [MINUTES, -MINUTES])
def test_claim_without_the_store_loses_to_a_later_one_of_a_node_with_another_clock(
    run: RunStore, ahead_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vivavoce.runtime.checkpoint_queue.RETRY_S", 0.01)

    async def use(store: AccountStore) -> None:
        cut, other = Line(store), Line(store)
        async with node(cut, "a", ahead_s) as here, node(other, "b", -ahead_s) as there:
            first = here.ticket({}, "k")
            here.keep(first, said("one"))
            await first.wait_kept()
            while here._clock._ahead_ms is None:  # noqa: ASYNC110
                await asyncio.sleep(0)
            cut.cut = True
            older = await claimed(here, first.token.reveal())
            here.keep(older, said("older"))
            newer = await claimed(there, first.token.reveal())
            assert newer.checkpoint is not None
            there.keep(newer, said("newer"))
            await newer.wait_kept()
            cut.cut = False
            await older.wait_kept()
            assert (older.superseded, newer.superseded) == (True, False)
            claim = await store.claim(first.key, "c")
            assert (claim.owner, claim.former_epoch) == ("b", newer.epoch)
            assert b"newer" in (claim.value or b"")

    run(use)


def test_token_that_two_processes_have_not_seen_before_belongs_to_the_later_client(
    run: RunStore,
) -> None:
    token = "t" * 24

    async def use(store: AccountStore) -> None:
        async with node(Line(store), "a", 0.0) as here, node(Line(store), "b", 0.0) as there:
            older = await claimed(here, token)
            while await store.now() <= older.epoch:
                pass
            newer = await claimed(there, token)
            assert (older.checkpoint, newer.checkpoint) == (None, None)
            here.keep(older, said("older"))
            await older.wait_kept()
            there.keep(newer, said("newer"))
            await newer.wait_kept()
            here.keep(older, said("older"))
            await older.wait_kept()
            assert (older.superseded, newer.superseded) == (True, False)

    run(use)


@pytest.mark.parametrize("seed", range(30))
def test_newest_claim_of_a_random_history_wins_and_alone_is_stored(seed: int) -> None:
    with_store(partial(history, random.Random(seed)))


async def history(rng: random.Random, store: InlineSQLite) -> None:
    """Clients come with one token to three nodes, of which any may be cut off from the store."""
    async with AsyncExitStack() as stack:
        ahead = {name: rng.uniform(-MINUTES, MINUTES) for name in "abc"}
        nodes = [
            await stack.enter_async_context(process(store, name, ahead_s=ahead_s))
            for name, ahead_s in ahead.items()
        ]
        await pass_time(1.0)  # each has read the clock of the store
        newest = await called(rng.choice(nodes))
        callers = [newest]
        for _ in range(rng.randrange(10, 30)):
            await pass_time(rng.choice((0.05, 2.0, 15.0)))
            match rng.choice(("call", "again", "ask", "leave", "cut", "cut", "mend")):
                case "call":
                    newest = await called(rng.choice(nodes), newest.token)
                    callers.append(newest)
                case "again":
                    caller = rng.choice(callers)
                    newest = caller if await back(caller) else newest
                case "ask":
                    ask(rng.choice(callers))
                case "leave":
                    await rng.choice(callers).leave()
                case "cut":
                    rng.choice(nodes).conversations.cut = True
                case "mend":
                    rng.choice(nodes).conversations.cut = False
        is_open = [each for each in callers if each.ticket.runner is not None]
        await mend(nodes, callers)
        for each in is_open:
            told = None if each is newest else (TAKEN_OVER_CLOSE, "session_taken_over")
            assert each.peer.closed == told
    claim = await store.claim(newest.ticket.key, "d")
    assert claim.former_epoch == newest.ticket.epoch
    assert claim.value is not None
    stored = msgspec.msgpack.decode(claim.value, type=StoredSession)
    assert stored.serving == newest.ticket.serving


@pytest.mark.parametrize("seed", range(30))
def test_one_of_many_clients_at_once_has_the_conversation_however_slow_the_store_is(
    seed: int,
) -> None:
    with_store(partial(rush, random.Random(seed)))


async def rush(rng: random.Random, store: InlineSQLite) -> None:
    """Some answers of the store come too late, and claims are done of which nobody knows."""
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(process(store, name)) for name in "abc"]
        await pass_time(1.0)
        callers = [await called(nodes[0])]
        for each in nodes:
            each.conversations.delay = lambda: pass_time(rng.choice((0.0, 0.01, 0.3, 4.0)))

        async def come() -> None:
            await pass_time(rng.uniform(0.0, 10.0))
            process = rng.choice(nodes)
            if rng.random() < 0.3:
                await back(rng.choice(callers))
            elif rng.random() < 0.2:
                process.conversations.cut = not process.conversations.cut
            else:
                caller = await process.call(callers[0].token)
                callers.append(caller)
                ask(caller)

        await asyncio.gather(*(come() for _ in range(15)))
        for each in nodes:
            each.conversations.delay = None
        await pass_time(10.0)
        await mend(nodes, callers)
        is_open = [each for each in callers if each.ticket.runner is not None]
        assert len(is_open) == 1
        claim = await store.claim(callers[0].ticket.key, "d")
        assert claim.former_epoch == max(each.ticket.epoch for each in callers)
        assert claim.former_epoch == is_open[0].ticket.epoch


async def called(process: Process, token: str = "") -> Caller:
    caller = await process.call(token)
    await caller.ask()
    return caller


def ask(caller: Caller) -> None:
    for fact in question():
        caller.runner.post(fact)


async def back(caller: Caller) -> bool:
    """The connection of an open session is replaced; return whether it was still served."""
    resumption, ticket = caller.process.resumption, caller.ticket
    if await resumption.still_served(ticket.key) is not ticket:
        return False
    resumption.claim_again(ticket.key)
    return True


async def mend(nodes: list[Process], callers: list[Caller]) -> None:
    """All lines; and each open session stores checkpoints until each knows the newest claim."""
    for each in nodes:
        each.conversations.cut = False
    for _ in range(2):
        for caller in callers:
            if caller.ticket.runner is not None:
                caller.process.resumption.keep(caller.ticket, caller.runner.checkpoint())
        await until(lambda: all(each.resumption.idle for each in nodes))
        await pass_time(5.0)


def test_time_of_one_session_in_two_processes_that_know_nothing_of_each_other_is_booked() -> None:
    """Each has taken it over from the same one, of which the store knows."""

    async def script(store: InlineSQLite) -> None:
        async with process(store, "one") as one, process(store, "two") as two:
            first = await called(one)
            await until(lambda: one.resumption.idle)
            one.conversations.cut = True
            session_id = first.runner.settings.id
            callers = [first, await called(one, first.token), await called(two, first.token)]
            for caller in callers[1:]:
                assert caller.runner.settings.id == session_id
            for caller in callers:
                await caller.leave()
            await pass_time(1.0)
            rows = [row async for page in store.usage(0.0, 1e12) for row in page]
            assert len([row for row in rows if row.kind == "session"]) == len(callers)

    with_store(script)


def test_conversation_that_is_resumed_is_stored_for_as_long_again() -> None:
    async def script(store: InlineSQLite) -> None:
        keep_s = ResumeSettings().keep_seconds
        async with process(store, "one") as one, process(store, "two") as two:
            caller = await called(one)
            await caller.leave()
            await pass_time(0.9 * keep_s)
            again = await two.call(caller.token)
            await pass_time(1.0)
            two.conversations.cut = True  # as if it had died
            await pass_time(0.9 * keep_s)
            third = await one.call(caller.token)
            assert again.ticket.checkpoint is not None
            assert third.ticket.checkpoint is not None

    with_store(script)


def test_clock_of_a_store_that_was_never_reached_is_that_of_the_machine() -> None:
    async def main() -> None:
        async with InlineSQLite(":memory:", wall_clock=now) as store:
            line = Line(store)
            line.cut = True
            async with StoreClock(cast(AccountStore, line), lambda: 1000.0) as clock:
                await pass_time(1.0)
                assert clock.epoch(above=1) == 1_000_000
                assert clock.epoch(above=1) == 1_000_001
                assert clock.epoch(above=2_000_000) == 2_000_001
                line.cut = False
                await pass_time(READ_AGAIN_S)
                line.cut = True
                await pass_time(1.0)
                assert clock.epoch(above=1) == await store.now() - 1

    run_virtual(main())


def test_client_that_retries_waits_for_a_store_that_is_away_and_another_does_not() -> None:
    async def script(store: InlineSQLite) -> None:
        async with process(store, "one") as one:
            caller = await called(one)
            await until(lambda: one.resumption.idle)
            one.conversations.cut = True
            for retries, waited in ((False, 0.0), (True, STORE_TIMEOUT_S), (False, 0.0)):
                begun = now()
                served = one.resumption.still_served(caller.ticket.key, retries=retries)
                assert await served is caller.ticket
                assert now() - begun == pytest.approx(waited)
                await pass_time(1.5)

    with_store(script)
