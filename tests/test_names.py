"""One public class name has one meaning in the whole source."""

import ast
from collections import defaultdict
from pathlib import Path

import vivavoce

ROOT = Path(vivavoce.__file__).parent


def test_public_class_names_are_defined_once() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(str(path.relative_to(ROOT)))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}
