"""What the room makes of what is heard and played in it."""

import asyncio
from dataclasses import replace
from typing import Any, Literal, Self

import msgspec
import pytest

from tests.runtime.stage import OFFER, SOFT, Audience, Troupe, speech
from vivavoce.errors import EngineError
from vivavoce.protocol import server as says
from vivavoce.protocol.client import InputAudioAppend, InputAudioCommit
from vivavoce.protocol.responses import Response, ResponseAudio, ResponseAudioOutput
from vivavoce.protocol.session import (
    PCM,
    PCMU,
    Audio,
    AudioInput,
    AudioOutput,
    NoiseReduction,
    RealtimeSession,
    ServerVad,
    TranscriptionAudio,
    TranscriptionSession,
)
from vivavoce.runtime.catalog import ModelCatalog
from vivavoce.runtime.echo import LONGEST_PIECE, MOST_WAITING, EchoCanceller
from vivavoce.runtime.runner import Runner
from vivavoce.session.effects import ClearPlayback, PlayAudio, Send
from vivavoce.session.facts import AudioArrived, Disconnected, Received, TimerFired
from vivavoce.session.limits import SessionLimits
from vivavoce.session.shell import Session
from vivavoce.testing.virtual_time import run

TENTH = 4800  # bytes, 100 ms
NEAR = NoiseReduction(type="near_field")
FAR = NoiseReduction(type="far_field")


class Mirror:
    """A stream that says "c" for every byte, and remembers what was played beside it."""

    def __init__(self, broken: bool) -> None:
        self.broken = broken
        self.played: list[bytes] = []
        self.closed = False

    def process(self, pcm24: bytes) -> bytes:
        if self.broken:
            raise EngineError("the mirror is broken")
        return b"c" * len(pcm24)

    def play(self, pcm24: bytes) -> None:
        self.played.append(pcm24)

    def close(self) -> None:
        assert not self.closed
        self.closed = True


class Mirrors:
    """An engine whose streams can be looked at."""

    Settings = None

    def __init__(self, broken: bool = False) -> None:
        self.broken = broken
        self.fields: list[str] = []
        self.streams: list[Mirror] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        pass

    def open(self, field: Literal["near", "far"]) -> Mirror:
        self.fields.append(field)
        self.streams.append(Mirror(self.broken))
        return self.streams[-1]


def a_session(
    noise: NoiseReduction | None = NEAR, *, interrupts: bool = True, **fields: Any
) -> RealtimeSession:
    detection = ServerVad(interrupt_response=interrupts)
    heard = AudioInput(noise_reduction=noise, turn_detection=detection, **fields)
    return RealtimeSession(audio=Audio(input=heard))


def a_response(status: Literal["cancelled", "completed"]) -> Response:
    return Response(
        id="r",
        status=status,
        conversation_id="c",
        output_modalities=("audio",),
        max_output_tokens="inf",
        audio=ResponseAudio(ResponseAudioOutput(PCM(), "alloy")),
    )


class Scene:
    """A room in a session that has begun."""

    def __init__(self, session: Any = None, *, broken: bool = False) -> None:
        self.cleaner = Mirrors(broken)
        self.room = EchoCanceller(self.cleaner)
        self.send(says.SessionCreated(event_id="e", session=session or a_session()))

    def send(self, event: says.AnyServerEvent, now: float = 0.0) -> None:
        self.room.notice(Send(event), now)

    def update(self, session: RealtimeSession) -> None:
        self.send(says.SessionUpdated(event_id="e", session=session))

    def say(self, audio: bytes, now: float = 0.0) -> None:
        place: Any = {"response_id": "r", "item_id": "i", "output_index": 0}
        self.send(says.OutputAudioDelta(event_id="e", delta=audio, **place), now)

    def hear(self, audio: bytes, now: float = 0.0) -> bytes:
        fact = self.room.cleaned(Received(InputAudioAppend(audio=audio)), now)
        assert isinstance(fact, Received)
        assert isinstance(fact.event, InputAudioAppend)
        return fact.event.audio

    @property
    def played(self) -> list[bytes]:
        """A tenth of a second as a letter: what went with each piece of the microphone."""
        return [piece[:1] for piece in self.cleaner.streams[-1].played]


