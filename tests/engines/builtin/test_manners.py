import pytest

from vivavoce.engines.builtin.manners import Manners


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("You are Max, a friendly guide.", "Max"),
        ("You are an assistant named Tilda.", "Tilda"),
        ("You are a helpful AI.", None),
        ("", None),
    ],
)
def test_its_name(text: str, name: str | None) -> None:
    assert Manners.of(text).name == name


@pytest.mark.parametrize(
    ("text", "exactly"),
    [
        ("Say exactly: The cat sat. It did.", "The cat sat. It did."),
        ('Say "hello there"', "hello there"),
        ("You are kind. Reply with the following text: yes", "yes"),
        ("Say what you think.", None),
    ],
)
def test_a_text_to_be_said_as_it_stands(text: str, exactly: str | None) -> None:
    assert Manners.of(text).exactly == exactly


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Ask the user for their name.", "May I ask for your name?"),
        ("Ask the user if they need help", "May I ask if you need help?"),
        ("Ask the caller to wait.", "Could you please wait?"),
        ("Tell the user that their order is ready.", "Your order is ready."),
        ("Be kind.", None),
    ],
)
def test_sentences_for_the_user(text: str, said: str | None) -> None:
    assert Manners.of(text).said_for_the_user == said


def test_brevity_keeps_the_first_sentence() -> None:
    assert Manners.of("Answer in one sentence.").shorten("One. Two.") == "One."
    assert Manners.of("Take your time.").shorten("One. Two.") == "One. Two."
