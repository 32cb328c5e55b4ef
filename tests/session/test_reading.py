"""What a response reads, and which words it waits for."""

from tests.session.stage import (
    SPOKEN,
    WHISPER,
    a_session,
    ask,
    failure,
    final,
    kept,
    of,
    receive,
    record,
    tell,
    texts,
    the,
    transcribe,
    types,
    write,
)
from vivavoce.protocol.client import (
    InputAudioAppend,
    InputAudioCommit,
    ItemCreate,
    ItemDelete,
)
from vivavoce.protocol.items import InputAudio, InputText, ItemReference, Message
from vivavoce.session.effects import EndAudio, FeedAudio, Generate, StartTranscription
from vivavoce.session.facts import ItemTranscriptionFailed, OutputFinished, TranscriptionKey


def test_response_waits_for_all_recordings_that_it_reads() -> None:
    session = a_session(turn_detection=None)
    recording = InputAudio(audio=SPOKEN)
    item = Message(id="u", role="user", content=(recording, recording))
    receive(session, ItemCreate(item=item))
    record(session, "v")
    ask(session)
    assert tell(session, final("u", "one"), final("v", "three")) == []
    prompt = the(Generate, tell(session, final(TranscriptionKey("u", 1), "two"))).prompt
    assert texts(prompt.items) == ["one", "two", "three"]


def test_words_that_are_known_are_not_waited_for() -> None:
    session = a_session(turn_detection=None)
    record(session, "u")
    tell(session, final("u", "hello"))
    assert texts(the(Generate, ask(session)).prompt.items) == ["hello"]


def test_two_responses_wait_for_the_same_words() -> None:
    session = a_session(turn_detection=None)
    record(session, "u")
    ask(session)
    ask(session, conversation="none")
    both = of(Generate, tell(session, final("u", "hello")))
    assert [texts(answer.prompt.items) for answer in both] == [["hello"], ["hello"]]


def test_response_waits_only_for_what_it_reads() -> None:
    session = a_session(turn_detection=None)
    record(session, "u")
    assert the(Generate, ask(session, conversation="none", input=())).prompt.items == ()


def test_items_after_the_creation_of_a_response_are_not_read() -> None:
    session = a_session(turn_detection=None)
    record(session, "u")
    ask(session)
    later = Message(role="user", content=(InputText("and this?"),))
    receive(session, ItemCreate(item=later))
    assert texts(the(Generate, tell(session, final("u", "this"))).prompt.items) == ["this"]
    assert kept(session) == ["this", "and this?"]


def test_recording_in_the_input_is_transcribed_without_events() -> None:
    session = a_session(turn_detection=None, transcription=WHISPER)
    item = Message(role="user", content=(InputAudio(audio=SPOKEN),))
    effects = ask(session, conversation="none", input=(item,))
    key = the(StartTranscription, effects).key
    assert (the(FeedAudio, effects), the(EndAudio, effects)) == (
        FeedAudio(key, SPOKEN),
        EndAudio(key),
    )
    effects = tell(session, final(key, "psst"))
    assert types(effects) == []
    assert texts(the(Generate, effects).prompt.items) == ["psst"]
    assert kept(session) == []


def test_item_may_be_referred_to_before_its_words_are_known() -> None:
    session = a_session(turn_detection=None)
    record(session, "u")
    record(session, "v")
    ask(session, conversation="none", input=(ItemReference("u"),))
    assert tell(session, final("v", "no")) == []
    assert texts(the(Generate, tell(session, final("u", "yes"))).prompt.items) == ["yes"]


def test_manual_commit_is_waited_for_like_a_turn() -> None:
    session = a_session(turn_detection=None)
    receive(session, InputAudioAppend(audio=SPOKEN))
    committed = receive(session, InputAudioCommit())
    assert of(Generate, ask(session)) == []
    assert texts(the(Generate, transcribe(session, committed, "hello")).prompt.items) == ["hello"]


def test_words_that_failed_are_forgotten_with_the_next_answer() -> None:
    session = a_session(turn_detection=None)
    record(session, "u")
    tell(session, ItemTranscriptionFailed(TranscriptionKey("u"), "it is broken"))
    tell(session, OutputFinished(the(Generate, write(session, "never mind")).response_id))
    listed = ask(session, conversation="none", input=(ItemReference("u"),))
    assert texts(the(Generate, listed).prompt.items) == [None]


def test_words_that_failed_are_not_forgotten_beside_the_conversation() -> None:
    session = a_session(turn_detection=None)
    record(session, "u")
    tell(session, ItemTranscriptionFailed(TranscriptionKey("u"), "it is broken"))
    the(Generate, ask(session, conversation="none", input=()))
    assert failure(ask(session)) == ("stt_failed", "it is broken")


def test_item_that_is_deleted_is_not_waited_for_nor_read() -> None:
    session = a_session(turn_detection=None)
    record(session, "u")
    record(session, "v")
    ask(session)
    assert tell(session, final("v", "there")) == []
    effects = receive(session, ItemDelete(item_id="u"))
    assert types(effects) == ["conversation.item.deleted"]
    assert texts(the(Generate, effects).prompt.items) == ["there"]
