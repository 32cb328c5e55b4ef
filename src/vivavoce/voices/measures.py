"""What can be measured of speech without a listener. Audio is 16-bit mono PCM at 24 kHz. Pure."""

from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from vivavoce.audio.formats import RATE

Floats = NDArray[np.float64]
BLOCK_MS, HOP_MS = 400, 100
"""The blocks of gated loudness, ITU-R BS.1770-4, annex 1."""
ABSOLUTE_GATE_LUFS: Final = -70.0
RELATIVE_GATE_LU: Final = -10.0
SILENT_LUFS: Final = -120.0
"""Given for sound in which nothing passes the gate."""
PLAYED_LUFS: Final = -23.0
"""The loudness at which every voice is rated: the level of EBU R 128."""
FRAME_MS: Final = 20
PAUSE_DB: Final = -35.0
"""A frame that is so far below the loudest one is silent."""
MIN_PAUSE_MS: Final = 200
"""A shorter silence is part of a word: the closure of a plosive takes up to 150 ms."""
_FILTER_RATE: Final = 48_000
# BS.1770-4, tables 1 and 2: the shelf for the head, and the high-pass, at 48 kHz
_SHELF: Final = (
    (1.53512485958697, -2.69169618940638, 1.19839281085285),
    (1.0, -1.69065929318241, 0.73248077421585),
)
_HIGH_PASS: Final = ((1.0, -2.0, 1.0), (1.0, -1.99004745483398, 0.99007225036621))


class VoiceMeasures(msgspec.Struct, frozen=True, kw_only=True):
    """The measures of one clip, or the means of several."""

    seconds: float
    words_per_minute: float
    lufs: float
    """Integrated loudness."""
    pause_share: float
    """The share of pauses in the time between the first and the last sound, 0..1."""
    longest_pause_ms: float
    first_chunk_ms: float
    """From the request to the first audio."""
    realtime_factor: float
    """Seconds of work for a second of speech."""
    word_error_rate: float | None = None
    """The word error rate of a recogniser; None: none is used."""
    usd_per_minute: float = 0.0
    """A price for people to read: bills are integers of nano-USD."""


def loudness_lufs(pcm: bytes) -> float:
    """Integrated loudness in LUFS, ITU-R BS.1770-4, of one channel.

    The K weighting is applied to the power spectrum of each block, by the response of the
    standard's filters at 48 kHz, in place of the filters: for steady blocks the same.
    """
    samples = np.frombuffer(pcm, "<i2").astype(np.float64) / 32768
    block, hop = RATE * BLOCK_MS // 1000, RATE * HOP_MS // 1000
    if samples.size < block:
        samples = np.pad(samples, (0, block - samples.size))
    starts = range(0, samples.size - block + 1, hop)
    weights = k_weighting(np.fft.rfftfreq(block, 1 / RATE).astype(np.float64))
    powers = np.array([_weighted_power(samples[at : at + block], weights) for at in starts])
    loud = powers[_lufs(powers) > ABSOLUTE_GATE_LUFS]
    if not loud.size:
        return SILENT_LUFS
    gated = loud[_lufs(loud) > _lufs(loud.mean()) + RELATIVE_GATE_LU]
    return float(_lufs(gated.mean()))


def _lufs(power: Floats | np.floating) -> Floats:
    return np.asarray(-0.691 + 10 * np.log10(np.maximum(power, 1e-15)))


def _weighted_power(block: Floats, weights: Floats) -> float:
    """The mean square of a block, by Parseval's theorem, each frequency weighted."""
    power = np.abs(np.fft.rfft(block)) ** 2 * weights
    power[1:-1] *= 2  # the negative frequencies
    return float(power.sum()) / block.size**2


def k_weighting(hertz: Floats) -> Floats:
    """The squared gain of the two filters of BS.1770-4 at these frequencies."""
    z = np.exp(-2j * np.pi * hertz / _FILTER_RATE)
    gain = np.ones_like(z)
    for above, below in (_SHELF, _HIGH_PASS):
        gain *= np.polyval(above[::-1], z) / np.polyval(below[::-1], z)
    weights: Floats = np.abs(gain) ** 2
    return weights


def levelled(pcm: bytes, lufs: float) -> bytes:
    """Sound whose voice has that loudness, at PLAYED_LUFS, or as near as its peaks allow.

    A louder voice is preferred for its loudness alone.
    """
    samples = np.frombuffer(pcm, "<i2").astype(np.float64)
    peak = float(np.abs(samples).max(initial=0.0))
    if not peak or lufs <= ABSOLUTE_GATE_LUFS:
        return pcm
    gain = min(10 ** ((PLAYED_LUFS - lufs) / 20), 32767 / peak)
    return bytes(np.round(samples * gain).astype("<i2").data)


def pauses_ms(pcm: bytes) -> tuple[float, list[float]]:
    """The time from the first to the last sound, and the pauses of MIN_PAUSE_MS and more in it."""
    samples = np.frombuffer(pcm, "<i2").astype(np.float64)
    size = RATE * FRAME_MS // 1000
    frames = samples[: samples.size // size * size].reshape(-1, size)
    level = np.sqrt(np.mean(frames**2, axis=1)) if frames.size else np.zeros(0)
    loudest = float(level.max(initial=0.0))
    sounds = (
        np.flatnonzero(level > loudest * 10 ** (PAUSE_DB / 20)) if loudest else np.zeros(0, int)
    )
    if not sounds.size:
        return 0.0, []
    gaps = (np.diff(sounds) - 1) * FRAME_MS
    found = [float(gap) for gap in gaps if gap >= MIN_PAUSE_MS]
    return float((sounds[-1] - sounds[0] + 1) * FRAME_MS), found


def measured(
    pcm: bytes,
    words: int,
    *,
    first_chunk_s: float,
    work_s: float,
    word_error_rate: float | None = None,
    nano_usd: int = 0,
) -> VoiceMeasures:
    """The measures of one clip. words: that are spoken. work_s: to make all of it."""
    seconds = len(pcm) / 2 / RATE
    spoken_ms, pauses = pauses_ms(pcm)
    minutes = seconds / 60
    return VoiceMeasures(
        seconds=seconds,
        words_per_minute=words / (spoken_ms / 60_000) if spoken_ms else 0.0,
        lufs=loudness_lufs(pcm),
        pause_share=sum(pauses) / spoken_ms if spoken_ms else 0.0,
        longest_pause_ms=max(pauses, default=0.0),
        first_chunk_ms=first_chunk_s * 1000,
        realtime_factor=work_s / seconds if seconds else 0.0,
        word_error_rate=word_error_rate,
        usd_per_minute=nano_usd / 1e9 / minutes if minutes else 0.0,
    )


def mean_of(clips: list[VoiceMeasures]) -> VoiceMeasures:
    """The means of several clips; of seconds the sum, of pauses the longest."""

    def mean(name: str) -> float:
        return float(np.mean([getattr(clip, name) for clip in clips]))

    rates = [clip.word_error_rate for clip in clips if clip.word_error_rate is not None]
    return VoiceMeasures(
        seconds=sum(clip.seconds for clip in clips),
        words_per_minute=mean("words_per_minute"),
        lufs=mean("lufs"),
        pause_share=mean("pause_share"),
        longest_pause_ms=max(clip.longest_pause_ms for clip in clips),
        first_chunk_ms=mean("first_chunk_ms"),
        realtime_factor=mean("realtime_factor"),
        word_error_rate=float(np.mean(rates)) if rates else None,
        usd_per_minute=mean("usd_per_minute"),
    )
