"""A session that owns its playout, at work: sound goes to its player."""

import asyncio

from tests.runtime.stage import (
    MODELS,
    RecordingPeer,
    ScriptedEngines,
    make_runner,
    question,
    received,
    template,
)
from vivavoce.protocol.client import OutputAudioClear
from vivavoce.session.facts import AudioPlayed, Disconnected
from vivavoce.session.limits import SessionLimits
from vivavoce.session.shell import Session
from vivavoce.testing.virtual_time import run


class Loudspeaker:
    """Keeps what it is to play."""

    def __init__(self) -> None:
        self.waiting: dict[str, int] = {}
        self.flushed = 0
        self.ducked = False

    def play(self, item_id: str, audio: bytes) -> None:
        self.waiting[item_id] = self.waiting.get(item_id, 0) + len(audio) // 2

    def flush(self) -> None:
        self.waiting.clear()
        self.flushed += 1

    def duck(self, ducked: bool) -> None:
        self.ducked = ducked


def test_player_plays_the_answer_and_clears_it_on_request() -> None:
    async def main() -> None:
        scripted, peer, player = ScriptedEngines(), RecordingPeer(), Loudspeaker()
        now = asyncio.get_running_loop().time()
        session = Session(
            template(None), MODELS, SessionLimits(), salt="t", now=now, server_plays=True
        )
        runner = make_runner(session, peer, scripted.catalog, player=player)
        running = asyncio.create_task(runner.run())
        await asyncio.sleep(0)
        assert not runner.behind
        for fact in question():
            runner.post(fact)
        await peer.until("response.done")
        ((item_id, samples),) = player.waiting.items()
        assert "response.output_audio.delta" not in peer.types
        runner.post(AudioPlayed(item_id, samples // 2))
        runner.post(*received(OutputAudioClear()))
        assert (player.waiting, player.flushed) == ({}, 1)
        assert peer.types[-2:] == ["output_audio_buffer.cleared", "conversation.item.truncated"]
        assert runner.settings == session.settings
        runner.post(Disconnected())
        await running

    run(main())
