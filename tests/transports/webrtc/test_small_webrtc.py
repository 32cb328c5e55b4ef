"""Calls that speak RTVI: offers of small-webrtc and of Voxray's clients, restarts, candidates."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import pytest

from tests.clients.browser_stage import KEY, behind_a_key
from tests.clients.loop import awaited
from tests.server import Server, scripted, serving
from tests.transports.webrtc.call_stage import Client, tone
from tests.transports.webrtc.caller import until

VIDEO = (
    "m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=mid:v\r\na=sendrecv\r\n"
    "a=rtpmap:96 VP8/90000\r\na=setup:actpass\r\n"
)
QUIET = bytes(48_000)


def rtvi(kind: str, data: Any = None, id_: str = "m1") -> dict[str, Any]:
    return {"label": "rtvi-ai", "type": kind, "id": id_, "data": data or {}}


async def post(
    server: Server, path: str, body: Any = None, method: str = "POST", **headers: str
) -> tuple[int, Any]:
    """Status and body of the answer; None where it has none."""
    async with (
        aiohttp.ClientSession() as http,
        http.request(method, server.http + path, json=body or {}, headers=headers) as reply,
    ):
        return reply.status, await reply.json() if await reply.read() else None


@asynccontextmanager
async def connected(
    server: Server, path: str = "/api/offer", **more: Any
) -> AsyncIterator[tuple[Client, str]]:
    """A client that is ready, and the pc_id of its call."""
    client = Client("chat")
    try:
        offer = {"sdp": await client.offer(), "type": "offer", "pc_id": None, "restart_pc": False}
        status, answer = await post(server, path, offer | more)
        assert status == 200, answer
        assert answer["type"] == "answer"
        await client.accept(answer["sdp"])
        await opened(client)
        await client.send(**rtvi("client-ready", {"version": "2.1.0"}, "r1"))
        ready = await client.until("bot-ready")
        assert ready["id"] == "r1"
        yield client, answer["pc_id"]
    finally:
        await client.connection.close()


async def opened(client: Client) -> None:
    await until(lambda: client.channel.readyState == "open")


@awaited
async def test_spoken_turn_of_a_call_is_told_on_the_data_channel() -> None:
    settings = scripted(
        stt={"transcripts": ["who is there"]}, llm={"answers": ["Nobody is. Go away now."]}
    )
    async with serving(settings) as server:
        async with connected(server) as (client, _):
            client.channel.send("ping: 1700000000000")
            client.channel.send('{"type":"signalling","message":{"type":"trackStatus"}}')
            client.speak(tone(0.5) + QUIET)
            await client.until("bot-stopped-speaking")
            outputs = [m["data"] for m in client.events if m["type"] == "bot-output"]
            assert [(o["text"], o["spoken_status"]) for o in outputs] == [
                ("Nobody is.", "new"),
                ("Nobody is.", "completed"),
                ("Go away now.", "new"),
                ("Go away now.", "completed"),
            ]
            assert "user-transcription" in client.types
            assert client.loud_ms > 0
            await client.send(**rtvi("disconnect-bot"))
            left = await client.until("signalling")
            assert left["message"] == {"type": "peerLeft"}
        await until(lambda: len(server.sessions) == 0)


@awaited
async def test_restart_of_the_connection_keeps_the_session() -> None:
    settings = scripted(llm={"answers": ["One more word. " * 60, "Short."]})
    async with serving(settings) as server, connected(server) as (client, pc_id):
        await client.send(**rtvi("send-text", {"content": "Talk."}))
        await client.until("bot-started-speaking")
        again = Client("chat")
        try:
            offer = {"sdp": await again.offer(), "pc_id": pc_id, "restart_pc": True}
            status, answer = await post(server, "/api/offer", offer)
            assert (status, answer["pc_id"]) == (200, pc_id)
            await again.accept(answer["sdp"])
            await opened(again)
            await client.connection.close()
            await until(lambda: again.loud_ms > 1000)  # the same answer goes on, some of it heard
            await again.send(**rtvi("send-text", {"content": "Stop."}))
            await again.until("bot-interrupted")
            await again.until("bot-stopped-speaking")
            assert len(server.sessions) == 1
            assert len(server.llm.requests[-1].items) == 3  # both texts, and the answer between
        finally:
            await again.connection.close()


@awaited
async def test_renegotiation_answers_the_same_connection_and_refuses_other_sections() -> None:
    async with serving(scripted()) as server, connected(server) as (client, pc_id):
        offer = {"sdp": await client.offer() + VIDEO, "pc_id": pc_id}
        status, answer = await post(server, "/api/offer", offer)
        assert (status, answer["pc_id"]) == (200, pc_id)
        assert "m=video 0 " in answer["sdp"]
        await client.send(**rtvi("send-text", {"content": "Hello."}))
        await client.until("bot-stopped-speaking")
        other = offer["sdp"].replace("a=mid:0", "a=mid:7").replace("BUNDLE 0", "BUNDLE 7")
        status, problem = await post(server, "/api/offer", {"sdp": other, "pc_id": pc_id})
        assert status == 400
        assert "restart_pc" in problem["detail"]


@awaited
async def test_candidates_are_added_or_ignored() -> None:
    async with serving(scripted()) as server, connected(server) as (client, pc_id):
        line = "candidate:1 1 udp 2122194687 127.0.0.1 9 typ host"
        candidates = [
            {"candidate": line, "sdp_mid": "0", "sdp_mline_index": 0},
            {"candidate": line.replace("9 typ", "10 typ"), "sdp_mline_index": 0},
            {"candidate": line, "sdp_mid": "9"},
            {"candidate": line, "sdp_mline_index": 9},
            {"candidate": line},
            {"candidate": "candidate:1 1 udp 1 999.0.0.1 9 typ host", "sdp_mid": "0"},
            {
                "candidate": "candidate:1 1 tcp 1 127.0.0.1 9 typ host tcptype active",
                "sdp_mid": "0",
            },
            {"candidate": "", "sdp_mid": "0"},
        ]
        body = {"pc_id": pc_id, "candidates": candidates}
        assert await post(server, "/api/offer", body, "PATCH") == (200, {"status": "success"})
        await client.send(**rtvi("send-text", {"content": "Hello."}))
        await client.until("bot-started-speaking")
        body = {"pc_id": "rtc_none", "candidates": []}
        status, problem = await post(server, "/api/offer", body, "PATCH")
        assert status == 404
        assert problem["detail"].startswith("There is nothing at")


@awaited
async def test_started_session_is_called_without_the_key_and_with_its_options() -> None:
    bearer = {"Authorization": f"Bearer {KEY}"}
    async with serving(behind_a_key()) as server:
        assert (await post(server, "/start"))[0] == 401
        body = {"transport": "webrtc", "body": {"language": "de"}}
        status, started = await post(server, "/start", body, **bearer)
        assert (status, set(started)) == (200, {"sessionId"})
        path = f"/sessions/{started['sessionId']}/api/offer"
        async with connected(server, path) as (client, pc_id):
            await client.send(**rtvi("client-message", {"t": "session.update", "d": {}}))
            session = (await client.until("server-response"))["data"]["d"]
            assert session["audio"]["input"]["transcription"]["language"] == "de"
            body = {"pc_id": pc_id, "candidates": []}
            assert (await post(server, path, body, "PATCH"))[0] == 200
            assert (await post(server, "/api/offer", body, "PATCH"))[0] == 401
        assert (await post(server, f"/sessions/{uuid.uuid4()}/api/offer"))[0] == 404
        assert (await post(server, "/sessions/7/api/offer"))[0] == 400


@awaited
async def test_settings_of_a_short_lived_key_are_those_of_the_call() -> None:
    async with serving(behind_a_key()) as server:
        session = {"session": {"type": "realtime", "instructions": "Be brief."}}
        bearer = {"Authorization": f"Bearer {KEY}"}
        _, secret = await post(server, "/v1/realtime/client_secrets", session, **bearer)
        async with connected(server, f"/api/offer?token={secret['value']}") as (client, _):
            await client.send(**rtvi("client-message", {"t": "session.update", "d": {}}))
            data = (await client.until("server-response"))["data"]["d"]
            assert data["instructions"] == "Be brief."
            assert data["audio"]["input"]["transcription"]


@pytest.mark.parametrize("path", ["/webrtc/offer", "/api/v1/webrtc/offer"])
@awaited
async def test_offer_in_the_form_of_voxray_is_answered_in_its_form(path: str) -> None:
    client = Client("chat")
    async with serving(scripted()) as server:
        try:
            description = {"type": "offer", "sdp": await client.offer()}
            body = {"offer": msgspec.json.encode(description).decode()}
            status, answer = await post(server, path, body)
            assert status == 200
            described = msgspec.json.decode(answer["data"]["answer"])
            assert described["type"] == "answer"
            await client.accept(described["sdp"])
            await opened(client)
        finally:
            await client.connection.close()


@pytest.mark.parametrize("wrapped", [True, False])
@awaited
async def test_session_offer_in_the_envelope_of_voxray_is_answered(wrapped: bool) -> None:
    client = Client("chat")
    async with serving(scripted()) as server:
        try:
            status, started = await post(server, "/api/v1/start", {})
            assert status == 201
            path = f"/api/v1/sessions/{started['data']['sessionId']}/offer"
            sdp = await client.offer()
            if wrapped:
                sdp = msgspec.json.encode({"type": "offer", "sdp": sdp}).decode()
            status, answer = await post(server, path, {"sdp": sdp, "type": "offer"})
            assert status == 200
            given = answer["data"]["answer"]
            await client.accept(msgspec.json.decode(given)["sdp"] if wrapped else given)
            await opened(client)
            body = {"pc_id": answer["data"]["pc_id"], "candidates": []}
            assert await post(server, path, body, "PATCH") == (204, None)
        finally:
            await client.connection.close()


@awaited
async def test_refusals_of_voxrays_paths_are_in_its_envelope() -> None:
    async with serving(scripted()) as server:
        status, body = await post(server, "/webrtc/offer", X_Request_ID="")
        assert (status, body["error"]["code"]) == (422, "VALIDATION_ERROR")
        status, body = await post(server, f"/api/v1/sessions/{uuid.uuid4()}/offer")
        assert (status, body["error"]["code"]) == (404, "NOT_FOUND")
        status, body = await post(server, "/api/v1/start", {"transport": "livekit"})
        assert (status, body["error"]["code"]) == (400, "BAD_REQUEST")
        assert "'websocket' or 'webrtc'" in body["error"]["message"]
        assert body["error"]["requestId"]
