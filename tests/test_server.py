"""The helpers that start servers for tests, and what only a server in a subprocess shows."""

import asyncio
import ctypes
import logging
import ssl
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

import aiohttp
import pytest
from scripts.clients.plumbing import FailedError

from tests.server import EMBEDDED, HOST, scripted, serving, serving_beside


async def get(url: str) -> int:
    async with aiohttp.ClientSession() as http, http.get(url) as answer:
        return answer.status


def test_server_in_process_answers_and_stops() -> None:
    async def main() -> None:
        async with serving(scripted(llm={"answers": ["Hi."]})) as server:
            assert await get(f"{server.http}/health") == 200
            assert server.llm.requests == []
        with pytest.raises(aiohttp.ClientConnectionError):
            await get(f"{server.http}/health")

    asyncio.run(main())


def test_logged_error_fails_the_test() -> None:
    async def main() -> None:
        async with serving():
            logging.getLogger("vivavoce.runtime").error("a session failed")

    with pytest.raises(AssertionError, match="a session failed"):
        asyncio.run(main())


def test_server_in_subprocess_answers_and_exits_with_0() -> None:
    async def main() -> None:
        async with serving_beside() as port:
            assert await get(f"http://{HOST}:{port}/health") == 200
        with pytest.raises(aiohttp.ClientConnectionError):
            await get(f"http://{HOST}:{port}/health")

    asyncio.run(main())


def test_server_that_cannot_start_reports_the_reason() -> None:
    async def main() -> None:
        async with serving_beside('[models.default]\nllm = "wisdom"\n'):
            raise AssertionError("it started")

    with pytest.raises(FailedError, match="no llm engine 'wisdom'"):
        asyncio.run(main())


TLS = Path(__file__).parent / "data" / "tls"
SECURE = f"""{EMBEDDED}
[server]
tls_certificate = "{TLS / "certificate.pem"}"
tls_key = "{TLS / "key.pem"}"
"""
SHORT = {"VIVAVOCE_SERVER_HEAD_SECONDS": "0.2", "VIVAVOCE_SERVER_KEEP_ALIVE_SECONDS": "0.4"}
WAIT_SECONDS = 60.0  # for one event: a bound, never a pace


@pytest.mark.parametrize("config", [EMBEDDED, SECURE], ids=["plain", "tls"])
def test_server_in_subprocess_drops_requests_that_are_not_completed(config: str) -> None:
    trusting = ssl.create_default_context(cafile=str(TLS / "certificate.pem"))
    secure = trusting if config == SECURE else None

    async def rest(port: int, sent: bytes, context: ssl.SSLContext | None) -> bytes:
        async with asyncio.timeout(WAIT_SECONDS):
            with suppress(OSError):  # it was dropped before it was sent
                reader, writer = await asyncio.open_connection(HOST, port, ssl=context)
                with closing(writer):
                    writer.write(sent)
                    return await reader.read()
        return b""

    async def answer(port: int, sent: bytes, *, late: bytes = b"") -> bytes:
        """Of a request that was sent before the server had waited too long for it.

        late: the beginning of the answer to one that was not.
        """
        while True:
            found = await rest(port, sent, secure)
            if not (found.startswith(late) if late else found == b""):
                return found

    async def connected(http: aiohttp.ClientSession, url: str) -> aiohttp.ClientWebSocketResponse:
        while True:
            with suppress(aiohttp.ClientError):  # it was dropped before it was sent
                return await http.ws_connect(url, ssl=trusting)

    async def main() -> None:
        async with serving_beside(config, SHORT) as port:
            assert await rest(port, b"", secure) == b""
            assert (await answer(port, b"GET / HT")).startswith(b"HTTP/1.1 408 ")
            assert await rest(port, b"", None) == b""  # with TLS: an incomplete handshake
            body = b"POST /v1/audio/speech HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"
            assert await answer(port, body, late=b"HTTP/1.1 408 ") == b""
            whole = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"  # and then idle
            assert (await answer(port, whole)).startswith(b"HTTP/1.1 200 ")
            scheme = "wss" if secure else "ws"
            url = f"{scheme}://{HOST}:{port}/v1/realtime"
            async with aiohttp.ClientSession() as http, await connected(http, url) as socket:
                assert (await socket.receive_json())["type"] == "session.created"
                assert await rest(port, b"", secure) == b""
                assert await rest(port, b"", secure) == b""
                await socket.send_json({"type": "input_audio_buffer.clear"})
                assert (await socket.receive_json())["type"] == "input_audio_buffer.cleared"

    asyncio.run(main())


def test_server_in_subprocess_refuses_a_rebound_host_name() -> None:
    async def main() -> None:
        async with serving_beside() as port, aiohttp.ClientSession() as http:
            url = f"http://{HOST}:{port}/v1/models"
            async with http.get(url, headers={"Host": f"evil.example:{port}"}) as refused:
                assert refused.status == 403
            async with http.get(url) as allowed:
                assert allowed.status == 200

    asyncio.run(main())


@pytest.mark.parametrize(("wanted", "limit"), [(128, 128), (100_000_000, 512), (32, 64)])
def test_soft_limit_of_open_files_is_raised_within_the_hard_limit(wanted: int, limit: int) -> None:
    program = (
        "import resource; from vivavoce.server import raise_descriptor_limit as up; "
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 512)); "
        f"up({wanted}); print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert int(done.stdout) == limit


_MAPPED_BYTES_AFTER_A_LARGE_BLOCK = """
import ctypes
from vivavoce.server import fix_malloc_thresholds
libc = ctypes.CDLL(None)
fields = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
Info = type("Info", (ctypes.Structure,), {"_fields_": [(name, ctypes.c_size_t) for name in fields]})
libc.mallinfo2.restype = Info
%s
large = bytearray(20_000_000)
del large
before = libc.mallinfo2().hblkhd
blocks = [bytearray(%d) for _ in range(100)]
print(libc.mallinfo2().hblkhd - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="needs glibc 2.33")
@pytest.mark.parametrize("size", [50_000, 1_000_000])  # the audio of a turn, and of a long one
def test_freed_large_block_does_not_move_later_blocks_to_the_heap(size: int) -> None:
    mapped = []
    for call in ("", "fix_malloc_thresholds()"):
        program = _MAPPED_BYTES_AFTER_A_LARGE_BLOCK % (call, size)
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
        mapped.append(int(done.stdout))
    assert mapped[0] == 0
    assert mapped[1] >= 90 * size  # free places on the heap are used first
