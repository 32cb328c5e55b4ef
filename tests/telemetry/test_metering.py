"""Sessions that reserve, book and end when a budget is spent."""

import asyncio
import gc
import logging
import random
import weakref
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest

from tests.session.stage import settings
from tests.store.redis_server import redis_store, redis_url
from vivavoce.errors import QuotaExceeded, StoreError, Unauthorized
from vivavoce.limits.accounts import ApiKey, Budget, Owner, Team, User
from vivavoce.limits.keys import hash_of
from vivavoce.limits.prices import NANO, Price, PriceTable, Rates
from vivavoce.protocol.client import ItemCreate
from vivavoce.protocol.items import InputAudio, InputText, Message
from vivavoce.protocol.responses import DurationUsage, InputTokens, OutputTokens, Usage
from vivavoce.protocol.session import ServedBy
from vivavoce.protocol.upstream import UpstreamEvent, UpstreamResponse
from vivavoce.session.effects import Generate, Prompt, RecordModel, RecordUsage
from vivavoce.session.facts import AccessEnded, BudgetLow, Received, UpstreamEventReceived
from vivavoce.store import buffered
from vivavoce.store.base import AccountStore, Balance, StoreSettings, UsageRow
from vivavoce.store.buffered import BufferedAccounts
from vivavoce.store.sqlite import SQLiteStore
from vivavoce.telemetry import metering
from vivavoce.telemetry.metering import LEASE_S, SEAT_LEASE_S, STORE_LOST, Metering
from vivavoce.telemetry.rating import PriceRef, Rater, Tariff
from vivavoce.telemetry.reports import report
from vivavoce.telemetry.session_meter import SessionMeter

