"""Addresses and credentials of upstream servers."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fake_upstream import FakeUpstream
from tests.server import HOST
from vivavoce.models import relay_of
from vivavoce.runtime import upstream
from vivavoce.runtime.upstream import Relay, UpstreamRefused, provider_of
from vivavoce.secret import Secret
from vivavoce.settings import RelayModel

AZURE = "wss://voices.openai.azure.com/openai/v1/realtime"
OPENAI = "wss://api.openai.com/v1/realtime"


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({"upstream": "openai"}, OPENAI),
        ({"upstream": "xai"}, "wss://api.x.ai/v1/realtime"),
        ({"upstream": "azure", "resource": "voices"}, AZURE),
        ({"upstream": "ws://127.0.0.1:8080/v1/realtime"}, "ws://127.0.0.1:8080/v1/realtime"),
    ],
)
def test_upstream_name_stands_for_an_address(fields: dict[str, Any], url: str) -> None:
    assert relay_of("far", RelayModel(**fields)).url == url


@pytest.mark.parametrize(
    "fields",
    [
        {"upstream": "azure"},
        {"upstream": "openai", "resource": "voices"},
        {"upstream": "azure", "resource": "voices.example"},
        {"upstream": "openai", "api_key": "k", "token_command": ("az",)},
    ],
)
def test_settings_of_a_relay_that_contradict_each_other_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"resource|token_command"):
        RelayModel(**fields)


def test_provider_is_read_from_the_host() -> None:
    assert provider_of("wss://eu.api.openai.com/v1/realtime") == "openai"
    assert provider_of("wss://notopenai.com/v1/realtime") == "other"


def test_azure_gets_its_key_in_one_header_and_the_deployment_as_model() -> None:
    relay = Relay(AZURE, "my-deployment", key=Secret("k"))
    assert relay.credentials() == {"api-key": "k"}
    assert relay.identification("") == {}
    assert relay.query(transcription=False) == {"model": "my-deployment"}


@pytest.mark.parametrize(
    ("credentials", "header", "value"),
    [
        ({"key": Secret("k")}, "api-key", "k"),
        ({"token_command": ("echo", "token")}, "Authorization", "Bearer token"),
    ],
)
def test_azure_is_asked_with_one_credential_and_no_api_version(
    credentials: dict[str, Any], header: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "_HOSTS", {f".{HOST}": "azure"})

    async def main() -> None:
        fake = FakeUpstream()
        async with fake.serve() as url, Relay(url, "my-deployment", **credentials).connected():
            (session,) = fake.sessions
            assert session.query == {"model": "my-deployment"}
            sent = {name: session.headers.get(name) for name in ("api-key", "Authorization")}
            assert sent == {"api-key": None, "Authorization": None, header: value}

    asyncio.run(main())


@pytest.mark.parametrize("url", [OPENAI, AZURE])
def test_transcription_session_is_asked_for_without_a_model(url: str) -> None:
    assert Relay(url, "m").query(transcription=True) == {"intent": "transcription"}


def test_transcription_session_of_another_server_names_the_model() -> None:
    query = Relay("wss://far.example", "m").query(transcription=True)
    assert query == {"model": "m", "intent": "transcription"}


def test_pseudonym_of_a_user_is_stable_and_says_nothing_of_the_name() -> None:
    relay = Relay(OPENAI, "m", key=Secret("k"))
    first, again, other = (
        relay.identification(user)["OpenAI-Safety-Identifier"] for user in ("anna", "anna", "bob")
    )
    assert first == again != other
    assert len(first) == 43
    assert "anna" not in first
    assert Relay("wss://far.example", "m").identification("anna") == {}


def test_token_is_printed_anew_for_each_connection() -> None:
    async def main() -> None:
        fake = FakeUpstream()
        command = (sys.executable, "-c", "import uuid; print(uuid.uuid4().hex)")
        async with fake.serve() as url:
            relay = Relay(url, "m", token_command=command)
            for _ in range(2):
                async with relay.connected() as opened:
                    assert 3500 < opened.expires_in <= 3600
        first, second = (session.headers["Authorization"] for session in fake.sessions)
        assert first != second
        assert first.startswith("Bearer ")
        assert "api-key" not in fake.sessions[0].headers

    asyncio.run(main())


def test_token_that_takes_long_blocks_nobody_else(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)

    async def main() -> None:
        fake = FakeUpstream()
        async with fake.serve() as url:
            relay = Relay(url, "m", token_command=("cat", str(gate)))

            async def connect() -> None:
                async with relay.connected():
                    pass

            connecting = asyncio.create_task(connect())
            await asyncio.to_thread(gate.write_text, "t")  # returns when the command reads
            await connecting

    asyncio.run(main())


def test_xai_is_translated_and_other_servers_are_not() -> None:
    assert Relay("wss://api.x.ai/v1/realtime", "grok").translation() is not None
    assert Relay(OPENAI, "m").translation() is None
    assert Relay("ws://127.0.0.1:9", "m", dialect="xai").translation() is not None


@pytest.mark.parametrize(
    "command", [("/no/such/program",), (sys.executable, "-c", "pass"), ("false",)]
)
def test_token_command_that_prints_none_opens_no_connection(command: tuple[str, ...]) -> None:
    async def main() -> None:
        relay = Relay("ws://127.0.0.1:9", "m", token_command=command)
        with pytest.raises(UpstreamRefused, match="no token") as refused:
            async with relay.connected():
                pass
        assert refused.value.fault.hold_s == 60.0

    asyncio.run(main())
