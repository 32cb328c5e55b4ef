"""Looking for the most that is carried."""

from collections.abc import Awaitable, Callable


async def most_carried(
    carried: Callable[[int], Awaitable[bool]], *, first: int, step: int, most: int
) -> int:
    """The largest number that is carried, by bisection, to within `step`; `first` is tried first.

    0 where nothing is; nothing beyond `most` is tried.
    """
    low, high = 0, first
    while await carried(high):
        low, high = high, high + max(step, high // 3)
        if high > most:
            return low
    while high - low > step:
        middle = (low + high) // 2
        if await carried(middle):
            low = middle
        else:
            high = middle
    return low
