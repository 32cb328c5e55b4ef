import pytest

from vivavoce.engines.espeak.tts import WordFinder, word_spans


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Hello, world.", ["Hello", "world"]),
        ("I don't, e.g. at 12:30.", ["I", "don't", "e.g", "at", "12:30"]),
        ("12.5% of $1,234", ["12.5", "%", "of", "$", "1,234"]),
        ("größer u\u0308ber naïve", ["größer", "u\u0308ber", "naïve"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("你好。世界", ["你", "好", "世", "界"]),
        ("yes—no - (maybe)", ["yes", "no", "maybe"]),
        ("C# × 5", ["C", "#", "×", "5"]),  # noqa: RUF001  the sign
    ],
)
def test_word_spans_leave_out_punctuation(text: str, words: list[str]) -> None:
    assert [text[start:end] for start, end in word_spans(text)] == words


def test_number_reported_many_times_is_found_once() -> None:
    finder = WordFinder("in 2026 now")
    reported = [(0, 2), (3, 4), (4, 4), (4, 4), (7, 1), (8, 3)]
    assert [finder.find(*each) for each in reported] == [
        (0, 2),
        (3, 7),
        None,
        None,
        None,
        (8, 11),
    ]


def test_word_reported_at_the_dash_before_it_is_found() -> None:
    finder = WordFinder("well - no")
    assert [finder.find(0, 4), finder.find(5, 1)] == [(0, 4), (7, 9)]


def test_ideographs_reported_together_are_one_word() -> None:
    finder = WordFinder("日本 go")
    assert [finder.find(0, 2), finder.find(0, 2), finder.find(3, 2)] == [(0, 2), None, (3, 5)]


def test_position_after_the_last_word_finds_nothing() -> None:
    finder = WordFinder("go.")
    assert [finder.find(0, 2), finder.find(2, 1), finder.find(90, 1)] == [(0, 2), None, None]
