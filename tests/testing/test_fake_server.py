"""The fake server for tests of applications: in virtual time, in a thread, and in the examples."""

import asyncio
import importlib
import inspect
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from vivavoce import pytest_plugin
from vivavoce.testing import run
from vivavoce.testing.fake_server import FakeServer, call
from vivavoce.testing.threads import running_in_thread

EXAMPLE = Path(__file__).parents[2] / "examples" / "voice_agent"
TOOL = {"type": "function", "name": "get_weather", "parameters": {"type": "object"}}


def test_fake_server_tool_round_trip_in_virtual_time() -> None:
    async def main() -> None:
        async with FakeServer().running(listen=False) as fake, fake.connect(tools=[TOOL]) as client:
            fake.answers(call("get_weather", city="Rome"), "It is sunny in Rome.")
            await fake.user.says("What is the weather in Rome?")
            await fake.expect.heard("what is the weather in rome")
            made = await fake.expect.tool_call("get_weather", city="Rome")
            await fake.expect.event("response.done")
            client.tool_output(made.fields["call_id"], '{"sky": "clear"}')
            await fake.expect.tool_output("clear")
            await fake.expect.said("it is sunny")
            assert [tool.name for tool in fake.requests[0].tools] == ["get_weather"]

    run(main())


def test_fake_server_answer_is_interrupted_in_virtual_time() -> None:
    async def main() -> float:
        async with FakeServer().running(listen=False) as fake, fake.connect() as client:
            fake.set_pace(1.0)
            fake.answers("Once upon a time there was a fox. " * 20, "Yes?")
            client.say("Tell me a story.")
            await fake.user.interrupts_after("there was a fox", "Wait!")
            await fake.expect.within(60).interrupted()
            await fake.expect.within(60).said("Yes?")
            return asyncio.get_running_loop().time()

    assert 0 < run(main()) < 40  # the whole story takes 40 s


def test_fake_server_without_an_answer_fails_the_response() -> None:
    async def main() -> str:
        async with FakeServer().running(listen=False) as fake, fake.connect() as client:
            client.say("Hello?")
            done = await fake.expect.event("response.done")
            return str(done.fields["response"]["status_details"]["error"]["message"])

    assert "the test has given no answer for this request" in run(main())


def test_expectation_that_is_not_met_names_the_last_events() -> None:
    async def main() -> None:
        async with FakeServer().running(listen=False) as fake, fake.connect() as client:
            fake.answers("Hello.")
            client.say("Hello?")
            await fake.expect.within(30).said("goodbye")

    with pytest.raises(AssertionError, match=r"an answer with 'goodbye'.* 30 s.*response\.done"):
        run(main())


@pytest.mark.parametrize(
    ("listen", "sentence"),
    [(False, "no session is connected"), (None, "the fake server does not run")],
)
def test_user_of_no_session_is_refused(listen: bool | None, sentence: str) -> None:
    async def main() -> None:
        fake = FakeServer()
        if listen is None:
            await fake.user.says("Hello?")
        else:
            async with fake.running(listen=listen):
                async with fake.connect():
                    await fake.expect.event("session.created")
                await fake.user.says("Hello?")

    with pytest.raises(AssertionError, match=sentence):
        run(main())


def test_application_that_fails_fails_the_test() -> None:
    async def application() -> None:
        raise ValueError("the application has a fault")

    async def main() -> None:
        async with (
            FakeServer().running(listen=False) as fake,
            fake.application(application()),
        ):
            await fake.expect.said("anything")

    with pytest.raises(ExceptionGroup) as failed:
        run(main())
    assert failed.group_contains(ValueError, match="the application has a fault")


def test_plugin_is_an_entry_point_of_pytest() -> None:
    (entry,) = [each for each in entry_points(group="pytest11") if each.name == "vivavoce"]
    assert entry.load() is pytest_plugin


def example_tests() -> list[str]:
    source = (EXAMPLE / "test_agent.py").read_text("utf-8")
    return [line[4:].partition("(")[0] for line in source.splitlines() if line[:9] == "def test_"]


@pytest.mark.parametrize("name", example_tests())
def test_example_suite_passes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    monkeypatch.delitem(sys.modules, "agent", raising=False)
    test: Any = getattr(importlib.import_module("test_agent"), name)
    assert list(inspect.signature(test).parameters) == ["fake_openai"]
    with running_in_thread() as fake:
        test(fake)
    monkeypatch.delitem(sys.modules, "test_agent")
