"""Calls that fail: invalid messages, clients that leave in any phase, a full server, a shutdown."""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from aiortc import RTCSctpTransport
from aiortc.rtcsctptransport import WEBRTC_DCEP, WEBRTC_STRING, ForwardTsnChunk

from tests import idle_clock
from tests.server import Server, scripted, serving
from tests.transports.webrtc.call_stage import Client, in_call, tone
from tests.transports.webrtc.caller import calling, until
from tests.transports.webrtc.test_calls import SDP, post
from vivavoce.transports.webrtc.settings import WebRTCSettings

LONG = "This answer goes on for a while, so that somebody may find the time to interrupt it. " * 2
CALLS = "/v1/realtime/calls"


async def put(client: Client, data: bytes, protocol: int = WEBRTC_STRING) -> None:
    """Send a message that aiortc's own channel would not."""
    sctp: Any = client.connection.sctp
    sctp._data_channel_queue.append((client.channel, protocol, data))
    await sctp._data_channel_flush()


def test_invalid_messages_are_refused_and_the_call_goes_on() -> None:
    async def main() -> None:
        settings = scripted(llm={"answers": ["Yes."]})
        async with serving(settings) as server, in_call(server) as client:
            for data in (
                b"\xff\xfe{",
                b"[]",
                b"{}",
                b'{"type": "nothing"}',
                b"\x00",
                b"x" * 270_000,
            ):
                await put(client, data)
                problem = (await client.until("error"))["error"]
                assert problem["type"] == "invalid_request_error"
            for message in ("", b"", b"\xff"):
                client.channel.send(message)
                assert (await client.until("error"))["error"]["type"] == "invalid_request_error"
            for data in (b"\x03", b"\x03" + bytes(11), b"\x02", b"\x03" + b"\xff" * 40):
                await put(client, data, WEBRTC_DCEP)
            client.channel.send(b'{"type": "input_audio_buffer.clear"}')
            await client.until("input_audio_buffer.cleared")
            await client.ask()
            await client.until("output_audio_buffer.stopped")

    idle_clock.run(main())


async def before_ice(client: Client, answer: str) -> None:
    pass


async def before_dtls(client: Client, answer: str) -> None:
    await client.accept(answer)


async def after_session_created(client: Client, answer: str) -> None:
    await client.accept(answer)
    await client.until("session.created")


async def during_an_answer(client: Client, answer: str) -> None:
    await after_session_created(client, answer)
    await client.ask()
    await until(lambda: client.loud_ms > 100)


async def during_speech(client: Client, answer: str) -> None:
    await after_session_created(client, answer)
    client.speak(tone(5.0))
    await client.until("input_audio_buffer.speech_started")


async def during_a_tool_call(client: Client, answer: str) -> None:
    await after_session_created(client, answer)
    await client.send(
        type="response.create",
        response={"tools": [{"type": "function", "name": "wait"}], "instructions": "tool"},
    )
    await client.until("response.done")


Phase = Callable[[Client, str], Awaitable[None]]
PHASES: tuple[Phase, ...] = (
    *(
        before_ice,
        before_dtls,
        after_session_created,
        during_an_answer,
        during_speech,
        during_a_tool_call,
    ),
)


async def leave_in(server: Server, phase: Phase) -> None:
    client = Client()
    try:
        offer = await client.offer()
        status, answer, _ = await post(server, CALLS, data=offer, headers=SDP)
        assert status == 201
        await phase(client, answer)
    finally:
        await client.connection.close()


def test_client_that_leaves_in_any_phase_leaves_no_task() -> None:
    async def main() -> None:
        settings = scripted(llm={"answers": [{"text": LONG, "calls": [{"name": "wait"}]}]})
        async with serving(settings, webrtc=WebRTCSettings(gone_seconds=2.0)) as server:
            before = asyncio.all_tasks()
            async with asyncio.TaskGroup() as clients:
                for phase in PHASES * 2:
                    clients.create_task(leave_in(server, phase))
            await until(lambda: len(server.sessions) == 0)
            await until(lambda: asyncio.all_tasks() <= before)

    idle_clock.run(main())


def is_over(client: Client) -> bool:
    return client.connection.connectionState == "closed"


def test_server_shutdown_ends_calls_in_every_phase() -> None:
    async def main() -> None:
        settings = scripted(llm={"answers": [LONG]}, server={"drain_seconds": 0.1})
        clients = [Client() for _ in PHASES[:5]]
        async with serving(settings) as server:
            for client, phase in zip(clients, PHASES, strict=False):
                offer = await client.offer()
                _, answer, _ = await post(server, CALLS, data=offer, headers=SDP)
                await phase(client, answer)
        for client, phase in zip(clients, PHASES, strict=False):
            if phase not in (before_ice, before_dtls):
                await until(partial(is_over, client))
            await client.connection.close()
        assert len(server.sessions) == 0

    idle_clock.run(main())


