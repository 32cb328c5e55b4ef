"""Which offers become calls, which of their sections are used, and how the rest is refused."""

import asyncio
import random
import re
from pathlib import Path

import aiohttp
import pytest

from tests import idle_clock
from tests.server import scripted, serving
from tests.transports.webrtc.call_stage import Client
from tests.transports.webrtc.caller import until
from vivavoce.errors import InvalidRequest
from vivavoce.transports.webrtc.offer import MAX_BYTES, MAX_CANDIDATES, read

OFFERS = {
    path.stem: path.read_bytes().decode()
    for path in (Path(__file__).parents[2] / "data" / "sdp").glob("*.sdp")
}
MUTANTS = 300


@pytest.fixture(scope="module")
def offer() -> str:
    async def main() -> str:
        client = Client()
        try:
            return await client.offer()
        finally:
            await client.connection.close()

    return idle_clock.run(main())


def test_offer_of_audio_and_data_is_accepted_whole(offer: str) -> None:
    assert read(offer).accepted == (0, 1)


def test_offer_of_audio_alone_is_accepted(offer: str) -> None:
    assert read(offer[: offer.index("m=application")]).accepted == (0,)


def test_data_section_in_old_syntax_is_accepted(offer: str) -> None:
    old = re.sub(r"m=application (\d+) .*\r\n", r"m=application \1 DTLS/SCTP 5000\r\n", offer)
    assert read(old.replace("a=sctp-port", "a=sctpmap").replace(":5000", ":5000 x 1")).accepted


def test_offer_of_chromium_is_reduced_to_audio_and_data() -> None:
    taken = read(OFFERS["chromium"])
    assert "m=audio 51040 UDP/TLS/RTP/SAVPF 111\r\n" in taken.sdp
    assert "telephone-event" not in taken.sdp
    assert "tcptype" not in taken.sdp
    assert taken.sdp.count("a=candidate:") == 4
    video = read(OFFERS["chromium_video"])
    assert (video.accepted, video.bundled) == ((1, 2), ("1", "2"))
    assert "video" not in video.sdp


def test_other_sections_are_refused_in_their_place() -> None:
    taken = read(OFFERS["chromium_video"])
    answer = "v=0\r\na=group:BUNDLE 1 2\r\nm=audio 1 X 111\r\nm=application 1 X\r\n"
    lines = taken.answered(answer + "a=max-message-size:1\r\n").splitlines()
    assert lines[1] == "a=group:BUNDLE 1 2"
    assert lines[2].startswith("m=video 0 UDP/TLS/RTP/SAVPF 96 ")
    assert lines[3:6] == ["c=IN IP4 0.0.0.0", "a=inactive", "a=mid:0"]
    assert lines[6:] == ["m=audio 1 X 111", "m=application 1 X", "a=max-message-size:262144"]


def test_candidates_above_the_limit_are_dropped(offer: str) -> None:
    line = "a=candidate:1 1 udp 1 192.0.2.1 5000 typ host\r\n"
    taken = read(offer.replace("a=mid:0\r\n", "a=mid:0\r\n" + line * 100))
    assert taken.sdp.partition("m=application")[0].count("a=candidate:") == MAX_CANDIDATES


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("m=audio", "m=video", "must have an audio section; it has: video, application"),
        ("m=audio 9", "m=audio 0", "must have an audio section; it has: audio, application"),
        ("opus/48000/2", "vorbis/48000/2", "does not offer Opus"),
        ("a=fingerprint:", "a=other:", "lacks a=setup or a=fingerprint"),
        ("a=setup:", "a=other:", "lacks a=setup or a=fingerprint"),
        ("a=ice-pwd:", "a=other:", "lacks a=ice-ufrag or a=ice-pwd"),
        ("a=ice-ufrag:", "a=other:", "lacks a=ice-ufrag or a=ice-pwd"),
        ("a=sctp-port:", "a=other:", "lacks a=sctp-port"),
        ("a=sctp-port:5000", "a=sctp-port:0", "lacks a=sctp-port"),
        ("UDP/DTLS/SCTP webrtc-datachannel", "DTLS/SCTP x", "lacks a=sctp-port"),
        ("a=mid:1", "a=mid:0", "each its own"),
        ("a=mid:1", "a=mid:" + "1" * 33, "each its own"),
        ("a=setup:", "a=setup:x", "not valid SDP"),
        ("v=0", "hello", "not valid SDP"),
        ("v=0", "v=0" + "\r\na=x" * MAX_BYTES, "more than"),
        ("a=mid:0", "a=mid:0" + "\r\na=rtcp-fb:* x" * 500, "lines, more than 500"),
        ("m=audio", "m=text 9 X\r\n" * 64 + "m=audio", "it has 66 sections, more than"),
    ],
)
def test_invalid_offer_is_refused_with_the_reason(offer: str, old: str, new: str, why: str) -> None:
    changed = re.sub(r"m=audio \d+", "m=audio 9", offer)
    assert old in changed
    with pytest.raises(InvalidRequest, match=why) as caught:
        read(changed.replace(old, new))
    assert caught.value.param == "sdp"


def test_empty_offer_is_refused_as_missing() -> None:
    with pytest.raises(InvalidRequest, match="Missing required parameter") as caught:
        read("\r\n")
    assert caught.value.code == "missing_required_parameter"


def test_mutated_offers_are_answered_or_refused(offer: str) -> None:
    chance = random.Random(7)
    corpus = [*OFFERS.values(), offer]

    async def main() -> None:
        statuses = []
        async with serving(scripted()) as server:
            before = asyncio.all_tasks()
            async with aiohttp.ClientSession() as http:
                for _ in range(MUTANTS):
                    sdp = mutant(chance.choice(corpus), chance)
                    reply = await http.post(
                        f"{server.http}/v1/realtime/calls", data={"sdp": sdp, "session": ""}
                    )
                    statuses.append(reply.status)
                    if reply.status == 201:
                        await http.post(server.http + reply.headers["Location"] + "/hangup")
            await until(lambda: len(server.sessions) == 0)
            await until(lambda: asyncio.all_tasks() <= before)
        assert set(statuses) == {201, 400}

    idle_clock.run(main())


def mutant(sdp: str, chance: random.Random) -> str:
    """The offer with one or more lines changed."""
    lines = sdp.split("\r\n")
    for _ in range(chance.choice((1, 1, 2, 5))):
        at, other = chance.randrange(len(lines)), chance.randrange(len(lines))
        line, words = lines[at], lines[at].split(" ")
        cut = chance.randrange(len(line) + 1)
        odd = chance.choice("\x00\r :/é\u2028\U0001f600")
        number = chance.choice(("0", "-1", "256", "65536", "99999999999"))
        lines[at : at + 1] = chance.choice(
            (
                [],
                [line, lines[other]],
                [line[:cut]],
                [line[:cut] + odd + line[cut + 1 :]],
                [re.sub(r"\d+", number, line, count=chance.choice((0, 1)))],
                [" ".join(words[:-1])],
                [" ".join(words[:1] + words)],
                [line * 40],
                [line.replace(":", " ")],
                [line.swapcase()],
            )
        )
        lines = lines or [""]
    return chance.choice(("\r\n", "\n")).join(lines)
