"""Generated JSON at every entrance; `scripts/fuzz` sends more of it."""

import asyncio
from random import Random

from tests.fuzz.entrances import fuzz
from tests.fuzz.hostile import ENTRANCES, MAX_GROWTH_BYTES, attack
from tests.fuzz.mutations import mutated, strings_of

CASES = 260
FRAMES = 800
SAMPLE = {"type": "response.create", "response": {"input": [{"id": "item_1"}], "speed": 1.5}}


def test_every_entrance_answers_generated_texts_and_the_server_goes_on() -> None:
    counts = asyncio.run(fuzz(CASES))
    assert sum(counts.values()) == CASES
    by_name = {name for name, _ in counts}
    assert len(by_name) == 13
    refused = sum(
        n for (_, answer), n in counts.items() if answer not in ("accepted", "200", "201")
    )
    assert CASES / 4 < refused < CASES


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
