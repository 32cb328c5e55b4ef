"""A relayed call whose budget ends: the last sentence, whatever the upstream server does."""

import asyncio
import base64

import aiohttp
import openai
import pytest
from websockets.exceptions import ConnectionClosed

from tests import idle_clock
from tests.fake_upstream import Behaviour, FakeUpstream
from tests.transports.test_relay import TIMEOUT_S, relaying
from tests.transports.test_relay_faults import closed, on_relay
from vivavoce.session.facts import AccessEnded

WORDS = "Bye."
SPENT = AccessEnded("insufficient_quota", "You exceeded your current quota.", 4002)


@pytest.mark.parametrize("behaviour", ["answer", "stall"])
def test_budget_that_ends_in_a_call_is_said_by_voice_and_then_closed_with_4002(
    behaviour: Behaviour,
) -> None:
    """`stall`: the upstream server says nothing any more."""

    async def main() -> None:
        fake = FakeUpstream(behaviour)
        async with on_relay(fake, session={"say_budget_spent": WORDS}) as (here, client):
            await client.send("response.create")
            if behaviour == "answer":
                await client.until("response.created")
            else:
                async with asyncio.timeout(TIMEOUT_S):
                    await fake.wait_for_sessions(1)
            (runner,) = here.sessions._runners
            runner.post(SPENT)
            await closed(fake)  # at once
            received: list[dict[str, object]] = []
            socket = client._socket
            async with asyncio.timeout(TIMEOUT_S):
                while (message := await socket.receive()).type is aiohttp.WSMsgType.TEXT:
                    received.append(message.json())
            assert socket.close_code == 4002
            *_, ended, limits, error = received
            assert (limits["type"], error["type"]) == ("rate_limits.updated", "error")
            assert error["error"]["code"] == "insufficient_quota"  # type: ignore[index]
            response = ended["response"]
            assert response["status"] == "completed"  # type: ignore[index]
            deltas = [
                base64.b64decode(str(event["delta"]))
                for event in received
                if event.get("response_id") == response["id"]  # type: ignore[index]
                and event["type"] == "response.output_audio.delta"
            ]
            texts = [
                event["transcript"]
                for event in received
                if event["type"] == "response.output_audio_transcript.done"
            ]
            assert texts[-1] == WORDS
            assert sum(map(len, deltas)) > 4_800

    idle_clock.run(main())


def test_official_client_does_not_connect_again_after_a_budget_has_ended() -> None:
    async def main() -> None:
        fake = FakeUpstream()
        again: list[object] = []
        words = {"say_budget_spent": ""}
        async with fake.serve() as url, relaying(url, session=words) as (here, address):
            client = openai.AsyncOpenAI(
                api_key="none", base_url=address.replace("ws", "http", 1).removesuffix("/realtime")
            )
            connecting = client.realtime.connect(model="far", on_reconnecting=again.append)
            async with client, connecting as connection:
                assert (await connection.recv()).type == "session.created"
                (runner,) = here.sessions._runners
                runner.post(SPENT)
                assert (await connection.recv()).type == "error"
                with pytest.raises(ConnectionClosed) as closing:
                    await connection.recv()
            assert closing.value.rcvd is not None
            assert (closing.value.rcvd.code, again) == (4002, [])

    idle_clock.run(main())
