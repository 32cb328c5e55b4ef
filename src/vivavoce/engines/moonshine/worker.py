"""The process that recognises. It is a process so that the decoding loop never holds up the server:
several utterances decode in turns of some tens of milliseconds."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from vivavoce.engines.moonshine.model import RATE, MoonshineModel
from vivavoce.engines.moonshine.utterance import Utterance
from vivavoce.engines.worker import WorkerStream


class MoonshineOptions(msgspec.Struct, frozen=True):
    """What a process is built from."""

    folder: str
    threads: int


class MoonshineWorker:
    """One model, shared by the utterances of the process."""

    Options = MoonshineOptions

    def __init__(self, options: MoonshineOptions) -> None:
        self._model = MoonshineModel(Path(options.folder), options.threads)
        for _ in self._model.decode(np.zeros(RATE, np.float32)):  # the first call is slow
            pass

    def serve(self, request: object, stream: WorkerStream) -> Iterator[int]:
        return Utterance(self._model).serve(stream)
