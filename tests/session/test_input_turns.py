from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.hypothesis_examples import examples
from tests.session.stage import (
    TURN,
    a_session,
    drawn,
    events,
    hear,
    hear_sound,
    of,
    receive,
    the,
    transcribe,
    transcription_settings,
    types,
    update,
    vad_scores,
)
from vivavoce.audio.formats import ms
from vivavoce.protocol.client import (
    InputAudioAppend,
    InputAudioClear,
    InputAudioCommit,
    ItemRetrieve,
)
from vivavoce.protocol.items import InputAudio, Message
from vivavoce.protocol.server import (
    ErrorBody,
    ErrorEvent,
    InputAudioCommitted,
    ItemAdded,
    ItemRetrieved,
    SpeechStarted,
    SpeechStopped,
    TranscriptionDelta,
)
from vivavoce.protocol.session import RealtimePatch, ServerVad, SessionPatch, Transcription
from vivavoce.session.effects import (
    CancelTranscription,
    Effect,
    EndAudio,
    FeedAudio,
    RunVad,
    StartTranscription,
)
from vivavoce.session.facts import TimerFired, TranscriptUpdated
from vivavoce.session.limits import SessionLimits
from vivavoce.session.shell import Session

QUIET = ServerVad(create_response=False, interrupt_response=False)
COMMIT, CLEAR = InputAudioCommit(event_id="event_commit"), InputAudioClear()


def wants(**heard: Any) -> SessionPatch:
    """An update of what comes from the user, as a client writes it."""
    return msgspec.convert({"audio": {"input": heard}}, type=RealtimePatch)


def append(audio: bytes, event_id: str | None = None) -> InputAudioAppend:
    return InputAudioAppend(audio=audio, event_id=event_id)


def sound_of(session: Session, item_id: str) -> bytes:
    """The sound of an item, as the client retrieves it."""
    item = the(ItemRetrieved, receive(session, ItemRetrieve(item_id=item_id))).item
    assert isinstance(item, Message)
    assert isinstance(item.content[0], InputAudio)
    return item.content[0].audio or b""


def fed(effects: list[Effect], item_id: str) -> bytes:
    """All audio of an item that was transcribed."""
    return b"".join(feed.audio for feed in of(FeedAudio, effects) if feed.key.item_id == item_id)


def error_of(effects: list[Effect]) -> ErrorBody:
    return the(ErrorEvent, effects).error


def test_turn_is_started_committed_and_transcribed_under_one_id() -> None:
    session = a_session(turn_detection=QUIET, transcription=Transcription("whisper-1"))
    effects = hear(session, 20 * "." + TURN)
    effects += transcribe(session, effects, "hello")
    assert types(effects) == [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        "conversation.item.input_audio_transcription.delta",
        "conversation.item.input_audio_transcription.completed",
    ]
    item_id = the(SpeechStarted, effects).item_id
    told = {event.item_id for event in events(effects) if hasattr(event, "item_id")}
    ordered = [
        effect.key.item_id
        for effect in effects
        if isinstance(effect, StartTranscription | FeedAudio | EndAudio)
    ]
    assert {*told, *ordered, the(ItemAdded, effects).item.id} == {item_id}


