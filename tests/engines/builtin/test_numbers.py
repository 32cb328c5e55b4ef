from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.engines.builtin.numbers import ordinal, parse, say, say_whole


@pytest.mark.parametrize(
    ("text", "value", "taken"),
    [
        ("twenty one", 21, 2),
        ("one hundred and five", 105, 4),
        ("three thousand two hundred and six", 3206, 6),
        ("two point five", Fraction(5, 2), 3),
        ("two and a half", Fraction(5, 2), 4),
        ("a dozen", 12, 2),
        ("a third", Fraction(1, 3), 2),
        ("minus four", -4, 2),
        ("3.5 meters", Fraction(7, 2), 1),
        ("1,000", 1000, 1),
        ("3 million", 3_000_000, 2),
        ("twenty twenty", 20, 1),
        ("one two", 1, 1),
        ("five and six", 5, 1),
    ],
)
def test_a_number_ends_where_its_words_do(text: str, value: Fraction | int, taken: int) -> None:
    assert parse(text.split()) == (Fraction(value), taken)


@pytest.mark.parametrize("text", ["", "cat", "and five", "1.2.3", "9" * 40, "point five", "12:30"])
def test_what_is_no_number(text: str) -> None:
    assert parse(text.split()) is None


@given(st.integers(-(10**20), 10**20))
def test_whole_numbers_that_are_said_are_understood(value: int) -> None:
    words = say_whole(value).replace("-", " ").split()
    assert parse(words) == (Fraction(value), len(words))


@given(st.integers(0, 10**9))
def test_decimals_that_are_said_are_understood(thousandths: int) -> None:
    words = say(Fraction(thousandths, 1000)).replace("-", " ").split()
    assert parse(words) == (Fraction(thousandths, 1000), len(words))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (Fraction(10, 3), "three and one third, or about three point three three three three"),
        (Fraction(1, 4), "zero point two five"),
        (Fraction(22, 17), "about one point two nine four one"),
        (1024, "one thousand and twenty-four"),
        (10**24, "one times ten to the power of twenty-four"),
    ],
)
def test_values_are_said(value: Fraction, said: str) -> None:
    assert say(value) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (1, "first"),
        (12, "twelfth"),
        (20, "twentieth"),
        (21, "twenty-first"),
        (100, "one hundredth"),
    ],
)
def test_ordinals(value: int, said: str) -> None:
    assert ordinal(value) == said
