"""The signature of a request that one node passes on to another."""

import pytest

from vivavoce.secret import Secret
from vivavoce.workers.hops import MAX_AGE_S, HopError, HopSigner

NOW = 1_796_000_000.0
PATH = "/v1/sessions/sess_1?a=%2F"


def at(now: float = NOW, secret: str = "shared") -> HopSigner:
    return HopSigner(Secret(secret), lambda: now)


@pytest.mark.parametrize("client", ["10.0.0.7", "2001:db8::7", ""])
def test_signature_of_another_node_gives_the_address_of_the_client(client: str) -> None:
    header = at().sign("GET", PATH, client)
    assert at(NOW + MAX_AGE_S).check(header, "GET", PATH) == client


@pytest.mark.parametrize(
    ("signer", "method", "path", "problem"),
    [
        (at(), "DELETE", PATH, "secret"),
        (at(), "GET", "/v1/sessions", "secret"),
        (at(secret="another"), "GET", PATH, "secret"),
        (at(NOW + MAX_AGE_S + 1), "GET", PATH, "clocks"),
        (at(NOW - MAX_AGE_S - 1), "GET", PATH, "clocks"),
    ],
)
def test_signature_is_for_one_request_and_for_a_minute(
    signer: HopSigner, method: str, path: str, problem: str
) -> None:
    header = at().sign("GET", PATH, "10.0.0.7")
    with pytest.raises(HopError, match=problem):
        signer.check(header, method, path)


@pytest.mark.parametrize("header", ["", "a b", "1 2 3 4", "1 2 \u00e9", "1 " + "2" * 300 + " 3"])
def test_header_of_another_form_is_refused(header: str) -> None:
    with pytest.raises(HopError, match="leave it out"):
        at().check(header, "GET", PATH)
