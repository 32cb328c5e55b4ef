"""The WebSocket to a Realtime server: frames out and in. Knows nothing of what they say."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import aiohttp
from aiohttp import WSMsgType

from vivavoce.errors import SettingsError
from vivavoce.secret import Secret
from vivavoce.talk.address import shown
from vivavoce.talk.options import Waits

_MOST_FRAME_BYTES = 64 * 1024 * 1024
_UNAUTHORIZED, _NOT_FOUND, _BUSY = 401, 404, 503


@dataclass(frozen=True, slots=True)
class Lost:
    """The connection is over, and why."""

    reason: str


class Wire(Protocol):
    """A connection. Once it is lost it stays so, and what is sent goes nowhere."""

    async def send(self, frame: bytes) -> None: ...

    async def receive(self) -> bytes | Lost: ...


class WebSocket:
    """A Wire over aiohttp."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, waits: Waits) -> None:
        self._socket = socket
        self._waits = waits
        self._lost = ""

    async def send(self, frame: bytes) -> None:
        if self._lost or self._socket.closed:
            return
        try:
            async with asyncio.timeout(self._waits.connect):
                await self._socket.send_frame(frame, WSMsgType.TEXT)
        except TimeoutError:
            self._lost = f"the server has taken nothing for {self._waits.connect:g} s"
            await self._socket.close()
        except ConnectionError:
            self._lost = "the connection broke"

    async def receive(self) -> bytes | Lost:
        message = await self._socket.receive()
        match message.type:
            case WSMsgType.TEXT | WSMsgType.BINARY:
                data = message.data
                return data.encode() if isinstance(data, str) else bytes(data)
            case WSMsgType.CLOSE:
                reason = f": {message.extra}" if message.extra else ""
                return Lost(f"the server closed the connection ({message.data}){reason}")
            case WSMsgType.ERROR:
                return Lost(f"the connection broke: {message.data}")
            case _:
                return Lost(self._lost or "the server closed the connection")


@asynccontextmanager
async def connected(address: str, api_key: Secret, waits: Waits) -> AsyncIterator[WebSocket]:
    """A connection to `address`. Raises SettingsError: there is none to be had, and what to do."""
    headers = {"Authorization": f"Bearer {api_key.reveal()}"} if api_key else {}
    async with AsyncExitStack() as stack:
        timeout = aiohttp.ClientTimeout(total=None)
        http = await stack.enter_async_context(aiohttp.ClientSession(timeout=timeout))
        try:
            async with asyncio.timeout(waits.connect):
                socket = await http.ws_connect(
                    address,
                    headers=headers,
                    max_msg_size=_MOST_FRAME_BYTES,
                    timeout=aiohttp.ClientWSTimeout(ws_close=waits.close),
                )
        except TimeoutError as exc:
            raise SettingsError(
                f"no server answers at {shown(address)} within {waits.connect:g} s; "
                f"is the address right?"
            ) from exc
        except (aiohttp.ClientError, ValueError) as exc:
            raise SettingsError(_refusal(shown(address), exc)) from exc
        stack.push_async_callback(socket.close)
        yield WebSocket(socket, waits)


def _refusal(address: str, exc: Exception) -> str:
    match exc:
        case aiohttp.WSServerHandshakeError(status=401 | 403 as status):
            return (
                f"the server at {address} does not accept the key ({status}); "
                f"give it with --api-key or in OPENAI_API_KEY"
            )
        case aiohttp.WSServerHandshakeError(status=404):
            return f"there is no Realtime API at {address} (404); check the path of --url"
        case aiohttp.WSServerHandshakeError(status=503):
            return f"the server at {address} takes no more sessions just now (503); try again later"
        case aiohttp.WSServerHandshakeError(status=status):
            return f"the server at {address} refuses the connection: HTTP {status}; check --url"
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError():
            return f"no trustworthy TLS at {address}: {exc}; check its certificate, or use ws://"
        case aiohttp.ClientConnectorDNSError():
            return f"no server answers at {address}: the host is not known; check --url"
        case aiohttp.ClientConnectorError(os_error=ConnectionRefusedError()):
            return (
                f"no server answers at {address}: connection refused; "
                f"start one with `vivavoce serve`"
            )
        case aiohttp.ClientConnectorError(os_error=cause):
            return f"no server answers at {address}: {cause.strerror or cause}; check --url"
        case _:
            return f"what answers at {address} is no Realtime server: {exc}; check --url"
