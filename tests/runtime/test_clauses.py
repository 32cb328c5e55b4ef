"""A growing text is cut where a voice may pause, and nothing of it is lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.runtime.clauses import MAX_CHARS, MIN_CHARS, MIN_FIRST_CHARS, Clauses

PROSE = st.text(alphabet="aé日。、，！？ .,;:!?…\n\"')3😀", max_size=400)  # noqa: RUF001


def cut(*deltas: str) -> list[str]:
    """All clauses of a text that comes in these pieces."""
    clauses = Clauses()
    found = [clause for delta in deltas for clause in clauses.feed(delta)]
    rest = clauses.flush()
    return [*found, rest] if rest else found


@given(st.lists(PROSE, max_size=8))
def test_clauses_are_the_text_to_the_letter(deltas: list[str]) -> None:
    assert "".join(cut(*deltas)) == "".join(deltas)


@given(st.lists(PROSE, max_size=8))
def test_no_clause_is_empty_or_much_too_long(deltas: list[str]) -> None:
    for clause in cut(*deltas):
        assert clause
        assert len(clause.rstrip()) <= MAX_CHARS


@pytest.mark.parametrize(
    ("text", "clauses"),
    [
        ("Sure. It is noon.", ["Sure. ", "It is noon."]),
        ("Is it? Yes! Go.", ["Is it? ", "Yes! ", "Go."]),
        ('He said "no." Then left.', ['He said "no." ', "Then left."]),
        ("One\n\nTwo\nThree", ["One\n\n", "Two\n", "Three"]),
        ("It costs 3.5 dollars. Fine.", ["It costs 3.5 dollars. ", "Fine."]),
        ("Well... yes. Or no… maybe.", ["Well... ", "yes. ", "Or no… ", "maybe."]),
        ("Dr. Who met Mr. Bean. Really.", ["Dr. Who met Mr. Bean. ", "Really."]),
        ("See e.g. Rome. Good.", ["See e.g. Rome. ", "Good."]),
        ("J. S. Bach wrote it. Listen.", ["J. S. Bach wrote it. ", "Listen."]),
        ("A star. Not an abbr.", ["A star. ", "Not an abbr."]),
        ("今日は。元気？はい！", ["今日は。", "元気？", "はい！"]),  # noqa: RUF001  Japanese
        ("「はい。」と言う。", ["「はい。」", "と言う。"]),
        ("**Hello.** World", ["**Hello.** ", "World"]),
        ("_Stop!_ (Really?) Yes.", ["_Stop!_ ", "(Really?) ", "Yes."]),
        ("... Well.", ["... Well."]),  # what says nothing is not spoken alone
        ("", []),
    ],
)
def test_sentences_end_clauses(text: str, clauses: list[str]) -> None:
    assert cut(text) == clauses


def test_first_clause_may_be_short() -> None:
    first = "a" * (MIN_FIRST_CHARS - 1) + ", "
    later = "b" * (MIN_CHARS - 1) + ", "
    assert cut(first + "b" * 20 + ", " + later + "end") == [first, "b" * 20 + ", " + later, "end"]


def test_early_comma_ends_no_clause() -> None:
    assert cut("No, not at all, end") == ["No, not at all, ", "end"]


def test_punctuation_at_the_end_waits_for_what_follows() -> None:
    clauses = Clauses()
    assert clauses.feed("It is 3.") == []
    assert clauses.feed("5 now.") == []
    assert clauses.feed(" ") == ["It is 3.5 now. "]


def test_words_without_punctuation_are_cut_at_the_last_space() -> None:
    text = "word " * 100
    pieces = cut(text)
    assert [len(piece) for piece in pieces] == [240, 240, 20]


def test_text_without_spaces_is_cut() -> None:
    assert [len(piece) for piece in cut("x" * 500)] == [240, 240, 20]


def test_long_text_is_cut_in_linear_time() -> None:
    """Quadratic work would take minutes here: the suite's own timeout would end it."""
    book = "no end of it " * 60_000
    assert "".join(cut(book)) == book


@pytest.mark.parametrize(
    ("text", "early"),
    [
        ("I", ""),
        ("I can", ""),
        ("I can ", "I can "),  # at least two whole words
        ("I can help ", "I can help "),
        ("The weather in ", "The weather "),  # not between "in" and its noun
        ("The weather in Paris is a", "The weather in Paris "),
        ("Well, it is ", "Well, it is "),
        ("It is so, a ", "It is so, "),
        ("See [the page](http://a b", ""),  # not within a link
        ("Say **very loud now ", ""),
        ("My name is Dr. ", "My name "),
        ("今日はいい天気", "今日はいい天"),
        ("今日", ""),
        ("... ", ""),
    ],
)
def test_cut_early_ends_behind_words_where_a_voice_can_pause(text: str, early: str) -> None:
    clauses = Clauses()
    assert clauses.feed(text) == []
    assert clauses.cut_early() == early
    assert clauses.flush() == text[len(early) :]


@given(st.lists(st.tuples(PROSE, st.booleans()), max_size=8))
def test_early_cuts_lose_nothing(steps: list[tuple[str, bool]]) -> None:
    clauses, found = Clauses(), ""
    for text, hurry in steps:
        found += "".join(clauses.feed(text)) + (clauses.cut_early() if hurry else "")
    assert found + clauses.flush() == "".join(text for text, _ in steps)


def test_flush_leaves_nothing() -> None:
    clauses = Clauses()
    clauses.feed("and so")
    assert clauses.flush() == "and so"
    assert clauses.flush() == ""


@pytest.mark.parametrize(
    ("text", "clauses"),
    [
        ("Es ist z.B. gut. Ja.", ["Es ist z.B. gut. ", "Ja."]),
        ("Am 3. Mai um 5. Dann nicht.", ["Am 3. Mai um 5. ", "Dann nicht."]),
        ("1. Flour. 2. Water.", ["1. Flour. ", "2. Water."]),
        ("Pi is 3.14 or so. Yes.", ["Pi is 3.14 or so. ", "Yes."]),
        ("La Sra. Paz vive aquí. Sí.", ["La Sra. Paz vive aquí. ", "Sí."]),
        ("It is approx. 5 km. Good.", ["It is approx. 5 km. ", "Good."]),
        ("I have 12. Take 3.", ["I have 12. ", "Take 3."]),
    ],
)
def test_full_stop_of_an_abbreviation_or_a_number_ends_no_clause(
    text: str, clauses: list[str]
) -> None:
    assert cut(text) == clauses
