"""Calls whose client comes back: with another connection, or after its server was killed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp

from tests import idle_clock
from tests.server import scripted, serving, serving_until_killed, wait_until_answer_is_stored
from tests.transports.test_resume import the_ticket
from tests.transports.webrtc.call_stage import Client
from vivavoce.store.sqlite import SQLiteStore

WORDS = "one two three four five six seven eight"
LONG = " ".join(["and on it goes"] * 25)
"""So long that nobody hears its end before the server is killed."""
LIVE = {"realtime_factor": 1.0}
CONFIG = """
[store]
url = "sqlite:{store}"

[models.default]
vad = "scripted"
turn = "scripted"
stt = "scripted"
llm = "scripted"
tts = "scripted"

[engines.llm.scripted]
answers = ["{words}"]
"""


@asynccontextmanager
async def calling(http: str, created: dict[str, Any] | None = None) -> AsyncIterator[Client]:
    """A call; created: the first event of the one that it takes the place of."""
    query = {"model": "default"}
    if created:
        query |= {"session_id": created["session"]["id"], "items": "1"}
        query |= {"resume_token": created["resume"]["token"]}
    client = Client()
    try:
        async with aiohttp.ClientSession() as session:
            reply = await session.post(
                f"{http}/v1/realtime/calls?{urlencode(query)}",
                data=await client.offer(),
                headers={"Content-Type": "application/sdp"},
            )
            assert reply.status == 201, await reply.text()
            client.location = reply.headers["Location"]
            await client.accept(await reply.text())
        await client.until("session.created")
        yield client
    finally:
        await client.connection.close()


def words_of(client: Client) -> str:
    """What the answers said whose transcripts have come."""
    kind = "response.output_audio_transcript.done"
    return " ".join(event["transcript"] for event in client.events if event["type"] == kind)


def test_new_call_within_the_grace_time_has_the_call_id_the_session_and_the_answer() -> None:
    async def main() -> None:
        settings = scripted(llm={"answers": [WORDS]}, tts=LIVE)
        async with SQLiteStore(":memory:") as store, serving(settings, store=store) as server:
            async with calling(server.http) as first:
                await first.ask()
                await first.until("output_audio_buffer.started")
                created = first.events[0]
            ticket = the_ticket(server)
            claimed_before = ticket.epoch
            async with calling(server.http, created) as second:
                assert the_ticket(server) is ticket
                assert ticket.epoch > claimed_before
                assert second.location == first.location
                assert second.events[0]["resumed"] is True
                assert second.events[0]["session"]["id"] == created["session"]["id"]
                assert len(server.sessions) == 1
                await second.until("output_audio_buffer.stopped")
                assert words_of(second) == WORDS
                assert second.loud_ms > 0

    idle_clock.run(main())


def test_new_call_after_a_killed_server_goes_on_with_the_conversation(tmp_path: Path) -> None:
    """Its items are there, and the words that were not played are spoken without the model."""

    async def main() -> None:
        file = tmp_path / "s.db"
        async with serving_until_killed(CONFIG.format(store=file, words=LONG), tmp_path) as doomed:
            async with calling(doomed.http) as first:
                await first.ask()
                await first.until("output_audio_buffer.started")
                await wait_until_answer_is_stored(file)
                await doomed.kill()
            created = first.events[0]
            async with (
                SQLiteStore(file) as store,
                serving(scripted(), store=store) as server,
                calling(server.http, created) as second,
            ):
                assert second.location != first.location
                assert second.events[0]["resumed"] is True
                assert second.events[0]["session"]["id"] == created["session"]["id"]
                await second.until("response.done")
                items = [e["item"] for e in second.events if e["type"] == "conversation.item.done"]
                assert [item["role"] for item in items] == ["user", "assistant", "assistant"]
                assert items[0]["content"][0]["text"] == "Who is there?"
                heard = items[1]["content"][0]["transcript"]
                assert f"{heard} {words_of(second)}".strip() == LONG
                assert not server.llm.requests

    idle_clock.run(main())
