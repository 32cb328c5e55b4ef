"""The fake server for tests of applications: in virtual time, in a thread, and in the examples."""

import asyncio
import importlib
import inspect
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from openai import AsyncOpenAI

from vivavoce import pytest_plugin
from vivavoce.media import files
from vivavoce.testing import ScriptedAnswer, run
from vivavoce.testing.clips import hum
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


def test_user_who_speaks_in_real_time_takes_as_long_as_the_words_in_virtual_time() -> None:
    async def main() -> tuple[float, float]:
        async with FakeServer().running(listen=False) as fake, fake.connect():
            clock = asyncio.get_running_loop().time
            fake.answers("Yes.")
            fake.user.set_pace(1.0)
            await fake.user.says("x" * 100)  # 4 s of tone, and 0.8 s of silence
            spoken = clock()
            await fake.user.is_silent(2.0)
            return spoken, clock()

    assert run(main()) == pytest.approx((4.8, 6.8))


def test_user_plays_a_recording_whose_words_are_heard(tmp_path: Path) -> None:
    files.write_wav(tmp_path / "clip.wav", hum(900))

    async def main() -> None:
        async with FakeServer().running(listen=False) as fake, fake.connect():
            fake.answers("Yes.", "Yes again.")
            await fake.user.plays(tmp_path / "clip.wav", "Is it raining?")
            await fake.expect.heard("is it raining")
            await fake.expect.said("yes")
            await fake.user.plays(hum(900), "And now?")
            await fake.expect.said("yes again")

    run(main())


def test_expectations_of_settings_order_times_and_absence() -> None:
    async def main() -> None:
        async with (
            FakeServer().running(listen=False) as fake,
            fake.connect(audio={"output": {"voice": "coral"}}),
        ):
            await fake.expect.setting("audio.output.voice", "coral")
            fake.answers(ScriptedAnswer("The museum is open.", first_token_seconds=0.2))
            await fake.user.says("Is it open?")
            await fake.expect.first_audio(0.5)
            await fake.expect.events_in_order("response.created", "response.done")
            await fake.expect.not_said("closed")
            await fake.expect.never("error", for_s=30)
            with pytest.raises(
                AssertionError, match=r"'open' was not to be said, and was: 'The mu"
            ):
                await fake.expect.not_said("open")
            with pytest.raises(AssertionError, match=r"response\.done was not to come, and came"):
                await fake.expect.never("response.done")
            with pytest.raises(AssertionError, match="in this order: it did not come"):
                await fake.expect.events_in_order("response.done", "session.created")
            with pytest.raises(AssertionError, match=r"took 0\.\d+ s, more than 0\.01 s"):
                await fake.expect.first_audio(0.01)

    run(main())


def test_server_events_of_the_test_reach_the_application() -> None:
    async def application(fake: FakeServer, seen: list[str]) -> None:
        client = AsyncOpenAI(base_url=fake.url, api_key="none", max_retries=0)
        async with client, client.realtime.connect(model="gpt-realtime") as connection:
            async for event in connection:
                seen.append(event.type)

    async def main() -> list[str]:
        seen: list[str] = []
        async with FakeServer().running() as fake:
            serving = asyncio.create_task(application(fake, seen))
            await fake.expect.event("session.created")
            await fake.send("rate_limits.updated", rate_limits=[])
            await fake.expect.event("rate_limits.updated")
            await fake.expire()
            await fake.expect.error("session_expired")
            await serving  # a normal close ends the iteration
        return seen

    assert asyncio.run(main()) == ["session.created", "rate_limits.updated", "error"]


def test_server_drops_closes_and_sends_malformed_frames() -> None:
    async def main() -> list[object]:
        seen: list[object] = []
        async with FakeServer().running() as fake, aiohttp.ClientSession() as http:
            for ending in (fake.drop(), fake.close(4000, "over")):
                async with http.ws_connect(f"{fake.url}/realtime") as socket:
                    assert (await socket.receive_json())["type"] == "session.created"
                    await fake.send_text('{"type": "respon')
                    seen.append((await socket.receive()).data)
                    await ending
                    await socket.receive()
                    seen.append(socket.close_code)
        return seen

    assert asyncio.run(main()) == ['{"type": "respon', 1006, '{"type": "respon', 4000]
