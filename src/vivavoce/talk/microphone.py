"""The microphone and the loudspeaker of this machine, through the package sounddevice."""

import asyncio
from types import TracebackType
from typing import Any, Self

from vivavoce.audio.formats import BYTES_PER_MS, RATE
from vivavoce.errors import SettingsError
from vivavoce.talk import events
from vivavoce.talk.conversation import CHUNK_MS, Conversation
from vivavoce.talk.events import Event
from vivavoce.talk.loudness import speech_end_ms
from vivavoce.talk.speaker import Speaker
from vivavoce.talk.turn import Turn

_BLOCK = CHUNK_MS * RATE // 1000  # samples
_MOST_PIECES = 50  # two seconds that could not be sent: then the oldest is dropped
_RECENT_BYTES = 8_000 * BYTES_PER_MS


class Microphone:
    """Pieces of sound from the microphone; the loudspeaker plays what `speaker` has.

    Entering opens both devices, leaving closes them. Raises SettingsError on entering: a package,
    a library or a device is missing.
    """

    def __init__(self, speaker: Speaker) -> None:
        self._speaker = speaker
        self._pieces: asyncio.Queue[bytes] = asyncio.Queue(_MOST_PIECES)
        self._streams: list[Any] = []

    async def __aenter__(self) -> Self:
        sounddevice = _sounddevice()
        loop = asyncio.get_running_loop()

        def recorded(data: Any, _frames: int, _time: object, _status: object) -> None:
            loop.call_soon_threadsafe(self._put, bytes(data))

        def wanted(data: Any, _frames: int, _time: object, _status: object) -> None:
            data[:] = self._speaker.take(len(data))

        form = {"samplerate": RATE, "channels": 1, "dtype": "int16", "blocksize": _BLOCK}
        try:
            for kind, callback in (
                (sounddevice.RawOutputStream, wanted),
                (sounddevice.RawInputStream, recorded),
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

    async def piece(self) -> bytes:
        """The next 40 ms of PCM."""
        return await self._pieces.get()

    def _put(self, piece: bytes) -> None:
        if self._pieces.full():
            self._pieces.get_nowait()
        self._pieces.put_nowait(piece)

    def _close(self) -> None:
        for stream in self._streams:
            stream.abort()
            stream.close()
        self._streams.clear()


class Headset:
    """Joins a conversation to a microphone and a speaker; whoever speaks interrupts the answer."""

    def __init__(self, conversation: Conversation, speaker: Speaker) -> None:
        self._conversation = conversation
        self._speaker = speaker
        self._recent = bytearray()
        self._sent_at = 0.0

    async def speak(self, microphone: Microphone) -> None:
        """Send what the microphone hears, for ever."""
        while True:
            await self.send(await microphone.piece())

    async def send(self, piece: bytes) -> None:
        self._recent += piece
        del self._recent[:-_RECENT_BYTES]
        self._sent_at = asyncio.get_running_loop().time()
        await self._conversation.send(events.append(piece))

    async def hear(self, event: Event) -> None:
        """What comes from the server: plays it, and stops when the user speaks."""
        index = event.get("content_index")
        part = index if isinstance(index, int) else 0
        match event.type:
            case "response.output_audio.delta":
                self._speaker.feed(event.text("item_id"), part, event.sound())
            case "response.output_audio.done":
                self._speaker.end(event.text("item_id"), part)
            case "input_audio_buffer.speech_started":
                for cut in self._speaker.stop():
                    await self._conversation.send(
                        events.truncate(cut.item_id, cut.content_index, cut.played_ms)
                    )
            case "input_audio_buffer.speech_stopped" if self._conversation.turn is not None:
                self._mark(self._conversation.turn)

    def _mark(self, turn: Turn) -> None:
        """Find the end of the speech in what was sent of late."""
        pcm24 = bytes(self._recent)
        end_ms = speech_end_ms(pcm24)
        turn.marks.asked = turn.marks.decided
        if end_ms is not None:
            turn.marks.asked = self._sent_at - (len(pcm24) / BYTES_PER_MS - end_ms) / 1000


def _sounddevice() -> Any:
    try:
        import sounddevice  # loads a sound library, for which only a microphone has a use
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
