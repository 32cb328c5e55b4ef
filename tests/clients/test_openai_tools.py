"""The official client: functions that the model calls and the client runs."""

import json
from typing import Any

from tests.clients.line import Line, calling
from tests.clients.loop import awaited
from tests.server import scripted, serving
from vivavoce.protocol.items import FunctionCall, FunctionCallOutput

WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the current weather for a city.",
    "parameters": {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Weather",
        "type": "object",
        "properties": {"location": {"type": "string", "description": "City name"}},
        "required": ["location"],
    },
}


async def give_back(line: Line, call: Any, output: object) -> None:
    await line.to.conversation.item.create(
        item={
            "type": "function_call_output",
            "call_id": call.call_id,
            "output": json.dumps(output),
        }
    )
    await line.until("conversation.item.done")


@awaited
async def test_function_call_output_is_answered() -> None:
    """With the embedded model, which reads the declared tools."""
    async with serving(scripted(models={"llm": "builtin"})) as server, calling(server) as line:
        session = await line.update(tools=[WEATHER], output_modalities=["text"])
        assert session.tools[0].parameters == WEATHER["parameters"]
        await line.write("What is the weather in Rome?")
        await line.to.response.create()
        answer = await line.answer()
        assert answer.status == "completed"
        (call,) = (item for item in answer.output if item.type == "function_call")
        assert (call.name, json.loads(call.arguments)) == ("get_weather", {"location": "Rome"})
        (done,) = line.of("response.function_call_arguments.done")
        assert (done["name"], done["call_id"]) == (call.name, call.call_id)
        (added,) = (
            frame["item"]
            for frame in line.of("conversation.item.added")
            if frame["item"]["type"] == "function_call"
        )
        assert (added["name"], added["call_id"], added["arguments"]) == (
            call.name,
            call.call_id,
            "",
        )

        await give_back(line, call, {"temperature": 31, "conditions": "sunny"})
        await line.to.response.create()
        got = (await line.answer()).output[0].content[0].text
        assert "thirty-one" in got
        assert "sunny" in got


@awaited
async def test_response_may_hold_text_and_several_calls() -> None:
    asked = {
        "text": "One moment.",
        "calls": [
            {"name": "get_weather", "arguments": {"location": "Rome"}},
            {"name": "get_weather", "arguments": {"location": "Venice, Italy"}},
        ],
    }
    async with serving(scripted(llm={"answers": [asked, "Sunny in both."]})) as server:
        async with calling(server) as line:
            await line.update(tools=[WEATHER])
            await line.write("Rome and Venice?")
            await line.to.response.create()
            answer = await line.answer()
            calls = [item for item in answer.output if item.type == "function_call"]
            places = [json.loads(call.arguments)["location"] for call in calls]
            assert places == ["Rome", "Venice, Italy"]
            (message,) = (item for item in answer.output if item.type == "message")
            assert message.content[0].transcript == "One moment."
            for call in calls:
                await give_back(line, call, "sunny")
            await line.to.response.create()
            assert (await line.answer()).output[0].content[0].transcript == "Sunny in both."
        got = server.llm.requests[-1].items
        assert [i.call_id for i in got if isinstance(i, FunctionCall)] == [
            i.call_id for i in got if isinstance(i, FunctionCallOutput)
        ]
        assert [tool.name for tool in server.llm.requests[-1].tools] == ["get_weather"]


@awaited
async def test_function_call_output_of_an_unknown_call_is_refused() -> None:
    async with serving() as server, calling(server) as line:
        await line.to.conversation.item.create(
            item={"type": "function_call_output", "call_id": "call_none", "output": "{}"},
            event_id="mine",
        )
        refused = (await line.until("error")).error
        assert (refused.code, refused.event_id) == ("invalid_tool_call_id", "mine")


@awaited
async def test_tool_choice_none_applies_to_one_response() -> None:
    async with serving() as server, calling(server) as line:
        await line.update(tools=[WEATHER], tool_choice="required")
        assert line.of("session.updated")[-1]["session"]["tool_choice"] == "required"
        await line.write("Rome?")
        await line.to.response.create(response={"tool_choice": "none", "tools": []})
        await line.answer()
        (request,) = server.llm.requests
        assert (request.tool_choice, request.tools) == ("none", ())
