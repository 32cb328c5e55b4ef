"""A small agent with one tool, on OpenAI's client."""

import json

from openai import AsyncOpenAI

TOOL = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}


def get_weather(city):
    """Where the weather would be looked up."""
    return json.dumps({"city": city, "sky": "sunny", "degrees": 21})


async def run_agent(base_url):
    """Serve one caller: the server detects the turns, the agent runs the tool."""
    client = AsyncOpenAI(base_url=base_url, api_key="none")
    async with client, client.realtime.connect(model="gpt-realtime") as connection:
        await connection.session.update(session={"type": "realtime", "tools": [TOOL]})
        async for event in connection:
            if event.type == "response.function_call_arguments.done":
                output = get_weather(**json.loads(event.arguments))
                item = {"type": "function_call_output", "call_id": event.call_id, "output": output}
                await connection.conversation.item.create(item=item)
            elif event.type == "response.done" and has_call(event.response):
                await connection.response.create()


def has_call(response):
    """Whether the model has called a function, so that an answer has to follow."""
    return any(item.type == "function_call" for item in response.output)
