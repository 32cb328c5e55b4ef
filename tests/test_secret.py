"""Text that must not be seen."""

import copy

import msgspec
import pytest

from vivavoce.secret import Secret, conceal

KEY = "sk-very-secret"


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    key: str = ""
    headers: dict[str, str] = {}
    size: int = 0

    def __post_init__(self) -> None:
        conceal(self, "key", "headers")


def test_secret_prints_as_stars() -> None:
    secret = Secret(KEY)
    shown = [repr(secret), str(secret), f"{secret}", f"{secret!r:>5}", "%s" % secret, str([secret])]  # noqa: UP031
    assert shown == ["'***'", "***", "***", "'***'", "***", "['***']"]


def test_empty_secret_prints_as_empty() -> None:
    assert (repr(Secret("")), str(Secret("")), bool(Secret(""))) == ("''", "", False)


def test_reveal_returns_the_text_of_copies_too() -> None:
    copies = [Secret(KEY), Secret(Secret(KEY)), copy.deepcopy(Secret(KEY))]
    assert [(type(s.reveal()), s.reveal()) for s in copies] == [(str, KEY)] * 3


def test_concealed_field_is_not_printed() -> None:
    settings = msgspec.convert({"key": KEY, "headers": {"X-Key": KEY}}, Settings)
    assert repr(settings) == "Settings(key='***', headers={'X-Key': '***'}, size=0)"
    assert KEY not in str(list(settings.__rich_repr__()))
    assert KEY not in str(msgspec.structs.asdict(settings))


def test_concealed_field_survives_replace() -> None:
    changed = msgspec.structs.replace(Settings(KEY, {"X-Key": KEY}), size=1)
    assert (changed.key, changed.headers, changed.size) == (KEY, {"X-Key": KEY}, 1)
    assert KEY not in repr(changed)


def test_secret_is_not_encoded() -> None:
    with pytest.raises(TypeError):
        msgspec.json.encode(Settings(KEY))
