"""Calls over WebRTC with a plain client, in real time."""

import asyncio
import gc
import json
import random
import socket
import threading
import weakref
from contextlib import AbstractAsyncContextManager
from typing import Any

import aiohttp
import pytest

from tests import idle_clock
from tests.server import HOST, Server, scripted, serving
from tests.transports.webrtc.call_stage import Client, in_call, tone
from tests.transports.webrtc.caller import calling, until
from vivavoce.session.shell import Session
from vivavoce.transports.webrtc.settings import WebRTCSettings

ANSWER = "one two three four five six seven eight nine ten eleven"
SDP = {"Content-Type": "application/sdp"}
PORTS = "22000-22099"  # not among those that the system gives to others


def call_server(**reach: Any) -> AbstractAsyncContextManager[Server]:
    settings = scripted(
        llm={"answers": [ANSWER]}, tts={"ms_per_character": 40, "realtime_factor": 0.5}
    )
    return serving(settings, webrtc=WebRTCSettings(**reach))


async def post(server: Server, path: str, **request: Any) -> tuple[int, Any, Any]:
    async with aiohttp.ClientSession() as http, http.post(server.http + path, **request) as reply:
        body = await (reply.json() if "json" in reply.content_type else reply.text())
        return reply.status, body, reply.headers


def lossy(client: Client, share: float) -> None:
    """Lose that share of the audio packets, both ways."""
    assert client.connection.sctp is not None
    ice: Any = client.connection.sctp.transport.transport
    send, recv, chance = ice._send, ice._recv, random.Random(1)

    def is_audio(packet: bytes) -> bool:
        return 128 <= packet[0] < 192

    async def lossy_send(packet: bytes) -> None:
        if not is_audio(packet) or chance.random() >= share:
            await send(packet)

    async def lossy_recv() -> bytes:
        packet: bytes = await recv()
        while is_audio(packet) and chance.random() < share:
            packet = await recv()
        return packet

    ice._send, ice._recv = lossy_send, lossy_recv


def bound(ports: range) -> list[int]:
    """Those of the ports that are in use."""
    taken = []
    for port in ports:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                taken.append(port)
    return taken


def test_answer_is_heard_and_its_playback_reported() -> None:
    async def main() -> None:
        async with call_server() as server, in_call(server) as client:
            await client.ask()
            await client.until("output_audio_buffer.started")
            response = (await client.until("response.done"))["response"]
            assert response["status"] == "completed"
            stopped = await client.until("output_audio_buffer.stopped")
            assert stopped["response_id"] == response["id"]
            await until(lambda: client.loud_ms > len(ANSWER) * 40 - 100)
            assert client.loud_ms < len(ANSWER) * 40 + 40
            assert client.types[0] == "session.created"
            assert "response.output_audio.delta" not in client.types
            order = [
                client.types.index(kind)
                for kind in (
                    "response.content_part.added",
                    "output_audio_buffer.started",
                    "response.output_audio_transcript.delta",
                    "response.done",
                    "output_audio_buffer.stopped",
                )
            ]
            assert order == sorted(order)

    idle_clock.run(main())


def test_interruption_truncates_the_answer_to_what_was_played() -> None:
    async def main() -> None:
        async with call_server() as server, in_call(server, label="anything") as client:
            client.speak(tone(0.3))
            await client.until("input_audio_buffer.speech_started")
            await client.until("input_audio_buffer.committed")
            await client.until("output_audio_buffer.started")
            await until(lambda: client.loud_ms > 300)
            client.speak(tone(0.3))
            await client.until("input_audio_buffer.speech_started")
            cleared = await client.until("output_audio_buffer.cleared")
            truncated = await client.until("conversation.item.truncated")
            response = (await client.until("response.done"))["response"]
            assert cleared["response_id"] == response["id"]
            assert response["status_details"]["reason"] == "turn_detected"
            assert truncated["item_id"] == response["output"][0]["id"]
            await client.until("input_audio_buffer.speech_stopped")
            assert abs(client.loud_ms - truncated["audio_end_ms"]) <= 40
            assert truncated["audio_end_ms"] < len(ANSWER) * 40

    idle_clock.run(main())


