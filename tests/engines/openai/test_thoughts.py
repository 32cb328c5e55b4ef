"""What a model thinks aloud is not spoken."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.engines.openai.thoughts import Thoughts

CASES = [
    ("Hello.", "Hello."),
    ("", ""),
    ("<think>Hm.</think>Hello.", "Hello."),
    ("\n<think>\nHm.\n</think>\n\nHello. ", "Hello. "),
    ("<think></think><think>Hm</think> Hello.", "Hello."),
    ("<think>a < b </thin </think>Hello.", "Hello."),
    ("<think>never ends", ""),
    ("<think>Hm.</think>", ""),
    ("<thin", "<thin"),
    ("<thing> is a tag", "<thing> is a tag"),
    (" one < two", " one < two"),
    ("Say <think>this</think>.", "Say <think>this</think>."),
    ("   ", "   "),
]


@pytest.mark.parametrize(("text", "spoken"), CASES)
def test_a_text_and_what_is_spoken(text: str, spoken: str) -> None:
    thoughts = Thoughts()
    assert thoughts.feed(text) + thoughts.close() == spoken


@given(st.sampled_from(CASES), st.data())
def test_however_the_text_is_cut_the_same_is_spoken(
    case: tuple[str, str], data: st.DataObject
) -> None:
    text, spoken = case
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)))))
    thoughts = Thoughts()
    parts = [thoughts.feed(text[a:b]) for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert "".join(parts) + thoughts.close() == spoken


def test_ordinary_text_is_not_held_back() -> None:
    thoughts = Thoughts()
    assert [thoughts.feed(text) for text in ("H", "el", "lo")] == ["H", "el", "lo"]
