"""One item's sound on its way to the recogniser, and its words on their way back."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing
from typing import Self

from vivavoce.audio.formats import RATE
from vivavoce.audio.resample import Resampler
from vivavoce.engines.base import STT
from vivavoce.errors import EngineError, EngineLost
from vivavoce.session.effects import StartTranscription
from vivavoce.session.facts import ItemTranscriptionFailed, TranscriptUpdated

log = logging.getLogger(__name__)

PIECE_BYTES = 2 * RATE  # one second: more is not converted at once, lest it block the loop
KEPT_BYTES = 60 * 2 * RATE  # of sound that a recogniser has taken, in case that it is lost


class AudioFeed:
    """Sound that comes in pieces, at the rate that an engine wants. Iterate it once.

    Bounded by whoever feeds it: a session lets no more sound wait than its input buffer holds.
    What was taken is kept for a second recogniser, a minute of it and no more.
    """

    def __init__(self, sample_rate: int, taken: Callable[[], None]) -> None:
        """`taken` is called whenever the engine has taken something of what waited."""
        self._rate = sample_rate
        self._resampler = Resampler(RATE, sample_rate)
        self._taken = taken
        self._pcm = bytearray()
        self._kept: bytearray | None = bytearray()
        self._more = asyncio.Event()
        self._complete = False
        self._over = False

    @property
    def waiting_bytes(self) -> int:
        return len(self._pcm)

    def feed(self, pcm: bytes) -> None:
        self._pcm += pcm
        self._more.set()

    def finish(self) -> None:
        """That was all."""
        self._complete = True
        self._more.set()

    def close(self) -> None:
        """Drop the audio that is kept: nobody reads it any more."""
        self._pcm.clear()
        self._kept = None

    def rewind(self) -> bool:
        """Begin again from the start: once, and only where all that was taken is still here."""
        if self._kept is None:
            return False
        self._pcm[:0] = self._kept
        self._kept = None
        self._resampler = Resampler(RATE, self._rate)
        self._over = False
        return True

    def _take(self) -> bytes:
        """The next of what waits."""
        piece = bytes(self._pcm[:PIECE_BYTES])
        del self._pcm[:PIECE_BYTES]
        if self._kept is not None:
            self._kept += piece
            if len(self._kept) > KEPT_BYTES:
                self._kept = None
        return piece

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while not self._over:
            if self._pcm:
                piece = self._resampler.feed(self._take())
                self._taken()
                if self._pcm:  # an engine that never waits must not keep everybody else waiting
                    await asyncio.sleep(0)
            elif self._complete:
                piece = self._resampler.flush()
                self._over = True
            else:
                self._more.clear()
                await self._more.wait()
                continue
            if piece:
                return piece
        raise StopAsyncIteration


async def dictate(
    stt: STT,
    order: StartTranscription,
    sound: AudioFeed,
    tell: Callable[[TranscriptUpdated | ItemTranscriptionFailed], None],
) -> None:
    """Tell the words of an item as they are made out; cancel to stop.

    A recogniser that is lost in the middle is replaced, and hears all from the start.
    """
    try:
        try:
            final = await _listened(stt, order, sound, tell)
        except EngineLost as exc:
            if not sound.rewind():
                raise
            log.warning("an item is dictated again: %s", exc)
            final = await _listened(stt, order, sound, tell)
    except EngineError as exc:
        tell(ItemTranscriptionFailed(order.key, str(exc)))
    else:
        if not final:
            tell(ItemTranscriptionFailed(order.key, "speech recognition ended without a result"))


async def _listened(
    stt: STT,
    order: StartTranscription,
    sound: AudioFeed,
    tell: Callable[[TranscriptUpdated | ItemTranscriptionFailed], None],
) -> bool:
    """Whether the last words told are final. Raises EngineError."""
    final = False
    async with aclosing(
        stt.transcribe(sound, language=order.language, prompt=order.prompt)
    ) as transcripts:
        async for heard in transcripts:
            final = heard.final
            tell(TranscriptUpdated(order.key, heard.text, heard.stable, heard.final))
    return final
