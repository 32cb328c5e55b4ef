"""A relay and an upstream server that fails: the client's call goes on."""

import asyncio
import base64
import json
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from tests import idle_clock
from tests.fake_upstream import Answer, Behaviour, FakeUpstream
from tests.server import Server
from tests.transports.test_relay import TIMEOUT_S, Client, connected, relaying
from vivavoce.runtime.upstream import Hold
from vivavoce.session.facts import FaultKind

ORG = "org-Abcdefgh12345678"
LIMITED = {
    "type": "tokens",
    "code": "rate_limit_exceeded",
    "message": f"Rate limit reached in organization {ORG} on tokens per min. "
    "Please try again in 20ms.",
}
QUOTA = {"type": "insufficient_quota", "code": "insufficient_quota", "message": f"{ORG} paid not"}


CALLS = int(os.environ.get("VIVAVOCE_FAULTY_CALLS", "80"))


class NoHold(Hold):
    """Every session asks the upstream server, however it has failed."""

    def set(self, seconds: float, kind: FaultKind) -> None:
        pass


async def answered(client: Client) -> dict[str, Any]:
    """The next response that does not fail."""
    while True:
        done = (await client.until("response.done"))["response"]
        if done["status"] != "failed":
            assert isinstance(done, dict)
            return done


async def closed(fake: FakeUpstream) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        await fake.wait_closed()


@asynccontextmanager
async def on_relay(fake: FakeUpstream, **options: Any) -> AsyncIterator[tuple[Server, Client]]:
    """A server whose model "far" is behind the fake, and a client of it."""
    async with (
        fake.serve() as url,
        relaying(url, **options) as (here, address),
        connected(address, "far") as client,
    ):
        yield here, client


def test_upstream_server_gets_its_key_alone_and_frames_pass_byte_for_byte() -> None:
    async def main() -> None:
        fake = FakeUpstream()
        async with (
            fake.serve() as url,
            relaying(url) as (_, address),
            aiohttp.ClientSession(headers={"Authorization": "Bearer sk-of-client"}) as http,
            http.ws_connect(
                address, params={"model": "far"}, protocols=("realtime",), headers={"X-A": "b"}
            ) as socket,
        ):
            append = '{ "type":"input_audio_buffer.append",  "audio":"AAAA" }'
            await socket.send_str(append)
            await socket.send_str('{"type" : "response.create"}')
            frames: list[bytes] = []
            async with asyncio.timeout(TIMEOUT_S):
                while not frames or b'"response.done"' not in frames[-1]:
                    frames.append((await socket.receive_str()).encode())
            (session,) = fake.sessions
            assert append.encode() in session.received
            assert b'{"type" : "response.create"}' in session.received
            assert [f for f in session.sent if b'"response.' in f] == [
                f for f in frames if b'"response.' in f
            ]
            assert session.headers.getall("Authorization") == ["Bearer sk-upstream"]  # type: ignore[attr-defined]
            assert "OpenAI-Beta" not in session.headers
            assert "Sec-WebSocket-Protocol" not in session.headers
            assert "sk-of-client" not in str(session.headers)
            await socket.close()
            await closed(fake)

    idle_clock.run(main())


@pytest.mark.parametrize("how", ["header", "subprotocol"])
def test_beta_client_completes_a_turn_over_an_upstream_server_of_the_ga_protocol(how: str) -> None:
    async def main() -> None:
        fake = FakeUpstream()
        headers = {"OpenAI-Beta": "realtime=v1"} if how == "header" else {}
        protocols = () if how == "header" else ("realtime", "openai-beta.realtime-v1")
        async with (
            fake.serve() as url,
            relaying(url) as (_, address),
            aiohttp.ClientSession() as http,
            http.ws_connect(
                address, params={"model": "far"}, headers=headers, protocols=protocols
            ) as socket,
        ):
            patch = {"modalities": ["text", "audio"], "temperature": 0.8}
            await socket.send_json({"type": "session.update", "session": patch})
            await socket.send_json({"type": "response.create"})
            kinds: list[str] = []
            async with asyncio.timeout(TIMEOUT_S):
                while "response.done" not in kinds:
                    kinds.append((await socket.receive_json())["type"])
            assert "response.audio.delta" in kinds
            (session,) = fake.sessions
            assert b"temperature" not in b"".join(session.received)
            assert b'modalities":["text","audio' not in b"".join(session.received)

    idle_clock.run(main())


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 503])
def test_handshake_refused_is_answered_here_and_held(status: int) -> None:
    async def main() -> None:
        fake = FakeUpstream()
        fake.refusal = (status, {"Retry-After": "2"}, f'{{"error":{{"message":"{ORG}"}}}}')
        async with (
            fake.serve() as url,
            relaying(url, llm={"answers": ["Here."]}) as (server, address),
        ):
            for _ in range(2):
                async with connected(address, "far") as client:
                    await client.write("Is anybody there?")
                    await answered(client)
                    assert ORG not in json.dumps(client.events)
            assert fake.attempts == 1  # the second session found it on hold
            hold = server.sessions.context.catalog.relays["far"].hold
            if status == 429:
                assert 0 < hold.seconds <= 2

    idle_clock.run(main())


