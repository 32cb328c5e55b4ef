"""Budgets and their periods; who owns what."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from vivavoce.limits.accounts import (
    ApiKey,
    Budget,
    Directory,
    Owner,
    Period,
    Team,
    Unit,
    User,
    amount_of,
    check_timezone,
    day_of,
)

BERLIN = ZoneInfo("Europe/Berlin")


def budget(period: Period, timezone: str = "Europe/Berlin") -> Budget:
    return Budget(scope="all", unit="usd", period=period, limit=1, timezone=timezone)


@pytest.mark.parametrize(
    ("local", "day", "month"),
    [
        ("2026-03-28T23:59:59", "2026-03-28", "2026-03"),
        ("2026-03-29T00:00:00", "2026-03-29", "2026-03"),  # a day of 23 hours
        ("2026-03-29T23:59:59", "2026-03-29", "2026-03"),
        ("2026-10-25T00:00:00", "2026-10-25", "2026-10"),  # a day of 25 hours
        ("2026-10-25T23:59:59", "2026-10-25", "2026-10"),
        ("2026-12-31T23:59:59", "2026-12-31", "2026-12"),
        ("2027-01-01T00:00:00", "2027-01-01", "2027-01"),
    ],
)
def test_period_begins_at_midnight_of_its_time_zone(local: str, day: str, month: str) -> None:
    at = datetime.fromisoformat(local).replace(tzinfo=BERLIN).timestamp()
    assert budget("day").period_at(at) == day
    assert budget("month").period_at(at) == month
    assert budget("total").period_at(at) == "total"


def test_day_of_a_time_is_that_of_the_zone() -> None:
    at = datetime(2026, 11, 28, 23, 30, tzinfo=ZoneInfo("UTC")).timestamp()
    assert (day_of(at), day_of(at, "Europe/Berlin")) == ("2026-11-28", "2026-11-29")


def test_owner_has_the_budgets_of_key_user_team_and_all() -> None:
    def of(scope: str, owner: str) -> Budget:
        fields = {"scope": scope, "owner": owner}
        return Budget(unit="usd", period="day", limit=1, **fields)  # type: ignore[arg-type]

    mine = [of("all", ""), of("key", "k"), of("team", "t"), of("user", "u")]
    others = [of("key", "x"), of("user", "k"), of("team", "u")]
    directory = Directory(
        [ApiKey(name="k", hash="", user="u")],
        [User(name="u", team="t")],
        [Team(name="t")],
        mine + others,
    )
    owner = directory.owner("k")
    assert owner == Owner("k", "u", "t")
    assert directory.budgets_of(owner) == tuple(mine)
    assert directory.owner("unknown") == Owner("unknown")
    assert [one.id for one in directory.budgets_of(Owner())] == ["all:usd:day"]


def test_key_revoked_expired_or_of_a_blocked_owner_has_a_problem() -> None:
    directory = Directory(
        [
            ApiKey(name="good", hash="", user="u", expires_at=10.0),
            ApiKey(name="revoked", hash="", revoked=True),
            ApiKey(name="blocked", hash="", user="b"),
            ApiKey(name="team", hash="", team="t"),
        ],
        [User(name="u"), User(name="b", blocked=True)],
        [Team(name="t", blocked=True)],
    )
    assert directory.problem("good", 9.9) is None
    assert directory.problem("good", 10.0) == "the key has expired"
    assert directory.problem("revoked", 0.0) == "the key was revoked"
    assert directory.problem("blocked", 0.0) == "its user is blocked"
    assert directory.problem("team", 0.0) == "its team is blocked"
    assert directory.problem("unknown", 0.0) is None


@pytest.mark.parametrize(
    ("text", "unit", "amount"),
    [
        ("20", "usd", 20 * 10**9),
        ("2.50", "usd", 2_500_000_000),
        ("0.000000001", "usd", 1),
        ("1.5", "minutes", 90_000),
        ("1000", "tokens", 1000),
    ],
)
def test_amount_is_read_in_the_smallest_unit(text: str, unit: Unit, amount: int) -> None:
    assert amount_of(text, unit) == amount


@pytest.mark.parametrize(
    ("text", "unit", "problem"),
    [
        ("-1", "usd", "is not an amount"),
        ("1e3", "usd", "is not an amount"),
        ("", "usd", "is not an amount"),
        ("0.5", "tokens", "has too many decimals for tokens"),
        ("9999999999", "usd", "is too much; at most 9007199 usd"),
    ],
)
def test_text_that_is_no_amount_is_refused(text: str, unit: Unit, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        amount_of(text, unit)


def test_time_zone_that_is_unknown_is_refused() -> None:
    check_timezone("Europe/Berlin")
    for name in ("Europe/Nowhere", "", "../etc/passwd"):
        with pytest.raises(ValueError, match="unknown time zone"):
            check_timezone(name)
