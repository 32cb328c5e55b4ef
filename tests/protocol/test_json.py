"""Lone surrogates in JSON are replaced; all else is decoded or refused as msgspec does."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.protocol.json import MAX_SURROGATE_ESCAPES, decode

PIECES = st.sampled_from(["\ud83d", "\ude00", "\U0001f600", "\\", '"', "u", "d83d", "\ud55c", "a"])


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (rb'"Great \ud83d"', "Great \ufffd"),
        (rb'"\uD83D\uDE00"', "\U0001f600"),
        (rb'"\ude00\ud83d"', "\ufffd\ufffd"),
        (rb'"\ud83d\ud83d\ude00"', "\ufffd\U0001f600"),
        (rb'"\ud83d-\ude00"', "\ufffd-\ufffd"),
        (rb'"\ud83d\ude00\ude00"', "\U0001f600\ufffd"),
        (rb'"\\ud83d \ud83d"', "\\ud83d \ufffd"),
        (rb'"\\\ud83d"', "\\\ufffd"),
        (rb'"\ud55c\ud83d"', "\ud55c\ufffd"),
        ('"\ud83d"', "\ufffd"),
        (rb'{"\ud83d":[1]}', {"\ufffd": [1]}),
    ],
)
def test_decode_lone_surrogate_becomes_replacement_character(
    raw: bytes | str, text: object
) -> None:
    assert decode(raw) == text


@given(st.lists(PIECES).map("".join))
def test_decode_any_utf16_string_equals_the_standard_library_with_replacement(text: str) -> None:
    expected = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    assert decode(json.dumps(text)) == expected
    assert decode(json.dumps(text, ensure_ascii=False)) == expected


@pytest.mark.parametrize(
    "raw", [b"{", b'"\0\\ud83d"', rb'"\ud8zz"', rb'"\ud83d', rb'"\ud83"', b'"\\x"', rb'"\udc']
)
def test_decode_malformed_text_raises_decode_error(raw: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(raw)


def test_decode_more_lone_surrogates_than_the_bound_raises_decode_error() -> None:
    assert decode(b'"' + rb"\ud83d" * MAX_SURROGATE_ESCAPES + b'"').count("\ufffd") == 4_000
    with pytest.raises(msgspec.DecodeError):
        decode(b'"' + rb"\ud83d" * (MAX_SURROGATE_ESCAPES + 1) + b'"')


def test_decode_value_of_another_type_raises_validation_error() -> None:
    with pytest.raises(msgspec.ValidationError):
        decode(rb'"\ud83d"', msgspec.json.Decoder(int))


def test_decode_text_that_is_not_utf8_raises_unicode_error() -> None:
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
        decode(b'"\xff"')
