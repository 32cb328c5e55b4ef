"""A server with a store: keys that are added while it runs, budgets, and what was used."""

import asyncio
import time
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from tests.server import serving_beside
from vivavoce.limits.accounts import ApiKey, Budget
from vivavoce.limits.keys import hash_of
from vivavoce.store.sqlite import SQLiteStore

SCRIPTED = """
[models.default]
vad = "scripted"
turn = "scripted"
stt = "scripted"
llm = "scripted"
tts = "scripted"

[store]
url = "sqlite:{path}"

[keys]
first = "{first}"
"""
TEXT = {
    "type": "conversation.item.create",
    "item": {
        "type": "message",
        "role": "user",
        "content": [{"type": "input_text", "text": "hello"}],
    },
}


def header(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def talk(client: aiohttp.ClientSession, port: int, key: str) -> tuple[list[Any], int | None]:
    """The events of one typed turn, and the close code."""
    events: list[Any] = []
    url = f"ws://127.0.0.1:{port}/v1/realtime"
    async with client.ws_connect(url, headers=header(key)) as socket:
        await socket.send_json(TEXT)
        await socket.send_json({"type": "response.create"})
        async for message in socket:
            events.append(message.json())
            if events[-1]["type"] == "response.done":
                await socket.close()
        return events, socket.close_code


async def _usage(client: aiohttp.ClientSession, port: int, key: str, query: str) -> Any:
    url = f"http://127.0.0.1:{port}/v1/usage?{query}"
    async with client.get(url, headers=header(key)) as response:
        return response.status, await response.text()


def test_server_books_usage_by_key_and_refuses_whom_no_budget_pays_for(tmp_path: Path) -> None:
    path = tmp_path / "accounts.db"

    async def main() -> None:
        async with SQLiteStore(path) as store:
            for name in ("ada", "bob"):
                key = ApiKey(name=name, hash=hash_of(name), admin=name == "bob")
                await store.save("key", name, msgspec.json.encode(key))
            budget = Budget(scope="key", owner="first", unit="tokens", period="total", limit=1)
            await store.save("budget", budget.id, msgspec.json.encode(budget))
        config = SCRIPTED.format(path=path, first=hash_of("first"))
        async with serving_beside(config) as port, aiohttp.ClientSession() as client:
            events, _ = await talk(client, port, "ada")
            assert events[-1]["response"]["status"] == "completed"
            events, code = await talk(client, port, "first")
            assert [one["type"] for one in events] == ["error"]
            assert events[0]["error"]["code"] == "insufficient_quota"
            assert "key:first:tokens:total" in events[0]["error"]["message"]
            assert code == 4002
            await _booked(path)
            status, body = await _usage(client, port, "ada", "by=key")
            (line,) = msgspec.json.decode(body)["data"]
            assert (line["group"], line["responses"]) == ({"key": "ada"}, 1)
            assert line["output_tokens"] > 0
            _, own = await _usage(client, port, "first", "by=key")
            assert msgspec.json.decode(own)["data"] == []
            _, text = await _usage(client, port, "bob", "by=key,model&form=csv&key=ada")
            assert text.splitlines()[1].startswith("ada,default,1,1,")
            status, body = await _usage(client, port, "bob", "by=mood")
            assert (status, msgspec.json.decode(body)["error"]["param"]) == (400, "by")
            assert (await _usage(client, port, "unknown", ""))[0] == 401

    asyncio.run(main())


async def _booked(path: Path) -> None:
    """Wait until the end of the session is in the store."""
    async with asyncio.timeout(10.0), SQLiteStore(path) as store:
        while True:
            rows = [row async for page in store.usage(0, time.time() + 1) for row in page]
            if {row.kind for row in rows} == {"response", "session"}:
                return
            await asyncio.sleep(0.02)
