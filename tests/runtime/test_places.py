"""The place of a process in the ids that it makes, and where sessions are that were resumed."""

import asyncio
import uuid

import pytest

from vivavoce.errors import StoreError
from vivavoce.runtime.places import (
    Locations,
    Place,
    node_tag,
    place_named,
    place_of,
    place_of_uuid,
    uuid_of,
)
from vivavoce.store.memory import MemoryStore

TAG = node_tag("gateway-1")


@pytest.mark.parametrize(
    ("id_", "place"),
    [
        ("rtc_w0_00ff", Place("", 0)),
        ("sess_w12_00ff", Place("", 12)),
        (f"sess_n{TAG}w3_00ff", Place(TAG, 3)),
        (f"rtc_n{TAG}w0_00ff", Place(TAG, 0)),
        ("rtc_00ff", None),
        ("sess_w_00ff", None),
        ("sess_n12w1_00ff", None),
        ("resp_w1_00ff", None),
        ("", None),
    ],
)
def test_id_of_a_call_or_session_names_its_place(id_: str, place: Place | None) -> None:
    assert place_of(id_) == place
    assert place is None or place_named(place.name) == place


def test_promised_session_names_its_place_in_a_uuid() -> None:
    assert place_of_uuid(str(uuid_of(Place("", 200))), in_cluster=False) == Place("", 200)
    assert place_of_uuid(str(uuid_of(Place(TAG, 7))), in_cluster=True) == Place(TAG, 7)
    assert place_of_uuid("7", in_cluster=True) is None
    assert uuid_of(Place(TAG, 7)).version == uuid.uuid4().version


def test_session_is_where_it_was_resumed_last_and_else_where_its_id_says() -> None:
    async def main() -> None:
        made_by, resumed_at = Place(TAG, 0), Place(node_tag("gateway-2"), 1)
        session = f"sess_{made_by.name}_00ff"
        async with MemoryStore() as store:
            locations = Locations(store, resumed_at)
            assert await locations.find(session) == made_by
            await locations.note(session, 100.0)
            assert await locations.find(session) == resumed_at
            assert await locations.find("sess_00ff") is None

    asyncio.run(main())


class LostStore(MemoryStore):
    """It cannot be reached."""

    async def get(self, key: str) -> bytes | None:
        raise StoreError("no connection")

    async def put(self, key: str, value: bytes, *, ttl_s: float) -> None:
        raise StoreError("no connection")


def test_session_is_where_its_id_says_while_the_store_is_away() -> None:
    async def main() -> None:
        locations = Locations(LostStore(), Place("", 0))
        await locations.note("sess_w1_00", 100.0)
        assert await locations.find("sess_w1_00") == Place("", 1)

    asyncio.run(main())
