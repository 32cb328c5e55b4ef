"""Scenario files: what is read, and what is refused."""

from pathlib import Path

import pytest

from vivavoce.errors import SettingsError
from vivavoce.scenarios.files import read_scenario

FLOWS = sorted((Path(__file__).parents[2] / "examples" / "flows").glob("*.toml"))


@pytest.mark.parametrize("path", FLOWS, ids=lambda path: path.stem)
def test_example_flow_is_read(path: Path) -> None:
    scenario = read_scenario(path)
    assert scenario.about
    assert scenario.steps


def test_step_waits_unless_the_next_one_interrupts_it(tmp_path: Path) -> None:
    path = tmp_path / "flow.toml"
    path.write_text(
        """
        [[steps]]
        says = "Tell me a story."
        [[steps]]
        says = "Stop."
        interrupts_after_ms = 500
        [[steps]]
        silence_ms = 900
        [[steps]]
        sends = {type = "response.create"}
        [[steps]]
        sends = {type = "input_audio_buffer.clear"}
        [[steps]]
        types = "Hello."
        waits = false
        """
    )
    scenario = read_scenario(path)
    waits = [scenario.waits(place) for place in range(len(scenario.steps))]
    assert waits == [False, True, False, True, False, False]
    assert scenario.name == "flow"
    assert [step.text for step in scenario.steps[2:4]] == [
        "(silent for 900 ms)",
        "response.create",
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", r"has \[\[steps\]\], or a \[user\] with a goal"),
        ("[server]\nport = 1", r"is no scenario, which has \[\[steps\]\]"),
        ("[[steps]]", "this one has none"),
        ('[[steps]]\nsays = "a"\ntypes = "b"', "this one has says and types"),
        ('[[steps]]\nsays = "a"\ninterrupts_after = "b"', "no answer before it to interrupt"),
        ('[[steps]]\nsays = "a"\nsaid = "b"', r"unknown field `said` - at `\$\.steps\[0\]`"),
        ("= 1", "is not TOML"),
    ],
)
def test_scenario_with_a_mistake_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "flow.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=sentence):
        read_scenario(path)


def test_missing_scenario_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.toml cannot be read: No such file"):
        read_scenario(tmp_path / "none.toml")
