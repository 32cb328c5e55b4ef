"""Text that must not be seen: it prints as stars wherever it turns up by accident."""

from typing import Self

import msgspec


class Secret(str):
    """A key, a password. Only reveal() gives it away.

    repr(), str(), f-strings and logging show stars, and msgspec refuses to encode it. Comparing,
    hashing and truth are those of the text. In a Struct declare the field `str`, which decodes
    without a hook, and wrap it in `__post_init__` with conceal().
    """

    __slots__ = ()

    def __new__(cls, text: str = "") -> Self:
        return super().__new__(cls, text.reveal() if isinstance(text, Secret) else text)

    def reveal(self) -> str:
        """The text itself."""
        return str.__str__(self)

    def __repr__(self) -> str:
        return repr(str(self))

    def __str__(self) -> str:
        return "***" if len(self) else ""

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)


def conceal(struct: msgspec.Struct, *fields: str) -> None:
    """Make Secrets of these `str` or `dict[str, str]` fields of a frozen Struct."""
    for field in fields:
        value = getattr(struct, field)
        hidden = (
            {name: Secret(text) for name, text in value.items()}
            if isinstance(value, dict)
            else Secret(value)
        )
        msgspec.structs.force_setattr(struct, field, hidden)
