"""What stands behind `auto`, in the order of preference, and why."""

import asyncio
from typing import Any

from tests.engines.openai.chat_server import ChatServer, gives, lists
from vivavoce.choices import OPENAI_MODEL, Choice, choose_clean, choose_llm, choose_vad
from vivavoce.engines.openai.discovery import LocalServer
from vivavoce.settings import ServerSettings, Settings


def chosen(
    options: dict[str, Any] | None = None, *, reply: Any = None, own: bool = False
) -> Choice:
    """The LLM, where a server replies so on this machine."""

    async def main() -> Choice:
        async with ChatServer([reply or gives(404)]) as server:
            engines: Any = {"llm": {"openai": options}} if options else {}
            port = server.port if own else 8080
            settings = Settings(server=ServerSettings(port=port), engines=engines)
            choice = await choose_llm(settings, (LocalServer("Library", server.port),))
            if "base_url" in choice.options:
                assert choice.options["base_url"] == server.base_url
            return choice

    return asyncio.run(main())


def test_what_was_configured_comes_first() -> None:
    assert chosen({"base_url": "http://x/v1"}, reply=lists("llama")) == Choice(
        "openai", {}, "configured"
    )
    assert chosen({"model": "m"}) == Choice("openai", {}, "configured")


def test_a_key_alone_means_openai_and_a_model_of_theirs() -> None:
    assert chosen({"api_key": "k"}) == Choice("openai", {"model": OPENAI_MODEL}, "configured")


def test_else_a_model_that_runs_on_this_machine() -> None:
    choice = chosen(reply=lists("llama"))
    assert (choice.name, choice.options["model"]) == ("openai", "llama")
    assert choice.reason.startswith("Library answers at http://127.0.0.1:")


def test_we_are_not_our_own_model() -> None:
    assert chosen(reply=lists("llama"), own=True).name == "builtin"


def test_else_the_builtin_partner_and_it_is_said_why() -> None:
    assert chosen() == Choice(
        "builtin", {}, "no model is configured and none answers on this machine"
    )


def test_the_best_vad_that_is_installed_is_chosen() -> None:
    choice = choose_vad()
    assert (choice.name, bool(choice.reason)) in {("silero", False), ("energy", True)}


def test_sound_is_cleaned_where_that_is_installed() -> None:
    choice = choose_clean()
    assert (choice.name, bool(choice.reason)) in {("webrtc", False), ("none", True)}