@pytest.mark.parametrize("code", ["invalid_api_key", "beta_api_shape_disabled", "odd"])
def test_error_in_place_of_the_session_is_answered_here(code: str) -> None:
    async def main() -> None:
        fake = FakeUpstream()
        fake.first_error = {"type": "invalid_request_error", "code": code, "message": ORG}
        async with on_relay(fake, llm={"answers": ["Here."]}) as (_, client):
            await client.write("Is anybody there?")
            await answered(client)
            assert ORG not in json.dumps(client.events)
            await closed(fake)

    idle_clock.run(main())


@pytest.mark.parametrize("fault", ["cut", "expire", QUOTA])
def test_fault_in_a_response_is_taken_up_by_the_cascade_with_the_history(fault: Any) -> None:
    async def main() -> None:
        fake = FakeUpstream("answer", fault)
        async with on_relay(fake, llm={"answers": ["Here."]}) as (here, client):
            await client.write("How is the weather?")
            await answered(client)
            await client.write("And tomorrow?")
            await answered(client)
            (asked,) = here.llm.requests
            assert "How is the weather?" in str(asked.items)
            assert "It is warm." in str(asked.items)
            assert client.types().count("session.created") == 1
            assert ORG not in json.dumps(client.events)
            await closed(fake)

    idle_clock.run(main())


def test_rate_limited_response_is_asked_for_again_after_the_wait_in_the_text() -> None:
    async def main() -> None:
        fake = FakeUpstream(LIMITED, "answer")
        async with on_relay(fake) as (here, client):
            await client.write("How is the weather?")
            await answered(client)
            assert here.llm.requests == []
            assert len(fake.sessions[0].events("response.create")) == 2
            assert ORG not in json.dumps(client.events)

    idle_clock.run(main())


def test_session_without_fallback_ends_with_our_error() -> None:
    async def main() -> None:
        fake = FakeUpstream("cut")
        async with (
            fake.serve() as url,
            relaying(url, fallback="none") as (_, address),
            aiohttp.ClientSession() as http,
            http.ws_connect(address, params={"model": "far"}) as socket,
        ):
            await socket.send_json({"type": "response.create"})
            codes = []
            async with asyncio.timeout(TIMEOUT_S):
                async for message in socket:
                    event = json.loads(message.data)
                    codes += [event["error"]["code"]] if event["type"] == "error" else []
            assert codes == ["upstream_unavailable"]
            assert socket.close_code == 1011

    idle_clock.run(main())


def test_upstream_server_that_recovers_answers_again_after_the_turn() -> None:
    async def main() -> None:
        fake = FakeUpstream("cut", "answer")
        async with on_relay(fake, hold=Hold(0.01), llm={"answers": ["Here."]}) as (here, client):
            await client.write("How is the weather?")
            await answered(client)
            async with asyncio.timeout(TIMEOUT_S):
                await fake.wait_for_sessions(3)  # the lost one, the probe, the new one
            await client.write("And tomorrow?")
            done = await answered(client)
            assert done["output"][0]["content"][0]["transcript"] == "It is warm."
            assert len(here.llm.requests) == 1
            first = fake.sessions[2].events("conversation.item.create")
            assert "How is the weather?" in str(first)
            assert client.types().count("session.created") == 1

    idle_clock.run(main())


@pytest.mark.parametrize("fault", ["stall", "half-open"])
def test_upstream_server_that_falls_silent_is_replaced_by_the_cascade(fault: str) -> None:
    async def main() -> None:
        fake = FakeUpstream("stall")
        fake.is_deaf = fault == "half-open"
        limits: dict[str, Any] = {"session": {"stall_seconds": 0.3}} if fault == "stall" else {}
        options = {"heartbeat_s": 0.2, "llm": {"answers": ["Here."]}, **limits}
        async with on_relay(fake, **options) as (here, client):
            await client.write("Is anybody there?")
            await answered(client)
            assert len(here.llm.requests) == 1
            assert client.types().count("session.created") == 1

    idle_clock.run(main())


