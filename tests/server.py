"""A running server for tests: in this process, where its engines can be looked into, or beside it.

Both listen on a free port of 127.0.0.1 and are given back whatever happens.
"""

import asyncio
import logging
import os
import re
import sqlite3
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
from aiohttp import web
from scripts.clients.plumbing import served, without_settings

from vivavoce.accounting import follow_keys, metering, resuming
from vivavoce.app import build, metered_context, upstream_holds
from vivavoce.engines.scripted.engines import ScriptedLLM, ScriptedSTT, ScriptedTTS
from vivavoce.routes import application, auth_of
from vivavoce.runtime.catalog import Cascade
from vivavoce.runtime.checkpoint_queue import StoredSession
from vivavoce.runtime.sessions import Sessions
from vivavoce.server import serve_app
from vivavoce.settings import Settings
from vivavoce.settings_sources import parse
from vivavoce.store.base import SessionStore
from vivavoce.store.sqlite import SQLiteStore
from vivavoce.telemetry.metrics import Metrics
from vivavoce.transports.webrtc.settings import WebRTCSettings

HOST = "127.0.0.1"
START_TIMEOUT_S = 60.0  # a bound, never a pace
EMBEDDED = """
[models.default]
llm = "builtin"
"""
"""Engines that need nothing from outside, and no search for language models on this machine."""


