"""The commands for money: prices, keys, users, budgets and usage."""

import asyncio
import json
import os
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

import msgspec
from cyclopts import App
from rich.console import Console

from vivavoce.accounting import open_store, price_table
from vivavoce.api.usage import flat
from vivavoce.cli.console import ConfigFile, err, give_up, out, read_settings
from vivavoce.errors import InvalidRequest, SettingsError, StoreError
from vivavoce.limits.accounts import (
    NAME,
    ApiKey,
    Budget,
    Period,
    Scope,
    Team,
    Unit,
    User,
    amount_of,
    amount_text,
    check_timezone,
    day_of,
)
from vivavoce.limits.keys import KEY_BYTES, hash_of, key_of
from vivavoce.limits.prices import Price, PriceTable, usd
from vivavoce.store.base import AccountStore
from vivavoce.telemetry.reports import group_by, report, span_of

T = TypeVar("T")
Form: TypeAlias = Literal["table", "csv", "json"]
Row: TypeAlias = dict[str, str | int | float]
_NAMES = "names are 1 to 64 letters, digits and . _ @ -, and begin with a letter or a digit"


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
    """Rows with the same columns: a table without columns that are empty or 0, CSV, or JSON."""
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
        shown = [name for name in rows[0] if any(row[name] not in ("", 0, "0.00") for row in rows)]
        shown = [name for name in shown if name not in _WIDE]
        lines = [[name.replace("_", " ") for name in shown]]
        lines += [[str(row[name]) for name in shown] for row in rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            cells = (
                cell.ljust(width) if name in _TEXT else cell.rjust(width)
                for name, cell, width in zip(shown, line, widths, strict=True)
            )
            # no figure is cut off where the terminal is narrow
            out.print("  ".join(cells).rstrip(), soft_wrap=True, highlight=False, markup=False)


_WIDE = {"source", "nano_usd", "cascade_nano_usd"}
"""Columns that only CSV and JSON have."""
_TEXT = {
    *("provider", "model", "version", "as_of", "day", "user", "team", "key", "name", "kind"),
    *("state", "made", "expires", "admin", "period", "session"),
}


# --- keys, users and budgets: each command opens the store of the settings and closes it again


async def _store_key(store: AccountStore, key: ApiKey) -> None:
    """Raises SettingsError if there is one of that name."""
    if key.name in await store.records("key"):
        raise SettingsError(f"there is a key {key.name!r} already: revoke it, or take another name")
    await store.save("key", key.name, msgspec.json.encode(key))


async def _change_key(store: AccountStore, name: str, **changes: object) -> None:
    """Raises SettingsError if there is none of that name."""
    data = (await store.records("key")).get(name)
    if data is None:
        raise SettingsError(f"the store has no key {name!r}; list them with: vivavoce keys list")
    key = msgspec.json.decode(data, type=ApiKey)
    changed = msgspec.structs.replace(key, **changes)
    await store.save("key", name, msgspec.json.encode(changed))


async def _key_rows(store: AccountStore) -> list[Row]:
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
            "models": ", ".join(key.models),
        }
        for key in keys
    ]


async def _people_rows(store: AccountStore) -> list[Row]:
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


async def _budget_rows(store: AccountStore) -> list[Row]:
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
                "limit": amount_text(budget.limit, budget.unit),
                "spent": amount_text(spent, budget.unit),
                "reserved": amount_text(reserved, budget.unit),
                "left": amount_text(max(0, budget.limit - spent - reserved), budget.unit),
            }
        )
    return rows


# --- the commands

keys = App(name="keys", help="API keys.")