def test_output_audio_buffer_clear_stops_playback() -> None:
    async def main() -> None:
        async with call_server() as server, in_call(server) as client:
            await client.ask()
            await client.until("response.done")
            await until(lambda: client.loud_ms > 200)
            await client.send(type="response.cancel")
            await client.send(type="output_audio_buffer.clear")
            await client.until("error")
            await client.until("output_audio_buffer.cleared")
            truncated = await client.until("conversation.item.truncated")
            await client.send(
                type="conversation.item.retrieve", item_id=truncated["item_id"], event_id="mine"
            )
            part = (await client.until("conversation.item.retrieved"))["item"]["content"][0]
            assert part["transcript"] in ANSWER
            assert 200 <= truncated["audio_end_ms"] < len(ANSWER) * 40

    idle_clock.run(main())


def test_call_with_five_percent_packet_loss_is_answered() -> None:
    async def main() -> None:
        async with call_server() as server, in_call(server) as client:
            lossy(client, 0.05)
            client.speak(tone(1.0))
            await client.until("input_audio_buffer.speech_started")
            await client.until("input_audio_buffer.speech_stopped")
            await client.until("output_audio_buffer.stopped")
            await until(lambda: client.loud_ms > 0.7 * len(ANSWER) * 40)

    idle_clock.run(main())


def test_ended_call_gives_back_tasks_and_ports() -> None:
    async def main() -> None:
        async with call_server(udp_ports=PORTS) as server:
            before = asyncio.all_tasks()
            async with in_call(server) as client:
                assert bound(range(22000, 22100)) != []
                headers = {"Content-Type": "application/json"}
                status, body, _ = await post(server, client.location + "/hangup", headers=headers)
                assert (status, body) == (200, "")
                await until(lambda: client.connection.connectionState == "closed")
                status, problem, _ = await post(server, client.location + "/hangup")
                assert (status, problem["error"]["code"]) == (404, "not_found")
            await until(lambda: len(server.sessions) == 0)
            async with in_call(server) as client:
                assert len(server.sessions) == 1
            await until(lambda: len(server.sessions) == 0)
            await until(lambda: asyncio.all_tasks() <= before)
            await until(lambda: bound(range(22000, 22100)) == [])

    idle_clock.run(main())


def test_fifty_calls_give_back_tasks_ports_and_threads() -> None:
    async def main() -> None:
        async with call_server(udp_ports=PORTS) as server:
            before, threads = asyncio.all_tasks(), threading.active_count()
            for _ in range(5):
                calls = [in_call(server) for _ in range(10)]
                async with asyncio.TaskGroup() as group:
                    for call in calls:
                        group.create_task(call.__aenter__())
                assert len(server.sessions) == 10
                async with asyncio.TaskGroup() as group:
                    for call in calls:
                        group.create_task(call.__aexit__(None, None, None))
            await until(lambda: len(server.sessions) == 0)
            await until(lambda: asyncio.all_tasks() <= before)
            await until(lambda: bound(range(22000, 22100)) == [])
            assert threading.active_count() <= threads + 8  # the loop's own pool, and no more

    idle_clock.run(main())


def test_client_that_goes_silent_ends_the_call() -> None:
    async def main() -> None:
        async with call_server(gone_seconds=1.0) as server, in_call(server) as client:
            assert len(server.sessions) == 1
            lossy(client, 1.0)
            ice: Any = client.connection.sctp
            ice.transport.transport._connection._nominated.clear()
            await until(lambda: len(server.sessions) == 0)

    idle_clock.run(main())


def test_client_that_never_connects_ends_the_call() -> None:
    async def main() -> None:
        async with call_server(gone_seconds=0.2) as server:
            client = Client()
            status, _, _ = await post(
                server, "/v1/realtime/calls", data=await client.offer(), headers=SDP
            )
            assert (status, len(server.sessions)) == (201, 1)
            await until(lambda: len(server.sessions) == 0)
            await client.connection.close()

    idle_clock.run(main())


def test_sideband_receives_every_event_and_may_send() -> None:
    async def main() -> None:
        async with call_server() as server, in_call(server) as client:
            call_id = client.location.rpartition("/")[2]
            async with calling(server, f"/v1/realtime?call_id={call_id}") as listener:
                assert listener.events[0]["session"] == client.events[0]["session"]
                await listener.ask()
                there = await client.until("response.done")
                here = await listener.until("response.done")
                assert here == there
                await client.send(type="input_audio_buffer.clear")
                await listener.until("input_audio_buffer.cleared")
            await client.send(type="input_audio_buffer.clear")
            await client.until("input_audio_buffer.cleared")
            async with calling(server, f"/v1/realtime?call_id={call_id}") as listener:
                await post(server, client.location + "/hangup")
                assert (await listener.read_until_closed())[1] == "the call was hung up"

    idle_clock.run(main())


