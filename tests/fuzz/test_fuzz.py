"""Generated JSON at every entrance; `scripts/fuzz` sends more of it."""

import asyncio
from random import Random

from tests.fuzz.entrances import entrances, fuzz, servers
from tests.fuzz.hostile import ENTRANCES, MAX_GROWTH_BYTES, attack
from tests.fuzz.mutations import mutated, strings_of
from tests.fuzz.requests import BodyEntrance

CASES = 260
WITHOUT_BODY = {
    ("POST", "/v1/realtime/calls/{call_id}/hangup"),
    ("POST", "/v1/cluster/nodes/{node}/drain"),
    ("POST", "/v1/models/{model}"),
    ("POST", "/api/ps/{model}"),
}
FRAMES = 800
SAMPLE = {"type": "response.create", "response": {"input": [{"id": "item_1"}], "speed": 1.5}}


def test_every_entrance_answers_generated_texts_and_the_server_goes_on() -> None:
    counts = asyncio.run(fuzz(CASES))
    assert sum(counts.values()) == CASES
    by_name = {name for name, _ in counts}
    assert len(by_name) > 25
    refused = sum(
        n for (_, answer), n in counts.items() if answer not in ("accepted", "200", "201", "204")
    )
    assert CASES / 4 < refused < CASES


def test_every_route_that_takes_a_body_is_an_entrance() -> None:
    async def main() -> None:
        async with servers() as there, entrances(*there) as found:
            sent_to = {one.operation for one in found.values() if isinstance(one, BodyEntrance)}
            routes = {
                (route.method, route.resource.canonical)
                for route in there[1].app.router.routes()
                if route.resource is not None and route.method in ("POST", "PUT", "PATCH")
            }
            assert routes - sent_to == WITHOUT_BODY

    asyncio.run(main())


def test_text_of_a_number_is_always_the_same_and_others_differ() -> None:
    strings = strings_of([SAMPLE])
    assert {"type", "response.create", "item_1", "speed"} <= set(strings)
    texts = [mutated(SAMPLE, strings, Random(f"1:{n}")) for n in range(100)]
    assert texts == [mutated(SAMPLE, strings, Random(f"1:{n}")) for n in range(100)]
    assert len(set(texts)) > 50


def test_hostile_frames_leave_every_entrance_serving_and_no_memory_in_use() -> None:
    run = asyncio.run(attack(FRAMES))
    assert {path for path, _ in run.ends} == {entrance.path for entrance in ENTRANCES}
    assert sum(run.ends.values()) >= FRAMES // 40
    assert run.growth < MAX_GROWTH_BYTES
