import pytest

from vivavoce.engines.builtin.story import answer, tell
from vivavoce.engines.builtin.tokens import tokens
from vivavoce.engines.builtin.words import Utterance


@pytest.mark.parametrize("words", [20, 30, 45, 60, 100, 150, 200, 333, 500, 1000, 3000])
@pytest.mark.parametrize("subject", [None, "dragon", "brave old knight", "trains"])
def test_a_story_is_as_long_as_asked(words: int, subject: str | None) -> None:
    assert abs(len(tell(subject, words, seed="a").split()) - words) <= 0.15 * words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tell me a story", 120),
        ("tell me a short story", 60),
        ("please tell me a long story", 350),
        ("i want a very long story", 700),
        ("tell me a story about a dragon in 200 words", 200),
        ("tell me a two hundred word story", 200),
        ("tell me a two minute story", 300),
        ("tell me a story with a million words", 3000),
    ],
)
def test_the_length_is_understood(text: str, words: int) -> None:
    said = answer(Utterance.of(text), None)
    assert said is not None
    assert abs(len(said.split()) - words) <= 0.15 * words


def test_a_story_is_about_what_was_asked() -> None:
    said = answer(Utterance.of("a story about an old dragon in 100 words"), None)
    assert said is not None
    assert said.startswith("Once upon a time there was an old dragon called ")


def test_the_same_words_give_the_same_story() -> None:
    said = Utterance.of("tell me a long story")
    assert answer(said, None) == answer(said, None)
    assert answer(said, None) != answer(Utterance.of("tell me a very long story"), None)


@pytest.mark.parametrize("limit", [30, 50, 100, 500])
def test_a_story_ends_within_the_tokens_there_are(limit: int) -> None:
    said = answer(Utterance.of("tell me a very long story about a dragon"), limit)
    assert said is not None
    assert said.endswith("The end.")
    assert tokens(said) <= limit


@pytest.mark.parametrize("text", ["the shop is two storeys high", "hello", ""])
def test_no_story_unless_asked(text: str) -> None:
    assert answer(Utterance.of(text), None) is None
