"""Tests of the agent, without a microphone, a model or a network: pip install vivavoce pytest."""

import asyncio

from agent import run_agent

from vivavoce.testing.fake_server import call


def test_agent_looks_up_the_weather(fake_openai):
    async def conversation():
        fake_openai.answers(call("get_weather", city="Rome"), "In Rome it is sunny, 21 degrees.")
        async with fake_openai.application(run_agent(fake_openai.url)):
            await fake_openai.expect.event("session.updated")  # the agent has declared its tool
            await fake_openai.user.says("What is the weather in Rome?")
            await fake_openai.expect.tool_call("get_weather", city="Rome")
            await fake_openai.expect.tool_output('"degrees": 21')
            await fake_openai.expect.within(10).said("it is sunny")

    asyncio.run(conversation())


def test_agent_can_be_interrupted(fake_openai):
    async def conversation():
        fake_openai.answers("Let me tell you all about the weather of the last ten years.", "Yes?")
        async with fake_openai.application(run_agent(fake_openai.url)):
            await fake_openai.user.says("Tell me about the weather.")
            await fake_openai.user.interrupts_after("all about", "Stop!")
            await fake_openai.expect.interrupted()
            await fake_openai.expect.said("yes")

    asyncio.run(conversation())
