from typing import Any

import pytest

from vivavoce.engines.builtin.tools import ENOUGH, is_kind, read_tool, score, spoken_stems
from vivavoce.protocol.items import FunctionTool


@pytest.mark.parametrize(
    ("schema", "kind"),
    [
        ({"type": "integer"}, "integer"),
        ({"type": ["null", "number"]}, "number"),
        ({"anyOf": [{"type": "null"}, {"type": "boolean"}]}, "boolean"),
        ({"properties": {}}, "object"),
        ({"items": {}}, "array"),
        ({"$ref": "#/$defs/flag"}, "boolean"),
        ({"$ref": "#/$defs/loop"}, "string"),
        ({"type": 7}, "string"),
        (True, "string"),
    ],
)
def test_the_kind_of_a_value(schema: Any, kind: str) -> None:
    definitions = {"flag": {"type": "boolean"}, "loop": {"$ref": "#/$defs/loop"}}
    declared = FunctionTool(
        name="t", parameters={"properties": {"x": schema}, "$defs": definitions}
    )
    assert [p.kind for p in read_tool(declared).params] == [kind]


def test_a_huge_schema_is_read_in_part_but_keeps_its_required_keys() -> None:
    inner: dict[str, Any] = {"type": "string"}
    for _ in range(6):
        inner = {"type": "object", "properties": {f"f{i}": inner for i in range(60)}}
    declared = FunctionTool(name="t", parameters={**inner, "required": ["f59", "other"]})
    names = [p.name for p in read_tool(declared).params if p.required]
    assert names == ["f59", "other"]


@pytest.mark.parametrize(
    ("name", "about", "words", "asked"),
    [
        ("get_weather", "", "the weather please", True),
        ("getWeather", "", "is it raining", True),
        ("lookup", "Tells the weather forecast", "weather forecast", True),
        ("get_weather", "", "get me a coffee", False),
        ("set_timer", "", "what time is it", False),
        ("turn_on_light", "", "turn off the light", False),
        ("create_reminder", "", "remind me", True),
    ],
)
def test_which_words_ask_for_a_function(name: str, about: str, words: str, asked: bool) -> None:
    tool = read_tool(FunctionTool(name=name, description=about))
    assert (score(tool, spoken_stems(words.split())) >= ENOUGH) is asked


@pytest.mark.parametrize(
    ("value", "kind", "verdict"),
    [(True, "integer", False), (1, "number", True), (1.5, "integer", False), (None, "null", True)],
)
def test_json_types(value: Any, kind: str, verdict: bool) -> None:
    assert is_kind(value, kind) is verdict
