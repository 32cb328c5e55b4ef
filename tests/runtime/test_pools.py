"""Several servers of one service: who gets the work, who gets none, and who takes over."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from random import Random
from typing import Any

import pytest

from tests.engines.openai.chat_server import ChatServer, falls_silent, gives, says, text
from tests.runtime.test_fallback import REQUEST, SAYS, answered, heard, now, spoken
from tests.runtime.test_fallback import Engine as ScriptedEngine
from tests.server import scripted, serving
from vivavoce.api.public import ready_status
from vivavoce.configured import made_engine, server_label
from vivavoce.engines.base import (
    Capabilities,
    ChatEnded,
    ChatRequest,
    Speech,
    TextDelta,
    Transcript,
)
from vivavoce.engines.openai.llm import OpenAILLM
from vivavoce.errors import EngineError, SettingsError
from vivavoce.runtime.chains import FallbackLLM
from vivavoce.runtime.choice import EngineChoice, Own
from vivavoce.runtime.fallback import FallbackSettings, Member, first_engine
from vivavoce.runtime.pools import (
    CHECK_TIMEOUT_S,
    MAX_CONVERSATIONS,
    MemberStatus,
    PooledEndpoint,
    PooledLLM,
    PooledSTT,
    PooledTTS,
    PoolSettings,
    pools_of,
)
from vivavoce.settings import Settings
from vivavoce.settings_sources import parse
from vivavoce.telemetry.metrics import Metrics
from vivavoce.testing import run

SETTINGS = FallbackSettings()
FINAL = Transcript("a b", 3, final=True)


class Server(ScriptedEngine):
    """An engine with a server behind it, which can be down."""

    capabilities = Capabilities(streaming_input=False)

    def __init__(self, *things: Any, **options: Any) -> None:
        super().__init__(*things, **options)
        self.checks = 0
        self.down: str | float = ""
        """What a check raises, or how long it takes."""

    async def check(self, path: str) -> None:
        self.checks += 1
        if isinstance(self.down, float):
            await asyncio.sleep(self.down)
        elif self.down:
            raise EngineError(self.down)


class QueueServer(Server):
    """Answers one request after the other, each in so many seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.lock = asyncio.Lock()

    async def generate(self, request: ChatRequest) -> AsyncGenerator[Any]:
        self.asked.append(request)
        async with self.lock:
            await asyncio.sleep(self.seconds)
        for event in SAYS:
            yield event


def pool_of(*engines: Any, kind: type[Any] = PooledLLM, **options: Any) -> Any:
    """Its members are a, b and so on; it is checked only where the options say so."""
    options = {"check_seconds": 0.0, **options}
    members = [Member(name, engine) for name, engine in zip("abcd", engines, strict=False)]
    return kind(members, SETTINGS, PoolSettings(**options), Random(1))


def in_conversation(name: str) -> ChatRequest:
    return ChatRequest("Be kind.", (), conversation_id=name)


async def ask(llm: PooledLLM, request: ChatRequest = REQUEST) -> None:
    async with aclosing(llm.generate(request)) as events:
        async for _ in events:
            pass


def counts(*engines: Any) -> list[int]:
    return [len(engine.asked) for engine in engines]


def test_pool_gives_most_work_to_the_faster_server() -> None:
    async def main() -> None:
        fast, slow = QueueServer(0.1), QueueServer(0.4)
        async with pool_of(fast, slow) as pool, asyncio.TaskGroup() as tasks:
            for _ in range(200):
                tasks.create_task(ask(pool))
                await asyncio.sleep(0.1)
        shares = counts(fast, slow)
        assert sum(shares) == 200
        assert shares[0] > 3 * shares[1] > 0, shares

    run(main())


def test_pool_of_equal_servers_spreads_work_evenly() -> None:
    async def main() -> None:
        servers = [QueueServer(0.05) for _ in range(4)]
        async with pool_of(*servers) as pool, asyncio.TaskGroup() as tasks:
            for _ in range(100):
                tasks.create_task(ask(pool))
                await asyncio.sleep(0.015)
        assert sum(counts(*servers)) == 100
        assert max(counts(*servers)) - min(counts(*servers)) <= 12, counts(*servers)

    run(main())


