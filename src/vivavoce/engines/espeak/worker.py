"""The process in which espeak-ng speaks, and its C interface, through ctypes.

It is a process because the C code is not reentrant, and because some texts crash it in most voices
("'-'-" before a Hindi word does): that costs the utterance, not the server.

The shared library and its data come with the package espeakng_loader. espeak-ng is GPL-3: it is
installed only with the extra `local`, and nothing else imports this file.

Types and numbers are those of `espeak-ng/speak_lib.h`, version 1.52.
"""

import ctypes
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import espeakng_loader

from vivavoce.engines.espeak.voices import (
    SAMPLE_RATE,
    SLOWEST_WPM,
    Manner,
    SpeakRequest,
    SpokenChunk,
)
from vivavoce.engines.worker import WorkerStream
from vivavoce.errors import EngineError

CHUNK_MS = 100
"""Audio in one callback, made in about 60 µs. Shorter ones, down to espeak's least of 60, are not
heard sooner and cost the server more."""
FASTEST_WPM = 900
"""Words per minute; above 450 espeak compresses its own speech with the sonic algorithm."""

_SYNCHRONOUS = 2  # no sound card and no thread of its own: audio goes to the callback
_DO_NOT_EXIT = 0x8000  # else a missing data file ends the process
_BY_CHARACTER = 1  # positions are counted in characters, not bytes
_UTF8, _END_PAUSE = 1, 0x1000
_RATE, _PITCH, _RANGE = 1, 3, 4
_LIST_ENDS, _WORD, _CLAUSE_ENDS = 0, 1, 5


class _EventName(ctypes.Union):
    _fields_ = (
        ("number", ctypes.c_int),
        ("name", ctypes.c_char_p),
        ("string", ctypes.c_char * 8),
    )


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventName),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(_Event))


@dataclass(frozen=True, slots=True)
class EspeakChunk:
    """A piece of audio, and what begins in it or after it.

    `words` are (offset in the text, length, sample), samples counted from the start of the call;
    `clause_ends` are offsets where the next clause begins.
    """

    audio: bytes
    words: tuple[tuple[int, int, int], ...]
    clause_ends: tuple[int, ...]


TakeChunk: TypeAlias = Callable[[EspeakChunk], bool]
"""Takes a chunk; False stops the synthesis. Must not raise: C code is between it and the caller."""


class EspeakLibrary:
    """The loaded library, one in a process. Raises EngineError: it cannot be loaded."""

    def __init__(self) -> None:
        try:
            data = Path(espeakng_loader.get_data_path())
            self._c: Any = ctypes.CDLL(espeakng_loader.get_library_path())
        except (OSError, RuntimeError) as exc:
            raise EngineError(
                f"cannot load espeak-ng ({exc}); reinstall the package espeakng-loader"
            ) from exc
        sample_rate: int = self._c.espeak_Initialize(
            _SYNCHRONOUS, CHUNK_MS, str(data).encode(), _DO_NOT_EXIT
        )
        if sample_rate != SAMPLE_RATE:
            raise EngineError(
                f"espeak-ng refuses its data in {data}; reinstall the package espeakng-loader"
            )
        self._take: TakeChunk | None = None
        self._callback = _Callback(self._called)  # C keeps the pointer; this keeps it alive
        self._c.espeak_SetSynthCallback(self._callback)

    def speak(self, text: str, manner: Manner, take: TakeChunk) -> None:
        """Speak the text, giving `take` every chunk as it is made, until `take` says False.

        The interpreter lock is free except in `take`. The text holds no NUL and no surrogate.
        Raises EngineError: no such voice, or espeak gives up.
        """
        if self._c.espeak_SetVoiceByName(manner.voice.encode()):
            raise EngineError(f"espeak-ng cannot load the voice {manner.voice!r}; choose another")
        rate = min(max(manner.words_per_minute, SLOWEST_WPM), FASTEST_WPM)
        for parameter, value in (
            (_RATE, rate),
            (_PITCH, manner.pitch),
            (_RANGE, manner.pitch_range),
        ):
            self._c.espeak_SetParameter(parameter, value, 0)
        data = text.encode() + b"\0"
        self._take = take
        try:
            failed = self._c.espeak_Synth(
                data, len(data), 0, _BY_CHARACTER, 0, _UTF8 | _END_PAUSE, None, None
            )
        finally:
            self._take = None
        if failed:
            raise EngineError(f"espeak-ng gave up with code {failed}; try another text")

    def _called(self, samples: int | None, count: int, events: Any) -> int:
        if self._take is None:
            return 1
        words = []
        clause_ends = []
        index = 0
        while (event := events[index]).type != _LIST_ENDS:
            index += 1
            if event.type == _WORD:
                words.append((event.text_position - 1, event.length, event.sample))
            elif event.type == _CLAUSE_ENDS:
                clause_ends.append(event.text_position)
        audio = ctypes.string_at(samples, 2 * count) if samples and count > 0 else b""
        go_on = self._take(EspeakChunk(audio, tuple(words), tuple(clause_ends)))
        return 0 if go_on else 1


class EspeakWorker:
    """Speaks one text after the other. A turn is a text, up to the wanted length of audio."""

    Request = SpeakRequest

    def __init__(self, options: object) -> None:
        self._library = EspeakLibrary()

    def serve(self, request: SpeakRequest, stream: WorkerStream) -> Iterator[int]:
        samples = 0
        next_offset: int | None = None

        def take(chunk: EspeakChunk) -> bool:
            nonlocal samples, next_offset
            samples += len(chunk.audio) // 2
            if chunk.audio or chunk.words:
                stream.send(SpokenChunk(chunk.audio, chunk.words))
            ends = [end for end in chunk.clause_ends if 0 < end < len(request.text)]
            if ends and samples >= request.max_samples:
                next_offset = ends[-1]
            return next_offset is None and not stream.cancelled

        self._library.speak(request.text, request.manner, take)
        if next_offset is not None:
            stream.send(SpokenChunk(next_offset=next_offset))
        yield 0
