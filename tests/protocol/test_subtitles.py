import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.protocol.rest_audio import TranscriptionWord, VerboseSegment
from vivavoce.protocol.subtitles import (
    LINE_CHARACTERS,
    LINE_MS,
    Timed,
    lines,
    segments,
    srt,
    vtt,
    words_in_seconds,
)


def spoken(text: str, *, each_ms: int = 300, pauses: dict[int, int] | None = None) -> list[Timed]:
    """Its words, one after the other; `pauses`: before which word, how long."""
    words = []
    at = 0
    for number, word in enumerate(re.findall(r"[\w']+", text)):
        at += (pauses or {}).get(number, 0)
        words.append(Timed(word, at, at + each_ms))
        at += each_ms
    return words


def cut(text: str, words: list[Timed]) -> list[str]:
    return [line.text for line in lines(Timed(text, 0, 10_000), words)]


@pytest.mark.parametrize(
    ("text", "cut_up"),
    [
        ("Hello world.", ["Hello world."]),
        ("Hello. World!", ["Hello.", "World!"]),
        ("He said: «Go!» and went", ["He said: «Go!»", "and went"]),
        ('"Stop?" "No." (Really.) ¿Sí?', ['"Stop?"', '"No."', "(Really.)", "¿Sí?"]),
        ("  one,\n two ", ["one, two"]),
        ("3.5 metres", ["3.5 metres"]),
    ],
)
def test_line_ends_with_a_sentence_and_keeps_its_punctuation(text: str, cut_up: list[str]) -> None:
    assert cut(text, spoken(text)) == cut_up


def test_pause_ends_a_line() -> None:
    words = spoken("yes of course not", pauses={1: 700, 3: 699})
    assert lines(Timed("yes of course not", 0, 9_000), words) == [
        Timed("yes", 0, 300),
        Timed("of course not", 1_000, 2_599),
    ]


def test_line_has_a_bounded_length() -> None:
    text = "word, " * 40
    assert cut(text, spoken(text, each_ms=100)) == [("word, " * 14).strip()] * 2 + [
        ("word, " * 12).strip()
    ]
    text = "a b c d e f g h"
    assert cut(text, spoken(text, each_ms=2_000)) == ["a b c", "d e f", "g h"]


def test_words_without_spaces_between_them_are_found() -> None:
    words = [Timed("こんにちは", 0, 500), Timed("世界", 500, 900), Timed("元気", 1_000, 1_400)]
    assert cut("こんにちは世界。元気?", words) == ["こんにちは世界。", "元気?"]


def test_passage_without_word_times_is_one_line() -> None:
    passage = Timed("One. Two.", 100, 900)
    assert lines(passage) == [passage]
    assert lines(passage, [Timed("Three", 100, 900)]) == [passage]
    assert lines(passage, [Timed("Two", 100, 500), Timed("One", 500, 900)]) == [passage]


def test_passage_without_text_gives_no_line() -> None:
    assert lines(Timed(" \n", 0, 1_000), spoken("well")) == []


@given(
    st.lists(
        st.tuples(
            st.builds(str.__mul__, st.sampled_from("a_7é日"), st.integers(1, 30)),
            st.sampled_from(["", ".", ",", "?!"]),
            st.integers(0, 3_000),
            st.integers(0, 2_000),
        ),
        min_size=1,
        max_size=60,
    )
)
def test_lines_of_any_words_hold_all_of_them_in_order_and_are_short(
    said: list[tuple[str, str, int, int]],
) -> None:
    words: list[Timed] = []
    at = 0
    for word, _, lasts, pause in said:
        words.append(Timed(word, at, at + lasts))
        at += lasts + pause
    text = " ".join(word + sign for word, sign, _, _ in said)
    made = lines(Timed(text, 0, at), words)
    assert " ".join(line.text for line in made) == text
    times = [time for line in made for time in (line.start_ms, line.end_ms)]
    assert times == sorted(times)
    for line in made:
        assert " " not in line.text or len(line.text) <= LINE_CHARACTERS
        assert " " not in line.text or line.end_ms - line.start_ms <= LINE_MS


SHOWN = [
    Timed("Ask not", 0, 1_234),
    Timed("1 < 2 & a --> b\n\nc", 3_599_999, 3_600_000),
    Timed("end", 36_061_001, 360_000_000),
]


def test_srt_numbers_its_lines() -> None:
    assert srt(SHOWN) == (
        "1\n00:00:00,000 --> 00:00:01,234\nAsk not\n\n"
        "2\n00:59:59,999 --> 01:00:00,000\n1 < 2 & a -> b c\n\n"
        "3\n10:01:01,001 --> 100:00:00,000\nend\n\n"
    )
    assert srt([]) == ""


def test_webvtt_has_a_head_and_escapes_its_signs() -> None:
    assert vtt(SHOWN) == (
        "WEBVTT\n\n"
        "00:00:00.000 --> 00:00:01.234\nAsk not\n\n"
        "00:59:59.999 --> 01:00:00.000\n1 &lt; 2 &amp; a --&gt; b c\n\n"
        "10:01:01.001 --> 100:00:00.000\nend\n\n"
    )
    assert vtt([]) == "WEBVTT\n\n"


def test_segments_are_lines_in_seconds() -> None:
    shown = [Timed("go forward", 1_230, 2_500), Timed("no " * 100, 2_500, 9_000)]
    first, second = segments(shown, seek_ms=1_200, first_id=7, temperature=0.2)
    assert first == VerboseSegment(
        id=7,
        seek=120,
        start=1.23,
        end=2.5,
        text="go forward",
        temperature=0.2,
        compression_ratio=first.compression_ratio,
    )
    assert (second.id, second.seek) == (8, 120)
    # Whisper takes a text above 2.4 for a model that has lost its way.
    assert first.compression_ratio < 1 < 2.4 < second.compression_ratio


def test_words_have_times_in_seconds() -> None:
    assert words_in_seconds([Timed(" go", 10, 250)]) == (
        TranscriptionWord(word="go", start=0.01, end=0.25),
    )
