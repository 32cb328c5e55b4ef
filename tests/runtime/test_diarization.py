"""Who speaks when, with a speaker model for which a voice is the pitch of a tone."""

import asyncio
from base64 import b64encode
from io import BytesIO
from typing import Any

import aiohttp
import numpy as np
import pytest

from tests.api.audio_stage import quiet, tone
from tests.api.routes_stage import wav_of
from tests.server import scripted, serving
from vivavoce.audio.formats import RATE
from vivavoce.engines.base import Transcript, Word
from vivavoce.engines.scripted.engines import ScriptedSpeaker
from vivavoce.engines.scripted.scripts import SpeakerScript
from vivavoce.media.decoding import SoundFile
from vivavoce.runtime.diarization import (
    KnownSpeaker,
    SessionSpeakers,
    SpeakerTurn,
    passages_of,
    speaker_names,
    turn_stretches,
)
from vivavoce.session.facts import SpokenSegment

LOW, HIGH = 250.0, 650.0
MODEL = ScriptedSpeaker(SpeakerScript(sample_rate=RATE))
AXES = np.eye(40, dtype=np.float32)


def test_turns_of_one_speaker_are_joined_over_short_pauses() -> None:
    turns = [
        SpeakerTurn(0, 1_000, "A"),
        SpeakerTurn(1_900, 3_000, "A"),
        SpeakerTurn(3_100, 4_000, "B"),
        SpeakerTurn(5_500, 6_000, "B"),
        SpeakerTurn(6_100, 35_600, "B"),
    ]
    assert [(turn.start_ms, turn.end_ms, turn.speaker) for turn in passages_of(turns)] == [
        (0, 3_000, "A"),
        (3_100, 4_000, "B"),
        (5_500, 6_000, "B"),
        (6_100, 35_600, "B"),
    ]


def test_unknown_voices_get_the_letters_that_are_no_names() -> None:
    known = [KnownSpeaker("B", AXES[1])]
    assert speaker_names(AXES[[0, 1, 2]], known, 0.7) == ("A", "B", "C")
    many = speaker_names(np.zeros((27, 40), np.float32), (), 0.7)
    assert (many[25], many[26]) == ("Z", "AA")


def test_sound_of_each_turn_is_cut_out_of_the_recording() -> None:
    pcm = b"".join(bytes([i % 250]) * 2 * (RATE // 1000) for i in range(9_000))
    turns = [SpeakerTurn(10, 20, "A"), SpeakerTurn(20, 5_000, "B"), SpeakerTurn(8_990, 9_100, "A")]

    async def main() -> list[bytes]:
        file = SoundFile(BytesIO(wav_of(pcm)))
        return [stretch.pcm async for stretch in turn_stretches(file, turns)]

    first, second, last = asyncio.run(main())
    assert (first[0], len(first)) == (10, 2 * RATE // 100)
    assert (second[0], second[-1], len(second)) == (20, 4_999 % 250, 2 * RATE * 4_980 // 1_000)
    assert (last[0], len(last)) == (8_990 % 250, 2 * RATE // 100)


@pytest.mark.parametrize("timed", [True, False])
def test_speakers_of_a_session_keep_their_labels(timed: bool) -> None:
    words = (Word("hello", 0, 500), Word("there,", 600, 1_400), Word("you", 2_600, 3_000))
    both = Transcript("hello there, you", 16, True, words if timed else ())
    one = Transcript("you again", 9, True)

    async def main() -> list[tuple[SpokenSegment, ...]]:
        speakers = SessionSpeakers()
        first = await speakers.segments(tone(2.4, LOW) + tone(2.0, HIGH), both, MODEL)
        second = await speakers.segments(tone(1.5, HIGH) + quiet(0.1), one, MODEL)
        return [first, second, await speakers.segments(tone(1.0), Transcript(""), MODEL)]

    first, second, nothing = asyncio.run(main())
    assert [(each.speaker, each.text) for each in second] == [("B", "you again")]
    assert nothing == ()
    if timed:
        assert first == (
            SpokenSegment("A", "hello there,", 0, 1_400),
            SpokenSegment("B", "you", 2_600, 3_000),
        )
    else:
        assert [(each.speaker, each.text) for each in first] == [("A", "hello there, you")]


@pytest.mark.parametrize("model", ["gpt-4o-transcribe-diarize", "gpt-4o-transcribe"])
def test_session_with_a_diarizing_model_gets_segments(model: str) -> None:
    talk = tone(2.0, LOW) + tone(2.0, HIGH)
    settings = scripted(
        stt={"transcripts": ["one two three"], "word_times": True, "word_ms": 1_300},
        models={"speaker": "scripted"},
    )
    audio = {"type": "input_audio", "audio": b64encode(talk).decode()}
    item = {"type": "message", "role": "user", "content": [audio]}
    heard = {"turn_detection": None, "transcription": {"model": model}}
    session = {"type": "realtime", "audio": {"input": heard}}

    async def main() -> list[dict[str, Any]]:
        async with (
            serving(settings) as server,
            aiohttp.ClientSession() as http,
            http.ws_connect(f"{server.ws}/v1/realtime") as socket,
        ):
            await socket.send_json({"type": "session.update", "session": session})
            await socket.send_json({"type": "conversation.item.create", "item": item})
            await socket.send_json({"type": "response.create"})
            events: list[dict[str, Any]] = []
            while not events or not events[-1]["type"].endswith("transcription.completed"):
                events.append(await socket.receive_json(timeout=10))
            return [event for event in events if event["type"].endswith("transcription.segment")]

    segments = asyncio.run(main())
    found = [(segment["speaker"], segment["text"]) for segment in segments]
    assert found == ([("A", "one two"), ("B", "three")] if model.endswith("-diarize") else [])
