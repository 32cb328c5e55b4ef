"""Clients that lose their connection and come back to their conversation."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import msgspec
import pytest

from tests import idle_clock
from tests.server import Server, scripted, serving
from tests.session.stage import texts
from tests.transports.webrtc.caller import Caller, calling, until
from vivavoce.protocol.wire import Frame
from vivavoce.runtime.resume import ResumeSettings, Ticket
from vivavoce.settings import Settings
from vivavoce.store.sqlite import SQLiteStore
from vivavoce.transports.resumable import History, ResumableLink

WORDS = "one two three four five six seven eight"
SLOW = {"realtime_factor": 0.5}
Script = Callable[[Server], Awaitable[None]]


def settings(
    *, tts: Mapping[str, object] | None = None, words: str = WORDS, **resume: Any
) -> Settings:
    plain = scripted(llm={"answers": [words]}, tts=tts)
    return msgspec.structs.replace(plain, resume=ResumeSettings(**resume))


def played(script: Script, chosen: Settings | None = None) -> None:
    """Run a script against a server with a store in memory."""

    async def main() -> None:
        async with (
            SQLiteStore(":memory:") as store,
            serving(chosen or settings(), store=store) as server,
        ):
            await script(server)

    idle_clock.run(main())


def back(created: dict[str, Any], **more: object) -> str:
    """The address with which the client of a session comes back."""
    query = {"session_id": created["session"]["id"], "resume_token": created["resume"]["token"]}
    return f"/v1/realtime?{urlencode({**query, **more})}"


@asynccontextmanager
async def lost(server: Server, path: str = "/v1/realtime") -> AsyncIterator[Caller]:
    """A client whose connection breaks in the end."""
    async with calling(server, path) as caller:
        yield caller
        drop(caller)


def drop(caller: Caller) -> None:
    caller.socket._response.connection.transport.abort()  # type: ignore[union-attr]


def the_ticket(server: Server) -> Ticket:
    """Of the only session."""
    resumption = server.sessions.context.resumption
    assert resumption is not None
    (ticket,) = resumption._served.values()
    return ticket


async def _told(caller: Caller) -> str:
    """The words of the next answer."""
    event = await caller.until("response.output_audio_transcript.done")
    await caller.until("response.done")
    return str(event["transcript"])


def test_session_created_tells_how_to_come_back() -> None:
    async def script(server: Server) -> None:
        async with calling(server) as caller:
            created = caller.events[0]
            assert "resumed" not in created
            assert len(created["resume"].pop("token")) > 24
            assert created["resume"] == {"grace_seconds": 15.0}

    played(script)


def test_session_without_a_store_has_no_token() -> None:
    async def main() -> None:
        async with serving() as server, calling(server) as caller:
            assert "resume" not in caller.events[0]

    idle_clock.run(main())


def test_lost_connection_within_the_grace_time_loses_no_event() -> None:
    """The connection breaks in an answer; the rest of it comes on the next one, each event once."""

    async def script(server: Server) -> None:
        async with lost(server) as first:
            await first.ask()
            await first.until("response.output_audio.delta")
        last = first.events[-1]["event_id"]
        ticket = the_ticket(server)
        await until(lambda: ticket.client_away)
        claimed_before = ticket.epoch
        async with calling(server, back(first.events[0], last_event_id=last)) as second:
            assert second.events[0]["resumed"] is True
            assert the_ticket(server) is ticket
            assert not ticket.client_away
            assert ticket.epoch > claimed_before
            assert second.events[0]["session"]["id"] == first.events[0]["session"]["id"]
            await second.until("response.done")
            ids = [event["event_id"] for event in first.events + second.events[1:]]
            assert len(ids) == len(set(ids))
            assert ids == sorted(ids)
            told = [
                e["delta"] for e in first.events + second.events if "transcript.delta" in e["type"]
            ]
            assert "".join(told).strip() == WORDS
            assert len(server.sessions) == 1
            await second.ask()
            assert await second.answer() == ("completed", None)

    played(script, settings(tts=SLOW))


def test_what_waits_for_a_client_that_is_away_is_counted_as_it_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Once: a server whose clients are all gone at once has no time to count it for each frame."""
    counted = 0

    def since(history: History, position: int) -> list[Frame]:
        nonlocal counted
        counted += 1
        return kept(history, position)

    kept = History.since
    monkeypatch.setattr(History, "since", since)

    async def script(server: Server) -> None:
        async with lost(server) as caller:
            await caller.ask()
            await caller.until("response.output_audio.delta")
        runner = the_ticket(server).runner
        assert runner is not None
        link = runner._peer
        assert isinstance(link, ResumableLink)
        await until(lambda: link.waiting_bytes > 20_000)
        waiting = link._history.since(link._unsent)
        assert len(waiting) > 5
        assert link.waiting_bytes == sum(len(frame.data) for frame in waiting)
        assert counted == 2  # when the connection was lost, and above

    played(script, settings(tts=SLOW))


