"""Microphone audio is cleaned with what the client plays at that time."""

import asyncio
from dataclasses import replace
from typing import Any, Literal, Self

import msgspec
import pytest

from tests.runtime.stage import MODELS, SOFT, RecordingPeer, ScriptedEngines, make_runner, speech
from vivavoce.engines.base import BaseEngine
from vivavoce.errors import EngineError
from vivavoce.protocol.session import (
    PCMU,
    Audio,
    AudioInput,
    NoiseReduction,
    RealtimeSession,
    ServerVad,
)
from vivavoce.runtime.catalog import ModelCatalog
from vivavoce.runtime.echo import MAX_REFERENCE_BYTES, EchoCanceller
from vivavoce.session.facts import Disconnected
from vivavoce.session.limits import SessionLimits
from vivavoce.session.shell import Session
from vivavoce.testing.virtual_time import run

TENTH = 4800  # bytes, 100 ms


class Mirror:
    """A stream that returns "c" for every byte, and remembers what was played beside it."""

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


class Mirrors(BaseEngine):
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

    @property
    def played(self) -> list[bytes]:
        """One letter for what went with each piece of the microphone."""
        return [piece[:1] for piece in self.streams[-1].played]


def tenths(letters: bytes) -> bytes:
    return b"".join(bytes([letter]) * TENTH for letter in letters)


def configured(field: str | None = "near_field", *, broken: bool = False) -> Any:
    cleaner = Mirrors(broken)
    echo = EchoCanceller(cleaner)
    echo.configure(field)
    return cleaner, echo


def test_unconfigured_canceller_returns_audio_unchanged() -> None:
    cleaner, echo = configured(None)
    echo.add_reference(tenths(b"a"), 0.0)
    assert echo.clean(b"mm", 0.0) == b"mm"
    assert cleaner.streams == []


@pytest.mark.parametrize(("field", "opened"), [("near_field", "near"), ("far_field", "far")])
def test_configure_opens_a_stream_for_that_kind_of_microphone(field: str, opened: str) -> None:
    cleaner, echo = configured(field)
    assert echo.clean(b"mmmm", 0.0) == b"cccc"
    assert cleaner.fields == [opened]


def test_each_piece_is_cleaned_with_as_much_of_the_reference() -> None:
    cleaner, echo = configured()
    echo.clean(tenths(b"m"), 0.1)
    echo.add_reference(tenths(b"abc"), 0.1)
    for now in (0.2, 0.3, 0.4, 0.5):
        echo.clean(tenths(b"m"), now)
    assert cleaner.played == [b"\0", b"a", b"b", b"c", b"\0"]


def test_late_microphone_audio_keeps_its_place_beside_the_reference() -> None:
    cleaner, echo = configured()
    echo.add_reference(tenths(b"abcdef"), 0.5)
    for _ in range(6):
        echo.clean(tenths(b"m"), 1.0)
    assert cleaner.played == [b"a", b"b", b"c", b"d", b"e", b"f"]


def test_reference_played_while_the_microphone_was_off_is_skipped() -> None:
    cleaner, echo = configured()
    echo.add_reference(tenths(b"abcdefghijklmnopqrstuvwxyz"), 0.0)
    echo.clean(tenths(b"m"), 0.1)
    echo.clean(tenths(b"m"), 2.0)
    assert cleaner.played == [b"a", b"p"]  # 1.5 s: as late as the microphone may be


def test_cleared_reference_is_not_played_on() -> None:
    cleaner, echo = configured()
    echo.add_reference(tenths(b"abc"), 0.0)
    echo.clean(tenths(b"m"), 0.1)
    echo.clear_reference()
    echo.clean(tenths(b"m"), 0.2)
    echo.add_reference(tenths(b"x"), 0.2)
    echo.clean(tenths(b"m"), 0.3)
    assert cleaner.played == [b"a", b"\0", b"x"]


def test_configure_again_closes_the_stream_before() -> None:
    cleaner, echo = configured()
    echo.configure("far_field")
    echo.configure(None)
    assert echo.clean(b"mm", 0.0) == b"mm"
    assert [stream.closed for stream in cleaner.streams] == [True, True]
    echo.close()


def test_failing_engine_ends_the_cleaning_and_nothing_else() -> None:
    cleaner, echo = configured(broken=True)
    assert echo.clean(b"mm", 0.0) == b"mm"
    assert echo.clean(b"mm", 0.0) == b"mm"
    assert cleaner.streams[0].closed


def test_reference_is_bounded() -> None:
    cleaner, echo = configured()
    echo.add_reference(bytes(MAX_REFERENCE_BYTES), 0.0)
    echo.add_reference(b"x" * 2, 0.0)
    for _ in range(MAX_REFERENCE_BYTES // 24_000):
        echo.clean(bytes(24_000), 0.0)
    echo.clean(bytes(2), 0.0)
    assert cleaner.played[-1] == b"\0"


@pytest.mark.parametrize("format_", [None, PCMU()])
def test_session_scores_cleaned_audio_and_gives_the_stream_back(format_: Any) -> None:
    """Of G.711, too: it is cleaned after decoding."""
    cleaner = Mirrors()

    async def main() -> RecordingPeer:
        peer, scripted = RecordingPeer(), ScriptedEngines(vad={"level": 0.5})
        cascade = replace(scripted.cascade, cleaner=cleaner)
        noise = NoiseReduction(type="near_field")
        heard = AudioInput(noise_reduction=noise, turn_detection=ServerVad())
        if format_:
            heard = msgspec.structs.replace(heard, format=format_)
        begun = RealtimeSession(id="s", model="default", audio=Audio(input=heard))
        session = Session(begun, MODELS, SessionLimits(), salt="t", now=0.0)
        runner = make_runner(session, peer, ModelCatalog({"default": cascade}, "default"))
        running = asyncio.create_task(runner.run())
        await asyncio.sleep(0)
        for fact in speech(SOFT * 20):  # which the cleaner makes loud
            runner.post(fact)
            await runner.wait_caught_up()
        await asyncio.sleep(1)
        runner.post(Disconnected())
        await running
        return peer

    assert run(main()).types.count("input_audio_buffer.speech_started") == 1
    assert [stream.closed for stream in cleaner.streams] == [True]
