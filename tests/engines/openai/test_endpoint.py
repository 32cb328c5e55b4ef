"""The sentence for each way in which a server can fail."""

import errno
import socket
import ssl
from typing import Any

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey

from vivavoce.engines.openai.endpoint import Endpoint, message_of, said

KEY = "sk-abcdefgh1234"
URL = "http://127.0.0.1:9/v1"
TARGET = ConnectionKey("127.0.0.1", 9, False, True, None, None, None, None)


def endpoint(base_url: str = URL, key: str = KEY, **headers: str) -> Endpoint:
    return Endpoint(base_url, key, headers)


def refusal(status: int, body: bytes = b"", *, key: str = KEY, **headers: str) -> str:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return str(endpoint(key=key).refused(status, named, body, "llama"))


PLACE = f"the LLM at {URL}"


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (400, f"{PLACE} rejected the request (400): no; check model and extra"),
        (401, f"{PLACE} refused the API key (401): no; check api_key"),
        (403, f"{PLACE} refused the API key (403): no; check api_key"),
        (
            404,
            f"{PLACE} does not know the model 'llama' (404): no; "
            "check model, and that base_url is right",
        ),
        (429, f"{PLACE} has had too many requests (429): no; wait, or use another model"),
        (500, f"{PLACE} failed (500): no; see its log, try again"),
        (503, f"{PLACE} failed (503): no; see its log, try again"),
    ],
)
def test_a_status_and_its_sentence(status: int, sentence: str) -> None:
    assert refusal(status, b'{"error": {"message": "no"}}') == sentence


def test_without_a_key_a_refusal_asks_for_one() -> None:
    assert refusal(401, key="") == f"{PLACE} wants an API key (401); set api_key"


@pytest.mark.parametrize(
    ("retry_after", "remedy"),
    [
        ("7", "wait 7 s"),
        ("Fri, 31 Dec 1999 23:59:59 GMT", "wait until Fri, 31 Dec 1999 23:59:59 GMT"),
    ],
)
def test_too_many_requests_says_how_long_to_wait(retry_after: str, remedy: str) -> None:
    sentence = f"{PLACE} has had too many requests (429); {remedy}"
    assert refusal(429, Retry_After=retry_after) == sentence


def test_a_redirect_names_the_new_place_without_its_secrets() -> None:
    there = "https://user:pass@elsewhere/v1/chat?key=1"
    assert refusal(308, Location=there) == (
        f"{PLACE} has moved (308) to https://elsewhere/v1/chat; change base_url"
    )


def test_a_failing_list_of_models_says_so() -> None:
    sentence = f"{PLACE} does not list its models (404); set model"
    assert str(endpoint().refused(404, {}, b"", "")) == sentence


def test_the_address_is_shown_without_user_and_query() -> None:
    hidden = endpoint("https://me:hush@host:1/v1/?api-version=1&key=hidden", "")
    assert hidden.shown == "https://host:1/v1"
    assert hidden.masked("hush hidden") == "*** ***"


@pytest.mark.parametrize(
    ("base_url", "openai"),
    [("https://api.openai.com/v1", True), ("https://openai.example/v1", False), (URL, False)],
)
def test_whether_it_is_openai_itself(base_url: str, openai: bool) -> None:
    assert endpoint(base_url).is_openai is openai


def test_paths_are_added_before_the_query() -> None:
    url = endpoint("https://host/openai/?api-version=1", "").url("chat/completions")
    assert str(url) == "https://host/openai/chat/completions?api-version=1"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (f"the key {KEY} and {KEY}.", "the key *** and ***."),
        ("Incorrect API key provided: sk-ab****1234. Find", "Incorrect API key provided: *** Find"),
        ("two\n\n lines", "two lines"),
        ("x" * 301, "x" * 300 + "..."),
        ("y" * 295 + KEY, "y" * 295 + "***"),
        ("header-secret", "***"),
    ],
)
def test_what_a_server_said_is_one_short_line_without_secrets(text: str, masked: str) -> None:
    assert endpoint(**{"X-Key": "header-secret"}).masked(text) == masked


def test_a_key_that_is_only_a_stand_in_does_not_blot_the_text() -> None:
    assert endpoint(key="x").masked("an extra box") == "an extra box"


def test_a_header_of_the_settings_wins_over_the_key() -> None:
    headers = endpoint(authorization="Basic abc").headers
    assert headers.getall("Authorization") == ["Basic abc"]
    assert endpoint().headers["Authorization"] == f"Bearer {KEY}"
    assert "Authorization" not in endpoint(key="").headers


REFUSED = f"[Errno {errno.ECONNREFUSED}] Connect call failed"


@pytest.mark.parametrize(
    ("exc", "why"),
    [
        (
            aiohttp.ClientConnectorError(TARGET, OSError(errno.ECONNREFUSED, "refused")),
            "connection refused; is it running?",
        ),
        (
            aiohttp.ClientConnectorError(TARGET, OSError(f"Multiple exceptions: {REFUSED}")),
            "connection refused; is it running?",
        ),
        (
            aiohttp.ClientConnectorError(TARGET, OSError(errno.ENETUNREACH, "No route")),
            "No route; check base_url and the network",
        ),
        (
            aiohttp.ClientConnectorDNSError(TARGET, socket.gaierror(-2, "unknown")),
            "the name '127.0.0.1' is not known to DNS; check base_url",
        ),
        (
            aiohttp.ClientConnectorSSLError(TARGET, ssl.SSLError(1, "[SSL: X] bad (_ssl.c:1)")),
            "TLS failed ([SSL: X] bad (_ssl.c:1)); check https in base_url, and the certificate",
        ),
        (
            aiohttp.ClientConnectorCertificateError(
                TARGET, ssl.SSLCertVerificationError("self-signed")
            ),
            "TLS failed (self-signed); check https in base_url, and the certificate",
        ),
        (
            aiohttp.ConnectionTimeoutError("late"),
            "it accepted no connection in time; is the address right?",
        ),
        (
            aiohttp.ServerDisconnectedError(),
            "the connection was closed before an answer; see its log, try again",
        ),
        (
            aiohttp.ClientOSError(errno.ECONNRESET, "reset"),
            "the connection was closed before an answer; see its log, try again",
        ),
        (
            aiohttp.ClientPayloadError("cut"),
            "the connection failed (ClientPayloadError); try again",
        ),
    ],
)
def test_no_answer_and_why(exc: Any, why: str) -> None:
    assert str(endpoint().unreachable(exc)) == f"no LLM answers at {URL}: {why}"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"error": {"message": "no", "type": "x"}}, "no"),
        ({"error": "no"}, "no"),
        ({"object": "error", "message": "no"}, "no"),
        ({"detail": [{"loc": ["body"], "msg": "no"}]}, "no"),
        ([{"error": {"message": "no"}}], "no"),
        ({"error": {"code": 1}}, ""),
        ({}, ""),
        ([], ""),
        (None, ""),
    ],
)
def test_the_shapes_in_which_servers_explain_themselves(value: Any, message: str) -> None:
    assert message_of(value) == message


def test_plain_text_is_an_explanation_and_a_web_page_is_none() -> None:
    assert (said(b"Too many\n"), said(b" <!doctype html><p>No"), said(b"")) == ("Too many", "", "")
