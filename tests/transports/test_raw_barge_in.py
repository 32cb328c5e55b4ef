"""Barge-in on raw /ws in virtual time: how long a client hears the answer after it begins to speak.

Nothing but the socket is left out: the protocol, the paced peer, the session and scripted engines.
"""

import asyncio
from collections.abc import Callable

from aiohttp import WSMsgType

from tests.server import scripted
from tests.transports.test_send_queue import Client
from vivavoce.app import build
from vivavoce.protocol.raw import RawProtocol
from vivavoce.protocol.raw_config import RAW_RATE
from vivavoce.protocol.wire import ConnectRequest, Frame, Opening
from vivavoce.runtime.sessions import Sessions
from vivavoce.session.facts import Disconnected, Received
from vivavoce.testing.virtual_time import run
from vivavoce.transports.paced import PacedPeer
from vivavoce.transports.send_queue import SendQueue

USUAL_S, MAX_SECONDS = 0.12, 0.124
"""To silence. At worst: two VAD windows of 32 ms, a piece of 20 ms that is waited for, and 40 ms
that the client has in hand."""
PIECE = 640
"""Bytes of 20 ms at 16 kHz."""
LOUD, SOFT = b"\x00\x40" * (PIECE // 2), bytes(PIECE)


class Player(Client):
    """A client that plays what it gets without a gap, and reads at once."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self._clock = clock
        self.until = 0.0
        """When it will have played all it has."""
        self.ahead = 0.0
        """The most that it had in hand, in seconds."""

    async def send_frame(self, message: bytes, opcode: WSMsgType) -> None:
        self.got.append(message)
        if opcode is WSMsgType.BINARY:
            self.until = max(self.until, self._clock()) + len(message) / 2 / RAW_RATE
            self.ahead = max(self.ahead, self.until - self._clock())


async def spoken_over(phase_s: float) -> tuple[float, float]:
    """Seconds from the onset of speech to silence at the client, and the most that was ahead."""
    clock = asyncio.get_running_loop().time
    async with build(scripted(llm={"answers": ["word " * 200]}), local_servers=()) as built:
        protocol, player = RawProtocol(clock), Player(clock)
        opening = protocol.opening(ConnectRequest("/ws"))
        queue = SendQueue(player, player, protocol)
        peer = PacedPeer(queue, protocol)
        assert opening is not None
        sessions = Sessions(built.context)
        runner = sessions.open(peer, opening, peer)
        peer.post = runner.post

        def send(frame: Frame) -> None:
            for one in protocol.decode(frame):
                assert not isinstance(one, Opening)
                runner.post(Received(one))  # type: ignore[arg-type]  # no replies are due here

        async with asyncio.TaskGroup() as tasks:
            for each in (queue.write(), peer.run(), sessions.serve(runner)):
                tasks.create_task(each)
            send(Frame("text", b'{"type": "text", "text": "Talk."}'))
            begun, onset = clock(), 0.0
            while clock() < begun + 1.5:
                await asyncio.sleep(0.02)
                speaks = clock() > begun + 1
                if speaks and not onset:
                    onset = clock() - 0.02 + phase_s  # this piece is loud from its middle on
                    cut = int(PIECE * phase_s / 0.02) // 2 * 2
                    send(Frame("binary", SOFT[:cut] + LOUD[cut:]))
                else:
                    send(Frame("binary", LOUD if speaks else SOFT))
            runner.post(Disconnected())
            peer.close(1000, "")
        assert b"InterruptionFrame" in b"".join(player.got)
        return player.until - onset, player.ahead


def test_client_is_silent_soon_after_the_onset_of_speech() -> None:
    found = [run(spoken_over(phase_ms / 1000)) for phase_ms in (0, 4, 8, 12, 16)]
    silent_after = sorted(seconds for seconds, _ in found)
    assert silent_after[0] > 0
    assert silent_after[-2] <= USUAL_S
    assert silent_after[-1] <= MAX_SECONDS
    assert max(ahead for _, ahead in found) <= 0.041
