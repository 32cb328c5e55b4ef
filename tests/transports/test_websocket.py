"""Realtime clients on a WebSocket: which are served, refused, and cut off."""

import asyncio
import base64
import gc
import re
from itertools import pairwise
from typing import Any

import aiohttp
import aiohttp.web
import msgspec
import pytest

from tests import idle_clock
from tests.engines.openai.chat_server import (
    ChatServer,
    Reply,
    drops,
    falls_silent,
    gives,
    hangs,
    lists,
    says,
    text,
)
from tests.server import HOST, Server, scripted, serving
from tests.transports.webrtc.caller import ASK, LOUD, SOFT, calling, masked, raw, until
from vivavoce.settings import Settings
from vivavoce.transports.frame_guard import MAX_MESSAGE_BYTES
from vivavoce.transports.send_queue import MAX_BACKLOG_BYTES, SendQueue

SLOW_VOICE = {"realtime_factor": 1}
LONG = {"answers": ["word " * 200]}


def played(script: Any, settings: Settings | None = None) -> None:
    """Run a script against a server; no session and no task may be left in the end."""

    async def main() -> None:
        async with serving(settings or scripted()) as server:
            before = len(asyncio.all_tasks())
            await script(server)
            await until(lambda: len(server.sessions) == 0)
            await until(lambda: len(asyncio.all_tasks()) <= before + 1)

    idle_clock.run(main())


def test_question_is_answered() -> None:
    async def script(server: Server) -> None:
        async with calling(server) as caller:
            await caller.ask()
            assert await caller.answer() == ("completed", None)
            assert len(server.sessions) == 1

    played(script)


def test_binary_frame_is_decoded_like_a_text_frame() -> None:
    async def script(server: Server) -> None:
        async with calling(server) as caller:
            await caller.socket.send_str(msgspec.json.encode(ASK).decode())
            await caller.until("conversation.item.done")
            await caller.socket.send_bytes(msgspec.json.encode(ASK))
            await caller.until("conversation.item.done")

    played(script)


@pytest.mark.parametrize(
    ("headers", "protocol", "first"),
    [
        ({}, None, "ga"),
        ({"Sec_WebSocket_Protocol": "realtime"}, "realtime", "ga"),
        ({"OpenAI_Beta": "realtime=v1"}, None, "beta"),
        (
            {"Sec_WebSocket_Protocol": "realtime, openai-beta.realtime-v1"},
            "realtime",
            "beta",
        ),
    ],
)
def test_protocol_is_chosen_by_header_or_subprotocol(
    headers: dict[str, str], protocol: str | None, first: str
) -> None:
    async def script(server: Server) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with (
            aiohttp.ClientSession() as http,
            http.ws_connect(server.ws + "/v1/realtime", headers=named) as socket,
        ):
            session = msgspec.json.decode(await socket.receive_str())["session"]
            assert ("modalities" in session) == (first == "beta")
            assert socket._response.headers.get("Sec-WebSocket-Protocol") == protocol

    played(script)


def test_key_in_the_subprotocols_is_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def script(server: Server) -> None:
        offered = "openai-insecure-api-key.sk-secret, openai-beta.realtime-v1"
        async with calling(server, Sec_WebSocket_Protocol=offered) as caller:
            assert caller.events[0]["session"]

    played(script)
    assert "sk-secret" not in caplog.text


def test_request_without_upgrade_is_426() -> None:
    async def script(server: Server) -> None:
        async with (
            aiohttp.ClientSession() as http,
            http.get(server.http + "/v1/realtime") as response,
        ):
            assert response.status == 426
            assert "ws://" in await response.text()

    played(script)


