"""Writes a pytest file that holds the fault of a recorded call."""

import keyword
import re
from pathlib import Path

from msgspec.structs import replace

from vivavoce.errors import RecordingError
from vivavoce.replay.report import fault_text
from vivavoce.replay.session import ReplayedCall
from vivavoce.telemetry.recording import CallRecording, encode_lines

FAULT_TEST = '''"""Made by `vivavoce replay` of the call {call}: {fault}.

It fails while the call goes wrong, and passes when it does not.
"""

from pathlib import Path

from vivavoce.replay import read_recording, replayed

RECORDING = Path(__file__).with_name({file!r})


def test_{name}_has_no_{kind}() -> None:
    call = replayed(read_recording(RECORDING))
    assert [fault for fault in call.faults if fault.kind == {kind!r}] == []
'''
SAME_TEST = '''"""Made by `vivavoce replay` of the call {call}, in which nothing goes wrong.

It fails when the session does something else than it did.
"""

from pathlib import Path

from vivavoce.replay import read_recording, replayed

RECORDING = Path(__file__).with_name({file!r})


def test_{name}_has_the_recorded_effects() -> None:
    assert replayed(read_recording(RECORDING)).mismatch is None
'''


def write_test(recording: CallRecording, call: ReplayedCall, path: Path) -> tuple[Path, Path]:
    """Write the test, and the recording up to its fault beside it. Raises RecordingError."""
    header = recording.header
    name = re.sub(r"\W", "_", path.stem.removeprefix("test_")).lower() or "call"
    if name[0].isdigit() or keyword.iskeyword(name):
        name = f"call_{name}"
    file = path.with_suffix(".jsonl")
    faults = [*recording.faults, *call.faults]
    if faults:
        first = min(faults, key=lambda fault: fault.at)
        fault = " ".join(fault_text(first, header.now).split())
        fault = fault.replace("\\", "/").replace('"""', "'")
        text = FAULT_TEST.format(
            call=header.id, fault=fault[:200], file=file.name, name=name, kind=first.kind
        )
        kept = tuple(entry for entry in recording.entries if entry.at <= first.at)
        recording = replace(recording, entries=kept)
    else:
        text = SAME_TEST.format(call=header.id, file=file.name, name=name)
    try:
        path.write_text(text, encoding="utf-8")
        file.write_bytes(b"".join(encode_lines(recording)))
    except OSError as exc:
        raise RecordingError(f"--to-test {path} cannot be written: {exc.strerror}") from exc
    return path, file
