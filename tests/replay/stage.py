"""Calls that are recorded in virtual time, for the tests of the recorder and of replays."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cache

from vivavoce.audio.formats import RATE
from vivavoce.session.facts import AudioArrived
from vivavoce.telemetry.recorder import RecordedCall, Recorder, RecorderSettings
from vivavoce.telemetry.recording import CallRecording, decode_lines
from vivavoce.testing import run
from vivavoce.testing.clips import hum
from vivavoce.testing.fake_server import FakeClient, FakeServer

FRAME_MS = 20
Talk = Callable[[FakeServer, FakeClient], Awaitable[None]]


@asynccontextmanager
async def recorded_server(recorder: Recorder) -> AsyncIterator[FakeServer]:
    """A server without sockets, whose sessions are recorded."""
    server = FakeServer()
    sessions = server._sessions
    sessions.replace_context(replace(sessions.context, record=recorder.begin))
    async with server.running(listen=False):
        yield server


async def lines_of(call: RecordedCall) -> list[bytes]:
    """The lines of a recording."""
    return b"".join([part async for part in call.lines()]).splitlines()


def record_call(talk: Talk, settings: RecorderSettings = RecorderSettings()) -> CallRecording:  # noqa: B008  frozen
    """The recording of a call with one client."""

    async def main() -> CallRecording:
        recorder = Recorder(settings)
        async with recorded_server(recorder) as server, server.connect() as client:
            await talk(server, client)
        (summary,) = recorder.calls()
        call = recorder.find(summary.id)
        assert call is not None
        return decode_lines(await lines_of(call), "memory")

    return run(main())


@cache
def recorded(talk: Talk, settings: RecorderSettings = RecorderSettings()) -> CallRecording:  # noqa: B008  frozen
    """As record_call(); each call is made once."""
    return record_call(talk, settings)


async def speak(
    server: FakeServer, text: str, *, speech_ms: int = 1000, pause_ms: int = 800
) -> None:
    """The user says that, in real time, and is silent for so long."""
    await server.wait_for("a connection", lambda _: True)
    assert server.runner is not None
    server.hears(text)
    sound = hum(speech_ms) + bytes(2 * RATE * pause_ms // 1000)
    step = 2 * RATE * FRAME_MS // 1000
    for start in range(0, len(sound), step):
        server.runner.post(AudioArrived(sound[start : start + step]))
        await asyncio.sleep(FRAME_MS / 1000)


async def two_turns(server: FakeServer, client: FakeClient) -> None:
    """A spoken turn and its answer, a written one and an answer that is interrupted."""
    server.set_pace(1.0)
    server.answers("It is ten past four.", "Once upon a time there was a fox. " * 5, "Yes?")
    await speak(server, "what time is it")
    await server.expect.within(30).said("ten past four")
    await asyncio.sleep(3)
    client.say("Tell me a story.")
    await server.expect.within(30).event("response.output_audio.delta")
    await asyncio.sleep(1)
    await speak(server, "wait a moment")
    await server.expect.within(30).said("yes")
    await asyncio.sleep(1)