RATES = Rates(
    text_input=4 * NANO, text_output=20 * NANO, audio_input=10 * NANO, audio_output=20 * NANO
)
PRICES = PriceTable(
    [
        Price("far-model", RATES, "v1"),
        Price("asr", Rates(audio_hour=NANO), "v1"),
        Price("clocked", Rates(session_hour=36 * NANO, message=NANO // 250), "v1"),
    ]
)
TARIFFS = {
    "": Tariff(),
    "far": Tariff("relay", PriceRef("far-model")),
    "clock": Tariff("relay", PriceRef("clocked")),
    "unknown": Tariff("relay", PriceRef("nobody-knows-it")),
}


UseStage = Callable[["Stage"], Awaitable[None]]
RunStage = Callable[[UseStage], None]
__all__ = ["redis_url"]  # a fixture


class Clock:
    now = 1_796_000_000.0

    def __call__(self) -> float:
        return self.now


class Stage:
    """A store with a key `k` of user `u` in team `t`, and a service."""

    def __init__(self, store: AccountStore) -> None:
        self.clock = Clock()
        self.store = store
        self.service: Metering
        self.posted: list[Any] = []
        self.sessions = 0

    async def __aenter__(self) -> "Stage":
        await self.save("key", ApiKey(name="k", hash=hash_of("k"), user="u", max_sessions=0))
        await self.save("user", User(name="u", team="t"))
        await self.save("team", Team(name="t"))
        await self.start()
        return self

    async def start(self) -> None:
        accounts = BufferedAccounts(self.store, StoreSettings(), wall_clock=self.clock)
        self.service = Metering(accounts, PRICES, TARIFFS, wall_clock=self.clock)
        await self.service.__aenter__()

    async def __aexit__(self, *exc: object) -> None:
        await self.service.__aexit__()

    async def save(self, kind: Any, record: Any) -> None:
        name = getattr(record, "name", None) or record.id
        await self.store.save(kind, name, msgspec.json.encode(record))

    async def budget(self, scope: Any, unit: Any, limit: int, **fields: Any) -> Budget:
        owner = {"key": "k", "user": "u", "team": "t", "all": ""}[scope]
        budget = Budget(scope=scope, owner=owner, unit=unit, limit=limit, **fields)
        await self.save("budget", budget)
        await self.service.refresh()
        return budget

    def meter(self, model: str = "far", output: int = 100) -> SessionMeter:
        self.sessions += 1
        session = settings(
            id=f"sess_{self.sessions}",
            served_by=ServedBy(model=model, voice="marin"),
            max_output_tokens=output,
        )
        meter = SessionMeter(self.service, session, "k")
        meter.post = self.posted.append
        return meter

    async def settled(self) -> None:
        """Wait until everything is booked."""
        while self.service.booking.tasks:
            await asyncio.gather(*self.service.booking.tasks)
        await self.service.booking.flush()

    async def all_rows(self) -> list[UsageRow]:
        return [row async for page in self.store.usage(0, 1e12) for row in page]

    async def rows(self) -> list[UsageRow]:
        return [row for row in await self.all_rows() if row.kind != "session"]

    async def balance(self, budget: Budget) -> Balance:
        return await self.store.balance(budget.id, budget.period_at(self.clock.now))


@pytest.fixture(params=["sqlite", "redis"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> RunStage:
    """Run a test with an empty store of each kind."""
    kind: str = request.param
    url = request.getfixturevalue("redis_url") if kind == "redis" else ""

    def run_with(main: UseStage) -> None:
        async def inside() -> None:
            store = redis_store(url) if url else SQLiteStore(tmp_path / "s.db")
            async with store as entered, Stage(entered) as stage:
                await main(stage)

        asyncio.run(inside())

    return run_with


class Unreachable(SQLiteStore):
    """A store that cannot be reached: it was never entered."""

    def __init__(self) -> None:
        super().__init__(":memory:")


def begun(response_id: str) -> UpstreamEventReceived:
    response = UpstreamResponse(id=response_id)
    return UpstreamEventReceived(UpstreamEvent("response.created", response=response), b"")


def used(response_id: str, audio_in: int = 100, audio_out: int = 50) -> RecordUsage:
    usage = Usage(
        audio_in + audio_out,
        audio_in,
        audio_out,
        InputTokens(audio_tokens=audio_in),
        OutputTokens(audio_tokens=audio_out),
    )
    return RecordUsage(response_id, "far", usage)


PROMPT = Prompt("", "", (), (), "auto", True, None, None, True, "marin", 1.0)
USED = 100 * 10_000 + 50 * 20_000


def answer(meter: SessionMeter, response_id: str, record: RecordUsage | None = None) -> None:
    meter.on(begun(response_id), [], 0.0)
    meter.on(None, [record or used(response_id)], 0.0)


def test_session_books_who_used_what_and_what_it_cost(run: RunStage) -> None:
    async def main(stage: Stage) -> None:
        meter = stage.meter()
        await meter.enter()
        answer(meter, "r1")
        heard = RecordUsage("i:0", "far", DurationUsage(36), "transcription", recogniser="asr")
        meter.on(None, [heard], 0.0)
        meter.leave()
        await stage.settled()
        first, second = sorted(await stage.rows(), key=lambda row: row.id, reverse=True)
        assert (first.id, first.key, first.user, first.team) == ("sess_1:r1", "k", "u", "t")
        assert (first.model, first.mode, first.price_version) == ("far", "relay", "v1")
        assert first.used == {"audio_input": 100, "audio_output": 50}
        assert first.nano_usd == USED
        assert (second.kind, second.model, second.nano_usd) == ("transcription", "asr", NANO // 100)

    run(main)


def test_session_that_has_ended_is_freed_before_the_next_tick(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metering, "REFRESH_S", 0.01)

    class Ticked:
        owner = Owner()
        has_budgets = False

        def end_access(self, reason: AccessEnded) -> None:
            raise AssertionError

        def tick(self) -> None:
            ticked.set()

    ticked = asyncio.Event()

    async def main() -> None:
        async with SQLiteStore(":memory:") as store, Stage(store) as stage:
            session = Ticked()
            stage.service.add(session)
            async with asyncio.timeout(60):
                await ticked.wait()
            stage.service.discard(session)
            alive = weakref.ref(session)
            del session
            gc.collect()
            assert alive() is None

    asyncio.run(main())


def test_usage_reported_twice_is_booked_once(run: RunStage) -> None:
    async def main(stage: Stage) -> None:
        budget = await stage.budget("key", "usd", NANO, period="day")
        meter = stage.meter()
        await meter.enter()
        answer(meter, "r1")
        meter.on(None, [used("r1")], 0.0)
        meter.leave()
        await stage.settled()
        assert len(await stage.rows()) == 1
        assert await stage.balance(budget) == Balance(USED, 0)

    run(main)


def test_cascade_without_paid_engines_costs_nothing(run: RunStage) -> None:
    async def main(stage: Stage) -> None:
        meter = stage.meter("")
        await meter.enter()
        meter.on(None, [RecordUsage("r", "", used("r").usage, characters=12)], 0.0)
        meter.leave()
        await stage.settled()
        (row,) = await stage.rows()
        assert (row.nano_usd, row.mode, row.used["characters"]) == (0, "local", 12)
        assert not row.estimated

    run(main)


def test_rows_that_cost_nothing_are_booked_together_and_at_the_end_at_the_latest(
    run: RunStage,
) -> None:
    async def main(stage: Stage) -> None:
        meter = stage.meter("")
        await meter.enter()
        for number in range(3):
            meter.on(None, [RecordUsage(f"r{number}", "", used("r").usage)], 0.0)
        while stage.service.booking.tasks:
            await asyncio.gather(*stage.service.booking.tasks)
        assert await stage.rows() == []
        await stage.service.__aexit__()
        assert sorted(row.id for row in await stage.rows()) == [f"sess_1:r{n}" for n in range(3)]
        await stage.start()

    run(main)


def test_answer_of_a_fallback_costs_what_the_fallback_costs(run: RunStage) -> None:
    async def main(stage: Stage) -> None:
        budget = await stage.budget("key", "usd", NANO, period="day")
        meter = stage.meter()
        await meter.enter()
        answer(meter, "r1")
        meter.on(None, [Generate("r2", PROMPT)], 0.0)
        meter.on(None, [RecordUsage("r2", "", used("r2").usage)], 0.0)
        heard = RecordUsage("i:0", "", DurationUsage(36), "transcription")
        meter.on(None, [heard], 0.0)
        meter.leave()
        await stage.settled()
        rows = {row.id: row for row in await stage.rows()}
        assert rows["sess_1:r1"].nano_usd == USED
        for id_ in ("sess_1:r2", "sess_1:i:0"):
            assert (rows[id_].nano_usd, rows[id_].mode) == (0, "local")
            assert rows[id_].confirmed
            assert not rows[id_].estimated
        assert await stage.balance(budget) == Balance(USED, 0)

    run(main)


def test_time_of_a_session_that_was_taken_up_again_is_booked_beside_the_first(
    run: RunStage,
) -> None:
    async def main(stage: Stage) -> None:
        for serving in ("", "a1"):
            meter = stage.meter()
            stage.sessions = 0  # the same session
            meter.serving = serving
            await meter.enter()
            stage.clock.now += 60
            meter.leave()
            await stage.settled()
        rows = [row for row in await stage.all_rows() if row.kind == "session"]
        assert [row.id for row in rows] == ["sess_1:time0", "sess_1:time0.a1"]
        assert [row.used["session_ms"] for row in rows] == [60_000, 60_000]

    run(main)


def test_service_paid_by_the_clock_costs_nothing_from_a_failover_to_its_return(
    run: RunStage,
) -> None:
    async def main(stage: Stage) -> None:
        budget = await stage.budget("key", "usd", 10 * NANO, period="total")
        meter = stage.meter("clock")
        await meter.enter()
        meter.on(None, [], 100.0)
        for model, seconds in (("clock", 10), ("", 20), ("clock", 30)):
            if seconds > 10:
                meter.on(None, [RecordModel(model)], stage.clock.now - Clock.now + 100.0)
                await stage.settled()
            stage.clock.now += seconds
        assert meter.time_cost(60.0) == 40 * NANO // 100
        meter.leave()
        await stage.settled()
        rows = [row for row in await stage.all_rows() if row.kind == "session"]
        booked = [(row.model, row.mode, row.used["session_ms"], row.nano_usd) for row in rows]
        assert booked == [
            ("clock", "relay", 10_000, NANO // 10),
            ("", "local", 20_000, 0),
            ("clock", "relay", 30_000, 3 * NANO // 10),
        ]
        assert [row.id for row in rows] == [f"sess_1:time{n}" for n in range(3)]
        assert await stage.balance(budget) == Balance(4 * NANO // 10, 0)

    run(main)


def test_minutes_go_on_after_a_failover(run: RunStage) -> None:
    async def main(stage: Stage) -> None:
        budget = await stage.budget("key", "minutes", 600_000, period="total")
        meter = stage.meter("clock")
        await meter.enter()
        stage.clock.now += 10
        meter.on(None, [RecordModel("")], 10.0)
        await stage.settled()
        stage.clock.now += 5
        meter.leave()
        await stage.settled()
        assert await stage.balance(budget) == Balance(15_000, 0)

    run(main)


def test_usage_is_logged_by_model_when_the_session_ends(
    run: RunStage, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(stage: Stage) -> None:
        silent = stage.meter()
        await silent.enter()
        silent.leave()
        meter = stage.meter()
        await meter.enter()
        answer(meter, "r1")
        answer(meter, "r2")
        heard = RecordUsage("i:0", "far", DurationUsage(36), "transcription", recogniser="asr")
        meter.on(None, [heard], 0.0)
        assert caplog.messages == []
        meter.leave()
        meter.leave()
        await stage.settled()

    with caplog.at_level(logging.INFO, "vivavoce.telemetry.session_meter"):
        run(main)
    assert [line for line in caplog.messages if "used by" in line] == [
        "sess_2: used by k of far: 2 responses, 200 tokens in, 100 out, 0 s transcribed, $0.004",
        "sess_2: used by k of asr: 0 responses, 0 tokens in, 0 out, 36 s transcribed, $0.01",
    ]


def test_usage_that_never_came_is_booked_at_its_bound(run: RunStage) -> None:
    async def main(stage: Stage) -> None:
        budget = await stage.budget("user", "usd", NANO, period="month")
        meter = stage.meter()
        await meter.enter()
        bound = (await stage.balance(budget)).reserved
        answer(meter, "r1", RecordUsage("r1", "far", Usage(), confirmed=False))
        meter.on(begun("r2"), [], 0.0)  # the session ends while it is generated
        meter.leave()
        await stage.settled()
        rows = await stage.rows()
        assert [row.nano_usd for row in rows] == [bound, bound]
        assert not any(row.confirmed for row in rows)
        assert {row.problem for row in rows} == {"not_reported"}
        assert await stage.balance(budget) == Balance(2 * bound, 0)

    run(main)


def test_response_that_costs_more_than_was_reserved_is_reported(run: RunStage) -> None:
    async def main(stage: Stage) -> None:
        seen: list[tuple[str, int]] = []
        stage.service.on_overrun.append(lambda model, nano: seen.append((model, nano)))
        budget = await stage.budget("user", "usd", NANO, period="month")
        meter = stage.meter()
        await meter.enter()
        bound = (await stage.balance(budget)).reserved
        answer(meter, "r1", used("r1", 1, 1))
        answer(meter, "r2", used("r2", 5_000, 2_000))
        meter.leave()
        await stage.settled()
        cost = 5_000 * 10_000 + 2_000 * 20_000
        assert seen == [("far", cost - bound)]

    run(main)


def test_usage_that_does_not_add_up_is_an_estimate(run: RunStage) -> None:
    async def main(stage: Stage) -> None:
        meter = stage.meter()
        await meter.enter()
        answer(meter, "r", RecordUsage("r", "far", Usage(10, 7, 3)))
        meter.leave()
        await stage.settled()
        (row,) = await stage.rows()
        assert (row.estimated, row.problem) == (True, "inconsistent")
        assert row.nano_usd == 7 * 10_000 + 3 * 20_000

    run(main)


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        (used("r"), ""),
        (RecordUsage("r", "far", Usage(10, 7, 3)), "inconsistent"),
        (RecordUsage("r", "unknown", used("r").usage), "no_price"),
        (RecordUsage("r", "clock", used("r").usage), "no_rate"),
        (RecordUsage("r", "", used("r").usage), ""),
    ],
)
def test_cost_that_is_an_estimate_says_why(record: RecordUsage, problem: str) -> None:
    rated = Rater(PRICES, TARIFFS).record(record, Clock.now)
    row = rated.row("s:r", "response", record.model, Owner("k", "u", "t"), Clock.now)
    assert (row.problem, row.estimated) == (problem, bool(problem))


# budgets


def test_budget_without_room_refuses_the_session_and_reserves_nothing(run: RunStage) -> None:
    async def main(stage: Stage) -> None:
        wide = await stage.budget("key", "usd", NANO, period="day")
        await stage.budget("team", "usd", NANO, period="total")
        narrow = await stage.budget("user", "usd", 1000, period="day")
        meter = stage.meter()
        with pytest.raises(QuotaExceeded, match=f"the budget {narrow.id} is spent"):
            await meter.enter()
        await stage.settled()
        assert await stage.balance(wide) == Balance(0, 0)
        assert await stage.rows() == []

    run(main)


@pytest.mark.parametrize(("unit", "limit"), [("usd", 100_000_000), ("tokens", 3_200)])
def test_budget_spent_in_mid_session_ends_it_before_the_next_response(
    run: RunStage, unit: str, limit: int
) -> None:
    async def main(stage: Stage) -> None:
        budget = await stage.budget("all", unit, limit, period="day")
        meter = stage.meter()
        await meter.enter()
        for n in range(100):
            answer(meter, f"r{n}", used(f"r{n}", 300, 100))
            await stage.settled()
            if any(isinstance(fact, AccessEnded) for fact in stage.posted):
                break
        low, ended = stage.posted
        assert low == BudgetLow()  # once
        assert isinstance(ended, AccessEnded)
        assert ended == AccessEnded("insufficient_quota", ended.message, 4002)
        assert budget.id in ended.message
        meter.leave()
        await stage.settled()
        spent, reserved = await stage.balance(budget)
        assert 0 < spent <= limit
        assert reserved == 0

    run(main)


def test_model_without_a_price_is_refused_where_the_budget_is_in_money(run: RunStage) -> None:
    async def main(stage: Stage) -> None:
        await stage.meter("unknown").enter()
        await stage.budget("key", "usd", NANO, period="day")
        with pytest.raises(QuotaExceeded, match="has no price"):
            await stage.meter("unknown").enter()

    run(main)


def test_key_has_only_so_many_sessions_at_the_same_time(run: RunStage) -> None:
    async def main(stage: Stage) -> None:
        await stage.save("key", ApiKey(name="k", hash=hash_of("k"), max_sessions=2))
        await stage.service.refresh()
        meters = [stage.meter(), stage.meter()]
        for meter in meters:
            await meter.enter()
        with pytest.raises(QuotaExceeded, match="as many sessions"):
            await stage.meter().enter()
        meters[0].leave()
        await stage.settled()
        await stage.meter().enter()

    run(main)


def test_places_of_a_process_that_died_are_free_after_their_lease(run: RunStage) -> None:
    async def main(stage: Stage) -> None:
        await stage.save("key", ApiKey(name="k", hash=hash_of("k"), max_sessions=1))
        await stage.service.refresh()
        await stage.meter().enter()
        await stage.service.__aexit__()  # nothing is given back
        await stage.start()
        with pytest.raises(QuotaExceeded, match="as many sessions"):
            await stage.meter().enter()
        stage.clock.now += SEAT_LEASE_S
        await stage.meter().enter()
        with pytest.raises(QuotaExceeded, match="as many sessions"):
            await stage.meter().enter()

    run(main)


def test_conversation_that_is_resumed_has_the_place_of_the_process_that_had_it(
    run: RunStage,
) -> None:
    async def main(stage: Stage) -> None:
        await stage.save("key", ApiKey(name="k", hash=hash_of("k"), max_sessions=1))
        await stage.service.refresh()
        first = stage.meter()
        await first.enter()
        stage.sessions -= 1  # the same conversation
        again = stage.meter()
        again.serving = "a1"
        await again.enter()
        first.leave()
        await stage.settled()
        with pytest.raises(QuotaExceeded, match="as many sessions"):
            await stage.meter().enter()

    run(main)


def test_minutes_are_paid_in_advance_and_end_the_session(run: RunStage) -> None:
    async def main(stage: Stage) -> None:
        budget = await stage.budget("key", "minutes", 60_000, period="total")
        meter = stage.meter()
        await meter.enter()
        assert await stage.balance(budget) == Balance(0, 30_000)
        for _ in range(30):
            stage.clock.now += 5.0
            meter.tick()
            await stage.settled()
            if any(isinstance(fact, AccessEnded) for fact in stage.posted):
                break
        low, ended = stage.posted
        assert (low, ended.code) == (BudgetLow(), "insufficient_quota")
        meter.leave()
        await stage.settled()
        assert await stage.balance(budget) == Balance(60_000, 0)

    run(main)


@pytest.mark.parametrize(("unit", "limit"), [("tokens", 3_200), ("minutes", 60_000)])
def test_tokens_and_minutes_end_a_session_however_much_money_is_left(
    run: RunStage, unit: str, limit: int
) -> None:
    async def main(stage: Stage) -> None:
        money = await stage.budget("user", "usd", 1000 * NANO, period="total")
        narrow = await stage.budget("team", unit, limit, period="total")
        meter = stage.meter()
        await meter.enter()
        for number in range(30):
            answer(meter, f"r{number}", used(f"r{number}", 300, 100))
            stage.clock.now += 5.0
            meter.tick()
            await stage.settled()
            ended = [fact for fact in stage.posted if isinstance(fact, AccessEnded)]
            if ended:
                break
        assert narrow.id in ended[0].message
        assert (ended[0].code, ended[0].close_code) == ("insufficient_quota", 4002)
        assert (await stage.balance(money)).spent < NANO
        meter.leave()
        await stage.settled()

    run(main)


def test_session_paid_by_the_clock_costs_its_time(run: RunStage) -> None:
    async def main(stage: Stage) -> None:
        budget = await stage.budget("key", "usd", NANO, period="total")
        meter = stage.meter("clock")
        await meter.enter()
        stage.clock.now += 10.0  # 36 USD an hour are a cent a second
        meter.leave()
        await stage.settled()
        assert await stage.balance(budget) == Balance(NANO // 10, 0)

    run(main)


def test_session_paid_by_the_clock_costs_its_messages_and_its_responses_nothing(
    run: RunStage,
) -> None:
    async def main(stage: Stage) -> None:
        meter = stage.meter("clock")
        await meter.enter()
        for text in ("hello", "are you there?"):
            item = Message(role="user", content=(InputText(text=text),))
            meter.on(Received(ItemCreate(item=item)), [], 0.0)
        spoken = Message(role="user", content=(InputAudio(transcript="hi"),))
        meter.on(Received(ItemCreate(item=spoken)), [], 0.0)
        answer(meter, "r1", RecordUsage("r1", "clock", Usage(), confirmed=False))
        stage.clock.now += 10.0
        meter.leave()
        await stage.settled()
        time, response = sorted(await stage.all_rows(), key=lambda row: row.kind, reverse=True)
        assert time.used == {"session_ms": 10_000, "messages": 2}
        assert time.nano_usd == NANO // 10 + 2 * (NANO // 250)
        assert (response.nano_usd, response.confirmed, response.estimated) == (0, True, False)

    run(main)


def test_reservation_made_before_midnight_is_settled_in_the_day_of_its_making(
    run: RunStage,
) -> None:
    async def main(stage: Stage) -> None:
        berlin = ZoneInfo("Europe/Berlin")
        # the hour from 2 to 3 comes twice on this day, which has 25 hours
        stage.clock.now = datetime(2026, 10, 25, 23, 59, 50, tzinfo=berlin).timestamp()
        day, month = [
            await stage.budget("key", "usd", NANO, period=period, timezone="Europe/Berlin")
            for period in ("day", "month")
        ]
        meter = stage.meter()
        await meter.enter()
        meter.on(begun("r1"), [], 0.0)
        await stage.settled()
        stage.clock.now += 20.0
        meter.on(None, [used("r1")], 0.0)
        await stage.settled()
        assert (await stage.store.balance(day.id, "2026-10-25")).spent == USED
        assert (await stage.store.balance(day.id, "2026-10-26")).spent == 0
        assert (await stage.store.balance(month.id, "2026-10")).spent == USED
        answer(meter, "r2")
        await stage.settled()
        answer(meter, "r3")
        await stage.settled()
        assert (await stage.store.balance(day.id, "2026-10-26")).spent == 2 * USED
        meter.leave()
        await stage.settled()
        for period in ("2026-10-25", "2026-10-26"):
            assert (await stage.store.balance(day.id, period)).reserved == 0

    run(main)


def test_key_revoked_ends_its_sessions_and_opens_no_more(run: RunStage) -> None:
    async def main(stage: Stage) -> None:
        await stage.meter().enter()
        await stage.save("key", ApiKey(name="k", hash=hash_of("k"), revoked=True))
        await stage.service.refresh()
        assert stage.posted == [AccessEnded("invalid_api_key", "The key was revoked.", 3000)]
        with pytest.raises(Unauthorized, match="the key was revoked"):
            await stage.meter().enter()

    run(main)


def test_store_that_cannot_be_reached_refuses_sessions_and_ends_those_with_budgets_in_time(
    run: RunStage,
) -> None:
    async def main(stage: Stage) -> None:
        await stage.budget("key", "usd", NANO, period="day")
        await stage.meter().enter()
        accounts = stage.service.store
        accounts._store = Unreachable()
        with pytest.raises(StoreError):
            await stage.meter().enter()
        stage.service._end_unpaid()
        assert stage.posted == []
        stage.clock.now += StoreSettings().away_seconds
        stage.service._end_unpaid()
        assert [(one.code, one.close_code) for one in stage.posted] == [("store_unavailable", 1011)]
        with pytest.raises(StoreError, match="may have been revoked"):
            await stage.meter().enter()
        accounts._store = stage.store
        assert await accounts.try_again()

    run(main)


def test_session_goes_on_from_the_allowance_while_the_store_is_away_and_then_ends(
    run: RunStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buffered, "MAX_WAIT_S", 0.0)  # the time is not virtual

    async def main(stage: Stage) -> None:
        budget = await stage.budget("key", "usd", NANO, period="day")
        meter = stage.meter()
        await meter.enter()
        bound = (await stage.balance(budget)).reserved
        accounts = stage.service.store
        await accounts.tend()
        assert await stage.balance(budget) == Balance(0, 5 * bound)
        accounts._store = Unreachable()
        count = 0
        while not stage.posted:
            count += 1
            answer(meter, f"r{count}")
            await stage.settled()
        assert set(stage.posted) == {STORE_LOST}  # whether the budget is spent is not known
        assert 4 * bound - count * USED < bound <= 4 * bound - (count - 1) * USED
        meter.leave()
        await stage.settled()
        accounts._store = stage.store
        assert await accounts.try_again()
        await accounts.tend()
        assert await stage.balance(budget) == Balance(count * USED, 0)
        assert len(await stage.rows()) == count

    run(main)


def test_conversation_that_is_taken_up_again_goes_on_while_new_ones_are_refused(
    run: RunStage,
) -> None:
    async def main(stage: Stage) -> None:
        await stage.budget("key", "usd", NANO, period="day")
        meter = stage.meter()
        await meter.enter()
        accounts = stage.service.store
        await accounts.tend()
        accounts._store = Unreachable()
        again = stage.meter()
        again.serving = "a1"
        await again.enter()
        with pytest.raises(StoreError, match="the store cannot be reached"):
            await stage.meter().enter()
        again.leave()
        meter.leave()
        await stage.settled()
        accounts._store = stage.store
        assert await accounts.try_again()

    run(main)


def test_process_that_dies_leaves_the_bound_of_its_response_booked(run: RunStage) -> None:
    async def main(stage: Stage) -> None:
        budget = await stage.budget("key", "usd", NANO, period="total")
        generating, idle = stage.meter(), stage.meter()
        await generating.enter()
        bound = (await stage.balance(budget)).reserved
        await idle.enter()
        generating.on(begun("r"), [], 0.0)
        await stage.settled()
        await stage.service.__aexit__()  # nothing is given back
        stage.clock.now += LEASE_S
        await stage.start()
        assert await stage.balance(budget) == Balance(bound, 0)
        assert stage.service.expired_reservations == 2  # one for a response to come
        (row,) = await stage.rows()
        assert (row.nano_usd, row.confirmed) == (bound, False)

    run(main)


def test_hundred_sessions_on_one_dollar_restarted_at_random_never_spend_more(
    run: RunStage,
) -> None:
    async def main(stage: Stage) -> None:
        chance = random.Random(7)
        budget = await stage.budget("key", "usd", NANO, period="total")
        meters: set[SessionMeter] = set()

        def open_one() -> SessionMeter:
            meter = stage.meter(output=400)

            def close(fact: object) -> None:
                assert isinstance(fact, AccessEnded)
                meters.discard(meter)
                meter.leave()

            meter.post = close
            return meter

        for number in range(60):
            while len(meters) < 100:
                meter = open_one()
                try:
                    await meter.enter()
                except QuotaExceeded:
                    break
                meters.add(meter)
            for meter in chance.sample(sorted(meters, key=id), min(5, len(meters))):
                record = used(f"r{number}", chance.randrange(2000), chance.randrange(400))
                answer(meter, record.id, record)
            if number % 12 == 11:  # the process dies in the middle, and its leases end
                await asyncio.sleep(chance.random() / 1000)
                for task in tuple(stage.service.booking.tasks):
                    task.cancel()
                await asyncio.gather(*stage.service.booking.tasks, return_exceptions=True)
                await stage.service.__aexit__()
                meters.clear()
                stage.clock.now += LEASE_S
                await stage.start()
            else:
                await stage.settled()
            spent, reserved = await stage.balance(budget)
            assert spent + reserved <= NANO
        await stage.settled()
        for meter in tuple(meters):
            meter.leave()
        await stage.settled()
        stage.clock.now += LEASE_S
        await stage.store.reap(stage.clock.now)
        rows = await stage.rows()
        spent, reserved = await stage.balance(budget)
        assert spent == sum(row.nano_usd for row in rows)
        assert 0.8 * NANO < spent <= NANO
        assert reserved == 0
        (line,) = await report(stage.store, 0, 1e12, ("key",), {}, PRICES)
        assert line.nano_usd == spent

    run(main)
