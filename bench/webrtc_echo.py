"""A server whose calls hear themselves: `python -m bench.webrtc_echo PORT`.

Routes, codecs and packets are the real ones; an echo takes the place of the session.
"""

import asyncio
import secrets
import sys
from typing import Any

import uvloop
from aiohttp import web

from vivavoce.protocol.wire import Opening
from vivavoce.session.facts import AudioArrived, Disconnected
from vivavoce.transports.webrtc.calls import Calls
from vivavoce.transports.webrtc.signalling import CallRoutes


class Echo:
    """Plays what arrives, at once."""

    behind = False

    def __init__(self, player: Any) -> None:
        self._player = player
        self._over = asyncio.Event()

    async def run(self) -> None:
        await self._over.wait()

    def post(self, fact: object) -> None:
        match fact:
            case AudioArrived(audio=audio):
                self._player.play("echo", audio)
            case Disconnected():
                self._over.set()

    def end(self, code: int, reason: str) -> None:
        self._over.set()


class _Context:
    resumption = None


class Echoes:
    """Takes the place of Sessions."""

    context = _Context()

    def check_room(self, *, in_place: bool = False) -> None:
        """There is always some."""

    def new_id(self, size: int) -> str:
        return secrets.token_hex(size)

    def direct_relay(self, opening: Any) -> None:
        """The sound of all calls comes here."""

    def open(self, peer: Any, opening: Any, player: Any, *, ticket: object = None) -> Echo:
        return Echo(player)

    async def serve(self, echo: Echo) -> None:
        await echo.run()


async def main(port: int) -> None:
    app = web.Application()
    calls: Any = Calls
    routes = CallRoutes(calls(Echoes()), lambda _: Opening(), short_lived_key=lambda _: None)
    routes.add_to(app)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
