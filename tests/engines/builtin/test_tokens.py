import pytest

from vivavoce.engines.builtin.tokens import tokens


@pytest.mark.parametrize(
    ("text", "count"), [("", 0), ("a cat", 2), ("banana", 1), ("bananas", 2), (" x " * 3, 3)]
)
def test_each_begun_six_characters_of_a_word_are_a_token(text: str, count: int) -> None:
    assert tokens(text) == count
