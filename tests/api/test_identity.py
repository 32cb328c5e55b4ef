"""The name of the API key reaches the session, however the session is opened."""

from dataclasses import replace

import aiohttp
import msgspec
import openai
import pytest

from tests import idle_clock
from tests.server import HOST, scripted
from vivavoce.app import build
from vivavoce.limits.keys import hash_of
from vivavoce.protocol.session import SessionObject
from vivavoce.routes import application, auth_of
from vivavoce.runtime.parts import Observer
from vivavoce.runtime.sessions import Sessions
from vivavoce.server import serve_app

KEY = "vv-a-key"


@pytest.mark.parametrize(
    ("keys", "short_lived", "who"),
    [
        ({"ada": hash_of(KEY)}, False, "ada"),
        ({"ada": hash_of(KEY)}, True, "ada"),
        ({}, False, ""),
    ],
)
def test_session_has_the_name_of_its_key(keys: dict[str, str], short_lived: bool, who: str) -> None:
    found: list[str] = []

    class Nothing:
        def on(self, *_: object) -> None: ...

    def observe(_: SessionObject, name: str) -> Observer:
        found.append(name)
        return Nothing()

    async def main() -> None:
        settings = msgspec.structs.replace(scripted(), keys=keys)
        local = msgspec.structs.replace(settings.server, host=HOST, port=0)
        async with build(settings, local_servers=()) as built:
            sessions = Sessions(replace(built.context, observers=(observe,)))
            async with (
                serve_app(application(sessions, auth_of(settings)), local) as port,
                openai.AsyncOpenAI(api_key=KEY, base_url=f"http://{HOST}:{port}/v1") as client,
            ):
                key = KEY
                if short_lived:
                    key = (await client.realtime.client_secrets.create()).value
                async with (
                    aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as http,
                    http.ws_connect(f"ws://{HOST}:{port}/v1/realtime") as socket,
                ):
                    assert (await socket.receive_json())["type"] == "session.created"
                await sessions.drain(0)

    idle_clock.run(main())
    assert found == [who]
