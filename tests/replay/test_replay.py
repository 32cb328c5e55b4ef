"""A recorded call is run again with the same effects, or other ones where the code differs."""

import asyncio
import base64
import dataclasses
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from rich.console import Console

from tests.replay.stage import lines_of, record_call, recorded, speak, two_turns
from tests.session.histories import EVERYTHING, LIMITS, Step, World, openings
from tests.session.relay_stage import RELAYED, Relay, frame
from tests.session.stage import MODELS
from tests.session.stage import settings as opening
from vivavoce.errors import RecordingError, SettingsError
from vivavoce.protocol.client import InputAudioAppend, ItemCreate, ResponseCancel, ResponseCreate
from vivavoce.protocol.items import InputText, Message
from vivavoce.protocol.server import SpeechStarted
from vivavoce.protocol.session import SessionObject
from vivavoce.replay import ReplayChanges, measures, replayed, replayed_exactly, timeline
from vivavoce.replay.command import ReplayOptions, read_changes, replay_call
from vivavoce.replay.regression import write_test
from vivavoce.session.cascade.brain import CascadeBrain
from vivavoce.session.cascade.turn_detection import WINDOW
from vivavoce.session.effects import Effect, RequestFallback, Send
from vivavoce.session.facts import (
    AudioArrived,
    Disconnected,
    Received,
    UpstreamConnected,
    UpstreamLost,
    VadScores,
)
from vivavoce.session.limits import SessionLimits
from vivavoce.session.shell import Session, SessionStart
from vivavoce.telemetry.recorder import RecordedCall, Recorder, RecorderSettings
from vivavoce.telemetry.recording import CallRecording, decode_lines, encode_lines, read_recording
from vivavoce.testing import run
from vivavoce.testing.fake_server import FakeClient, FakeServer

QUIET = Console(quiet=True)


def kept(call: RecordedCall) -> CallRecording:
    """What is written of a call, read again."""
    return decode_lines(run(lines_of(call)), "memory")


def test_conversation_that_is_taken_up_again_is_recorded_with_its_checkpoint() -> None:
    before = Session(opening(), MODELS, LIMITS, salt="x", now=0.0)
    before.begin()
    message = Message(role="user", content=(InputText(text="my number is 4711"),))
    before.handle(Received(ItemCreate(item=message)), 0.0)
    saved = before.checkpoint(1.0)

    def call(recorder: Recorder) -> RecordedCall:
        start = SessionStart(saved.session, MODELS, LIMITS, "y", 2.0, checkpoint=saved)
        call = recorder.begin(start)
        session = Session(
            saved.session, call.models, LIMITS, salt="y", now=2.0, checkpoint=start.checkpoint
        )
        call.on(None, session.begin(), 2.0)
        asked = Received(ResponseCreate())
        call.on(asked, session.handle(asked, 3.0), 3.0)
        return call

    recorder = Recorder(RecorderSettings())
    first, second = call(recorder), call(recorder)
    first.leave()
    assert recorder.find(second.id) is second
    assert kept(second).header.checkpoint == saved
    again = replayed_exactly(kept(second))
    assert again.mismatch is None
    assert len(again.moments) == 2
    unreadable = run(lines_of(call(Recorder(RecorderSettings(redact=("words", "numbers"))))))
    assert b"4711" not in b"".join(unreadable)
    assert b"my number" not in b"".join(unreadable)


@settings(max_examples=30)
@given(openings, EVERYTHING)
def test_recorded_facts_give_the_recorded_effects(
    opening: SessionObject, steps: list[Step]
) -> None:
    world = World(opening)
    models = dataclasses.replace(MODELS, failure_errors=True)
    start = SessionStart(opening, models, LIMITS, "t", 0.0)
    call = Recorder(RecorderSettings(audio=True)).begin(start)
    for moment in world.play(steps):
        call.on(moment.fact, moment.effects, moment.now)
    again = replayed_exactly(kept(call))
    assert again.mismatch is None
    assert [len(moment.effects) for moment in again.moments] == [
        len(moment.effects) for moment in world.history
    ]


def test_call_without_audio_has_the_same_effects_again() -> None:
    recording = recorded(two_turns)
    call = replayed(recording)
    assert (call.mismatch, call.simulated, call.faults) == (None, False, [])
    found = measures(call)
    assert (found.turns, found.responses, found.interrupted) == (2, 3, 1)
    assert found.seconds > 8
    assert b'"audio":"' not in b"".join(encode_lines(recording))


