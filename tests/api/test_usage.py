"""A server with a store: keys that are added while it runs, budgets, and what was used."""

import asyncio
import random
import time
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from tests import idle_clock
from tests.api.audio_stage import tone
from tests.api.routes_stage import wav_of
from tests.fake_upstream import Answer, FakeUpstream
from tests.server import scripted, serving, serving_beside
from vivavoce.api.metered import METERING
from vivavoce.limits.accounts import ApiKey, Budget
from vivavoce.limits.keys import hash_of
from vivavoce.settings_sources import parse
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
            await _http(client, port)
            status, body = await _usage(client, port, "bob", "by=mood")
            assert (status, msgspec.json.decode(body)["error"]["param"]) == (400, "by")
            assert (await _usage(client, port, "unknown", ""))[0] == 401

    idle_clock.run(main())


async def _http(client: aiohttp.ClientSession, port: int) -> None:
    """Requests without a session are booked, too, and held to the same budgets."""
    http = f"http://127.0.0.1:{port}"
    speech = {"input": "one two", "voice": "marin", "model": "default"}
    url = f"{http}/v1/audio/speech"
    async with client.post(url, json=speech, headers=header("bob")) as response:
        assert response.status == 200
        await response.read()
    chat = {"model": "default", "messages": [{"role": "user", "content": "hello"}]}
    url = f"{http}/v1/chat/completions"
    for key in ("bob", "first"):
        async with client.post(url, json=chat, headers=header(key)) as response:
            assert response.status == 200
            await response.read()
    async with asyncio.timeout(60):
        kinds: set[str] = set()
        while not kinds >= {"speech", "completion"}:
            _, body = await _usage(client, port, "bob", "by=kind&key=bob")
            kinds = {line["group"]["kind"] for line in msgspec.json.decode(body)["data"]}
        code = ""
        while code != "insufficient_quota":  # as soon as the completion is booked
            async with client.post(url, json=chat, headers=header("first")) as response:
                code = (await response.json()).get("error", {}).get("code", "")
    async with client.get(f"{http}/metrics", headers=header("bob")) as response:
        text = await response.text()
    assert 'vivavoce_characters_total{model="default"} ' in text
    assert 'vivavoce_budget_refusals_total{scope="key",unit="tokens"} 2.0' in text
    assert "ada" not in text
    async with client.get(f"{http}/metrics") as response:
        assert response.status == 401


async def _admin(
    client: aiohttp.ClientSession, port: int, key: str, method: str, path: str, body: Any = None
) -> tuple[int, Any]:
    url = f"http://127.0.0.1:{port}/v1/admin/{path}"
    async with client.request(method, url, json=body, headers=header(key)) as response:
        text = await response.text()
        return response.status, msgspec.json.decode(text) if text else None


def test_admin_key_manages_keys_owners_and_budgets_over_http(tmp_path: Path) -> None:
    path = tmp_path / "accounts.db"

    async def main() -> None:
        async with SQLiteStore(path) as store:
            for name in ("ada", "bob"):
                key = ApiKey(name=name, hash=hash_of(name), admin=name == "bob")
                await store.save("key", name, msgspec.json.encode(key))
        config = SCRIPTED.format(path=path, first=hash_of("first"))
        async with serving_beside(config) as port, aiohttp.ClientSession() as client:
            await _manage(client, port)

    idle_clock.run(main())


