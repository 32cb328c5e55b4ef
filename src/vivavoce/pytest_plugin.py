"""The pytest plug-in of the package: the fixture `fake_openai`. It imports the server when used."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from vivavoce.testing.fake_server import FakeServer


@pytest.fixture
def fake_openai() -> "Iterator[FakeServer]":
    """A Realtime server in this process, in a thread of its own: see docs/testing.md."""
    from vivavoce.testing.threads import running_in_thread

    with running_in_thread() as fake:
        yield fake
