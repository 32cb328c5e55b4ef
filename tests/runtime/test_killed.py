"""A process that is killed in each phase of a turn; its conversation goes on in another one."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import msgspec
import pytest

from tests.runtime.processes import Caller, Process, pass_time, process, until, with_store
from tests.runtime.stage import ScriptedEngines, speech
from tests.store.line import InlineSQLite
from vivavoce.protocol.items import FunctionTool, Message
from vivavoce.runtime.checkpoint_queue import StoredSession
from vivavoce.runtime.resume import ResumeSettings
from vivavoce.runtime.tools import ServerTool, ToolCall
from vivavoce.session.conversation import SavedEntry
from vivavoce.session.policy import Policy

ANSWER = "one two three four five six seven eight nine ten"
STALLS = {"stall": True}


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of a turn, in which an engine of the first process does not go on."""

    event: str
    """The event with which it begins; "": a function of the server is called."""
    stt: Mapping[str, object] = field(default_factory=lambda: {"text": "who is there"})
    llm: Mapping[str, object] = field(default_factory=lambda: {"text": ANSWER})
    tts: Mapping[str, object] = field(default_factory=dict)
    is_unheard: bool = False
    """Whether the words of the user are lost with the process, so that the user repeats them."""
    rest: str = ANSWER
    """What the model of the second process answers."""


PHASES = {
    "the user speaks": Phase("input_audio_buffer.speech_started", is_unheard=True),
    "recognition runs": Phase("input_audio_buffer.committed", stt=STALLS, is_unheard=True),
    "the model thinks": Phase("response.created", llm=STALLS),
    "before the first sound": Phase("response.output_item.added", tts={"stall_on": "one"}),
    "in mid-answer": Phase(
        "response.output_audio.delta",
        tts={"stall_on": "one", "fail_after_ms": 900},
        rest=ANSWER.removeprefix("one "),
    ),
    "a tool runs": Phase("", llm={"calls": [{"name": "stock"}]}),
}


def stored(store: InlineSQLite) -> tuple[SavedEntry, ...]:
    """The entries of the only conversation in the store."""
    assert store._connection
    ((value,),) = store._connection.execute("SELECT value FROM sessions").fetchall()
    return msgspec.msgpack.decode(value, type=StoredSession).checkpoint.entries


def text_of(entry: SavedEntry) -> tuple[str, str]:
    """The role, and the words."""
    item = entry.item
    if not isinstance(item, Message):
        return str(type(item).__struct_config__.tag), ""
    part = item.content[0] if item.content else None
    text = getattr(part, "transcript", None) or getattr(part, "text", None) or ""
    return item.role, " ".join(text.split())


def conversation(entries: tuple[SavedEntry, ...]) -> list[tuple[str, str]]:
    """Who said what, an answer of several items in one."""
    texts = (text_of(entry) for entry in entries)
    return [
        (role, " ".join(text for _, text in parts if text))
        for role, parts in groupby(texts, lambda each: each[0])
    ]


def ids(entries: tuple[SavedEntry, ...]) -> list[str]:
    return [str(entry.item.id) for entry in entries]


class Stock:
    """A function of the server that does not return."""

    def __init__(self) -> None:
        self.called = asyncio.Event()

    async def __call__(self, call: ToolCall) -> str:
        self.called.set()
        return await asyncio.Future[str]()


async def kill(killed: Process, caller: Caller) -> None:
    """Nothing more is stored, and nothing is closed."""
    killed.cut()
    caller.serving.cancel()
    await asyncio.wait([caller.serving])


def say(caller: Caller) -> None:
    """A whole turn, as fast as it is taken."""
    for fact in speech():
        caller.runner.post(fact)


async def begin(phase: Phase, caller: Caller, stock: Stock) -> None:
    """Bring a turn to a phase."""
    before = caller.peer.types.count(phase.event)
    say(caller)
    if phase.event:
        await caller.peer.until(phase.event, before + 1)
    else:
        await stock.called.wait()


@pytest.mark.parametrize("phase", PHASES.values(), ids=PHASES)
def test_process_killed_in_mid_turn_loses_no_stored_item_and_doubles_none(phase: Phase) -> None:
    stock = Stock()
    tool = ServerTool(FunctionTool("stock"), stock, 60.0)
    context: dict[str, Any] = {
        "policies": {"default": Policy(tools=("stock",))},
        "tools": {"stock": tool},
    }
    first = ScriptedEngines(
        stt={"transcripts": [phase.stt]},
        llm={"answers": ["Hello.", phase.llm]},
        tts={**phase.tts},
    )
    second = ScriptedEngines(
        stt={"transcripts": ["who is there"]}, llm={"answers": [phase.rest, ANSWER]}
    )

    async def main(store: InlineSQLite) -> None:
        async with (
            process(store, "one", first, **context) as one,
            process(store, "two", second, **context) as two,
        ):
            before = await one.call()
            await before.ask()
            await begin(phase, before, stock)
            await until(lambda: one.resumption.idle)
            await kill(one, before)
            kept = stored(store)[: 2 if phase.is_unheard else None]
            after = await two.call(before.token)
            assert after.items == ids(kept)
            if phase.is_unheard:
                say(after)
            await after.peer.until("response.done")
            await after.ask()
            await until(lambda: two.resumption.idle)
            found = stored(store)
        assert len(set(ids(found))) == len(found)
        assert ids(found)[: len(kept)] == ids(kept)
        assert conversation(found) == [
            *(("user", "Who is there?"), ("assistant", "Hello.")),
            *(("user", "who is there"), ("assistant", ANSWER)),
            *(("user", "Who is there?"), ("assistant", ANSWER)),
        ]

    with_store(main)


def test_conversation_silent_for_longer_than_it_is_stored_outlives_its_processes() -> None:
    silence_s = 2 * ResumeSettings().keep_seconds

    async def main(store: InlineSQLite) -> None:
        async with (
            process(store, "one") as one,
            process(store, "two") as two,
            process(store, "three") as three,
        ):
            caller = await one.call()
            await caller.ask()
            for killed, next_ in ((one, two), (two, three)):
                await pass_time(silence_s)
                kept = ids(stored(store))
                await kill(killed, caller)
                caller = await next_.call(caller.token)
                assert caller.items == kept

    with_store(main)