class Complaints(logging.Handler):
    """What was logged as an error: a bug that a client need not have noticed."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(logging.Formatter().format(record))


@dataclass(frozen=True, slots=True)
class Server:
    """A server in this process. `http` and `ws` are the beginnings of its addresses."""

    port: int
    sessions: Sessions
    cascades: Mapping[str, Cascade]
    default: str = "default"
    complaints: list[str] = field(default_factory=list)
    app: web.Application = field(default_factory=web.Application)

    @property
    def http(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def ws(self) -> str:
        return f"ws://{HOST}:{self.port}"

    @property
    def llm(self) -> ScriptedLLM:
        """The LLM engine of the default model, which records its requests."""
        llm = self.cascades[self.default].llm
        assert isinstance(llm, ScriptedLLM)
        return llm

    @property
    def stt(self) -> ScriptedSTT:
        stt = self.cascades[self.default].stt
        assert isinstance(stt, ScriptedSTT)
        return stt

    @property
    def tts(self) -> ScriptedTTS:
        tts = self.cascades[self.default].tts
        assert isinstance(tts, ScriptedTTS)
        return tts


def scripted(
    *,
    stt: Mapping[str, object] | None = None,
    llm: Mapping[str, object] | None = None,
    tts: Mapping[str, object] | None = None,
    turn: Mapping[str, object] | None = None,
    session: Mapping[str, object] | None = None,
    server: Mapping[str, object] | None = None,
    models: Mapping[str, object] | None = None,
) -> Settings:
    """Settings of which every engine plays a script: each argument is what the file would say.

    models: engines of the default model that play no script, as in {"llm": "builtin"}.
    """
    kinds = ("vad", "turn", "stt", "llm", "tts", "speaker")
    tree: dict[str, Any] = {
        "models": {"default": dict.fromkeys(kinds, "scripted")},
        "engines": {
            kind: {"scripted": dict(script or {})}
            for kind, script in {"stt": stt, "llm": llm, "tts": tts, "turn": turn}.items()
        },
        "session": dict(session or {}),
        "server": dict(server or {}),
    }
    tree["models"]["default"].update(models or {})
    if tree["models"]["default"]["tts"] != "scripted":
        tree["session"].setdefault("voice", "marin")
    return parse(tree)


@asynccontextmanager
async def serving(
    settings: Settings | None = None,
    *,
    webrtc: WebRTCSettings | None = None,
    accounts: bool = False,
    store: SessionStore | None = None,
) -> AsyncIterator[Server]:
    """A server in this process and loop. Leaving it fails when it logged an error meanwhile.

    accounts: with usage, metrics and the records of keys, in memory. store: where conversations
    are kept for clients that come back; None: they cannot.
    """
    complaints = Complaints()
    logging.getLogger().addHandler(complaints)
    try:
        settings = settings or scripted()
        local = msgspec.structs.replace(settings.server, host=HOST, port=0)
        async with build(settings, local_servers=()) as built, AsyncExitStack() as stack:
            resumption = None
            if store is not None:
                resumption = await stack.enter_async_context(resuming(settings, store))
            sessions = Sessions(replace(built.context, resumption=resumption))
            booked, auth = None, auth_of(settings)
            if accounts:
                store = await stack.enter_async_context(SQLiteStore(":memory:"))
                places = {"XDG_STATE_HOME": stack.enter_context(TemporaryDirectory())}
                meter = await stack.enter_async_context(
                    metering(settings, built.models, store, places)
                )
                follow_keys(auth, meter)
                booked = (meter, Metrics())
                sessions = Sessions(metered_context(built.context, *booked))
                booked[1].watch_accounts(meter)
                booked[1].watch_sessions(sessions)
                booked[1].watch_upstreams(upstream_holds(built.context))
            app = application(
                sessions,
                auth,
                webrtc or settings.webrtc,
                accounts=booked,
                telephony=settings.telephony,
            )
            async with serve_app(app, local) as port:
                catalog = built.models.catalog
                yield Server(
                    port, sessions, catalog.cascades, catalog.default, complaints.messages, app
                )
                await sessions.drain(0)
        assert not complaints.messages, "\n".join(complaints.messages)
    finally:
        logging.getLogger().removeHandler(complaints)


@asynccontextmanager
async def serving_beside(
    config: str = EMBEDDED, environment: Mapping[str, str] | None = None
) -> AsyncIterator[int]:
    """A server in a process of its own; the port on which it listens.

    It is ended as an operator would, which fails when it does not end well: see `served`.
    """
    async with served(config, environment) as (http, _):
        yield int(http.rpartition(":")[2])


@dataclass(frozen=True, slots=True)
class ServerToKill:
    """A server in a process of its own."""

    port: int
    process: asyncio.subprocess.Process

    @property
    def http(self) -> str:
        return f"http://{HOST}:{self.port}"

    async def kill(self) -> None:
        """As the system does when memory runs out."""
        self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def serving_until_killed(settings: str, folder: Path) -> AsyncIterator[ServerToKill]:
    """A server that is killed by its test, or at the end. settings: what its file says."""
    (folder / "vivavoce.toml").write_text(settings, encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        *(str(Path(sys.executable).with_name("vivavoce")), "serve", "--port", "0"),
        cwd=folder,
        env=without_settings(os.environ),
        stdout=asyncio.subprocess.PIPE,
    )
    server = None
    try:
        assert process.stdout is not None
        async with asyncio.timeout(START_TIMEOUT_S):
            while server is None:
                line = (await process.stdout.readline()).decode()
                assert line, "the server did not start"
                if found := re.search(r"ws://[\d.]+:(\d+)/", line):
                    server = ServerToKill(int(found[1]), process)
        yield server
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def wait_until_answer_is_stored(file: Path) -> None:
    """Wait until the store of another process has a conversation that ends with a whole answer."""

    def ends_with_an_answer(value: bytes) -> bool:
        entries = msgspec.msgpack.decode(value, type=StoredSession).checkpoint.entries
        return bool(entries) and bool(entries[-1].ledger) and entries[-1].item.status == "completed"

    def is_there() -> bool:
        with closing(sqlite3.connect(file)) as store:
            rows = store.execute("SELECT value FROM sessions").fetchall()
        return any(ends_with_an_answer(value) for (value,) in rows)

    async with asyncio.timeout(START_TIMEOUT_S):
        while not is_there():  # noqa: ASYNC110  another process stores it
            await asyncio.sleep(0.01)
