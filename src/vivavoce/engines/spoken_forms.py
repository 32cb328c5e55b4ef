"""Written forms as a person reads them aloud: money, units, dates, addresses, abbreviations.

Figures stay figures, since every synthesiser reads them in its language; what is changed is what
most of them read sign by sign: `$5.50` becomes "5 dollars and 50 cents", `me@x.org` "me at x dot
org". English, German, French, Spanish and Italian; of other languages the text stays as it is. The
result maps positions back, so the words that a session reports are those of the model.
"""

import re
from bisect import bisect_left
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple, TypeAlias

Read: TypeAlias = Callable[[str], str]


class SpokenForms(NamedTuple):
    """A text in which some spans were replaced."""

    text: str
    spans: tuple[tuple[int, int, int, int], ...]
    """Start and end in `text`, start and end in the original, of each replacement, in order."""

    def original_end(self, end: int) -> int:
        """Where what ends at text[end] ended in the original.

        What ends within a replacement ends with it: its words are one with the first of them.
        """
        at = bisect_left(self.spans, end, key=lambda span: span[0])
        if not at:
            return end
        _, last, _, until = self.spans[at - 1]
        return until + max(0, end - last)


class _Language(NamedTuple):
    """The words of one language."""

    at: str
    dot: str
    slash: str
    dash: str
    underscore: str
    to: str
    joined: str
    """Between dollars and cents."""
    percent: str
    months: str
    """Separated by spaces."""
    date: str
    """Of a day, a month and a year."""
    money: Mapping[str, tuple[str, str, str, str]]
    """One and many of a currency, one and many of its hundredth."""
    units: Mapping[str, tuple[str, str]]
    """One and many."""
    short: Mapping[str, str]
    """Abbreviations, with their full stops."""


