"""The flight recorder: what it keeps, what it writes, and what it never shows."""

import asyncio
import base64
import json
import logging
import random
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.replay.stage import lines_of, recorded, recorded_server, speak, two_turns
from tests.session.stage import MODELS
from tests.session.stage import settings as opening
from vivavoce.protocol.audio_frames import AudioFrames, PassedAudio
from vivavoce.protocol.client import InputAudioAppend, InputAudioClear, ItemCreate
from vivavoce.protocol.items import FunctionTool, InputAudio, InputText, Message
from vivavoce.protocol.server import OutputAudioDelta, SpeechStarted, SpeechStopped
from vivavoce.session.effects import Effect, FeedAudio, PlayAudio, RunVad, Send
from vivavoce.session.facts import (
    AudioArrived,
    AudioGenerated,
    Fact,
    Received,
    SpokenWord,
    TranscriptionKey,
    TranscriptUpdated,
    VadScores,
)
from vivavoce.session.limits import SessionLimits
from vivavoce.session.options import AvailableModels, ModelInfo
from vivavoce.session.policy import Policy, Rules
from vivavoce.session.shell import SessionStart
from vivavoce.settings import SessionSettings
from vivavoce.telemetry.entry_log import BLOCK_BYTES
from vivavoce.telemetry.faults import FaultWatch
from vivavoce.telemetry.recorder import RecordedCall, Recorder, RecorderSettings
from vivavoce.telemetry.recording import (
    CallHeader,
    RecordedModel,
    clean_line,
    decode_lines,
    encode_lines,
    frame_text,
    light_effect,
    light_fact,
    redacted,
)
from vivavoce.testing import run
from vivavoce.testing.fake_server import FakeClient, FakeServer

APPEND = Received(InputAudioAppend(audio=bytes(960)))
EFFECTS: list[Effect] = [RunVad(0, bytes(1536)), FeedAudio(TranscriptionKey("item_1"), bytes(960))]


def started(recorder: Recorder, name: str = "sess_1") -> RecordedCall:
    session = msgspec.structs.replace(opening(), id=name)
    return recorder.begin(SessionStart(session, MODELS, SessionLimits(), "t", 0.0))


def fill(call: RecordedCall, facts: int) -> None:
    for number in range(facts):
        call.on(APPEND, list(EFFECTS), number / 50)


def test_recorder_keeps_the_last_sessions_and_says_which() -> None:
    clock = iter(range(10))
    recorder = Recorder(RecorderSettings(sessions=2), wall_clock=lambda: float(next(clock)))
    for number in range(3):
        call = started(recorder, f"sess_{number}")
        call.on(APPEND, [], 1.5)
        call.leave()
        call.leave()
    live = started(recorder, "sess_3")
    found = [(one.id, one.live, one.seconds) for one in recorder.calls()]
    assert found == [("sess_3", True, 0.0), ("sess_2", False, 1.5), ("sess_1", False, 1.5)]
    assert recorder.find("sess_0") is None
    assert recorder.find("sess_3") is live


def test_hour_of_a_call_without_audio_takes_little_memory() -> None:
    recorder = Recorder(RecorderSettings())
    call = started(recorder)
    fill(call, 6_000)  # two minutes
    assert call.bytes < 100_000
    assert call.dropped == 0


def passing(number: int, *, output: bool, shape: int = 0) -> bytes:
    audio = base64.b64encode(bytes(960 + number % 5)).decode()
    if output:
        place = f'"event_id":"event_{number}","item_id":"item_{shape}"'
        return f'{{"type":"response.output_audio.delta",{place},"delta":"{audio}"}}'.encode()
    return f'{{"type":"input_audio_buffer.append","audio":"{audio}"}}'.encode()


def audio_of(frame: bytes, *, output: bool) -> PassedAudio:
    """What a session returns that has recognised the frame."""
    frames = AudioFrames("response.output_audio.delta" if output else "input_audio_buffer.append")
    frames.learn(frame)
    found = frames.read(frame)
    assert found
    return found


