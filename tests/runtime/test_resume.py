"""Checkpoints on their way to the store, while their client comes back."""

import asyncio
from collections.abc import Sequence

import pytest

from tests.runtime.processes import now
from tests.session.stage import a_session, write
from tests.store.line import InlineSQLite
from vivavoce.errors import InvalidRequest, StoreError
from vivavoce.runtime.checkpoint_queue import STORE_TIMEOUT_S
from vivavoce.runtime.resume import ResumeSettings, Resumption
from vivavoce.session.checkpoint import Checkpoint
from vivavoce.store.base import SessionClaim, SessionSave
from vivavoce.testing.virtual_time import run


class SlowStore(InlineSQLite):
    """Takes a second to store a checkpoint."""

    def __init__(self) -> None:
        super().__init__(":memory:", wall_clock=now)
        self.away = False

    async def claim(self, key: str, owner: str) -> SessionClaim:
        if self.away:
            raise StoreError("the store is away")
        return await super().claim(key, owner)

    async def keep(self, saves: Sequence[SessionSave]) -> list[bool]:
        await asyncio.sleep(1)
        if self.away:
            raise StoreError("the store is away")
        return await super().keep(saves)


class LostStore(SlowStore):
    """Cannot be reached."""

    async def keep(self, saves: Sequence[SessionSave]) -> list[bool]:
        raise StoreError("the store cannot be reached")


def two_checkpoints() -> tuple[Checkpoint, Checkpoint]:
    """Of one session: before and after a message."""
    session = a_session()
    first = session.checkpoint(0.0)
    write(session, "Hello.")
    return first, session.checkpoint(0.0)


def test_client_that_comes_back_at_once_has_the_checkpoint_that_is_being_stored() -> None:
    async def main() -> None:
        first, last = two_checkpoints()
        async with (
            SlowStore() as store,
            Resumption(store, ResumeSettings(), wall_clock=lambda: -100.0) as resumption,
        ):
            ticket = resumption.ticket({}, "key")
            resumption.keep(ticket, first)
            await asyncio.sleep(2)
            assert resumption.idle
            assert not resumption.has_unsaved(last.session.id)
            resumption.keep(ticket, last)
            assert resumption.has_unsaved(last.session.id)
            await asyncio.sleep(0.5)  # the store has it, and has not stored it
            assert resumption.has_unsaved(last.session.id)
            waiting = asyncio.create_task(resumption.wait_saved(last.session.id))
            again = resumption.ticket({"resume_token": ticket.token.reveal()}, "key")
            await resumption.load(again)
            assert again.checkpoint is not None
            assert [e.item for e in again.checkpoint.entries] == [e.item for e in last.entries]
            assert again.epoch > ticket.epoch
            assert await waiting

    run(main())


@pytest.mark.parametrize("stored_before", [True, False])
def test_client_that_comes_back_while_the_store_is_away_has_what_waits_here(
    stored_before: bool,
) -> None:
    async def main() -> None:
        first, last = two_checkpoints()
        async with (
            SlowStore() as store,
            Resumption(store, ResumeSettings(), wall_clock=lambda: -100.0) as resumption,
        ):
            ticket = resumption.ticket({}, "key")
            if stored_before:
                resumption.keep(ticket, first)
                await asyncio.sleep(2)
            store.away = True
            resumption.keep(ticket, last)
            await asyncio.sleep(1.5)
            again = resumption.ticket({"resume_token": ticket.token.reveal()}, "key")
            await resumption.load(again)
            assert again.checkpoint is not None
            assert [e.item for e in again.checkpoint.entries] == [e.item for e in last.entries]
            resumption.keep(again, again.checkpoint)
            store.away = False
            await asyncio.sleep(5)
            assert resumption.idle
            claim = await store.claim(ticket.key, "other")
            assert claim.former_epoch == again.epoch

    run(main())


def test_checkpoint_that_is_being_stored_is_waited_for() -> None:
    async def main() -> None:
        async with SlowStore() as store, Resumption(store, ResumeSettings()) as resumption:
            ticket = resumption.ticket({}, "key")
            resumption.keep(ticket, a_session().checkpoint(0.0))
            await ticket.wait_kept()
            assert asyncio.get_running_loop().time() == 1.0
            assert resumption.idle

    run(main())


def test_store_that_is_away_is_not_waited_for_long() -> None:
    async def main() -> None:
        async with LostStore() as store, Resumption(store, ResumeSettings()) as resumption:
            ticket = resumption.ticket({}, "key")
            resumption.keep(ticket, a_session().checkpoint(0.0))
            await ticket.wait_kept()
            assert asyncio.get_running_loop().time() == STORE_TIMEOUT_S

    run(main())


