"""Rows of the timeline, the latency table, and what is printed."""

from collections.abc import Mapping
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from tests.talk.scripted_server import (
    RESPONSE,
    STOPPED,
    done,
    error,
    heard,
    screen,
    silence,
    sound,
    word,
)
from vivavoce.talk.client import Event, append_audio
from vivavoce.talk.screen import (
    LatencyRow,
    Timeline,
    TimelineRow,
    detail,
    latency_rows,
    latency_table,
)
from vivavoce.talk.turn import CalledFunction, Turn, TurnTimes


def test_timeline_of_interleaved_deltas_has_one_row_for_each_type() -> None:
    timeline = Timeline()
    lines = timeline.add(0.0, False, Event(RESPONSE))
    for n in range(23):
        at = 0.1 + n / 100
        lines += timeline.add(at, False, Event(sound(silence(40))))
        lines += timeline.add(at, True, append_audio(silence(40)))
        if n < 2:
            lines += timeline.add(at, False, Event(word(("Good ", "day.")[n])))
    lines += timeline.add(0.5, False, Event(done()))
    assert lines == [
        TimelineRow(0.0, False, "response.created", "resp_1"),
        TimelineRow(0.1, False, "response.output_audio.delta", "×23, 0.92 s"),  # noqa: RUF001
        TimelineRow(0.1, True, "input_audio_buffer.append", "×23, 0.92 s"),  # noqa: RUF001
        TimelineRow(0.1, False, "response.output_audio_transcript.delta", "×2 “Good day.”"),  # noqa: RUF001
        TimelineRow(0.5, False, "response.done", "completed"),
    ]


def test_timeline_flush_returns_the_open_rows_once() -> None:
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
def test_timeline_row_of_a_failure_is_marked(event: Mapping[str, Any]) -> None:
    assert [line.failed for line in Timeline().add(0.0, False, Event(event))] == [True]


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
def test_detail_of_an_event_is_its_relevant_part(event: Mapping[str, Any], words: str) -> None:
    assert detail(Event(event)) == words


def test_latency_rows_count_from_the_end_of_speech_and_begin_at_the_step_before() -> None:
    assert latency_rows(TurnTimes(10.0, 10.5, 10.75, 11.0, 11.25, 12.0), "spoken") == [
        LatencyRow("speech end", 0.0),
        LatencyRow("turn decision", 500.0, 0.0),
        LatencyRow("transcript", 750.0, 500.0),
        LatencyRow("first token", 1000.0, 750.0),
        LatencyRow("first audio", 1250.0, 1000.0),
        LatencyRow("done", 2000.0, 1250.0),
    ]


def test_latency_rows_with_a_late_transcript_skip_it_as_the_step_before() -> None:
    rows = latency_rows(TurnTimes(0.0, 0.5, 2.0, 1.0, 1.25, 1.5), "spoken")
    assert [(row.ms, row.since) for row in rows] == [
        (0.0, 0.0),
        (500.0, 0.0),
        (2000.0, 500.0),
        (1000.0, 500.0),
        (1250.0, 1000.0),
        (1500.0, 1250.0),
    ]


def test_latency_rows_of_missing_steps_have_a_note() -> None:
    assert [
        (row.name, row.note) for row in latency_rows(TurnTimes(0.0), "spoken") if row.ms is None
    ] == [
        ("turn decision", "no end of speech came"),
        ("transcript", "no transcript came"),
        ("first token", "no item and no text came"),
        ("first audio", "no audio came"),
        ("done", "the response did not end"),
    ]


def test_latency_rows_of_a_typed_turn_have_no_decision() -> None:
    rows = latency_rows(TurnTimes(1.0, token=1.5, done=2.0), "typed")
    assert [(row.name, row.ms, row.note) for row in rows] == [
        ("question sent", 0.0, ""),
        ("turn decision", None, "a typed turn has none"),
        ("transcript", None, "a typed turn has none"),
        ("first token", 500.0, ""),
        ("first audio", None, "no audio came"),
        ("done", 1000.0, ""),
    ]


def test_latency_row_before_the_end_of_speech_is_negative() -> None:
    decision = latency_rows(TurnTimes(1.0, 0.75), "spoken")[1]
    assert (decision.ms, decision.since) == (-250.0, -250.0)