def test_full_server_refuses_until_a_call_ends() -> None:
    async def main() -> None:
        async with (
            serving(scripted(server={"max_sessions": 1})) as server,
            in_call(server) as first,
        ):
            second = Client()
            for _ in range(2):
                status, problem, headers = await post(
                    server, CALLS, data=await second.offer(), headers=SDP
                )
                assert (status, problem["error"]["code"]) == (503, "server_is_overloaded")
                assert headers["Retry-After"]
            await first.connection.close()
            await until(lambda: len(server.sessions) == 0)
            async with in_call(server):
                assert len(server.sessions) == 1
            await second.connection.close()

    idle_clock.run(main())


def test_events_for_a_transport_that_has_closed_are_no_error() -> None:
    """Before the server has found out that the client is gone."""

    async def main() -> None:
        async with serving() as server, in_call(server) as client:
            mine = client.connection.sctp
            (sctp,) = [
                one
                for one in gc.get_objects()
                if isinstance(one, RTCSctpTransport)
                and one is not mine
                and one.transport.state == "connected"
            ]
            await sctp.transport.stop()
            sctp._forward_tsn_chunk = ForwardTsnChunk()
            await sctp._transmit()
            sctp._association_state = sctp.State.ESTABLISHED
            sctp._reconfig_queue, sctp._reconfig_request = [1], None
            await sctp._transmit_reconfig()

    idle_clock.run(main())


def test_several_sidebands_change_the_session_and_receive_its_events() -> None:
    async def main() -> None:
        async with serving(scripted(llm={"answers": ["Good evening."]})) as server:
            async with in_call(server) as client:
                call = f"/v1/realtime?call_id={client.location.rpartition('/')[2]}"
                async with calling(server, call) as one, calling(server, call) as other:
                    await one.send(
                        type="session.update", session={"type": "realtime", "instructions": "Sing."}
                    )
                    for listener in (one, other, client):
                        updated = await listener.until("session.updated")
                        assert updated["session"]["instructions"] == "Sing."
                    await other.ask()
                    for listener in (one, other, client):
                        await listener.until("response.done")
                    await other.send(type="output_audio_buffer.clear")
                    for listener in (one, client):
                        await listener.until("output_audio_buffer.cleared")
                await client.send(type="input_audio_buffer.clear")
                await client.until("input_audio_buffer.cleared")
            await until(lambda: len(server.sessions) == 0)

    idle_clock.run(main())


def test_audio_formats_of_the_session_do_not_change_the_track() -> None:
    sound = {"type": "audio/pcmu"}

    async def main() -> None:
        async with (
            serving(scripted(llm={"answers": ["Good evening to you."]})) as server,
            in_call(server) as client,
        ):
            audio = {"input": {"format": sound}, "output": {"format": sound}}
            await client.send(type="session.update", session={"type": "realtime", "audio": audio})
            await client.until("session.updated")
            client.speak(tone(0.5))
            began = (await client.until("input_audio_buffer.speech_started"))["audio_start_ms"]
            ended = (await client.until("input_audio_buffer.speech_stopped"))["audio_end_ms"]
            assert 500 <= ended - began < 1500
            await client.until("output_audio_buffer.stopped")
            await until(lambda: client.loud_ms > 1000)
            assert client.loud_ms < 1400

    idle_clock.run(main())


def test_text_and_out_of_band_responses_are_answered() -> None:
    async def main() -> None:
        async with (
            serving(scripted(llm={"answers": ["Good evening."]})) as server,
            in_call(server) as client,
        ):
            await client.send(type="output_audio_buffer.clear")
            await client.send(
                type="response.create",
                response={"output_modalities": ["text"], "conversation": "none"},
            )
            done = await client.until("response.done")
            assert done["response"]["output"][0]["content"][0]["text"] == "Good evening."
            assert "output_audio_buffer.started" not in client.types
            await client.send(type="response.create", response={"conversation": "none"})
            await client.until("output_audio_buffer.stopped")
            await until(lambda: client.loud_ms > 500)
            await client.send(
                type="session.update", session={"type": "realtime", "output_modalities": ["text"]}
            )
            await client.until("session.updated")
            client.speak(tone(0.3))
            await client.until("response.output_text.done")
            assert "error" not in client.types

    idle_clock.run(main())
