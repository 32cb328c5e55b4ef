import asyncio
from typing import Any

import pytest

from tests.talk.stage import (
    AUDIO_DONE,
    RESPONSE,
    STARTED,
    STOPPED,
    Script,
    ScriptedWire,
    done,
    heard,
    screen,
    silence,
    sound,
    tone,
    word,
)
from vivavoce.talk.conversation import opened
from vivavoce.talk.microphone import Headset
from vivavoce.talk.options import Waits
from vivavoce.talk.speaker import Speaker
from vivavoce.testing.virtual_time import run

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


async def said(headset: Headset, pcm24: bytes) -> None:
    for start in range(0, len(pcm24), 1920):
        await asyncio.sleep(0.04)
        await headset.send(pcm24[start : start + 1920])


def test_a_turn_by_microphone_is_timed_by_what_was_sent() -> None:
    async def main() -> tuple[float | None, float | None, bytes]:
        page, _ = screen()
        async with opened(ScriptedWire(ANSWER), page, Waits()) as conversation:
            headset = Headset(conversation, speaker := Speaker())
            conversation.ear = headset.hear
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(said(headset, silence(200) + tone(600) + silence(700)))
                turn = await conversation.overhear()
            return turn.marks.asked, turn.marks.decided, speaker.take(4800)

    asked, decided, played = run(main())
    assert asked == pytest.approx(0.8)
    assert decided == pytest.approx(1.2)
    assert played == tone(500)[:4800]


def test_the_user_who_speaks_silences_the_answer_and_says_what_was_heard() -> None:
    async def main() -> tuple[list[dict[str, Any]], bytes]:
        page, _ = screen()
        wire = ScriptedWire(ANSWER)
        async with opened(wire, page, Waits()) as conversation:
            headset = Headset(conversation, speaker := Speaker())
            conversation.ear = headset.hear
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(said(headset, tone(1600)))
                await conversation.overhear()
                speaker.take(120 * 48)
            await asyncio.sleep(0.1)
            cuts = [e for _, e in wire.sent if e["type"] == "conversation.item.truncate"]
            return cuts, speaker.take(480)

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
