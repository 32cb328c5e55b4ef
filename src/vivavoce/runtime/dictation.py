"""One item's sound on its way to the recogniser, and its words on their way back."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

from vivavoce.audio.formats import RATE
from vivavoce.audio.resample import Resampler
from vivavoce.engines.base import STT
from vivavoce.errors import EngineError
from vivavoce.session.effects import Listen
from vivavoce.session.facts import Transcribed, Unheard


class Sound:
    """Sound that comes in pieces, at the rate that an engine wants. Iterate it once.

    Bounded by whoever feeds it: a session lets no more sound wait than its input buffer holds.
    """

    def __init__(self, sample_rate: int, taken: Callable[[], None]) -> None:
        """`taken` is called whenever the engine has taken what waited."""
        self._resampler = Resampler(RATE, sample_rate)
        self._taken = taken
        self._pieces: deque[bytes] = deque()
        self._more = asyncio.Event()
        self._complete = False
        self.waiting_bytes = 0

    def feed(self, pcm: bytes) -> None:
        self._put(self._resampler.feed(pcm))

    def finish(self) -> None:
        """That was all."""
        self._put(self._resampler.flush())
        self._complete = True
        self._more.set()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self._pieces or not self._complete:
            if self._pieces:
                piece = b"".join(self._pieces)
                self._pieces.clear()
                self.waiting_bytes = 0
                self._taken()
                yield piece
            else:
                self._more.clear()
                await self._more.wait()

    def _put(self, piece: bytes) -> None:
        if piece:
            self._pieces.append(piece)
            self.waiting_bytes += len(piece)
            self._more.set()


async def dictate(
    stt: STT, order: Listen, sound: Sound, tell: Callable[[Transcribed | Unheard], None]
) -> None:
    """Tell the words of an item as they are made out; cancel to stop."""
    final = False
    try:
        async with aclosing(
            stt.transcribe(aiter(sound), language=order.language, prompt=order.prompt)
        ) as transcripts:
            async for heard in transcripts:
                final = heard.final
                tell(Transcribed(order.item_id, heard.text, heard.stable, heard.final))
    except EngineError as exc:
        tell(Unheard(order.item_id, str(exc)))
    else:
        if not final:
            tell(Unheard(order.item_id, "speech recognition ended without a result"))
