"""Speech to text with PocketSphinx: English, on this machine, without weights to fetch.

Words are plain and lower-case, as the pronouncing dictionary has them, without punctuation. It
knows US English only: another `language` is decoded as English all the same, and `prompt` is not
used. Short commands come out right, dictation only partly.

The decoder lives in processes of its own and is never imported here, so the server starts fast.
"""

import importlib.util
import os

import msgspec

from vivavoce.engines.base import Capabilities
from vivavoce.engines.host import WorkerHost
from vivavoce.engines.hosted import AtLeastOne, HostedSettings, HostedSTT
from vivavoce.engines.worker import Hypothesis

if importlib.util.find_spec("pocketsphinx") is None:
    raise ModuleNotFoundError("No module named 'pocketsphinx'", name="pocketsphinx")

MAX_DEFAULT_WORKERS = 8


def spare_cores() -> int:
    """Processes that leave a core to the server; no more than eight, of 100 MB each."""
    return max(1, min((os.cpu_count() or 2) - 1, MAX_DEFAULT_WORKERS))


class PocketsphinxSettings(HostedSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[engines.stt.pocketsphinx]`."""

    workers: AtLeastOne = msgspec.field(default_factory=spare_cores)
    """Processes. Each takes some 100 MB and keeps at most one core busy."""
    streams_per_worker: AtLeastOne = 4
    """Utterances that a process decodes at the same time; each after the first takes 60 MB."""


class PocketsphinxSTT(HostedSTT):
    Settings = PocketsphinxSettings
    capabilities = Capabilities(
        languages=("en",),
        word_times="exact",
        licence="BSD-2-Clause",
        extra="local",
        models="US-English model of CMU, 40 MB, carried by the package pocketsphinx",
    )
    sample_rate = 16_000
    name = "stt.pocketsphinx"

    def __init__(self, settings: PocketsphinxSettings) -> None:
        self._settings = settings

    async def make_host(self) -> WorkerHost[Hypothesis]:
        worker = "vivavoce.engines.pocketsphinx.worker:PocketsphinxWorker"
        return self.host_for(worker, self._settings)
