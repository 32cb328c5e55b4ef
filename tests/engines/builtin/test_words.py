import re

import pytest

from vivavoce.engines.builtin.words import (
    MAX_CHARS,
    Utterance,
    alike,
    listing,
    pick,
    sentence,
    stem,
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("What's up, it's me", ["what", "is", "up", "it", "is", "me"]),
        ("um don\u2019t twenty-one 3-4", ["do", "not", "twenty", "one", "3", "-", "4"]),
        ("[NOISE] hello <unk>", ["hello"]),
        ("", []),
    ],
)
def test_words_are_cut_so_that_one_rule_fits_both_ways(text: str, words: list[str]) -> None:
    assert list(Utterance.of(text).words) == words


def test_a_found_group_keeps_its_capitals() -> None:
    assert Utterance.of("My name is McCoy now").find(re.compile("name is( [a-z]+)")) == "McCoy"


def test_a_huge_text_is_cut() -> None:
    assert len(Utterance.of("a" * 10_000_000).text) == MAX_CHARS


@pytest.mark.parametrize(
    ("word", "want", "verdict"),
    [
        ("weather", "weather", True),
        ("wheather", "weather", True),
        ("weater", "weather", True),
        ("feather", "weather", False),
        ("tin", "ten", False),
    ],
)
def test_long_words_may_be_a_letter_off(word: str, want: str, verdict: bool) -> None:
    assert alike(word, want) is verdict


@pytest.mark.parametrize(
    ("words", "common"),
    [
        (("lights", "light"), "light"),
        (("cities", "city"), "city"),
        (("setting", "set"), "set"),
        (("scheduling", "schedule"), "schedul"),
    ],
)
def test_forms_of_a_word_share_a_stem(words: tuple[str, ...], common: str) -> None:
    assert {stem(w) for w in words} == {common}


def test_small_phrases() -> None:
    assert listing(["a", "b", "c"]) == "a, b and c"
    assert sentence("it is so ") == "It is so."
    assert pick(("a", "b"), "x") == pick(("a", "b"), "x")