def test_sideband_of_an_unknown_call_is_refused() -> None:
    async def main() -> None:
        async with call_server() as server:
            with pytest.raises(aiohttp.WSServerHandshakeError, match="404"):
                async with calling(server, "/v1/realtime?call_id=rtc_unknown"):
                    pass

    idle_clock.run(main())


def test_call_without_a_free_port_is_refused() -> None:
    async def main() -> None:
        async with call_server(
            udp_ports="22100-22100", announce_address=("203.0.113.7",)
        ) as server:
            first, second = Client(), Client()
            status, answer, _ = await post(
                server, "/v1/realtime/calls", data=await first.offer(), headers=SDP
            )
            assert status == 201
            assert " 203.0.113.7 22100 typ host" in answer
            status, problem, _ = await post(
                server, "/v1/realtime/calls", data=await second.offer(), headers=SDP
            )
            assert (status, problem["error"]["code"]) == (503, "server_is_overloaded")
            assert len(server.sessions) == 1
            await first.connection.close()
            await second.connection.close()

    idle_clock.run(main())


def test_call_is_made_by_every_form_in_use() -> None:
    async def main() -> None:
        client = Client()
        offer = await client.offer()
        session = b'{"type": "realtime", "model": "gpt-realtime", "instructions": "Be brief."}'
        async with call_server() as server:
            for path, request in (
                ("/v1/realtime/calls?model=gpt-realtime", {"data": offer, "headers": SDP}),
                ("/v1/realtime?model=gpt-realtime", {"data": offer, "headers": SDP}),
                ("/v1/realtime", {"data": _form(offer, session, typed=False)}),
                ("/v1/realtime/calls", {"data": _form(offer, session, typed=True)}),
                ("/v1/realtime/calls", {"data": _form(offer, session, typed=False)}),
                ("/v1/realtime/calls", {"data": {"sdp": offer, "session": session.decode()}}),
            ):
                sent: Any = request.pop("headers", {})
                origin = {"Origin": "http://localhost:3000", **sent}
                status, answer, headers = await post(server, path, headers=origin, **request)
                assert status == 201, answer
                assert "Location" in headers["Access-Control-Expose-Headers"]
                assert headers["Access-Control-Allow-Origin"] in ("*", origin["Origin"])
                assert headers["Content-Type"].startswith("application/sdp")
                assert headers["Location"].startswith("/v1/realtime/calls/rtc_")
                assert "a=msid:" in answer
                assert answer.count("opus/48000") == 1
                call_id = headers["Location"].rpartition("/")[2]
                async with calling(server, f"/v1/realtime?call_id={call_id}") as listener:
                    instructions = listener.events[0]["session"]["instructions"]
                    assert (instructions == "Be brief.") is (
                        "session" in str(request["data"])
                        or isinstance(request["data"], aiohttp.FormData)
                    )
        await client.connection.close()

    idle_clock.run(main())


def _form(offer: str, session: bytes, *, typed: bool) -> aiohttp.FormData:
    form = aiohttp.FormData(default_to_multipart=True)
    form.add_field("sdp", offer, content_type="application/sdp" if typed else None)
    form.add_field("session", session.decode(), content_type="application/json" if typed else None)
    return form


def test_malformed_form_is_refused() -> None:
    async def main() -> tuple[int, str]:
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        async with call_server() as server:
            status, problem, _ = await post(
                server, "/v1/realtime/calls", data=b"--b\r\nno header\r\n\r\nx", headers=headers
            )
            return status, problem["error"]["message"]

    status, message = idle_clock.run(main())
    assert status == 400
    assert message.startswith("The form cannot be read")


@pytest.mark.parametrize(
    ("data", "param"),
    [
        ("", "sdp"),
        ("nonsense", "sdp"),
        ("v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n", "sdp"),
        ({"sdp": "v=0", "session": '{"type": "realtime", "speed": 9}'}, "session.speed"),
        ({"sdp": "v=0", "session": "{"}, "session.type"),
    ],
)
def test_invalid_call_request_is_refused(data: Any, param: str | None) -> None:
    async def main() -> None:
        headers = SDP if isinstance(data, str) else {}
        async with call_server() as server:
            status, problem, _ = await post(
                server, "/v1/realtime/calls", data=data, headers=headers
            )
            assert (status, problem["error"]["param"]) == (400, param)
            assert problem["error"]["type"] == "invalid_request_error"
            assert len(server.sessions) == 0

    idle_clock.run(main())


