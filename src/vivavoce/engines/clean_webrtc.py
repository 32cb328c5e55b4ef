"""Echo cancellation, noise suppression and gain control by WebRTC's audio processing module.

The package `livekit` carries the module, which is called in process, without a network. The library
of `livekit` keeps four threads of its own from the first start to the end of the process; they
sleep. A call releases the interpreter lock. To import the package takes as long as a tenth of a
start: it is done in a thread when the server listens, or by the first audio.
"""

import asyncio
import importlib.util
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, Self

import msgspec

from vivavoce.engines.base import BaseEngine, Capabilities
from vivavoce.errors import EngineError
from vivavoce.starting import server_listens

if TYPE_CHECKING:
    from livekit.rtc import AudioFrame, AudioProcessingModule

if importlib.util.find_spec("livekit") is None:
    raise ModuleNotFoundError("No module named 'livekit'", name="livekit")

log = logging.getLogger(__name__)

_RATE = 24_000
_SAMPLES = _RATE // 100  # the module takes 10 ms at a time
_BYTES = 2 * _SAMPLES


class WebRTCCleanerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No options."""


class WebRTCStream:
    """One microphone and its playback. Two frames, one of each, take 70 us."""

    def __init__(self, field: Literal["near", "far"]) -> None:
        self._field = field
        self._module: AudioProcessingModule | None = None
        self._played = bytearray()
        self._recorded = bytearray()
        # A frame ahead: each call returns as much as it was given.
        self._cleaned = bytearray(_BYTES)

    def process(self, pcm24: bytes) -> bytes:
        module = self._module = self._module or _module(self._field)
        self._recorded += pcm24
        while len(self._recorded) >= _BYTES:
            if len(self._played) >= _BYTES:
                self._call(module.process_reverse_stream, _frame(self._played))
            frame = _frame(self._recorded)
            self._call(module.process_stream, frame)
            self._cleaned += frame.data.tobytes()
        cleaned = bytes(self._cleaned[: len(pcm24)])
        del self._cleaned[: len(pcm24)]
        return cleaned

    def play(self, pcm24: bytes) -> None:
        self._played += pcm24

    def close(self) -> None:
        if self._module is not None:
            self._module._ffi_handle.dispose()  # else it waits for the garbage collector

    def _call(self, take: "Callable[[AudioFrame], None]", frame: "AudioFrame") -> None:
        try:
            take(frame)
        except RuntimeError as exc:
            raise EngineError(f"[engines.clean.webrtc] cannot process the audio: {exc}") from exc


def _module(field: Literal["near", "far"]) -> "AudioProcessingModule":
    """Raises EngineError: the library cannot be loaded."""
    try:
        from livekit.rtc import AudioProcessingModule

        return AudioProcessingModule(
            echo_cancellation=True,
            noise_suppression=True,
            high_pass_filter=True,
            auto_gain_control=field == "far",
        )
    except (ImportError, OSError) as exc:
        raise EngineError(
            f"[engines.clean.webrtc] the library of the package livekit cannot be used: {exc}"
        ) from exc


def _load_library() -> None:
    """Import it and start its threads. Raises EngineError."""
    _module("near")._ffi_handle.dispose()


def _frame(audio: bytearray) -> "AudioFrame":
    """The first 10 ms, removed from `audio`."""
    from livekit.rtc import AudioFrame

    frame = AudioFrame(bytearray(audio[:_BYTES]), _RATE, 1, _SAMPLES)
    del audio[:_BYTES]
    return frame


class WebRTCCleaner(BaseEngine):
    """Streams of WebRTC's module. A far microphone gets gain control as well."""

    Settings = WebRTCCleanerSettings
    capabilities = Capabilities(licence="Apache-2.0 AND BSD-3-Clause", extra="room")

    def __init__(self, settings: WebRTCCleanerSettings) -> None:
        self._loading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._loading = asyncio.create_task(self._load())
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.wait((self._loading,))

    async def load(self) -> None:
        """Raises EngineError."""
        await asyncio.to_thread(_load_library)

    async def _load(self) -> None:
        await server_listens()
        try:
            await self.load()
        except EngineError as exc:
            log.warning("%s", exc)

    def open(self, field: Literal["near", "far"]) -> WebRTCStream:
        return WebRTCStream(field)
