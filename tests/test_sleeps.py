"""Tests wait for events, in virtual time or by an idle clock; a real sleep has a reason."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent
REAL = {
    "clients/test_voxray_guide.py": "a client sends speech in real time",
    "engines/espeak/test_tts.py": "polls for the end of a process",
    "engines/openai/test_tts.py": "chunks of HTTP must not be joined on their way",
    "engines/test_host.py": "polls for processes, and outwaits their time limits",
    "engines/workers.py": "hangs and spins on purpose",
    "fake_upstream.py": "an answer pauses where a test wants it to",
    "console/test_recording.py": "an answer is heard for a while before it is interrupted",
    "server.py": "polls a store that another process writes",
    "telemetry/test_metering.py": "a process dies at a random moment",
    "test_deploy.py": "polls proxies",
    "test_reloading.py": "polls the log of a signal, and for the end of processes",
    "transports/webrtc/caller.py": "polls what the server keeps to itself",
    "workers/stage.py": "polls what other processes do",
}
"""Why a file sleeps in real time; the others run their sleeps in virtual time."""


def names(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Module and name of each `from module import name`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield from ((node.module or "", alias.name) for alias in node.names)


def is_virtual(tree: ast.Module) -> bool:
    """Whether the time of a loop that does not count computing is imported."""
    return any(
        (
            module.startswith("vivavoce.testing")
            and name in {"run", "virtual_time", "VirtualTimeLoop"}
        )
        or (module, name) in {("tests", "idle_clock"), ("tests.idle_clock", "run")}
        for module, name in names(tree)
    )


def sleeps(tree: ast.Module) -> bool:
    """Whether anything sleeps for more than a turn of the loop."""
    return any(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "sleep"
        and not (isinstance(node.args[0], ast.Constant) and node.args[0].value == 0)
        for node in ast.walk(tree)
    )


def test_sleep_in_real_time_has_a_reason() -> None:
    paths = [path for path in ROOT.rglob("*.py") if "node_modules" not in path.parts]
    trees = {str(path.relative_to(ROOT)): ast.parse(path.read_text("utf-8")) for path in paths}
    assert {name for name, tree in trees.items() if sleeps(tree) and not is_virtual(tree)} == {
        *REAL
    }
