"""Keys, users, teams and their budgets, as records of a store, and which of them belong together.

Amounts are integers: nano-USD, milliseconds or tokens. A period of a budget is a row of its own,
named by its first day, so nothing has to be reset.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Literal, NamedTuple, TypeAlias
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta

from vivavoce.limits.prices import usd

Unit: TypeAlias = Literal["usd", "minutes", "tokens"]
Period: TypeAlias = Literal["day", "month", "total"]
Scope: TypeAlias = Literal["key", "user", "team", "all"]
NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")
Name: TypeAlias = Annotated[str, Meta(pattern=NAME.pattern)]
OwnerName: TypeAlias = Annotated[str, Meta(pattern=f"^$|{NAME.pattern}")]
"""The name of a user or team; empty: none."""
MAX_AMOUNT = 2**53 - 1
"""The highest limit of a budget, in its smallest unit; 9 million USD."""
SMALLEST: Mapping[Unit, int] = {"usd": 10**9, "minutes": 60_000, "tokens": 1}
"""How many of the smallest units one unit has: nano-USD, milliseconds, tokens."""
_AMOUNT = re.compile(r"^(\d{1,16})(?:\.(\d{1,9}))?$")


class ApiKey(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An API key, by the hash of its text."""

    name: Name
    hash: str
    user: str = ""
    team: str = ""
    created_at: float = 0.0
    expires_at: float | None = None
    revoked: bool = False
    admin: bool = False
    """Whether it may manage keys, users and budgets, and see everybody's usage."""
    max_sessions: Annotated[int, Meta(ge=0)] = 0
    """The most sessions at the same time; 0: no limit of its own."""
    max_requests: Annotated[int, Meta(ge=0)] = 0
    """The most HTTP requests at the same time; 0: no limit of its own."""
    models: tuple[str, ...] = ()
    """The names of models that it may use; empty: all."""

    def valid(self, now: float) -> bool:
        return not self.revoked and (self.expires_at is None or now < self.expires_at)


class User(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    name: Name
    team: str = ""
    blocked: bool = False


class Team(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    name: Name
    blocked: bool = False


class Budget(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A limit for a key, a user, a team, or for all of them together."""

    scope: Scope
    owner: str = ""
    """The name of the key, user or team; "" for all."""
    unit: Unit
    period: Period
    """total: prepaid; it has no periods, and its limit is raised to top it up."""
    limit: Annotated[int, Meta(ge=0, le=MAX_AMOUNT)]
    """The limit in the smallest unit."""
    timezone: str = "UTC"
    """The time zone in which days and months begin."""

    @property
    def id(self) -> str:
        return ":".join(filter(None, (self.scope, self.owner, self.unit, self.period)))

    def period_at(self, at: float) -> str:
        """The period that contains a time in Unix seconds: 2026-11-28, 2026-11 or total."""
        if self.period == "total":
            return "total"
        day = datetime.fromtimestamp(at, ZoneInfo(self.timezone)).date().isoformat()
        return day if self.period == "day" else day[:7]


class Owner(NamedTuple):
    """The key, user and team that a session or request is charged to; "" for none."""

    key: str = ""
    user: str = ""
    team: str = ""

    @property
    def identity(self) -> str:
        """A name of the user, or of the key if it has no user, that is unique among all teams."""
        name = self.user or self.key
        return f"{self.team}:{name}" if self.team else name


class Directory:
    """All records, as they were at one time."""

    def __init__(
        self,
        keys: Iterable[ApiKey] = (),
        users: Iterable[User] = (),
        teams: Iterable[Team] = (),
        budgets: Iterable[Budget] = (),
    ) -> None:
        self.keys = {key.name: key for key in keys}
        self.users = {user.name: user for user in users}
        self.teams = {team.name: team for team in teams}
        self.budgets = {budget.id: budget for budget in budgets}

    def owner(self, key: str) -> Owner:
        """The user and the team of a key, even if they have no records."""
        record = self.keys.get(key)
        if record is None:
            return Owner(key)
        user = self.users.get(record.user)
        team = record.team or (user.team if user else "")
        return Owner(key, record.user, team)

    def problem(self, key: str, now: float) -> str | None:
        """Why a key may not be used: revoked, expired, or its user or team is blocked."""
        record, owner = self.keys.get(key), self.owner(key)
        if record is not None and not record.valid(now):
            return "the key was revoked" if record.revoked else "the key has expired"
        user, team = self.users.get(owner.user), self.teams.get(owner.team)
        if user is not None and user.blocked:
            return "its user is blocked"
        if team is not None and team.blocked:
            return "its team is blocked"
        return None

    def models_of(self, key: str) -> frozenset[str] | None:
        """The models that a key may use; None: all."""
        record = self.keys.get(key)
        return frozenset(record.models) if record and record.models else None

    def budgets_of(self, owner: Owner) -> tuple[Budget, ...]:
        """All budgets that pay for an owner, by id."""
        scopes = {("all", ""), ("key", owner.key), ("user", owner.user), ("team", owner.team)}
        return tuple(
            budget
            for _, budget in sorted(self.budgets.items())
            if (budget.scope, budget.owner) in scopes
        )


def amount_of(text: str, unit: Unit) -> int:
    """An amount as people write it, such as 2.50, in the smallest unit. Raises ValueError."""
    match = _AMOUNT.match(text)
    if match is None:
        raise ValueError(f"{text!r} is not an amount; write it as 20 or 2.50")
    whole, part = match[1], (match[2] or "")
    nano = int(whole) * 10**9 + int(part.ljust(9, "0") or 0)
    amount, rest = divmod(nano * SMALLEST[unit], 10**9)
    if rest:
        raise ValueError(f"{text!r} has too many decimals for {unit}")
    if amount > MAX_AMOUNT:
        raise ValueError(f"{text!r} is too much; at most {MAX_AMOUNT // SMALLEST[unit]} {unit}")
    return amount


def amount_text(amount: int, unit: Unit) -> str:
    """An amount of the smallest unit as people read it: 2.50 USD, 12.25 minutes, 300 tokens."""
    match unit:
        case "usd":
            return usd(amount)
        case "minutes":
            return f"{amount / SMALLEST['minutes']:.2f}"
        case "tokens":
            return str(amount)


def refusal(budget: str) -> str:
    """The sentence for a budget that leaves no room."""
    scope, _, rest = budget.partition(":")
    if scope == "sessions":
        return f"The key {rest!r} has as many sessions as it may have at the same time."
    if scope == "requests":
        return f"The key {rest!r} has as many requests as it may have at the same time."
    return f"You exceeded your current quota: the budget {budget} is spent."


def check_timezone(name: str) -> None:
    """Raise ValueError for a time zone that this machine does not know."""
    try:
        ZoneInfo(name)
    except (OSError, ValueError) as exc:  # ZoneInfoNotFoundError is a KeyError
        raise ValueError(f"unknown time zone {name!r}") from exc
    except KeyError as exc:
        raise ValueError(f"unknown time zone {name!r}; write it as Europe/Berlin") from exc


def day_of(at: float, timezone: str = "UTC") -> str:
    """The day that contains a time in Unix seconds."""
    zone = UTC if timezone == "UTC" else ZoneInfo(timezone)
    return datetime.fromtimestamp(at, zone).date().isoformat()
