"""/telephony/ws against a running server: calls as the four providers stream them."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit
from xml.etree.ElementTree import fromstring

import aiohttp
import msgspec
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests import idle_clock
from tests.protocol.telephony_samples import (
    CONNECTED,
    digit_of,
    media_of,
    name_of_mark,
    phone_sound,
    returned,
    start_of,
    stop_of,
)
from tests.server import Server, scripted, serving
from tests.transports.webrtc.caller import LOUD, SOFT, until
from vivavoce.limits.keys import hash_of
from vivavoce.protocol.telephony_messages import PROVIDERS, Provider
from vivavoce.settings import Settings

WAIT_S = 60.0
KEY = "vv-the-key-of-a-phone-number"
WORDS = 60
"""Of a long answer; each lasts 300 ms."""


class Phone:
    """A provider with a call on the line: the caller's sound goes in, what is played comes out."""

    def __init__(self, socket: ClientConnection, provider: Provider) -> None:
        self.socket = socket
        self.provider = provider
        self.sound = b""
        self.marks: list[str] = []

    async def send(self, message: Any) -> None:
        await self.socket.send(json.dumps(message))

    async def start(self, **parameters: str) -> None:
        if self.provider in CONNECTED:
            await self.send(CONNECTED[self.provider])
        await self.send(start_of(self.provider, **parameters))

    async def say(self, pcm24: bytes) -> None:
        sound = phone_sound(pcm24, self.provider)
        for at in range(0, len(sound), 1600):
            await self.send(media_of(self.provider, sound[at : at + 1600]))

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(WAIT_S):
            message: dict[str, Any] = json.loads(await self.socket.recv())
        match message["event"]:
            case "media" | "playAudio":
                self.sound += base64.b64decode(message["media"]["payload"])
            case "mark" | "checkpoint":
                self.marks.append(name_of_mark(message))
        return message

    async def until_marks(self, count: int) -> None:
        while len(self.marks) < count:
            await self.next()

    async def cleared(self) -> None:
        """Read on to the message that clears the playback."""
        while (await self.next())["event"] not in ("clear", "clearAudio"):
            pass

    async def closed(self) -> int | None:
        with suppress(ConnectionClosed):
            while True:
                await self.next()
        return self.socket.close_code


@asynccontextmanager
async def calling_from(
    server: Server, provider: Provider, query: str = "", address: str = "/telephony/ws"
) -> AsyncIterator[Phone]:
    # unread messages would hold up the closing handshake
    async with connect(server.ws + address + query, max_queue=None) as socket:
        yield Phone(socket, provider)


def played(script: Callable[[Server], Any], settings: Settings | None = None) -> None:
    async def main() -> None:
        async with serving(settings or scripted()) as server:
            await script(server)
            await until(lambda: len(server.sessions) == 0)

    idle_clock.run(main())


def heard_words(server: Server) -> int:
    """Words of the answer before, as the next request to the model has them."""
    text = repr(server.llm.requests[-1].items)
    return text.count("word")


LONG = {"answers": ["word " * WORDS, "Yes."]}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_spoken_turn_is_answered_and_the_callers_hang_up_ends_the_session(
    provider: Provider,
) -> None:
    async def script(server: Server) -> None:
        async with calling_from(server, provider) as phone:
            await phone.start()
            await phone.say(LOUD * 8 + SOFT * 30)
            rate = 16_000 if provider == "exotel" else 8_000  # bytes a second
            seconds = 20 * 0.06
            while len(phone.sound) < rate * seconds * 0.99:
                await phone.next()
            await phone.until_marks(6)
            assert len(phone.sound) <= rate * seconds + 3200
            await phone.send(stop_of(provider))
            assert await phone.closed() == 1000

    answers = {"answers": ["Four five six seven."]}
    played(script, scripted(stt={"transcripts": ["one two three"]}, llm=answers))


@pytest.mark.parametrize("provider", PROVIDERS)
def test_barge_in_clears_the_playback_and_the_answer_is_cut_to_what_was_heard(
    provider: Provider,
) -> None:
    async def script(server: Server) -> None:
        async with calling_from(server, provider) as phone:
            await phone.start()
            await phone.say(LOUD * 8 + SOFT * 30)
            await phone.until_marks(30)
            await phone.send(returned(provider, phone.marks[9]))  # two seconds
            await phone.say(LOUD * 8)
            await phone.cleared()
            sent = len(phone.sound)
            for mark in phone.marks[10:]:
                await phone.send(returned(provider, mark))
            await phone.say(SOFT * 30)
            marks = len(phone.marks)
            await phone.until_marks(marks + 1)
            assert len(phone.sound) - sent < 16_000
            # by the clock of the session nothing was heard yet: the whole test takes less
            assert 6 <= heard_words(server) <= 8

    played(script, scripted(llm=LONG))


def test_keys_of_the_phone_interrupt_and_are_a_turn() -> None:
    async def script(server: Server) -> None:
        async with calling_from(server, "twilio") as phone:
            await phone.start(greeting="Press a key.")
            await phone.until_marks(1)
            for digit in ("4", "2", "#"):
                await phone.send(digit_of("twilio", digit))
            await phone.cleared()
            await until(lambda: "DTMF: 42" in repr(server.llm.requests[-1].items))

    played(script)


def test_parameters_of_the_stream_choose_voice_and_language() -> None:
    async def script(server: Server) -> None:
        async with calling_from(server, "telnyx") as phone:
            await phone.start(voice="coral", language="de")
            await phone.say(LOUD * 8 + SOFT * 30)
            await phone.until_marks(1)
            assert server.tts.spoken[-1][1] == "coral"

    played(script)


def test_stream_of_an_answered_webhook_is_let_in_by_its_token_and_others_are_not() -> None:
    settings = msgspec.structs.replace(scripted(), keys={"phones": hash_of(KEY)})

    async def script(server: Server) -> None:
        url = f"{server.http}/telephony/twilio?api_key={KEY}"
        async with aiohttp.ClientSession() as http, http.post(url) as reply:
            stream = fromstring(await reply.text()).find(".//Stream")
        assert stream is not None
        token = stream[0].attrib["value"]
        assert token.startswith("ek_")
        address = urlsplit(stream.attrib["url"]).path
        async with calling_from(server, "twilio", address=address) as phone:
            await phone.start(token=token)
            await phone.say(LOUD * 8 + SOFT * 30)
            await phone.until_marks(1)
        async with calling_from(server, "plivo", f"?token={token}") as phone:
            await phone.start()
            await phone.say(LOUD * 8 + SOFT * 30)
            await phone.until_marks(1)
        for parameters in ({}, {"token": token[:-4] + "AAAA"}, {"token": "vv-no"}):
            async with calling_from(server, "twilio") as phone:
                await phone.start(**parameters)
                assert await phone.closed() == 3000
                assert "API key" in str(phone.socket.close_reason)

    played(script, settings)


def test_stream_that_does_not_begin_as_one_is_refused_with_the_reason() -> None:
    async def script(server: Server) -> None:
        async with calling_from(server, "twilio") as phone:
            await phone.send(media_of("twilio", b"\xff"))
            assert await phone.closed() == 1008
            assert "'connected' or 'start'" in str(phone.socket.close_reason)

    played(script)