_LANGUAGES: Mapping[str, _Language] = {
    "en": _Language(
        *("at", "dot", "slash", "dash", "underscore", "to", " and ", "percent"),
        "January February March April May June July August September October November December",
        "{month} {day}, {year}",
        {
            "$": ("dollar", "dollars", "cent", "cents"),
            "€": ("euro", "euros", "cent", "cents"),
            "£": ("pound", "pounds", "penny", "pence"),
            "¥": ("yen", "yen", "sen", "sen"),
        },
        {
            "km": ("kilometer", "kilometers"),
            "cm": ("centimeter", "centimeters"),
            "mm": ("millimeter", "millimeters"),
            "kg": ("kilogram", "kilograms"),
            "mg": ("milligram", "milligrams"),
            "ml": ("milliliter", "milliliters"),
            "km/h": ("kilometer per hour", "kilometers per hour"),
            "mph": ("mile per hour", "miles per hour"),
            "°C": ("degree Celsius", "degrees Celsius"),
            "°F": ("degree Fahrenheit", "degrees Fahrenheit"),
            "kWh": ("kilowatt hour", "kilowatt hours"),
            "GB": ("gigabyte", "gigabytes"),
            "MB": ("megabyte", "megabytes"),
        },
        {
            "e.g.": "for example",
            "i.e.": "that is",
            "etc.": "et cetera",
            "approx.": "approximately",
            "vs.": "versus",
            "dept.": "department",
        },
    ),
    "de": _Language(
        *("ät", "Punkt", "Schrägstrich", "Strich", "Unterstrich", "bis", " ", "Prozent"),
        "Januar Februar März April Mai Juni Juli August September Oktober November Dezember",
        "{day}. {month} {year}",
        {
            "$": ("Dollar", "Dollar", "Cent", "Cent"),
            "€": ("Euro", "Euro", "Cent", "Cent"),
            "£": ("Pfund", "Pfund", "Penny", "Pence"),
            "¥": ("Yen", "Yen", "Sen", "Sen"),
        },
        {
            "km": ("Kilometer", "Kilometer"),
            "cm": ("Zentimeter", "Zentimeter"),
            "mm": ("Millimeter", "Millimeter"),
            "kg": ("Kilogramm", "Kilogramm"),
            "mg": ("Milligramm", "Milligramm"),
            "ml": ("Milliliter", "Milliliter"),
            "km/h": ("Kilometer pro Stunde", "Kilometer pro Stunde"),
            "°C": ("Grad Celsius", "Grad Celsius"),
            "kWh": ("Kilowattstunde", "Kilowattstunden"),
        },
        {
            "z.B.": "zum Beispiel",
            "z. B.": "zum Beispiel",
            "d.h.": "das heißt",
            "d. h.": "das heißt",
            "usw.": "und so weiter",
            "bzw.": "beziehungsweise",
            "ca.": "circa",
            "evtl.": "eventuell",
            "ggf.": "gegebenenfalls",
            "inkl.": "inklusive",
            "Nr.": "Nummer",
            "Str.": "Straße",
        },
    ),
    "fr": _Language(
        *("arobase", "point", "barre oblique", "tiret", "tiret bas", "à", " ", "pour cent"),
        "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
        "{day} {month} {year}",
        {
            "$": ("dollar", "dollars", "cent", "cents"),
            "€": ("euro", "euros", "centime", "centimes"),
            "£": ("livre", "livres", "penny", "pence"),
            "¥": ("yen", "yens", "sen", "sen"),
        },
        {
            "km": ("kilomètre", "kilomètres"),
            "cm": ("centimètre", "centimètres"),
            "mm": ("millimètre", "millimètres"),
            "kg": ("kilogramme", "kilogrammes"),
            "km/h": ("kilomètre heure", "kilomètres heure"),
            "°C": ("degré Celsius", "degrés Celsius"),
        },
        {
            "p.ex.": "par exemple",
            "p. ex.": "par exemple",
            "c.-à-d.": "c'est-à-dire",
            "etc.": "et cetera",
            "env.": "environ",
            "Mme": "Madame",
            "Mlle": "Mademoiselle",
        },
    ),
    "es": _Language(
        *("arroba", "punto", "barra", "guion", "guion bajo", "a", " con ", "por ciento"),
        "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
        "{day} de {month} de {year}",
        {
            "$": ("dólar", "dólares", "centavo", "centavos"),
            "€": ("euro", "euros", "céntimo", "céntimos"),
            "£": ("libra", "libras", "penique", "peniques"),
            "¥": ("yen", "yenes", "sen", "sen"),
        },
        {
            "km": ("kilómetro", "kilómetros"),
            "cm": ("centímetro", "centímetros"),
            "mm": ("milímetro", "milímetros"),
            "kg": ("kilogramo", "kilogramos"),
            "km/h": ("kilómetro por hora", "kilómetros por hora"),
            "°C": ("grado Celsius", "grados Celsius"),
        },
        {
            "p.ej.": "por ejemplo",
            "p. ej.": "por ejemplo",
            "etc.": "etcétera",
            "aprox.": "aproximadamente",
            "Sr.": "señor",
            "Sra.": "señora",
            "Ud.": "usted",
        },
    ),
    "it": _Language(
        *("chiocciola", "punto", "barra", "trattino", "trattino basso", "a", " e ", "per cento"),
        "gennaio febbraio marzo aprile maggio giugno "
        "luglio agosto settembre ottobre novembre dicembre",
        "{day} {month} {year}",
        {
            "$": ("dollaro", "dollari", "centesimo", "centesimi"),
            "€": ("euro", "euro", "centesimo", "centesimi"),
            "£": ("sterlina", "sterline", "penny", "penny"),
            "¥": ("yen", "yen", "sen", "sen"),
        },
        {
            "km": ("chilometro", "chilometri"),
            "cm": ("centimetro", "centimetri"),
            "mm": ("millimetro", "millimetri"),
            "kg": ("chilogrammo", "chilogrammi"),
            "km/h": ("chilometro all'ora", "chilometri all'ora"),
            "°C": ("grado Celsius", "gradi Celsius"),
        },
        {
            "ad es.": "ad esempio",
            "p.es.": "per esempio",
            "ecc.": "eccetera",
            "sig.": "signor",
            "sig.ra": "signora",
        },
    ),
}
_NEEDED = re.compile(r"[\d@$€£¥/]|\w\.|Mme|Mlle")  # without any of these no rule matches
_NUMBER = r"\d{1,3}(?:[.,\s]\d{3})+(?!\d)|\d+"  # with or without separators of thousands


def spoken_forms(text: str, language: str | None) -> SpokenForms:
    """The text as it is read aloud in that language: a tag such as "en-US"; None: unknown."""
    key = re.split("[-_]", (language or "").lower())[0]
    if key not in _LANGUAGES or not _NEEDED.search(text):
        return SpokenForms(text, ())
    pieces: list[str] = []
    spans: list[tuple[int, int, int, int]] = []
    position = length = 0
    combined, reads = _rules(key)
    for found in combined.finditer(text):
        start, end = found.span()
        name = found.lastgroup
        assert name
        spoken = reads[name](found.group())
        before = text[position:start]
        pieces += (before, spoken)
        length += len(before)
        spans.append((length, length + len(spoken), start, end))
        length += len(spoken)
        position = end
    pieces.append(text[position:])
    return SpokenForms("".join(pieces), tuple(spans))


