from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.errors import InvalidRequest
from vivavoce.protocol.items import (
    FunctionCall,
    FunctionCallOutput,
    InputAudio,
    InputText,
    Item,
    Message,
    OutputAudio,
    OutputText,
    Status,
)
from vivavoce.session.conversation import (
    RETRIEVED_BYTES,
    Conversation,
    Entry,
    SavedEntry,
    shown,
)
from vivavoce.session.effects import Ids
from vivavoce.session.facts import SpokenWord
from vivavoce.session.ledger import Ledger, SavedLedger

WORD = 2400  # samples of each word of an answer: 100 ms


def a_conversation(*entries: Entry, kept_bytes: int = 1_000_000) -> Conversation:
    conversation = Conversation(kept_bytes=kept_bytes)
    for entry in entries:
        conversation.add(entry)
    return conversation


def typed(item_id: str, text: str = "hi") -> Entry:
    return Entry(Message(id=item_id, role="user", content=(InputText(text=text),)))


def voiced(item_id: str, pcm: bytes = b"\x01\x02", words: str | None = None) -> Entry:
    """What a user said aloud."""
    item = Message(id=item_id, role="user", content=(InputAudio(),))
    return Entry(item, {0: pcm}, {} if words is None else {0: words}, len(pcm) // 2)


def ledger_of(text: str) -> Ledger:
    """Words of 100 ms each."""
    ledger = Ledger()
    words = [f"{word} " for word in text.split()]
    spoken = tuple(SpokenWord(word, n * WORD) for n, word in enumerate(words))
    ledger.add(b"\x07\x00" * WORD * len(words), spoken)
    return ledger


def answer(item_id: str, text: str = "one two three", status: Status = "completed") -> Entry:
    ledger = ledger_of(text)
    return Entry(spoken_item(item_id, ledger.text, status), ledger=ledger)


def spoken_item(item_id: str, transcript: str, status: Status = "completed") -> Message:
    part = OutputAudio(transcript=transcript)
    return Message(id=item_id, status=status, role="assistant", content=(part,))


def ids(conversation: Conversation) -> list[str]:
    return [entry.item.id for entry in conversation]


def refused(call: Any, *args: Any) -> tuple[str | None, str | None, str]:
    """Code, param and message of the refusal."""
    with pytest.raises(InvalidRequest) as problem:
        call(*args)
    return problem.value.code, problem.value.param, problem.value.message


@pytest.mark.parametrize(
    ("after", "order", "before"),
    [
        (None, ["a", "b", "new"], "b"),
        ("", ["a", "b", "new"], "b"),
        ("root", ["new", "a", "b"], None),
        ("a", ["a", "new", "b"], "a"),
        ("b", ["a", "b", "new"], "b"),
    ],
)
def test_item_goes_where_the_client_says(
    after: str | None, order: list[str], before: str | None
) -> None:
    conversation = a_conversation(typed("a"), typed("b"))
    assert conversation.add(typed("new"), after) == before
    assert ids(conversation) == order


def test_item_after_one_that_is_not_there_is_not_added() -> None:
    conversation = a_conversation(typed("a"))
    assert refused(conversation.add, typed("new"), "nowhere") == (
        "item_create_invalid_previous_item_id",
        "previous_item_id",
        "Error adding item: the previous item with id 'nowhere' does not exist.",
    )
    assert ids(conversation) == ["a"]
    assert conversation.find("new") is None


def test_item_id_is_accepted_once() -> None:
    conversation = a_conversation(typed("a", "first"))
    code, param, _ = refused(conversation.add, typed("a", "second"))
    assert (code, param) == ("item_create_duplicate_item_id", "item.id")
    assert shown(conversation) == (typed("a", "first").item,)


def test_empty_conversation_has_no_items() -> None:
    conversation = a_conversation()
    assert (list(conversation), len(conversation), conversation.previous("a")) == ([], 0, None)


def test_item_is_deleted_once() -> None:
    conversation = a_conversation(typed("a"), typed("b"), typed("c"))
    conversation.delete("b")
    assert ids(conversation) == ["a", "c"]
    assert conversation.previous("c") == "a"
    assert refused(conversation.delete, "b") == (
        "item_delete_invalid_item_id",
        None,
        "Error deleting item: the item with id 'b' does not exist.",
    )


def test_deleted_item_does_not_come_back_under_its_id() -> None:
    conversation = a_conversation(typed("a"), typed("b"))
    conversation.replace(typed("b", "changed").item)
    conversation.delete("a")
    conversation.replace(typed("a", "changed").item)
    assert shown(conversation) == (typed("b", "changed").item,)


def test_users_item_is_retrieved_with_its_sound() -> None:
    conversation = a_conversation(voiced("a", b"\x05\x06"), typed("b"))
    sound = InputAudio(audio=b"\x05\x06")
    assert conversation.retrieve("a") == Message(id="a", role="user", content=(sound,))
    assert conversation.retrieve("b") == typed("b").item
    assert refused(conversation.retrieve, "c") == (
        "item_retrieve_invalid_item_id",
        None,
        "Error retrieving item: the item with id 'c' does not exist.",
    )


def test_word_times_are_shown_from_the_moment_they_are_sent() -> None:
    entry = voiced("a", b"\x05\x06", words="hello")
    conversation = a_conversation(entry)
    assert conversation.retrieve("a") == Message(
        id="a", role="user", content=(InputAudio(audio=b"\x05\x06"),)
    )
    entry.show_words(0)
    assert conversation.retrieve("a") == Message(
        id="a", role="user", content=(InputAudio(audio=b"\x05\x06", transcript="hello"),)
    )


def test_answer_is_retrieved_with_the_sound_that_was_heard() -> None:
    conversation = a_conversation(answer("a", "one two three"))
    conversation.truncate("a", 0, 150)
    part = OutputAudio(transcript="one two", audio=b"\x07\x00" * (WORD * 3 // 2))
    assert conversation.retrieve("a") == Message(id="a", role="assistant", content=(part,))


def test_calls_and_their_results_are_retrieved_as_they_are() -> None:
    call = FunctionCall(id="c", call_id="call_1", name="dial")
    conversation = a_conversation(Entry(call))
    assert conversation.retrieve("c") == call
    assert conversation.has_call("call_1")
    assert not conversation.has_call("call_2")


def test_audio_larger_than_a_client_takes_in_one_event_is_left_out() -> None:
    longest, too_long = bytes(RETRIEVED_BYTES), bytes(RETRIEVED_BYTES + 2)
    said = Ledger()
    said.add(too_long, (SpokenWord("long ", 0),))
    conversation = a_conversation(
        voiced("a", longest),
        voiced("b", too_long),
        Entry(spoken_item("c", "long "), ledger=said),
        kept_bytes=10**9,
    )
    assert [_sound(conversation.retrieve(one)) for one in "abc"] == [longest, None, None]


def _sound(item: Item) -> bytes | None:
    """The sound in an item's first part."""
    assert isinstance(item, Message)
    part = item.content[0]
    assert isinstance(part, InputAudio | OutputAudio)
    return part.audio if isinstance(part.audio, bytes) else None


def test_truncated_answer_keeps_the_words_that_were_heard() -> None:
    conversation = a_conversation(typed("a"), answer("b", "one two three"))
    conversation.truncate("b", 0, 149)
    assert shown(conversation) == (typed("a").item, spoken_item("b", "one"))
    conversation.truncate("b", 0, 0)
    assert shown(conversation) == (typed("a").item,)  # nobody heard any of it


def test_answer_can_be_truncated_at_its_end_and_no_later() -> None:
    conversation = a_conversation(answer("b", "one two three"))
    conversation.truncate("b", 0, 300)
    assert shown(conversation) == (spoken_item("b", "one two three"),)
    assert refused(conversation.truncate, "b", 0, 301) == (
        "invalid_value",
        "audio_end_ms",
        "Audio content of 300ms is already shorter than 301ms",
    )


def test_started_millisecond_is_part_of_the_answer() -> None:
    ledger = Ledger()
    ledger.add(bytes(2 * 2401), (SpokenWord("one ", 0),))
    conversation = a_conversation(Entry(spoken_item("a", "one "), ledger=ledger))
    conversation.truncate("a", 0, 101)
    assert ledger.heard == 2401


def test_truncation_is_for_the_audio_of_an_answer_only() -> None:
    written = Message(id="w", role="assistant", content=(OutputText(text="hi"),))
    silent = Entry(spoken_item("s", ""), ledger=Ledger())
    call = Entry(FunctionCall(id="f", call_id="call_1", name="dial"))
    conversation = a_conversation(Entry(written), voiced("u"), silent, call, answer("b"))
    for item_id in "wusf":
        assert refused(conversation.truncate, item_id, 0, 0) == (
            "unsupported_content_type",
            None,
            "Only model output audio messages can be truncated",
        )
    assert refused(conversation.truncate, "nowhere", 0, 0)[0] == "item_truncate_invalid_item_id"
    assert refused(conversation.truncate, "b", 1, 0)[:2] == ("invalid_value", "content_index")


def test_answer_truncated_while_it_is_made_stays_so_when_it_is_complete() -> None:
    entry = answer("b", "one two three", "in_progress")
    conversation = a_conversation(entry)
    conversation.truncate("b", 0, 100)
    conversation.replace(spoken_item("b", "one two three "))
    assert shown(conversation) == (spoken_item("b", "one"),)
    part = OutputAudio(transcript="one", audio=b"\x07\x00" * WORD)
    assert conversation.retrieve("b") == Message(id="b", role="assistant", content=(part,))


def test_interrupted_answer_keeps_the_words_that_were_played() -> None:
    conversation = a_conversation(answer("b", "one two three"), typed("a"))
    conversation.cut("b", WORD)
    conversation.cut("a", 0)  # there is no sound to cut off
    conversation.cut("nowhere", 0)
    assert shown(conversation) == (spoken_item("b", "one"), typed("a").item)


def test_truncation_by_the_client_overrules_the_estimate_of_playout() -> None:
    conversation = a_conversation(answer("b", "one two three"))
    conversation.cut("b", WORD)
    conversation.truncate("b", 0, 200)
    assert shown(conversation) == (spoken_item("b", "one two"),)
    conversation.cut("b", 0)
    assert shown(conversation) == (spoken_item("b", "one two"),)


def test_prompt_has_text_and_no_audio() -> None:
    conversation = a_conversation(
        voiced("a", words="hello there"),
        voiced("b"),  # its words will never come
        answer("c", "one two"),
        Entry(FunctionCall(id="d", call_id="call_1", name="dial", arguments="{}")),
        Entry(FunctionCallOutput(id="e", call_id="call_1", output="42")),
    )
    assert shown(conversation) == (
        Message(id="a", role="user", content=(InputAudio(transcript="hello there"),)),
        Message(id="b", role="user", content=(InputAudio(),)),
        spoken_item("c", "one two "),
        FunctionCall(id="d", call_id="call_1", name="dial", arguments="{}"),
        FunctionCallOutput(id="e", call_id="call_1", output="42"),
    )


def test_prompt_leaves_out_an_incomplete_call() -> None:
    broken = FunctionCall(
        id="d", call_id="call_1", name="dial", arguments='{"to', status="incomplete"
    )
    assert shown(a_conversation(Entry(broken))) == ()


def test_oldest_audio_is_dropped_first_and_its_transcript_stays() -> None:
    conversation = a_conversation(
        voiced("a", bytes(400), words="oldest"),
        answer("b", "one"),  # 4800 bytes
        voiced("c", bytes(400), words="newest"),
        kept_bytes=5000,
    )
    assert [_sound(conversation.retrieve(one)) for one in "abc"] == [None, None, bytes(400)]
    assert shown(conversation) == (
        Message(id="a", role="user", content=(InputAudio(transcript="oldest"),)),
        spoken_item("b", "one "),
        Message(id="c", role="user", content=(InputAudio(transcript="newest"),)),
    )
    conversation.truncate("b", 0, 100)  # its length is still known
    assert refused(conversation.truncate, "b", 0, 101)[1] == "audio_end_ms"


def test_audio_of_a_new_item_is_kept_until_it_can_be_transcribed() -> None:
    conversation = a_conversation(voiced("a", bytes(400)), kept_bytes=0)
    assert _sound(conversation.retrieve("a")) == bytes(400)
    conversation.add(voiced("b", bytes(400)), "root")
    assert [_sound(conversation.retrieve(one)) for one in "ab"] == [None, bytes(400)]


def test_audio_of_an_answer_that_grows_after_the_next_item_is_counted() -> None:
    growing = Entry(spoken_item("a", "", "in_progress"), ledger=Ledger())
    deleted = Entry(spoken_item("b", "", "in_progress"), ledger=Ledger())
    conversation = a_conversation(growing, deleted, voiced("c", bytes(400)), kept_bytes=6000)
    for entry in (growing, deleted):
        assert entry.ledger
        entry.ledger.add(bytes(2 * WORD), (SpokenWord("one ", 0),))
    conversation.delete("b")
    conversation.add(typed("d"))
    assert [_sound(conversation.retrieve(one)) for one in "ac"] == [bytes(2 * WORD), bytes(400)]
    assert growing.ledger
    growing.ledger.add(bytes(2 * WORD), (SpokenWord("two ", WORD),))
    conversation.replace(spoken_item("a", "one two "))
    conversation.add(typed("e"))
    assert [_sound(conversation.retrieve(one)) for one in "ac"] == [None, bytes(400)]
    assert growing.ledger.samples == 2 * WORD


@given(st.lists(st.integers(0, 300), max_size=20), st.integers(0, 1000))
def test_kept_sound_is_bounded_whatever_comes(lengths: list[int], kept_bytes: int) -> None:
    conversation = a_conversation(kept_bytes=kept_bytes)
    for n, length in enumerate(lengths):
        conversation.add(voiced(f"i{n}", bytes(2 * length)))
        older = list(conversation)[:-1]
        assert sum(len(e.recordings.get(0, b"")) for e in older) <= kept_bytes


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 9), st.sampled_from([None, "", "root", 0, 3, 7])),
        st.tuples(st.just("delete"), st.integers(0, 9), st.none()),
        st.tuples(st.just("truncate"), st.integers(0, 9), st.integers(0, 400)),
    ),
    max_size=30,
)


