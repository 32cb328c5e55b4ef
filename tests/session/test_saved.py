"""A session that was written down and read again goes on as if nothing had happened."""

import re
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.session.stage import (
    TURN,
    a_session,
    ask,
    hear,
    of,
    receive,
    say,
    spoke,
    the,
    transcribe,
    update,
    write,
)
from vivavoce.protocol.client import (
    InputAudioClear,
    ItemCreate,
    ItemDelete,
    ItemRetrieve,
    ItemTruncate,
    ResponseCancel,
)
from vivavoce.protocol.items import (
    FunctionCall,
    FunctionCallOutput,
    InputAudio,
    InputText,
    Item,
    Message,
    OutputAudio,
)
from vivavoce.protocol.session import RealtimePatch, Transcription
from vivavoce.session.conversation import Conversation, SavedEntry, shown
from vivavoce.session.effects import Effect, Generate
from vivavoce.session.facts import (
    GenerationFinished,
    OutputFinished,
    SpokenWord,
    ToolCallArguments,
    ToolCallStarted,
)
from vivavoce.session.ledger import Ledger
from vivavoce.session.shell import Checkpoint, Session

WIRES = pytest.mark.parametrize("wire", [msgspec.json, msgspec.msgpack])
TEXT = st.text(max_size=8)
SOUND = st.binary(max_size=20).map(lambda sound: sound[: len(sound) // 2 * 2])


@st.composite
def saved_entries(draw: st.DrawFn) -> SavedEntry:
    item: Item
    match draw(st.sampled_from(["user", "answer", "call", "result"])):
        case "user":
            content = (InputText(text=draw(TEXT)), InputAudio())
            item = Message(id=draw(TEXT), role="user", content=content)
            sound = draw(SOUND)
            words = draw(st.dictionaries(st.just(1), TEXT))
            return SavedEntry(item, words, len(sound) // 2)
        case "answer":
            ledger = Ledger()
            ledger.add(draw(SOUND), (SpokenWord(draw(TEXT), 0), SpokenWord(draw(TEXT), 5)))
            if draw(st.booleans()):
                ledger.cut(draw(st.integers(0, 12)))
            part = OutputAudio(transcript=ledger.heard_text)
            item = Message(id=draw(TEXT), role="assistant", content=(part,))
            return SavedEntry(item, ledger=ledger.save())
        case "call":
            broke_off = draw(st.booleans())
            status: Any = "incomplete" if broke_off else "completed"
            return SavedEntry(FunctionCall(id=draw(TEXT), status=status, name=draw(TEXT)))
        case _:
            item = FunctionCallOutput(id=draw(TEXT), call_id="c", output=draw(TEXT))
            return SavedEntry(item)


@WIRES
@given(entries=st.lists(saved_entries(), max_size=6, unique_by=lambda saved: saved.item.id))
def test_a_conversation_survives_being_written_down(wire: Any, entries: list[SavedEntry]) -> None:
    original, restored = (Conversation(kept_bytes=10_000) for _ in range(2))
    original.load(tuple(entries))
    saved = original.save()
    assert saved == tuple(entries)
    restored.load(wire.decode(wire.encode(saved), type=tuple[SavedEntry, ...]))
    assert restored.save() == saved
    assert shown(restored) == shown(original)


def answered(session: Session, effects: list[Effect], now: float) -> list[Effect]:
    """The assistant answers aloud and calls a function; nobody interrupts it."""
    for answer in of(Generate, effects):
        one = answer.response_id
        for fact in (
            spoke(one, "one two three"),
            ToolCallStarted(one, 0, f"call_{len(answer.prompt.items)}", "dial"),
            ToolCallArguments(one, 0, "{}"),
            GenerationFinished(one, "stop"),
            OutputFinished(one),
        ):
            effects = effects + session.handle(fact, now)
    return effects


def interrupted(session: Session, now: float) -> list[Effect]:
    """The user speaks when 100 ms of an answer have been played."""
    effects = ask(session, now)
    answer = the(Generate, effects)
    effects += session.handle(spoke(answer.response_id, "one two three"), now)
    heard = hear(session, TURN, now + 0.1)
    effects += heard + transcribe(session, heard, "stop it", now + 0.1)
    effects += receive(session, ResponseCancel(), now + 0.2)
    return answered(session, effects, now + 0.3)


def step(session: Session, kind: str, n: int, now: float) -> list[Effect]:
    """One thing that a client or its user does, and all that comes of it."""
    entries = session.checkpoint(0.0).entries
    item_id = entries[n].item.id if n < len(entries) else "nowhere"
    match kind:
        case "say":
            return answered(session, say(session, f"sentence {n}", now=now), now)
        case "write":
            return answered(session, write(session, f"text {n}", now), now)
        case "interrupt":
            return interrupted(session, now)
        case "truncate":
            event = ItemTruncate(item_id=item_id, content_index=0, audio_end_ms=50 * n)
            return receive(session, event, now)
        case "delete":
            return receive(session, ItemDelete(item_id=item_id), now)
        case "retrieve":
            return receive(session, ItemRetrieve(item_id=item_id), now)
        case "sound":
            item = Message(role="user", content=(InputAudio(audio=bytes(range(2 * n))),))
            effects = receive(session, ItemCreate(item=item), now)
            return effects + transcribe(session, effects, "all words", now)
        case "result":
            made = FunctionCallOutput(call_id=f"call_{n}", output="42")
            return receive(session, ItemCreate(item=made), now)
        case _:
            detection = [None, {"type": "semantic_vad"}, {"type": "server_vad"}][n % 3]
            heard = {"turn_detection": detection}
            fields = {"instructions": f"Be {n}.", "audio": {"input": heard}}
            return update(session, msgspec.convert(fields, type=RealtimePatch), now)


_BYTES = r"b'(?:[^'\\]|\\.)*'|b\"(?:[^\"\\]|\\.)*\""
_AUDIO = re.compile(rf"((?:Input|Output)Audio\((?:transcript=[^()]*?, )?audio=)(?:UNSET|{_BYTES})")


def without_audio(shown: str) -> str:
    """A checkpoint keeps no audio: an item retrieved later shows none."""
    return _AUDIO.sub(r"\1?", shown)


class Names:
    """Ids by the order in which they come up, and positions left out: in these two sessions may
    differ that have the same to say."""

    def __init__(self, known: Checkpoint) -> None:
        self._names = {entry.item.id: entry.item.id for entry in known.entries}

    def without(self, told: object) -> str:
        named = re.sub(r"\b[a-z]+_[xy][0-9a-f]{5}\b", self._name, without_audio(repr(told)))
        return re.sub(r"\b(at|audio_start_ms|audio_end_ms)=\d+", r"\1=?", named)

    def _name(self, found: re.Match[str]) -> str:
        return self._names.setdefault(found[0], f"new {len(self._names)}")


KINDS = ["say", "write", "interrupt", "truncate", "delete", "retrieve", "sound", "result", "set"]
STEPS = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 6)), max_size=6)


@WIRES
@settings(max_examples=40, deadline=None)
@given(before=STEPS, after=STEPS)
def test_a_restored_session_answers_all_that_comes_as_the_original_does(
    wire: Any, before: list[tuple[str, int]], after: list[tuple[str, int]]
) -> None:
    original = a_session(transcription=Transcription("whisper-1"), salt="x")
    for at, (kind, n) in enumerate(before):
        step(original, kind, n, now=10.0 * at)
    receive(original, InputAudioClear(), now=99.0)  # nothing is between two turns
    saved = original.checkpoint(99.0)
    read = wire.decode(wire.encode(saved), type=Checkpoint)
    restored = a_session(read.session, checkpoint=read, salt="y", now=99.0)
    assert restored.checkpoint(99.0) == saved
    left, right = Names(saved), Names(saved)
    for at, (kind, n) in enumerate(after):
        now = 100.0 + 10.0 * at
        effects, others = (step(one, kind, n, now) for one in (original, restored))
        assert [left.without(one) for one in effects] == [right.without(one) for one in others]
    assert left.without(original.checkpoint(999.0)) == right.without(restored.checkpoint(999.0))
