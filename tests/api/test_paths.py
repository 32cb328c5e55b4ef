"""Doubled and trailing slashes and Azure's addresses are served as the paths they stand for."""

import aiohttp
import msgspec
import pytest
from yarl import URL

from tests import idle_clock
from tests.server import scripted, serving
from vivavoce.api.paths import canonical
from vivavoce.limits.keys import hash_of

VERSION = "api-version=2024-10-01-preview"


@pytest.mark.parametrize(
    ("asked", "served"),
    [
        ("/", "/"),
        ("/v1/models", "/v1/models"),
        ("//", "/"),
        ("//v1///models//", "/v1/models"),
        ("/v1/models/?limit=1//", "/v1/models?limit=1//"),
        ("/v1/models/a%2Fb%20c", "/v1/models/a%2Fb%20c"),
        ("/openai/v1/models", "/v1/models"),
        ("/openai//v1/chat/completions/", "/v1/chat/completions"),
        ("/openai/v1/realtime?model=m", "/v1/realtime?model=m"),
        (
            f"/openai/realtime?deployment=d&{VERSION}",
            f"/v1/realtime?model=d&deployment=d&{VERSION}",
        ),
        ("/openai/realtime?deployment=d&model=m", "/v1/realtime?deployment=d&model=m"),
        ("/v1/realtime?deployment=d", "/v1/realtime?deployment=d&model=d"),
        ("/openai/realtimeapi/sessions?x=1", "/v1/realtime/sessions?x=1"),
        ("/v1/realtimertc?model=m", "/v1/realtime?model=m"),
        ("/openai/deployments/w%201/audio/speech?x=1", "/v1/audio/speech?x=1&model=w+1"),
        ("/openai/deployments/w/audio/transcriptions", "/v1/audio/transcriptions?model=w"),
        ("/openai/deployments/w/chat/completions", "/v1/chat/completions?model=w"),
        ("/openai/deployments/w/models", "/openai/deployments/w/models"),
        ("/openai/models", "/v1/models"),
        ("/openai/v2/models", "/openai/v2/models"),
    ],
)
def test_path_is_rewritten_to_the_one_that_is_served(asked: str, served: str) -> None:
    url = URL.build(path=asked.partition("?")[0], encoded=True)
    if "?" in asked:
        url = URL.build(
            path=asked.partition("?")[0], query_string=asked.partition("?")[2], encoded=True
        )
    found = canonical(url)
    assert (found.raw_path, dict(found.query)) == (URL(served).raw_path, dict(URL(served).query))
    assert canonical(found) == found


async def statuses(*requests: tuple[str, str], **headers: str) -> list[int]:
    """The status of each request, a method and a path, to a server with the key `k`."""
    settings = msgspec.structs.replace(scripted(), keys={"ada": hash_of("k")})
    found = []
    async with (
        serving(settings) as server,
        aiohttp.ClientSession(headers={"api-key": "k", **headers}) as http,
    ):
        for method, path in requests:
            url = URL(server.http + path, encoded=True)
            body = {"input": "hi", "messages": [{"role": "user", "content": "hi"}]}
            json = body if method == "POST" and "secrets" not in path else None
            async with http.request(method, url, json=json) as response:
                found.append(response.status)
    return found


def test_doubled_and_trailing_slashes_are_served_for_every_method() -> None:
    requests = (
        ("GET", "/v1//models"),
        ("GET", "/v1/models/"),
        ("HEAD", "//v1/models"),
        ("POST", "/v1//realtime/client_secrets"),
        ("POST", "/v1//audio/speech/"),
        ("POST", "/v1//chat//completions"),
    )
    assert idle_clock.run(statuses(*requests)) == [200] * len(requests)


def test_addresses_of_azure_are_served_with_its_key_header() -> None:
    requests = (
        ("GET", "/openai/v1/models"),
        ("POST", "/openai/v1/chat/completions"),
        ("POST", f"/openai/deployments/gpt-4o/chat/completions?{VERSION}"),
        ("POST", f"/openai/deployments/tts/audio/speech?{VERSION}"),
    )
    assert idle_clock.run(statuses(*requests)) == [200] * len(requests)
    assert idle_clock.run(statuses(*requests, **{"api-key": "wrong"})) == [401] * len(requests)


@pytest.mark.parametrize(
    "path",
    [
        "/v1//realtime?model=m",
        "/openai/v1/realtime?model=m",
        "/openai/realtime/?deployment=gpt-4o&api-version=2025-04-01",
    ],
)
def test_websocket_is_served_under_its_other_addresses(path: str) -> None:
    async def main() -> str:
        async with (
            serving(scripted()) as server,
            aiohttp.ClientSession() as http,
            http.ws_connect(URL(server.ws + path, encoded=True)) as socket,
        ):
            event = await socket.receive_json()
            return str(event["type"])

    assert idle_clock.run(main()) == "session.created"


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/models", ". Did you mean /v1/models?"),
        ("/api/v1/models", ". Did you mean /v1/models?"),
        ("/v2/realtime", ". Did you mean /v1/realtime?"),
        ("/v1/nothing", "."),
    ],
)
def test_404_names_the_path_that_exists(path: str, hint: str) -> None:
    async def main() -> str:
        async with (
            serving(scripted()) as server,
            aiohttp.ClientSession() as http,
            http.get(server.http + path) as response,
        ):
            assert response.status == 404
            return str((await response.json())["error"]["message"])

    assert idle_clock.run(main()).startswith(f"There is nothing at {path}{hint}")


def test_deployment_is_the_model_of_a_chat_whose_body_names_none() -> None:
    async def main() -> str:
        async with serving(scripted()) as server, aiohttp.ClientSession() as http:
            url = f"{server.http}/openai/deployments/gpt-4o/chat/completions?{VERSION}"
            body = {"messages": [{"role": "user", "content": "Hello."}]}
            async with http.post(url, json=body) as answer:
                return str((await answer.json())["model"])

    assert idle_clock.run(main()) == "gpt-4o"
