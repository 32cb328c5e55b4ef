"""Words with probabilities become the tokens of a text."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.protocol.logprobs import ScoredWord, token_logprobs, word_starts

TEXT = "Go, forward: ten metres."
WORDS = [ScoredWord(word, -i / 4) for i, word in enumerate(["Go", "forward", "ten", "metres"])]


def tokens(text: str, words: list[ScoredWord], *part: int) -> list[str]:
    found = token_logprobs(text, words, *part)
    assert all(bytes(token.bytes).decode() == token.token for token in found)
    return [token.token for token in found]


def test_tokens_of_a_text_concatenate_to_it() -> None:
    assert tokens(TEXT, WORDS) == ["Go,", " forward:", " ten", " metres."]
    assert [token.logprob for token in token_logprobs(TEXT, WORDS)] == [0.0, -0.25, -0.5, -0.75]


@given(st.lists(st.integers(0, len(TEXT))))
def test_consecutive_parts_have_each_token_once(cuts: list[int]) -> None:
    bounds = [0, *sorted(cuts), len(TEXT)]
    parts = [tokens(TEXT, WORDS, *part) for part in pairwise(bounds)]
    assert [token for part in parts for token in part] == tokens(TEXT, WORDS)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("hello", []),
        ("hello you", [ScoredWord("hello", -0.1), ScoredWord("you", None)]),
        ("hello you", [ScoredWord("good", -0.1), ScoredWord("you", -0.1)]),
    ],
)
def test_words_without_probability_or_place_give_no_tokens(
    text: str, words: list[ScoredWord]
) -> None:
    assert tokens(text, words) == []


def test_words_without_spaces_are_tokens_of_their_own() -> None:
    words = [ScoredWord("\u4f60", -0.1), ScoredWord("\u597d", -0.2)]
    assert tokens("\u4f60\u597d\u3002", words) == ["\u4f60", "\u597d\u3002"]


def test_word_starts_include_the_signs_before_words() -> None:
    assert word_starts('He said "no" twice', ["He", "said", "no", "twice"]) == [0, 3, 8, 13, 18]
