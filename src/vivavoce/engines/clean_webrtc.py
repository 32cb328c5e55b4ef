"""Echo cancellation, noise suppression and gain control by WebRTC's audio processing module.

The package `livekit` carries the module, which is called in process, without a network. The library
of `livekit` keeps four threads of its own from the first start to the end of the process; they
sleep. A call releases the interpreter lock.
"""

from collections.abc import Callable
from typing import Literal, Self

import msgspec
from livekit.rtc import AudioFrame, AudioProcessingModule

from vivavoce.engines.base import BaseEngine, Capabilities
from vivavoce.errors import EngineError

_RATE = 24_000
_SAMPLES = _RATE // 100  # the module takes 10 ms at a time
_BYTES = 2 * _SAMPLES


class WebRTCCleanerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No options."""


class WebRTCStream:
    """One microphone and its playback. Two frames, one of each, take 70 us."""

    def __init__(self, field: Literal["near", "far"]) -> None:
        self._module = AudioProcessingModule(
            echo_cancellation=True,
            noise_suppression=True,
            high_pass_filter=True,
            auto_gain_control=field == "far",
        )
        self._played = bytearray()
        self._recorded = bytearray()
        # A frame ahead: each call returns as much as it was given.
        self._cleaned = bytearray(_BYTES)

    def process(self, pcm24: bytes) -> bytes:
        self._recorded += pcm24
        while len(self._recorded) >= _BYTES:
            if len(self._played) >= _BYTES:
                self._call(self._module.process_reverse_stream, _frame(self._played))
            frame = _frame(self._recorded)
            self._call(self._module.process_stream, frame)
            self._cleaned += frame.data.tobytes()
        cleaned = bytes(self._cleaned[: len(pcm24)])
        del self._cleaned[: len(pcm24)]
        return cleaned

    def play(self, pcm24: bytes) -> None:
        self._played += pcm24

    def close(self) -> None:
        self._module._ffi_handle.dispose()  # else it waits for the garbage collector

    def _call(self, take: Callable[[AudioFrame], None], frame: AudioFrame) -> None:
        try:
            take(frame)
        except RuntimeError as exc:
            raise EngineError(f"[engines.clean.webrtc] cannot process the audio: {exc}") from exc


def _frame(audio: bytearray) -> AudioFrame:
    """The first 10 ms, removed from `audio`."""
    frame = AudioFrame(bytearray(audio[:_BYTES]), _RATE, 1, _SAMPLES)
    del audio[:_BYTES]
    return frame


class WebRTCCleaner(BaseEngine):
    """Streams of WebRTC's module. A far microphone gets gain control as well."""

    Settings = WebRTCCleanerSettings
    capabilities = Capabilities(licence="Apache-2.0 AND BSD-3-Clause", extra="room")

    def __init__(self, settings: WebRTCCleanerSettings) -> None:
        pass

    async def __aenter__(self) -> Self:
        try:
            self.open("near").close()  # loads the library before the first call
        except (ImportError, OSError) as exc:
            raise EngineError(
                f"[engines.clean.webrtc] the library of the package livekit cannot be used: {exc}"
            ) from exc
        return self

    def open(self, field: Literal["near", "far"]) -> WebRTCStream:
        return WebRTCStream(field)
