"""Sums of usage: sessions at once, and what relays would have cost as cascades."""

import asyncio

import pytest

from vivavoce.limits.prices import NANO, Price, PriceTable, Rates
from vivavoce.store.base import UsageRow
from vivavoce.store.sqlite import SQLiteStore
from vivavoce.telemetry.reports import CASCADE, as_cascade, most_at_once, report

PRICES = PriceTable(
    [
        Price(CASCADE["stt"], Rates(audio_hour=36 * NANO // 100), "v"),
        Price(CASCADE["llm"], Rates(text_input=NANO, text_output=2 * NANO), "v"),
        Price(CASCADE["tts"], Rates(characters=10 * NANO), "v"),
    ]
)


def session(id_: str, begin: float, end: float, mode: str = "relay") -> UsageRow:
    used = {"session_ms": round((end - begin) * 1000)}
    return UsageRow(id=f"{id_}:time0", at=end, kind="session", model="m", used=used, mode=mode)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "most"),
    [
        ([], 0),
        ([(0.0, 1), (5.0, -1), (5.0, 1), (9.0, -1)], 1),  # two windows of one session
        ([(0.0, 1), (5.0, -1), (4.0, 1), (9.0, -1)], 2),
    ],
)
def test_sessions_at_once_are_counted(changes: list[tuple[float, int]], most: int) -> None:
    assert most_at_once(changes) == most


def test_response_of_a_relay_is_rated_as_a_cascade() -> None:
    used = {"text_input": 100, "audio_input": 50, "text_output": 30, "audio_output": 40}
    row = UsageRow(id="a", at=1.0, kind="response", model="m", used=used, mode="relay")
    # 5 s of speech are 20 tokens, 2 s of the answer 30 characters
    assert as_cascade(row, PRICES) == (120 * 1000) + (30 * 2000) + (30 * 10_000)
    assert as_cascade(session("s", 0.0, 100.0), PRICES) == NANO // 100
    assert as_cascade(row, PriceTable([])) == 0


def test_report_has_sessions_at_once_and_the_estimate_of_relays_only() -> None:
    rows = [
        session("a", 0.0, 100.0),
        session("b", 50.0, 150.0),
        session("c", 200.0, 300.0, "local"),
    ]

    async def main() -> None:
        async with SQLiteStore(":memory:") as store:
            await store.book(rows)
            relay, local = sorted(
                await report(store, 0.0, 1e6, ("mode",), {}, PRICES),
                key=lambda line: line.group["mode"],
                reverse=True,
            )
        assert (relay.sessions, relay.sessions_at_once) == (2, 2)
        assert relay.cascade_nano_usd == 2 * NANO // 100
        assert (local.sessions_at_once, local.cascade_nano_usd) == (1, 0)

    asyncio.run(main())
