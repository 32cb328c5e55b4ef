import pytest

from vivavoce.engines.builtin.recital import MAX_COUNT, count, repeat, spell
from vivavoce.engines.builtin.words import Utterance


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("count to five", "One, two, three, four, five."),
        ("count from five down to three", "Five, four, three."),
        ("please count backwards from three", "Three, two, one."),
        ("count from minus one to one", "Minus one, zero, one."),
        ("you can count on me", None),
        ("count", None),
    ],
)
def test_counting(text: str, said: str | None) -> None:
    assert count(Utterance.of(text)) == said


def test_counting_has_an_end() -> None:
    said = count(Utterance.of("count to a billion"))
    assert said is not None
    assert said.count(",") == MAX_COUNT - 1
    assert said.endswith("one hundred. And so on; I stop after a hundred.")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("spell banana", "B, A, N, A, N, A."),
        ("how do you spell the word cat please", "C, A, T."),
        ("how is dog spelled", "D, O, G."),
        ("how is your dog", None),
    ],
)
def test_spelling(text: str, said: str | None) -> None:
    assert spell(Utterance.of(text)) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("say hello world", "Hello world."),
        ("Repeat after me: The cat sat.", "The cat sat."),
        ('can you say "good day"', "Good day."),
        ("say that again", None),
        ("what did he say to you", None),
    ],
)
def test_repeating(text: str, said: str | None) -> None:
    assert repeat(Utterance.of(text)) == said
