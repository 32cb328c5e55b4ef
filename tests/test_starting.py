"""What a start puts off until the server listens."""

import asyncio
import gc
import os
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vivavoce.starting import certificates_later, heavy_imports, listens, put_off, server_listens


@pytest.fixture
def contexts() -> Iterator[tuple[ssl.SSLContext, ssl.SSLContext]]:
    """One that checks certificates, and one that does not, whose certificates are not read."""
    with certificates_later():
        checking = ssl.create_default_context()
        other = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        other.check_hostname = False
        other.verify_mode = ssl.CERT_NONE
        other.set_default_verify_paths()
    yield checking, other
    for context in (checking, other):
        context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="localhost")


def authorities(context: ssl.SSLContext) -> int:
    return len(context.get_ca_certs())


def test_work_waits_until_the_server_listens() -> None:
    async def main() -> list[bool]:
        async with put_off():
            waiting = asyncio.create_task(server_listens())
            await asyncio.sleep(0)
            before = waiting.done()
            listens()
            await waiting
            await server_listens()
            return [before, waiting.done()]

    assert asyncio.run(main()) == [False, True]


def test_work_that_somebody_wants_does_not_wait() -> None:
    async def main() -> None:
        async with put_off():
            wanted = asyncio.Event()
            waiting = asyncio.create_task(server_listens(unless=wanted))
            await asyncio.sleep(0)
            wanted.set()
            await waiting

    asyncio.run(main())


def test_work_of_no_start_does_not_wait() -> None:
    asyncio.run(server_listens())
    listens()


def test_certificates_are_those_of_a_usual_context_from_the_first_connection_on(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    checking, other = contexts
    assert authorities(checking) == 0
    for _ in range(2):
        checking.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="localhost")
        assert authorities(checking) == authorities(ssl.create_default_context())
    assert checking.check_hostname
    assert checking.verify_mode == ssl.CERT_REQUIRED
    assert authorities(other) == 0


def test_certificates_are_read_in_a_thread_when_the_server_listens(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    checking, other = contexts
    read: list[ssl.SSLContext] = []
    done = asyncio.Event()

    async def in_thread(work: Any) -> None:
        work()
        read.append(work.__self__)
        done.set()

    monkeypatch.setattr(asyncio, "to_thread", in_thread)

    async def main() -> None:
        async with put_off():
            await asyncio.sleep(0)
            assert read == []
            listens()
            await done.wait()

    asyncio.run(main())
    assert read == [checking]
    assert authorities(checking) == authorities(ssl.create_default_context())
    assert authorities(other) == 0


def test_garbage_is_collected_again_after_heavy_imports() -> None:
    frozen = gc.get_freeze_count()
    with heavy_imports():
        inside = gc.isenabled()
    if not frozen:
        gc.unfreeze()
    assert (inside, gc.isenabled()) == (False, True)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_keeps_bytecode_whatever_the_environment_says() -> None:
    """A start without it takes twice the instructions."""
    shown = subprocess.run(
        (
            *("make", "--no-print-directory"),
            *("--eval", 'shown:; @echo "[$$PYTHONDONTWRITEBYTECODE]"', "shown"),
        ),
        cwd=Path(__file__).parent.parent,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert shown.splitlines()[-1] == "[]"
