"""A session restored from a checkpoint goes on as the original."""

import re
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.hypothesis_examples import examples
from tests.session.stage import (
    TURN,
    a_session,
    ask,
    hear,
    of,
    receive,
    say,
    spoke,
    tell,
    the,
    transcribe,
    update,
    wake,
    without_audio,
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
from vivavoce.protocol.server import ItemRetrieved, SpeechStarted, TimeoutTriggered
from vivavoce.protocol.session import RealtimePatch, ServerVad, Transcription
from vivavoce.session.checkpoint import Checkpoint
from vivavoce.session.conversation import ROOT, Conversation, Entry, SavedEntry, shown
from vivavoce.session.effects import Close, Effect, Generate, Send
from vivavoce.session.facts import (
    GenerationFinished,
    OutputFinished,
    SpokenWord,
    ToolCallArguments,
    ToolCallStarted,
)
from vivavoce.session.ledger import Ledger
from vivavoce.session.limits import SessionLimits
from vivavoce.session.shell import Session
from vivavoce.session.usage import UsageTotals

WIRES = pytest.mark.parametrize("wire", [msgspec.json, msgspec.msgpack])
TEXT = st.text(max_size=8)
IDS = st.text(max_size=8).filter(lambda id_: id_ != ROOT)
SOUND = st.binary(max_size=20).map(lambda sound: sound[: len(sound) // 2 * 2])


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    """An entry of any kind, with audio."""
    item: Item
    match draw(st.sampled_from(["user", "answer", "call", "result"])):
        case "user":
            content = (InputText(text=draw(TEXT)), InputAudio())
            item = Message(id=draw(IDS), role="user", content=content)
            sound = draw(SOUND)
            words = draw(st.dictionaries(st.just(1), TEXT))
            return Entry(item, {1: sound}, words, len(sound) // 2)
        case "answer":
            ledger = Ledger()
            ledger.add(draw(SOUND), (SpokenWord(draw(TEXT), 0), SpokenWord(draw(TEXT), 5)))
            if draw(st.booleans()):
                ledger.cut(draw(st.integers(0, 12)))
            part = OutputAudio(transcript=ledger.heard_text)
            item = Message(id=draw(IDS), role="assistant", content=(part,))
            return Entry(item, ledger=ledger)
        case "call":
            broke_off = draw(st.booleans())
            status: Any = "incomplete" if broke_off else "completed"
            return Entry(FunctionCall(id=draw(IDS), status=status, name=draw(TEXT)))
        case _:
            item = FunctionCallOutput(id=draw(IDS), call_id="c", output=draw(TEXT))
            return Entry(item)


@WIRES
@given(added=st.lists(entries(), max_size=6, unique_by=lambda entry: entry.item.id))
def test_conversation_saved_and_loaded_keeps_all_but_the_audio(
    wire: Any, added: list[Entry]
) -> None:
    original, restored = (Conversation(kept_bytes=10_000) for _ in range(2))
    for entry in added:
        original.add(entry)
    saved = original.save()
    restored.load(wire.decode(wire.encode(saved), type=tuple[SavedEntry, ...]))
    assert restored.save() == saved
    assert shown(restored) == shown(original)
    for entry in added:
        kept = original.retrieve(entry.item.id)
        assert restored.retrieve(entry.item.id) == without_audio(kept)


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
    entries = session.checkpoint(now).entries
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


class Names:
    """Ids by the order in which they appear; retrieved audio left out."""

    def __init__(self, known: Checkpoint) -> None:
        self._names = {entry.item.id: entry.item.id for entry in known.entries}

    def without(self, sent: object) -> str:
        if isinstance(sent, Send) and isinstance(sent.event, ItemRetrieved):
            sent = without_audio(sent.event.item)
        shown = re.sub(r"usual_pause_ms=\d+", "", repr(sent))  # learned anew, as the voice is
        return re.sub(r"\b[a-z]+_[xy][0-9a-f]{5}\b", self._name, shown)

    def _name(self, found: re.Match[str]) -> str:
        return self._names.setdefault(found[0], f"new {len(self._names)}")


KINDS = ["say", "write", "interrupt", "truncate", "delete", "retrieve", "sound", "result", "set"]
STEPS = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 6)), max_size=6)


@WIRES
@settings(max_examples=examples(40))
@given(before=STEPS, after=STEPS)
def test_session_restored_from_a_checkpoint_answers_as_the_original_does(
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
    assert restored.deadline == pytest.approx(original.deadline)
    left, right = Names(saved), Names(saved)
    for at, (kind, n) in enumerate(after):
        now = 100.0 + 10.0 * at
        effects, others = (step(one, kind, n, now) for one in (original, restored))
        assert [left.without(one) for one in effects] == [right.without(one) for one in others]
        assert restored.deadline == pytest.approx(original.deadline)
    ends = (original.checkpoint(200.0), restored.checkpoint(200.0))
    assert left.without(ends[0]) == right.without(ends[1])


def checkpointed(session: Session, now: float, *, later: float) -> Session:
    """The session as another process has it `later` after the checkpoint was made."""
    saved = session.checkpoint(now)
    return a_session(saved.session, checkpoint=saved, salt="y", now=now + later)


def test_restored_session_expires_when_the_original_would_have() -> None:
    session = a_session(limits=SessionLimits(max_seconds=100.0))
    assert session.deadline == 100.0
    restored = checkpointed(session, 70.0, later=5.0)
    assert restored.deadline == 105.0  # 30 s of it were left
    assert the(Close, wake(restored)).code == 1001


def test_restored_session_goes_on_counting_usage_and_leaves_the_checkpoint_alone() -> None:
    session = a_session()
    answered(session, write(session, "hello"), 1.0)
    saved = session.checkpoint(2.0)
    used = saved.usage.responses, saved.usage.output_tokens
    assert used[0] == 1
    restored = a_session(saved.session, checkpoint=saved, salt="y", now=2.0)
    answered(restored, write(restored, "again"), 3.0)
    assert restored.usage.responses == 2
    assert restored.usage.output_tokens > used[1]
    assert (saved.usage.responses, saved.usage.output_tokens) == used


def test_checkpoint_does_not_change_with_the_session() -> None:
    session = a_session()
    saved = session.checkpoint(0.0)
    answered(session, write(session, "hello"), 1.0)
    assert saved.usage == UsageTotals()


def test_restored_session_goes_on_counting_positions() -> None:
    session = a_session()
    hear(session, 20 * "." + TURN)
    restored = checkpointed(session, 0.0, later=0.0)
    started = the(SpeechStarted, hear(restored, 20 * "." + TURN))
    # 20 + 19 windows came before, then 20 silent ones; 300 ms of prefix are in the turn
    assert started.audio_start_ms == 59 * 32 - 300


@pytest.mark.parametrize("later", [0.0, 100.0])
def test_restored_session_continues_the_idle_timeout(later: float) -> None:
    session = a_session(turn_detection=ServerVad(idle_timeout_ms=5000))
    answered(session, write(session, "hello", now=10.0), 10.0)  # 300 ms of audio
    assert session.deadline == pytest.approx(15.3)
    restored = checkpointed(session, 12.0, later=later)
    assert restored.deadline == pytest.approx(15.3 + later)
    assert of(TimeoutTriggered, wake(restored))


def test_checkpoint_is_due_at_rest_and_where_an_item_might_be_lost() -> None:
    session = a_session()
    session.checkpoint(0.0)
    assert not session.checkpoint_due
    hear(session, "....")  # silence changes nothing
    assert not session.checkpoint_due
    hear(session, "####")
    assert not session.checkpoint_due  # the user speaks
    effects = hear(session, 16 * ".")
    assert session.checkpoint_due  # there is an item; a transcription is in progress
    session.checkpoint(0.0)
    effects = transcribe(session, effects, "hello")
    assert session.checkpoint_due  # its words are known
    session.checkpoint(0.0)
    response_id = the(Generate, effects).response_id
    tell(session, spoke(response_id, "good"))
    assert session.checkpoint_due  # an answer has begun
    session.checkpoint(0.0)
    tell(session, spoke(response_id, "day"))
    assert not session.checkpoint_due  # more words of it alone
    answered(session, effects, 0.0)
    assert session.checkpoint_due
    session.checkpoint(0.0)
    assert not session.checkpoint_due


def test_checkpoint_holds_no_audio_and_names_its_version() -> None:
    session = a_session(turn_detection=None)
    recording = b"\x12\x34" * 4000
    item = Message(role="user", content=(InputAudio(audio=recording),))
    transcribe(session, receive(session, ItemCreate(item=item)), "words")
    answered(session, ask(session), 0.0)
    wire = msgspec.msgpack.encode(session.checkpoint(0.0))
    assert len(wire) < 4000
    assert msgspec.msgpack.decode(wire)["version"] == 2