@keys.command(name="new")
def new_key(name: str) -> None:
    """Make an API key, show it once, and print the line for the settings.

    Parameters
    ----------
    name
        The name of the key, for example its owner's.
    """
    key = key_of(secrets.token_bytes(KEY_BYTES))
    out.print(key.reveal(), highlight=False)
    err.print("Keep it: it is shown this once. In the settings:", highlight=False)
    quoted = name if re.fullmatch("[A-Za-z0-9_-]+", name) else json.dumps(name)
    line = f'[keys]\n{quoted} = "{hash_of(key)}"'
    err.print(line, highlight=False, markup=False, soft_wrap=True)


@keys.command(name="add")
def add_key(
    name: str,
    *,
    user: str = "",
    team: str = "",
    days: float | None = None,
    admin: bool = False,
    max_sessions: int = 0,
    max_requests: int = 0,
    config: ConfigFile = None,
) -> None:
    """Make an API key in the store, and show it once. A running server accepts it in seconds.

    Parameters
    ----------
    name
        The name of the key.
    user
        The user to whom it belongs.
    team
        The team to which it belongs, if that is not its user's.
    days
        It expires after so many days.
    admin
        It may see everybody's usage.
    max_sessions
        At the same time; 0: no limit.
    max_requests
        HTTP requests at the same time; 0: no limit.
    config
        The settings file; ./vivavoce.toml if there is one.
    """
    if days is not None and not days > 0:
        give_up(SettingsError("--days is a number of days above 0; without it a key stays valid"))
    if min(max_sessions, max_requests) < 0:
        give_up(SettingsError("--max-sessions and --max-requests are 0 (no limit) or above"))
    key = key_of(secrets.token_bytes(KEY_BYTES))
    now = time.time()
    record = _record(
        ApiKey,
        name=name,
        hash=hash_of(key),
        user=user,
        team=team,
        created_at=now,
        expires_at=None if days is None else now + days * 86_400,
        admin=admin,
        max_sessions=max_sessions,
        max_requests=max_requests,
    )
    _with_store(config, lambda store: _store_key(store, record))
    out.print(key.reveal(), highlight=False)
    err.print("Keep it: it is shown this once.", highlight=False)


@keys.command(name="allow")
def allow_models(name: str, *models: str, config: ConfigFile = None) -> None:
    """Let a key of the store use these models only; without any, all of them."""
    _with_store(config, lambda store: _change_key(store, name, models=models))


@keys.command(name="list")
def list_keys(*, form: Form = "table", config: ConfigFile = None) -> None:
    """List the keys of the store."""
    print_rows(_with_store(config, _key_rows), form, out)


@keys.command(name="revoke")
def revoke_key(name: str, *, config: ConfigFile = None) -> None:
    """Revoke a key of the store. Its sessions end within seconds."""
    _with_store(config, lambda store: _change_key(store, name, revoked=True))


users = App(name="users", help="Users and teams, to whom keys and budgets belong.")


@users.command(name="set")
def set_user(name: str, *, team: str = "", block: bool = False, config: ConfigFile = None) -> None:
    """Add or change a user. A user who is blocked can use no key."""
    record = _record(User, name=name, team=team, blocked=block)
    data = msgspec.json.encode(record)
    _with_store(config, lambda store: store.save("user", name, data))


@users.command(name="set-team")
def set_team(name: str, *, block: bool = False, config: ConfigFile = None) -> None:
    """Add or change a team. The keys of a team that is blocked cannot be used."""
    data = msgspec.json.encode(_record(Team, name=name, blocked=block))
    _with_store(config, lambda store: store.save("team", name, data))


@users.command(name="list")
def list_users(*, form: Form = "table", config: ConfigFile = None) -> None:
    """List users and teams."""
    print_rows(_with_store(config, _people_rows), form, out)


budgets = App(name="budgets", help="Limits of money, minutes and tokens.")


