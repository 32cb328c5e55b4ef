"""Which models of a server one can talk with."""

import msgspec
import pytest

from vivavoce.engines.openai.model_list import chat_models


def listing(*names: str, owner: str = "library") -> bytes:
    return msgspec.json.encode({"data": [{"id": name, "owned_by": owner} for name in names]})


@pytest.mark.parametrize(
    "name",
    [
        "text-embedding-nomic-embed-text-v1.5",
        "all-minilm:latest",
        "bge-m3",
        "intfloat/e5-large",
        "openai/whisper-large-v3",
        "tts-1",
        "gpt-4o-mini-tts",
        "gpt-4o-transcribe",
        "hexgrad/Kokoro-82M",
        "jina-reranker-v2",
        "dall-e-3",
        "omni-moderation-latest",
        "gpt-realtime",
        "babbage-002",
    ],
)
def test_models_for_other_ends_are_left_out(name: str) -> None:
    assert chat_models(listing(name, "llama3.2:latest")) == ["llama3.2:latest"]


@pytest.mark.parametrize(
    "name",
    [
        "qwen3:8b",
        "/models/Meta-Llama-3.1-8B-Instruct-Q4_K_M.gguf",
        "gpt-4o-mini",
        "mistralai/Mistral-7B-Instruct-v0.3",
        "gemma-3n-e4b",
        "deepseek-r1:1.5b",
        "watts-13b",
    ],
)
def test_models_for_talk_are_kept(name: str) -> None:
    assert chat_models(listing(name)) == [name]


def test_our_own_server_is_none() -> None:
    assert chat_models(listing("default", owner="vivavoce")) == []


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (b'{"data": null}', []),
        (b'{"data": [], "models": []}', []),
        (b'{"data": [{"id": null}, {"id": "a"}, {}]}', ["a"]),
        (b'[{"id": "a"}]', ["a"]),
    ],
)
def test_lists_of_other_shapes(body: bytes, names: list[str]) -> None:
    assert chat_models(body) == names


@pytest.mark.parametrize("body", [b"", b"<html>", b"3", b'{"data": "a"}', b'"\xff"'])
def test_what_is_no_list_is_an_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        chat_models(body)
