"""The microphone and the loudspeaker of this machine, through the package sounddevice.

Audio is PCM of 24 kHz, 16 bits, mono.
"""

import asyncio
import threading
from collections import deque
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

from vivavoce.audio.formats import BYTES_PER_MS, RATE
from vivavoce.errors import SettingsError
from vivavoce.talk import client
from vivavoce.talk.client import Event
from vivavoce.talk.conversation import CHUNK_MS, TalkConversation
from vivavoce.talk.turn import Turn, speech_end_ms

MAX_PLAYBACK_BYTES: Final = 30 * 60 * 1000 * BYTES_PER_MS
"""Audio that may wait to be played, half an hour; more is dropped."""
MAX_STOPPED_ITEMS: Final = 64
"""Items whose late audio is recognized and dropped."""
MAX_RECORDED_CHUNKS: Final = 50
"""Recorded audio that could not be sent yet, two seconds; then the oldest is dropped."""
RECENT_BYTES: Final = 8_000 * BYTES_PER_MS
"""The audio that was sent last, in which the end of the speech is searched."""
_BLOCK_SAMPLES: Final = CHUNK_MS * RATE // 1000


@dataclass(frozen=True, slots=True)
class StoppedPart:
    """A content part whose playback was stopped after `played_ms`."""

    item_id: str
    content_index: int
    played_ms: int


@dataclass(slots=True)
class _QueuedPart:
    item_id: str
    content_index: int
    waiting: bytearray = field(default_factory=bytearray)
    played: int = 0
    ended: bool = False