def test_frames_that_passed_are_kept_by_their_form_and_read_as_they_came() -> None:
    call = started(Recorder(RecorderSettings()))
    expected = []
    for number in range(4000):
        output = number % 2 > 0
        frame = passing(number, output=output, shape=number // 1500)
        call.passed(frame, audio_of(frame, output=output), number / 50, output=output)
        expected.append((number / 50, output, frame_text(frame, audio=False)))
        if number % 1000 == 999:
            call.on(APPEND, [], number / 50)
            expected.append((number / 50, False, ""))
    assert call.bytes < 70_000
    for _ in range(2):
        entries = [json.loads(line) for line in run(lines_of(call))[1:-1]]
        found = [(e["at"], e.get("passed") == "output", e.get("frame", "")) for e in entries]
        assert found == expected[call.dropped :]
        assert call.drop_block()
    assert call.dropped > 100


SPOKEN = OutputAudioDelta(
    event_id="event_1", response_id="resp_1", item_id="item_2", output_index=1, delta=bytes(960)
)
FEED = FeedAudio(TranscriptionKey("item_1", 1), bytes(1536))
STEADY: list[tuple[Fact, list[Effect]]] = [
    (VadScores(768, (0.25,)), []),
    (VadScores(1536, (0.125,)), [FEED]),
    (VadScores(2304, (0.5, 0.75)), []),
    (VadScores(3840, (0.0,)), [RunVad(0, bytes(1536))]),
    (APPEND, []),
    (
        Received(InputAudioAppend(event_id="mine", audio=bytes(1920)), b"{}"),
        [RunVad(0, bytes(3072))],
    ),
    (APPEND, [FEED]),
    (Received(InputAudioClear()), []),
    (AudioGenerated("resp_1", bytes(960)), [Send(SPOKEN)]),
    (AudioGenerated("resp_1", bytes(1920)), [Send(SPOKEN)]),
    (AudioGenerated("resp_1", bytes(960), (SpokenWord("so", 3),)), [Send(SPOKEN)]),
    (AudioGenerated("resp_1", bytes(960), ends=True), [Send(SPOKEN)]),
    (AudioGenerated("resp_1", bytes(960)), [PlayAudio("item_2", bytes(960))]),
    (
        AudioGenerated("resp_1", bytes(960)),
        [Send(SpeechStopped(event_id="e", item_id="i", audio_end_ms=1))],
    ),
    (TranscriptUpdated(TranscriptionKey("item_1"), "so", 0, final=False), []),
]


def test_entries_of_audio_are_read_as_they_came() -> None:
    call = started(Recorder(RecorderSettings()))
    expected = []
    for number in range(3000):
        fact, effects = STEADY[(number // 40 + number * number) % len(STEADY)]
        call.on(fact, list(effects), number / 50)
        kept = [(type(effect).__name__, light_effect(effect)) for effect in effects]
        light = light_fact(fact, audio=False, raw=False)
        expected.append([number / 50, type(fact).__name__, light, kept])
        if number % 100 == 50:
            frame = passing(number, output=True)
            call.passed(frame, audio_of(frame, output=True), number / 50, output=True)
    entries = [json.loads(line) for line in run(lines_of(call))[1:-1]]
    read = [[e["at"], e["fact"], e["fields"], e.get("effects", [])] for e in entries if "fact" in e]
    assert read == json.loads(msgspec.json.encode(expected))
    assert len(entries) == len(read) + 30


def test_frames_that_passed_are_kept_whole_with_their_audio() -> None:
    call = started(Recorder(RecorderSettings(audio=True)))
    frames = [passing(number, output=number % 2 > 0) for number in range(4)]
    for number, frame in enumerate(frames):
        audio = audio_of(frame, output=number % 2 > 0)
        call.passed(frame, audio, number / 50, output=number % 2 > 0)
    entries = [json.loads(line) for line in run(lines_of(call))[1:-1]]
    assert [entry["frame"].encode() for entry in entries] == frames


def test_memory_is_bounded_and_what_is_dropped_is_counted() -> None:
    recorder = Recorder(RecorderSettings(memory_mb=1, audio=True))
    past, live = started(recorder, "sess_1"), started(recorder, "sess_2")
    noise = bytes(range(256)) * 8
    past.on(AudioArrived(noise), [], 0.0)
    past.leave()
    some = random.Random(1)
    for number in range(2000):
        live.on(AudioArrived(some.randbytes(2000)), [], float(number))
    assert recorder.bytes <= 1024 * 1024 + BLOCK_BYTES
    assert recorder.find("sess_1") is None
    assert live.dropped > 0
    header = json.loads(run(lines_of(live))[0])
    assert header["dropped"] == live.dropped
    live.leave()
    assert recorder.bytes == sum(one.bytes for one in recorder.calls())


def test_call_that_was_resumed_while_it_went_on_may_outgrow_the_memory() -> None:
    recorder = Recorder(RecorderSettings(memory_mb=1, audio=True))
    older, newer = started(recorder, "sess_1"), started(recorder, "sess_1")
    newer.leave()
    some = random.Random(1)
    for number in range(2000):
        older.on(AudioArrived(some.randbytes(2000)), [], float(number))
    assert older.dropped == 0
    assert recorder.calls() == []
    older.leave()
    assert recorder.bytes == sum(one.bytes for one in recorder.calls())


def test_calls_that_make_room_for_later_ones_are_no_longer_counted() -> None:
    recorder = Recorder(RecorderSettings(sessions=2))
    for number in range(5):
        call = started(recorder, f"sess_{number}")
        call.on(AudioArrived(bytes(200)), [], 0.0)
        call.leave()
    assert recorder.bytes == sum(one.bytes for one in recorder.calls()) > 0


def test_call_is_written_where_something_failed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "calls"

    async def main() -> None:
        recorder = Recorder(RecorderSettings(folder=str(folder), max_files=2))
        async with recorder.writing():
            for number in range(4):
                call = started(recorder, f"sess_{number}")
                call.on(APPEND, list(EFFECTS), 0.5)
                if number:
                    call.failed(APPEND, ValueError("a bug"), 0.6)
                call.leave()

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())
    names = sorted(path.name.partition("-")[2] for path in folder.iterdir())
    assert names == ["sess_2.jsonl", "sess_3.jsonl"]
    *_, crash, last = map(json.loads, max(folder.iterdir()).read_text().splitlines())
    assert (crash["fact"], crash["raised"]) == ("Received", "ValueError: a bug")
    assert last["faults"][0]["kind"] == "crash"
    assert "sess_3: ValueError: a bug; written to" in caplog.text


def test_call_that_cannot_be_written_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()

    async def main() -> None:
        recorder = Recorder(RecorderSettings(folder=str(tmp_path / "file")))
        async with recorder.writing():
            call = started(recorder)
            call.failed(None, ValueError("a bug"), 0.6)
            call.leave()

    asyncio.run(main())
    assert "sess_1 cannot be written" in caplog.text


def test_failed_response_is_a_fault_and_a_right_call_has_none() -> None:
    async def talk(server: FakeServer, client: FakeClient) -> None:
        client.say("Hello?")  # the test gives no answer
        await server.expect.event("response.done")

    assert [fault.kind for fault in recorded(talk).faults] == ["error"]
    assert recorded(two_turns).faults == ()


def test_turn_without_an_answer_is_silence_after_a_while() -> None:
    watch = FaultWatch(opening(), 20.0)
    stopped = Send(SpeechStopped(event_id="e", item_id="i", audio_end_ms=900))
    started_ = Send(SpeechStarted(event_id="e", item_id="i", audio_start_ms=900))
    watch.on(APPEND, [stopped], 1.0)
    watch.on(APPEND, [started_], 5.0)
    watch.on(APPEND, [], 30.0)
    assert watch.faults == []
    watch.on(APPEND, [stopped], 31.0)
    watch.on(APPEND, [], 50.9)
    assert watch.faults == []
    watch.end(51.0)
    assert [fault.kind for fault in watch.faults] == ["silence"]


def test_words_and_numbers_are_redacted_everywhere() -> None:
    async def talk(server: FakeServer, client: FakeClient) -> None:
        server.answers("Your account 4711 is closed.")
        await speak(server, "my number is four seven eleven")
        await server.expect.within(30).said("account 4711")
        client.say("Call Miriam at 0160 555.")
        await server.expect.within(30).event("response.done")

    def text(**settings: Any) -> str:
        recording = recorded(talk, RecorderSettings(**settings))
        return b"".join(encode_lines(recording)).decode()

    def found(said: str) -> set[str]:  # whole words: times and ids have digits of their own
        return words & set(re.findall(r"\w+", said))

    words = {"Miriam", "account", "4711", "0160", "seven", "eleven"}
    assert found(text()) == words
    assert found(text(redact=("numbers",))) == {"Miriam", "account"}
    wordless = text(redact=("words", "numbers"))
    assert found(wordless) == set()
    assert "xxxx xxxxxx" in wordless.lower()


def test_redacted_frames_of_an_upstream_server_stay_json() -> None:
    raw = json.dumps({"type": "a.done", "transcript": "Call 12 now", "token": "now", "bytes": [1]})
    found = redacted({"raw": raw}, ("words", "numbers"))
    assert json.loads(found["raw"]) == {
        "type": "a.done",
        "transcript": "xxxx 00 xxx",
        "token": "xxx",
        "bytes": [],
    }


@pytest.mark.parametrize(
    "secret",
    [
        "sk-proj-abcdefghijklmnop",
        "ek_abcdefghijklmnopqrst.0123456789abcdef",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
        "Bearer abcdefgh12345678",
        "wss://user:pa55word@voice.example/v1",
    ],
)
def test_line_has_no_secret(secret: str) -> None:
    line = clean_line(json.dumps({"text": f"use {secret} please"}).encode())
    found = json.loads(line)["text"]
    assert "***" in found
    assert secret.split("@")[0][-8:] not in found


def test_key_in_the_instructions_is_not_recorded() -> None:
    async def talk(server: FakeServer, client: FakeClient) -> None:
        session = {"type": "realtime", "instructions": "The key is sk-abcdefghijklmnop1234."}
        client.send("session.update", session=session)
        await server.expect.event("session.updated")

    assert b"abcdefghijklmnop" not in b"".join(encode_lines(recorded(talk)))


def test_audio_of_items_is_kept_as_a_number_of_bytes() -> None:
    recorder = Recorder(RecorderSettings())
    call = started(recorder)
    content = (InputAudio(audio=bytes(4800)), InputText("and this"))
    call.on(Received(ItemCreate(item=Message(role="user", content=content))), [], 0.0)
    entry = json.loads(run(lines_of(call))[1])
    assert entry["fields"]["event"]["item"]["content"][0]["audio"] == 4800


def test_recording_of_a_configured_server_can_be_read() -> None:
    policy = Policy(tools=("clock",), max_output_tokens=90)
    rules = Rules(policy, frozenset({"local"}), (FunctionTool("clock"),))
    recorder = Recorder(RecorderSettings())
    limits = SessionSettings(instructions="Be brief.", max_items=77)
    call = recorder.begin(SessionStart(opening(), replace(MODELS, rules=rules), limits, "t", 0.0))
    call.on(APPEND, [], 0.0)
    header = decode_lines(run(lines_of(call)), "memory").header
    assert (header.limits.max_items, header.policy) == (77, policy)
    assert (header.key_models, header.tools) == (("local",), (FunctionTool("clock"),))


def test_header_has_all_that_a_session_may_use() -> None:
    of_header = {each.name for each in msgspec.structs.fields(CallHeader)}
    of_model = {each.name for each in msgspec.structs.fields(RecordedModel)}
    assert {each.name for each in fields(AvailableModels)} - {"rules", "costs"} <= of_header
    assert {each.name for each in fields(ModelInfo)} - {"names"} <= of_model


def test_audio_with_redaction_is_refused() -> None:
    with pytest.raises(ValueError, match="audio and redact exclude each other"):
        RecorderSettings(audio=True, redact=("words",))


def test_bug_in_the_recorder_does_not_end_the_call(caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder(RecorderSettings())
    call = started(recorder)
    call.on(object(), [], 0.0)  # type: ignore[arg-type]
    call.on(APPEND, [], 1.0)
    assert call.dropped == 1
    assert "sess_1 cannot be recorded" in caplog.text


def test_session_that_goes_on_can_be_read() -> None:
    async def main() -> list[bytes]:
        recorder = Recorder(RecorderSettings())
        async with recorded_server(recorder) as server, server.connect() as client:
            server.answers("Hello.")
            client.say("Hello?")
            await server.expect.said("hello")
            (summary,) = recorder.calls()
            assert summary.live
            call = recorder.find(summary.id)
            assert call is not None
            return await lines_of(call)

    lines = run(main())
    assert json.loads(lines[0])["format"] == "vivavoce-recording"
    assert json.loads(lines[-1]) == {"at": json.loads(lines[-1])["at"], "faults": []}