@budgets.command(name="set")
def set_budget(
    scope: Scope,
    limit: str,
    unit: Unit,
    period: Period,
    *,
    name: str = "",
    timezone: str = "UTC",
    config: ConfigFile = None,
) -> None:
    """Set a budget, for example: vivavoce budgets set user 20 usd month --name ada

    Parameters
    ----------
    scope
        key, user, team, or all.
    limit
        How much, such as 20 or 2.50.
    unit
        usd, minutes or tokens.
    period
        day, month, or total, which is prepaid.
    name
        The name of the key, user or team.
    timezone
        Days and months begin at its midnight, such as Europe/Berlin.
    config
        The settings file; ./vivavoce.toml if there is one.
    """
    try:
        check_timezone(timezone)
        amount = amount_of(limit, unit)
    except ValueError as exc:
        give_up(exc)
    if bool(name) == (scope == "all"):
        give_up(SettingsError(f"a budget of {scope} has {'no' if name else 'a'} --name"))
    budget = _record(
        Budget, scope=scope, owner=name, unit=unit, period=period, limit=amount, timezone=timezone
    )
    data = msgspec.json.encode(budget)
    _with_store(config, lambda store: store.save("budget", budget.id, data))


@budgets.command(name="list")
def list_budgets(*, form: Form = "table", config: ConfigFile = None) -> None:
    """List budgets, and what of them is used."""
    print_rows(_with_store(config, _budget_rows), form, out)


@budgets.command(name="remove")
def remove_budget(id_: str, *, config: ConfigFile = None) -> None:
    """Remove a budget by its name in the list, such as user:ada:usd:month."""
    if not _with_store(config, lambda store: store.remove("budget", id_)):
        give_up(SettingsError(f"there is no budget {id_!r}"))


def usage(
    *,
    by: str = "day,model",
    since: str = "",
    until: str = "",
    form: Form = "table",
    config: ConfigFile = None,
) -> None:
    """Print what was used, and what it cost.

    Parameters
    ----------
    by
        One or more of day, key, user, team, model, session, kind and mode, separated by commas.
    since
        The first day, 2026-11-01; by default 30 days ago.
    until
        The last day, included; by default today.
    form
        table, csv or json.
    config
        The settings file; ./vivavoce.toml if there is one.
    """
    try:
        names, span = group_by(by), span_of(since, until, time.time())
    except InvalidRequest as exc:
        give_up(exc)
    settings, *_ = read_settings(config, {})
    table = price_table(settings)
    lines = _with_store(config, lambda store: report(store, *span, names, {}, table))
    print_rows([flat(line) for line in lines], form, out)


def prices(model: str = "", *, form: Form = "table", config: ConfigFile = None) -> None:
    """Print the prices by which usage is charged, in USD.

    Tokens and characters are priced by the million, audio and sessions by the hour. [prices] of
    the settings is included.

    Parameters
    ----------
    model
        Only models whose name contains this.
    form
        table, csv or json.
    config
        The settings file; ./vivavoce.toml if there is one.
    """
    settings, *_ = read_settings(config, {})
    try:
        print_prices(price_table(settings), model, form, out)
    except SettingsError as exc:
        give_up(exc)


def _record(kind: Callable[..., T], **fields: Any) -> T:
    """A record of the store, its fields checked; a wrong one ends the process."""
    names = [fields["name"]] if "name" in fields else []
    names += filter(None, (fields.get("user"), fields.get("team")))
    for name in names:
        if not NAME.fullmatch(name):
            give_up(SettingsError(f"{name!r} cannot be the name of a key, user or team; {_NAMES}"))
    try:
        made = kind(**fields)
        return msgspec.convert(msgspec.to_builtins(made), type(made))
    except msgspec.ValidationError as exc:
        give_up(exc)


def _with_store(config: Path | None, use: Callable[[AccountStore], Awaitable[T]]) -> T:
    """The result of `use` with the store of the settings."""
    settings, *_ = read_settings(config, {})

    async def main() -> T:
        async with open_store(settings, os.environ) as store:
            return await use(store)

    try:
        return asyncio.run(main())
    except (SettingsError, StoreError) as exc:
        give_up(exc)
