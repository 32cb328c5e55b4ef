"""Errors of the machine and of the body of a request have a status and OpenAI's shape."""

import errno
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests import idle_clock
from tests.server import HOST, scripted, serving
from vivavoce.api.auth import Auth
from vivavoce.errors import StorageFull, StoreError
from vivavoce.limits.keys import KeyRing
from vivavoce.limits.tokens import TokenMint
from vivavoce.secret import Secret


def answer_of_failing_handler(exc: Exception) -> tuple[int, str | None, dict[str, Any]]:
    """Status, Retry-After and error of a request whose handler raises that."""

    async def fail(_: web.Request) -> web.Response:
        raise exc

    async def main() -> tuple[int, str | None, dict[str, Any]]:
        app = web.Application()
        Auth(KeyRing({}), TokenMint(Secret("s"))).add_to(app)
        app.router.add_get("/", fail)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, HOST, 0).start()
            async with (
                aiohttp.ClientSession() as http,
                http.get(f"http://{HOST}:{runner.addresses[0][1]}/") as response,
            ):
                error = (await response.json())["error"]
                return response.status, response.headers.get("Retry-After"), error
        finally:
            await runner.cleanup()

    return idle_clock.run(main())


@pytest.mark.parametrize(
    ("exc", "status", "retry", "code"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 507, None, "insufficient_storage"),
        (OSError(errno.EDQUOT, "Quota exceeded"), 507, None, "insufficient_storage"),
        (StorageFull("the disk of /var/lib is full"), 507, None, "insufficient_storage"),
        (OSError(errno.EMFILE, "Too many open files"), 503, "5", "server_is_overloaded"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), 503, "5", "server_is_overloaded"),
        (MemoryError(), 503, "5", "server_is_overloaded"),
        (OSError(errno.EACCES, "Permission denied"), 500, None, None),
        (RuntimeError("a bug"), 500, None, None),
    ],
)
def test_failure_of_the_machine_has_its_status(
    exc: Exception, status: int, retry: str | None, code: str | None
) -> None:
    found, after, error = answer_of_failing_handler(exc)
    assert (found, after) == (status, retry)
    assert (error["type"], error["code"]) == ("server_error", code)
    assert str(exc) not in error["message"] or not str(exc)


def test_store_error_is_logged_and_its_place_is_hidden_from_the_client(
    caplog: pytest.LogCaptureFixture,
) -> None:
    place = "redis://10.0.0.9:6379/0 refuses connections"
    status, after, error = answer_of_failing_handler(StoreError(place))
    assert (status, after, error["code"]) == (503, "5", "store_unavailable")
    assert (
        error["message"]
        == "The store of this server cannot be reached. Try again in a few seconds."
    )
    assert place in caplog.text


@pytest.mark.parametrize(
    ("exc", "code", "message"),
    [
        (web.HTTPNotFound(), "not_found", "There is nothing at /."),
        (web.HTTPNotFound(text="There is no call 'x'."), "not_found", "There is no call 'x'."),
        (web.HTTPForbidden(text="Not from there."), None, "Not from there."),
        (web.HTTPForbidden(), None, "Forbidden"),
        (web.HTTPRequestEntityTooLarge(1, 2), "request_too_large", "The request is too large."),
    ],
)
def test_http_error_with_a_text_of_its_own_shows_it(
    exc: web.HTTPException, code: str | None, message: str
) -> None:
    status, _, error = answer_of_failing_handler(exc)
    assert (status, error["code"], error["message"]) == (exc.status, code, message)


@pytest.mark.parametrize(
    "path", ["/v1/realtime/client_secrets", "/v1/chat/completions", "/v1/audio/speech"]
)
def test_body_with_broken_content_encoding_is_400(path: str) -> None:
    async def main() -> tuple[int, dict[str, Any]]:
        async with (
            serving(scripted()) as server,
            aiohttp.ClientSession() as http,
            http.post(
                server.http + path, data=b"{}" * 50, headers={"Content-Encoding": "gzip"}
            ) as response,
        ):
            return response.status, (await response.json())["error"]

    status, error = idle_clock.run(main())
    assert (status, error["type"]) == (400, "invalid_request_error")