def test_server_of_twice_the_weight_gets_about_twice_the_load() -> None:
    class Slow(Server):
        async def generate(self, request: ChatRequest) -> AsyncGenerator[Any]:
            self.asked.append(request)
            for event in SAYS:
                yield event
            await asyncio.sleep(1.0)

    async def main() -> None:
        heavy, light = Slow(), Slow()
        async with (
            pool_of(heavy, light, weights=(2.0, 1.0)) as pool,
            asyncio.TaskGroup() as tasks,
        ):
            for _ in range(300):
                tasks.create_task(ask(pool))
                await asyncio.sleep(0.01)
        assert counts(heavy, light)[0] == pytest.approx(200, abs=20)

    run(main())


def test_server_of_weight_0_gets_no_new_work_and_ends_what_it_has() -> None:
    async def main() -> None:
        drained, other = Server(*SAYS), Server(*SAYS)
        async with pool_of(drained, other, weights=(0.0, 1.0)) as pool:
            for _ in range(5):
                await ask(pool)
            assert counts(drained, other) == [0, 5]
            assert pool.statuses["a"].problem == "its weight is 0: it gets no new work"
            assert pool.health() is None

    run(main())


def test_slow_server_is_tried_again_when_its_latency_is_old() -> None:
    async def main() -> None:
        recovered, other = Server(5.0, *SAYS), Server(0.5, *SAYS)
        settings = FallbackSettings(llm_seconds=10.0)
        members: list[Member[Any]] = [Member("a", recovered), Member("b", other)]
        async with PooledLLM(members, settings, PoolSettings(check_seconds=0), Random(1)) as pool:
            while not all(counts(recovered, other)):
                await ask(pool)
            before = len(recovered.asked)
            recovered.things = (0.5, *SAYS)
            await ask(pool)
            assert len(recovered.asked) == before, "its last answer took 5 s"
            for _ in range(20):
                await asyncio.sleep(10.0)
                await ask(pool)
            assert len(recovered.asked) > before

    run(main())


def test_conversation_stays_with_its_server_while_that_works() -> None:
    async def main() -> None:
        servers = [Server(*SAYS) for _ in range(3)]
        async with pool_of(*servers) as pool:
            for _ in range(10):
                for name in ("x", "y"):
                    await ask(pool, in_conversation(name))
            assert sorted(counts(*servers), reverse=True) in ([10, 10, 0], [20, 0, 0])
            (kept, *_) = [server for server in servers if server.asked]
            kept.things = (EngineError("gone"),)
            for name in ("x", "y"):
                await ask(pool, in_conversation(name))
            failed = len(kept.asked)
            for server in servers:
                server.asked.clear()
            for _ in range(5):
                await ask(pool, in_conversation("x"))
            assert failed in (11, 21), "it is not asked again while it is left out"
            assert sorted(counts(*servers)) == [0, 0, 5], "who took over keeps it"

    run(main())


def test_conversations_without_affinity_are_spread() -> None:
    async def main() -> None:
        servers = [Server(*SAYS) for _ in range(2)]
        async with pool_of(*servers, affinity=False) as pool:
            for _ in range(40):
                await ask(pool, in_conversation("x"))
        assert min(counts(*servers)) > 0

    run(main())


def test_pool_remembers_a_bounded_number_of_conversations() -> None:
    async def main() -> None:
        async with pool_of(Server(*SAYS)) as pool:
            for number in range(MAX_CONVERSATIONS + 2):
                pool.note_conversation(pool.members[0], str(number))
            known = pool._balance.conversations
            assert len(known) == MAX_CONVERSATIONS
            assert "1" not in known

    run(main())