async def _manage(client: aiohttp.ClientSession, port: int) -> None:
    async def call(method: str, path: str, body: Any = None) -> tuple[int, Any]:
        return await _admin(client, port, "bob", method, path, body)

    assert (await _admin(client, port, "ada", "GET", "keys"))[0] == 403
    status, made = await call("POST", "keys", {"name": "new", "user": "eve", "days": 1})
    assert status == 201
    assert made["expires_at"] > time.time()
    assert (await call("POST", "keys", {"name": "new"}))[0] == 400
    assert (await call("POST", "keys", {"name": "other", "user": "e v"}))[0] == 400
    events, _ = await talk(client, port, made["key"])
    assert events[-1]["type"] == "response.done"
    _, listed = await call("GET", "keys")
    assert [one["name"] for one in listed["data"]] == ["ada", "bob", "new"]
    assert "hash" not in str(listed)

    assert (await call("PUT", "users/eve", {"team": "lab"}))[1]["team"] == "lab"
    assert (await call("PUT", "teams/lab", {"blocked": True}))[0] == 200
    assert (await call("PUT", "teams/lab", {"team": "x"}))[0] == 400
    assert (await call("PUT", "users/-", {}))[0] == 400
    assert (await call("PUT", "users/eve", {"team": "a:b"}))[0] == 400
    assert [one["name"] for one in (await call("GET", "teams"))[1]["data"]] == ["lab"]
    events, _ = await talk(client, port, made["key"])
    assert "team is blocked" in events[0]["error"]["message"]
    assert (await call("DELETE", "teams/lab"))[0] == 204
    assert (await call("DELETE", "teams/lab"))[0] == 404

    budget = {"scope": "user", "name": "eve", "limit": "2.50", "unit": "usd", "period": "day"}
    status, shown = await call("PUT", "budgets", budget)
    assert (status, shown["id"], shown["limit"]) == (200, "user:eve:usd:day", "2.50")
    for wrong, param in (
        ({"limit": "much"}, "limit"),
        ({"timezone": "Mars/Olympus"}, "timezone"),
        ({"scope": "all"}, "name"),
    ):
        status, problem = await call("PUT", "budgets", {**budget, **wrong})
        assert (status, problem["error"]["param"]) == (400, param)
    assert (await call("GET", "budgets"))[1]["data"] == [shown]
    assert (await call("DELETE", "budgets/user:eve:usd:day"))[0] == 204

    assert (await call("DELETE", "keys/new"))[1]["revoked"] is True
    assert (await call("DELETE", "keys/nobody"))[0] == 404
    events, _ = await talk(client, port, made["key"])
    assert "revoked" in events[0]["error"]["message"]


async def _booked(path: Path, *, responses: int = 1) -> None:
    """Wait until these responses, and the end of a session, are in the store."""
    async with asyncio.timeout(60), SQLiteStore(path) as store:
        while True:
            rows = [row async for page in store.usage(0, time.time() + 1) for row in page]
            kinds = [row.kind for row in rows]
            if kinds.count("response") >= responses and "session" in kinds:
                return
            await asyncio.sleep(0.02)


RELAYED = """
[models.far]
type = "relay"
upstream = "{url}"
model = "gpt-realtime-2.1"
api_key = "sk-upstream"
"""
NANO_USD = {"text": 4_000, "audio": 32_000}
CACHED_NANO_USD = {"text": 400, "audio": 400}
OUTPUT_NANO_USD = {"text": 24_000, "audio": 64_000}


def _random_usage(chance: random.Random) -> dict[str, Any]:
    text, audio = chance.randrange(1, 900), chance.randrange(1, 900)
    cached = {"text_tokens": chance.randrange(text), "audio_tokens": chance.randrange(audio)}
    written, spoken = chance.randrange(90), chance.randrange(1, 400)
    inputs = {"text_tokens": text, "audio_tokens": audio, "cached_tokens_details": cached}
    inputs["cached_tokens"] = sum(cached.values())
    return {
        "total_tokens": text + audio + written + spoken,
        "input_tokens": text + audio,
        "output_tokens": written + spoken,
        "input_token_details": inputs,
        "output_token_details": {"text_tokens": written, "audio_tokens": spoken},
    }


def _hand_calculated(usage: Any) -> int:
    """Nano-USD, by the list price of gpt-realtime-2.1."""
    inputs, outputs = usage["input_token_details"], usage["output_token_details"]
    cost = 0
    for kind in ("text", "audio"):
        name = f"{kind}_tokens"
        cached = inputs["cached_tokens_details"][name]
        cost += (inputs[name] - cached) * NANO_USD[kind] + cached * CACHED_NANO_USD[kind]
        cost += outputs[name] * OUTPUT_NANO_USD[kind]
    return cost


