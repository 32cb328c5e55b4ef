"""Calls over WebRTC, with a plain client: in real time, since sound is."""

import asyncio
import random
import socket
import threading
from contextlib import AbstractAsyncContextManager
from typing import Any

import aiohttp
import pytest

from tests.server import HOST, Server, scripted, serving
from tests.transports.webrtc.call_stage import Client, on_the_phone, tone
from tests.transports.webrtc.caller import calling, until
from vivavoce.transports.webrtc.reach import Reach

ANSWER = "one two three four five six seven eight nine ten eleven"
SDP = {"Content-Type": "application/sdp"}
PORTS = (42000, 42099)


def a_server(**reach: Any) -> AbstractAsyncContextManager[Server]:
    settings = scripted(
        llm={"answers": [ANSWER]}, tts={"ms_per_character": 40, "realtime_factor": 0.5}
    )
    return serving(settings, webrtc=Reach(**reach))


async def post(server: Server, path: str, **request: Any) -> tuple[int, Any, Any]:
    async with aiohttp.ClientSession() as http, http.post(server.http + path, **request) as reply:
        body = await (reply.json() if "json" in reply.content_type else reply.text())
        return reply.status, body, reply.headers


def lossy(client: Client, share: float) -> None:
    """A network between the two that loses and holds up packets of sound, both ways."""
    assert client.connection.sctp is not None
    ice: Any = client.connection.sctp.transport.transport
    send, recv, chance = ice._send, ice._recv, random.Random(1)

    def is_sound(packet: bytes) -> bool:
        return 128 <= packet[0] < 192

    async def lossy_send(packet: bytes) -> None:
        if not is_sound(packet) or chance.random() >= share:
            await send(packet)

    async def lossy_recv() -> bytes:
        packet: bytes = await recv()
        while is_sound(packet) and chance.random() < share:
            packet = await recv()
        return packet

    ice._send, ice._recv = lossy_send, lossy_recv


def bound(ports: range) -> list[int]:
    """Which of these nobody else could bind now."""
    taken = []
    for port in ports:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                taken.append(port)
    return taken


def test_who_calls_is_greeted_hears_the_answer_and_is_told_when_it_was_played() -> None:
    async def main() -> None:
        async with a_server() as server, on_the_phone(server) as client:
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

    asyncio.run(main())


def test_what_is_said_is_heard_and_who_speaks_up_truncates_the_answer_to_what_was_played() -> None:
    async def main() -> None:
        async with a_server() as server, on_the_phone(server, label="anything") as client:
            client.say(tone(0.3))
            await client.until("input_audio_buffer.speech_started")
            await client.until("input_audio_buffer.committed")
            await client.until("output_audio_buffer.started")
            await until(lambda: client.loud_ms > 300)
            client.say(tone(0.3))
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

    asyncio.run(main())


def test_a_client_clears_what_is_played() -> None:
    async def main() -> None:
        async with a_server() as server, on_the_phone(server) as client:
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

    asyncio.run(main())


def test_five_in_a_hundred_packets_may_be_lost() -> None:
    async def main() -> None:
        async with a_server() as server, on_the_phone(server) as client:
            lossy(client, 0.05)
            client.say(tone(1.0))
            await client.until("input_audio_buffer.speech_started")
            await client.until("input_audio_buffer.speech_stopped")
            await client.until("output_audio_buffer.stopped")
            assert client.loud_ms > 0.7 * len(ANSWER) * 40

    asyncio.run(main())


def test_a_call_ends_from_either_side_and_leaves_nothing_behind() -> None:
    async def main() -> None:
        async with a_server(udp_ports=f"{PORTS[0]}-{PORTS[1]}") as server:
            alone = asyncio.all_tasks()
            async with on_the_phone(server) as client:
                assert bound(range(42000, 42100)) != []
                json = {"Content-Type": "application/json"}
                status, body, _ = await post(server, client.location + "/hangup", headers=json)
                assert (status, body) == (200, "")
                await until(lambda: client.connection.connectionState == "closed")
                status, problem, _ = await post(server, client.location + "/hangup")
                assert (status, problem["error"]["code"]) == (404, "not_found")
            await until(lambda: len(server.hub) == 0)
            async with on_the_phone(server) as client:
                assert len(server.hub) == 1
            await until(lambda: len(server.hub) == 0)
            await until(lambda: asyncio.all_tasks() <= alone)
            await until(lambda: bound(range(42000, 42100)) == [])

    asyncio.run(main())


def test_fifty_calls_come_and_go() -> None:
    async def main() -> None:
        async with a_server(udp_ports=f"{PORTS[0]}-{PORTS[1]}") as server:
            alone, threads = asyncio.all_tasks(), threading.active_count()
            for _ in range(5):
                calls = [on_the_phone(server) for _ in range(10)]
                async with asyncio.TaskGroup() as group:
                    for call in calls:
                        group.create_task(call.__aenter__())
                assert len(server.hub) == 10
                async with asyncio.TaskGroup() as group:
                    for call in calls:
                        group.create_task(call.__aexit__(None, None, None))
            await until(lambda: len(server.hub) == 0)
            await until(lambda: asyncio.all_tasks() <= alone)
            await until(lambda: bound(range(42000, 42100)) == [])
            assert threading.active_count() <= threads + 8  # the loop's own pool, and no more

    asyncio.run(main())


def test_who_is_gone_without_a_word_has_left() -> None:
    async def main() -> None:
        async with a_server(gone_seconds=1.0) as server, on_the_phone(server) as client:
            assert len(server.hub) == 1
            lossy(client, 1.0)
            ice: Any = client.connection.sctp
            ice.transport.transport._connection._nominated.clear()
            await until(lambda: len(server.hub) == 0)

    asyncio.run(main())


