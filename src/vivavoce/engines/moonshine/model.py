"""Greedy decoding of Moonshine with onnxruntime. Synchronous; runs in a worker process.

Moonshine: Jeffries et al. 2024, "Moonshine: Speech Recognition for Live Transcription and Voice
Commands". An encoder over the raw samples, and a decoder with a cache of keys and values.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from vivavoce.engines.worker import onnx_options

RATE = 16_000
FILES = ("encoder_model.ort", "decoder_model_merged.ort", "tokenizer.bin")
START_TOKEN, END_TOKEN = 1, 2
MAX_TOKENS_PER_SECOND = 6.5
"""More than people speak: it stops a decoder that repeats itself."""
SPARE_TOKENS = 6
MIN_SAMPLES = RATE // 4
"""Shorter audio is padded: the convolutions need some."""
WORD_START = "\u2581".encode()

Samples = NDArray[np.float32]


class Decoded(NamedTuple):
    """Tokens and the natural logarithm of the probability of each, that of the end included."""

    tokens: tuple[int, ...]
    log_probabilities: tuple[float, ...]


NOTHING = Decoded((), ())


class MoonshineModel:
    """The sessions of one process."""

    def __init__(self, folder: Path, threads: int) -> None:
        options = onnx_options(threads)
        self._encoder, self._decoder = (
            onnxruntime.InferenceSession(
                str(folder / name), options, providers=["CPUExecutionProvider"]
            )
            for name in FILES[:2]
        )
        self._encoder_inputs = {given.name for given in self._encoder.get_inputs()}
        self._decoder_inputs = {given.name for given in self._decoder.get_inputs()}
        self._outputs = [made.name for made in self._decoder.get_outputs()]
        self._empty = {
            given.name: np.zeros((1, given.shape[1], 0, given.shape[3]), np.float32)
            for given in self._decoder.get_inputs()
            if given.name.startswith("past_key_values")
        }
        self._vocabulary = tuple(vocabulary((folder / FILES[2]).read_bytes()))

    def decode(self, samples: Samples, prefix: Decoded = NOTHING) -> Iterator[Decoded | None]:
        """Decode samples [n], -1..1; the tokens begin with those of `prefix`. Yields None while it
        works, so that other streams have their turn, and the result once, last."""
        audio = np.pad(samples, (0, max(0, MIN_SAMPLES - len(samples))))[None]
        mask = np.ones(audio.shape, np.int64)
        feed = {"input_values": audio, "attention_mask": mask}
        states = self._encoder.run(
            None, {name: feed[name] for name in feed if name in self._encoder_inputs}
        )[0]
        yield None
        cache = dict(self._empty)
        tokens = list(prefix.tokens)
        scores = list(prefix.log_probabilities)
        fed = [START_TOKEN, *tokens]
        limit = len(tokens) + SPARE_TOKENS + int(len(samples) / RATE * MAX_TOKENS_PER_SECOND)
        for step in range(limit):
            feed = {
                "input_ids": np.array([fed], np.int64),
                "encoder_hidden_states": states,
                "encoder_attention_mask": mask,
                "use_cache_branch": np.array([step > 0]),
            }
            feed = {name: feed[name] for name in feed if name in self._decoder_inputs} | cache
            made = dict(zip(self._outputs, self._decoder.run(None, feed), strict=True))
            logits = made["logits"][0, -1]
            best = int(logits.argmax())
            scores.append(-float(np.log(np.exp(logits - logits[best]).sum())))
            if best == END_TOKEN:
                break
            tokens.append(best)
            fed = [best]
            for name, value in made.items():
                if name.startswith("present") and (step == 0 or ".decoder." in name):
                    cache["past_key_values" + name.removeprefix("present")] = value
            if step % 8 == 7:
                yield None
        yield Decoded(tuple(tokens), tuple(scores))

    def text(self, tokens: tuple[int, ...]) -> str:
        """The text of tokens, without spaces at its ends."""
        data = b"".join(self._piece(token) for token in tokens)
        return data.decode("utf-8", "ignore").replace("\u2581", " ").strip()

    def word_scores(self, result: Decoded) -> list[float]:
        """The log probability of each word of the text; empty where tokens are not whole words."""
        groups: list[list[int]] = []
        for i, token in enumerate(result.tokens):
            if self.begins_word(token) or not groups:
                groups.append([])
            groups[-1].append(i)
        scored = [
            (word, sum(result.log_probabilities[i] for i in group))
            for group in groups
            if (word := self.text(tuple(result.tokens[i] for i in group)))
        ]
        if [word for word, _ in scored] != self.text(result.tokens).split():
            return []
        return [score for _, score in scored]

    def begins_word(self, token: int) -> bool:
        return self._vocabulary[token].startswith(WORD_START)

    def _piece(self, token: int) -> bytes:
        piece = self._vocabulary[token]
        return bytes([int(piece[3:5], 16)]) if piece.startswith(b"<0x") else piece


def vocabulary(data: bytes) -> Iterator[bytes]:
    """Tokens with their length before them: one byte, or two where the first is 128 or more."""
    at = 0
    while at < len(data):
        length = data[at]
        at += 1
        if length >= 128:
            length += 128 * (data[at] - 1)
            at += 1
        yield data[at : at + length]
        at += length
