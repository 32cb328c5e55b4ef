"""Functions that run on this server: Python objects of entry points, and webhooks."""

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from tests.engines.plugins import install
from vivavoce.errors import SettingsError
from vivavoce.protocol.items import FunctionTool
from vivavoce.runtime.tools import (
    MAX_OUTPUT_CHARACTERS,
    ServerTool,
    ToolCall,
    ToolSettings,
    built_tools,
)
from vivavoce.session.effects import RunTool
from vivavoce.settings_sources import parse

ORDER = RunTool("c1", "stock", '{"flavour": "lemon"}')


def tool_of(function: Any, timeout_s: float = 5.0) -> ServerTool:
    return ServerTool(FunctionTool("stock"), function, timeout_s)


def result(function: Any, order: RunTool = ORDER, timeout_s: float = 5.0) -> str:
    return asyncio.run(tool_of(function, timeout_s).run(order, "sess_1", "ada")).text


def test_function_gets_the_call_and_its_result_is_json() -> None:
    async def stock(call: ToolCall) -> object:
        assert call == ToolCall("stock", {"flavour": "lemon"}, "c1", "sess_1", "ada")
        return {"left": 3}

    assert result(stock) == '{"left":3}'


async def _text(call: ToolCall) -> str:
    return "x" * (MAX_OUTPUT_CHARACTERS + 1)


async def _fails(call: ToolCall) -> str:
    raise RuntimeError("a secret of the database")


async def _hangs(call: ToolCall) -> str:
    await asyncio.Event().wait()
    return ""


async def _no_json(call: ToolCall) -> object:
    return object()


@pytest.mark.parametrize(
    ("function", "arguments", "given"),
    [
        (_text, "", "x" * MAX_OUTPUT_CHARACTERS),
        (_fails, "{}", '{"error":"the function failed"}'),
        (_no_json, "{}", '{"error":"the function failed"}'),
        (_hangs, "{}", '{"error":"timeout"}'),
        (_text, "[1]", '{"error":"the arguments are not a JSON object"}'),
        (_text, "{", '{"error":"the arguments are not a JSON object"}'),
    ],
)
def test_failure_is_a_result_that_says_no_more_than_that(
    function: Any, arguments: str, given: str
) -> None:
    assert result(function, RunTool("c", "stock", arguments), 0.05) == given


@pytest.mark.parametrize(
    ("status", "given"), [(200, '{"left": 3}'), (500, '{"error":"the function failed"}')]
)
def test_webhook_gets_the_call_and_its_body_is_the_result(status: int, given: str) -> None:
    asked: list[tuple[str | None, dict[str, Any]]] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append((request.headers.get("Authorization"), await request.json()))
        return web.Response(text='{"left": 3}', status=status)

    async def main() -> str:
        app = web.Application()
        app.router.add_post("/stock", answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            url = f"http://127.0.0.1:{runner.addresses[0][1]}/stock"
            async with AsyncExitStack() as stack:
                settings = ToolSettings(url=url, secret="s3cret", description="How many.")
                tools = await built_tools({"stock": settings}, stack)
                assert tools["stock"].declared.description == "How many."
                return (await tools["stock"].run(ORDER, "sess_1", "ada")).text
        finally:
            await runner.cleanup()

    assert asyncio.run(main()) == given
    ((authorization, call),) = asked
    assert authorization == "Bearer s3cret"
    assert call == {
        "name": "stock",
        "arguments": {"flavour": "lemon"},
        "call_id": "c1",
        "session_id": "sess_1",
        "key": "ada",
    }


MODULE = """
class Stock:
    "A function."
    description = "How many are left."
    parameters = {"type": "object", "properties": {"flavour": {"type": "string"}}}
    async def __call__(self, call):
        return len(call.arguments)
stock = Stock()
nothing = 3
"""


async def _built(name: str, **settings: Any) -> ServerTool:
    async with AsyncExitStack() as stack:
        return (await built_tools({name: ToolSettings(**settings)}, stack))[name]


def test_entry_point_declares_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = "stock = shop:stock\nnothing = shop:nothing\nlost = shop:lost\n"
    install(tmp_path, "shop", {"shop": MODULE}, line, group="vivavoce.tools")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "shop", raising=False)
    tool = asyncio.run(_built("stock"))
    assert tool.declared.description == "How many are left."
    assert json.loads(msgspec.json.encode(tool.declared))["parameters"]["type"] == "object"
    assert asyncio.run(tool.run(ORDER, "s", "")) == ("1", "ok")
    with pytest.raises(SettingsError, match=r"\[tools.nothing\] shop:nothing cannot be called"):
        asyncio.run(_built("nothing"))
    with pytest.raises(SettingsError, match=r"\[tools.lost\] shop:lost cannot be loaded"):
        asyncio.run(_built("lost"))
    with pytest.raises(SettingsError, match=r"\[tools.x\] no package has an entry point"):
        asyncio.run(_built("x"))


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"tools": {"a": {"url": "ftp://x"}}}, "url is the address of a webhook"),
        ({"policies": {"p": {"tools": ["a"]}}}, r"\[policies.p\] tools: there is no table"),
        ({"models": {"default": {"policy": "p"}}}, "policy 'p' is none of the policies"),
    ],
)
def test_mistake_in_the_settings_is_named(tree: dict[str, Any], said: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=said):
        parse(tree)