def test_frames_sent_before_the_upstream_session_arrive_in_order() -> None:
    async def main() -> None:
        fake = FakeUpstream()
        fake.opens_after = asyncio.Event()
        async with on_relay(fake) as (_, client):  # answered before the upstream is connected
            await client.send("input_audio_buffer.append", audio="AAAA")
            await client.send("response.create", event_id="first")
            await client.send("input_audio_buffer.append", audio="BBBB")
            assert fake.sessions == []
            fake.opens_after.set()
            await client.until("response.done")
            append = "input_audio_buffer.append"
            async with asyncio.timeout(TIMEOUT_S):
                _, second = await fake.sessions[0].wait_for(append, 2)
            kinds = [json.loads(raw)["type"] for raw in fake.sessions[0].received]
            assert kinds == ["session.update", append, "response.create", append]
            assert second["audio"] == "BBBB"

    idle_clock.run(main())


def test_upstream_server_of_xais_protocol_serves_a_ga_client() -> None:
    """Its pings are dropped, and its answer to a turn that the client wants unanswered."""

    async def main() -> None:
        fake = FakeUpstream(Answer("No."), Answer("Yes."))
        fake.always_answers = True
        vad = {"type": "server_vad", "create_response": False}
        audio = {"input": {"turn_detection": vad}}
        async with on_relay(fake, dialect="xai") as (_, client):
            await client.send("session.update", session={"type": "realtime", "audio": audio})
            for loud in (b"\1\x40" * 4800, bytes(48_000)):
                speech = base64.b64encode(loud).decode()
                await client.send("input_audio_buffer.append", audio=speech)
            await client.until("conversation.item.done")
            (session,) = fake.sessions
            await session.send("ping")
            async with asyncio.timeout(TIMEOUT_S):
                await session.wait_for("conversation.item.delete")
            await client.send("response.create")
            done = await answered(client)
            assert done["output"][0]["content"][0]["transcript"] == "Yes."
            assert client.types().count("response.created") == 1
            assert "ping" not in client.types()

    idle_clock.run(main())


