import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.engines.builtin.results import tell


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (
            '{"temperature":21,"unit":"celsius","conditions":"sunny"}',
            "The temperature is twenty-one degrees Celsius and the conditions are sunny.",
        ),
        ('{"temp_c": -2.5}', "The temperature is minus two point five degrees Celsius."),
        ("**sunny**, 22°C \U0001f31e", "Sunny , 22 degrees Celsius."),
        ('{"error":"no such city"}', "That did not work: no such city."),
        ('{"ok":false,"reason":"busy"}', "That did not work: the reason is busy."),
        ('{"success":true}', "That is done."),
        ('{"result":"forty"}', "Forty."),
        ('{"items":[{"name":"milk"},{"name":"bread"}]}', "The items are milk and bread."),
        ('{"date":"2026-03-04"}', "The date is Wednesday, the fourth of March, twenty twenty-six."),
        ("[]", "There were no results."),
        ("", "That is done."),
        ("true", "Yes."),
        ("[1,2,3,4,5,6,7]", "One, two, three, four, five and two more."),
    ],
)
def test_outputs_become_sentences(output: str, said: str) -> None:
    assert tell(output) == said


def test_the_subject_of_the_call_is_named() -> None:
    assert tell('{"high": 3}', '{"location": "Oslo"}') == "For Oslo, the high is three."


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(JSON, st.text())
def test_any_output_can_be_told(value: object, text: str) -> None:
    assert tell(json.dumps(value), text)
    assert tell(text, json.dumps(value))
