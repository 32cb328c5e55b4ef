"""The engines of bench.turns_replay: they read a sound once, and are charged for what they need."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

import msgspec
import numpy as np

from bench.turns import ANSWER
from vivavoce.audio.formats import RATE
from vivavoce.audio.resample import Resampler, resample
from vivavoce.audio.windows import WindowResampler
from vivavoce.engines import registry
from vivavoce.engines.base import TTS, Mark
from vivavoce.engines.moonshine.model import NOTHING, Decoded, MoonshineModel, Samples
from vivavoce.engines.moonshine.utterance import Utterance
from vivavoce.engines.packs import weights_folder
from vivavoce.engines.silero.vad import SileroSettings, SileroVAD
from vivavoce.engines.turn.smart_turn_worker import SmartTurnOptions, SmartTurnWorker
from vivavoce.engines.worker import Hypothesis, StreamOutput, WorkerStream
from vivavoce.session.cascade.turn_detection import WINDOW
from vivavoce.session.facts import SpokenWord

ENCODER_S, ENCODER_S_PER_S, TOKEN_S = 0.004, 0.018, 0.0055
"""What Moonshine takes: the encoder, more for each second of sound, and each token."""
Answer = tuple[bytes, tuple[SpokenWord, ...]]


class MeteredModel:
    """Moonshine that decodes no sound twice, and counts the time that it would need."""

    def __init__(self, model: MoonshineModel) -> None:
        self.spent = 0.0
        self.known: dict[tuple[bytes, tuple[int, ...]], Decoded] = {}
        self.text = model.text
        self.begins_word = model.begins_word
        self.word_scores = model.word_scores
        self._model = model

    def decode(self, samples: Samples, prefix: Decoded = NOTHING) -> Iterator[Decoded | None]:
        key = (samples.tobytes(), prefix.tokens)
        if key not in self.known:
            *_, made = self._model.decode(samples, prefix)
            assert made is not None
            self.known[key] = made
        made = self.known[key]
        self.spent += ENCODER_S + ENCODER_S_PER_S * len(samples) / 16_000
        yield None
        for n in range(len(made.tokens) - len(prefix.tokens) + 1):
            self.spent += TOKEN_S
            if n % 8 == 7:
                yield None
        yield made


@dataclass
class Engines:
    """What reads the sound, and the answer that is spoken."""

    stt: MeteredModel
    vad: SileroVAD
    turn: SmartTurnWorker
    answer: Sequence[Answer]
    sounds: dict[bytes, float] = field(default_factory=dict)
    """What smart-turn says."""

    def sound_score(self, pcm: bytes) -> float:
        if pcm not in self.sounds:
            (message,) = _messages(self.turn, pcm)
            self.sounds[pcm] = msgspec.msgpack.decode(message, type=float)
        return self.sounds[pcm]


def _messages(worker: SmartTurnWorker, pcm: bytes) -> list[msgspec.Raw]:
    made: list[msgspec.Raw] = []
    stream = WorkerStream(0, lambda frame: made.append(frame.message))  # type: ignore[union-attr]
    for _ in worker.serve(pcm, stream):
        pass
    return made


async def engines() -> Engines:
    """Raises EngineError, SettingsError: there are no weights."""
    moonshine = MoonshineModel(weights_folder("moonshine-tiny-en"), 1)
    vad = await SileroVAD(SileroSettings()).__aenter__()
    path = weights_folder("smart-turn-v3") / "smart-turn.onnx"
    return Engines(
        MeteredModel(moonshine),
        vad,
        SmartTurnWorker(SmartTurnOptions(str(path), 1)),
        await _answer(),
    )


async def _answer() -> list[Answer]:
    """ANSWER as espeak says it: PCM and words, sentence by sentence."""
    tts: TTS
    made: list[Answer] = []
    samples = 0
    async with registry.create("tts", "espeak", {}) as tts:
        for sentence in ANSWER.strip().split(". "):
            text = sentence.rstrip(".") + ". "
            pcm = b""
            marks: list[Mark] = []
            pieces = tts.synthesize(
                text, voice=tts.default_voice, speed=1.0, language="en", instructions=""
            )
            async with aclosing(pieces):
                async for piece in pieces:
                    pcm += piece.audio
                    marks += piece.marks
            pcm = resample(pcm, tts.sample_rate, RATE)
            words = (
                SpokenWord(
                    text[mark.start : mark.end].strip() + " ",
                    samples + mark.at * RATE // tts.sample_rate,
                )
                for mark in marks
            )
            made.append((pcm, tuple(words)))
            samples += len(pcm) // 2
    return made


class VadReader:
    """The voice activity of one stream."""

    def __init__(self, vad: SileroVAD) -> None:
        self._vad = vad
        self._convert = WindowResampler(RATE, vad.sample_rate, WINDOW)
        self._stream = np.array([vad.open()])
        self._before = bytes(2 * self._convert.history)

    def read(self, pcm: bytes) -> tuple[float, ...]:
        """Of each window of PCM."""
        made = []
        for at in range(0, len(pcm), 2 * WINDOW):
            sound = self._before + pcm[at : at + 2 * WINDOW]
            self._before = sound[2 * WINDOW :]
            windows = self._convert(np.frombuffer(sound, "<i2")[None])
            made.append(float(self._vad.score(windows, self._stream)[0]))
        return tuple(made)


class Recogniser:
    """One stream of Moonshine's worker in virtual time."""

    def __init__(
        self, engine: MeteredModel, at: Callable[[float, Callable[[], None]], None]
    ) -> None:
        self._engine = engine
        self._at = at
        self._resampler = Resampler(RATE, 16_000)
        self._made: list[Hypothesis] = []
        self._stream = WorkerStream(0, self._report)
        self._turns = Utterance(engine).serve(self._stream)  # type: ignore[arg-type]
        self._needed = 0
        self._busy = False
        self._over = False
        self.post: Callable[[Hypothesis], None] = lambda _: None

    def feed(self, pcm: bytes) -> None:
        self._stream.add_input(self._resampler.feed(pcm))
        self.work()

    def finish(self) -> None:
        self._stream.add_input(self._resampler.flush())
        self._stream.ended = True
        self.work()

    def work(self) -> None:
        """Go on as far as there is sound, until a turn of work takes time."""
        while not self._busy and not self._over:
            if not self._stream.ended and self._stream.queued < self._needed:
                return
            self._engine.spent = 0.0
            try:
                self._needed = next(self._turns)
            except StopIteration:
                self._over = True
            self._busy = True
            self._at(self._engine.spent, self._done(self._made))
            self._made = []

    def _done(self, made: list[Hypothesis]) -> Callable[[], None]:
        def done() -> None:
            self._busy = False
            for each in made:
                self.post(each)
            self.work()

        return done

    def _report(self, frame: object) -> None:
        if isinstance(frame, StreamOutput):
            self._made.append(msgspec.msgpack.decode(frame.message, type=Hypothesis))
