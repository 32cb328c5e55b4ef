"""Audio in place of that which a recording did not keep: as long, and as loud where it matters.

A turn begins by the scores of windows, the rise of their level, and a hiss before them. So the
recorder keeps the levels of the windows in which speech may begin, negative where the window
hisses. What stands for them here has that level, hisses or not, and no other property of the audio.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Any

import numpy as np
from msgspec.structs import replace

from vivavoce.audio.formats import Format, encode
from vivavoce.protocol.client import InputAudioAppend
from vivavoce.session.cascade.turn_detection import WINDOW
from vivavoce.session.facts import AudioArrived, AudioCleaned, Fact, Received
from vivavoce.session.options import format_name
from vivavoce.telemetry.recording import CallRecording, RecordedEntry, fact_of

_FORMATS: dict[str, Format] = {
    "audio/pcm": "audio/pcm",
    "audio/pcmu": "audio/pcmu",
    "audio/pcma": "audio/pcma",
}


def facts_of(recording: CallRecording) -> Iterator[tuple[RecordedEntry, Fact | None]]:
    """Every entry with its fact; microphone audio that was not kept is filled in.

    Raises RecordingError.
    """
    levels = None if recording.header.audio else _InputLevels(recording)
    for entry in recording.entries:
        fact = fact_of(entry) if entry.fact else None
        if levels is not None and fact is not None:
            fact = levels.filled(fact)
            levels.follow(entry)
        yield entry, fact


class _InputLevels:
    """The levels of windows by position, and how much microphone audio has come."""

    def __init__(self, recording: CallRecording) -> None:
        found = {
            at + number * WINDOW: level
            for entry in recording.entries
            for at, levels in entry.levels
            for number, level in enumerate(levels)
        }
        self._starts = sorted(found)
        self._found = found
        self._came = self._cleaned = 0  # samples
        self._format = format_name(recording.header.session.audio.input.format)

    def follow(self, entry: RecordedEntry) -> None:
        """Take a change of the client's audio format."""
        for name, fields in entry.effects:
            event: Any = fields.get("event") if name == "Send" else None
            if isinstance(event, dict) and event.get("type") == "session.updated":
                kind = event["session"]["audio"]["input"]["format"]["type"]
                self._format = _FORMATS.get(kind, self._format)

    def filled(self, fact: Fact) -> Fact:
        """The fact with audio of the levels that are known."""
        match fact:
            case AudioArrived(audio=audio):
                return AudioArrived(self._next(len(audio) // 2))
            case AudioCleaned(audio=audio):
                pcm = self._pcm(self._cleaned, len(audio) // 2)
                self._cleaned += len(audio) // 2
                return AudioCleaned(pcm)
            case Received(event=InputAudioAppend(audio=audio) as event):
                size = len(audio)
                if self._format == "audio/pcm":
                    filled = self._next(size // 2) + bytes(size % 2)
                else:
                    filled = encode(self._next(3 * size), self._format)[:size].ljust(size, b"\xff")
                return Received(replace(event, audio=filled), fact.raw)
        return fact

    def _next(self, samples: int) -> bytes:
        pcm = self._pcm(self._came, samples)
        self._came += samples
        return pcm

    def _pcm(self, begin: int, samples: int) -> bytes:
        """Audio from that position on."""
        pcm = np.zeros(samples, "<i2")
        first = bisect_right(self._starts, begin - WINDOW)
        for start in self._starts[first : bisect_left(self._starts, begin + samples)]:
            low, high = max(start, begin), min(start + WINDOW, begin + samples)
            pcm[low - begin : high - begin] = _window(self._found[start])[
                low - start : high - start
            ]
        return pcm.tobytes()


def _window(level: float) -> Any:
    """A window whose root mean square is that: of two amplitudes that lie next to each other.

    level: if it is negative, the sign changes with each sample.
    """
    hissing, level = level < 0, abs(level)
    low = min(int(level), 32766)
    share = (level * level - low * low) / (2 * low + 1)
    window = np.full(WINDOW, low, "<i2")
    window[: round(min(1.0, max(0.0, share)) * WINDOW)] += 1
    if hissing:
        window[::2] *= -1
    return window
