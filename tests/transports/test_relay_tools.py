"""A function of this server, of a relay and of a cascade, from the settings to the wire."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import msgspec

from tests import idle_clock
from tests.fake_upstream import FakeSession, FakeUpstream
from tests.server import scripted, serving
from tests.transports.test_relay import TIMEOUT_S, Client, connected
from vivavoce.protocol.items import FunctionTool
from vivavoce.runtime.tools import ServerTool, ToolCall, ToolSettings
from vivavoce.session.policy import Policy
from vivavoce.settings import RelayModel


class CallingUpstream(FakeUpstream):
    """Its first response calls a function, and sends sound behind the call."""

    async def respond(self, session: FakeSession) -> None:
        response = {"id": "resp_call", "conversation_id": "c", "status": "in_progress"}
        await session.send("response.created", response=response)
        call = {"id": "fc", "type": "function_call", "name": "stock", "call_id": "c1"}
        place = {"response_id": "resp_call", "output_index": 0}
        await session.send("response.output_item.added", item=call, **place)
        await session.send("conversation.item.added", item=call, previous_item_id=None)
        call |= {"status": "completed", "arguments": "{}"}
        await session.send("response.output_item.done", item=call, **place)
        message = {"id": "m", "type": "message", "role": "assistant", "content": []}
        place = {"response_id": "resp_call", "output_index": 1}
        await session.send("response.output_item.added", item=message, **place)
        await session.send("conversation.item.added", item=message, previous_item_id="fc")
        delta = msgspec.to_builtins(bytes(4800))
        await session.send("response.output_audio.delta", item_id="m", delta=delta, **place)
        done = {**response, "status": "completed", "output": [call, message]}
        await session.send("response.done", response=done)


@asynccontextmanager
async def calling(function: Any) -> AsyncIterator[tuple[FakeUpstream, Client]]:
    """A client of a relay whose policy names a function."""
    fake = CallingUpstream()
    async with fake.serve() as url:
        settings = scripted()
        far = RelayModel(upstream=url, api_key="sk-upstream", policy="shop")
        settings = msgspec.structs.replace(
            settings,
            models={**settings.models, "far": far},
            policies={"shop": Policy(tools=("stock",))},
            tools={"stock": ToolSettings(url="http://127.0.0.1:9/never")},
        )
        async with serving(settings) as server:
            tool = ServerTool(FunctionTool("stock"), function, 5.0)
            server.sessions.replace_context(replace(server.sessions.context, tools={"stock": tool}))
            async with connected(f"{server.ws}/v1/realtime", "far") as client:
                async with asyncio.timeout(TIMEOUT_S):
                    await fake.wait_for_sessions(1)
                await fake.respond(fake.sessions[0])
                yield fake, client


def test_function_of_this_server_runs_while_sound_goes_on_and_nobody_sees_it() -> None:
    async def main() -> None:
        release = asyncio.Event()

        async def stock(call: ToolCall) -> object:
            await release.wait()
            return {"left": 3, "session": call.session_id}

        async with calling(stock) as (fake, client):
            await client.until("response.output_audio.delta")  # while the function runs
            done = await client.until("response.done")
            assert [item["id"] for item in done["response"]["output"]] == ["m"]
            release.set()
            answered = await client.until("response.done")
            assert answered["response"]["status"] == "completed"
            (created,) = fake.sessions[0].events("conversation.item.create")
            session_id = client.events[0]["session"]["id"]
            output = json.loads(created["item"]["output"])
            assert output == {"left": 3, "session": session_id}
            assert len(fake.sessions[0].events("response.create")) == 1
            seen = json.dumps(client.events)
            for hidden in ('"fc"', '"c1"', "stock", "function_call", '"left"'):
                assert hidden not in seen

    idle_clock.run(main())


def test_function_of_this_server_runs_for_a_cascade_and_nobody_sees_it() -> None:
    async def main() -> None:
        asked: list[ToolCall] = []

        async def stock(call: ToolCall) -> object:
            asked.append(call)
            return {"left": 3}

        call = {"text": "Let me look.", "calls": [{"name": "stock", "arguments": {"of": "lime"}}]}
        settings = scripted(llm={"answers": [call, "Three are left."]})
        default = msgspec.structs.replace(settings.models["default"], policy="shop")
        settings = msgspec.structs.replace(
            settings,
            models={"default": default},
            policies={"shop": Policy(tools=("stock",))},
            tools={"stock": ToolSettings(url="http://127.0.0.1:9/never")},
        )
        async with serving(settings) as server:
            tool = ServerTool(FunctionTool("stock"), stock, 5.0)
            server.sessions.replace_context(replace(server.sessions.context, tools={"stock": tool}))
            async with connected(f"{server.ws}/v1/realtime", "default") as client:
                await client.send("response.create")
                done = await client.until("response.done")
                (item,) = done["response"]["output"]
                assert item["content"][0]["transcript"] == "Let me look. Three are left."
                (seen,) = asked
                assert seen.arguments == {"of": "lime"}
                assert seen.session_id == client.events[0]["session"]["id"]
                wire = json.dumps(client.events)
                assert "function_call" not in wire
                assert "stock" not in wire

    idle_clock.run(main())


def test_function_in_the_background_of_a_cascade_is_answered_twice() -> None:
    async def main() -> None:
        release = asyncio.Event()

        async def stock(call: ToolCall) -> object:
            await release.wait()
            return {"left": 3}

        call = {"text": "Let me look.", "calls": [{"name": "stock", "arguments": {}}]}
        answers = [call, "It takes a while.", "Three are left."]
        settings = scripted(llm={"answers": answers}, tts={"ms_per_character": 1})
        default = msgspec.structs.replace(settings.models["default"], policy="shop")
        settings = msgspec.structs.replace(
            settings,
            models={"default": default},
            policies={"shop": Policy(tools=("stock",))},
            tools={"stock": ToolSettings(url="http://127.0.0.1:9/never")},
        )
        async with serving(settings) as server:
            tool = ServerTool(FunctionTool("stock"), stock, 5.0, background=True)
            server.sessions.replace_context(replace(server.sessions.context, tools={"stock": tool}))
            async with connected(f"{server.ws}/v1/realtime", "default") as client:
                await client.send("response.create")
                done = await client.until("response.done")
                (item,) = done["response"]["output"]
                assert item["content"][0]["transcript"] == "Let me look. It takes a while."
                release.set()
                told = await client.until("response.done")
                assert told["response"]["metadata"] == {"vivavoce": "background_result"}
                (item,) = told["response"]["output"]
                assert item["content"][0]["transcript"] == "Three are left."

    idle_clock.run(main())