def test_calls_with_random_faults_lose_nothing_and_leave_no_connection_open() -> None:
    """Each call gets an answer that completes, all its items stay, and no socket is left."""
    chance = random.Random(7)
    faults: list[Behaviour] = [
        "answer",
        "answer",
        "cut",
        "expire",
        QUOTA,
        LIMITED,
        {"type": "server_error"},
    ]

    async def call(address: str) -> None:
        async with connected(address, "far") as client:
            for turn in range(2):
                await client.write(f"Question {turn}?")
                await answered(client)
            wrote = [e["item"]["id"] for e in client.events if e["type"].endswith("item.added")]
            for item_id in dict.fromkeys(i for i in wrote if i):
                await client.send("conversation.item.retrieve", item_id=item_id)
                await client.until("conversation.item.retrieved")

    async def main() -> None:
        fake = FakeUpstream()
        async with fake.serve() as url, relaying(url, hold=NoHold()) as (_, address):
            for _ in range(CALLS // 2):
                fake.behaviours = [*chance.choices(faults, k=10), "answer"]
                await asyncio.gather(*(call(address) for _ in range(2)))
            await closed(fake)

    idle_clock.run(main())


async def read_until_closed(client: Client) -> tuple[str, int | None, str]:
    """The code of the last error, the close code, and its reason."""
    code, socket = "", client._socket
    async with asyncio.timeout(TIMEOUT_S):
        while (message := await socket.receive()).type is aiohttp.WSMsgType.TEXT:
            event = message.json()
            code = event["error"]["code"] if event["type"] == "error" else code
    return code, socket.close_code, str(message.extra or "")


@pytest.mark.parametrize("status", [401, 403, 404, 429, 503, 0])
def test_client_without_a_fallback_gets_one_error_of_ours_where_no_session_begins_upstream(
    status: int,
) -> None:
    """0: the server takes the connection, and sends an error in place of the session."""

    async def main() -> None:
        fake = FakeUpstream()
        if status:
            fake.refusal = (status, {}, f'{{"error":{{"message":"{ORG}"}}}}')
        else:
            fake.first_error = {"type": "x", "code": "invalid_api_key", "message": ORG}
        async with (
            fake.serve() as url,
            relaying(url, fallback="none") as (_, address),
            aiohttp.ClientSession() as http,
            http.ws_connect(address, params={"model": "far"}) as socket,
        ):
            errors = []
            async with asyncio.timeout(TIMEOUT_S):
                async for message in socket:
                    assert ORG not in message.data
                    event = json.loads(message.data)
                    errors += [event["error"]["code"]] if event["type"] == "error" else []
            assert (errors, socket.close_code) == (["upstream_unavailable"], 1011)

    idle_clock.run(main())


def test_more_events_than_can_be_kept_while_the_upstream_server_connects_close_with_1013() -> None:
    async def main() -> None:
        fake = FakeUpstream()
        fake.opens_after = asyncio.Event()
        async with on_relay(fake, fallback="none") as (_, client):
            for _ in range(300):
                await client.send("input_audio_buffer.clear")
            code, close_code, _ = await read_until_closed(client)
            assert (code, close_code) == ("upstream_unavailable", 1013)
            fake.opens_after.set()

    idle_clock.run(main())


def test_transcription_session_over_a_relay_has_the_transcription_model_of_its_client() -> None:
    async def main() -> None:
        fake = FakeUpstream()
        async with (
            fake.serve() as url,
            relaying(url) as (_, address),
            aiohttp.ClientSession() as http,
            http.ws_connect(address, params={"model": "far", "intent": "transcription"}) as socket,
        ):
            client = Client(socket)
            await client.until("session.created")
            heard = {"input": {"transcription": {"model": "gpt-4o-transcribe"}}}
            session = {"type": "transcription", "audio": heard}
            await client.send("session.update", session=session)
            async with asyncio.timeout(TIMEOUT_S):
                await fake.wait_for_sessions(1)
                updates = await fake.sessions[0].wait_for("session.update", 2)
            asked = updates[-1]["session"]
            assert fake.sessions[0].query["intent"] == "transcription"
            assert asked["type"] == "transcription"
            assert asked["audio"]["input"]["transcription"]["model"] == "gpt-4o-transcribe"

    idle_clock.run(main())


@pytest.mark.parametrize("how", ["cut", "expire", "half-open", 1000, 1012, 3000, 4000])
def test_client_without_a_fallback_is_closed_with_1011_whatever_ended_the_upstream_session(
    how: Any,
) -> None:
    async def main() -> None:
        fake = FakeUpstream("answer", how if how in ("cut", "expire") else "answer")
        async with on_relay(fake, fallback="none", heartbeat_s=0.2) as (_, client):
            await client.send("response.create")
            await client.until("response.done")
            if how == "half-open":
                fake.is_deaf = True
                fake.sessions[0].socket._autoping = False
            elif isinstance(how, int):
                await fake.sessions[0].socket.close(code=how, message=b"x" * 120)
            await client.send("response.create")
            code, close_code, reason = await read_until_closed(client)
            assert (code, close_code) == ("upstream_unavailable", 1011)
            assert len(reason.encode()) <= 123
            assert "xxx" not in reason

    idle_clock.run(main())


def test_no_frame_of_a_client_names_what_an_upstream_server_reveals_in_its_errors() -> None:
    chance = random.Random(10)
    separators = (" ", ", ", "=", ": ", "/", "(", '"', "\n", "\t", "\u00e9")

    async def main() -> None:
        fake = FakeUpstream()
        async with on_relay(fake, key="vk/secret+words==1") as (_, client):
            await client.send("response.create")
            await client.until("response.done")
            (session,) = fake.sessions
            words = [ORG, "proj_Abcdefgh12", "VK/secret+words==1", "vk/secret+words==1"]
            words += ["127.0.0.1", "10.20.30.40:8443", "eu-west.openai.azure.com", "sk-other12345"]
            for number in range(60):
                chance.shuffle(words)
                text = "Refused"
                for word in words:
                    text += chance.choice(separators) + word
                text += chance.choice((".", '"', " to you"))
                error = {"type": "invalid_request_error", "code": "refused", "message": text}
                match number % 3:
                    case 0:
                        await session.send("error", error={**error, "param": text})
                    case 1:
                        details = {"type": "failed", "error": error}
                        response = {"id": "r", "status": "failed", "status_details": details}
                        await session.send("response.done", response=response)
                    case _:
                        kind = "conversation.item.input_audio_transcription.failed"
                        await session.send(kind, item_id="i", content_index=0, error=error)
            await session.send("input_audio_buffer.cleared")
            frames: list[str] = []
            async with asyncio.timeout(TIMEOUT_S):
                while not frames or "input_audio_buffer.cleared" not in frames[-1]:
                    frames.append(await client._socket.receive_str())
            assert len(frames) > 60
            for frame in frames:
                for word in words:
                    assert word not in frame.replace('\\"', '"')

    idle_clock.run(main())