def test_session_that_was_resumed_here_before_has_what_waits_and_not_what_is_stored() -> None:
    """It was resumed from the session itself, so its epoch is above that of the store."""

    async def main() -> None:
        first, last = two_checkpoints()
        async with (
            SlowStore() as store,
            Resumption(store, ResumeSettings(), wall_clock=lambda: -100.0) as resumption,
        ):
            ticket = resumption.ticket({}, "key")
            resumption.keep(ticket, first)
            await asyncio.sleep(2)
            ticket.epoch += 1
            store.away = True
            resumption.keep(ticket, last)
            await asyncio.sleep(1.5)  # it could not be stored, and is tried again later
            store.away = False
            again = resumption.ticket({"resume_token": ticket.token.reveal()}, "key")
            await resumption.load(again)
            assert again.checkpoint is not None
            assert [e.item for e in again.checkpoint.entries] == [e.item for e in last.entries]
            assert again.epoch > ticket.epoch

    run(main())


@pytest.mark.parametrize("cancelled", [False, True])
def test_client_that_begins_no_session_leaves_what_it_has_taken(cancelled: bool) -> None:
    """It is refused, or has gone, after what waited for the store was taken."""

    async def main() -> None:
        session = a_session()
        write(session, "Hello.")
        last = session.checkpoint(0.0)
        async with (
            HangingStore() as store,
            Resumption(store, ResumeSettings(), wall_clock=lambda: -100.0) as resumption,
        ):
            ticket = resumption.ticket({}, "key")
            store.away = True
            resumption.keep(ticket, last)
            await asyncio.sleep(1.5)
            query = {"resume_token": ticket.token.reveal(), "session_id": "sess_other"}
            loading = asyncio.create_task(resumption.load(resumption.ticket(query, "key")))
            await asyncio.sleep(0.5)
            if cancelled:
                loading.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await loading
            else:
                with pytest.raises(InvalidRequest, match="not that of the session"):
                    await loading
            store.away = False
            await asyncio.sleep(5)
            claim = await SlowStore.claim(store, ticket.key, "other")
            assert b"Hello." in (claim.value or b"")

    run(main())


class LateStore(SlowStore):
    """Does a claim at once, and answers in a second."""

    async def claim(self, key: str, owner: str) -> SessionClaim:
        claim = await super().claim(key, owner)
        await asyncio.sleep(1)
        return claim


def test_client_that_goes_while_it_claims_leaves_the_words_that_were_not_stored_yet() -> None:
    async def main() -> None:
        first, last = two_checkpoints()
        async with (
            LateStore() as store,
            Resumption(store, ResumeSettings(), wall_clock=lambda: -100.0) as resumption,
        ):
            ticket = resumption.ticket({}, "key")
            resumption.keep(ticket, first)
            await asyncio.sleep(2)
            store.away = True
            resumption.keep(ticket, last)
            await asyncio.sleep(1.5)
            store.away = False
            query = {"resume_token": ticket.token.reveal()}
            loading = asyncio.create_task(resumption.load(resumption.ticket(query, "key")))
            for _ in range(5):
                await asyncio.sleep(0)
            loading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await loading
            await asyncio.sleep(5)
            assert b"Hello." in ((await store.claim(ticket.key, "other")).value or b"")

    run(main())


class HangingStore(SlowStore):
    """Does not answer a claim."""

    async def claim(self, key: str, owner: str) -> SessionClaim:
        await asyncio.sleep(60)
        return await super().claim(key, owner)


def test_session_that_begins_without_the_store_is_stored_later_over_what_is_older() -> None:
    async def main() -> None:
        session = a_session()
        async with (
            SlowStore() as store,
            Resumption(store, ResumeSettings(), wall_clock=lambda: 1e9) as resumption,
        ):
            ticket = resumption.ticket({}, "key")
            ticket.epoch = 7
            resumption.keep(ticket, session.checkpoint(0.0))
            await asyncio.sleep(2)
            store.away = True
            again = resumption.ticket({"resume_token": ticket.token.reveal()}, "key")
            await resumption.load(again)
            assert again.checkpoint is None
            store.away = False
            write(session, "Hello.")
            resumption.keep(again, session.checkpoint(0.0))
            await asyncio.sleep(2)
            assert not again.superseded
            claim = await store.claim(ticket.key, "other")
            assert b"Hello." in (claim.value or b"")

    run(main())


def test_conversation_that_cannot_be_encoded_keeps_no_other_from_being_stored(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        broken, whole = a_session(salt="b"), a_session(salt="w")
        write(broken, "\ud83d")
        async with SlowStore() as store, Resumption(store, ResumeSettings()) as resumption:
            tickets = [resumption.ticket({}, "key") for _ in range(2)]
            for ticket, session in zip(tickets, (broken, whole), strict=True):
                resumption.keep(ticket, session.checkpoint(0.0))
            await tickets[1].wait_kept()
            assert resumption.idle
            assert (await store.claim(tickets[0].key, "other")).value is None
            assert (await store.claim(tickets[1].key, "other")).value is not None

    run(main())
    assert "cannot be stored" in caplog.text
