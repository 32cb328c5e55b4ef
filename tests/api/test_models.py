"""What can be asked for by name."""

from typing import Any

import aiohttp
import msgspec
import openai
import pytest

from tests import idle_clock
from tests.api.audio_stage import stage
from tests.server import scripted, serving
from vivavoce.limits.keys import hash_of
from vivavoce.media import files
from vivavoce.settings import RelayModel


def test_model_list_has_the_configured_models() -> None:
    async def main() -> tuple[Any, Any]:
        async with stage() as here:
            return await here.client.models.list(), await here.client.models.retrieve("default")

    listed, model = idle_clock.run(main())
    assert listed.data == [model]
    assert model.to_dict() == {
        "id": "default",
        "object": "model",
        "created": 1_700_000_000,
        "owned_by": "vivavoce",
    }


def test_relays_are_among_the_models_and_not_among_those_of_speech() -> None:
    settings = scripted()
    relay = RelayModel(upstream="ws://127.0.0.1:9/v1/realtime", api_key="sk-upstream")
    settings = msgspec.structs.replace(settings, models={**settings.models, "gpt": relay})

    async def main() -> tuple[list[str], str, list[str]]:
        async with serving(settings) as server, aiohttp.ClientSession(server.http) as http:
            listed = await (await http.get("/v1/models")).json()
            named = await (await http.get("/v1/models/gpt")).json()
            speech = await (await http.get("/v1/audio/models")).json()
            return (
                [model["id"] for model in listed["data"]],
                named["id"],
                [model["id"] for model in speech["data"]],
            )

    assert idle_clock.run(main()) == (["default", "gpt"], "gpt", ["default"])


@pytest.mark.parametrize("name", ["gpt-4o", "meta-llama/Llama-3"])
def test_unknown_model_is_not_found(name: str) -> None:
    async def main() -> openai.NotFoundError:
        async with stage() as here:
            with pytest.raises(openai.NotFoundError) as caught:
                await here.client.models.retrieve(name)
            return caught.value

    error = idle_clock.run(main())
    assert (error.code, error.param) == ("model_not_found", "model")
    assert error.type == "invalid_request_error"
    assert name in error.message


def test_voice_list_has_models_and_a_sample_of_each_voice() -> None:
    async def main() -> tuple[Any, bytes, int]:
        async with stage(tts={"voices": ["anna", "bert/ö"]}, default_voice="bert/ö") as here:
            root = here.base.removesuffix("/v1")
            async with here.http.get(f"{here.base}/audio/voices") as answer:
                voices = await answer.json()
            async with here.http.get(root + voices["data"][1]["sample"]) as answer:
                assert answer.headers["Content-Type"] == "audio/mpeg"
                sample = await answer.read()
            async with here.http.get(f"{here.base}/audio/voices/nobody/sample") as answer:
                return voices, sample, answer.status

    voices, sample, missing = idle_clock.run(main())
    assert voices["data"] == voices["voices"]
    assert voices["data"][0] == {
        "id": "anna",
        "object": "audio.voice",
        "name": "anna",
        "languages": [],
        "description": "A hum.",
        "models": ["default"],
        "default": False,
        "sample": "/v1/audio/voices/anna/sample?model=default",
    }
    assert voices["data"][1]["default"]
    assert len(files.read(sample)) > 24_000
    assert missing == 404


def test_lists_need_a_key_where_the_server_has_keys() -> None:
    settings = scripted()
    settings.keys["ada"] = hash_of("vv-a key")

    async def main() -> list[str]:
        async with serving(settings) as server:
            base = f"{server.http}/v1"
            async with openai.AsyncOpenAI(api_key="x", base_url=base, max_retries=0) as stranger:
                for ask in (stranger.models.list(), stranger.models.retrieve("default")):
                    with pytest.raises(openai.AuthenticationError):
                        await ask
            async with openai.AsyncOpenAI(api_key="vv-a key", base_url=base) as ada:
                return [model.id async for model in ada.models.list()]

    assert idle_clock.run(main()) == ["default"]


def test_audio_lists_have_what_open_webui_reads() -> None:
    async def main() -> tuple[Any, Any, Any]:
        async with stage(tts={"voices": ["anna"]}) as here:
            answers = []
            for path in ("audio/models", "audio/voices", "audio/voices?model=unknown"):
                async with here.http.get(f"{here.base}/{path}") as answer:
                    assert answer.status == 200
                    answers.append(await answer.json())
            return answers[0], answers[1], answers[2]

    models, voices, of_model = idle_clock.run(main())
    assert models["models"] == models["data"]
    assert [(model["id"], model["name"]) for model in models["models"]] == [("default", "default")]
    assert {voice["id"]: voice["name"] for voice in voices["voices"]} == {"anna": "anna"}
    assert of_model == voices