def test_speech_that_goes_on_is_transcribed_in_threes_and_a_silence_at_once() -> None:
    session = a_session(turn_detection=QUIET)
    hear(session, 20 * "." + "##")
    window = len(drawn("#"))
    spoken = of(FeedAudio, hear(session, 8 * "#"))
    assert [len(feed.audio) // window for feed in spoken] == [3, 3]
    assert [len(feed.audio) // window for feed in of(FeedAudio, hear(session, ".."))] == [3, 1]


def test_clock_of_a_turn_counts_sound_from_prefix_to_silence() -> None:
    session = a_session(turn_detection=QUIET)
    effects = hear(session, 20 * "." + TURN)
    assert the(SpeechStarted, effects).audio_start_ms == 20 * 32 - 300
    assert the(SpeechStopped, effects).audio_end_ms == 39 * 32
    item_id = the(InputAudioCommitted, effects).item_id
    assert sound_of(session, item_id) == fed(effects, item_id)
    assert sound_of(session, item_id) == drawn(20 * "." + TURN)[48 * 340 : 48 * 1280]


def test_next_item_follows_the_last_and_takes_none_of_its_sound() -> None:
    session = a_session(turn_detection=QUIET)
    first, second = hear(session, TURN), hear(session, "##" + TURN)
    committed = the(InputAudioCommitted, second)
    assert committed.previous_item_id == the(InputAudioCommitted, first).item_id
    assert sound_of(session, committed.item_id) == drawn("##" + TURN)


PATTERNS = st.text("#.", min_size=40, max_size=60).map(lambda drawing: drawing + 20 * ".")


@settings(max_examples=examples(40))
@given(PATTERNS, st.lists(st.integers(1, 40_000), max_size=40), st.integers(100, 600))
def test_recording_sent_at_once_gives_the_same_items_as_live_speech(
    pattern: str, sizes: list[int], silence_ms: int
) -> None:
    vad = msgspec.structs.replace(QUIET, silence_duration_ms=silence_ms, prefix_padding_ms=100)
    limits = SessionLimits(max_buffer_seconds=1.0)
    live, sent = (a_session(turn_detection=vad, limits=limits) for _ in range(2))
    spoken = hear(live, pattern)
    pieces, rest = [], drawn(pattern)
    for size in sizes:
        pieces.append(rest[:size])
        rest = rest[size:]
    at_once = hear_sound(sent, [*filter(None, pieces), rest or bytes(0)])
    assert events(at_once) == events(spoken)
    for committed in of(InputAudioCommitted, spoken):
        assert fed(at_once, committed.item_id) == fed(spoken, committed.item_id)
        assert sound_of(sent, committed.item_id) == sound_of(live, committed.item_id)


def test_turn_beyond_the_buffer_is_committed_in_pieces() -> None:
    session = a_session(turn_detection=QUIET, limits=SessionLimits(max_buffer_seconds=2.0))
    effects = hear_sound(session, [drawn(150 * "#" + 20 * ".")])
    items = [committed.item_id for committed in of(InputAudioCommitted, effects)]
    assert [ms(fed(effects, item)) for item in items] == [2016, 2016, 5440 - 2 * 2016 - 160]
    assert b"".join(sound_of(session, item) for item in items) == drawn(150 * "#" + 15 * ".")


def test_silence_does_not_grow() -> None:
    session = a_session(turn_detection=QUIET)
    effects = hear(session, 2000 * ".")  # a minute
    assert types(effects) == []
    assert of(FeedAudio, effects) == []
    item_id = the(InputAudioCommitted, receive(session, COMMIT)).item_id
    assert ms(sound_of(session, item_id)) == 396  # the prefix and three windows


@pytest.mark.parametrize("vad", [QUIET, None])
def test_commit_of_less_than_a_tenth_of_a_second_makes_no_item(vad: ServerVad | None) -> None:
    session = a_session(turn_detection=vad)
    receive(session, append(bytes(48 * 99)))
    assert error_of(receive(session, COMMIT)) == ErrorBody(
        type="invalid_request_error",
        code="input_audio_buffer_commit_empty",
        message="Error committing input audio buffer: buffer too small. Expected at least "
        "100ms of audio, but buffer only has 99.00ms of audio.",
        param=None,
        event_id="event_commit",
    )
    receive(session, append(bytes(48)))
    assert types(receive(session, COMMIT)) == [
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
    ]
    assert "only has 0.00ms" in error_of(receive(session, COMMIT)).message


@settings(max_examples=examples(40))
@example(0, [64, 64])
@given(st.integers(0, 300), st.lists(st.integers(1, 90), min_size=1, max_size=30))
def test_sound_enough_for_an_item_is_never_refused(prefix_ms: int, pieces: list[int]) -> None:
    vad = msgspec.structs.replace(QUIET, prefix_padding_ms=prefix_ms)
    session = a_session(turn_detection=vad)
    hear_sound(session, [bytes(48 * piece) for piece in pieces])
    assert bool(of(InputAudioCommitted, receive(session, COMMIT))) == (sum(pieces) >= 100)


def test_audio_without_turn_detection_is_transcribed_as_it_comes() -> None:
    session = a_session(turn_detection=None)
    effects = receive(session, append(drawn("##"))) + receive(session, append(drawn("..")))
    assert events(effects) == []
    key = the(StartTranscription, effects).key
    item_id = key.item_id
    assert fed(effects, item_id) == drawn("##..")
    committed = receive(session, COMMIT)
    assert the(InputAudioCommitted, committed).item_id == item_id
    assert the(EndAudio, committed) == EndAudio(key)
    assert the(ItemAdded, committed).item == Message(
        id=item_id, role="user", content=(InputAudio(),)
    )
    assert "response.created" not in types(committed)


def test_commit_in_the_middle_of_a_turn_takes_all_audio() -> None:
    session = a_session(turn_detection=QUIET)
    began = hear(session, "####") + receive(session, append(drawn("#")[:100]))
    committed = receive(session, COMMIT)
    item_id = the(SpeechStarted, began).item_id
    assert the(InputAudioCommitted, committed).item_id == item_id
    assert sound_of(session, item_id) == drawn("####") + drawn("#")[:100]
    assert fed(began + committed, item_id) == sound_of(session, item_id)
    assert "input_audio_buffer.speech_stopped" not in types(hear(session, 20 * "."))


def test_cleared_audio_never_comes_back() -> None:
    session = a_session(turn_detection=QUIET)
    began = hear(session, "####")
    late = the(RunVad, receive(session, append(drawn("###"))))
    cleared = receive(session, CLEAR)
    assert types(cleared) == ["input_audio_buffer.cleared"]
    assert the(CancelTranscription, cleared).key.item_id == the(SpeechStarted, began).item_id
    assert session.handle(vad_scores(late), 0.0) == []
    again = hear(session, TURN)
    assert the(SpeechStarted, again).item_id != the(SpeechStarted, began).item_id
    assert the(SpeechStarted, again).audio_start_ms == 7 * 32
    assert sound_of(session, the(InputAudioCommitted, again).item_id) == drawn(TURN)


def test_clear_of_an_empty_buffer_is_confirmed() -> None:
    assert types(receive(a_session(), CLEAR)) == ["input_audio_buffer.cleared"]


def test_half_a_sample_is_reported_once_after_a_second() -> None:
    session = a_session()
    receive(session, append(b"\x01\x02\x03", "event_odd"), now=5.0)
    assert session.deadline == 6.0
    assert session.handle(TimerFired(), 5.9) == []
    error = error_of(session.handle(TimerFired(), 6.0))
    assert (error.param, error.event_id) == ("audio", "event_odd")
    assert session.handle(TimerFired(), 7.0) == []
    assert session.deadline > 7.0


def test_half_a_sample_that_is_completed_is_no_error() -> None:
    session = a_session(turn_detection=None)
    sound = drawn("#" * 10)
    for n in range(0, len(sound), 101):
        assert events(receive(session, append(sound[n : n + 101]), now=n / 48_000)) == []
    assert session.handle(TimerFired(), 9.0) == []
    item_id = the(InputAudioCommitted, receive(session, COMMIT, 9.0)).item_id
    assert sound_of(session, item_id) == sound


def test_half_a_sample_is_reported_at_a_commit() -> None:
    session = a_session(turn_detection=None)
    receive(session, append(drawn("####") + b"\x01", "event_odd"))
    committed = receive(session, COMMIT)
    assert error_of(committed).event_id == "event_odd"
    assert sound_of(session, the(InputAudioCommitted, committed).item_id) == drawn("####")
    receive(session, append(drawn("####")))  # what comes next begins with a whole sample
    item_id = the(InputAudioCommitted, receive(session, COMMIT)).item_id
    assert sound_of(session, item_id) == drawn("####")


def test_half_a_sample_that_is_cleared_is_gone_with_the_rest() -> None:
    session = a_session(turn_detection=None)
    receive(session, append(b"\x01\x02\x03", "event_odd"), now=5.0)
    assert types(receive(session, CLEAR)) == ["input_audio_buffer.cleared"]
    assert session.handle(TimerFired(), 6.0) == []
    receive(session, append(drawn("####")))
    item_id = the(InputAudioCommitted, receive(session, COMMIT)).item_id
    assert sound_of(session, item_id) == drawn("####")


def test_half_a_sample_is_reported_when_the_format_changes() -> None:
    session = a_session()
    receive(session, append(b"\x01", "event_odd"))
    changed = update(session, wants(format={"type": "audio/pcmu"}))
    assert types(changed) == ["error", "session.updated"]
    assert error_of(changed).event_id == "event_odd"


def test_buffer_is_filled_by_audio_without_vad_scores_and_not_by_a_turn() -> None:
    session = a_session(turn_detection=QUIET, limits=SessionLimits(max_buffer_seconds=1.0))
    assert "error" not in types(hear(session, 31 * "#"))
    late = receive(session, append(drawn(32 * "#")))
    assert error_of(receive(session, append(drawn("#")))).code == "input_audio_buffer_full"
    session.handle(vad_scores(the(RunVad, late)), 0.0)
    assert "error" not in types(receive(session, append(drawn("#"))))


def test_turn_that_fills_the_buffer_window_by_window_is_cut() -> None:
    session = a_session(turn_detection=QUIET, limits=SessionLimits(max_buffer_seconds=1.0))
    effects = hear(session, 70 * "#")
    assert types(effects).count("input_audio_buffer.committed") == 2


def test_full_buffer_is_refused_and_kept() -> None:
    session = a_session(turn_detection=None, limits=SessionLimits(max_buffer_seconds=1.0))
    receive(session, append(bytes(48 * 1001)))
    error = error_of(receive(session, append(bytes(48), "event_late")))
    assert (error.code, error.event_id) == ("input_audio_buffer_full", "event_late")
    item_id = the(InputAudioCommitted, receive(session, COMMIT)).item_id
    assert ms(sound_of(session, item_id)) == 1001


def test_turn_goes_on_when_turn_detection_is_switched_off() -> None:
    session = a_session(turn_detection=QUIET)
    began = hear(session, "####")
    late = the(RunVad, receive(session, append(drawn("#"))))
    update(session, wants(turn_detection=None))
    assert session.handle(vad_scores(late), 0.0) == []
    rest = receive(session, append(drawn(20 * ".")))
    assert events(rest) == []
    committed = receive(session, COMMIT)
    item_id = the(SpeechStarted, began).item_id
    assert the(InputAudioCommitted, committed).item_id == item_id
    assert sound_of(session, item_id) == drawn("#####" + 20 * ".")
    assert fed(began + rest + committed, item_id) == sound_of(session, item_id)


def test_audio_before_turn_detection_is_switched_on_is_a_turn() -> None:
    session = a_session(turn_detection=None)
    receive(session, append(drawn(20 * "." + "####")))
    effects = update(session, wants(turn_detection={"type": "server_vad"}))
    effects += session.handle(vad_scores(the(RunVad, effects)), 0.0)
    effects += hear(session, 15 * ".")
    assert the(SpeechStarted, effects).audio_start_ms == 20 * 32 - 300
    item_id = the(InputAudioCommitted, effects).item_id
    assert sound_of(session, item_id) == drawn(20 * "." + TURN)[48 * 340 :]
    assert fed(effects, item_id) == sound_of(session, item_id)


def test_new_settings_of_turn_detection_hold_for_the_turn_under_way() -> None:
    session = a_session(turn_detection=QUIET)
    hear(session, "####....")
    update(session, wants(turn_detection={"type": "server_vad", "silence_duration_ms": 200}))
    assert len(of(InputAudioCommitted, hear(session, "...."))) == 1


def test_words_come_while_the_user_still_speaks_under_the_id_of_the_item() -> None:
    session = a_session(transcription_settings(turn_detection=None))
    key = the(StartTranscription, receive(session, append(drawn("####")))).key
    item_id = key.item_id
    told = session.handle(TranscriptUpdated(key, "hello wor", 5, False), 0.0)
    assert [(d.item_id, d.delta) for d in of(TranscriptionDelta, told)] == [(item_id, "hello")]
    committed = receive(session, COMMIT)
    assert the(InputAudioCommitted, committed).item_id == item_id
    rest = transcribe(session, committed, "hello world")
    assert the(TranscriptionDelta, rest).delta == " world"


def test_transcription_session_makes_items_of_speech_and_nothing_else() -> None:
    session = a_session(transcription_settings())
    effects = hear(session, TURN)
    effects += transcribe(session, effects, "hello")
    assert [kind for kind in types(effects) if kind.startswith("response")] == []
    assert types(effects)[-1] == "conversation.item.input_audio_transcription.completed"


def test_new_language_holds_from_the_next_turn_on() -> None:
    session = a_session(turn_detection=QUIET, transcription=Transcription("whisper-1", "en"))
    first = hear(session, "####")
    update(session, wants(transcription={"language": "it", "prompt": "pasta"}))
    second = hear(session, 16 * "." + TURN)
    assert [(one.language, one.prompt) for one in of(StartTranscription, first + second)] == [
        ("en", ""),
        ("it", "pasta"),
    ]
