"""The words of a clause, and the samples at which they begin."""

from hypothesis import given
from hypothesis import strategies as st

from vivavoce.engines.base import Mark
from vivavoce.runtime.words import MS_PER_CHARACTER, SpokenText
from vivavoce.session.facts import SpokenWord

TEXT = st.text(alphabet="aé日. ,!'\n$", max_size=60)
MARKS = st.lists(
    st.builds(Mark, st.integers(0, 90_000), st.integers(0, 70), st.integers(0, 70)), max_size=12
)


def spoken(text: str, *, base: int = 0, rate: int = 24_000, speed: float = 1.0) -> SpokenText:
    return SpokenText(text, base=base, sample_rate=rate, speed=speed)


def said(words: list[SpokenWord]) -> str:
    return "".join(word.text for word in words)


@given(TEXT, MARKS, st.integers(0, 60_000))
def test_whatever_is_marked_the_words_are_the_clause(
    text: str, marks: list[Mark], guessed: int
) -> None:
    clause = spoken(text, base=100)
    words = clause.guessed(guessed) + clause.marked(marks) + clause.rest(60_000)
    assert said(words) == text
    assert [word.at for word in words] == sorted(word.at for word in words)
    assert all(word.at >= 100 for word in words)
    assert all(word.text for word in words)


def test_each_mark_places_its_word_with_the_signs_behind_it() -> None:
    clause = spoken("One, two!", base=1000)
    assert clause.marked([Mark(0, 0, 3), Mark(480, 5, 8)]) == [
        SpokenWord("One, ", 1000),
        SpokenWord("two!", 1480),
    ]
    assert clause.rest(9999) == []


def test_marks_count_in_the_samples_of_the_voice() -> None:
    assert spoken("Hi", rate=16_000).marked([Mark(16_000, 0, 2)]) == [SpokenWord("Hi", 24_000)]


def test_a_mark_that_comes_late_tells_nothing_twice() -> None:
    clause = spoken("one two three")
    first = clause.marked([Mark(500, 4, 7)])
    assert first == [SpokenWord("one two ", 500)]
    assert clause.marked([Mark(0, 0, 3), Mark(400, 8, 13)]) == [SpokenWord("three", 500)]


def test_a_mark_beyond_the_text_tells_what_there_is() -> None:
    assert spoken("end").marked([Mark(7, 2, 900)]) == [SpokenWord("end", 7)]


def test_without_marks_words_come_when_they_should_have_begun() -> None:
    clause = spoken("one two")
    second = 4 * MS_PER_CHARACTER * 24
    assert clause.guessed(1) == [SpokenWord("one ", 0)]
    assert clause.guessed(second) == []
    assert clause.guessed(second + 1) == [SpokenWord("two", second)]


def test_who_speaks_faster_comes_to_a_word_sooner() -> None:
    clause = spoken("one two", speed=2.0)
    assert [word.at for word in clause.guessed(99_999)] == [0, 2 * MS_PER_CHARACTER * 24]


def test_where_a_voice_has_marked_nothing_is_guessed() -> None:
    clause = spoken("one two three")
    clause.marked([Mark(0, 0, 3)])
    assert clause.guessed(1_000_000) == []
    assert clause.rest(5000) == [SpokenWord("two ", 0), SpokenWord("three", 0)]


def test_what_is_told_last_has_begun_before_the_sound_was_over() -> None:
    clause = spoken("one two", base=10)
    clause.guessed(99_999)
    assert clause.rest(3) == []
    assert spoken("one two", base=10).rest(3) == [SpokenWord("one ", 10), SpokenWord("two", 10)]


def test_a_space_in_front_belongs_to_the_first_word() -> None:
    assert spoken(" Hello there").rest(0) == [SpokenWord(" Hello ", 0), SpokenWord("there", 0)]
    assert spoken("\n\n").rest(0) == [SpokenWord("\n\n", 0)]
