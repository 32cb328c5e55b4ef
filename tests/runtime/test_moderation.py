"""What is checked of a session, and what follows from the verdicts."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from aiohttp import web

from tests.server import scripted, serving
from tests.session.relay_stage import frame
from tests.transports.test_relay import connected
from vivavoce.errors import SettingsError
from vivavoce.protocol.items import InputText, Message
from vivavoce.protocol.server import ItemAdded
from vivavoce.runtime.moderation import (
    MAX_CHECKS,
    ModeratedText,
    Moderation,
    ModerationSettings,
    Moderator,
    Verdict,
    built_moderation,
)
from vivavoce.session.effects import Close, Effect, Send
from vivavoce.session.facts import ContentBlocked, Fact, TranscriptionKey, TranscriptUpdated
from vivavoce.session.policy import Policy
from vivavoce.testing.virtual_time import run

SAY = ModerationSettings().say


async def _bad_words(text: ModeratedText) -> object:
    if "slow" in text.text:
        await asyncio.sleep(60.0)
    if "broken" in text.text:
        raise ValueError("no")
    if "worse" in text.text:
        return '{"action": "end"}'
    return Verdict("block", "No.") if "bad" in text.text else {"action": "allow"}


def checked(*given: Fact | Effect, seconds: float = 1.0, **settings: Any) -> list[Fact]:
    """What a session is told after these facts and effects, and that time."""
    posted: list[Fact] = []

    async def main() -> None:
        moderation = Moderation("m", _bad_words, ModerationSettings(**settings))
        moderator = Moderator(moderation, "sess_1", "ada")
        moderator.post = posted.append
        for each in given:
            if isinstance(each, Send | Close):
                moderator.on(None, [each], 0.0)
            else:
                moderator.on(each, [], 0.0)  # type: ignore[arg-type]
        await asyncio.sleep(seconds)
        moderator.leave()
        await asyncio.sleep(0)

    run(main())
    return posted


def heard(text: str) -> TranscriptUpdated:
    return TranscriptUpdated(TranscriptionKey("item_1"), text, len(text), final=True)


def test_words_of_the_user_are_checked_whatever_brings_them() -> None:
    item = Message(id="item_1", role="user", content=(InputText(text="bad"),))
    written = Send(ItemAdded(event_id="e", previous_item_id=None, item=item))
    kind = "conversation.item.input_audio_transcription.completed"
    relayed = frame(kind, item_id="item_1", transcript="bad")
    for each in (heard("bad"), written, relayed):
        assert checked(each) == [ContentBlocked("item_1", "No.")]
    assert checked(heard("good"), heard(" ")) == []


def test_answer_is_checked_sentence_by_sentence() -> None:
    kind = "response.output_audio_transcript.delta"
    begun = [frame(kind, response_id="r", delta=delta) for delta in ("One ", "bad ")]
    assert checked(*begun) == []
    assert checked(*begun, frame(kind, response_id="r", delta="word. ")) == [
        ContentBlocked("", "No.")
    ]
    done = frame("response.done", response={"id": "r", "status": "completed"})
    assert checked(*begun, done) == [ContentBlocked("", "No.")]


def test_verdict_may_end_the_session() -> None:
    assert checked(heard("worse")) == [ContentBlocked("item_1", SAY, ends=True)]


@pytest.mark.parametrize("text", ["slow", "broken"])
def test_failed_check_allows_or_blocks_as_the_settings_say(text: str) -> None:
    assert checked(heard(text), seconds=3.0) == []
    assert checked(heard(text), seconds=3.0, block_on_failure=True) == [
        ContentBlocked("item_1", SAY)
    ]


def test_checks_at_the_same_time_are_bounded() -> None:
    many = [heard("slow")] * (MAX_CHECKS + 1)
    assert len(checked(*many, seconds=1.0, block_on_failure=True)) == 1


def test_nothing_is_told_to_a_session_that_has_ended() -> None:
    assert checked(heard("bad"), Close(1000, ""), heard("bad")) == []
    assert checked(heard("slow"), seconds=1.0, block_on_failure=True) == []


def test_webhook_gets_the_text_and_its_verdict_counts() -> None:
    seen: list[Any] = []

    async def hook(request: web.Request) -> web.Response:
        seen.append((request.headers["Authorization"], await request.json()))
        return web.json_response({"action": "block", "say": "No."})

    async def main() -> None:
        app = web.Application()
        app.router.add_post("/hook", hook)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            port = runner.addresses[0][1]
            url = f"http://127.0.0.1:{port}/hook"
            settings = ModerationSettings(url=url, secret="s3cret")
            async with AsyncExitStack() as stack:
                found = await built_moderation({"words": settings}, stack)
                text = ModeratedText("user", "bad", "sess_1", "ada")
                assert await found["words"].check(text) == Verdict("block", "No.")
        finally:
            await runner.cleanup()

    asyncio.run(main())
    ((bearer, body),) = seen
    assert bearer == "Bearer s3cret"
    assert body == {"role": "user", "text": "bad", "session_id": "sess_1", "key": "ada"}


def test_moderation_without_url_or_entry_point_is_named() -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            await built_moderation({"words": ModerationSettings()}, stack)

    with pytest.raises(SettingsError, match=r"\[moderation.words\] no package has an entry point"):
        asyncio.run(main())


def test_address_of_a_webhook_is_checked() -> None:
    with pytest.raises(ValueError, match="https://"):
        ModerationSettings(url="shop.example")


def moderated(script: Callable[[Any], Any], answers: list[str]) -> None:
    async def main() -> None:
        settings = scripted(llm={"answers": answers})
        default = msgspec.structs.replace(settings.models["default"], policy="shop")
        settings = msgspec.structs.replace(
            settings,
            models={"default": default},
            policies={"shop": Policy(moderation="words")},
            moderation={"words": ModerationSettings(url="http://127.0.0.1:9/never")},
        )
        async with serving(settings) as server:
            check = Moderation("words", _bad_words, ModerationSettings())
            context = server.sessions.context
            server.sessions.replace_context(replace(context, moderation={"words": check}))
            async with connected(f"{server.ws}/v1/realtime", "default") as client:
                await script(client)

    asyncio.run(main())


def test_blocked_words_of_a_user_are_answered_with_the_sentence() -> None:
    async def script(client: Any) -> None:
        await client.write("Something bad.")
        deleted = await client.until("conversation.item.deleted")
        assert deleted["item_id"]
        said = await client.until("response.output_audio_transcript.done")
        while said["transcript"] != "No.":
            said = await client.until("response.output_audio_transcript.done")

    moderated(script, ["Hello."])