def test_session_whose_client_does_not_come_back_ends_after_the_grace_time() -> None:
    async def script(server: Server) -> None:
        async with lost(server) as first:
            await first.ask()
            await first.answer()
        await until(lambda: len(server.sessions) == 0)
        async with calling(server, back(first.events[0])) as second:
            created = second.events[0]
            assert created["resumed"] is True
            assert created["session"]["id"] == first.events[0]["session"]["id"]

    played(script, settings(grace_seconds=0.05))


def test_client_that_closes_ends_its_session_at_once_and_may_come_back() -> None:
    async def script(server: Server) -> None:
        async with calling(server) as first:
            await first.ask()
            await first.answer()
        await until(lambda: len(server.sessions) == 0)
        async with calling(server, back(first.events[0], items="1")) as second:
            await second.until("conversation.item.done")
            done = await second.until("conversation.item.done")
            assert done["item"]["content"][0]["transcript"] == WORDS
            assert second.events[0]["resume"]["last_item_id"] == done["item"]["id"]
            await second.ask()
            await second.answer()
        prompt = server.llm.requests[-1]
        assert texts(prompt.items) == ["Who is there?", WORDS, "Who is there?"]

    played(script)


def test_second_client_with_the_token_takes_over_and_the_first_learns_it() -> None:
    async def script(server: Server) -> None:
        async with calling(server) as first:
            async with calling(server, back(first.events[0])) as second:
                assert (await first.until("error"))["error"]["code"] == "session_taken_over"
                assert (await first.read_until_closed())[0] == 4003
                await second.ask()
                assert await second.answer() == ("completed", None)
            assert len(second.events[0]["resume"]["token"]) > 24

    played(script)


def test_answer_that_broke_off_is_finished_from_the_last_word_heard() -> None:
    """The client has played 700 ms, and says so when it comes back to a stored session."""

    async def script(server: Server) -> None:
        async with calling(server) as first:
            await first.ask()
            await first.answer()
            item = next(e for e in first.events if e["type"] == "response.output_audio.delta")
        await until(lambda: len(server.sessions) == 0)
        heard = {"heard_item": item["item_id"], "heard_ms": 700}
        async with calling(server, back(first.events[0], **heard)) as second:
            spoken = await _told(second)
            assert WORDS.endswith(spoken)
            assert 0 < len(spoken.split()) < 8
        assert len(server.llm.requests) == 1  # its words were known

    played(script)


def test_answer_is_not_finished_where_the_client_does_not_want_it() -> None:
    async def script(server: Server) -> None:
        async with calling(server) as first:
            await first.ask()
            await first.answer()
            item = next(e for e in first.events if e["type"] == "response.output_audio.delta")
        await until(lambda: len(server.sessions) == 0)
        heard = {"heard_item": item["item_id"], "heard_ms": 700, "finish": 0}
        async with calling(server, back(first.events[0], **heard)) as second:
            await second.send(type="conversation.item.retrieve", item_id=item["item_id"])
            await second.until("conversation.item.retrieved")
            assert "response.created" not in second.types

    played(script)


def test_conversation_goes_on_in_another_process_of_the_same_store(tmp_path: Path) -> None:
    """The answer is finished by the second server; the first may store nothing more."""

    async def main() -> None:
        chosen = settings(tts=SLOW)
        async with (
            SQLiteStore(tmp_path / "s.db") as store,
            SQLiteStore(tmp_path / "s.db") as same,
            serving(chosen, store=store) as one,
            serving(chosen, store=same) as two,
            calling(one) as first,
        ):
            await first.ask()
            await first.until("response.output_audio.delta")
            resumption = one.sessions.context.resumption
            assert resumption is not None
            await until(lambda: resumption.idle)
            async with calling(two, back(first.events[0])) as second:
                assert second.events[0]["resumed"] is True
                assert await second.answer() == ("completed", None)
                question, begun = texts(two.llm.requests[0].items)
                assert question == "Who is there?"
                assert begun
                assert WORDS.startswith(begun.strip())
            assert (await first.read_until_closed())[0] == 4003

    idle_clock.run(main())


