"""Who speaks when in a recording: its speech in windows, each with an embedding, in clusters.

If its words are wanted too, a recording is read twice: once for the speakers, who are known only at
its end, and once for the audio of each turn. The embeddings and a loudness for each 20 ms of speech
stay in memory: 6 MB for an hour, no sound.
"""

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from itertools import islice, pairwise
from string import ascii_uppercase

import msgspec
import numpy as np
from numpy.typing import NDArray

from vivavoce.audio.clusters import Floats, Labels, centroids, cluster, in_order
from vivavoce.audio.formats import RATE
from vivavoce.audio.resample import resample
from vivavoce.audio.segments import SegmentSettings
from vivavoce.engines.base import Transcript, Word
from vivavoce.engines.speaker_model import SpeakerModel
from vivavoce.media.decoding import SoundFile
from vivavoce.protocol.logprobs import word_starts
from vivavoce.runtime.concurrency import in_thread
from vivavoce.runtime.file_transcription import SpeechStretch, stretches
from vivavoce.runtime.vad_batcher import VadBatcher
from vivavoce.session.facts import SpokenSegment

SPEECH = SegmentSettings(pause_seconds=0.4, padding_seconds=0.1)
"""Speech is cut at short pauses, because speakers change in pauses."""
SNAP_MS = 400
"""A change of speakers is put at the quietest place within this distance of the boundary between
two windows."""
FRAME_MS = 20
JOIN_MS = 1_000
"""Turns of one speaker with a shorter gap are one passage for a recogniser ..."""
MAX_PASSAGE_MS = 30_000
"""... up to this length."""
MIN_WINDOWS = 2
"""A cluster with fewer windows is taken for a mixture of voices, if other clusters have more."""
MAX_SESSION_SPEAKERS = 26
"""The most speakers of a conversation; another voice is given the label of the most similar one."""
MIN_WINDOW_SHARE = 0.6
"""The share of a model's window that must be filled; a shorter window does not begin a cluster."""
_PIECE_SECONDS = 4.096


class SpeakerTurn(msgspec.Struct, frozen=True):
    """A speaker, by a number from 0 or by a label, from and to a millisecond."""

    start_ms: int
    end_ms: int
    speaker: str


class KnownSpeaker(msgspec.Struct, frozen=True):
    """A speaker with a name, and how the voice sounds: [dimensions], of length 1."""

    name: str
    embedding: Floats


class SpeechWindows(msgspec.Struct, frozen=True):
    """A stretch of speech: where its windows begin, and the level of each of its frames."""

    start_ms: int
    end_ms: int
    window_ms: int
    starts_ms: tuple[int, ...]
    """From the start of the recording."""
    lengths_ms: tuple[int, ...]
    loudness: NDArray[np.float32]


async def diarize(
    file: SoundFile,
    vad: VadBatcher,
    model: SpeakerModel,
    known: Sequence[KnownSpeaker] = (),
    settings: SegmentSettings = SPEECH,
) -> list[SpeakerTurn]:
    """The turns of a recording, in order. Raises AudioError, EngineError."""
    found: list[SpeechWindows] = []
    vectors: list[Floats] = []
    async with aclosing(stretches(file, vad, settings)) as speech:
        async for stretch in speech:
            windows, clips = await in_thread(_windows, stretch, model)
            vectors.append(await model.embed(clips))
            found.append(windows)
    if not found:
        return []
    return await in_thread(_turns, found, np.concatenate(vectors), known, model)


async def voice_of(
    file: SoundFile, vad: VadBatcher, model: SpeakerModel, settings: SegmentSettings = SPEECH
) -> Floats | None:
    """The embedding of all speech of a recording; None without speech.

    Raises AudioError, EngineError.
    """
    total = np.zeros(model.dimensions, np.float32)
    async with aclosing(stretches(file, vad, settings)) as speech:
        async for stretch in speech:
            pcm = await in_thread(resample, stretch.pcm, RATE, model.sample_rate)
            (vector,) = await model.embed([pcm])
            total += vector * len(pcm)
    length = float(np.linalg.norm(total))
    return total / length if length else None