def test_latency_rows_without_any_time_begin_at_zero() -> None:
    assert [row.ms for row in latency_rows(TurnTimes(), "spoken")] == [0.0, *[None] * 5]


def test_latency_table_bars_are_to_scale() -> None:
    turn = Turn("spoken", 0.0, TurnTimes(0.0, 0.5, 0.5, 0.75, 0.75, 1.0))
    page = StringIO()
    Console(file=page, width=100, color_system=None).print(latency_table(turn, "turn 1"))
    lines = [line.rstrip() for line in page.getvalue().splitlines()]
    assert lines == [
        "turn 1",
        "step             ms   +ms",
        "speech end        0    +0",
        f"turn decision   500  +500  {'█' * 20}",
        "transcript      500    +0",
        f"first token     750  +250  {' ' * 20}{'█' * 10}",
        "first audio     750    +0",
        f"done           1000  +250  {' ' * 30}{'█' * 10}",
    ]


def test_screen_streams_words_on_one_line_and_prints_them_once() -> None:
    page, written = screen()
    whole = {"type": "response.output_audio_transcript.done", "item_id": "item_a"}
    for at, event in enumerate(
        (heard("hello"), word("Good "), word("day."), whole | {"transcript": "Good day."})
    ):
        page.event(float(at), False, Event(event))
    assert written.getvalue() == "you: hello\nassistant: Good day.\n"


def test_screen_with_a_timeline_keeps_a_line_of_words_whole() -> None:
    page, written = screen(timeline=True)
    for at, event in enumerate((word("Good "), word("day."), done())):
        page.event(float(at), False, Event(event))
    assert written.getvalue().splitlines() == [
        "assistant: Good day.",
        "   0.000 ← response.output_audio_transcript.delta  ×2 “Good day.”",  # noqa: RUF001
        "   2.000 ← response.done                       completed",
    ]


def test_screen_cuts_a_long_row_but_shows_a_failure_whole() -> None:
    page, written = screen(60, timeline=True)
    reason = "a long reason " * 9
    page.event(0.0, False, Event(word(reason)))
    page.event(0.0, False, Event(error(reason)))
    said, event, problem = written.getvalue().splitlines()
    assert said == f"assistant: {reason}"
    assert (len(event), event[-1]) == (60, "…")
    assert problem.endswith(reason.strip())


def test_screen_replaces_control_characters_of_the_server() -> None:
    page, written = screen(timeline=True)
    page.event(0.0, False, Event(error("red \x1b[31m\x07 [bold]and[/bold]")))
    assert "\x1b" not in written.getvalue()
    assert "red  [31m  [bold]and[/bold]" in written.getvalue()


def test_screen_without_a_timeline_shows_errors() -> None:
    page, written = screen()
    page.event(0.0, False, Event(error("no such voice")))
    assert written.getvalue() == "no such voice\n"


def test_screen_turn_shows_calls_times_and_problems() -> None:
    page, written = screen()
    turn = Turn("typed", 0.0, TurnTimes(1.0, token=1.5, done=2.0))
    turn.calls.append(CalledFunction("weather", '{"city":"Rome"}'))
    turn.problems.append("it rained")
    page.turn(turn)
    lines = [line.rstrip() for line in written.getvalue().splitlines()]
    assert lines[0] == 'calls weather({"city":"Rome"})'
    assert lines[2] == "turn 1: ms after the question"
    assert lines[-2:] == ["it rained", ""]


def test_screen_joins_the_lines_of_a_row_and_keeps_those_of_a_note() -> None:
    page, written = screen(timeline=True)
    page.event(0.0, False, Event(heard("one\ntwo")))
    page.note("three\nfour")
    lines = written.getvalue().splitlines()
    assert lines[0].endswith("  “one two”")
    assert lines[1:] == ["you: one", "two", "three", "four"]


def test_screen_with_words_of_two_items_gives_each_its_line() -> None:
    page, written = screen()
    kind = "conversation.item.input_audio_transcription.delta"
    for item, delta in (("a", "and"), ("b", "then"), ("a", " so")):
        page.event(0.0, False, Event({"type": kind, "item_id": item, "delta": delta}))
    assert written.getvalue() == "you: and\nyou: then\nyou: … so"