def test_client_that_has_been_elsewhere_has_what_was_said_there(tmp_path: Path) -> None:
    """It comes back within the grace time of a session that another process has taken over."""

    async def main() -> None:
        async with (
            SQLiteStore(tmp_path / "s.db") as store,
            SQLiteStore(tmp_path / "s.db") as same,
            serving(settings(words="First."), store=store) as one,
            serving(settings(words="Second."), store=same) as two,
        ):
            async with lost(one) as first:
                await first.ask()
                await first.answer()
            resumption = one.sessions.context.resumption
            assert resumption is not None
            await until(lambda: resumption.idle)
            async with lost(two, back(first.events[0])) as second:
                await second.ask()
                await second.answer()
            elsewhere = two.sessions.context.resumption
            assert elsewhere is not None
            await until(lambda: elsewhere.idle)
            assert len(one.sessions) == 1  # in its grace time
            async with calling(one, back(first.events[0])) as third:
                await third.ask()
                assert await third.answer() == ("completed", None)
                asked = texts(one.llm.requests[-1].items)
                assert [(text or "").strip() for text in asked] == [
                    *("Who is there?", "First."),
                    *("Who is there?", "Second."),
                    "Who is there?",
                ]

    idle_clock.run(main())


@pytest.mark.parametrize("path", ["/v1/realtime", "/api/realtime", "/ws", "/ws?rtvi=1"])
def test_any_protocol_resumes_with_a_token_of_the_client(path: str) -> None:
    token = "a-secret-of-the-client-itself"
    mark = "&" if "?" in path else "?"

    async def script(server: Server) -> None:
        address = f"{server.ws}{path}{mark}resume_token={token}"
        tickets: list[Ticket] = []
        for _ in range(2):
            async with calling_raw(address):
                await until(lambda: len(server.sessions) == 1)
                tickets.append(the_ticket(server))
            await until(lambda: len(server.sessions) == 0)
        first, second = tickets
        assert second.checkpoint is not None
        assert second.epoch > first.epoch

    played(script)


@asynccontextmanager
async def calling_raw(address: str) -> AsyncIterator[None]:
    async with aiohttp.ClientSession() as http, http.ws_connect(address):
        yield


@pytest.mark.parametrize(
    ("query", "param"),
    [("resume_token=short", "resume_token"), ("heard_item=a&heard_ms=-1", "heard_ms")],
)
def test_query_that_cannot_be_read_is_refused(query: str, param: str) -> None:
    async def script(server: Server) -> None:
        async with (
            aiohttp.ClientSession() as http,
            http.ws_connect(f"{server.ws}/v1/realtime?{query}") as socket,
        ):
            error = (await socket.receive_json())["error"]
            assert error["param"] == param

    played(script)


def test_token_with_another_session_id_is_refused() -> None:
    async def script(server: Server) -> None:
        async with calling(server) as first:
            created = first.events[0]
            await first.ask()
            await first.answer()
        await until(lambda: len(server.sessions) == 0)
        async with (
            aiohttp.ClientSession() as http,
            http.ws_connect(server.ws + back(created, session_id="sess_other")) as socket,
        ):
            error = (await socket.receive_json())["error"]
            assert error["code"] == "resume_token_mismatch"

    played(script)


def test_unknown_token_begins_a_new_conversation() -> None:
    async def script(server: Server) -> None:
        path = "/v1/realtime?resume_token=nobody-has-this-token-yet"
        async with calling(server, path) as caller:
            assert "resumed" not in caller.events[0]
            assert caller.events[0]["resume"]["token"] == "nobody-has-this-token-yet"

    played(script)