def tenths(letters: bytes) -> bytes:
    return b"".join(bytes([letter]) * TENTH for letter in letters)


def test_a_session_that_does_not_ask_for_it_costs_nothing() -> None:
    scene = Scene(a_session(None))
    scene.say(tenths(b"a"))
    assert scene.hear(b"mm") == b"mm"
    assert scene.cleaner.streams == []


@pytest.mark.parametrize(("noise", "field"), [(NEAR, "near"), (FAR, "far")])
def test_the_microphone_is_cleaned_in_the_field_it_stands_in(
    noise: NoiseReduction, field: str
) -> None:
    scene = Scene(a_session(noise))
    assert scene.hear(b"mmmm") == b"cccc"
    assert scene.cleaner.fields == [field]


def test_a_transcription_session_is_cleaned_too() -> None:
    audio = TranscriptionAudio(AudioInput(noise_reduction=FAR))
    assert Scene(TranscriptionSession(audio=audio)).hear(b"mm") == b"cc"


def test_the_id_of_an_event_stays_and_other_facts_are_left_alone() -> None:
    scene = Scene()
    append = Received(InputAudioAppend(audio=b"mm", event_id="mine"))
    assert scene.room.cleaned(append, 0.0) == Received(
        InputAudioAppend(audio=b"cc", event_id="mine")
    )
    for fact in (Received(InputAudioCommit()), TimerFired()):
        assert scene.room.cleaned(fact, 0.0) is fact


def test_with_each_piece_of_the_microphone_goes_as_much_of_what_was_sent() -> None:
    scene = Scene()
    scene.hear(tenths(b"m"), 0.1)
    scene.say(tenths(b"abc"), 0.1)
    for now in (0.2, 0.3, 0.4, 0.5):
        scene.hear(tenths(b"m"), now)
    assert scene.played == [b"\0", b"a", b"b", b"c", b"\0"]


def test_a_network_that_holds_the_microphone_up_does_not_part_it_from_its_echo() -> None:
    scene = Scene()
    scene.say(tenths(b"abcdef"), 0.5)
    for _ in range(6):
        scene.hear(tenths(b"m"), 1.0)
    assert scene.played == [b"a", b"b", b"c", b"d", b"e", b"f"]


def test_what_was_played_while_the_microphone_was_off_is_skipped() -> None:
    scene = Scene()
    scene.say(tenths(b"abcdefghijklmnopqrstuvwxyz"), 0.0)
    scene.hear(tenths(b"m"), 0.1)
    scene.hear(tenths(b"m"), 2.0)
    assert scene.played == [b"a", b"p"]  # 1.5 s: as late as the microphone may be


@pytest.mark.parametrize(
    "event",
    [
        says.SpeechStarted(event_id="e", audio_start_ms=0, item_id="u"),
        says.ItemTruncated(event_id="e", item_id="i", content_index=0, audio_end_ms=0),
        says.ResponseDone(event_id="e", response=a_response("cancelled")),
    ],
    ids=lambda event: type(event).__name__,
)
def test_what_is_cut_off_is_not_played_on(event: says.AnyServerEvent) -> None:
    scene = Scene()
    scene.say(tenths(b"abc"), 0.0)
    scene.hear(tenths(b"m"), 0.1)
    scene.send(event, 0.1)
    scene.hear(tenths(b"m"), 0.2)
    scene.say(tenths(b"x"), 0.2)
    scene.hear(tenths(b"m"), 0.3)
    assert scene.played == [b"a", b"\0", b"x"]


def test_an_answer_that_goes_on_while_the_user_speaks_is_played_on() -> None:
    scene = Scene(a_session(interrupts=False))
    scene.say(tenths(b"ab"), 0.0)
    scene.send(says.SpeechStarted(event_id="e", audio_start_ms=0, item_id="u"), 0.0)
    scene.send(says.ResponseDone(event_id="e", response=a_response("completed")), 0.0)
    scene.hear(tenths(b"m"), 0.1)
    assert scene.played == [b"a"]


