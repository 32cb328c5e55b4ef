"""Days and times: how they are said, and where an utterance names one. The time is an argument."""

import re
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta

from vivavoce.engines.builtin.numbers import ORDINALS, ordinal, parse, say_whole, word
from vivavoce.engines.builtin.words import Utterance, alike

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
MONTHS = (
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
)
_ELSEWHERE = re.compile(
    r"\btime .{0,30}?\b(?:in|at) (?!the (?:morning|moment)|now)([a-z]+(?: [a-z]+)?)"
)
_TIME = re.compile(
    r"\b(?:what(?: is)?(?: the)?(?: current)? (?:time|hour)|time is it|the time|what (?:time|hour)"
    r"|tell me (?:the )?time|current time|time please)\b"
)
_DAY_ASKED = re.compile(
    r"\b(?:what|which|tell|the|current)\b.{0,40}\b(?:date|day|weekday|month|year|today)\b"
)
_UNTIL = re.compile(r"\bhow (?:many days|long).{0,20}\b(?:until|till|to|before)\b (.{2,40})")
_FEASTS = {"christmas": (12, 25), "new year": (1, 1), "halloween": (10, 31), "valentine": (2, 14)}


def say_time(now: time | datetime) -> str:
    """`three forty-five in the afternoon`."""
    if now.minute == 0 and now.hour in (0, 12):
        return "twelve noon" if now.hour else "midnight"
    hour = say_whole((now.hour - 1) % 12 + 1)
    if now.minute == 0:
        clock = f"{hour} o'clock"
    elif now.minute < 10:
        clock = f"{hour} oh {say_whole(now.minute)}"
    else:
        clock = f"{hour} {say_whole(now.minute)}"
    if now.hour < 5 or now.hour >= 22:
        return f"{clock} at night"
    part = "morning" if now.hour < 12 else "afternoon" if now.hour < 18 else "evening"
    return f"{clock} in the {part}"


def say_date(day: date, *, year: bool = True) -> str:
    """`Saturday, the twenty-first of November, twenty twenty-six`."""
    text = f"{WEEKDAYS[day.weekday()].capitalize()}, the {ordinal(day.day)} of {_month(day)}"
    return f"{text}, {say_year(day.year)}" if year else text


def say_year(year: int) -> str:
    """`twenty twenty-six`, `two thousand five`."""
    century, rest = divmod(year, 100)
    if year >= 10000 or (century % 10 == 0 and rest < 10):
        return say_whole(year).replace(" and ", " ")
    if rest == 0:
        return f"{say_whole(century)} hundred"
    return f"{say_whole(century)} {'oh ' if rest < 10 else ''}{say_whole(rest)}"


def _month(day: date) -> str:
    return MONTHS[day.month - 1].capitalize()


def answer(said: Utterance, now: datetime) -> str | None:
    """Time, date, weekday, month, year, or the days until one; None: it was not asked."""
    if until := said.find(_UNTIL):
        return _days_until(Utterance.of(until), now.date())
    if _TIME.search(said.plain):
        place = said.find(_ELSEWHERE)
        if place is not None:
            return f"I only know the time here, not in {place}. Here it is {say_time(now)}."
        if not said.has("date", "day"):
            return f"It is {say_time(now)}."
        return f"It is {say_time(now)}, on {say_date(now.date())}."
    if not _DAY_ASKED.search(said.plain) or said.has("story", "about", "your"):
        return None
    day, when = now.date(), "Today"
    for name, shift in (("tomorrow", 1), ("yesterday", -1)):
        if said.has(name):
            day, when = day + timedelta(days=shift), name.capitalize()
    verb = "was" if when == "Yesterday" else "will be" if when == "Tomorrow" else "is"
    if said.has("month"):
        return f"It is {_month(day)}."
    if said.has("year"):
        return f"It is the year {say_year(day.year)}."
    if said.has("weekday"):
        return f"{when} {verb} {WEEKDAYS[day.weekday()].capitalize()}."
    if re.search(r"\b(?:date|day|today|tomorrow|yesterday)\b", said.plain):
        return f"{when} {verb} {say_date(day)}."
    return None


def _days_until(said: Utterance, today: date) -> str | None:
    for feast, (month, day) in _FEASTS.items():
        if feast in said.plain:
            goal = date(today.year, month, day)
            name = feast.title()
            break
    else:
        found = find_day(said.words, today)
        if found is None:
            return None
        goal = found[2]
        name = say_date(goal, year=False)
    if goal < today:
        goal = goal.replace(year=today.year + 1)
    days = (goal - today).days
    if days == 0:
        return f"{name} is today!"
    many = "is one day" if days == 1 else f"are {say_whole(days)} days"
    return f"There {many} until {name}."