async def turn_stretches(
    file: SoundFile, turns: Sequence[SpeakerTurn]
) -> AsyncGenerator[SpeechStretch]:
    """The audio of each turn. Raises AudioError."""
    pieces = file.pieces(_PIECE_SECONDS)
    held, held_from = bytearray(), 0
    try:
        for turn in turns:
            start, end = (ms * RATE // 1000 * 2 for ms in (turn.start_ms, turn.end_ms))
            while held_from + len(held) < end:
                if (piece := await in_thread(next, pieces, None)) is None:
                    break
                held += piece
                drop = min(len(held), max(0, start - held_from))
                del held[:drop]
                held_from += drop
            pcm = bytes(held[max(0, start - held_from) : max(0, end - held_from)])
            yield SpeechStretch(turn.start_ms, turn.end_ms, pcm, turn.speaker)
    finally:
        await in_thread(pieces.close)


class SessionSpeakers:
    """Assigns labels to the speakers of one conversation; they stay the same from one recording to
    the next."""

    def __init__(self) -> None:
        self._voices: list[Floats] = []
        """The sum of the embeddings of each speaker."""

    async def segments(
        self, pcm: bytes, transcript: Transcript, model: SpeakerModel
    ) -> tuple[SpokenSegment, ...]:
        """What each said in a recording at the rate of the model, whose transcript is final.

        Without times of words, all of them are assigned to the speaker who speaks longest. Raises
        EngineError.
        """
        text = transcript.text.strip()
        if not text or not pcm:
            return ()
        sound = resample(pcm, model.sample_rate, RATE)
        stretch = SpeechStretch(0, len(sound) * 500 // RATE, sound)
        windows, clips = await in_thread(_windows, stretch, model)
        vectors = await model.embed(clips)
        labels = _labels(vectors, np.array(windows.lengths_ms), model)
        names = [self._label(vector, model) for vector in centroids(vectors, labels)]
        turns = list(_split(windows, [names[label] for label in labels]))
        return tuple(_said(text, transcript.words, turns))

    def _label(self, voice: Floats, model: SpeakerModel) -> str:
        """The letter of the speaker with a similar voice, or of a new one."""
        alike = [float(voice @ known) / float(np.linalg.norm(known)) for known in self._voices]
        best = int(np.argmax(alike)) if alike else 0
        is_known = alike and alike[best] >= model.same_windows
        if not is_known and len(self._voices) < MAX_SESSION_SPEAKERS:
            self._voices.append(np.zeros_like(voice))
            best = len(self._voices) - 1
        self._voices[best] = self._voices[best] + voice
        return next(islice(_letters(), best, None))


def _said(
    text: str, words: Sequence[Word], turns: Sequence[SpeakerTurn]
) -> Iterator[SpokenSegment]:
    """The text in parts, each of one speaker."""
    starts = word_starts(text, [word.text for word in words])
    if not starts:
        longest = max(turns, key=lambda turn: turn.end_ms - turn.start_ms)
        yield SpokenSegment(longest.speaker, text, turns[0].start_ms, turns[-1].end_ms)
        return
    speakers = [_speaker_at(turns, (word.start_ms + word.end_ms) // 2) for word in words]
    first = 0
    for i in range(1, len(words) + 1):
        if i == len(words) or speakers[i] != speakers[first]:
            said = text[starts[first] : starts[i]].strip()
            yield SpokenSegment(speakers[first], said, words[first].start_ms, words[i - 1].end_ms)
            first = i


def _speaker_at(turns: Sequence[SpeakerTurn], at_ms: int) -> str:
    return next((turn.speaker for turn in turns if at_ms < turn.end_ms), turns[-1].speaker)


def passages_of(turns: Sequence[SpeakerTurn]) -> list[SpeakerTurn]:
    """Turns of one speaker, joined over short pauses."""
    made: list[SpeakerTurn] = []
    for turn in turns:
        last = made[-1] if made else None
        if (
            last is not None
            and last.speaker == turn.speaker
            and turn.start_ms - last.end_ms <= JOIN_MS
            and turn.end_ms - last.start_ms <= MAX_PASSAGE_MS
        ):
            made[-1] = msgspec.structs.replace(last, end_ms=turn.end_ms)
        else:
            made.append(turn)
    return made


def speaker_names(
    voices: Floats, known: Sequence[KnownSpeaker], same_voice: float
) -> tuple[str, ...]:
    """A name for each voice [n, dimensions]: that of a known speaker with a similar voice, or a
    letter: A, B and so on."""
    names = {speaker.name for speaker in known}
    letters = (letter for letter in _letters() if letter not in names)
    made = []
    for voice in voices:
        likeness = [float(voice @ speaker.embedding) for speaker in known]
        best = int(np.argmax(likeness)) if known else 0
        if known and likeness[best] >= same_voice:
            made.append(known[best].name)
        else:
            made.append(next(letters))
    return tuple(made)


def _letters() -> Iterator[str]:
    number = 0
    while True:
        rounds, letter = divmod(number, len(ascii_uppercase))
        yield ascii_uppercase[letter] * (rounds + 1)
        number += 1


def _windows(stretch: SpeechStretch, model: SpeakerModel) -> tuple[SpeechWindows, list[bytes]]:
    """The windows of a stretch, which overlap by half, and the audio of each."""
    pcm = resample(stretch.pcm, RATE, model.sample_rate)
    samples = np.frombuffer(pcm, "<i2")
    window = model.window_ms * model.sample_rate // 1000
    last = max(0, len(samples) - window)
    starts = [*range(0, last, window // 2), last]
    frame = FRAME_MS * RATE // 1000
    sound = np.frombuffer(stretch.pcm, "<i2").astype(np.float32)
    frames = np.pad(sound, (0, -len(sound) % frame)).reshape(-1, frame)
    windows = SpeechWindows(
        stretch.start_ms,
        stretch.end_ms,
        model.window_ms,
        tuple(stretch.start_ms + start * 1000 // model.sample_rate for start in starts),
        (min(window, len(samples)) * 1000 // model.sample_rate,) * len(starts),
        (frames**2).mean(axis=1),
    )
    return windows, [samples[start : start + window].tobytes() for start in starts]


def _turns(
    found: Sequence[SpeechWindows],
    vectors: Floats,
    known: Sequence[KnownSpeaker],
    model: SpeakerModel,
) -> list[SpeakerTurn]:
    labels = _labels(vectors, np.array([n for each in found for n in each.lengths_ms]), model)
    names = speaker_names(centroids(vectors, labels), known, model.same_voice)
    turns: list[SpeakerTurn] = []
    at = 0
    for windows in found:
        count = len(windows.starts_ms)
        turns += _split(windows, [names[label] for label in labels[at : at + count]])
        at += count
    return turns


def _labels(vectors: Floats, lengths_ms: NDArray[np.intp], model: SpeakerModel) -> Labels:
    """The speaker of each window, by number. Short windows, and those that are similar to few
    others, are assigned to the nearest speaker."""
    sure = lengths_ms >= MIN_WINDOW_SHARE * model.window_ms
    if not sure.any():
        sure[:] = True
    labels = cluster(vectors[sure], model.same_windows)
    sizes = np.bincount(labels)
    voices = centroids(vectors[sure], labels)
    if (sizes >= MIN_WINDOWS).any():
        voices = voices[sizes >= MIN_WINDOWS]
    return in_order((vectors @ voices.T).argmax(axis=1).astype(np.intp))


def _split(windows: SpeechWindows, speakers: Sequence[str]) -> Iterator[SpeakerTurn]:
    """The turns of a stretch whose windows have these speakers."""
    start = windows.start_ms
    for i, (one, following) in enumerate(pairwise(speakers)):
        if one != following:
            middle = (windows.starts_ms[i] + windows.starts_ms[i + 1] + windows.window_ms) // 2
            end = _quietest(windows, max(start, middle - SNAP_MS), middle + SNAP_MS)
            if end > start:
                yield SpeakerTurn(start, end, one)
                start = end
    if windows.end_ms > start:
        yield SpeakerTurn(start, windows.end_ms, speakers[-1])


def _quietest(windows: SpeechWindows, start_ms: int, end_ms: int) -> int:
    first = (start_ms - windows.start_ms) // FRAME_MS
    last = (min(end_ms, windows.end_ms) - windows.start_ms) // FRAME_MS
    part = windows.loudness[first : max(first + 1, last)]
    if not len(part):
        return start_ms
    return windows.start_ms + (first + int(part.argmin())) * FRAME_MS
