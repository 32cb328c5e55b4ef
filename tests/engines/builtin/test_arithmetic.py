from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.engines.builtin.arithmetic import answer
from vivavoce.engines.builtin.numbers import say
from vivavoce.engines.builtin.words import Utterance


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("what is twelve times seven", "Twelve times seven is eighty-four."),
        ("3.5 + 4", "Three point five plus four is seven point five."),
        ("uh what's 3-4", "Three minus four is minus one."),
        ("square root of eighty one", "The square root of eighty-one is nine."),
        ("the square root of two", "The square root of two is about one point four one four two."),
        ("cube root of 27", "The cube root of twenty-seven is three."),
        ("ten percent of 200", "Ten percent of two hundred is twenty."),
        ("what is 15% of 80?", "Fifteen percent of eighty is twelve."),
        ("a third of nine", "One third of nine is three."),
        ("half of ten", "Half of ten is five."),
        ("what's too plus for", "Two plus four is six."),
        ("add three and four and five", "Three plus four plus five is twelve."),
        ("subtract three from ten", "Ten minus three is seven."),
        ("divide ten by four", "Ten divided by four is two point five."),
        ("twenty minus five times two", "Twenty minus five times two is ten."),
        ("(3+4)*2", "That is fourteen."),
        ("five squared", "Five squared is twenty-five."),
        ("two to the power of ten", "Two to the power of ten is one thousand and twenty-four."),
        ("2 ^ 300", "That number is too large for me to say."),
        ("five over zero", "I can't divide by zero. No number would be the answer."),
        ("root of minus four", None),
        ("square root of minus four", "A negative number has no real square root."),
        ("three times a day", None),
        ("what is seven", None),
        ("ten of clubs", None),
        ("forty percent", None),
        ("", None),
    ],
)
def test_sums(text: str, said: str | None) -> None:
    assert answer(Utterance.of(text)) == said


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.sampled_from("+-*"))
def test_results_are_exact(a: int, b: int, operator: str) -> None:
    value = {"+": a + b, "-": a - b, "*": a * b}[operator]
    text = answer(Utterance.of(f"{a} {operator} {b}"))
    assert text is not None
    assert text.endswith(f" is {say(Fraction(value))}.")


@given(
    st.lists(
        st.sampled_from(
            [
                "3",
                "0",
                "2.5",
                "seven",
                "(",
                ")",
                "+",
                "-",
                "*",
                "/",
                "^",
                "root",
                "of",
                "square",
                "percent",
                "half",
                "minus",
                "and",
            ]
        ),
        max_size=60,
    )
)
def test_no_heap_of_symbols_is_an_error(words: list[str]) -> None:
    assert answer(Utterance.of(" ".join(words))) != ""
