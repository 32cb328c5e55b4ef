"""A language model that is asked whether a turn is over."""

import asyncio
from typing import Any

import pytest

from tests.runtime.stage import ScriptedEngines
from vivavoce.runtime.tasks import Tasks
from vivavoce.runtime.turn_scoring import UNDECIDED, TurnScorer
from vivavoce.session.effects import ScoreTurn
from vivavoce.session.facts import TokenCounts, TurnScored
from vivavoce.testing.virtual_time import run

ORDER = ScoreTurn("item_1", "give me a", "en", llm_timeout_s=0.5, before="What do you want?")


def scored(answer: dict[str, Any]) -> dict[str, tuple[float, TurnScored]]:
    """The scores by their source, with the seconds they took."""
    found: dict[str, tuple[float, TurnScored]] = {}

    async def main() -> None:
        clock = asyncio.get_running_loop().time
        cascade = ScriptedEngines(turn={"default": 0.3}, llm={"answers": [answer]}).cascade

        def take(fact: TurnScored) -> None:
            found[fact.source] = (clock(), fact)

        def fail(exc: Exception) -> None:
            raise exc

        async with asyncio.TaskGroup() as group:
            TurnScorer(cascade, Tasks(group, fail, lambda: None), take).score(ORDER)

    run(main())
    return found


@pytest.mark.parametrize(
    ("said", "likelihood"),
    [
        ("Yes.", 0.9),
        (" no", 0.1),
        ("No!", 0.1),
        ("I think so", UNDECIDED),
        ("yes or no", UNDECIDED),
    ],
)
def test_language_model_says_yes_or_no(said: str, likelihood: float) -> None:
    usage = {"input_tokens": 9, "output_tokens": 1}
    found = scored({"text": said, "usage": usage})
    assert found["words"][1] == TurnScored("item_1", 0.3)
    assert found["llm"][1] == TurnScored("item_1", likelihood, "llm", TokenCounts(9, 1))


def test_language_model_that_is_late_or_fails_changes_nothing() -> None:
    for answer in ({"text": "no", "first_token_seconds": 0.9}, {"text": "no", "error": "broken"}):
        at, fact = scored(answer)["llm"]
        assert fact == TurnScored("item_1", UNDECIDED, "llm")
        assert at <= 0.5
