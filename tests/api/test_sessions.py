"""GET /v1/sessions: what operators see of open sessions, and how they end them."""

import asyncio
import math
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import msgspec
import pytest

from tests import idle_clock
from tests.clients.browser_stage import KEY, behind_a_key
from tests.server import scripted, serving
from vivavoce.protocol.responses import DurationUsage
from vivavoce.protocol.server import (
    ErrorBody,
    ErrorEvent,
    OutputAudioStopped,
    SpeechStarted,
    SpeechStopped,
    TranscriptionCompleted,
)
from vivavoce.protocol.upstream import UpstreamEvent
from vivavoce.protocol.wire import Opening
from vivavoce.runtime.live_sessions import MAX_UNREAD, LiveSession, LiveSessions
from vivavoce.runtime.runner import Runner
from vivavoce.session.effects import ClearPlayback, PlayAudio, Send
from vivavoce.session.facts import AudioGenerated, UpstreamEventReceived, VadScores

HELLO = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello"}]}


async def events_of(response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    """The events of a stream until it ends."""
    async for line in response.content:
        if line.startswith(b"data: "):
            yield msgspec.json.decode(line.removeprefix(b"data: "))


async def talk(socket: aiohttp.ClientWebSocketResponse) -> None:
    """One written question, until its answer is done."""
    await socket.send_json({"type": "conversation.item.create", "item": HELLO})
    await socket.send_json({"type": "response.create"})
    async for message in socket:
        if message.json()["type"] == "response.done":
            return


@pytest.mark.parametrize("watch", ["state", "captions"])
def test_session_is_listed_watched_and_ended(watch: str) -> None:
    settings = scripted(llm={"answers": ["Good evening."]}, server={"watch": watch})

    async def main() -> None:
        async with serving(settings) as server, aiohttp.ClientSession(server.http) as http:
            listed = await (await http.get("/v1/sessions")).json()
            assert (listed["data"], listed["watch"], listed["failures"]) == ([], watch, 0)
            socket = await http.ws_connect("/v1/realtime?model=default")
            session = (await socket.receive_json())["session"]
            path = f"/v1/sessions/{session['id']}"
            watched = events_of(await http.get(f"{path}/events"))
            await talk(socket)
            (shown,) = (await (await http.get("/v1/sessions")).json())["data"]
            assert (shown["id"], shown["model"]) == (session["id"], "default")
            assert shown["state"] == "speaking"  # the client plays the answer
            states, events = list[str](), list[dict[str, Any]]()
            while states[-2:] != ["speaking", "listening"]:
                events.append(await anext(watched))
                states += [events[-1]["state"]] if events[-1]["type"] == "state" else []
            assert states == ["listening", "thinking", "speaking", "listening"]
            (shown,) = (await (await http.get("/v1/sessions")).json())["data"]
            assert shown["state"] == "listening"
            assert (shown["transport"], shown["client"]) == ("websocket /v1/realtime", "127.0.0.1")
            assert (await http.delete(path)).status == 204
            closed = await socket.receive()
            while closed.type is aiohttp.WSMsgType.TEXT:
                closed = await socket.receive()
            assert (closed.type, closed.data) == (aiohttp.WSMsgType.CLOSE, 1000)
            assert closed.extra == "an operator ended the session"
            assert [event async for event in watched] == [{"type": "ended"}]
            said = "".join(event.get("text", "") for event in events)
            assert said.strip() == ("Good evening." if watch == "captions" else "")
            assert (await http.delete(path)).status == 404

    idle_clock.run(main())


def test_session_list_needs_an_admin_key() -> None:
    async def main() -> None:
        async with (
            serving(behind_a_key(), accounts=True) as server,
            aiohttp.ClientSession(server.http) as http,
        ):
            assert (await http.get("/v1/sessions")).status == 401
            refused = await http.get("/v1/sessions", headers={"Authorization": f"Bearer {KEY}"})
            assert refused.status == 403
            assert "admin key" in (await refused.json())["error"]["message"]

    idle_clock.run(main())


def one_session(*, captions: bool = False) -> tuple[LiveSession, LiveSessions]:
    table = LiveSessions(lambda: captions, lambda: 1000.0)
    session = LiveSession(Opening(who="ada"), table)
    table.add("s", session)
    return session, table


def send(session: LiveSession, event: Any, now: float = 0.0) -> None:
    session.on(None, [Send(event)], now)


def test_live_session_has_its_turns_and_the_median_of_its_waits() -> None:
    session, table = one_session()
    for turn, wait in enumerate((0.3, 0.9, 0.5)):
        send(session, SpeechStarted(event_id="e", item_id="i", audio_start_ms=0), turn)
        assert table.shown()[0].state == "hearing"
        send(session, SpeechStopped(event_id="e", item_id="i", audio_end_ms=0), turn)
        assert table.shown()[0].state == "thinking"
        session.on(AudioGenerated("r", b"\0\0"), [PlayAudio("i", b"\0\0")], turn + wait)
        assert table.shown()[0].state == "speaking"
        session.on(None, [ClearPlayback()], turn + wait)
    (shown,) = table.shown()
    assert (shown.turns, shown.first_sound_ms, shown.state, shown.key) == (3, 500, "hearing", "ada")


def test_live_session_goes_on_speaking_where_the_user_does_not_interrupt_it() -> None:
    session, table = one_session()
    session.on(AudioGenerated("r", b"\0\0"), [PlayAudio("i", b"\0\0")], 0.0)
    send(session, SpeechStarted(event_id="e", item_id="i", audio_start_ms=0))
    assert table.shown()[0].state == "hearing"
    send(session, SpeechStopped(event_id="e", item_id="i", audio_end_ms=0))
    assert table.shown()[0].state == "speaking"


def test_live_session_behind_a_relay_follows_the_events_of_the_upstream_server() -> None:
    session, table = one_session()
    kinds = (
        "input_audio_buffer.speech_stopped",
        "response.output_audio.delta",
        "rate_limits.updated",
    )
    for second, kind in enumerate(kinds):
        event = msgspec.convert({"type": kind}, UpstreamEvent)
        session.on(UpstreamEventReceived(event, b"{}"), [], second)
    (shown,) = table.shown()
    assert (shown.state, shown.turns, shown.first_sound_ms) == ("speaking", 1, 1000)


def test_live_session_speaks_for_as_long_as_the_server_plays_the_answer() -> None:
    session, _ = one_session()
    player = SimpleNamespace(plays_until=math.inf, show_audio=lambda *_, **__: None)
    session.runner = cast(Runner, player)

    async def main() -> None:
        events = session.watch()
        send(session, SpeechStarted(event_id="e", item_id="i", audio_start_ms=0))
        send(session, SpeechStopped(event_id="e", item_id="i", audio_end_ms=0))
        player.plays_until = -math.inf
        send(session, OutputAudioStopped(event_id="e", response_id="r"))
        states = [events.get_nowait()["state"] for _ in range(events.qsize())]
        assert states == ["speaking", "hearing", "speaking", "listening"]

    asyncio.run(main())


def test_live_session_whose_media_passes_elsewhere_speaks_until_the_upstream_server_stops() -> None:
    session, table = one_session()
    states = []
    for kind in (
        "response.created",
        "output_audio_buffer.started",
        "response.done",
        "output_audio_buffer.stopped",
    ):
        event = msgspec.convert({"type": kind}, UpstreamEvent)
        session.on(UpstreamEventReceived(event, b"{}"), [], 0.0)
        states.append(table.shown()[0].state)
    assert states == ["thinking", "speaking", "speaking", "listening"]


def test_failures_are_counted_for_an_hour() -> None:
    session, table = one_session()
    send(session, ErrorEvent(event_id="e", error=ErrorBody(type="server_error", message="no STT")))
    assert table.recent_failures == 1
    (shown,) = table.shown()
    assert shown.last_error is not None
    assert shown.last_error.message == "no STT"
    table.wall_clock = lambda: 1000.0 + 3601
    assert table.recent_failures == 0


def test_watcher_that_does_not_read_loses_the_oldest_events() -> None:
    session, _ = one_session(captions=True)
    events = session.watch()
    for number in range(MAX_UNREAD + 5):
        said = TranscriptionCompleted(
            event_id="e", item_id="i", transcript=str(number), usage=DurationUsage(seconds=1)
        )
        send(session, said)
    session.on(VadScores(0, (0.25, 0.75)), [], 0.0)
    assert events.qsize() == MAX_UNREAD
    read = [events.get_nowait() for _ in range(MAX_UNREAD)]
    assert read[-1] == {"type": "speech", "probability": 0.75}
    assert read[0]["text"] == "6"
    session.unwatch(events)
    session.close()
    assert events.empty()
