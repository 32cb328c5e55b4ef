from collections.abc import Mapping
from typing import Any

import pytest

from tests.talk.stage import RESPONSE, STOPPED, done, error, heard, silence, sound, word
from vivavoce.talk.events import Event, append
from vivavoce.talk.timeline import Line, Timeline, detail


def test_interleaved_deltas_fold_into_a_line_for_each_kind() -> None:
    timeline = Timeline()
    lines = timeline.add(0.0, False, Event(RESPONSE))
    for n in range(23):
        at = 0.1 + n / 100
        lines += timeline.add(at, False, Event(sound(silence(40))))
        lines += timeline.add(at, True, append(silence(40)))
        if n < 2:
            lines += timeline.add(at, False, Event(word(("Good ", "day.")[n])))
    lines += timeline.add(0.5, False, Event(done()))
    assert lines == [
        Line(0.0, False, "response.created", "resp_1"),
        Line(0.1, False, "response.output_audio.delta", "×23, 0.92 s"),  # noqa: RUF001
        Line(0.1, True, "input_audio_buffer.append", "×23, 0.92 s"),  # noqa: RUF001
        Line(0.1, False, "response.output_audio_transcript.delta", "×2 “Good day.”"),  # noqa: RUF001
        Line(0.5, False, "response.done", "completed"),
    ]


def test_what_is_folded_comes_out_at_the_end_and_once() -> None:
    timeline = Timeline()
    assert timeline.add(1.0, False, Event(word("Hi"))) == []
    assert [line.detail for line in timeline.flush()] == ["×1 “Hi”"]  # noqa: RUF001
    assert timeline.flush() == []


@pytest.mark.parametrize(
    "event",
    [
        error("no"),
        done("failed"),
        {"type": "conversation.item.input_audio_transcription.failed"},
    ],
)
def test_what_went_wrong_stands_out(event: Mapping[str, Any]) -> None:
    assert [line.bad for line in Timeline().add(0.0, False, Event(event))] == [True]


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (STOPPED, "at 700 ms"),
        (heard("hello"), "“hello”"),
        (error("no such model"), "no such model"),
        (done("failed", {"error": {"message": "away"}}), "failed: away"),
        (done("cancelled", {"reason": "turn_detected"}), "cancelled: turn_detected"),
        (
            {"type": "response.output_item.done", "item": {"type": "function_call", "name": "f"}},
            "f()",
        ),
        (
            {"type": "conversation.item.added", "item": {"type": "message", "role": "user"}},
            "user message",
        ),
        (
            {
                "type": "session.created",
                "session": {
                    "id": "s",
                    "model": "m",
                    "served_by": {"model": "default"},
                    "audio": {"output": {"voice": "v"}},
                },
            },
            "s, m, served by default, voice v",
        ),
        ({"type": "session.created", "session": []}, ""),
        ({"type": "news.of.tomorrow"}, ""),
    ],
)
def test_the_detail_is_what_a_reader_wants_to_know(event: Mapping[str, Any], words: str) -> None:
    assert detail(Event(event)) == words
