from datetime import date, datetime, time

import pytest

from vivavoce.engines.builtin.dates import answer, find_day, find_time, say_time, say_year
from vivavoce.engines.builtin.words import Utterance

NOW = datetime(2026, 11, 21, 15, 45)  # a Saturday


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("what time is it", "It is three forty-five in the afternoon."),
        ("what's the time please", "It is three forty-five in the afternoon."),
        ("what's the date", "Today is Saturday, the twenty-first of November, twenty twenty-six."),
        ("what day is it tomorrow", "Tomorrow will be Sunday, the twenty-second of November, twenty"
         " twenty-six."),
        ("which weekday was yesterday", "Yesterday was Friday."),
        ("what year is it", "It is the year twenty twenty-six."),
        ("which month is it", "It is November."),
        ("how many days until christmas", "There are thirty-four days until Christmas."),
        ("what time is it in tokyo", "I only know the time here, not in tokyo. Here it is three"
         " forty-five in the afternoon."),
        ("what a lovely cat", None),
    ],
)  # fmt: skip
def test_time_and_date_are_told(text: str, said: str | None) -> None:
    assert answer(Utterance.of(text), NOW) == said


@pytest.mark.parametrize(
    ("clock", "said"),
    [
        (time(0, 0), "midnight"),
        (time(12, 0), "twelve noon"),
        (time(0, 5), "twelve oh five at night"),
        (time(9, 0), "nine o'clock in the morning"),
        (time(18, 30), "six thirty in the evening"),
    ],
)
def test_times_are_said(clock: time, said: str) -> None:
    assert say_time(clock) == said


@pytest.mark.parametrize(
    ("year", "said"),
    [(1999, "nineteen ninety-nine"), (2005, "two thousand five"), (1900, "nineteen hundred")],
)
def test_years_are_said(year: int, said: str) -> None:
    assert say_year(year) == said


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("call me tomorrow", (2, 3, date(2026, 11, 22))),
        ("on next friday", (1, 3, date(2026, 11, 27))),
        ("on the fifth of march", (1, 5, date(2027, 3, 5))),
        ("december twenty fourth", (0, 3, date(2026, 12, 24))),
        ("in three weeks", (0, 3, date(2026, 12, 12))),
        ("february thirty", None),
        ("some day", None),
    ],
)
def test_days_are_found(text: str, found: tuple[int, int, date] | None) -> None:
    assert find_day(text.split(), NOW.date()) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("at five pm", (1, 3, time(17))),
        ("at seven thirty", (1, 3, time(7, 30))),
        ("at half past six", (1, 4, time(6, 30))),
        ("17:05", (0, 1, time(17, 5))),
        ("twelve a m", (0, 3, time(0))),
        ("noon", (0, 1, time(12))),
        ("five apples", None),
    ],
)
def test_times_are_found(text: str, found: tuple[int, int, time] | None) -> None:
    assert find_time(text.split()) == found