@lru_cache(None)
def _rules(key: str) -> tuple[re.Pattern[str], dict[str, Read]]:
    """One pattern of all rules, in which the one that matched is a named group; how each reads."""
    words = _LANGUAGES[key]
    signs = "".join(map(re.escape, words.money))
    units = "|".join(sorted(map(re.escape, words.units), key=len, reverse=True))
    short = "|".join(sorted(map(re.escape, words.short), key=len, reverse=True))
    sources: dict[str, tuple[str, Read]] = {
        "email": (
            r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+",
            lambda found: _address(found, words),
        ),
        "url": (
            r"(?:https?://|www\.)[^\s<>\"')\]]*[\w/]",
            lambda found: _url(found, words),
        ),
        "money": (
            rf"[{signs}]\s?(?:{_NUMBER})(?:[.,]\d\d)?(?![\d.,]*\d)"
            rf"|(?<![\d.,])(?:{_NUMBER})(?:[.,]\d\d)?\s?[{signs}](?!\w)",
            lambda found: _money(found, words),
        ),
        "date": (
            r"(?<![\d-])\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])(?![\d-])",
            lambda found: _date(found, words),
        ),
        "phone": (
            r"(?<!\w)\+\d{1,3}(?:[ -]\d{2,4}){2,5}(?![\w-])"
            r"|(?<![\w-])(?:\(\d{3}\) ?|\d{3}[ -])?\d{3}-\d{4}(?![\w-])",
            _phone,
        ),
        "unit": (
            rf"(?<![\w.,])\d+(?:[.,]\d+)?\s?(?:{units})(?![\w/])",
            lambda found: _unit(found, words),
        ),
        "range": (
            r"(?<![\w.,/-])\d+[-\u2013]\d+(?![\w/-]|[.,]\d)",
            lambda found: re.sub(r"[-\u2013]", f" {words.to} ", found),
        ),
        "short": (
            rf"(?<![\w.])(?:{short})(?!\w)",
            words.short.__getitem__,
        ),
    }
    combined = "|".join(f"(?P<{name}>{source})" for name, (source, _) in sources.items())
    return re.compile(combined), {name: read for name, (_, read) in sources.items()}


def _address(text: str, words: _Language) -> str:
    """An e-mail address or the name of a host, sign by sign."""
    names = {
        "@": words.at,
        ".": words.dot,
        "/": words.slash,
        "-": words.dash,
        "_": words.underscore,
        "+": "plus",
    }
    parts = re.split(r"([@./_+-])", text)
    return " ".join(names.get(part, part) for part in parts if part)


def _url(text: str, words: _Language) -> str:
    """Host and path; scheme, www, query and fragment are not read."""
    text = re.sub(r"^(?:https?://)?(?:www\.)?", "", text)
    return _address(re.split(r"[?#]", text)[0].rstrip("/"), words)


def _money(text: str, words: _Language) -> str:
    sign = next(character for character in text if character in words.money)
    number = text.replace(sign, "").strip()
    one, many, small, smalls = words.money[sign]
    has_cents = number[-3:-2] in (".", ",")
    whole, cents = (number[:-3], number[-2:]) if has_cents else (number, "")
    said = f"{whole} {one if whole == '1' else many}"
    if not cents or cents == "00":
        return said
    part = f"{int(cents)} {small if int(cents) == 1 else smalls}"
    return part if whole == "0" else f"{said}{words.joined}{part}"


def _date(text: str, words: _Language) -> str:
    year, month, day = text.split("-")
    return words.date.format(month=words.months.split()[int(month) - 1], day=int(day), year=year)


def _phone(text: str) -> str:
    """Digit by digit, with a pause behind each group."""
    plus = "plus " if text.startswith("+") else ""
    return plus + ", ".join(" ".join(group) for group in re.findall(r"\d+", text))


def _unit(text: str, words: _Language) -> str:
    found = re.match(r"[\d.,]+", text)
    assert found
    one, many = words.units[text[found.end() :].strip()]
    return f"{found.group()} {one if found.group() == '1' else many}"
