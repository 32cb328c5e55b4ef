import pytest

from vivavoce.api.languages import name_of


@pytest.mark.parametrize(
    ("tag", "name"),
    [
        ("en", "english"),
        ("en-US", "english"),
        ("pt_BR", "portuguese"),
        ("ZH", "chinese"),
        ("yue", "cantonese"),
        ("tlh", "tlh"),
        ("english", "english"),
    ],
)
def test_languages_have_english_names(tag: str, name: str) -> None:
    assert name_of(tag) == name