def find_day(words: Sequence[str], today: date) -> tuple[int, int, date] | None:
    """Where the words name a day (start, end), and which."""
    for i, this in enumerate(words):
        if this in ("today", "tonight"):
            return i, i + 1, today
        if this in ("tomorrow", "yesterday"):
            shift = 1 if this == "tomorrow" else -1
            return i, i + 1, today + timedelta(days=shift)
        if this in WEEKDAYS:
            ahead = (WEEKDAYS.index(this) - today.weekday()) % 7 or 7
            start = i - (word(words, i - 1) in ("next", "this", "coming"))
            return start, i + 1, today + timedelta(days=ahead)
        if this in MONTHS and (found := _day_of_month(words, i, today)):
            return found
        if this == "in" and (number := parse(words, i + 1)) is not None:
            count, end = number
            unit = word(words, end)
            if unit in ("day", "days", "week", "weeks") and count.denominator == 1 and count < 3000:
                days = int(count) * (7 if unit.startswith("week") else 1)
                return i, end + 1, today + timedelta(days=days)
    return None


def _day_of_month(words: Sequence[str], i: int, today: date) -> tuple[int, int, date] | None:
    month = MONTHS.index(words[i]) + 1
    start, end = i, i + 1
    if (after := _ordinal(words, i + 1)) is not None:
        day, end = after
    else:
        start -= word(words, i - 1) == "of"
        for length in (2, 1):
            if (before := _ordinal(words, start - length)) and before[1] == start:
                day, start = before[0], start - length
                break
        else:
            return None
    start -= word(words, start - 1) == "the"
    for year in (today.year, today.year + 1):
        try:
            goal = date(year, month, day)
        except ValueError:
            continue
        if goal >= today:
            return start, end, goal
    return None


def _ordinal(words: Sequence[str], at: int) -> tuple[int, int] | None:
    if at < 0:
        return None
    pair = f"{word(words, at)} {word(words, at + 1)}"
    if pair in ORDINALS:
        return ORDINALS[pair], at + 2
    if word(words, at) in ORDINALS:
        return ORDINALS[words[at]], at + 1
    number = parse(words, at)
    if number is None or number[0].denominator != 1 or not 1 <= number[0] <= 31:
        return None
    end = number[1] + (word(words, number[1]) in ("st", "nd", "rd", "th"))
    return int(number[0]), end


def find_time(words: Sequence[str]) -> tuple[int, int, time] | None:
    """Where the words name a time of day (start, end), and which."""
    for i, this in enumerate(words):
        if this in ("noon", "midnight"):
            return i, i + 1, time(12 if this == "noon" else 0)
        hour_minute = _clock(words, i)
        if hour_minute is None:
            continue
        hour, minute, end, sure = hour_minute
        half = word(words, end).replace(".", "")
        if half in ("am", "pm"):
            end, sure = end + 1, True
        elif half in ("a", "p") and word(words, end + 1) == "m":
            end, sure, half = end + 2, True, half + "m"
        if word(words, end) in ("o'clock", "oclock"):
            end, sure = end + 1, True
        if not sure and word(words, i - 1) != "at":
            continue
        if half == "pm" and hour < 12:
            hour += 12
        if half == "am" and hour == 12:
            hour = 0
        return i, end, time(hour, minute)
    return None


def _clock(words: Sequence[str], i: int) -> tuple[int, int, int, bool] | None:
    """Hour, minute, end, and whether it cannot be another number."""
    if ":" in words[i]:
        parts = words[i].split(":")
        if all(p.isascii() and p.isdigit() and len(p) <= 2 for p in parts):
            hour, minute = int(parts[0]), int(parts[1])
            return (hour, minute, i + 1, True) if hour < 24 and minute < 60 else None
        return None
    if words[i] in ("half", "quarter") and word(words, i + 1) in ("past", "to"):
        found = parse(words, i + 2)
        if found is None or found[0].denominator != 1 or not 1 <= found[0] <= 23:
            return None
        past = 30 if words[i] == "half" else 15
        if words[i + 1] == "past":
            return int(found[0]), past, found[1], True
        return int(found[0]) - 1, 60 - past, found[1], True
    found = parse(words, i)
    if found is None or found[0].denominator != 1 or not 0 <= found[0] < 24:
        return None
    hour, end = int(found[0]), found[1]
    minutes = parse(words, end)
    if minutes is not None and minutes[0].denominator == 1 and 10 <= minutes[0] < 60:
        return hour, int(minutes[0]), minutes[1], False
    return hour, 0, end, False


def is_day_word(this: str) -> bool:
    """Whether a word names a day, so that it is no part of a place."""
    return this in WEEKDAYS or any(alike(this, d) for d in ("today", "tomorrow", "tonight"))