@pytest.mark.parametrize("hissing", [True, False])
def test_call_without_audio_begins_a_turn_after_the_same_hiss(hissing: bool) -> None:
    opened = opening()
    session = Session(opened, MODELS, LIMITS, salt="x", now=0.0)
    call = Recorder(RecorderSettings()).begin(SessionStart(opened, MODELS, LIMITS, "x", 0.0))
    call.on(None, session.begin(), 0.0)
    noise = np.random.default_rng(1).normal(0, 900, 3 * WINDOW).astype("<i2")
    sound = noise if hissing else np.full(3 * WINDOW, 900, "<i2")
    pcm = np.concatenate((np.full(9 * WINDOW, 5, "<i2"), sound, sound)).tobytes()
    effects: list[Effect] = []
    for number, speech in enumerate([0.02] * 12 + [0.3] * 3):
        window = pcm[2 * WINDOW * number : 2 * WINDOW * (number + 1)]
        for fact in (AudioArrived(window), VadScores(WINDOW * number, (speech,))):
            made = session.handle(fact, 0.032 * number)
            call.on(fact, made, 0.032 * number)
            effects += made
    begun = [e for e in effects if isinstance(e, Send) and isinstance(e.event, SpeechStarted)]
    assert len(begun) == hissing
    assert replayed_exactly(kept(call)).mismatch is None


def test_simulated_call_goes_the_same_way_where_nothing_is_changed() -> None:
    recording = recorded(two_turns)
    changes = ReplayChanges(limits={"max_items": 4999})
    old, new = timeline(replayed(recording)), timeline(replayed(recording, changes))
    assert [line.text for line in new] == [line.text for line in old]


def test_shorter_silence_ends_turns_earlier() -> None:
    recording = recorded(two_turns)
    before = measures(replayed(recording))
    after = measures(replayed(recording, ReplayChanges(detection={"silence_duration_ms": 200})))
    assert before.decided_ms is not None
    assert after.decided_ms is not None
    assert before.decided_ms - after.decided_ms == pytest.approx(300, abs=40)
    assert (after.turns, after.responses) == (before.turns, before.responses)


def test_shorter_silence_cuts_a_turn_at_its_pause() -> None:
    async def talk(server: FakeServer, client: FakeClient) -> None:
        server.answers("I see.", "Good.")
        server.set_pace(1.0)
        await speak(server, "well I was thinking of", pause_ms=300)
        await speak(server, "", pause_ms=800)
        await server.expect.within(30).said("I see")
        await asyncio.sleep(3)

    recording = recorded(talk)
    call = replayed(recording, ReplayChanges(detection={"silence_duration_ms": 200}))
    assert measures(replayed(recording)).turns == 1
    assert measures(call).turns == 2
    heard = [line.text for line in timeline(call) if "transcription.completed" in line.text]
    assert [text.partition("transcript=")[2] for text in heard] == ["well I was", "thinking of"]


def test_relayed_call_has_the_same_effects_again() -> None:
    relay = Relay(connected=False)
    session = relay.session
    start = SessionStart(session.settings, RELAYED, SessionLimits(), "t", 0.0, relays=True)
    call = Recorder(RecorderSettings()).begin(start)
    call.on(None, relay.first, 0.0)
    take = session.handle
    at = 0.0

    def handle(fact: Any, now: float) -> Any:
        effects = take(fact, now)
        call.on(fact, effects, now)
        return effects

    session.handle = handle  # type: ignore[method-assign]
    relay.take(UpstreamConnected())

    def append(n: int) -> bytes:
        sound = base64.b64encode(bytes([n]) * 960).decode()
        return f'{{"type":"input_audio_buffer.append","audio":"{sound}"}}'.encode()

    relay.send(InputAudioAppend(audio=b"\1" * 960), append(1))
    for n in (2, 3):
        at += 0.02
        audio = session.pass_input(append(n), at)
        assert audio
        call.passed(append(n), audio, at, output=False)
    relay.now = at
    relay.turn("item_up", "hello there")
    relay.open_response()
    relay.open_item("answer")
    relay.speak("answer", "Good morning to you")
    place = {"response_id": "r", "item_id": "answer", "output_index": 0, "content_index": 0}
    delta = base64.b64encode(bytes(4800)).decode()
    raw = frame("response.output_audio.delta", delta=delta, **place).raw
    audio = session.pass_output(raw, at)
    assert audio
    call.passed(raw, audio, at, output=True)
    (fallback,) = relay.take(UpstreamLost("it broke"))
    assert isinstance(fallback, RequestFallback)
    call.swapping(relays=False, model="local", now=at)
    last, first = session.swap(CascadeBrain, at, model="local")
    call.on(None, last + first, at)
    relay.send(ResponseCreate())
    relay.take(Disconnected())
    recording = kept(call)
    again = replayed_exactly(recording)
    assert again.mismatch is None
    assert [fault.kind for fault in recording.faults] == ["failover", "error"]
    assert len([entry for entry in recording.entries if entry.passed]) == 3
    assert Received.__name__ in {entry.fact for entry in recording.entries}


