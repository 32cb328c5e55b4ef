"""Echo, noise and level, seen to by WebRTC's audio processing module, which `livekit` carries.

The module is called in process and without a room or a network. The library of `livekit` keeps
four threads of its own from the first start to the end of the process; they sleep. A call lets go
of the GIL.
"""

from collections.abc import Callable
from typing import Literal, Self

import msgspec
from livekit.rtc import AudioFrame, AudioProcessingModule

from vivavoce.errors import EngineError

_RATE = 24_000
_SAMPLES = _RATE // 100  # the module takes 10 ms at a time
_BYTES = 2 * _SAMPLES


class WebRTCSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """There is nothing to choose."""


class WebRTCStream:
    """One microphone and what is played beside it. Two frames, one of each, take 70 us."""

    def __init__(self, field: Literal["near", "far"]) -> None:
        self._module = AudioProcessingModule(
            echo_cancellation=True,
            noise_suppression=True,
            high_pass_filter=True,
            auto_gain_control=field == "far",
        )
        self._played = bytearray()
        self._heard = bytearray()
        # A frame ahead, so that whatever is fed, there is as much to give back.
        self._cleaned = bytearray(_BYTES)

    def process(self, pcm24: bytes) -> bytes:
        self._heard += pcm24
        while len(self._heard) >= _BYTES:
            if len(self._played) >= _BYTES:
                self._call(self._module.process_reverse_stream, _frame(self._played))
            frame = _frame(self._heard)
            self._call(self._module.process_stream, frame)
            self._cleaned += frame.data.tobytes()
        made = bytes(self._cleaned[: len(pcm24)])
        del self._cleaned[: len(pcm24)]
        return made

    def play(self, pcm24: bytes) -> None:
        self._played += pcm24

    def close(self) -> None:
        self._module._ffi_handle.dispose()  # its own way is to wait for the garbage collector

    def _call(self, take: Callable[[AudioFrame], None], frame: AudioFrame) -> None:
        try:
            take(frame)
        except RuntimeError as exc:
            raise EngineError(f"clean:webrtc cannot process the sound: {exc}") from exc


def _frame(sound: bytearray) -> AudioFrame:
    """The first 10 ms, taken out of the sound."""
    frame = AudioFrame(bytearray(sound[:_BYTES]), _RATE, 1, _SAMPLES)
    del sound[:_BYTES]
    return frame


class WebRTCCleaner:
    """Streams of WebRTC's module. What is near needs no gain; what is far gets some."""

    Settings = WebRTCSettings

    def __init__(self, settings: WebRTCSettings) -> None:
        pass

    async def __aenter__(self) -> Self:
        try:
            self.open("near").close()  # loads the library now and not in the first call
        except (ImportError, OSError) as exc:
            raise EngineError(f"the library of the package livekit cannot be used: {exc}") from exc
        return self

    async def __aexit__(self, *exc: object) -> None:
        pass

    def open(self, field: Literal["near", "far"]) -> WebRTCStream:
        return WebRTCStream(field)
