"""Calls of clients whose offers are unusual."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
from aiortc.sdp import SessionDescription

from tests import idle_clock
from tests.server import Server, scripted, serving
from tests.transports.webrtc.call_stage import Client, in_call, tone
from tests.transports.webrtc.caller import until

CALLS = "/v1/realtime/calls?model=gpt-realtime"
SDP = {"Content-Type": "application/sdp; charset=utf-8"}
VIDEO = (
    "m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\nc=IN IP4 0.0.0.0\r\na=mid:cam\r\na=sendrecv\r\n"
    "a=rtcp-mux\r\na=rtpmap:96 VP8/90000\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n"
)
ELSEWHERE = (
    "a=candidate:1 1 udp 2122260223 4f1f2c1e-0b0c-4c2e-8b8e-0c5f0c1d2e3f.local 50000 typ host\r\n"
    "a=candidate:2 1 tcp 1518214911 127.0.0.1 9 typ host tcptype active\r\n"
    "a=candidate:3 1 udp 2122260222 ::1 9 typ host\r\n"
)


def video_first(offer: str) -> str:
    at = offer.index("m=")
    return re.sub(r"(a=group:BUNDLE)", r"\1 cam", offer[:at]) + VIDEO + offer[at:]


def second_microphone(offer: str) -> str:
    sound = offer[offer.index("m=audio") :].partition("m=application")[0]
    return offer + re.sub(r"a=mid:\S+", "a=mid:other", sound)


def other_codecs(offer: str) -> str:
    """Opus under another number and behind the others, with what Chromium has beside it."""
    named = offer.replace("a=rtpmap:96 ", "a=rtpmap:120 ").replace("a=fmtp:96 ", "a=fmtp:120 ")
    extra = (
        "a=rtpmap:63 red/48000/2\r\na=fmtp:63 120/120\r\na=rtpmap:126 telephone-event/8000\r\n"
        "a=fmtp:126 0-15\r\na=fmtp:77 unknown=parameter\r\na=fmtp:120 stereo=1;usedtx=1\r\n"
    )
    named = re.sub(r"m=audio (\d+) (\S+) .*", r"m=audio \1 \2 0 8 63 126 120", named)
    return named.replace("a=rtcp-mux\r\n", "a=rtcp-mux\r\n" + extra, 1)


def bare(offer: str) -> str:
    """Without what may be missing."""
    for line in (r"a=sendrecv", r"a=msid:.*", r"a=ssrc:.*", r"a=extmap:.*", r"a=candidate:.*"):
        offer = re.sub(line + r"\r\n", "", offer)
    offer = offer.replace("a=end-of-candidates\r\n", "")
    return offer.replace("\r\n", "\n")


VARIANTS: dict[str, Callable[[str], str]] = {
    "video first": video_first,
    "a second microphone": second_microphone,
    "other codecs": other_codecs,
    "bare": bare,
    "not bundled": lambda offer: re.sub(r"a=group:.*\r\n", "", offer),
    "a bundle with unknown sections": lambda o: o.replace("BUNDLE", "BUNDLE unknown cam"),
    "a bundle with duplicates": lambda o: o.replace("BUNDLE 0 1", "BUNDLE 0 0 1 1"),
    "the client waits": lambda offer: offer.replace("a=setup:actpass", "a=setup:active"),
    "addresses elsewhere": lambda o: re.sub(r"(a=mid:\S+\r\n)", r"\1" + ELSEWHERE, o),
    "ice-lite": lambda offer: offer.replace("a=group", "a=ice-lite\r\na=group", 1),
}


@asynccontextmanager
async def answering_server() -> AsyncIterator[Server]:
    async with serving(scripted(llm={"answers": ["Good evening to you."]})) as server:
        yield server


async def post(server: Server, offer: str) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as http,
        http.post(server.http + CALLS, data=offer, headers=SDP) as reply,
    ):
        return reply.status, await reply.text()


def own_part(answer: str, offer: str) -> str:
    """The answer to what the client itself had offered; the rest of it must be refused."""
    head, *sections = re.split(r"(?=^m=)", answer, flags=re.MULTILINE)
    mine = [f"a=mid:{media.rtp.muxId}\r\n" for media in SessionDescription.parse(offer).media]
    kept = [section for section in sections if any(mid in section for mid in mine)]
    for section in sections:
        if section not in kept:
            assert re.match(r"m=\S+ 0 ", section)
    return head + "".join(kept)


async def call(server: Server, variant: str) -> None:
    client = Client()
    try:
        offer = await client.offer()
        changed = VARIANTS[variant](offer)
        assert changed != offer
        status, answer = await post(server, changed)
        assert status == 201, answer
        assert sections(answer) == sections(changed)
        assert ("BUNDLE" in answer) is ("BUNDLE" in changed)
        assert "cam" not in "".join(re.findall("a=group.*", answer))
        await client.accept(own_part(answer, offer))
        await client.until("session.created")
        client.speak(tone(0.3))
        await client.until("input_audio_buffer.committed")
        await client.until("output_audio_buffer.stopped")
        # audio has a socket of its own where it is not bundled, and may arrive after the event
        await until(lambda: client.loud_ms > 500)
    except BaseException as exc:
        exc.add_note(variant)
        raise
    finally:
        await client.connection.close()


def sections(sdp: str) -> list[str]:
    return re.findall("^m=([a-z]+)", sdp, re.MULTILINE)


def test_unusual_offers_become_calls() -> None:
    async def main() -> None:
        async with answering_server() as server, asyncio.TaskGroup() as calls:
            for variant in VARIANTS:
                calls.create_task(call(server, variant))

    idle_clock.run(main())


def without_events(offer: str) -> str:
    return offer[: offer.index("m=application")].replace("BUNDLE 0 1", "BUNDLE 0")


def test_call_without_a_data_channel_is_answered() -> None:
    async def main() -> None:
        client = Client()
        async with answering_server() as server:
            try:
                offer = await client.offer()
                status, answer = await post(server, without_events(offer))
                assert (status, sections(answer)) == (201, ["audio"])
                channel = offer[offer.index("m=application") :]
                await client.accept(
                    answer.replace("BUNDLE 0", "BUNDLE 0 1") + channel.replace("actpass", "active")
                )
                client.speak(tone(0.3))
                await until(lambda: client.loud_ms > 500)
            finally:
                await client.connection.close()

    idle_clock.run(main())


async def one_way(server: Server, direction: str, *, speaks: bool, hears: bool) -> None:
    async with in_call(server, direction=direction) as client:
        if speaks:
            client.speak(tone(0.3))
            await client.until("input_audio_buffer.committed")
        else:
            await client.ask()
        await client.until("output_audio_buffer.started")
        await client.until("output_audio_buffer.stopped")
        if hears:
            await until(lambda: client.loud_ms > 500)
        else:
            assert client.loud_ms == 0


def test_call_in_any_direction_is_answered() -> None:
    async def main() -> None:
        async with answering_server() as server, asyncio.TaskGroup() as calls:
            calls.create_task(one_way(server, "sendonly", speaks=True, hears=False))
            calls.create_task(one_way(server, "recvonly", speaks=False, hears=True))
            calls.create_task(one_way(server, "inactive", speaks=False, hears=False))

    idle_clock.run(main())


def test_transcription_call_is_not_answered() -> None:
    async def main() -> None:
        client = Client(direction="sendonly")
        form = aiohttp.FormData(default_to_multipart=True)
        form.add_field("sdp", await client.offer())
        audio = {"input": {"transcription": {"model": "whisper-1"}}}
        form.add_field("session", json.dumps({"type": "transcription", "audio": audio}))
        async with serving(scripted(stt={"transcripts": ["good evening"]})) as server:
            try:
                async with aiohttp.ClientSession() as http:
                    reply = await http.post(server.http + "/v1/realtime/calls", data=form)
                    await client.accept(await reply.text())
                created = await client.until("session.created")
                assert created["session"]["type"] == "transcription"
                client.speak(tone(0.3))
                heard = await client.until("conversation.item.input_audio_transcription.completed")
                assert heard["transcript"] == "good evening"
                assert "response.created" not in client.types
            finally:
                await client.connection.close()

    idle_clock.run(main())
