"""Recorded calls, run again: `vivavoce replay`, and the tests that it writes."""

from vivavoce.errors import RecordingError
from vivavoce.replay.report import differences, measures, timeline
from vivavoce.replay.session import ReplayedCall, replayed_exactly
from vivavoce.replay.simulation import ReplayChanges, simulated
from vivavoce.telemetry.recording import CallRecording, read_recording

__all__ = [
    "CallRecording",
    "RecordingError",
    "ReplayChanges",
    "ReplayedCall",
    "differences",
    "measures",
    "read_recording",
    "replayed",
    "replayed_exactly",
    "simulated",
    "timeline",
]


def replayed(recording: CallRecording, changes: ReplayChanges | None = None) -> ReplayedCall:
    """Run a call again: exactly, where that gives the recorded effects; else simulated.

    Raises RecordingError.
    """
    if changes is None or not changes.any:
        exact = replayed_exactly(recording)
        if exact.mismatch is None:
            return exact
        call = simulated(recording)
        call.mismatch = exact.mismatch
        return call
    return simulated(recording, changes)