def test_ledger_is_the_sum_of_what_the_upstream_server_billed(tmp_path: Path) -> None:
    path, chance = tmp_path / "accounts.db", random.Random(12)
    fake = FakeUpstream()
    fake.behaviours = [Answer(usage=_random_usage(chance)) for _ in range(33)]

    async def call(client: aiohttp.ClientSession, port: int) -> None:
        """Some turns; some clients are gone then without a word."""
        url = f"ws://127.0.0.1:{port}/v1/realtime?model=far"
        async with client.ws_connect(url, headers=header("first")) as socket:
            for _ in range(chance.randrange(1, 4)):
                await socket.send_json(TEXT)
                await socket.send_json({"type": "response.create"})
                while (await socket.receive_json())["type"] != "response.done":
                    pass
            if chance.random() < 0.5:
                transport = socket.get_extra_info("socket")
                transport.shutdown(2)

    async def main() -> None:
        async with SQLiteStore(path) as store:
            budget = Budget(scope="key", owner="first", unit="usd", period="total", limit=10**10)
            await store.save("budget", budget.id, msgspec.json.encode(budget))
        async with fake.serve() as upstream:
            config = SCRIPTED.format(path=path, first=hash_of("first"))
            config += RELAYED.format(url=upstream)
            async with serving_beside(config) as port, aiohttp.ClientSession() as client:
                await asyncio.gather(*(call(client, port) for _ in range(16)))
                await fake.wait_closed()
                await _booked(path, responses=len(fake.billed))
        async with SQLiteStore(path) as store:
            rows = [row async for page in store.usage(0, time.time() + 1) for row in page]
            balance = await store.balance(budget.id, budget.period_at(time.time()))
        booked = [row.nano_usd for row in rows if row.kind == "response"]
        assert len(booked) > 16
        assert sorted(booked) == sorted(_hand_calculated(usage) for usage in fake.billed)
        assert balance.spent == sum(row.nano_usd for row in rows)

    idle_clock.run(main())


def test_key_that_is_limited_to_models_is_held_to_them_over_http() -> None:
    tree = msgspec.to_builtins(scripted(), enc_hook=str)
    tree["models"]["second"] = tree["models"]["default"]
    tree["engines"]["stt"]["deaf"] = {"engine": "scripted"}
    tree["engines"]["tts"]["bass"] = {"engine": "scripted", "voices": ["low"]}
    settings = parse({**tree, "keys": {"first": hash_of("first")}})

    async def main() -> None:
        async with (
            asyncio.timeout(60),
            serving(settings, accounts=True) as server,
            aiohttp.ClientSession(server.http, headers=header("ada")) as client,
        ):
            meter = server.app[METERING]
            key = ApiKey(name="ada", hash=hash_of("ada"), models=("default", "bass"))
            await meter.store.save("key", "ada", msgspec.json.encode(key))
            await meter.refresh()

            async def status(path: str, **body: Any) -> int:
                async with client.post(path, **body) as response:
                    if response.status == 400:
                        error = (await response.json())["error"]
                        assert (error["code"], error["param"]) == ("model_not_found", "model")
                    return response.status

            async def spoken(model: str) -> int:
                body = {"input": "Hi.", "model": model, "response_format": "pcm"}
                return await status("/v1/audio/speech", json=body)

            async def heard(model: str) -> int:
                form = aiohttp.FormData({"model": model})
                form.add_field("file", wav_of(tone(0.2)), filename="a.wav")
                return await status("/v1/audio/transcriptions", data=form)

            async def answered(model: str) -> int:
                body = {"model": model, "messages": [{"role": "user", "content": "Hi."}]}
                return await status("/v1/chat/completions", json=body)

            assert [await spoken(one) for one in ("", "tts-1", "bass")] == [200, 200, 200]
            assert await spoken("second") == 400
            assert [await heard(one) for one in ("", "whisper-1")] == [200, 200]
            assert [await heard(one) for one in ("deaf", "second")] == [400, 400]
            assert [await answered(one) for one in ("", "default")] == [200, 200]
            assert [await answered(one) for one in ("gpt-5", "second")] == [400, 400]

    idle_clock.run(main())
