import pytest

from vivavoce.errors import SettingsError
from vivavoce.talk.address import endpoint, shown


@pytest.mark.parametrize(
    ("typed", "address"),
    [
        ("ws://localhost:8080/v1/realtime", "ws://localhost:8080/v1/realtime?model=gpt-realtime"),
        ("http://localhost:8080", "ws://localhost:8080/v1/realtime?model=gpt-realtime"),
        ("localhost:8080", "ws://localhost:8080/v1/realtime?model=gpt-realtime"),
        ("https://api.openai.com/v1", "wss://api.openai.com/v1/realtime?model=gpt-realtime"),
        ("https://host/voice/", "wss://host/voice/v1/realtime?model=gpt-realtime"),
        ("wss://host/v1/realtime?model=mine", "wss://host/v1/realtime?model=mine"),
        ("wss://host?model=", "wss://host/v1/realtime?model=gpt-realtime"),
        ("ws://[::1]:8080", "ws://[::1]:8080/v1/realtime?model=gpt-realtime"),
        ("ws://h/v1/realtime?intent=x&model=a", "ws://h/v1/realtime?intent=x&model=a"),
    ],
)
def test_an_address_is_completed(typed: str, address: str) -> None:
    assert endpoint(typed) == address


def test_a_model_that_is_given_wins_over_the_one_in_the_address() -> None:
    assert endpoint("ws://h?model=a", "b c") == "ws://h/v1/realtime?model=b+c"


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        ("ftp://h", "ftp:// is none of ws, wss, http, https"),
        ("ws:///v1/realtime", "it names no host"),
        ("ws://h:port", "Port could not be cast to integer value as 'port'"),
        ("", "it names no host"),
        ("ws://user:secret@h", "it holds a user or password; give a key with --api-key"),
    ],
)
def test_what_is_no_address_is_refused_with_the_reason(typed: str, reason: str) -> None:
    with pytest.raises(SettingsError) as caught:
        endpoint(typed)
    assert f"is not the address of a Realtime server: {reason};" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_query_is_not_shown() -> None:
    assert shown("wss://h/v1/realtime?token=t") == "wss://h/v1/realtime"
