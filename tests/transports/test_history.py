"""The frames that a client was sent last, kept in case that it comes back."""

import asyncio
import base64
import gc
import json

import pytest

from tests import idle_clock
from vivavoce.protocol.audio_frames import AudioFrames
from vivavoce.protocol.codec import encode
from vivavoce.protocol.server import OutputAudioDelta
from vivavoce.testing.virtual_time import run
from vivavoce.transports.resumable import DROP_PAUSE_S, KEPT_S, MAX_KEPT_BYTES, History


def test_history_keeps_what_was_sent_last() -> None:
    async def main() -> None:
        history = History()
        for n in range(3):
            history.add(f'{{"event_id":"event_{n}"}}'.encode())
        assert history.behind("event_1") == 2
        assert history.behind("event_9") is None
        assert [frame.data[-3:] for frame in history.since(2)] == [b'2"}']
        history.add(bytes(MAX_KEPT_BYTES))
        assert (history.begin, history.end) == (3, 4)
        history.close()

    idle_clock.run(main())


@pytest.mark.parametrize("size", [1920, 1921, 1922])  # without padding, with two, with one
def test_history_returns_frames_of_audio_as_they_were(size: int) -> None:
    async def main() -> None:
        history, frames = History(), AudioFrames("response.output_audio.delta")
        sent = [delta(n, bytes([n]) * size) for n in range(4)]
        frames.learn(sent[0])
        for frame in sent:
            history.add(frame, frames.read(frame))
        history.add(b'{"event_id":"event_done"}')
        assert [frame.data for frame in history.since(0)] == [*sent, b'{"event_id":"event_done"}']
        assert [history.behind(f"event_{n}") for n in (0, 3, "done")] == [1, 4, 5]
        history.add(bytes(MAX_KEPT_BYTES))
        assert history.begin == 5
        history.close()

    def delta(number: int, audio: bytes) -> bytes:
        text = base64.b64encode(audio).decode()
        fields = {"event_id": f"event_{number}", "delta": text, "item_id": "item_1"}
        return json.dumps({"type": "response.output_audio.delta", **fields}).encode()

    idle_clock.run(main())


def test_history_keeps_of_an_audio_delta_the_event_and_returns_the_frame() -> None:
    """Its audio is that of the session; the collector of garbage does not visit it."""

    async def main() -> None:
        history = History()
        deltas = [_delta(n) for n in range(3)]
        for delta in deltas:
            history.add(encode(delta), delta)
        done = b'{"type":"response.output_audio.done","event_id":"event_done"}'
        history.add(done)
        assert history._kept == [*deltas, done]
        assert not any(map(gc.is_tracked, deltas))
        assert [frame.data for frame in history.since(1)] == [*map(encode, deltas[1:]), done]
        assert [history.behind(f"event_{n}") for n in (0, 2, "done", 7)] == [1, 3, 4, None]
        history.add(bytes(MAX_KEPT_BYTES))
        assert (history.begin, history.behind("event_done")) == (4, 4)
        assert history._bytes == MAX_KEPT_BYTES
        history.close()
        assert history._bytes == 0

    def _delta(number: int) -> OutputAudioDelta:
        return OutputAudioDelta(
            event_id=f"event_{number}",
            response_id="resp_1",
            item_id="item_1",
            output_index=0,
            content_index=0,
            delta=bytes(1920),
        )

    idle_clock.run(main())


@pytest.mark.parametrize("size", [1920, 1921])
def test_history_knows_the_frame_of_audio_before_those_that_it_keeps(size: int) -> None:
    async def main() -> None:
        history, frames = History(), AudioFrames("response.output_audio.delta")
        text = base64.b64encode(bytes(size)).decode()
        fields = {"event_id": "event_1", "delta": text}
        frame = json.dumps({"type": "response.output_audio.delta", **fields}).encode()
        frames.learn(frame)
        history.add(frame, frames.read(frame))
        history.add(bytes(MAX_KEPT_BYTES))
        assert (history.begin, history.behind("event_1")) == (1, 1)
        history.close()

    idle_clock.run(main())


def test_history_knows_the_event_before_those_that_it_keeps() -> None:
    """A client that has received it, and was sent nothing since, has lost nothing."""

    async def main() -> None:
        history = History()
        for n in range(2):
            history.add(f'{{"event_id":"event_{n}"}}'.encode())
        await asyncio.sleep(KEPT_S + DROP_PAUSE_S + 1)
        assert (history.begin, history.end) == (2, 2)
        assert history.behind("event_1") == 2
        assert history.behind("event_0") is None
        history.close()

    run(main())
