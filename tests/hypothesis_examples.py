"""How many examples a property test tries, by the Hypothesis profile in force."""

from hypothesis import settings

FULL = 100


def examples(count: int) -> int:
    """`count` with the full profile, a tenth of it with the quick one, and 3 at least."""
    return max(3, count * settings().max_examples // FULL)
