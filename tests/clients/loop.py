"""Tests that are coroutines, each in an event loop of its own."""

import functools
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec

from tests import idle_clock

P = ParamSpec("P")


def awaited(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a test to its end."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        idle_clock.run(test(*args, **kwargs))

    return run
