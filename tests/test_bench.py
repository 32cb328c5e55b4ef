"""The measurements can be begun: a change of what they measure must not leave them behind."""

import asyncio
import importlib

import pytest
from bench import search, webrtc
from bench.__main__ import MODULES

ALONE = (
    "loop_blocking",
    "relay",
    "soak",
    "speech_first_byte",
    "transcription",
    "ws",
)  # too long for `make bench`


@pytest.mark.parametrize("name", [*MODULES, *ALONE])
def test_bench_has_every_measurement(name: str) -> None:
    assert asyncio.iscoroutinefunction(importlib.import_module(f"bench.{name}").measure)


def test_call_returns_an_echo() -> None:
    delays = asyncio.run(webrtc.echo(3.0))
    assert delays
    assert min(delays) > 0


@pytest.mark.parametrize("limit", [0, 4, 7, 35, 36, 61, 200, 1000])
def test_bisection_finds_the_maximum_from_both_sides(limit: int) -> None:
    asked = []

    async def carried(number: int) -> bool:
        asked.append(number)
        return number <= limit

    found = asyncio.run(search.most_carried(carried, first=35, step=5, most=500))
    assert asked[0] == 35
    assert max(asked) <= 500
    assert found <= limit
    assert limit >= 500 or limit - found <= 5
