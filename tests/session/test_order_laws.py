"""What holds for everything that a session asks of the world, whatever happens."""

from itertools import pairwise

from tests.session.histories import Step, World
from tests.session.laws import effects, events, every_history_keeps, of_response
from vivavoce.protocol import server as says
from vivavoce.protocol.items import FunctionCall
from vivavoce.protocol.responses import DurationUsage
from vivavoce.session.cascade.turn_detection import WINDOW
from vivavoce.session.effects import (
    CancelGeneration,
    CancelTranscription,
    Close,
    EndAudio,
    FeedAudio,
    Generate,
    RunVad,
    Send,
    StartTranscription,
)
from vivavoce.session.facts import ItemTranscriptionFailed, TranscriptionKey, TranscriptUpdated


def session_has_no_effects_after_the_close(world: World) -> None:
    everything = list(effects(world))
    assert [type(effect) for effect in everything].count(Close) == 1
    assert isinstance(everything[-1], Close)
    assert world.play([Step("write", 1, 1, 0.0), Step("timer", 0, 0, 0.0)])[-1].effects == []


def vad_gets_whole_windows_in_order(world: World) -> None:
    """Where it goes on elsewhere, the client or a commit has made it so."""
    end = 0
    moved = False
    for effect in effects(world):
        match effect:
            case RunVad(at=at, audio=audio):
                assert audio
                assert len(audio) % (2 * WINDOW) == 0
                assert at == end or moved
                end, moved = at + len(audio) // 2, False
            case Send(
                event=says.InputAudioCommitted() | says.InputAudioCleared() | says.SessionUpdated()
            ):
                moved = True


def every_transcription_has_a_beginning_and_an_end(world: World) -> None:
    """Once it is over, the client may have deleted its item and put in another of that name."""
    state: dict[TranscriptionKey, str] = {}
    for moment in world.history:
        match moment.fact:
            case TranscriptUpdated(key=key, final=True) | ItemTranscriptionFailed(key=key) if (
                key in state
            ):
                state[key] = "over"
        for effect in moment.effects:
            match effect:
                case StartTranscription(key=key):
                    assert state.get(key, "over") == "over"
                    state[key] = "open"
                case FeedAudio(key=key, audio=audio):
                    assert state[key] == "open"
                    assert audio
                    assert len(audio) % 2 == 0
                case EndAudio(key=key):
                    assert state[key] == "open"
                    state[key] = "finished"
                case CancelTranscription(key=key):
                    state[key] = "over"


def generation_is_requested_once_and_cancelled_at_most_once(world: World) -> None:
    state: dict[str, str] = {}
    for effect in effects(world):
        match effect:
            case Send(event=says.ResponseCreated(response=response)):
                state[response.id] = "announced"
            case Generate(response_id=response_id):
                assert state[response_id] == "announced"
                state[response_id] = "asked"
            case CancelGeneration(response_id=response_id):
                assert state[response_id] == "asked"
                state[response_id] = "stopped"
            case Send(event=says.ResponseDone(response=response)):
                assert state[response.id] in ("announced", "asked", "stopped")
                state[response.id] = "done"
            case Send(event=event) if of_response(event):
                assert state[of_response(event) or ""] in ("asked", "stopped")
            case _:
                pass


def prompts_hold_no_incomplete_call(world: World) -> None:
    for effect in effects(world):
        if isinstance(effect, Generate):
            calls = [item for item in effect.prompt.items if isinstance(item, FunctionCall)]
            assert {call.status for call in calls} <= {"completed"}


def usage_only_grows_and_is_the_sum_of_what_was_reported(world: World) -> None:
    responses = [e.response.usage for e in events(world) if isinstance(e, says.ResponseDone)]
    usages = [usage for usage in responses if usage is not None]
    assert len(usages) == len(responses)
    for usage in usages:
        inside, outside = usage.input_token_details, usage.output_token_details
        assert usage.total_tokens == usage.input_tokens + usage.output_tokens
        assert usage.input_tokens == inside.text_tokens + inside.audio_tokens
        assert usage.output_tokens == outside.text_tokens + outside.audio_tokens
        assert inside.cached_tokens <= inside.text_tokens
    used = [moment.used for moment in world.history]
    for earlier, later in pairwise(used):
        assert all(less <= more for less, more in zip(earlier, later, strict=True))
    total = world.session.usage
    assert total.responses == len(usages)
    assert total.input_tokens == sum(usage.input_tokens for usage in usages)
    assert total.output_tokens == sum(usage.output_tokens for usage in usages)
    sent = [e.usage for e in events(world) if isinstance(e, says.TranscriptionCompleted)]
    assert total.transcribed_seconds >= sum(u.seconds for u in sent if isinstance(u, DurationUsage))


test_history_keeps_the_laws_of_effects = every_history_keeps(
    vad_gets_whole_windows_in_order,
    every_transcription_has_a_beginning_and_an_end,
    generation_is_requested_once_and_cancelled_at_most_once,
    prompts_hold_no_incomplete_call,
    usage_only_grows_and_is_the_sum_of_what_was_reported,
    session_has_no_effects_after_the_close,  # goes on with the history
)
