"""Shared by the commands: output, errors, and the settings."""

import os
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, NoReturn, cast

from cyclopts import Parameter
from rich.console import Console

from vivavoce.errors import SettingsError
from vivavoce.standard_streams import StandardOutput, print_error

if TYPE_CHECKING:
    from vivavoce.settings import Settings
    from vivavoce.voxray_config import VoxrayConfig

stdout = StandardOutput()
out = Console(file=cast(IO[str], stdout))
err = Console(stderr=True)
ConfigFile = Annotated[Path | None, Parameter(name=["--config", "-c", "-config"])]


def read_settings(
    config: Path | None, flags: dict[str, Any]
) -> "tuple[Settings, list[str], VoxrayConfig | None]":
    """As load_settings(); an error ends the process."""
    try:
        return load_settings(config, flags)
    except SettingsError as exc:
        give_up(exc)


def load_settings(
    config: Path | None, flags: dict[str, Any]
) -> "tuple[Settings, list[str], VoxrayConfig | None]":
    """The settings, their sources, and the config.json that they come from, if there is one.

    Raises SettingsError.
    """
    from vivavoce.settings_sources import (  # takes half a second, and not every command needs it
        FILE,
        load,
        load_tree,
    )
    from vivavoce.voxray_config import find, read

    path = find(config, os.environ, Path(FILE))
    if path is None:
        return *load(config, os.environ, flags), None
    voxray = read(path, os.environ)
    return *load_tree(voxray.tree, str(path), os.environ, flags), voxray


def give_up(exc: Exception) -> NoReturn:
    """Print the error, and end with status 2."""
    print_error(err, exc)
    sys.exit(2)