def test_short_lived_key_opens_a_call_with_its_settings() -> None:
    async def main() -> None:
        async with call_server() as server:
            wish = {"session": {"type": "realtime", "instructions": "Speak Latin."}}
            _, secret, _ = await post(server, "/v1/realtime/client_secrets", json=wish)
            bearer = f"Bearer {secret['value']}"
            async with in_call(server, Authorization=bearer) as client:
                assert client.events[0]["session"]["instructions"] == "Speak Latin."
            status, problem, _ = await post(
                server,
                "/v1/realtime/calls",
                data="v=0",
                headers={**SDP, "Authorization": "Bearer ek_wrong"},
            )
            assert (status, problem["error"]["code"]) == (401, "invalid_api_key")

    idle_clock.run(main())


def test_call_at_the_beta_address_speaks_beta() -> None:
    flat = {"model": "m", "voice": "sage", "modalities": ["text", "audio"], "instructions": "Sing."}
    half_emoji = r'{"type": "session.update", "session": {"instructions": "Half: \ud83d"}}'

    async def main() -> None:
        client = Client()
        form = aiohttp.FormData(default_to_multipart=True)
        form.add_field("sdp", await client.offer())
        form.add_field("session", json.dumps(flat))
        try:
            async with call_server() as server:
                status, answer, _ = await post(server, "/v1/realtime", data=form)
                assert status == 201, answer
                await client.accept(answer)
                created = (await client.until("session.created"))["session"]
                assert {name: created[name] for name in flat} == flat
                client.channel.send(half_emoji)
                updated = (await client.until("session.updated"))["session"]
                assert updated["instructions"] == "Half: \ufffd"
                await client.ask()
                await client.until("response.audio_transcript.delta")
                await client.until("output_audio_buffer.stopped")
        finally:
            await client.connection.close()

    idle_clock.run(main())


def test_beta_settings_that_a_session_refuses_are_named_by_their_beta_path() -> None:
    session = json.dumps({"input_audio_transcription": {"language": "en"}})
    place = "session.input_audio_transcription.model"

    async def main() -> None:
        client = Client()
        offer = await client.offer()
        async with call_server(udp_ports=PORTS) as server:
            before = asyncio.all_tasks()
            status, problem, _ = await post(
                server, "/v1/realtime", data={"sdp": offer, "session": session}
            )
            assert (status, problem["error"]["param"]) == (400, place)
            assert place in problem["error"]["message"]
            assert len(server.sessions) == 0
            await until(lambda: asyncio.all_tasks() <= before)
            await until(lambda: bound(range(22000, 22100)) == [])
        await client.connection.close()

    idle_clock.run(main())


def test_ended_call_frees_its_session_without_garbage_collection() -> None:
    async def main() -> weakref.ref[Session]:
        async with call_server() as server, in_call(server) as client:
            call_id = client.location.rpartition("/")[2]
            (runner,) = server.sessions._runners
            session = weakref.ref(runner._session)
            del runner
            async with calling(server, f"/v1/realtime?call_id={call_id}") as listener:
                await client.ask()
                await client.until("output_audio_buffer.started")
                await post(server, client.location + "/hangup")
                await listener.read_until_closed()
            await until(lambda: len(server.sessions) == 0)
            await until(lambda: client.connection.connectionState == "closed")
            return session

    gc.collect()
    gc.disable()
    try:
        assert idle_clock.run(main())() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("path", "session", "status", "param"),
    [
        ("/v1/realtime", {"instructions": "x" * 10, "speed": 9}, 400, "session.speed"),
        ("/v1/realtime", {"type": "realtime", "voice": "sage"}, 400, "session.voice"),
        ("/v1/realtime/calls", {"voice": "sage"}, 400, "session.type"),
    ],
)
def test_settings_of_the_other_protocol_are_refused_by_their_path(
    path: str, session: dict[str, Any], status: int, param: str
) -> None:
    async def main() -> None:
        async with call_server() as server:
            answer = await post(server, path, data={"sdp": "v=0", "session": json.dumps(session)})
            assert (answer[0], answer[1]["error"]["param"]) == (status, param)
            assert len(server.sessions) == 0

    idle_clock.run(main())