class PlaybackQueue:
    """Audio to play, in the order in which it came. The event loop adds audio, the thread of the
    sound card takes it: all methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._parts: deque[_QueuedPart] = deque()
        self._stopped: deque[str] = deque(maxlen=MAX_STOPPED_ITEMS)

    def add(self, item_id: str, content_index: int, pcm24: bytes) -> None:
        """Play this after everything before it. Audio of a stopped item is dropped."""
        with self._lock:
            if item_id in self._stopped:
                return
            if sum(len(part.waiting) for part in self._parts) + len(pcm24) > MAX_PLAYBACK_BYTES:
                return
            last = self._parts[-1] if self._parts else None
            if last is None or (last.item_id, last.content_index) != (item_id, content_index):
                last = _QueuedPart(item_id, content_index)
                self._parts.append(last)
            last.waiting += pcm24

    def end(self, item_id: str, content_index: int) -> None:
        """The audio of this part is complete."""
        with self._lock:
            for part in self._parts:
                if (part.item_id, part.content_index) == (item_id, content_index):
                    part.ended = True

    def take(self, count: int) -> bytes:
        """The next `count` bytes to play, padded with silence."""
        taken = bytearray()
        with self._lock:
            while self._parts and len(taken) < count:
                part = self._parts[0]
                piece = part.waiting[: count - len(taken)]
                del part.waiting[: len(piece)]
                part.played += len(piece)
                taken += piece
                if part.waiting or not (part.ended or len(self._parts) > 1):
                    break  # enough was taken, or more of this part is to come
                self._parts.popleft()
        return bytes(taken) + bytes(count - len(taken))

    def stop(self) -> list[StoppedPart]:
        """Stop playback. Returns the parts that were not played to their end, in order."""
        with self._lock:
            stopped = [
                StoppedPart(part.item_id, part.content_index, part.played // BYTES_PER_MS)
                for part in self._parts
            ]
            self._stopped.extend(part.item_id for part in stopped)
            self._parts.clear()
        return stopped


class AudioDevices:
    """Records chunks from the microphone; the loudspeaker plays `playback`.

    Entering opens both devices, leaving closes them. Entering raises SettingsError when the
    package, its library or a device is missing.
    """

    def __init__(self, playback: PlaybackQueue) -> None:
        self._playback = playback
        self._recorded: asyncio.Queue[bytes] = asyncio.Queue(MAX_RECORDED_CHUNKS)
        self._streams: list[Any] = []

    async def __aenter__(self) -> Self:
        sounddevice = _import_sounddevice()
        loop = asyncio.get_running_loop()

        def on_recorded(data: Any, _frames: int, _time: object, _status: object) -> None:
            loop.call_soon_threadsafe(self._put, bytes(data))

        def on_playback(data: Any, _frames: int, _time: object, _status: object) -> None:
            data[:] = self._playback.take(len(data))

        form = {"samplerate": RATE, "channels": 1, "dtype": "int16", "blocksize": _BLOCK_SAMPLES}
        try:
            for kind, callback in (
                (sounddevice.RawOutputStream, on_playback),
                (sounddevice.RawInputStream, on_recorded),
            ):
                self._streams.append(kind(callback=callback, **form))
                self._streams[-1].start()
        except (sounddevice.PortAudioError, ValueError) as exc:
            self._close()
            raise SettingsError(
                f"the microphone or the loudspeaker cannot be used: {exc}; check that both are "
                f"connected and allowed, or use --file or --text"
            ) from exc
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    async def chunk(self) -> bytes:
        """The next CHUNK_MS of PCM."""
        return await self._recorded.get()

    def _put(self, chunk: bytes) -> None:
        if self._recorded.full():
            self._recorded.get_nowait()
        self._recorded.put_nowait(chunk)

    def _close(self) -> None:
        for stream in self._streams:
            stream.abort()
            stream.close()
        self._streams.clear()


class LiveAudio:
    """Sends recorded audio to a conversation, plays its answers, and stops the playback when the
    user speaks (barge-in)."""

    def __init__(self, conversation: TalkConversation, playback: PlaybackQueue) -> None:
        self._conversation = conversation
        self._playback = playback
        self._recent = bytearray()
        self._sent_at = 0.0

    async def send_all(self, devices: AudioDevices) -> None:
        """Send what the microphone records, until cancelled."""
        while True:
            await self.send(await devices.chunk())

    async def send(self, chunk: bytes) -> None:
        self._recent += chunk
        del self._recent[:-RECENT_BYTES]
        self._sent_at = asyncio.get_running_loop().time()
        await self._conversation.send(client.append_audio(chunk))

    async def on_event(self, event: Event) -> None:
        """Handle an event of the server."""
        index = event.get("content_index")
        part = index if isinstance(index, int) else 0
        match event.type:
            case "response.output_audio.delta":
                self._playback.add(event.text("item_id"), part, event.pcm())
            case "response.output_audio.done":
                self._playback.end(event.text("item_id"), part)
            case "input_audio_buffer.speech_started":
                for stopped in self._playback.stop():
                    await self._conversation.send(
                        client.truncate(stopped.item_id, stopped.content_index, stopped.played_ms)
                    )
            case "input_audio_buffer.speech_stopped" if self._conversation.turn is not None:
                self._find_speech_end(self._conversation.turn)

    def _find_speech_end(self, turn: Turn) -> None:
        """Set the time when the question ended, from the audio that was sent last."""
        pcm24 = bytes(self._recent)
        end_ms = speech_end_ms(pcm24)
        turn.times.asked = turn.times.decided
        if end_ms is not None:
            turn.times.asked = self._sent_at - (len(pcm24) / BYTES_PER_MS - end_ms) / 1000


def _import_sounddevice() -> Any:
    try:
        import sounddevice  # loads PortAudio, which only --mic needs
    except ModuleNotFoundError as exc:
        raise SettingsError(
            "--mic needs the package sounddevice, which is not installed; "
            "try: pip install 'vivavoce[mic]'"
        ) from exc
    except OSError as exc:  # the package is there, the library is not
        raise SettingsError(
            f"--mic needs the PortAudio library: {exc}; on Debian and Ubuntu: "
            f"apt install libportaudio2"
        ) from exc
    return sounddevice
