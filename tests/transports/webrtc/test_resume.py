"""Calls whose client comes back: with another connection, or after its server was killed."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp

from tests.server import scripted, serving, serving_until_killed
from tests.transports.webrtc.call_stage import Client
from vivavoce.store.sqlite import SQLiteStore

WORDS = "one two three four five six seven eight"
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

[engines.tts.scripted]
realtime_factor = 1.0
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


async def wait_until_stored(file: Path, words: bytes) -> None:
    """Wait until a checkpoint in the store of another process has these words."""

    def has_them() -> bool:
        with closing(sqlite3.connect(file)) as store:
            return any(words in row[0] for row in store.execute("SELECT value FROM sessions"))

    async with asyncio.timeout(60):
        while not has_them():  # noqa: ASYNC110  another process stores them
            await asyncio.sleep(0.01)


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
            async with calling(server.http, created) as second:
                assert second.location == first.location
                assert second.events[0]["resumed"] is True
                assert second.events[0]["session"]["id"] == created["session"]["id"]
                assert len(server.sessions) == 1
                await second.until("output_audio_buffer.stopped")
                assert words_of(second) == WORDS
                assert second.loud_ms > 0

    asyncio.run(main())


def test_new_call_after_a_killed_server_goes_on_with_the_conversation(tmp_path: Path) -> None:
    """Its items are there, and the answer that broke off is finished."""

    async def main() -> None:
        file = tmp_path / "s.db"
        config = CONFIG.format(store=file, words=WORDS)
        settings = scripted(llm={"answers": [WORDS]}, tts=LIVE)
        async with serving_until_killed(config, tmp_path) as doomed:
            async with calling(doomed.http) as first:
                await first.ask()
                await first.until("output_audio_buffer.started")
                await wait_until_stored(file, b"Who is there?")
                await doomed.kill()
            created = first.events[0]
            async with (
                SQLiteStore(file) as store,
                serving(settings, store=store) as server,
                calling(server.http, created) as second,
            ):
                assert second.location != first.location
                assert second.events[0]["resumed"] is True
                assert second.events[0]["session"]["id"] == created["session"]["id"]
                await second.until("output_audio_buffer.stopped")
                items = [e["item"] for e in second.events if e["type"] == "conversation.item.done"]
                assert [item["role"] for item in items] == ["user", "assistant"]
                assert items[0]["content"][0]["text"] == "Who is there?"
                assert words_of(second) == WORDS

    asyncio.run(main())
