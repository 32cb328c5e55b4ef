"""Model packs: the weights of an engine, as files in a folder, checked against one manifest.

packs.toml is the manifest. Packs are kept in the user's cache folder, a folder each. An engine asks
for its weights by the name of a pack or by a folder that holds the same files.
"""

import functools
import hashlib
import os
import re
from contextlib import suppress
from pathlib import Path

import msgspec
import platformdirs

from vivavoce.errors import EngineError

MANIFEST_PATH = Path(__file__).with_name("packs.toml")
LICENCE_NAME = "LICENSE"
CHECKED_NAME = ".checked"


class PackFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of a pack. `member` is its path in the archive; size in bytes."""

    member: str | tuple[str, ...]
    """Several: they are joined."""
    size: int
    sha256: str


class PackSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A further package that carries files of a pack."""

    package: str
    """As a requirement with an exact version; of npm with its @: "name@1.2.3"."""
    sha256: str
    """Of the wheel, or of the archive that `npm pack` writes."""
    platform: str = "any"
    """The platform tag of a wheel."""

    @property
    def is_npm(self) -> bool:
        return "==" not in self.package


class Pack(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of the manifest."""

    engine: str
    """kind:name of the engine that loads it."""
    description: str
    version: str
    licence: str
    """SPDX expression."""
    wheel: str
    """The package that carries it, as a requirement with an exact version."""
    wheel_platform: str
    """The platform tag of the wheel; "any"."""
    wheel_sha256: str
    download_bytes: int
    licence_member: str
    files: dict[str, PackFile]
    optional: bool = False
    """`vivavoce models pull` without names leaves it out."""
    also: tuple[PackSource, ...] = ()
    """Further packages; a file may be in any of them."""

    @property
    def sources(self) -> tuple[PackSource, ...]:
        """All packages that carry it."""
        first = PackSource(self.wheel, self.wheel_sha256, self.wheel_platform)
        return (first, *self.also)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())


class CheckedFile(msgspec.Struct, frozen=True):
    """A file as it was when its hash was found right. To hash all takes 70 ms of a start."""

    inode: int
    size: int
    modified_ns: int
    changed_ns: int
    """When its content or its place was changed; programs cannot set it."""
    sha256: str


_decode_checked = msgspec.json.Decoder(dict[str, CheckedFile]).decode


def forbids_commerce(licence: str) -> bool:
    """Whether an SPDX expression has a part for non-commercial use only, such as CC-BY-NC-4.0."""
    return any("NC" in part.split("-") for part in re.split(r"[\s()]+", licence))


@functools.cache
def manifest() -> dict[str, Pack]:
    """All packs, by name."""
    return msgspec.toml.decode(MANIFEST_PATH.read_bytes(), type=dict[str, Pack])


def cache_folder() -> Path:
    """Where packs are kept."""
    return platformdirs.user_cache_path("vivavoce", appauthor=False) / "models"


def problem_of(name: str, folder: Path | None = None) -> str | None:
    """None: the pack is here and every hash is right; else a sentence with the remedy.

    folder: where it is; by default in the cache. Reads the files that are new or have changed since
    they were found right: not for the event loop.
    """
    if (pack := manifest().get(name)) is None:
        return f"there is no model pack {name}"
    place = folder or cache_folder() / name
    remedy = f"try: vivavoce models pull {name}"
    if not place.is_dir():
        return f"the model {name} is not installed; {remedy}"
    known, right = _checked_files(place), {}
    for file_name, file in pack.files.items():
        path = place / file_name
        try:
            found = path.stat()
            checked = CheckedFile(
                found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, file.sha256
            )
            if known.get(file_name) != checked:
                with path.open("rb") as opened:
                    sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
                if sha256 != file.sha256:
                    return f"{path} is damaged: its SHA-256 is not that of {name}; {remedy}"
        except OSError as exc:
            return f"{path} cannot be read: {exc.strerror}; {remedy}"
        right[file_name] = checked
    if folder is None and right != known:
        _keep_checked(place, right)
    return None


def _checked_files(place: Path) -> dict[str, CheckedFile]:
    try:
        return _decode_checked((place / CHECKED_NAME).read_bytes())
    except (OSError, msgspec.MsgspecError):
        return {}


def _keep_checked(place: Path, files: dict[str, CheckedFile]) -> None:
    """Where the folder cannot be written, they are read again at the next start."""
    with suppress(OSError):
        fresh = place / f"{CHECKED_NAME}.{os.getpid()}"
        fresh.write_bytes(msgspec.json.encode(files))
        fresh.replace(place / CHECKED_NAME)


def weights_folder(model: str) -> Path:
    """The folder of a pack by its name, or the folder that `model` names.

    Raises EngineError: it is not there, or a file is missing.
    """
    packs = manifest()
    if model in packs:
        if (problem := problem_of(model)) is not None:
            raise EngineError(problem)
        return cache_folder() / model
    folder = Path(model).expanduser()
    if not folder.is_dir():
        raise EngineError(
            f"model: {model!r} is neither a folder nor the name of a model; known: "
            f"{', '.join(packs)}"
        )
    return folder


def check_files(folder: Path, names: tuple[str, ...], what: str) -> None:
    """Raise EngineError where a folder lacks one of these files."""
    for name in names:
        if not (folder / name).is_file():
            raise EngineError(
                f"model: the folder {folder} holds no {what}: there is no {name}; name a folder "
                f"with {', '.join(names)}"
            )
