"""Who may end a call, and who may listen in."""

import asyncio
from typing import Any

import aiohttp
import msgspec
import pytest

from tests.server import Server, scripted, serving
from tests.transports.webrtc.call_stage import on_the_phone
from tests.transports.webrtc.caller import calling, until
from vivavoce.limits.keys import hash_of

KEYS = {"ours": "vv-ours", "theirs": "vv-theirs"}


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def post(server: Server, path: str, key: str) -> tuple[int, Any]:
    async with (
        aiohttp.ClientSession() as http,
        http.post(server.http + path, headers=bearer(key)) as reply,
    ):
        return reply.status, await reply.json() if "json" in reply.content_type else None


async def short_lived(server: Server) -> str:
    status, secret = await post(server, "/v1/realtime/client_secrets", "vv-ours")
    assert status == 200
    return str(secret["value"])


async def refused(server: Server, path: str, key: str) -> int:
    """The status with which nobody listens in."""
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        async with calling(server, path, **bearer(key)):
            pass
    return int(caught.value.status)


def test_a_short_lived_key_ends_and_hears_the_calls_that_it_opened_and_no_other() -> None:
    async def main() -> None:
        keys = {name: hash_of(key) for name, key in KEYS.items()}
        async with serving(msgspec.structs.replace(scripted(), keys=keys)) as server:
            own, other = await short_lived(server), await short_lived(server)
            async with on_the_phone(server, **bearer(own)) as client:
                hang_up = client.location + "/hangup"
                sideband = f"/v1/realtime?call_id={client.location.rpartition('/')[2]}"
                assert await refused(server, sideband, other) == 404
                assert await refused(server, sideband, "ek_wrong") == 401
                async with calling(server, sideband, **bearer(own)):
                    pass
                async with calling(server, sideband, **bearer("vv-theirs")):
                    pass
                for key, status in ((other, 404), ("", 401), ("ek_wrong", 401), ("vv-no", 401)):
                    assert (await post(server, hang_up, key))[0] == status
                assert len(server.sessions) == 1
                assert (await post(server, hang_up, own))[0] == 200
                await until(lambda: len(server.sessions) == 0)
                assert (await post(server, hang_up, own))[0] == 404
            async with on_the_phone(server, **bearer("vv-ours")) as client:
                hang_up = client.location + "/hangup"
                assert (await post(server, hang_up, own))[0] == 404
                assert (await post(server, hang_up, "vv-theirs"))[0] == 200

    asyncio.run(main())
