import asyncio

import aiohttp
import msgspec
import pytest

from tests.server import scripted, serving
from vivavoce.api.pages import FOLDER, TYPES
from vivavoce.limits.keys import hash_of


def test_every_file_of_the_console_has_a_type() -> None:
    assert [path.name for path in FOLDER.iterdir() if path.suffix not in TYPES] == []


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/client.js", "text/javascript; charset=utf-8"),
        ("/console/client.js", "text/javascript; charset=utf-8"),
        ("/console/styles.css", "text/css; charset=utf-8"),
        ("/console/mark.svg", "image/svg+xml; charset=utf-8"),
    ],
)
def test_pages_need_no_key_and_are_fetched_again_only_when_they_changed(
    path: str, kind: str
) -> None:
    settings = msgspec.structs.replace(scripted(), keys={"me": hash_of("vv-key")})

    async def main() -> None:
        async with serving(settings) as server, aiohttp.ClientSession() as client:
            async with client.get(server.http + path) as answer:
                assert answer.status == 200
                assert answer.headers["Content-Type"] == kind
                assert answer.headers["Cache-Control"] == "no-cache"
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                assert "script-src 'self';" in answer.headers["Content-Security-Policy"]
                assert await answer.read()
                tag = answer.headers["ETag"]
            async with client.get(server.http + path, headers={"If-None-Match": tag}) as answer:
                assert answer.status == 304
            old = {"If-None-Match": '"of-yesterday"'}
            async with client.get(server.http + path, headers=old) as answer:
                assert answer.status == 200

    asyncio.run(main())


@pytest.mark.parametrize("name", ["no.js", "..%2Fsettings.py", "%2e%2e%2f%2e%2e%2fapp.py"])
def test_nothing_but_the_console_is_served(name: str) -> None:
    async def main() -> None:
        async with (
            serving() as server,
            aiohttp.ClientSession() as client,
            client.get(f"{server.http}/console/{name}") as answer,
        ):
            assert answer.status == 404
            assert (await answer.json())["error"]["message"]

    asyncio.run(main())


def test_the_pages_of_others_may_import_the_client() -> None:
    async def main() -> None:
        headers = {"Origin": "http://localhost:3000"}
        async with (
            serving() as server,
            aiohttp.ClientSession(headers=headers) as client,
            client.get(f"{server.http}/client.js") as answer,
        ):
            assert answer.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
            assert await answer.text() == 'export * from "./console/client.js";\n'

    asyncio.run(main())
