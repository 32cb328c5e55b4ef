"""Short-lived keys, made and used with the official client."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import openai
import pytest

from tests import idle_clock
from tests.server import Server, scripted, serving
from vivavoce.limits.keys import hash_of
from vivavoce.limits.tokens import Grant, TokenMint
from vivavoce.secret import Secret

KEY = "vv-a key"
SESSION: dict[str, Any] = {
    "type": "realtime",
    "instructions": "Be brief.",
    "audio": {"output": {"voice": "cedar"}},
}


@asynccontextmanager
async def locked(**server: object) -> AsyncIterator[Server]:
    """A server that one key opens."""
    settings = scripted(server={"secret": "s3cret", **server})
    settings = msgspec.structs.replace(settings, keys={"ada": hash_of(KEY)})
    async with serving(settings) as running:
        yield running


def client(server: Server, key: str = KEY) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key=key, base_url=f"{server.http}/v1", max_retries=0)


async def first_session(server: Server, key: str) -> Any:
    async with (
        client(server, key) as openai_client,
        openai_client.realtime.connect(model="gpt-realtime") as connection,
    ):
        event = await connection.recv()
        assert event.type == "session.created"
        return event.session


async def turned_away(server: Server, **headers: str) -> tuple[str, int, str]:
    """The error's code, the close code and its reason."""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{server.ws}/v1/realtime?model=m", headers=headers) as socket,
    ):
        error = msgspec.json.decode(await socket.receive_str())
        closing = await socket.receive()
        return error["error"]["code"], closing.data, str(closing.extra)


def test_short_lived_key_opens_the_session_it_was_made_for() -> None:
    async def main() -> None:
        async with locked() as server, client(server) as ada:
            made = await ada.realtime.client_secrets.create(session=SESSION)  # type: ignore[arg-type]
            assert made.value.startswith("ek_")
            assert made.session.type == "realtime"
            assert made.session.instructions == "Be brief."
            for _ in range(2):  # it may open several
                session = await first_session(server, made.value)
                assert session.instructions == "Be brief."
                assert session.audio.output.voice == "cedar"

    idle_clock.run(main())


def test_short_lived_key_expires_after_ten_minutes_by_default() -> None:
    async def main() -> None:
        async with locked() as server, client(server) as ada:
            secrets = ada.realtime.client_secrets
            usual = await secrets.create()
            short = await secrets.create(expires_after={"anchor": "created_at", "seconds": 10})
            assert 589 <= usual.expires_at - short.expires_at <= 590 + 1
            for seconds in (9, 7201):
                with pytest.raises(openai.BadRequestError) as caught:
                    await secrets.create(expires_after={"seconds": seconds})
                assert caught.value.body == {
                    "message": caught.value.body["message"],  # type: ignore[index]
                    "type": "invalid_request_error",
                    "param": "expires_after.seconds",
                    "code": caught.value.body["code"],  # type: ignore[index]
                }

    idle_clock.run(main())


def test_short_lived_key_opens_a_transcription_session() -> None:
    async def main() -> None:
        async with locked() as server, client(server) as ada:
            made = await ada.realtime.client_secrets.create(
                session={
                    "type": "transcription",
                    "audio": {"input": {"transcription": {"model": "whisper-1"}}},
                }
            )
            assert (await first_session(server, made.value)).type == "transcription"

    idle_clock.run(main())


def test_token_of_a_page_needs_a_key_and_opens_a_session() -> None:
    async def main() -> None:
        async with locked() as server, aiohttp.ClientSession() as http:
            url = f"{server.http}/api/realtime/token"
            assert (await http.get(url)).status == 401
            reply = await http.get(url, headers={"Authorization": f"Bearer {KEY}"})
            body = await reply.json()
            assert reply.headers["Cache-Control"] == "no-store"
            assert body["token"] == body["client_secret"]["value"]
            assert body["token"].startswith("ek_")
            assert (await first_session(server, body["token"])).type == "realtime"

    idle_clock.run(main())


def test_beta_paths_return_the_session_with_its_key() -> None:
    async def main() -> None:
        async with locked() as server, client(server) as ada:
            beta = ada.beta.realtime
            made = await beta.sessions.create(model="gpt-4o-realtime-preview", voice="ash")
            assert made.voice == "ash"
            assert made.client_secret.value.startswith("ek_")
            assert (await first_session(server, made.client_secret.value)).audio.output.voice == (
                "ash"
            )
            written = await beta.transcription_sessions.create(
                input_audio_transcription={"model": "whisper-1", "language": "en"}
            )
            assert written.client_secret.value.startswith("ek_")
            session = await first_session(server, written.client_secret.value)
            assert session.audio.input.transcription.language == "en"

    idle_clock.run(main())


def test_short_lived_key_is_refused_by_other_routes() -> None:
    async def main() -> None:
        async with locked() as server, client(server) as ada:
            made = await ada.realtime.client_secrets.create()
            async with client(server, made.value) as browser:
                with pytest.raises(openai.AuthenticationError):
                    await browser.realtime.client_secrets.create()

    idle_clock.run(main())


def test_websocket_without_valid_key_gets_an_error_and_close_3000() -> None:
    expired = TokenMint(Secret("s3cret")).issue(Grant(id="x", expires_at=1)).reveal()
    forged = TokenMint(Secret("other")).issue(Grant(id="x", expires_at=2**33)).reveal()

    async def main() -> None:
        async with locked() as server:
            refusal = ("invalid_api_key", 3000, "invalid_request_error.invalid_api_key")
            assert await turned_away(server) == refusal
            for key in ("wrong", expired, forged):
                assert await turned_away(server, Authorization=f"Bearer {key}") == refusal
            protocols = f"realtime, openai-insecure-api-key.{expired}"
            assert await turned_away(server, **{"Sec-WebSocket-Protocol": protocols}) == refusal

    idle_clock.run(main())


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("", {"Authorization": f"Bearer {KEY}"}),
        ("", {"X-API-Key": KEY}),
        ("?api_key=vv-a%20key", {}),
    ],
)
def test_key_is_accepted_in_every_place(query: str, headers: dict[str, str]) -> None:
    async def main() -> int:
        async with locked() as server, aiohttp.ClientSession() as session:
            url = f"{server.http}/v1/realtime/client_secrets{query}"
            async with session.post(url, headers=headers) as response:
                return response.status

    assert idle_clock.run(main()) == 200
