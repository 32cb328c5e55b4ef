import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.limits.tokens import Grant, TokenError, TokenMint
from vivavoce.secret import Secret

MINT = TokenMint(Secret("one secret"))
GRANT = Grant(id="sess_1", expires_at=1_000, session={"type": "realtime"}, key="ada")


def test_token_returns_its_grant_with_the_same_secret() -> None:
    token = MINT.issue(GRANT)
    assert TokenMint(Secret("one secret")).check(token.reveal(), now=999.9) == GRANT
    assert MINT.check(token, now=0) == GRANT


def test_token_consists_of_subprotocol_characters() -> None:
    long = Grant(id="x", expires_at=1, session={"instructions": "é and more. " * 500})
    token = MINT.issue(long).reveal()
    assert re.fullmatch(r"ek_[A-Za-z0-9._-]+", token)
    assert MINT.check(token, now=0) == long


@pytest.mark.parametrize(
    ("token", "now", "why"),
    [
        (MINT.issue(GRANT).reveal(), 1_000, "the short-lived key has expired"),
        (
            TokenMint(Secret("another")).issue(GRANT).reveal(),
            0,
            "the short-lived key is not one of this server's",
        ),
        ("ek_", 0, "the short-lived key is not one of this server's"),
        ("ek_\udcff.\udcfe", 0, "the short-lived key is not one of this server's"),
        ("ek_\ud800", 0, "the short-lived key is not one of this server's"),
        ("ek_é.é", 0, "the short-lived key is not one of this server's"),
        ("ek_" + "a" * 50_000, 0, "the short-lived key is not one of this server's"),
    ],
)
def test_expired_or_forged_token_is_refused(token: str, now: float, why: str) -> None:
    with pytest.raises(TokenError, match=why):
        MINT.check(token, now)


@given(st.text(st.characters(), max_size=80))
def test_random_text_is_refused_as_token(noise: str) -> None:
    with pytest.raises(TokenError):
        MINT.check(f"ek_{noise}", 0)


@given(st.data())
def test_changed_token_is_refused(data: st.DataObject) -> None:
    token = MINT.issue(GRANT).reveal()
    place = data.draw(st.integers(3, len(token) - 1))
    other = data.draw(st.sampled_from("ABCabc012-_").filter(lambda c: c != token[place]))
    changed = token[:place] + other + token[place + 1 :]
    with pytest.raises(TokenError):
        MINT.check(changed, 0)


def test_signed_payload_that_is_not_a_grant_is_refused() -> None:
    payload = "bm90IHpsaWI"
    signed = f"ek_{payload}.{MINT._signature(payload)}"
    with pytest.raises(TokenError):
        MINT.check(signed, 0)
