"""The words of a clause, and the samples at which they begin."""

from hypothesis import given
from hypothesis import strategies as st

from vivavoce.session.facts import SpokenWord
from vivavoce.session.word_timing import MS_PER_CHARACTER, StreamTiming, WordTiming

TEXT = st.text(alphabet="aé日. ,!'\n$", max_size=60)
MARKS = st.lists(st.tuples(st.integers(0, 70), st.integers(0, 90_000)), max_size=12)


def joined(words: list[SpokenWord]) -> str:
    return "".join(word.text for word in words)


@given(TEXT, MARKS, st.integers(0, 60_000))
def test_words_are_the_clause_to_the_letter_whatever_the_marks(
    text: str, marks: list[tuple[int, int]], samples: int
) -> None:
    clause = WordTiming(text, start=100)
    words = clause.estimated(samples) + clause.marked(marks) + clause.rest(60_000)
    assert joined(words) == text
    assert [word.at for word in words] == sorted(word.at for word in words)
    assert all(word.at >= 100 for word in words)
    assert all(word.text for word in words)


def test_mark_times_its_word_with_the_punctuation_behind_it() -> None:
    clause = WordTiming("One, two!", start=1000)
    assert clause.marked([(3, 0), (8, 480)]) == [
        SpokenWord("One, ", 1000),
        SpokenWord("two!", 1480),
    ]
    assert clause.rest(9999) == []


def test_late_mark_repeats_no_word() -> None:
    clause = WordTiming("one two three")
    assert clause.marked([(7, 500)]) == [SpokenWord("one two ", 500)]
    assert clause.marked([(3, 0), (13, 400)]) == [SpokenWord("three", 500)]


def test_mark_beyond_the_text_times_what_is_left() -> None:
    assert WordTiming("end").marked([(900, 7)]) == [SpokenWord("end", 7)]


def test_words_without_marks_come_at_their_estimated_times() -> None:
    clause = WordTiming("one two")
    second = 4 * MS_PER_CHARACTER * 24
    assert clause.estimated(1) == [SpokenWord("one ", 0)]
    assert clause.estimated(second) == []
    assert clause.estimated(second + 1) == [SpokenWord("two", second)]


def test_words_come_sooner_at_a_higher_speed() -> None:
    clause = WordTiming("one two", speed=2.0)
    assert [word.at for word in clause.estimated(99_999)] == [0, 2 * MS_PER_CHARACTER * 24]


def test_word_times_are_not_estimated_after_a_mark() -> None:
    clause = WordTiming("one two three")
    clause.marked([(3, 0)])
    assert clause.estimated(1_000_000) == []
    assert clause.rest(5000) == [SpokenWord("two ", 0), SpokenWord("three", 0)]


def test_last_words_begin_before_the_audio_is_over() -> None:
    clause = WordTiming("one two", start=10)
    clause.estimated(99_999)
    assert clause.rest(3) == []
    rest = WordTiming("one two", start=10).rest(3)
    assert rest == [SpokenWord("one ", 10), SpokenWord("two", 10)]


def test_leading_space_belongs_to_the_first_word() -> None:
    assert WordTiming(" Hello there").rest(0) == [SpokenWord(" Hello ", 0), SpokenWord("there", 0)]
    assert WordTiming("\n\n").rest(0) == [SpokenWord("\n\n", 0)]


def test_words_of_a_growing_text_are_found_behind_what_is_not_spoken() -> None:
    growing = StreamTiming()
    growing.add("It is **very** ", "It is   very   ")
    assert growing.marked([(2, 0), (5, 10)]) == [SpokenWord("It ", 0), SpokenWord("is **", 10)]
    growing.add("\U0001f600 ", "")
    growing.add("cold.", "cold.")
    assert growing.marked([(12, 20)]) == [SpokenWord("very** \U0001f600 ", 20)]
    assert growing.marked([(19, 30)]) == [SpokenWord("cold.", 30)]
    assert growing.rest(40) == []


def test_words_of_a_growing_text_are_estimated_as_they_come() -> None:
    growing = StreamTiming(speed=2.0)
    assert growing.estimated(1) == []
    growing.add("one ", "one ")
    assert growing.estimated(1) == [SpokenWord("one ", 0)]
    growing.add("two", "two")
    assert growing.rest(9) == [SpokenWord("two", 0)]