def test_who_never_connects_has_left() -> None:
    async def main() -> None:
        async with a_server(gone_seconds=0.2) as server:
            client = Client()
            status, _, _ = await post(
                server, "/v1/realtime/calls", data=await client.offer(), headers=SDP
            )
            assert (status, len(server.hub)) == (201, 1)
            await until(lambda: len(server.hub) == 0)
            await client.connection.close()

    asyncio.run(main())


def test_whoever_listens_in_sees_everything_and_may_say_anything() -> None:
    async def main() -> None:
        async with a_server() as server, on_the_phone(server) as client:
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
                assert (await listener.farewell())[1] == "the call was hung up"

    asyncio.run(main())


def test_nobody_listens_in_on_a_call_that_there_is_not() -> None:
    async def main() -> None:
        async with a_server() as server:
            with pytest.raises(aiohttp.WSServerHandshakeError, match="404"):
                async with calling(server, "/v1/realtime?call_id=rtc_nobody"):
                    pass

    asyncio.run(main())


def test_a_range_of_ports_that_is_taken_takes_no_more_calls() -> None:
    async def main() -> None:
        async with a_server(udp_ports="42100-42100", announce_address=("203.0.113.7",)) as server:
            first, second = Client(), Client()
            status, answer, _ = await post(
                server, "/v1/realtime/calls", data=await first.offer(), headers=SDP
            )
            assert status == 201
            assert " 203.0.113.7 42100 typ host" in answer
            status, problem, _ = await post(
                server, "/v1/realtime/calls", data=await second.offer(), headers=SDP
            )
            assert (status, problem["error"]["code"]) == (503, "server_is_overloaded")
            assert len(server.hub) == 1
            await first.connection.close()
            await second.connection.close()

    asyncio.run(main())


def test_a_call_is_made_by_every_form_in_use() -> None:
    async def main() -> None:
        client = Client()
        offer = await client.offer()
        session = b'{"type": "realtime", "model": "gpt-realtime", "instructions": "Be brief."}'
        async with a_server() as server:
            for path, request in (
                ("/v1/realtime/calls?model=gpt-realtime", {"data": offer, "headers": SDP}),
                ("/v1/realtime?model=gpt-realtime", {"data": offer, "headers": SDP}),
                ("/v1/realtime/calls", {"data": _form(offer, session, typed=True)}),
                ("/v1/realtime/calls", {"data": _form(offer, session, typed=False)}),
                ("/v1/realtime/calls", {"data": {"sdp": offer, "session": session.decode()}}),
            ):
                status, answer, headers = await post(server, path, **request)
                assert status == 201, answer
                assert headers["Content-Type"].startswith("application/sdp")
                assert headers["Location"].startswith("/v1/realtime/calls/rtc_")
                assert "a=msid:" in answer
                assert answer.count("opus/48000") == 1
                call_id = headers["Location"].rpartition("/")[2]
                async with calling(server, f"/v1/realtime?call_id={call_id}") as listener:
                    told = listener.events[0]["session"]["instructions"]
                    assert (told == "Be brief.") is (
                        "session" in str(request["data"])
                        or isinstance(request["data"], aiohttp.FormData)
                    )
        await client.connection.close()

    asyncio.run(main())


def _form(offer: str, session: bytes, *, typed: bool) -> aiohttp.FormData:
    form = aiohttp.FormData(default_to_multipart=True)
    form.add_field("sdp", offer, content_type="application/sdp" if typed else None)
    form.add_field("session", session.decode(), content_type="application/json" if typed else None)
    return form


def test_a_form_that_is_none_is_refused() -> None:
    async def main() -> tuple[int, str]:
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        async with a_server() as server:
            status, problem, _ = await post(
                server, "/v1/realtime/calls", data=b"--b\r\nno header\r\n\r\nx", headers=headers
            )
            return status, problem["error"]["message"]

    status, message = asyncio.run(main())
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
def test_what_is_no_call_is_refused(data: Any, param: str | None) -> None:
    async def main() -> None:
        headers = SDP if isinstance(data, str) else {}
        async with a_server() as server:
            status, problem, _ = await post(
                server, "/v1/realtime/calls", data=data, headers=headers
            )
            assert (status, problem["error"]["param"]) == (400, param)
            assert problem["error"]["type"] == "invalid_request_error"
            assert len(server.hub) == 0

    asyncio.run(main())


def test_a_short_lived_key_opens_a_call_and_its_settings_rule() -> None:
    async def main() -> None:
        async with a_server() as server:
            wish = {"session": {"type": "realtime", "instructions": "Speak Latin."}}
            _, secret, _ = await post(server, "/v1/realtime/client_secrets", json=wish)
            bearer = f"Bearer {secret['value']}"
            async with on_the_phone(server, Authorization=bearer) as client:
                assert client.events[0]["session"]["instructions"] == "Speak Latin."
            status, problem, _ = await post(
                server,
                "/v1/realtime/calls",
                data="v=0",
                headers={**SDP, "Authorization": "Bearer ek_wrong"},
            )
            assert (status, problem["error"]["code"]) == (401, "invalid_api_key")

    asyncio.run(main())


def test_a_server_that_ends_hangs_up() -> None:
    async def main() -> None:
        async with a_server() as server:
            client = Client()
            _, answer, _ = await post(
                server, "/v1/realtime/calls", data=await client.offer(), headers=SDP
            )
            await client.accept(answer)
            await client.until("session.created")
        await until(lambda: client.connection.connectionState == "closed")
        await client.connection.close()

    asyncio.run(main())
