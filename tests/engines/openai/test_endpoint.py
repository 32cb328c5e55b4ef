"""The addresses, keys and tokens of endpoints that speak OpenAI's API, Azure's among them."""

import asyncio
from typing import Any

import msgspec
import pytest

from tests.engines.openai.chat_server import ChatServer, collect, engine, gives, says
from tests.server import scripted, serving
from vivavoce.engines.openai.endpoint import EndpointSettings, endpoint_url
from vivavoce.engines.openai.entra import EntraSettings, EntraTokens
from vivavoce.engines.openai.llm import OpenAILLM, OpenAILLMSettings
from vivavoce.engines.openai.stt import OpenAISTT, OpenAISTTSettings
from vivavoce.engines.openai.tts import OpenAITTS, OpenAITTSSettings
from vivavoce.errors import EngineError
from vivavoce.testing import check_llm, check_stt, check_tts

AZURE = "https://mine.openai.azure.com"


def settings(**options: Any) -> EndpointSettings:
    return msgspec.convert(options, EndpointSettings)


@pytest.mark.parametrize(
    ("options", "url"),
    [
        ({}, "https://api.openai.com/v1"),
        ({"base_url": "http://127.0.0.1:11434/v1/"}, "http://127.0.0.1:11434/v1"),
        ({"base_url": "http://localhost:11434"}, "http://localhost:11434/v1"),
        ({"base_url": "http://10.0.0.7:8000/?key=a"}, "http://10.0.0.7:8000/v1?key=a"),
        ({"base_url": "http://[::1]:11434"}, "http://[::1]:11434/v1"),
        ({"base_url": "http://ollama:11434"}, "http://ollama:11434/v1"),
        ({"base_url": "http://localhost:11434/api"}, "http://localhost:11434/api"),
        ({"base_url": "https://api.perplexity.ai"}, "https://api.perplexity.ai"),
        ({"base_url": AZURE}, f"{AZURE}/openai/v1"),
        ({"base_url": f"{AZURE}/openai/v1/"}, f"{AZURE}/openai/v1"),
        ({"base_url": AZURE, "api_version": "preview"}, f"{AZURE}/openai/v1?api-version=preview"),
        (
            {"base_url": f"{AZURE}/", "api_version": "2024-10-21", "model": "gpt"},
            f"{AZURE}/openai/deployments/gpt?api-version=2024-10-21",
        ),
        (
            {"base_url": f"{AZURE}/openai/deployments/gpt?api-version=2024-10-21"},
            f"{AZURE}/openai/deployments/gpt?api-version=2024-10-21",
        ),
    ],
)
def test_endpoint_url_is_completed(options: dict[str, Any], url: str) -> None:
    assert endpoint_url(settings(**options)) == url


def test_azure_version_without_a_deployment_is_refused() -> None:
    with pytest.raises(EngineError, match="set model to its name"):
        endpoint_url(settings(base_url=AZURE, api_version="2024-10-21"))


def test_azure_gets_the_key_in_its_own_header() -> None:
    headers = OpenAILLM(OpenAILLMSettings(base_url=AZURE, api_key="abcdefgh"))._server.headers
    assert headers["api-key"] == "abcdefgh"
    assert "Authorization" not in headers


def test_key_goes_where_the_settings_say() -> None:
    async def main() -> None:
        async with ChatServer([says("hi")]) as server:
            async with engine(server, api_key="abcdefgh", auth="api-key") as llm:
                await collect(llm)
            assert server.asked[0].headers["api-key"] == "abcdefgh"

    asyncio.run(main())


ENTRA = {"tenant": "t", "client_id": "c", "client_secret": "very-secret"}


def test_entra_token_is_fetched_once_and_sent_with_every_request() -> None:
    token = gives(200, {"access_token": "entra-token", "expires_in": 3600})

    async def main() -> None:
        async with ChatServer([token]) as login, ChatServer([says("hi")]) as server:
            entra = {**ENTRA, "authority": f"http://127.0.0.1:{login.port}"}
            async with engine(server, entra=entra) as llm:
                await collect(llm)
                await collect(llm)
            sent = [asked.headers["Authorization"] for asked in server.asked]
            assert sent == ["Bearer entra-token"] * 2
            (asked,) = login.asked
            assert asked.path == "/t/oauth2/v2.0/token"
            assert b"client_secret=very-secret" in asked.raw
            assert b"grant_type=client_credentials" in asked.raw

    asyncio.run(main())


def test_entra_token_is_masked_in_errors() -> None:
    token = gives(200, {"access_token": "entra-token", "expires_in": "60"})
    refusal = gives(401, {"error": {"message": "bad token entra-token"}})

    async def main() -> None:
        async with ChatServer([token]) as login, ChatServer([refusal]) as server:
            entra = {**ENTRA, "authority": f"http://127.0.0.1:{login.port}"}
            async with engine(server, entra=entra) as llm:
                for _ in range(2):
                    with pytest.raises(EngineError, match=r"bad token \*\*\*"):
                        await collect(llm)
            assert len(login.asked) == 2, "a token that ends soon is fetched anew"

    asyncio.run(main())


def test_managed_identity_is_asked_without_a_secret() -> None:
    async def main() -> None:
        async with ChatServer([gives(200, {"access_token": "m", "expires_in": 3600})]) as machine:
            authority = f"http://127.0.0.1:{machine.port}"
            async with EntraTokens(EntraSettings(client_id="c", authority=authority)) as tokens:
                assert await tokens.token() == "m"
            (asked,) = machine.asked
            assert asked.headers["Metadata"] == "true"
            assert asked.path == (
                "/metadata/identity/oauth2/token?api-version=2018-02-01"
                "&resource=https://cognitiveservices.azure.com&client_id=c"
            )

    asyncio.run(main())


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (gives(401, {"error": "invalid_client", "message": "very-secret"}), "token service"),
        (gives(200, b"<html>", "text/html"), "something else instead of a token"),
    ],
)
def test_failure_of_the_token_service_is_one_sentence(reply: Any, message: str) -> None:
    async def main() -> None:
        async with ChatServer([reply]) as login:
            authority = f"http://127.0.0.1:{login.port}"
            options = EntraSettings(**ENTRA, authority=authority)
            async with EntraTokens(options) as tokens:
                with pytest.raises(EngineError, match=message) as failure:
                    await tokens.token()
                assert "very-secret" not in str(failure.value)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"entra": ENTRA, "api_key": "k"}, "entra gives the token"),
        ({"entra": {"client_secret": "s"}}, "goes with tenant and client_id"),
        ({"base_url": "http://me@host/v1", "api_key": "k"}, "along with a user name"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(msgspec.ValidationError, match=message):
        settings(**options)


def test_vivavoce_behind_vivavoce_passes_the_conformance_checks() -> None:
    script = scripted(
        stt={"transcripts": ["hello there"], "hears_silence": False},
        llm={"answers": ["I can talk."]},
        tts={"ms_per_character": 20},
    )

    async def main() -> None:
        async with serving(script) as server:
            base_url = f"{server.http}/v1"
            async with (
                OpenAISTT(OpenAISTTSettings(base_url=base_url)) as stt,
                OpenAILLM(OpenAILLMSettings(base_url=base_url, model="default")) as llm,
                OpenAITTS(OpenAITTSSettings(base_url=base_url)) as tts,
            ):
                await check_stt(stt)
                await check_llm(llm)
                await check_tts(tts)

    asyncio.run(main())
