"""Unit tests of the console's modules in node: what needs no browser."""

import shutil
import subprocess
from pathlib import Path

import pytest

from vivavoce.api.public import CONSOLE

NODE = shutil.which("node")
TESTS = Path(__file__).parent / "node"
TIMEOUT_S = 120


@pytest.mark.skipif(NODE is None, reason="no node is installed here")
@pytest.mark.parametrize("path", sorted(TESTS.glob("*.test.js")), ids=lambda path: path.name)
def test_module_without_a_browser(path: Path, tmp_path: Path) -> None:
    assert NODE
    shutil.copytree(CONSOLE, tmp_path / "console")
    shutil.copy(path, tmp_path)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    done = subprocess.run(
        [NODE, "--test", path.name],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout
