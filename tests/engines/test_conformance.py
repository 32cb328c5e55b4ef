"""The conformance checks find what they look for."""

from collections.abc import AsyncGenerator, AsyncIterator

import numpy as np
import pytest
from numpy.typing import NDArray

from vivavoce.engines.base import (
    CallDelta,
    CallStarted,
    ChatEnded,
    ChatEvent,
    Mark,
    Speech,
    TextDelta,
    Transcript,
    Word,
)
from vivavoce.engines.scripted.engines import ScriptedSTT, ScriptedTTS, ScriptedVAD
from vivavoce.engines.scripted.scripts import STTScript, TTSScript, VADScript
from vivavoce.testing.conformance import (
    check_answer,
    check_speech,
    check_stt,
    check_transcripts,
    check_tts,
    check_vad,
)
from vivavoce.testing.virtual_time import run

END = ChatEnded()
HUM = b"\1\1" * 10


@pytest.mark.parametrize(
    ("transcripts", "fault"),
    [
        ([], "no transcript"),
        ([Transcript("a")], "exactly one"),
        ([Transcript("a", 1, True), Transcript("a", 1, True)], "exactly one"),
        ([Transcript("a", 1, True), Transcript("a")], "exactly one"),
        ([Transcript("a", 0, True)], "all stable"),
        ([Transcript("a", 2), Transcript("a", 1, True)], "stable too long"),
        ([Transcript("an ox", 2), Transcript("and", 3, True)], None),
        ([Transcript("an ox", 3), Transcript("and", 3, True)], "was stable"),
        ([Transcript("a b", 3, True, (Word("a", 9, 9), Word("b", 0, 5)))], "out of order"),
    ],
)
def test_fault_of_a_transcription_is_found(
    transcripts: list[Transcript], fault: str | None
) -> None:
    if fault is None:
        assert check_transcripts(transcripts) == transcripts
        return
    with pytest.raises(AssertionError, match=fault):
        check_transcripts(transcripts)


@pytest.mark.parametrize(
    ("events", "fault"),
    [
        ([], "no event"),
        ([TextDelta("a")], "exactly one"),
        ([END, END], "exactly one"),
        ([END, TextDelta("a")], "exactly one"),
        ([TextDelta(""), END], "empty"),
        ([CallStarted(0, "", "f"), CallDelta(0, "{}"), END], "without an id"),
        ([CallStarted(0, "c", ""), CallDelta(0, "{}"), END], "without a name"),
        ([CallStarted(0, "c", "f"), CallDelta(0, "[]"), END], "JSON object"),
        ([CallDelta(0, "{}"), END], "arguments of call 0"),
        ([CallStarted(0, "c", "f"), CallStarted(0, "d", "f"), END], "started twice"),
        (
            [CallStarted(0, "c", "f"), CallStarted(1, "d", "f"), CallDelta(0, "{}"), END],
            "arguments of call 0 while 1",
        ),
        (
            [CallStarted(i, "c", "f") for i in range(2)] + [END],
            "two calls with one id",
        ),
    ],
)
def test_fault_of_an_answer_is_found(events: list[ChatEvent], fault: str) -> None:
    with pytest.raises(AssertionError, match=fault):
        check_answer(events)


def test_arguments_that_are_not_json_are_found() -> None:
    with pytest.raises(ValueError, match="Expecting"):
        check_answer([CallStarted(0, "c", "f"), CallDelta(0, "{"), END])


@pytest.mark.parametrize(
    ("pieces", "fault"),
    [
        ([], "only silence"),
        ([Speech(bytes(20))], "only silence"),
        ([Speech(b"\1\1\1")], "whole samples"),
        ([Speech(HUM), Speech(HUM, (Mark(9, 0, 1),))], "later than its sound"),
        ([Speech(HUM, (Mark(5, 0, 1), Mark(4, 1, 2)))], "goes back"),
        ([Speech(HUM, (Mark(0, 2, 6),))], "inside the text"),
        ([Speech(HUM, (Mark(0, 2, 2),))], "inside the text"),
        ([Speech(HUM, (Mark(11, 0, 1),))], "of only 10"),
        ([Speech(HUM, (Mark(0, 2, 3), Mark(1, 0, 1)))], "back in the text"),
    ],
)
def test_fault_of_speech_is_found(pieces: list[Speech], fault: str) -> None:
    with pytest.raises(AssertionError, match=fault):
        check_speech(pieces, "hello")


class SharedVAD(ScriptedVAD):
    """One memory for all streams."""

    _last = 0.0

    def score(self, windows: NDArray[np.float32], streams: NDArray[np.intp]) -> NDArray[np.float32]:
        scores = super().score(windows, streams) * 0.9 + np.float32(0.1 * self._last)
        if len(scores):
            self._last = float(scores[-1])
        return scores.astype(np.float32)


def test_vad_with_shared_state_is_found() -> None:
    with pytest.raises(AssertionError, match="apart"):
        run(check_vad(SharedVAD(VADScript())))


class PatientSTT(ScriptedSTT):
    """Counts on every transcription to be heard to its end."""

    _busy = False

    async def transcribe(
        self, audio: AsyncIterator[bytes], *, language: str | None, prompt: str
    ) -> AsyncGenerator[Transcript]:
        assert not self._busy, "still busy"
        self._busy = True
        async for transcript in super().transcribe(audio, language=language, prompt=prompt):
            yield transcript
        self._busy = False


def test_stt_not_freed_by_closing_is_found() -> None:
    with pytest.raises(AssertionError, match="still busy"):
        run(check_stt(PatientSTT(STTScript()), silence=False))


def test_stt_with_words_in_silence_is_found() -> None:
    with pytest.raises(AssertionError, match="words heard in"):
        run(check_stt(ScriptedSTT(STTScript())))


def test_tts_that_never_answers_is_found() -> None:
    with pytest.raises(TimeoutError):
        run(check_tts(ScriptedTTS(TTSScript(stall_on="A long time ago"))))


def test_tts_that_does_not_stream_is_found() -> None:
    with pytest.raises(AssertionError, match="one piece"):
        run(check_tts(ScriptedTTS(TTSScript(chunk_ms=60_000))))


class PoliteTTS(ScriptedTTS):
    """Takes any voice."""

    async def synthesize(
        self, text: str, *, voice: str, speed: float, language: str | None, instructions: str
    ) -> AsyncGenerator[Speech]:
        voice = voice if voice in self._script.voices else self.default_voice
        saying = super().synthesize(
            text, voice=voice, speed=speed, language=language, instructions=instructions
        )
        async for speech in saying:
            yield speech


def test_tts_that_accepts_any_voice_is_found() -> None:
    with pytest.raises(AssertionError, match="an unknown voice is accepted"):
        run(check_tts(PoliteTTS(TTSScript())))
