"""A session that owns its playout: what is said of it, and what an interruption leaves."""

from tests.session.stage import (
    LIMITS,
    MODELS,
    answered,
    done,
    drawn,
    events,
    kept,
    of,
    problem,
    receive,
    settings,
    spoke,
    tell,
    the,
    types,
    update,
    vad_scores,
    wake,
    write,
)
from vivavoce.protocol import server as says
from vivavoce.protocol.client import (
    InputAudioCommit,
    ItemCreate,
    ItemDelete,
    OutputAudioClear,
    ResponseCancel,
)
from vivavoce.protocol.items import InputText, Message, OutputAudio
from vivavoce.protocol.session import RealtimePatch, ServerVad
from vivavoce.session.effects import (
    CancelTranscription,
    ClearPlayback,
    Close,
    Effect,
    FeedAudio,
    Generate,
    PlayAudio,
    RunVad,
)
from vivavoce.session.facts import (
    AudioArrived,
    AudioPlayed,
    DrainStarted,
    GenerationFinished,
    OutputFinished,
)
from vivavoce.session.limits import SessionLimits
from vivavoce.session.shell import Session

MS = 24  # samples
PATIENT = ServerVad(idle_timeout_ms=5000)


def a_call(
    *, limits: SessionLimits = LIMITS, turn_detection: ServerVad | None = PATIENT
) -> Session:
    session = Session(
        settings(turn_detection=turn_detection),
        MODELS,
        limits,
        salt="t",
        now=0.0,
        server_plays=True,
    )
    session.begin()
    return session


def hear(session: Session, pattern: str, now: float = 0.0) -> list[Effect]:
    """A track brings the audio of a drawing; every RunVad is answered at once."""
    effects: list[Effect] = []
    for window in pattern:
        new = session.handle(AudioArrived(drawn(window)), now)
        effects += new
        for effect in of(RunVad, new):
            effects += session.handle(vad_scores(effect), now)
    return effects


def speaking(session: Session, *, complete: bool = False) -> tuple[str, str]:
    """An answer of 400 ms is made; its response and its item."""
    response_id = answered(write(session, "Hello?"))
    effects = tell(session, spoke(response_id, "one two three four"))
    if complete:
        effects += tell(
            session, GenerationFinished(response_id, "stop"), OutputFinished(response_id)
        )
    return response_id, the(says.ContentPartAdded, effects).item_id


def test_answer_of_a_call_is_played_and_not_sent() -> None:
    session = a_call()
    response_id = answered(write(session, "Hello?"))
    effects = tell(session, spoke(response_id, "one two"))
    effects += tell(session, GenerationFinished(response_id, "stop"), OutputFinished(response_id))
    item_id = the(says.ContentPartAdded, effects).item_id
    assert types(effects) == [
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        "output_audio_buffer.started",
        "response.output_audio_transcript.delta",
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "response.output_item.done",
        "conversation.item.done",
        "response.done",
        "rate_limits.updated",
    ]
    assert the(PlayAudio, effects) == PlayAudio(item_id, b"\x01\x00" * 200 * MS)
    assert types(session.handle(AudioPlayed(item_id, 199 * MS), 1.0)) == []
    (stopped,) = events(session.handle(AudioPlayed(item_id, 1 * MS), 1.0))
    assert isinstance(stopped, says.OutputAudioStopped)
    assert stopped.response_id == response_id


def test_words_without_sound_start_nothing() -> None:
    session = a_call()
    response_id = answered(write(session, "Hello?"))
    effects = tell(session, spoke(response_id, "one", ms=0))
    assert "output_audio_buffer.started" not in types(effects)
    assert of(PlayAudio, effects) == []


def test_speech_stops_playout_and_truncates_the_answer_where_it_was_heard() -> None:
    session = a_call()
    response_id, item_id = speaking(session)
    tell(session, AudioPlayed(item_id, 250 * MS))
    effects = hear(session, "####")
    assert types(effects) == [
        "input_audio_buffer.speech_started",
        "output_audio_buffer.cleared",
        "conversation.item.truncated",
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "response.output_item.done",
        "conversation.item.done",
        "response.done",
        "rate_limits.updated",
    ]
    assert of(ClearPlayback, effects) == [ClearPlayback()]
    assert the(says.OutputAudioCleared, effects).response_id == response_id
    truncated = the(says.ItemTruncated, effects)
    assert (truncated.item_id, truncated.audio_end_ms) == (item_id, 250)
    details = done(effects).status_details
    assert details is not None
    assert details.reason == "turn_detected"
    item = the(says.ItemDone, effects).item
    assert isinstance(item, Message)
    assert item.content == (OutputAudio(transcript="one two three four "),)
    assert kept(session)[-1] == "one two three"


