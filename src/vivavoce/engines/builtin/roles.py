"""What a string of a function is for: a place, a person, a day, a text to be passed on."""

from vivavoce.engines.builtin.tools import Param
from vivavoce.engines.builtin.words import word_set

_PLACES = word_set(
    "location city plac town country destination origin address where region area locat timezon"
)
_PEOPLE = word_set(
    "recipient contact person who guest attend attendee friend nam to caller customer"
)
_TEXTS = word_set("messag text content body not query question prompt descript task memo")
DAYS = word_set("dat day when datetim deadlin due start")
_TIMES = word_set("tim hour when at start datetim")


def role_of(param: Param) -> str:
    """What a string is for, by its format, its name, or what is said about it."""
    if param.format == "email" or "email" in param.words:
        return "format"
    if param.format in ("date", "date-time", "time"):
        return "time" if param.format != "date" else "day"
    words = set(param.words)
    travels = words != {"to"} or bool(set(param.hint) & _PLACES)
    if travels and words & {"origin", "from"}:
        return "origin"
    if travels and words & {"destination", "to"} and "recipient" not in words:
        return "destination"
    for role, group in (
        ("place", _PLACES),
        ("text", _TEXTS),
        ("time", _TIMES),
        ("day", DAYS),
        ("person", _PEOPLE),
    ):
        if words & group and not (role == "person" and len(words) > 1):
            return role
    return "place" if set(param.hint) & _PLACES - {"where", "area"} else "other"


def named(text: str, role: str) -> str:
    """Proper nouns get the capitals that a recogniser does not give."""
    if role not in ("place", "person", "origin", "destination") or not text.islower():
        return text
    small = {"of", "the", "de", "and", "la", "upon"}
    return " ".join(w if w in small and i else w.capitalize() for i, w in enumerate(text.split()))
