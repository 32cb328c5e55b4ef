import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.limits.tokens import Grant, TokenError, TokenMint
from vivavoce.secret import Secret

MINT = TokenMint(Secret("one secret"))
GRANT = Grant(id="sess_1", expires_at=1_000, session={"type": "realtime"}, key="ada")


def test_a_token_gives_back_its_grant_to_whoever_has_the_secret() -> None:
    token = MINT.issue(GRANT)
    assert TokenMint(Secret("one secret")).check(token.reveal(), now=999.9) == GRANT
    assert MINT.check(token, now=0) == GRANT


def test_a_token_fits_into_a_subprotocol() -> None:
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
        ("ek_" + "a" * 50_000, 0, "the short-lived key is not one of this server's"),
    ],
)
def test_what_is_expired_or_forged_opens_nothing(token: str, now: float, why: str) -> None:
    with pytest.raises(TokenError, match=why):
        MINT.check(token, now)


@given(st.text(max_size=80))
def test_noise_opens_nothing(noise: str) -> None:
    with pytest.raises(TokenError):
        MINT.check(f"ek_{noise}", 0)


@given(st.data())
def test_a_token_that_was_changed_opens_nothing(data: st.DataObject) -> None:
    token = MINT.issue(GRANT).reveal()
    place = data.draw(st.integers(3, len(token) - 1))
    other = data.draw(st.sampled_from("ABCabc012-_").filter(lambda c: c != token[place]))
    changed = token[:place] + other + token[place + 1 :]
    with pytest.raises(TokenError):
        MINT.check(changed, 0)


def test_a_signed_payload_that_is_no_grant_is_refused() -> None:
    payload = "bm90IHpsaWI"
    signed = f"ek_{payload}.{MINT._signature(payload)}"
    with pytest.raises(TokenError):
        MINT.check(signed, 0)
