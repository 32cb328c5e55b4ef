"""Errors of the HTTP API: the route that an unknown path may have meant."""

import asyncio

import aiohttp
import pytest

from tests.server import serving
from vivavoce.api.http_errors import nearest_route

ROUTES = [
    ("GET", "/"),
    ("GET", "/health"),
    ("GET", "/docs"),
    ("GET", "/console/{name}"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{model}"),
    ("POST", "/v1/audio/speech"),
    ("POST", "/v1/audio/transcriptions"),
    ("GET", "/v1/audio/voices/{voice}/sample"),
    ("POST", "/v1/chat/completions"),
    ("GET", "/v1/realtime"),
    ("POST", "/v1/realtime"),
    ("POST", "/v1/realtime/sessions"),
    ("POST", "/v1/realtime/transcription_sessions"),
    ("POST", "/v1/realtime/calls"),
    ("POST", "/v1/realtime/calls/{call_id}/hangup"),
]


@pytest.mark.parametrize(
    ("method", "path", "route"),
    [
        ("POST", "/audio/speech", "/v1/audio/speech"),
        ("POST", "/speech", "/v1/audio/speech"),
        ("GET", "/audio/speech", "/v1/audio/speech"),
        ("POST", "/v1/v1/audio/speech", "/v1/audio/speech"),
        ("POST", "/api/v1/chat/completions", "/v1/chat/completions"),
        ("POST", "/v1/audio/transcription", "/v1/audio/transcriptions"),
        ("POST", "/v1/realtime/session", "/v1/realtime/sessions"),
        ("POST", "/realtime/session", "/v1/realtime/sessions"),
        ("GET", "/realtime", "/v1/realtime"),
        ("GET", "/models", "/v1/models"),
        ("GET", "/models/default", "/v1/models/{model}"),
        ("GET", "/v1/model/default", "/v1/models/{model}"),
        ("GET", "/audio/voices/alloy/sample", "/v1/audio/voices/{voice}/sample"),
        ("POST", "/realtime/calls/rtc_1/hangup", "/v1/realtime/calls/{call_id}/hangup"),
        ("GET", "/v1/health", "/health"),
        ("GET", "/v1/files/default", None),
        ("POST", "/v1/embeddings", None),
        ("GET", "/wp-admin/setup.php", None),
        ("GET", "//", None),
        ("GET", "/" + "v1/" * 1000 + "models", None),
    ],
)
def test_nearest_route_of_an_unknown_path_is_the_one_alike_or_none(
    method: str, path: str, route: str | None
) -> None:
    assert nearest_route(method, path, ROUTES) == route


@pytest.mark.parametrize(
    ("method", "path", "message"),
    [
        (
            "POST",
            "/audio/speech",
            "There is nothing at /audio/speech. Did you mean /v1/audio/speech?",
        ),
        (
            "POST",
            "/v1/realtime/session",
            "There is nothing at /v1/realtime/session. Did you mean /v1/realtime/sessions?",
        ),
        ("GET", "/v1/embeddings", "There is nothing at /v1/embeddings."),
        ("GET", "/console/lost.js", "There is nothing at /console/lost.js."),
    ],
)
def test_unknown_path_is_404_and_names_the_nearest_route(
    method: str, path: str, message: str
) -> None:
    async def main() -> None:
        async with (
            serving() as server,
            aiohttp.ClientSession() as client,
            client.request(method, server.http + path) as answer,
        ):
            error = {
                "message": message,
                "type": "invalid_request_error",
                "param": None,
                "code": "not_found",
            }
            assert (answer.status, await answer.json()) == (404, {"error": error})

    asyncio.run(main())
