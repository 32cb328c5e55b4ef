"""POST /start and /connect, and the sessions that they promise."""

import uuid
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests import idle_clock
from tests.clients.browser_stage import KEY, behind_a_key
from tests.server import scripted, serving
from vivavoce.api.start import MAX_STARTED, SESSION_SECONDS, PromisedSessions
from vivavoce.errors import InvalidRequest
from vivavoce.protocol.wire import Opening
from vivavoce.runtime.places import Place
from vivavoce.transports.webrtc.settings import WebRTCSettings


def started(
    path: str,
    body: dict[str, Any] | None = None,
    *,
    key: str = "",
    webrtc: WebRTCSettings | None = None,
    **headers: str,
) -> tuple[int, dict[str, Any], str]:
    """Status, body, and the server's host and port. key: where the server needs one."""

    async def main() -> tuple[int, dict[str, Any], str]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        settings = scripted()
        if key:
            named["Authorization"], settings = f"Bearer {key}", behind_a_key()
        async with (
            serving(settings, webrtc=webrtc) as server,
            aiohttp.ClientSession() as http,
            http.post(server.http + path, json=body or {}, headers=named) as reply,
        ):
            return reply.status, await reply.json(), f"127.0.0.1:{server.port}"

    return idle_clock.run(main())


def test_start_for_a_websocket_answers_its_address_alone() -> None:
    status, body, host = started("/start", {"transport": "websocket"})
    assert (status, body) == (200, {"wsUrl": f"ws://{host}/ws?rtvi=1"})


def test_start_for_a_websocket_gives_a_short_lived_key_where_one_is_needed() -> None:
    asked = {"transport": "websocket", "body": {"model": "default", "voice": "ash", "other": 1}}
    status, body, host = started("/start", asked, key=KEY, X_Forwarded_Proto="https")
    assert status == 200
    assert set(body) == {"wsUrl", "token"}
    assert body["wsUrl"] == f"wss://{host}/ws?rtvi=1&model=default&voice=ash"
    assert body["token"].startswith("ek_")


def test_connect_answers_the_address_of_a_websocket_with_its_key() -> None:
    status, body, host = started("/connect", key=KEY)
    assert status == 200
    assert set(body) == {"ws_url"}
    assert body["ws_url"].startswith(f"ws://{host}/ws?rtvi=1&token=ek_")


def test_connect_for_webrtc_answers_the_address_for_offers() -> None:
    _, body, host = started("/connect?transport=webrtc")
    address = body["webrtc_url"]
    assert address.startswith(f"http://{host}/sessions/")
    assert address.endswith("/api/offer")


def test_start_gives_ice_servers_with_the_credentials_of_turn() -> None:
    webrtc = WebRTCSettings(
        ice_servers=("stun:a.example:3478", "turn:b.example:3478"),
        turn_username="me",
        turn_password="secret",
    )
    _, body, _ = started("/start", {"enableDefaultIceServers": True}, webrtc=webrtc)
    uuid.UUID(body["sessionId"])
    turn = {"urls": "turn:b.example:3478", "username": "me", "credential": "secret"}
    assert body["iceConfig"] == {"iceServers": [{"urls": "stun:a.example:3478"}, turn]}


@pytest.mark.parametrize("body", [{"transport": "livekit"}, {"createDailyRoom": True}])
def test_transport_that_is_not_served_is_refused_with_a_sentence_that_clients_show(
    body: dict[str, Any],
) -> None:
    status, problem, _ = started("/start", body)
    assert status == 400
    assert problem["detail"].endswith("is not served. Use 'websocket' or 'webrtc'.")
    assert problem["error"]["message"] == problem["detail"]


def test_promised_session_is_the_same_for_the_same_key_of_idempotency() -> None:
    async def main() -> None:
        now = [0.0]
        sessions = PromisedSessions(lambda: now[0])
        opening = Opening(who="me")
        first = await sessions.add(opening, {"voice": "ash"}, ("me", "k1"))
        assert await sessions.add(opening, {}, ("me", "k1")) == first
        assert await sessions.add(opening, {}, ("you", "k1")) != first
        assert sessions.find(first) == (opening, {"voice": "ash"})
        now[0] = SESSION_SECONDS + 1
        with pytest.raises(web.HTTPNotFound):
            sessions.find(first)
        assert await sessions.add(opening, {}, ("me", "k1")) != first

    idle_clock.run(main())


def test_promised_session_is_that_of_the_process_which_promised_it_first() -> None:
    async def main() -> None:
        given: dict[str, str] = {}

        async def first(key: str, session_id: str, _seconds: float) -> str:
            return given.setdefault(key, session_id)

        here = PromisedSessions(lambda: 0.0, Place("", 1), first)
        there = PromisedSessions(lambda: 0.0, Place("", 2), first)
        promised = await here.add(Opening(), {}, ("me", "k1"))
        assert await there.add(Opening(), {}, ("me", "k1")) == promised
        assert await there.add(Opening(), {}, ("me", "k2")) != promised
        assert here.find(promised) == (Opening(), {})
        with pytest.raises(web.HTTPNotFound):
            there.find(promised)

    idle_clock.run(main())


def test_promised_sessions_forget_the_oldest_beyond_their_number() -> None:
    async def main() -> None:
        sessions = PromisedSessions(lambda: 0.0)
        ids = [await sessions.add(Opening(), {}, None) for _ in range(MAX_STARTED + 1)]
        with pytest.raises(web.HTTPNotFound):
            sessions.find(ids[0])
        assert sessions.find(ids[1])[1] == {}
        with pytest.raises(InvalidRequest, match="UUID"):
            sessions.find("7")

    idle_clock.run(main())
