# ruff: noqa: RUF001, RUF002  signs are the subject here
"""Text as a voice should read it: without markdown, with the signs that mean something.

Pure functions, for the synthesis pipeline and for engines.

* spoken_text(): markdown, emoji and control characters become spaces, ambiguous ASCII signs become
  the sign that is meant (`5 * 4` -> `5 × 4`). The length never changes, so word marks stay valid.
* says_something(): whether there is anything to speak.
* named_signs(): words in place of signs, in seven languages, for synthesisers that do not know the
  signs. The length changes; the result maps positions back.
* script_language(), spoken_language(): the language of a text by its script.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from contextvars import ContextVar
from functools import lru_cache
from typing import NamedTuple

AWAITED: ContextVar[bool] = ContextVar("awaited", default=False)
"""Whether what is synthesised begins an answer, so that its first sound is awaited."""

_PICTURE = "\u2600-\u266e\u2670-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff"  # not U+266F, the sharp
_TAGS = (
    "a|b|blockquote|br|center|code|dd|del|details|div|dl|dt|em|font|h[1-6]|hr|i|img|ins|kbd|li|mark"
    "|ol|p|pre|s|small|span|strike|strong|sub|summary|sup|table|tbody|td|th|thead|tr|u|ul"
)
_GROUP = "\\1"

# What is found and what stays of it: "" is nothing, _GROUP is the first group in its place, else
# it is a sign at the start of the match. Spaces stand for all the rest, but line feeds stay.
# In this order; later rules see what earlier ones left.
_MARKDOWN = (
    ("[\x00-\x08\x0b-\x1f\x7f-\x9f]", ""),  # control characters, but tab and line feed
    # halves of surrogate pairs, private use, noncharacters
    ("[\ud800-\udfff\ue000-\uf8ff\ufffe\uffff\U000f0000-\U0010ffff]", ""),
    # variation selectors, key caps, tags of flags
    ("[\ufe0e\ufe0f\u20e3\U000e0000-\U000e007f]", ""),
    # emoji; joiners stay outside of them, since some scripts spell with joiners
    (f"[{_PICTURE}](?:[\u200d\ufe0f{_PICTURE}])*", ""),
    (r"^[ \t]*(?:```|~~~)+[ \t]*[\w+#-]*[ \t]*$", ""),  # a code fence and its language
    (r"^[ \t]*(?:[-*_=][ \t]*){3,}$", ""),  # a rule
    (r"^(?=[^\n]*--)[ \t:|-]+$", ""),  # the rule under the head of a table
    (r"!?\[([^\[\]\n]*)\]\([^()\s]*(?:\s\"[^\"\n]*\")?\)", _GROUP),  # a link, a picture
    (r"<(https?://[^<>\s]+|[^<>\s@]+@[^<>\s@]+)>", _GROUP),  # an address in angle brackets
    (rf"</?(?:{_TAGS})(?:\s+[\w-]+=(?:\"[^\"]*\"|'[^']*'))*\s*/?>", ""),  # HTML
    (r"^[ \t]*(?:>(?! ?\d)[ \t]*)+", ""),  # a quotation
    (r"^[ \t]*#{1,6}(?=[ \t])", ""),  # a heading
    (r"^[ \t]*[*+-](?=[ \t]+\S)", ""),  # an item of a list
    (r"^[ \t]*\[[ xX]\](?=[ \t])", ""),  # its check box
    (r"`+|~~+|#{2,}|-{3,}", ""),
    (r"(?<=\d)\*\*(?=\d)", "^"),
    (r"\*\*+", ""),  # strong
    (r"(?<=\w|[)\]])(?: \*|\\\*| \\\*) ?(?= [\w(\[])", " ×"),  # 5 * 4, 5 \* 4
    (r"(?<=[\d)\]])\*(?=[\w(\[])", "×"),  # 2*3
    (r"(?<![^\W_].)(?<=[A-Za-z])\*(?=[A-Za-z]\b|[\d(])", "×"),  # a*b
    (r"\*(?!\d[\d*]*#)", ""),  # emphasis; but *123# is dialled
)
_SIGNS = (
    (r"\\(?=[!-/:-@\[-`{-~])", ""),  # escapes
    ("_", ""),
    (r"(?<=\d)~(?=\d)", "\u2013"),  # a range, as East Asian writing has it
    (r"~(?= ?[$£€¥]?\d)", "≈"),
    (r"~(?!/)", ""),
    (r"<=>|<->", "↔"),
    ("<=", "≤"),
    (">=", "≥"),
    ("!=", "≠"),
    ("[-=]>", "→"),
    (r"<-(?!\d)", "←"),
    (r"(?<![\w\]])#(?!\w)", ""),
    (r"(?<=\S)\|(?=[ \t]*\S)|(?<=\S )\|(?=[ \t]*\S)", ","),  # between two cells: a short pause
    (r"\|", ""),
)
_Rules = tuple[tuple[re.Pattern[str], str], ...]
_MARKDOWN_RULES: _Rules = tuple((re.compile(p, re.MULTILINE), kept) for p, kept in _MARKDOWN)
_SIGN_RULES: _Rules = tuple((re.compile(p, re.MULTILINE), kept) for p, kept in _SIGNS)
_PLAIN = re.compile(r"[A-Za-z0-9 ,.;:?!'\"()]*")  # no rule matches any of these alone
_ADDRESS = re.compile(r"(?<![\w.+-])(?:[\w.+-]+@|\w+://|www\.)\S*\w/?")


def spoken_text(text: str) -> str:
    """The text without what is not to be spoken: one character for each of the text.

    Any part of a text may be given: also one half of a pair of marks is left out.
    """
    if _PLAIN.fullmatch(text):
        return text
    prose = _applied(_MARKDOWN_RULES, text)
    spoken = _applied(_SIGN_RULES, prose)
    for found in _ADDRESS.finditer(prose):  # signs within addresses are part of them
        spoken = spoken[: found.start()] + found.group() + spoken[found.end() :]
    return spoken


def says_something(text: str) -> bool:
    """Whether a spoken_text() has a letter, a digit or a sign with a name."""
    return any(c.isalnum() or c in "%&@#" or unicodedata.category(c)[0] == "S" for c in text)


def _applied(rules: _Rules, text: str) -> str:
    for pattern, kept in rules:

        def stays(found: re.Match[str], kept: str = kept) -> str:
            start, end = found.span()
            if kept == _GROUP:
                first, last = found.span(1)
                return " " * (first - start) + found.group(1) + " " * (end - last)
            rest = found.group()[len(kept) :]
            return kept + "".join("\n" if c == "\n" else " " for c in rest)

        text = pattern.sub(stays, text)
    return text


class NamedSigns(NamedTuple):
    """A text in which words stand for signs; `origins` is the offset that each character had.

    Every sign that is replaced is one character.
    """

    text: str
    origins: tuple[int, ...]

    def original(self, start: int, end: int) -> tuple[int, int]:
        """Where text[start:end], not empty, was in the original text."""
        return self.origins[start], self.origins[end - 1] + 1


# Times, about, less, greater, at most, at least, not equal, to (arrow), to (range), power, number,
# sharp.
_NAMES: Mapping[str, tuple[str, ...]] = {
    "de": (
        *("mal", "ungefähr", "kleiner als", "größer als", "höchstens", "mindestens"),
        *("ungleich", "zu", "bis", "hoch", "Nummer", "Sharp"),
    ),
    "en": (
        *("times", "about", "less than", "greater than", "at most", "at least"),
        *("not equal to", "to", "to", "to the power of", "number", "sharp"),
    ),
    "es": (
        *("por", "unos", "menor que", "mayor que", "como máximo", "como mínimo"),
        *("distinto de", "a", "a", "elevado a", "número", "sharp"),
    ),
    "fr": (
        *("fois", "environ", "inférieur à", "supérieur à", "au plus", "au moins"),
        *("différent de", "vers", "à", "puissance", "numéro", "sharp"),
    ),
    "it": (
        *("per", "circa", "minore di", "maggiore di", "al massimo", "almeno"),
        *("diverso da", "a", "a", "elevato a", "numero", "sharp"),
    ),
    "nl": (
        *("keer", "ongeveer", "kleiner dan", "groter dan", "hoogstens", "minstens"),
        *("ongelijk aan", "naar", "tot", "tot de macht", "nummer", "sharp"),
    ),
    "pt": (
        *("vezes", "cerca de", "menor que", "maior que", "no máximo", "no mínimo"),
        *("diferente de", "para", "a", "elevado a", "número", "sharp"),
    ),
}
_NAMED = re.compile(
    "(×)|(≈)|(<)|(>)|(≤)|(≥)|(≠)|(→)"
    r"|(?<=\d)(–)(?=\d)"  # an en dash
    r"|(?<=\d)(\^)(?= ?\d)|(#)(?=\d)|(?:(?<=\b[A-Ga-g])|(?<=\bF))([#♯])(?!\w)"
)


def named_signs(text: str, language: str) -> NamedSigns:
    """The spoken_text() with names for `×`, `≈`, `<`, `#1`, `C#` and the like.

    language: a tag such as "en-us"; where it is none of the seven, the text stays as it is.
    """
    names = _NAMES.get(language.lower().replace("_", "-").partition("-")[0])
    pieces: list[str] = []
    origins: list[int] = []
    position = 0
    for found in _NAMED.finditer(text) if names else ():
        assert names
        assert found.lastindex
        start, end = found.span()
        before = text[position:start]
        name = f" {names[found.lastindex - 1]} "
        pieces += (before, name)
        origins += (*range(position, start), *[start] * len(name))
        position = end
    pieces.append(text[position:])
    origins += range(position, len(text))
    return NamedSigns("".join(pieces), tuple(origins))


# Ranges of letters, in order: first and last code point, script.
_SCRIPTS = (
    (0x0370, 0x03FF, "Grek"),
    (0x0400, 0x052F, "Cyrl"),
    (0x0531, 0x058F, "Armn"),
    (0x0590, 0x05FF, "Hebr"),
    (0x0600, 0x06FF, "Arab"),
    (0x0750, 0x077F, "Arab"),
    (0x08A0, 0x08FF, "Arab"),
    (0x0900, 0x097F, "Deva"),
    (0x0980, 0x09FF, "Beng"),
    (0x0A00, 0x0A7F, "Guru"),
    (0x0A80, 0x0AFF, "Gujr"),
    (0x0B00, 0x0B7F, "Orya"),
    (0x0B80, 0x0BFF, "Taml"),
    (0x0C00, 0x0C7F, "Telu"),
    (0x0C80, 0x0CFF, "Knda"),
    (0x0D00, 0x0D7F, "Mlym"),
    (0x0D80, 0x0DFF, "Sinh"),
    (0x0E00, 0x0E7F, "Thai"),
    (0x0E80, 0x0EFF, "Laoo"),
    (0x0F00, 0x0FFF, "Tibt"),
    (0x1000, 0x109F, "Mymr"),
    (0x10A0, 0x10FF, "Geor"),
    (0x1100, 0x11FF, "Hang"),
    (0x1200, 0x139F, "Ethi"),
    (0x13A0, 0x13FF, "Cher"),
    (0x1780, 0x17FF, "Khmr"),
    (0x1C90, 0x1CBF, "Geor"),
    (0x1F00, 0x1FFF, "Grek"),
    (0x2E80, 0x2FDF, "Hani"),
    (0x3040, 0x30FF, "Kana"),
    (0x3130, 0x318F, "Hang"),
    (0x31F0, 0x31FF, "Kana"),
    (0x3400, 0x9FFF, "Hani"),
    (0xAB70, 0xABBF, "Cher"),
    (0xAC00, 0xD7FF, "Hang"),
    (0xF900, 0xFAFF, "Hani"),
    (0xFB1D, 0xFB4F, "Hebr"),
    (0xFB50, 0xFDFF, "Arab"),
    (0xFE70, 0xFEFC, "Arab"),
    (0xFF66, 0xFF9F, "Kana"),
    (0x20000, 0x3FFFF, "Hani"),
)
_SYLLABIC = {"Hani": 3, "Kana": 2, "Hang": 2}  # letters that one character is worth

# The languages of a script, the likeliest first.
_LANGUAGES: Mapping[str, tuple[str, ...]] = {
    "Arab": ("ar", "fa", "ur", "ps", "sd", "ug", "ckb", "ku", "ks", "pa"),
    "Armn": ("hy", "hyw"),
    "Beng": ("bn", "as", "bpy"),
    "Cher": ("chr",),
    "Cyrl": (
        *("ru", "uk", "be", "bg", "sr", "mk", "kk", "ky", "tg", "mn", "tt", "ba", "cv", "os"),
        *("uz", "bs", "nog", "sah"),
    ),
    "Deva": ("hi", "mr", "ne", "sa", "kok", "bho", "mai", "sd"),
    "Ethi": ("am", "ti"),
    "Geor": ("ka", "xmf"),
    "Grek": ("el", "grc"),
    "Gujr": ("gu",),
    "Guru": ("pa",),
    "Hang": ("ko",),
    "Hani": ("zh", "cmn", "yue", "ja", "hak", "nan", "wuu", "ko"),
    "Hebr": ("he", "yi"),
    "Kana": ("ja",),
    "Khmr": ("km",),
    "Knda": ("kn",),
    "Laoo": ("lo",),
    "Mlym": ("ml",),
    "Mymr": ("my", "shn"),
    "Orya": ("or",),
    "Sinh": ("si",),
    "Taml": ("ta",),
    "Telu": ("te",),
    "Thai": ("th",),
    "Tibt": ("bo",),
}
# Letters that only these languages have among those of their script.
_TELLING = (
    ("Arab", "ٹڈڑےں", "ur"),
    ("Arab", "پچژگ", "fa"),
    ("Cyrl", "ў", "be"),
    ("Cyrl", "ґєї", "uk"),
    ("Cyrl", "ђћ", "sr"),
    ("Cyrl", "ѓќѕ", "mk"),
    ("Cyrl", "әғқұһ", "kk"),
)


def script_language(text: str) -> str | None:
    """The likeliest language of a text by its script; None where most letters are Latin or none.

    An ISO 639 code such as "ar", "zh", "ja", "ru". Of languages that share a script, one is
    recognised only by letters that the others do not have.
    """
    script = _script(text)
    if script is None:
        return None
    lowered = text.lower()
    for of, letters, language in _TELLING:
        if of == script and any(letter in lowered for letter in letters):
            return language
    return _LANGUAGES[script][0]


def spoken_language(text: str, language: str | None) -> str | None:
    """The language to speak a text in: `language`, unless it is not written in the text's script.

    Japanese text without kana is taken for Japanese only where `language` says so.
    """
    script = _script(text)
    if script is None:
        return language
    base = (language or "").lower().replace("_", "-").partition("-")[0]
    return language if base in _LANGUAGES[script] else script_language(text)


def _script(text: str) -> str | None:
    """The script of most letters; None for Latin and for scripts that are not listed.

    Kana beside ideographs make a text Japanese, Hangul beside them Korean.
    """
    if text.isascii():
        return None
    counts: Counter[str] = Counter(map(_script_of, filter(str.isalpha, text)))
    east_asian = sum(counts[script] * worth for script, worth in _SYLLABIC.items())
    latin = counts.pop("", 0)
    others = {s: n for s, n in counts.items() if s not in _SYLLABIC}
    most = max(others, key=others.__getitem__, default=None)
    if east_asian >= latin and east_asian > (others[most] if most else 0):
        return next(script for script in ("Kana", "Hang", "Hani") if counts[script])
    return most if most and others[most] >= latin else None


@lru_cache(4096)
def _script_of(letter: str) -> str:
    code = ord(letter)
    return next((script for first, last, script in _SCRIPTS if first <= code <= last), "")
