"""Which keys may hang a call up and open its sideband."""

from dataclasses import replace
from typing import Any

import aiohttp
import msgspec
import pytest

from tests import idle_clock
from tests.server import Server, scripted, serving
from tests.transports.webrtc.call_stage import in_call
from tests.transports.webrtc.caller import calling, until
from vivavoce.limits.keys import hash_of
from vivavoce.protocol.session import SessionObject

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
    """The status with which a sideband is refused."""
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        async with calling(server, path, **bearer(key)):
            pass
    return int(caught.value.status)


def test_short_lived_key_reaches_only_the_calls_that_it_opened() -> None:
    async def main() -> None:
        keys = {name: hash_of(key) for name, key in KEYS.items()}
        async with serving(msgspec.structs.replace(scripted(), keys=keys)) as server:
            own, other = await short_lived(server), await short_lived(server)
            async with in_call(server, **bearer(own)) as client:
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
            async with in_call(server, **bearer("vv-ours")) as client:
                hang_up = client.location + "/hangup"
                assert (await post(server, hang_up, own))[0] == 404
                assert (await post(server, hang_up, "vv-theirs"))[0] == 200

    idle_clock.run(main())


class Ignoring:
    """An observer that does nothing."""

    def on(self, fact: object, effects: object, now: float) -> None:
        pass


def test_call_carries_the_name_of_its_key_or_of_the_key_that_minted_it() -> None:
    opened_by: list[str] = []

    def observe(session: SessionObject, who: str) -> Ignoring:
        opened_by.append(who)
        return Ignoring()

    async def main() -> None:
        keys = {name: hash_of(key) for name, key in KEYS.items()}
        async with serving(msgspec.structs.replace(scripted(), keys=keys)) as server:
            server.sessions.replace_context(replace(server.sessions.context, observers=(observe,)))
            for key in ("vv-theirs", await short_lived(server)):
                async with in_call(server, **bearer(key)):
                    pass

    idle_clock.run(main())
    assert opened_by == ["theirs", "ours"]