def test_client_that_comes_back_to_a_server_that_ends_is_refused_before_the_upgrade() -> None:
    """So that a proxy asks another server: a resumed session needs room as a new one does."""

    async def script(server: Server) -> None:
        async with calling(server) as first, calling(server) as second:
            await first.ask()
            await first.until("response.output_audio.delta")
            draining = asyncio.create_task(server.sessions.drain(60))
            assert (await second.read_until_closed())[0] == 1012
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                async with calling(server, back(second.events[0])):
                    pass
            assert refused.value.status == 503
            drop(first)
            async with calling(server, back(first.events[0])) as again:  # it is still served here
                assert await again.answer() == ("completed", None)
            await draining

    played(script, settings(tts=SLOW))


def test_of_two_clients_that_come_back_at_once_one_has_the_conversation() -> None:
    """The later client gets it; the session of the earlier one is closed with 4003."""

    async def script(server: Server) -> None:
        async with calling(server) as first:
            await first.ask()
            await first.answer()
        await until(lambda: len(server.sessions) == 0)
        path = server.ws + back(first.events[0])
        async with aiohttp.ClientSession() as http:
            sockets = await asyncio.gather(*(http.ws_connect(path) for _ in range(2)))
            both = [Caller(socket) for socket in sockets]
            ends = [asyncio.create_task(caller.read_until_closed()) for caller in both]
            done, left = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            assert [task.result()[0] for task in done] == [4003]
            assert len(left) == 1
            assert len(server.sessions) == 1
            kept = both[ends.index(left.pop())]
            await kept.ask()
            await until(lambda: len(server.llm.requests) == 2)
            assert texts(server.llm.requests[-1].items) == ["Who is there?", WORDS, "Who is there?"]
            for socket in sockets:
                await socket.close()
            await asyncio.wait(ends)

    played(script)


def test_token_with_another_session_id_leaves_the_session_of_the_token_alone() -> None:
    async def script(server: Server) -> None:
        async with calling(server) as first:
            async with (
                aiohttp.ClientSession() as http,
                http.ws_connect(
                    server.ws + back(first.events[0], session_id="sess_other")
                ) as socket,
            ):
                error = (await socket.receive_json())["error"]
                assert error["code"] == "resume_token_mismatch"
            await first.ask()
            assert await first.answer() == ("completed", None)

    played(script)


def test_offer_that_cannot_be_read_leaves_the_session_of_its_token_alone() -> None:
    async def script(server: Server) -> None:
        async with calling(server) as first, aiohttp.ClientSession() as http:
            query = back(first.events[0]).partition("?")[2]
            async with http.post(
                f"{server.http}/v1/realtime/calls?{query}",
                data="v=0",
                headers={"Content-Type": "application/sdp"},
            ) as refused:
                assert refused.status == 400
            await first.ask()
            assert await first.answer() == ("completed", None)

    played(script)


def test_client_that_comes_back_to_a_full_server_takes_the_place_of_its_own_session() -> None:
    """Its protocol is not attached to the session: another one goes on with the conversation."""
    path = "/ws?resume_token=a-secret-of-the-client-itself"

    async def script(server: Server) -> None:
        resumption = server.sessions.context.resumption
        assert resumption is not None
        async with calling_raw(server.ws + path):
            await until(lambda: len(resumption._served) == 1)
            (first,) = resumption._served.values()
            async with calling_raw(server.ws + path):
                await until(lambda: bool(set(resumption._served.values()) - {first}))
                (second,) = resumption._served.values()
                assert second.checkpoint is not None
                assert len(server.sessions) == 1

    plain = settings()
    played(
        script,
        msgspec.structs.replace(
            plain, server=msgspec.structs.replace(plain.server, max_sessions=1)
        ),
    )


def test_client_that_cannot_be_attached_to_a_session_that_drains_leaves_it_alone() -> None:
    """The session ends its answer; another one would not be begun any more."""

    async def script(server: Server) -> None:
        async with calling(server) as first:
            await first.ask()
            await first.until("response.output_audio.delta")
            draining = asyncio.create_task(server.sessions.drain(60))
            await asyncio.sleep(0)
            unknown = back(first.events[0], last_event_id="event_that_never_was")
            async with (
                aiohttp.ClientSession() as http,
                http.ws_connect(server.ws + unknown) as socket,
            ):
                await socket.receive()
                assert socket.close_code == 1013
            assert await first.answer() == ("completed", None)
            assert (await first.read_until_closed())[0] == 1012
            await draining

    played(script, settings(tts=SLOW))