Patch = Callable[[pytest.MonkeyPatch], None]


def crash(patch: pytest.MonkeyPatch) -> None:
    """A fault: response.cancel raises an exception."""
    right = CascadeBrain.on_client

    def wrong(self: CascadeBrain, event: Any, raw: Any, now: float) -> None:
        if isinstance(event, ResponseCancel):
            raise ZeroDivisionError("division by zero")
        right(self, event, raw, now)

    patch.setattr(CascadeBrain, "on_client", wrong)


def silence(patch: pytest.MonkeyPatch) -> None:
    """A fault: response.create is forgotten."""
    right = CascadeBrain.on_client

    def wrong(self: CascadeBrain, event: Any, raw: Any, now: float) -> None:
        if not isinstance(event, ResponseCreate):
            right(self, event, raw, now)

    patch.setattr(CascadeBrain, "on_client", wrong)


async def cancelled_answer(server: FakeServer, client: FakeClient) -> None:
    server.set_pace(1.0)
    server.answers("Once upon a time there was a fox. " * 5, "Hello.")
    client.say("Tell me a story.")
    await asyncio.sleep(2)
    client.send("response.cancel")
    await asyncio.sleep(30)


@pytest.mark.parametrize("fault", [crash, silence])
def test_fault_is_recorded_replayed_and_held_by_a_test_until_it_is_mended(
    fault: Patch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, test = tmp_path / "call.jsonl", tmp_path / "test_call.py"
    with pytest.MonkeyPatch.context() as patch:
        fault(patch)
        recording = record_call(cancelled_answer)
        path.write_bytes(b"".join(encode_lines(recording)))
        assert [one.kind for one in recording.faults] == [fault.__name__]
        again = replayed(read_recording(path))
        assert (again.mismatch, again.simulated) == (None, False)
        assert [one.kind for one in again.faults] == [fault.__name__]
        assert replay_call(path, ReplayOptions(to_test=test), QUIET, QUIET) == 0
        before = generated(test)
        with pytest.raises(AssertionError):
            before()
    mended = replayed(read_recording(path))
    assert mended.mismatch is not None
    assert mended.simulated
    assert [one.kind for one in mended.faults] == []
    assert replay_call(path, ReplayOptions(), QUIET, QUIET) == 1
    generated(test)()


def generated(path: Path) -> Callable[[], None]:
    """The test function in a file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (name,) = (name for name in vars(module) if name.startswith("test_"))
    test: Callable[[], None] = vars(module)[name]
    return test


def test_call_without_a_fault_becomes_a_test_of_its_effects(tmp_path: Path) -> None:
    recording = recorded(two_turns)
    written = write_test(recording, replayed(recording), tmp_path / "test_two_turns.py")
    assert [path.name for path in written] == ["test_two_turns.py", "test_two_turns.jsonl"]
    generated(written[0])()
    with pytest.MonkeyPatch.context() as patch:
        silence(patch)
        with pytest.raises(AssertionError):
            generated(written[0])()


def test_command_shows_what_changed_settings_would_have_done(tmp_path: Path) -> None:
    path, changed = tmp_path / "call.jsonl", tmp_path / "changed.toml"
    path.write_bytes(b"".join(encode_lines(recorded(two_turns))))
    changed.write_text("[session]\nsilence_duration_ms = 900\nmax_items = 30\n")
    console = Console(width=200, record=True, quiet=True)
    with console.capture() as captured:
        status = replay_call(path, ReplayOptions(settings=changed), console, QUIET)
    assert status in (0, 1)
    assert captured.get() == "" or "turns" in captured.get()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[session]\nsilence_duration_ms = 'x'\n", "[session] Expected `int`"),
        ("[session]\nsilence = 1\n", "silence"),
        ("[server]\nport = 1\n", "changes nothing of a call"),
        ("[session", "cannot be read"),
    ],
)
def test_changes_that_are_wrong_are_refused(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "changed.toml"
    path.write_text(text)
    with pytest.raises(SettingsError) as refused:
        read_changes(path)
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ([b"{"], "its first line is not JSON"),
        ([b"[]"], "has no format"),
        ([b'{"format":"vivavoce-recording","version":2,"server":"9.1"}'], "install vivavoce 9.1"),
        ([b'{"format":"vivavoce-recording","version":1}'], "line 1: Object missing"),
    ],
)
def test_recording_that_cannot_be_read_is_refused(lines: list[bytes], sentence: str) -> None:
    with pytest.raises(RecordingError) as refused:
        decode_lines(lines, "call.jsonl")
    assert sentence in str(refused.value)
