"""Sums of usage by day, user, model and other columns."""

from collections.abc import AsyncGenerator, Callable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import Literal, Protocol, TypeAlias, get_args

import msgspec

from vivavoce.errors import InvalidRequest
from vivavoce.limits.accounts import day_of
from vivavoce.limits.prices import PriceTable, Quantities, rate, usd
from vivavoce.store.base import UsageRow

GroupBy: TypeAlias = Literal["day", "key", "user", "team", "model", "session", "kind", "mode"]
DEFAULT_DAYS = 30
MAX_GROUPS = 10_000
"""The most groups of a report; the rest is summed up in its last line."""

_VALUES: Mapping[str, Callable[[UsageRow], str]] = {
    "day": lambda row: day_of(row.at),
    "key": lambda row: row.key,
    "user": lambda row: row.user,
    "team": lambda row: row.team,
    "model": lambda row: row.model,
    "session": lambda row: row.session,
    "kind": lambda row: row.kind,
    "mode": lambda row: row.mode,
}


class UsageSource(Protocol):
    """Has the usage that was booked."""

    def usage(self, since: float, until: float) -> AsyncGenerator[list[UsageRow]]:
        """See AccountStore."""
        ...


class ReportLine(msgspec.Struct, kw_only=True):
    """The sum of all rows that agree in `group`."""

    group: dict[str, str]
    sessions: int = 0
    responses: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    audio_seconds: float = 0.0
    """That were transcribed on their own price, or analysed."""
    characters: int = 0
    session_seconds: float = 0.0
    sessions_at_once: int = 0
    """At most; a session counts in the period in which it ended."""
    cascade_nano_usd: int = 0
    """What the sessions of relays would have cost as cascades: an estimate."""
    cascade_usd: str = "0.00"
    nano_usd: int = 0
    usd: str = "0.00"
    unconfirmed: int = 0
    """Rows of which the usage never came."""
    estimated: int = 0

    def add_as_cascade(self, nano_usd: int) -> None:
        self.cascade_nano_usd += nano_usd
        self.cascade_usd = usd(self.cascade_nano_usd)

    def add(self, row: UsageRow) -> None:
        used = msgspec.convert(row.used, Quantities)
        self.sessions += row.kind == "session" and row.id.endswith(":time0")
        self.responses += row.kind in ("response", "completion")
        self.input_tokens += used.input_tokens
        self.cached_tokens += used.cached_tokens
        self.output_tokens += used.output_tokens
        self.audio_seconds += used.audio_ms / 1000
        self.characters += used.characters
        self.session_seconds += used.session_ms / 1000
        self.nano_usd += row.nano_usd
        self.usd = usd(self.nano_usd)
        self.unconfirmed += not row.confirmed
        self.estimated += row.estimated


async def report(
    store: UsageSource,
    since: float,
    until: float,
    by: tuple[GroupBy, ...],
    where: Mapping[GroupBy, str],
    prices: PriceTable,
) -> list[ReportLine]:
    """The sums of all rows with since <= at < until that agree with `where`, in order of `by`.

    prices: of the cascade with which relays are compared. Raises StoreError.
    """
    lines: dict[tuple[str, ...], ReportLine] = {}
    times: dict[tuple[str, ...], list[tuple[float, int]]] = {}  # when sessions began and ended
    async for page in store.usage(since, until):
        for row in page:
            if any(_VALUES[name](row) != value for name, value in where.items()):
                continue
            group = tuple(_VALUES[name](row) for name in by)
            if group not in lines and len(lines) >= MAX_GROUPS:
                group = ("(more)",) * len(by)
            if group not in lines:
                lines[group] = ReportLine(group=dict(zip(by, group, strict=True)))
            lines[group].add(row)
            if row.mode == "relay":
                lines[group].add_as_cascade(as_cascade(row, prices))
            if row.kind == "session":
                begin = row.at - row.used.get("session_ms", 0) / 1000
                times.setdefault(group, []).extend(((begin, 1), (row.at, -1)))
    for group, changes in times.items():
        lines[group].sessions_at_once = most_at_once(changes)
    return [lines[group] for group in sorted(lines)]


def most_at_once(changes: list[tuple[float, int]]) -> int:
    """The highest sum of changes, in order of time; ends (-1) come before beginnings (+1)."""
    return max(accumulate(change for _, change in sorted(changes)), default=0)


CASCADE = {"stt": "nova-3", "llm": "gpt-6-luna", "tts": "eleven_flash_v2_5"}
"""Models of the price table that a relay is compared with."""
CHARACTERS_PER_SECOND = 15
"""The pace of speech, to estimate its length."""
TEXT_TOKENS_PER_SECOND = 4


def as_cascade(row: UsageRow, prices: PriceTable) -> int:
    """What a row of a relay would have cost as a cascade: an estimate in nano-USD.

    The recogniser hears the whole session. The synthesiser speaks as long as the answer was. The
    language model reads words in place of audio, uncached, and writes what the answer's text was.
    """
    used = msgspec.convert(row.used, Quantities)
    heard_s, spoken_s = used.audio_input / 10, used.audio_output / 20  # 100 and 50 ms a token
    read = used.text_input + used.other_input + round(heard_s * TEXT_TOKENS_PER_SECOND)
    parts = {
        "stt": Quantities(audio_ms=used.session_ms),
        "llm": Quantities(text_input=read, text_output=used.text_output),
        "tts": Quantities(characters=round(spoken_s * CHARACTERS_PER_SECOND)),
    }
    total = 0
    for kind, part in parts.items():
        price = prices.find(CASCADE[kind], row.at)
        total += 0 if price is None else rate(part, price.rates).nano_usd
    return total


def group_by(text: str) -> tuple[GroupBy, ...]:
    """Names separated by commas. Raises InvalidRequest."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    known = get_args(GroupBy)
    for name in names:
        if name not in known:
            raise InvalidRequest(
                f"Usage cannot be grouped by {name!r}; only by {', '.join(known)}.", param="by"
            )
    return tuple(name for name in known if name in names)


def span_of(since: str, until: str, now: float) -> tuple[float, float]:
    """The times of two ISO dates, UTC; the second day is included. Raises InvalidRequest.

    "": the last 30 days, up to now.
    """
    end = now + 1.0 if not until else _time(until, "until") + (86_400.0 if len(until) == 10 else 0)
    if since:
        return _time(since, "since"), end
    first = datetime.fromtimestamp(end, UTC).date() - timedelta(days=DEFAULT_DAYS)
    return datetime(first.year, first.month, first.day, tzinfo=UTC).timestamp(), end


def _time(text: str, param: str) -> float:
    try:
        at = datetime.fromisoformat(text)
    except ValueError as exc:
        raise InvalidRequest(
            f"{param} {text!r} is not a date; write it as 2026-11-28.", param=param
        ) from exc
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