def test_complete_answer_in_playout_is_only_cleared_and_truncated() -> None:
    session = a_call()
    _, item_id = speaking(session, complete=True)
    tell(session, AudioPlayed(item_id, 110 * MS))
    effects = hear(session, "####")
    assert types(effects) == [
        "input_audio_buffer.speech_started",
        "output_audio_buffer.cleared",
        "conversation.item.truncated",
    ]
    assert the(says.ItemTruncated, effects).audio_end_ms == 110
    assert kept(session)[-1] == "one"


def test_answer_heard_to_its_end_is_not_truncated() -> None:
    session = a_call()
    _, item_id = speaking(session, complete=True)
    tell(session, AudioPlayed(item_id, 400 * MS))
    assert types(hear(session, "####")) == ["input_audio_buffer.speech_started"]


def test_client_cancels_an_answer_and_then_clears_its_audio() -> None:
    session = a_call()
    response_id, item_id = speaking(session)
    tell(session, AudioPlayed(item_id, 90 * MS))
    effects = receive(session, ResponseCancel())
    assert types(effects)[-2:] == ["response.done", "rate_limits.updated"]
    assert of(ClearPlayback, effects) == []
    tell(session, AudioPlayed(item_id, 60 * MS))
    effects = receive(session, OutputAudioClear())
    assert types(effects) == ["output_audio_buffer.cleared", "conversation.item.truncated"]
    assert the(says.OutputAudioCleared, effects).response_id == response_id
    assert the(says.ItemTruncated, effects).audio_end_ms == 150
    assert receive(session, OutputAudioClear()) == []


def test_cancelled_answer_is_played_to_the_end_of_its_audio() -> None:
    session = a_call()
    _, item_id = speaking(session)
    receive(session, ResponseCancel())
    effects = tell(session, AudioPlayed(item_id, 400 * MS))
    assert types(effects) == ["output_audio_buffer.stopped"]
    assert kept(session)[-1] == "one two three four"


def test_sound_of_an_item_that_was_deleted_is_cleared_without_a_word_about_the_item() -> None:
    session = a_call()
    _, item_id = speaking(session, complete=True)
    receive(session, ItemDelete(item_id=item_id))
    mine = Message(id=item_id, role="user", content=(InputText(text="Mine."),))
    receive(session, ItemCreate(item=mine))
    assert types(receive(session, OutputAudioClear())) == ["output_audio_buffer.cleared"]


def test_idle_timeout_counts_from_the_end_of_playout() -> None:
    session = a_call()
    _, item_id = speaking(session, complete=True)
    assert session.deadline == LIMITS.max_seconds
    session.handle(AudioPlayed(item_id, 400 * MS), 7.0)
    assert session.deadline == 12.0
    assert "input_audio_buffer.timeout_triggered" in types(wake(session))


def test_drain_waits_for_the_end_of_playout() -> None:
    session = a_call()
    _, item_id = speaking(session, complete=True)
    assert of(Close, tell(session, DrainStarted())) == []
    assert the(Close, tell(session, AudioPlayed(item_id, 400 * MS))).code == 1012


def test_track_without_turn_detection_fills_the_buffer_until_a_commit() -> None:
    session = a_call(turn_detection=None)
    effects = hear(session, "####")
    assert [len(feed.audio) for feed in of(FeedAudio, effects)] == [1536] * 4
    assert "input_audio_buffer.committed" in types(receive(session, InputAudioCommit()))


def test_playback_that_goes_on_moves_no_deadline_and_its_end_does() -> None:
    session = a_call()
    response_id = the(Generate, write(session, "Hello.")).response_id
    sent = tell(session, spoke(response_id, "Hi there.", ms=200), OutputFinished(response_id))
    item_id = the(says.OutputItemAdded, sent).item.id
    assert tell(session, AudioPlayed(item_id, 200 * MS)) == []
    assert session.steady
    assert types(tell(session, AudioPlayed(item_id, 200 * MS))) == ["output_audio_buffer.stopped"]
    assert not session.steady


def test_track_is_heard_while_the_server_waits_for_an_answer_to_shut_down() -> None:
    session = a_call(turn_detection=None)
    write(session, "Hello.")
    tell(session, DrainStarted())
    assert [len(feed.audio) for feed in of(FeedAudio, hear(session, "##"))] == [1536] * 2


def test_audio_that_is_never_committed_is_dropped_without_an_event() -> None:
    session = a_call(limits=SessionLimits(max_buffer_seconds=0.1), turn_detection=None)
    effects = hear(session, "####")
    assert of(CancelTranscription, effects) == []
    effects = hear(session, "#")
    assert len(of(CancelTranscription, effects)) == 1
    assert types(effects) == []
    assert problem(receive(session, InputAudioCommit()))[0] == "input_audio_buffer_commit_empty"


def test_session_object_shows_the_settings_in_force() -> None:
    session = a_call()
    effects = update(session, RealtimePatch(instructions="Be brief."))
    assert the(says.SessionUpdated, effects).session == session.settings