def test_calls_are_cleaned_of_what_the_server_plays_to_them() -> None:
    scene = Scene()
    scene.room.notice(PlayAudio("i", tenths(b"ab")), 0.0)
    assert scene.room.cleaned(AudioArrived(tenths(b"m")), 0.1) == AudioArrived(tenths(b"c"))
    scene.room.notice(ClearPlayback(), 0.1)
    scene.room.cleaned(AudioArrived(tenths(b"m")), 0.2)
    assert scene.played == [b"a", b"\0"]


def test_telephone_sound_is_left_as_it_is() -> None:
    scene = Scene(a_session(format=PCMU()))
    assert scene.hear(b"mm") == b"mm"
    scene.update(a_session(format=PCM()))
    assert scene.hear(b"mm") == b"cc"


def test_an_answer_in_telephone_sound_is_an_echo_as_well() -> None:
    heard = AudioInput(noise_reduction=NEAR)
    scene = Scene(RealtimeSession(audio=Audio(heard, AudioOutput(format=PCMU()))))
    scene.say(b"\x80" * 160, 0.0)  # 20 ms
    scene.hear(bytes(1920), 0.1)
    played = scene.cleaner.streams[0].played[0]
    assert (len(played), any(played[:960]), any(played[960:])) == (1920, True, False)


def test_a_change_of_mind_takes_effect_at_once_and_gives_the_stream_back() -> None:
    scene = Scene()
    scene.update(a_session(NEAR))
    assert len(scene.cleaner.streams) == 1
    scene.update(a_session(FAR))
    assert scene.cleaner.fields == ["near", "far"]
    scene.update(a_session(None))
    assert scene.hear(b"mm") == b"mm"
    assert [stream.closed for stream in scene.cleaner.streams] == [True, True]


def test_the_end_gives_the_stream_back_once() -> None:
    scene = Scene()
    scene.room.close()
    scene.room.close()
    assert scene.cleaner.streams[0].closed


def test_a_recording_is_left_as_it_is_and_time_goes_on_beside_it() -> None:
    scene = Scene()
    scene.say(tenths(b"abcdefg"), 0.0)
    recording = bytes(LONGEST_PIECE + 2)
    assert scene.hear(recording, 0.1) is recording
    scene.hear(tenths(b"m"), 0.2)
    assert scene.played == [b"f"]


def test_half_a_sample_ends_the_cleaning_and_nothing_else() -> None:
    scene = Scene()
    assert scene.hear(b"mmm") == b"mmm"
    assert scene.hear(b"mm") == b"mm"
    assert scene.cleaner.streams[0].closed


def test_an_engine_that_fails_ends_the_cleaning_and_nothing_else() -> None:
    scene = Scene(broken=True)
    assert scene.hear(b"mm") == b"mm"
    assert scene.hear(b"mm") == b"mm"
    assert scene.cleaner.streams[0].closed


def test_what_waits_to_be_played_is_bounded() -> None:
    scene = Scene()
    scene.say(bytes(MOST_WAITING), 0.0)
    scene.say(b"x" * 2, 0.0)
    assert len(scene.room._playing) == MOST_WAITING


def test_a_session_hears_the_cleaned_sound_and_gives_the_stream_back_at_its_end() -> None:
    cleaner = Mirrors()

    async def main() -> Audience:
        audience, troupe = Audience(), Troupe(vad={"level": 0.5})
        cascade = replace(troupe.cascade, cleaner=cleaner)
        begun = msgspec.structs.replace(a_session(), model="house", id="s")
        session = Session(begun, OFFER, SessionLimits(), salt="t", now=0.0)
        runner = Runner(session, audience, ModelCatalog({"house": cascade}, "house"), model="house")
        running = asyncio.create_task(runner.run())
        await asyncio.sleep(0)
        for fact in speech(SOFT * 20):  # which the cleaner makes loud
            runner.post(fact)
            await runner.wait_caught_up()
        await asyncio.sleep(1)
        runner.post(Disconnected())
        await running
        return audience

    assert run(main()).types.count("input_audio_buffer.speech_started") == 1
    assert [stream.closed for stream in cleaner.streams] == [True]