@given(STEPS)
def test_conversation_equals_a_list_of_items_with_their_heard_positions(
    steps: list[tuple[str, int, Any]],
) -> None:
    conversation, model = a_conversation(), list[tuple[str, int]]()  # id, milliseconds heard
    for step, n, detail in steps:
        item_id = f"i{n}"
        order = [one for one, _ in model]
        place = order.index(item_id) if item_id in order else None
        try:
            if step == "add":
                after = f"i{detail}" if isinstance(detail, int) else detail
                before = conversation.add(answer(item_id), after)
                at = 0 if after == "root" else order.index(after) + 1 if after else len(order)
                assert before == (order[at - 1] if at else None)
                model.insert(at, (item_id, 300))
            elif step == "delete":
                conversation.delete(item_id)
                assert place is not None
                del model[place]
            else:
                conversation.truncate(item_id, 0, detail)
                assert place is not None
                assert detail <= 300
                model[place] = (item_id, detail)
        except InvalidRequest:
            missing = isinstance(detail, int) and f"i{detail}" not in order
            wrong = place is not None or missing if step == "add" else place is None
            assert wrong or (step == "truncate" and detail > 300)
        heard = {one: " ".join(["one", "two", "three"][: (ms + 50) // 100]) for one, ms in model}
        assert ids(conversation) == [one for one, _ in model]
        sent = {one: words for one, words in heard.items() if words}
        assert [(i.id, _words(i)) for i in shown(conversation)] == list(sent.items())


def _words(item: Item) -> str:
    assert isinstance(item, Message)
    assert isinstance(item.content[0], OutputAudio)
    return item.content[0].transcript.rstrip()


def test_saved_conversation_has_audio_words_and_heard_positions() -> None:
    conversation = a_conversation(voiced("a", b"\x01\x02", words="hello"), answer("b", "one two"))
    conversation.truncate("b", 0, 100)
    saved = conversation.save()
    assert saved == (
        SavedEntry(voiced("a").item, {0: "hello"}, 1),
        SavedEntry(
            spoken_item("b", "one"),
            ledger=SavedLedger(
                (SpokenWord("one ", 0), SpokenWord("two ", WORD)), 2 * WORD, heard=WORD
            ),
        ),
    )
    restored = a_conversation()
    restored.load(saved)
    assert restored.save() == saved
    assert shown(restored) == shown(conversation)


def test_new_id_skips_ids_that_a_client_has_used() -> None:
    conversation = a_conversation(typed("item_t00001"), typed("item_t00002"))
    assert conversation.new_id(Ids("t")) == "item_t00003"
