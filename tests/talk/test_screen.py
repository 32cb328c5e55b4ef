from tests.talk.stage import done, error, heard, screen, word
from vivavoce.talk.events import Event
from vivavoce.talk.turn import Call, Marks, Turn


def test_words_stream_on_a_line_of_their_own_and_are_said_once() -> None:
    page, written = screen()
    whole = {"type": "response.output_audio_transcript.done", "item_id": "item_a"}
    for at, event in enumerate(
        (heard("hello"), word("Good "), word("day."), whole | {"transcript": "Good day."})
    ):
        page.event(float(at), False, Event(event))
    assert written.getvalue() == "you: hello\nassistant: Good day.\n"


def test_the_timeline_breaks_a_line_of_words_only_between_events() -> None:
    page, written = screen(timeline=True)
    for at, event in enumerate((word("Good "), word("day."), done())):
        page.event(float(at), False, Event(event))
    assert written.getvalue().splitlines() == [
        "assistant: Good day.",
        "   0.000 ← response.output_audio_transcript.delta  ×2 “Good day.”",  # noqa: RUF001
        "   2.000 ← response.done                       completed",
    ]


def test_a_long_line_is_cut_but_a_reason_is_shown_whole() -> None:
    page, written = screen(60, timeline=True)
    reason = "a long reason " * 9
    page.event(0.0, False, Event(word(reason)))
    page.event(0.0, False, Event(error(reason)))
    said, event, problem = written.getvalue().splitlines()
    assert said == f"assistant: {reason}"
    assert (len(event), event[-1]) == (60, "…")
    assert problem.endswith(reason.strip())


def test_control_characters_of_a_server_do_not_reach_the_terminal() -> None:
    page, written = screen(timeline=True)
    page.event(0.0, False, Event(error("red \x1b[31m\x07 [bold]and[/bold]")))
    assert "\x1b" not in written.getvalue()
    assert "red  [31m  [bold]and[/bold]" in written.getvalue()


def test_an_error_is_shown_without_a_timeline_too() -> None:
    page, written = screen()
    page.event(0.0, False, Event(error("no such voice")))
    assert written.getvalue() == "no such voice\n"


def test_the_end_of_a_turn_shows_calls_times_and_problems() -> None:
    page, written = screen()
    turn = Turn("typed", 0.0, Marks(1.0, token=1.5, done=2.0))
    turn.calls.append(Call("weather", '{"city":"Rome"}'))
    turn.problems.append("it rained")
    page.turn(turn)
    lines = [line.rstrip() for line in written.getvalue().splitlines()]
    assert lines[0] == 'calls weather({"city":"Rome"})'
    assert lines[2] == "turn 1: ms after the question"
    assert lines[-2:] == ["it rained", ""]


def test_a_line_of_the_timeline_stays_one_and_a_note_keeps_its_lines() -> None:
    page, written = screen(timeline=True)
    page.event(0.0, False, Event(heard("one\ntwo")))
    page.note("three\nfour")
    lines = written.getvalue().splitlines()
    assert lines[0].endswith("  “one two”")
    assert lines[1:] == ["you: one", "two", "three", "four"]


def test_words_of_two_turns_that_come_in_between_each_other_keep_their_lines() -> None:
    page, written = screen()
    kind = "conversation.item.input_audio_transcription.delta"
    for item, delta in (("a", "and"), ("b", "then"), ("a", " so")):
        page.event(0.0, False, Event({"type": kind, "item_id": item, "delta": delta}))
    assert written.getvalue() == "you: and\nyou: then\nyou: … so"
