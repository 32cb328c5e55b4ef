"""State that outlives a process. Each implementation is a file of this package."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from typing import Annotated, Literal, NamedTuple, Protocol, Self, TypeAlias, TypeVar

import msgspec

from vivavoce.secret import conceal

T = TypeVar("T")
RecordKind: TypeAlias = Literal["key", "user", "team", "budget"]
UsageKind: TypeAlias = Literal[
    "response", "transcription", "speech", "completion", "analysis", "session", "speculative"
]
RatingProblem: TypeAlias = Literal["", "inconsistent", "no_price", "no_rate", "not_reported"]
"""Why a cost is an estimate: the counts do not add up, the model has no price, it has none for a
part of the usage, or the usage was not reported. "": the cost is no estimate."""
MAX_AMOUNT = 2**53 - 1
"""The highest amount of a budget, in its smallest unit (9 million USD in nano-USD), because Redis
compares amounts as doubles."""
PAGE_ROWS = 1000
AT_ONCE = "now"
"""The period of charges that count things in progress, such as the open sessions of a key."""


class StoreSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[store]: where keys, budgets and usage are kept."""

    url: str = ""
    """sqlite:PATH, redis://…, rediss://…, unix://…, or memory. Empty: a file of this user."""
    usage_days: Annotated[int, msgspec.Meta(ge=1, le=36_500)] = 400
    """Usage older than that is deleted."""
    when_away: Literal["refuse", "serve"] = "refuse"
    """Whether new sessions and requests that need a budget or a place are refused or served while
    the store cannot be reached."""
    away_seconds: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 600.0
    """How long sessions with budgets continue without the store."""
    allowance: Annotated[int, msgspec.Meta(ge=0, le=100)] = 4
    """The allowance for that time, as a multiple of what a process has reserved of a budget; 0:
    none."""
    journal: str = ""
    """A folder for usage that waits for the store. Empty: one of this user."""

    def __post_init__(self) -> None:
        conceal(self, "url")  # it may hold a password


class Store(Protocol):
    """Values by key, each with a time to live. An async context manager.

    Every method raises StoreError where the store cannot be reached.
    """

    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *exc: object) -> None: ...

    async def put(self, key: str, value: bytes, *, ttl_s: float) -> None:
        """Store a value in place of the last one, for this many seconds."""
        ...

    async def get(self, key: str) -> bytes | None:
        """The value; None if it is absent or expired."""
        ...

    async def delete(self, key: str) -> None:
        """Delete the value, if there is one."""
        ...


class SessionSave(NamedTuple):
    """A conversation, as the process that serves it stores it."""

    key: str
    epoch: int
    """The epoch of the claim under which the process serves it; 1: it has not been claimed."""
    owner: str
    """The process."""
    value: bytes
    ttl_s: float


class SessionClaim(NamedTuple):
    """The result of claim()."""

    epoch: int
    """The epoch under which the conversation is served from now on: the time of the claim, or one
    more than the former epoch if that is higher."""
    former_epoch: int = 0
    """0: nothing is stored."""
    owner: str = ""
    """The process that served it before; "": nothing is stored, or a process without a name."""
    value: bytes | None = None
    """What was stored last."""


class SessionStore(Store, Protocol):
    """Conversations by key, each with one owner. A claim invalidates all earlier ones.

    Claims are ordered by the clock of the store, because those of nodes differ.
    """

    async def now(self) -> int:
        """The time by that clock, in ms since 1970."""
        ...

    async def claim(self, key: str, owner: str) -> SessionClaim:
        """Claim a conversation, and return what was stored last.

        If nothing is stored, nothing is changed.
        """
        ...

    async def keep(self, saves: Sequence[SessionSave]) -> list[bool]:
        """Store conversations, each in place of its last version.

        False for a conversation that another process has claimed since, or has stored under the
        same epoch: nothing is stored for it.
        """
        ...


class UsageRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The usage and the cost of one response, transcription, synthesis, completion or session."""

    id: str
    """Unique, so that the same usage is never booked twice.

    `SESSION:RESPONSE`, or the id of a request.
    """
    at: float
    """Unix seconds."""
    kind: UsageKind
    model: str
    """The configured model, or the recogniser of a relay."""
    key: str = ""
    user: str = ""
    team: str = ""
    session: str = ""
    used: dict[str, int] = {}
    """Quantities by name; times in ms."""
    nano_usd: int = 0
    price_version: str = ""
    estimated: bool = False
    problem: RatingProblem = ""
    """Why it is an estimate; "" also in rows that earlier versions booked."""
    confirmed: bool = True
    """False: the usage was never reported, and the reserved amount is booked."""
    mode: Literal["local", "relay"] = "local"


class Charge(NamedTuple):
    """An amount that one budget is charged in one period."""

    budget: str
    period: str
    amount: int
    limit: int = MAX_AMOUNT


class Reservation(msgspec.Struct, frozen=True, kw_only=True):
    """Amounts that are reserved until the usage is known."""

    id: str
    charges: tuple[Charge, ...]
    lease_until: float
    """Unix seconds. After that its holder is assumed to have died."""
    opens: bool = False
    """Whether it is for a session or a request that has not begun yet."""


class Balance(NamedTuple):
    spent: int = 0
    reserved: int = 0


class AccountStore(SessionStore, Protocol):
    """Keys, users, teams and budgets as records; reservations; and the usage that was booked.

    Each method is one transaction. Every method raises StoreError where the store cannot be
    reached.
    """

    async def save(self, kind: RecordKind, name: str, data: bytes) -> None:
        """Store a record in place of the last one of that name."""
        ...

    async def remove(self, kind: RecordKind, name: str) -> bool:
        """Delete a record; whether there was one."""
        ...

    async def records(self, kind: RecordKind) -> dict[str, bytes]:
        """All records of a kind, by name."""
        ...

    async def reserve(self, reservation: Reservation) -> str | None:
        """Reserve all amounts, or none.

        Returns the first budget without enough left; None: all are reserved.
        """
        ...

    async def begin(self, reservation_id: str, row: UsageRow) -> None:
        """The reserved work has begun: if its holder dies, `row` is booked with the reserved
        amounts."""
        ...

    async def settle(
        self, row: UsageRow, charges: Sequence[Charge], reservation_id: str = ""
    ) -> bool:
        """Book usage, charge it and release its reservation, all or nothing.

        False: a row of that id was booked before; then nothing is charged.
        """
        ...

    async def book(self, rows: Sequence[UsageRow]) -> list[UsageRow]:
        """Book usage that is charged to no budget; return the rows that were not booked before."""
        ...

    async def release(self, reservation_id: str) -> None:
        """Release what was reserved, if it still is."""
        ...

    async def renew(self, reservation_ids: Collection[str], lease_until: float) -> None:
        """Extend the leases of those that still exist."""
        ...

    async def reap(self, now: float) -> int:
        """End all expired reservations; return how many.

        The reserved amounts are booked where the work had begun, and released otherwise.
        """
        ...

    async def balance(self, budget: str, period: str) -> Balance:
        """The amount that was spent, and the amount that is reserved."""
        ...

    def usage(self, since: float, until: float) -> AsyncGenerator[list[UsageRow]]:
        """The rows with since <= at < until, in order of time, in pages."""
        ...

    async def forget_usage(self, before: float) -> int:
        """Delete the rows before a time; return how many. Balances are not changed."""
        ...


class RunOperation(Protocol):
    """Runs an operation of a store within a time limit. Raises StoreError."""

    async def __call__(self, operation: Callable[[], Awaitable[T]]) -> T: ...
