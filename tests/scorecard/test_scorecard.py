"""The scorecard: measured on a scripted server, shown as a page, judged for CI."""

import asyncio
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
from rich.console import Console

from tests.server import scripted, serving
from vivavoce.accounting import price_table
from vivavoce.errors import SettingsError
from vivavoce.scorecard.caller import BenchTarget
from vivavoce.scorecard.command import (
    BenchOptions,
    bench_servers,
    checked_addresses,
    missing,
    print_cards,
)
from vivavoce.scorecard.figures import Spread, spread_of
from vivavoce.scorecard.load import LoadBounds, LoadLevel, Scorecard, TurnCost, measured
from vivavoce.scorecard.page import load_plot, page, waterfall_plot
from vivavoce.secret import Secret
from vivavoce.settings import Settings
from vivavoce.talk.client import ServerLost
from vivavoce.testing.clips import hum

QUIET = Console(quiet=True)
BOUNDS = LoadBounds(max_sessions=2, level_s=0.05, max_s=60.0, limit_ms=10_000.0)


def measure(speech: bytes, bounds: LoadBounds = BOUNDS, **script: object) -> Scorecard:
    async def main() -> Scorecard:
        settings = scripted(llm={"answers": ["It is ten past four."], **script})
        async with serving(settings) as server:
            url = f"{server.ws}/v1/realtime?model=default"
            target = BenchTarget(url, Secret(), speech, 20.0)
            prices = price_table(Settings())
            return await measured(target, bounds, prices, "gpt-realtime", lambda _: None)

    return asyncio.run(main())


def test_spoken_turns_have_a_waterfall_an_interruption_and_a_cost() -> None:
    card = measure(hum(300))
    assert [level.sessions for level in card.levels] == [1, 2]
    assert [level.failed for level in card.levels] == [0, 0]
    assert card.stopped == "--max-sessions 2 is reached"
    assert card.carried == 2
    stages = card.waterfall
    assert all(stages[name].n for name in ("speech_stopped", "created", "first_audio"))
    assert (stages["speech_stopped"].p50 or 0) <= (stages["first_audio"].p50 or 0)
    assert card.interruption.n == 3
    assert card.cost.turns > 0
    assert float(card.cost.usd_per_turn) > 0


def test_written_turns_have_no_audio() -> None:
    card = measure(b"")
    assert card.waterfall["first_text"].n
    assert card.waterfall["first_audio"].n == 0
    assert card.interruption == Spread(0)


def test_load_curve_ends_where_answers_fail() -> None:
    with pytest.raises(ServerLost, match="failed"):
        measure(b"", answers=[{"text": "", "error": "it is broken"}])


def test_load_curve_ends_where_answers_are_too_slow() -> None:
    bounds = LoadBounds(max_sessions=64, level_s=0.05, max_s=60.0, limit_ms=0.001)
    card = measure(b"", bounds)
    assert len(card.levels) == 1
    assert "95 % of the answers took up to" in card.stopped
    assert card.carried == 0


def test_load_curve_ends_where_its_time_is_up() -> None:
    card = measure(b"", LoadBounds(max_sessions=64, level_s=0.05, max_s=0.01, limit_ms=10_000.0))
    assert card.stopped == "--max-seconds 0.01 is reached"


def card_of(url: str, *levels: tuple[int, float, str]) -> Scorecard:
    return Scorecard(
        url=url,
        began_at="2026-01-02T10:00:00Z",
        spoken=True,
        limit_ms=2000.0,
        levels=[
            LoadLevel(
                sessions=sessions,
                turns=20,
                failed=0,
                latency=spread_of([p50, p50 * 1.5]),
                late_p99=0.1,
                problem=problem,
            )
            for sessions, p50, problem in levels
        ],
        waterfall={
            "speech_stopped": spread_of([500.0]),
            "transcript": Spread(0),
            "created": spread_of([510.0]),
            "first_text": spread_of([700.0]),
            "first_audio": spread_of([900.0]),
        },
        interruption=spread_of([140.0]),
        cost=TurnCost(
            model="gpt-realtime", turns=2, input_tokens=90, output_tokens=40, usd_per_turn="0.002"
        ),
        stopped="2 sessions: broken <by> load",
    )


FAST = card_of("ws://a.example/v1/realtime", (1, 400.0, ""), (2, 450.0, ""), (4, 900.0, "slow"))
SLOW = card_of("ws://b.example/v1/realtime", (1, 800.0, ""), (2, 2500.0, "broken <by> load"))


@pytest.mark.parametrize("cards", [[FAST], [FAST, SLOW]])
def test_page_shows_every_server_and_loads_nothing(cards: list[Scorecard]) -> None:
    text = page(cards)
    assert all(card.url in text for card in cards)
    assert "<script" not in text
    assert "src=" not in text
    assert "http" not in text
    assert "<by>" not in text
    for plot in (load_plot(cards), waterfall_plot(cards)):
        root = ElementTree.fromstring(plot)
        assert len(root) > 5
        assert plot in text


def test_servers_are_judged_by_what_is_wanted() -> None:
    assert missing([FAST, SLOW], BenchOptions(want_sessions=1, want_ms=1200)) == []
    found = missing([FAST, SLOW], BenchOptions(want_sessions=2, want_ms=600))
    assert found == [
        "ws://b.example/v1/realtime carries 1 of 2 sessions",
        "ws://b.example/v1/realtime answers after 1200.0 ms, not 600",
    ]


@pytest.mark.parametrize(
    ("urls", "options", "sentence"),
    [
        ((), BenchOptions(), "one server or two"),
        (("ws://voice.example",), BenchOptions(), "say --yes"),
        (("ws://localhost:1",), BenchOptions(limit_ms=0), "--limit-ms"),
        (("ftp://localhost:1",), BenchOptions(), "ftp"),
    ],
)
def test_wrong_usage_is_refused(
    urls: tuple[str, ...], options: BenchOptions, sentence: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        checked_addresses(urls, options)
    assert sentence in str(refused.value)
    assert bench_servers(urls, options, QUIET, QUIET) == 2


def test_server_on_another_machine_is_measured_if_told_to() -> None:
    assert checked_addresses(("wss://voice.example/v1",), BenchOptions(yes=True)) == [
        "wss://voice.example/v1/realtime?model=gpt-realtime"
    ]


def test_server_that_does_not_answer_is_reported() -> None:
    console = Console(width=200)
    with console.capture() as captured:
        status = bench_servers(("ws://127.0.0.1:9",), BenchOptions(written=True), QUIET, console)
    assert status == 2
    assert captured.get().endswith(
        "vivavoce: ws://127.0.0.1:9/v1/realtime is not measured: no server answers at "
        "ws://127.0.0.1:9/v1/realtime: connection refused; start one with `vivavoce serve`\n"
    )


def test_table_names_levels_and_stages(tmp_path: Path) -> None:
    console = Console(width=120)
    with console.capture() as captured:
        print_cards([FAST], console)
    shown = captured.get()
    assert "first audio" in shown
    assert "0.002 USD" in shown
    assert msgspec.json.decode(msgspec.json.encode(FAST), type=Scorecard) == FAST