@pytest.mark.parametrize("fault", ["no LLM answers", 60.0])
def test_server_that_fails_checks_gets_no_work_until_it_passes_one(
    fault: str | float, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        bad, good = Server(*SAYS), Server(*SAYS)
        async with pool_of(bad, good, check_seconds=5.0) as pool:
            bad.down = fault
            await asyncio.sleep(20.0)
            for _ in range(5):
                await ask(pool)
            assert counts(bad, good) == [0, 5]
            assert pool.statuses["a"].problem
            assert pool.health() is None
            good.down = fault
            await asyncio.sleep(25.0)
            assert str(pool.health()).startswith("no server of 2 works: ")
            await ask(pool)  # where none works, all are tried
            bad.down = good.down = ""
            await asyncio.sleep(10.0)
            assert pool.statuses["a"] == MemberStatus("", 0, *pool.statuses["a"][2:])
            assert bad.checks <= now() / 4 + 1, "the rate is bounded"

    with caplog.at_level(logging.INFO):
        run(main())
    assert sum("a gets no new work: " in message for message in caplog.messages) == 1
    assert "llm a works again" in caplog.messages
    assert CHECK_TIMEOUT_S < 5.0


def test_one_failed_check_takes_no_server_out() -> None:
    async def main() -> None:
        server = Server(*SAYS)
        server.down = "once"
        async with pool_of(server, check_seconds=5.0) as pool:
            await asyncio.sleep(1.0)
            server.down = ""
            assert pool.statuses["a"].problem == ""
            await asyncio.sleep(10.0)
            assert pool.statuses["a"].problem == ""

    run(main())


def test_recogniser_gets_the_whole_utterance_when_another_fails_in_mid_turn() -> None:
    async def main() -> None:
        servers = [Server(EngineError("killed")), Server(EngineError("killed")), Server(FINAL)]
        async with pool_of(*servers, kind=PooledSTT, weights=(4.0, 2.0, 1.0)) as pool:
            assert await heard(pool, b"12", b"34", b"56") == [FINAL]
            assert [server.asked for server in servers] == [[b"123456"]] * 3
            assert [status.failed for status in pool.statuses.values()] == [1, 1, 0]
            assert pool.statuses["a"].problem == "it failed, and is left out for 30 s"

    run(main())


def test_recogniser_is_chosen_at_the_end_of_the_utterance() -> None:
    async def main() -> None:
        servers = [Server(FINAL), Server(FINAL)]
        async with pool_of(*servers, kind=PooledSTT, weights=(2.0, 1.0)) as pool:

            async def source() -> AsyncIterator[bytes]:
                yield b"12"
                await asyncio.sleep(1.0)
                servers[0].health = lambda: "down"  # type: ignore[method-assign]

            stream = pool.transcribe(source(), language=None, prompt="")
            async with aclosing(stream) as found:
                assert [transcript async for transcript in found] == [FINAL]
            assert counts(*servers) == [0, 1]
            status = pool.statuses["b"]
            assert (status.answered, status.waited_s) == (1, 0.0), "the utterance does not count"

    run(main())


def test_synthesiser_that_fails_in_mid_clause_is_continued_by_another() -> None:
    async def main() -> None:
        first = Server(Speech(b"\0\0" * 2400), EngineError("killed"))
        second = Server(Speech(b"\1\0" * 2400))
        async with pool_of(first, second, kind=PooledTTS, weights=(2.0, 1.0)) as pool:
            pieces = await spoken(pool, "Good morning to all of you.")
        assert [piece.audio[:2] for piece in pieces] == [b"\0\0", b"\1\0"]

    run(main())


def test_waits_that_are_given_up_count_as_latency() -> None:
    async def main() -> None:
        stuck, other = Server(30.0), Server(0.1, *SAYS)
        async with pool_of(stuck, other, weights=(2.0, 1.0)) as pool:
            task = asyncio.create_task(ask(pool))
            await asyncio.sleep(3.0)
            assert pool.statuses["a"].in_flight == 1
            task.cancel()
            await asyncio.wait((task,))
            await ask(pool)
            assert counts(stuck, other) == [1, 1]
            assert pool.statuses["a"].in_flight == 0

    run(main())


def test_pool_in_a_list_has_time_for_its_own_servers() -> None:
    async def main() -> None:
        pool = pool_of(Server(60.0), Server(*SAYS), weights=(2.0, 1.0))
        other = Server(TextDelta("No."), ChatEnded())
        chain = FallbackLLM([Member("pool", pool), Member("other", other)], SETTINGS)
        async with pool:
            assert await answered(chain) == [*SAYS]
        assert now() == pytest.approx(SETTINGS.llm_seconds)
        assert other.asked == []
        assert first_engine(chain) is pool.members[0].engine

    run(main())


def test_pool_behind_the_choice_of_a_client_stays_a_pool() -> None:
    async def main() -> None:
        pool = pool_of(Server(*SAYS), Server(*SAYS))
        chosen = EngineChoice()._chain(Own("llm", "own", pool), "other", Server(*SAYS))
        assert [member.engine for member in chosen.members][1:] == [pool]

    run(main())


def test_model_is_asked_of_the_servers_that_offer_it() -> None:
    class Offers(Server):
        def for_model(self, name: str) -> Any:
            return self if name == "large" else None

    async def main() -> None:
        pool = pool_of(Offers(FINAL), Server(FINAL), kind=PooledSTT)
        large = pool.for_model("large")
        assert [member.name for member in large.members] == ["a"]
        assert pool.for_model("small") is None
        assert pool.for_translation() is None
        assert await heard(large, b"12") == [FINAL]
        assert pool.statuses["a"].answered == 1

    run(main())


# --- settings


def made(base_url: Any, kind: Any = "llm", **options: Any) -> Any:
    options = {"engine": "openai", "model": "m", "base_url": base_url, **options}
    return made_engine(Settings(), kind, "mine", options).engine


def test_list_of_base_urls_is_a_pool_whose_members_hide_passwords() -> None:
    pool = made(["http://10.0.0.1:8000/v1", "http://me:pass@10.0.0.2/x/v1?key=k"], "stt")
    assert isinstance(pool, PooledSTT)
    assert [member.name for member in pool.members] == ["mine@10.0.0.1:8000", "mine@10.0.0.2:80/x"]
    assert isinstance(made(["http://a/v1"]), PooledEndpoint)
    assert isinstance(made("http://a/v1"), OpenAILLM)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_url": []}, r"mine\] base_url: a list has 1 to 64 addresses"),
        ({"base_url": [1]}, r"mine\] base_url: a list has 1 to 64 addresses"),
        ({"base_url": ["http://a/v1", "http://a:80/v1/"]}, "the server a:80 is named twice"),
        ({"base_url": ["nowhere"]}, "'nowhere' is no address of a server, such as http://"),
        ({"base_url": ["ftp://a/v1"]}, "base_url must begin with http:// or https://"),
        ({"base_url": "http://a/v1", "pool": {}}, "pool: base_url has to be a list of the servers"),
        ({"base_url": ["http://a/v1"], "pool": {"weight": [1]}}, "did you mean 'weights'"),
        ({"base_url": ["http://a/v1"], "pool": {"weights": [0]}}, "at least one must be above 0"),
        ({"base_url": ["http://a/v1"], "pool": {"weights": [1, 2]}}, "there are 2, but .* 1 serv"),
        ({"base_url": ["http://a/v1"], "pool": {"check_seconds": 0.5}}, "is 0 or at least 1"),
        ({"base_url": ["http://a/v1"], "engine": "builtin", "model": ""}, "there is no setting"),
    ],
)
def test_wrong_pool_is_refused_with_its_place(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        made(**options)
    assert str(caught.value).startswith("[engines.llm.mine")


def test_pool_of_another_kind_is_refused() -> None:
    with pytest.raises(SettingsError, match="only engines of stt, llm, tts"):
        made_engine(Settings(), "vad", "silero", {"base_url": ["http://a/v1"]})


def test_secrets_in_a_list_of_base_urls_are_not_shown() -> None:
    table = {"base_url": ["http://me:pass@a/v1"]}
    settings = parse({"engines": {"llm": {"openai": table}}})
    assert "me:pass" not in repr(settings)
    assert server_label(settings.engines["llm"]["openai"]["base_url"][0]) == "a:80"


# --- on real sockets


def test_server_killed_in_mid_answer_is_continued_by_another() -> None:
    async def main() -> None:
        async with (
            ChatServer([falls_silent(text("It is"))]) as first,
            ChatServer([says("noon.")]) as second,
        ):
            urls = [first.base_url, second.base_url]
            pool = made(urls, pool={"weights": [2, 1], "check_seconds": 0})
            async with pool:
                found: Counter[str] = Counter()
                said = ""
                async with aclosing(pool.generate(in_conversation("x"))) as events:
                    async for event in events:
                        if isinstance(event, TextDelta):
                            said += event.text
                        if said == "It is":
                            await first._runner.cleanup()
                assert said == "It is noon."
                found.update(name for name, status in pool.statuses.items() if status.problem)
                assert list(found) == [f"mine@127.0.0.1:{first.port}"]
                async with pool.forward(b"{}", spoken=True) as answer:
                    assert answer.status == 200
                assert len(second.asked) == 2

    asyncio.run(main())


def test_forwarded_request_goes_to_the_next_server_where_one_fails() -> None:
    async def main() -> None:
        async with ChatServer([gives(500)]) as first, ChatServer([gives(404, {})]) as second:
            pool = made([first.base_url, second.base_url], pool={"weights": [2, 1]})
            async with pool:
                async with pool.forward(b"{}") as answer:
                    assert answer.status == 404, "a refusal of the request is an answer"
                assert await pool.model() == "m"
                assert [status.failed for status in pool.statuses.values()] == [1, 0]

    asyncio.run(main())


@pytest.mark.parametrize(("reply", "well"), [(gives(503, {}), False), (gives(404, {}), True)])
def test_check_of_an_endpoint_asks_for_the_path(reply: Any, well: bool) -> None:
    async def main() -> None:
        async with ChatServer([reply]) as server:
            pool = made([server.base_url], pool={"check_path": "/ready"})
            async with pool:
                engine = first_engine(pool)
                if well:
                    await engine.check("/ready")
                else:
                    with pytest.raises(EngineError, match="503"):
                        await engine.check("/ready")
            assert {asked.path for asked in server.asked} == {"/ready"}

    asyncio.run(main())


def test_servers_of_a_pool_are_in_ready_and_in_the_metrics() -> None:
    async def main() -> None:
        async with ChatServer([says("Yes.")]) as well, ChatServer([says("Yes.")]) as drained:
            table = {
                "engine": "openai",
                "model": "m",
                "base_url": [well.base_url, drained.base_url],
                "pool": {"weights": [1, 0], "check_seconds": 0},
            }
            settings = scripted(models={"llm": "mine"})
            settings.engines["llm"]["mine"] = table
            async with serving(settings) as server:
                pool = server.cascades["default"].llm
                assert isinstance(pool, PooledEndpoint)
                await ask(pool)
                status = ready_status(server.sessions)
                first, second = status.members["llm:mine"].items()
                assert first == (f"mine@127.0.0.1:{well.port}", "ok")
                assert second[1] == "its weight is 0: it gets no new work"
                assert status.status == "ready"
                metrics = Metrics()
                metrics.watch_pools(pools_of(server.sessions.context.engines))
                lines = metrics.text().decode().splitlines()
                label = f'engine="llm:mine",member="{first[0]}"'
                assert f"vivavoce_pool_member_up{{{label}}} 1.0" in lines
                answered = f'vivavoce_pool_requests_total{{{label},outcome="answered"}} 1.0'
                assert answered in lines
                up = f'vivavoce_pool_member_up{{engine="llm:mine",member="{second[0]}"}} 0.0'
                assert up in lines

    asyncio.run(main())