def test_full_server_answers_503_with_retry_after() -> None:
    async def script(server: Server) -> None:
        async with calling(server):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                async with calling(server):
                    pass
            assert refused.value.status == 503
            assert refused.value.headers is not None
            assert refused.value.headers["Retry-After"] == "5"

    played(script, scripted(server={"max_sessions": 1}))


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "llm fails at once": ({"llm": {"error": "down"}}, "llm_failed"),
    "llm fails in the middle": ({"llm": {"error": "down", "fail_after_words": 2}}, "llm_failed"),
    "llm stalls": ({"llm": {"stall": True}}, "llm_stalled"),
    "tts stalls": ({"tts": {"stall_on": "One", "fail_after_ms": 90}}, "tts_stalled"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_failing_engine_costs_one_response_and_one_error(how: str) -> None:
    engines, code = BROKEN[how]

    async def script(server: Server) -> None:
        async with calling(server) as caller:
            for ending in (("failed", code), ("completed", None)):
                await caller.ask()
                assert await caller.answer() == ending
            assert caller.types.count("error") == 1
            types = caller.types
            assert types.index("error") > types.index("response.done")

    broken = {"text": "One two three four.", **engines.get("llm", {})}
    settings = scripted(
        llm={"answers": [broken, "Fine."]},
        tts=engines.get("tts"),
        session={"stall_seconds": 0.2, "failure_errors": True},
    )
    played(script, settings)


@pytest.mark.parametrize("after_ms", [0, 90])
def test_failing_voice_leaves_the_answer_in_writing(after_ms: int) -> None:
    async def script(server: Server) -> None:
        async with calling(server) as caller:
            await caller.ask()
            assert await caller.answer() == ("completed", "tts_failed")
            (done,) = (e["response"] for e in caller.events if e["type"] == "response.done")
            (content,) = done["output"][0]["content"]
            assert content["transcript"] == "One two three. And four."
            assert "goes on in writing" in done["status_details"]["error"]["message"]
            deltas = [e["delta"] for e in caller.events if e["type"].endswith("transcript.delta")]
            assert "".join(deltas) == content["transcript"]
            assert (await caller.until("error"))["error"]["code"] == "tts_failed"

    broken = scripted(
        llm={"answers": ["One two three. And four."]},
        tts={"fail_on": "One", "fail_after_ms": after_ms},
        session={"failure_errors": True},
    )
    played(script, broken)


def test_failed_response_is_followed_by_no_error_event_by_default() -> None:
    async def script(server: Server) -> None:
        async with calling(server) as caller:
            for ending in (("failed", "llm_failed"), ("completed", None)):
                await caller.ask()
                assert await caller.answer() == ending
            assert "error" not in caller.types

    played(script, scripted(llm={"answers": [{"text": "One.", "error": "down"}, "Fine."]}))


@pytest.mark.parametrize(
    ("how", "code"), [({"error": "deaf"}, "stt_failed"), ({"stall": True}, "stt_stalled")]
)
def test_failing_recogniser_costs_one_turn(how: dict[str, Any], code: str) -> None:
    async def script(server: Server) -> None:
        async with calling(server) as caller:
            for ending in (("failed", code), ("completed", None)):
                await caller.speak()
                assert await caller.answer() == ending
            assert caller.types.count("error") == 1

    heard = {"transcripts": [{"text": "x", **how}, "who is there"]}
    played(script, scripted(stt=heard, session={"stall_seconds": 0.2, "failure_errors": True}))


def openai(server: ChatServer, **options: Any) -> Settings:
    """Settings whose language model is behind an endpoint."""
    settings = scripted(
        models={"llm": "endpoint"}, session={"stall_seconds": 5, "failure_errors": True}
    )
    endpoint = {"engine": "openai", "base_url": server.base_url, "model": "m", **options}
    engines = {**settings.engines, "llm": {"endpoint": endpoint}}
    return msgspec.structs.replace(settings, engines=engines)


ENDPOINTS: dict[str, tuple[Reply, str]] = {
    "has an error": (gives(500, {"error": {"message": "out of memory"}}), "llm_failed"),
    "wants a key": (gives(401, {"error": {"message": "no key"}}), "llm_failed"),
    "closes before the answer": (drops(), "llm_failed"),
    "breaks off in the answer": (drops(text("One. "), text("Two")), "llm_failed"),
    "is slow to begin": (hangs, "llm_failed"),
    "falls silent": (falls_silent(text("One. ")), "llm_failed"),
    "says nothing": (says(), "llm_failed"),
}


@pytest.mark.parametrize("how", ENDPOINTS)
def test_failing_llm_endpoint_costs_one_response(how: str) -> None:
    reply, code = ENDPOINTS[how]
    # a kept-alive connection that is closed before the answer is tried once more
    replies = [reply, reply] if how == "closes before the answer" else [reply]

    async def main() -> None:
        async with ChatServer([lists("m"), *replies, says("Fine.")]) as chat:
            settings = openai(chat, first_token_seconds=0.3, gap_seconds=0.3)
            async with serving(settings) as server, calling(server) as caller:
                await caller.ask()
                assert await caller.answer() == ("failed", code)
                error = await caller.until("error")
                assert "\n" not in error["error"]["message"]
                await caller.ask()
                assert await caller.answer() == ("completed", None)
                assert caller.types.count("error") == 1

    idle_clock.run(main())


def test_llm_endpoint_that_comes_up_again_answers_the_next_response() -> None:
    async def main() -> None:
        async with ChatServer([says("Fine.")]) as chat:
            free = chat.port
            settings = openai(chat)
        async with serving(settings) as server, calling(server) as caller:
            await caller.ask()
            assert await caller.answer() == ("failed", "llm_failed")
            again = ChatServer([says("Fine.")], port=free)
            runner = aiohttp.web.AppRunner(aiohttp.web.Application(), access_log=None)
            runner.app.router.add_route("*", "/{path:.*}", again._reply)
            await runner.setup()
            await aiohttp.web.TCPSite(runner, HOST, free).start()
            await caller.ask()
            assert await caller.answer() == ("completed", None)
            await runner.cleanup()

    idle_clock.run(main())


def test_cancelled_response_closes_the_llm_request() -> None:
    async def main() -> None:
        async with ChatServer([falls_silent(text("One. "), text("Two"))]) as chat:
            settings = openai(chat)
            async with serving(settings) as server, calling(server) as caller:
                await caller.ask()
                await caller.until("response.output_audio.delta")
                await caller.send(type="response.cancel")
                assert await caller.answer() == ("cancelled", None)
                async with asyncio.timeout(60):
                    await chat.aborted.wait()

    idle_clock.run(main())


def queues() -> list[SendQueue]:
    return [thing for thing in gc.get_objects() if isinstance(thing, SendQueue)]


def test_client_that_does_not_read_is_cut_off_with_the_reason() -> None:
    async def script(server: Server) -> None:
        reader, writer = await raw(server.port)
        item = {
            "type": "message",
            "id": "item_1",
            "role": "user",
            "content": [
                {"type": "input_audio", "audio": base64.b64encode(bytes(600_000)).decode()}
            ],
        }
        create = {"type": "conversation.item.create", "item": item}
        retrieve = {"type": "conversation.item.retrieve", "item_id": "item_1"}
        writer.write(masked(msgspec.json.encode(create)))
        writer.write(masked(msgspec.json.encode(retrieve)) * 30)  # 24 MB, if all were answered
        async with asyncio.timeout(60):
            rest = await _after_a_while(reader, server)
        close = rest[rest.rindex(b"the client reads too slowly") - 2 :]
        assert int.from_bytes(close[:2], "big") == 1008
        waiting = int(re.search(rb"slowly: (\d+) bytes were waiting$", close)[1])  # type: ignore[index]
        assert MAX_BACKLOG_BYTES < waiting <= MAX_BACKLOG_BYTES + 2 * 800_200
        writer.close()

    played(script, scripted(stt={"transcripts": ["x"]}))
    gc.collect()
    assert queues() == []


async def _after_a_while(reader: asyncio.StreamReader, server: Server) -> bytes:
    """Read nothing until the session is gone; then the rest, which ends with the close."""
    await until(lambda: len(server.sessions) == 1)
    await until(lambda: len(server.sessions) == 0)
    return await reader.read()


@pytest.mark.parametrize("settings", [scripted(tts=SLOW_VOICE, llm=LONG)], ids=["answering"])
def test_connection_lost_in_an_answer_frees_the_session(settings: Settings) -> None:
    async def script(server: Server) -> None:
        async with calling(server) as caller:
            await caller.ask()
            await caller.until("response.output_audio.delta")
            transport = caller.socket._response.connection.transport  # type: ignore[union-attr]
            transport.abort()  # type: ignore[union-attr]
            await until(lambda: len(server.sessions) == 0)

    played(script, settings)


def test_connection_lost_in_speech_frees_the_session() -> None:
    async def script(server: Server) -> None:
        async with calling(server) as caller:
            await caller.speak(LOUD * 10)
            await caller.until("input_audio_buffer.speech_started")
            caller.socket._response.connection.transport.abort()  # type: ignore[union-attr]

    played(script)


def test_connection_lost_while_pings_are_answered_is_a_disconnect() -> None:
    async def script(server: Server) -> None:
        _, writer = await raw(server.port)  # it reads no more than 64 KiB ahead
        ping = b"\x89\xfd" + bytes(4) + bytes(125)
        writer.write(ping * 100_000)  # more than the sockets hold: an answer waits
        await until(lambda: len(server.sessions) == 1)
        transport = queues()[0]._transport
        await until(lambda: transport.get_write_buffer_size() > 65536)
        writer.transport.abort()
        await until(lambda: len(server.sessions) == 0)

    played(script)


def test_ping_is_answered_and_a_pong_is_ignored() -> None:
    async def script(server: Server) -> None:
        reader, writer = await raw(server.port)
        writer.write(b"\x89\x83" + bytes(4) + b"abc" + b"\x8a\x80" + bytes(4) + masked(b"{}"))
        async with asyncio.timeout(60):
            await reader.readuntil(b"\x8a\x03abc")
            await reader.readuntil(b"The 'type' field is missing.")
        writer.close()

    played(script)


def test_close_of_a_client_is_answered() -> None:
    async def script(server: Server) -> None:
        async with calling(server) as caller:
            await caller.socket.close(code=1000)
            assert caller.socket.close_code == 1000

    played(script)


def test_message_above_the_hard_bound_closes_with_1009_before_it_arrives() -> None:
    async def script(server: Server) -> None:
        reader, writer = await raw(server.port)
        writer.write(b"\x82\xff" + (MAX_MESSAGE_BYTES + 1).to_bytes(8, "big") + bytes(4))
        async with asyncio.timeout(60):
            await reader.readuntil((1009).to_bytes(2, "big"))
        writer.close()

    played(script)


def test_client_that_sends_too_much_before_it_reads_gets_the_reason() -> None:
    async def script(server: Server) -> None:
        async with calling(server) as caller:
            await caller.socket.send_bytes(bytes(MAX_MESSAGE_BYTES + 1))
            async with asyncio.timeout(60):
                async for _ in caller.socket:
                    pass
            assert caller.socket.close_code == 1009

    played(script)


def test_frame_above_the_bound_is_refused_by_its_event_id() -> None:
    async def script(server: Server) -> None:
        async with calling(server) as caller:
            audio = "A" * (25 * 1024 * 1024)
            await caller.send(event_id="mine", type="input_audio_buffer.append", audio=audio)
            error = (await caller.until("error"))["error"]
            assert (error["code"], error["event_id"]) == ("event_too_large", "mine")
            await caller.ask()
            assert await caller.answer() == ("completed", None)

    played(script)


def test_long_recording_sent_at_once_has_the_turns_of_a_live_one() -> None:
    turn = LOUD * 10 + SOFT * 30

    async def script(server: Server) -> None:
        async with calling(server) as caller:
            await caller.send(
                type="session.update",
                session={
                    "type": "realtime",
                    "audio": {
                        "input": {
                            "turn_detection": {"type": "server_vad", "create_response": False}
                        }
                    },
                },
            )
            await caller.speak(turn * 100)
            while caller.types.count("input_audio_buffer.committed") < 100:
                await caller.next()
            starts = [e["audio_start_ms"] for e in caller.events if "audio_start_ms" in e]
            assert [b - a for a, b in pairwise(starts[1:])] == [40 * 32] * 98

    played(script)


def test_error_in_reading_ends_the_session_and_is_logged() -> None:
    async def main() -> None:
        async with serving() as server:
            async with calling(server) as caller:
                gc.collect()
                queue = queues()[0]
                queue._protocol.decode = lambda raw: 1 / 0  # type: ignore[method-assign,assignment,return-value]
                await caller.ask()
                assert await caller.read_until_closed() == (1011, "the server had an error")
            async with calling(server) as caller:
                await caller.ask()
                assert await caller.answer() == ("completed", None)
            assert len(server.complaints) == 1
            assert "ZeroDivisionError" in server.complaints.pop()

    idle_clock.run(main())


def test_many_frames_at_once_do_not_delay_other_clients() -> None:
    async def script(server: Server) -> None:
        _, flood = await raw(server.port)
        async with calling(server) as caller:
            flood.write(masked(b"{}") * 50_000)
            await caller.ask()
            assert await caller.answer() == ("completed", None)
            flood.transport.abort()

    played(script)
