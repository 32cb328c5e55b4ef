"""What the commands for money do: prices, keys, users, budgets."""

import sys
import time
from typing import Literal, TypeAlias

import msgspec
from rich.console import Console
from rich.table import Table

from vivavoce.errors import SettingsError
from vivavoce.limits.accounts import ApiKey, Budget, Team, User, day_of
from vivavoce.limits.prices import Price, PriceTable, usd
from vivavoce.store.base import AccountStore

Form: TypeAlias = Literal["table", "csv", "json"]
Row: TypeAlias = dict[str, str | int | float]


def print_prices(table: PriceTable, pattern: str, form: Form, out: Console) -> None:
    """The price of each model whose name contains a text."""
    now = time.time()
    rows = [
        _price_row(price)
        for price in table
        if pattern in f"{price.provider}/{price.model}" and price.effective_from <= now
    ]
    print_rows(rows, form, out)


def _price_row(price: Price) -> Row:
    row: Row = {"provider": price.provider, "model": price.model}
    for name, nano in msgspec.structs.asdict(price.rates).items():
        row[name] = "" if nano is None else usd(nano)
    return row | {"version": price.version, "as_of": price.as_of, "source": price.source}


def print_rows(rows: list[Row], form: Form, out: Console) -> None:
    """Rows with the same columns: as a table without its empty columns, as CSV, or as JSON."""
    if form == "json":
        out.file.write(msgspec.json.format(msgspec.json.encode(rows), indent=2).decode() + "\n")
    elif form == "csv":
        import csv

        writer = csv.DictWriter(out.file, rows[0] if rows else (), lineterminator="\n")
        if rows:
            writer.writeheader()
        writer.writerows(rows)
    elif not rows:
        out.print("Nothing was found.")
    else:
        shown = [name for name in rows[0] if any(row[name] != "" for row in rows)]
        if form == "table" and "source" in shown:
            shown.remove("source")  # too wide; in CSV and JSON
        table = Table(box=None, pad_edge=False)
        for name in shown:
            number = isinstance(rows[0][name], int | float) or name not in _TEXT
            table.add_column(name.replace("_", " "), justify="right" if number else "left")
        for row in rows:
            table.add_row(*(str(row[name]) for name in shown))
        out.print(table, soft_wrap=not sys.stdout.isatty())


_TEXT = {
    *("provider", "model", "version", "as_of", "day", "user", "team", "key", "name", "kind"),
    *("state", "made", "expires", "admin", "period", "session"),
}


# --- keys, users and budgets: each command opens the store of the settings and closes it again


async def add_key(store: AccountStore, key: ApiKey) -> None:
    """Raises SettingsError where there is one of that name."""
    if key.name in await store.records("key"):
        raise SettingsError(f"there is a key {key.name!r} already: revoke it, or take another name")
    await store.save("key", key.name, msgspec.json.encode(key))


async def revoke_key(store: AccountStore, name: str) -> None:
    """Raises SettingsError where there is none of that name."""
    data = (await store.records("key")).get(name)
    if data is None:
        raise SettingsError(f"the store has no key {name!r}; list them with: vivavoce keys list")
    key = msgspec.json.decode(data, type=ApiKey)
    revoked = msgspec.structs.replace(key, revoked=True)
    await store.save("key", name, msgspec.json.encode(revoked))


async def list_keys(store: AccountStore) -> list[Row]:
    keys = [
        msgspec.json.decode(data, type=ApiKey) for data in (await store.records("key")).values()
    ]
    return [
        {
            "name": key.name,
            "user": key.user,
            "team": key.team,
            "made": day_of(key.created_at),
            "expires": "" if key.expires_at is None else day_of(key.expires_at),
            "state": "valid" if key.valid(time.time()) else "revoked" if key.revoked else "expired",
            "admin": "yes" if key.admin else "",
            "max_sessions": key.max_sessions or "",
            "max_requests": key.max_requests or "",
        }
        for key in keys
    ]


async def list_people(store: AccountStore) -> list[Row]:
    """Users and teams."""
    rows: list[Row] = []
    for data in (await store.records("user")).values():
        user = msgspec.json.decode(data, type=User)
        state = "blocked" if user.blocked else "active"
        rows.append({"kind": "user", "name": user.name, "team": user.team, "state": state})
    for data in (await store.records("team")).values():
        team = msgspec.json.decode(data, type=Team)
        state = "blocked" if team.blocked else "active"
        rows.append({"kind": "team", "name": team.name, "team": "", "state": state})
    return rows


async def set_budget(store: AccountStore, budget: Budget) -> None:
    await store.save("budget", budget.id, msgspec.json.encode(budget))


async def list_budgets(store: AccountStore) -> list[Row]:
    """All budgets, and what of them is used in their present period."""
    rows: list[Row] = []
    for data in (await store.records("budget")).values():
        budget = msgspec.json.decode(data, type=Budget)
        period = budget.period_at(time.time())
        spent, reserved = await store.balance(budget.id, period)
        rows.append(
            {
                "name": budget.id,
                "period": period,
                "limit": _amount(budget, budget.limit),
                "spent": _amount(budget, spent),
                "reserved": _amount(budget, reserved),
                "left": _amount(budget, max(0, budget.limit - spent - reserved)),
            }
        )
    return rows


def _amount(budget: Budget, amount: int) -> str:
    """In the unit of the budget."""
    match budget.unit:
        case "usd":
            return usd(amount)
        case "minutes":
            return f"{amount / 60_000:.2f}"
        case "tokens":
            return str(amount)
