import pytest

from tests.virtual_time import run
from vivavoce.engines.base import Mark, Speech
from vivavoce.engines.espeak.library import Manner
from vivavoce.engines.espeak.utterance import Reply, Utterance
from vivavoce.errors import EngineError

TEXT = "One, two."
SECOND = bytes(2 * 100)  # at 100 Hz


def utterance(room: int = 100) -> Utterance:
    return Utterance(TEXT, Manner("gmw/en-US", 175), room)


def test_it_pauses_when_it_is_full_and_resumes_once_when_half_is_taken() -> None:
    async def main() -> None:
        spoken = utterance()
        spoken.add(Reply(spoken.number, words=((0, 3, 0),)), SECOND)
        spoken.add(Reply(spoken.number, ended=True, next=5), b"")
        assert not spoken.resume()
        assert await spoken.take() == Speech(SECOND, (Mark(0, 0, 3),))
        assert [spoken.resume(), spoken.resume()] == [True, False]
        order = spoken.order()
        assert [order.text, order.room] == ["two.", 100]
        spoken.add(Reply(spoken.number, words=((0, 3, 7),)), SECOND)
        spoken.add(Reply(spoken.number, ended=True), b"")
        assert await spoken.take() == Speech(SECOND, (Mark(107, 5, 8),))
        assert await spoken.take() is None
        assert not spoken.resume()

    run(main())


def test_an_error_comes_after_the_sound_before_it() -> None:
    async def main() -> None:
        spoken = utterance()
        spoken.add(Reply(spoken.number), SECOND)
        spoken.end(EngineError("it broke"))
        spoken.add(Reply(spoken.number), SECOND)
        assert await spoken.take() == Speech(SECOND)
        with pytest.raises(EngineError, match="it broke"):
            await spoken.take()

    run(main())
