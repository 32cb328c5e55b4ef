"""Which offers can become calls."""

import asyncio

import pytest

from tests.transports.call_stage import Client
from vivavoce.errors import InvalidRequest
from vivavoce.transports.webrtc_offer import MOST_BYTES, check


@pytest.fixture(scope="module")
def offer() -> str:
    async def main() -> str:
        client = Client()
        try:
            return await client.offer()
        finally:
            await client.connection.close()

    return asyncio.run(main())


def test_an_offer_with_sound_and_a_data_channel_will_do(offer: str) -> None:
    check(offer)


def test_one_without_a_data_channel_will_do(offer: str) -> None:
    check(offer[: offer.index("m=application")])


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("m=audio", "m=video", "one audio section and no video"),
        ("m=audio", "m=text", "one audio section and no video; it has: text, application"),
        ("opus/48000/2", "vorbis/48000/2", "does not offer Opus"),
        ("a=sendrecv", "a=sendonly", "the answers would go nowhere"),
        ("a=fingerprint:", "a=other:", "lacks a fingerprint"),
        ("a=ice-pwd:", "a=other:", "lacks a fingerprint or an ICE password"),
        ("a=rtpmap:", "a=rtpmap:x", "not valid SDP"),
        ("v=0", "v=0" + "\r\na=x" * MOST_BYTES, "more than"),
    ],
)
def test_any_other_is_refused_with_the_reason(offer: str, old: str, new: str, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why) as caught:
        check(offer.replace(old, new))
    assert caught.value.param == "sdp"


def test_one_that_is_missing_is_asked_for() -> None:
    with pytest.raises(InvalidRequest, match="Missing required parameter") as caught:
        check("\r\n")
    assert caught.value.code == "missing_required_parameter"
