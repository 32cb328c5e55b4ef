"""The standard streams of the `vivavoce` command, which a caller may have closed or filled, and the
line that says on them why a command failed."""

import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from rich.console import Console
from rich.markup import escape

T = TypeVar("T")


class OutputError(Exception):
    """The standard output cannot be written. No OSError: network code handles those itself."""


class StandardOutput:
    """sys.stdout, to be written by a console. Its first failure ends the command."""

    def __init__(self) -> None:
        self._failure: OSError | None = None

    def write(self, text: str) -> int:
        """Raises OutputError."""
        return self._try(lambda: sys.stdout.write(text))

    def flush(self) -> None:
        """Raises OutputError."""
        self._try(sys.stdout.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stdout, name)

    def run(self, command: Callable[[], object]) -> OSError | None:
        """Run a command. Returns the failure of the standard output that ended it, if one did."""
        try:
            command()
        except* OutputError:  # alone, or from tasks
            pass
        return self._failure

    def _try(self, action: Callable[[], T]) -> T:
        try:
            return action()
        except OSError as exc:
            self._failure = exc
            with open(os.devnull, "wb") as discard:  # for what is written until the end
                os.dup2(discard.fileno(), sys.stdout.fileno())
            raise OutputError(exc.strerror) from exc


def keep_standard_descriptors() -> None:
    """Open /dev/null in place of closed streams (`>&-`): no socket gets their numbers.

    uvloop aborts the process when it closes a socket that is number 0, 1 or 2.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


def print_error(console: Console, error: object) -> None:
    """Print why a command does not do what it was asked for: `vivavoce: ...`, in one line."""
    text = escape(str(error))  # names of tables, [server], are not markup
    console.print(f"[bold red]vivavoce:[/bold red] {text}", highlight=False, soft_wrap=True)
