"""Playback and microphone, without devices."""

import asyncio
from typing import Any

import pytest

from tests.talk.scripted_server import (
    AUDIO_DONE,
    RESPONSE,
    STARTED,
    STOPPED,
    Script,
    ScriptedConnection,
    done,
    heard,
    screen,
    silence,
    sound,
    tone,
    word,
)
from vivavoce.audio.formats import BYTES_PER_MS
from vivavoce.talk.audio import LiveAudio, PlaybackQueue, StoppedPart
from vivavoce.talk.conversation import open_conversation
from vivavoce.talk.options import Timeouts
from vivavoce.testing.virtual_time import run

MS10 = 10 * BYTES_PER_MS
ONE, TWO = b"\1" * 2 * MS10, b"\2" * 2 * MS10


def test_playback_queue_plays_in_order_and_then_silence() -> None:
    playback = PlaybackQueue()
    playback.add("a", 0, ONE)
    playback.add("b", 0, TWO)
    assert playback.take(3 * MS10) == ONE + TWO[:MS10]
    assert playback.take(3 * MS10) == TWO[:MS10] + bytes(2 * MS10)


def test_playback_queue_when_stopped_returns_parts_with_played_ms() -> None:
    playback = PlaybackQueue()
    playback.add("a", 0, ONE)
    playback.add("b", 1, TWO)
    playback.take(MS10)
    assert playback.stop() == [StoppedPart("a", 0, 10), StoppedPart("b", 1, 0)]
    assert playback.take(MS10) == bytes(MS10)
    assert playback.stop() == []


def test_playback_queue_after_stop_drops_late_audio_of_the_item() -> None:
    playback = PlaybackQueue()
    playback.add("a", 0, ONE)
    playback.stop()
    playback.add("a", 0, ONE)
    playback.add("b", 0, TWO)
    assert playback.take(2 * MS10) == TWO


def test_playback_queue_when_empty_does_not_count_silence_as_played() -> None:
    playback = PlaybackQueue()
    playback.add("a", 0, ONE)
    playback.take(9 * MS10)
    playback.add("a", 0, ONE)
    playback.take(MS10)
    assert playback.stop() == [StoppedPart("a", 0, 30)]


def test_playback_queue_with_an_ended_part_returns_nothing_when_stopped() -> None:
    playback = PlaybackQueue()
    playback.add("a", 0, ONE)
    playback.end("a", 0)
    playback.take(3 * MS10)
    assert playback.stop() == []


APPEND = "input_audio_buffer.append"
ANSWER: Script = {
    (APPEND, 5): [(0.0, STARTED)],
    (APPEND, 30): [
        (0.0, STOPPED),
        (0.0, heard("hello")),
        (0.1, RESPONSE),
        (0.1, word("Yes.")),
        (0.1, sound(tone(500))),
        (0.1, AUDIO_DONE),
        (0.1, done()),
    ],
    (APPEND, 40): [(0.0, STARTED)],
}


async def send_in_real_time(audio: LiveAudio, pcm24: bytes) -> None:
    for start in range(0, len(pcm24), 1920):
        await asyncio.sleep(0.04)
        await audio.send(pcm24[start : start + 1920])


def test_live_audio_at_the_end_of_speech_sets_its_time_by_the_sent_audio() -> None:
    async def main() -> tuple[float | None, float | None, bytes]:
        page, _ = screen()
        async with open_conversation(ScriptedConnection(ANSWER), page, Timeouts()) as conversation:
            audio = LiveAudio(conversation, playback := PlaybackQueue())
            conversation.on_event = audio.on_event
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(send_in_real_time(audio, silence(200) + tone(600) + silence(700)))
                turn = await conversation.microphone_turn()
            return turn.times.asked, turn.times.decided, playback.take(4800)

    asked, decided, played = run(main())
    assert asked == pytest.approx(0.8)
    assert decided == pytest.approx(1.2)
    assert played == tone(500)[:4800]


def test_live_audio_on_barge_in_stops_playback_and_truncates_at_the_played_ms() -> None:
    async def main() -> tuple[list[dict[str, Any]], bytes]:
        page, _ = screen()
        connection = ScriptedConnection(ANSWER)
        async with open_conversation(connection, page, Timeouts()) as conversation:
            audio = LiveAudio(conversation, playback := PlaybackQueue())
            conversation.on_event = audio.on_event
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(send_in_real_time(audio, tone(1600)))
                await conversation.microphone_turn()
                playback.take(120 * 48)
            await asyncio.sleep(0.1)
            cuts = [e for _, e in connection.sent if e["type"] == "conversation.item.truncate"]
            return cuts, playback.take(480)

    assert run(main()) == (
        [
            {
                "type": "conversation.item.truncate",
                "event_id": "talk_truncate",
                "item_id": "item_a",
                "content_index": 0,
                "audio_end_ms": 120,
            }
        ],
        bytes(480),
    )
