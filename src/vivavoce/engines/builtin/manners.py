"""What the operator's instructions ask for, as far as rules can follow it."""

import re
from dataclasses import dataclass
from typing import Self

from vivavoce.engines.builtin.words import word_set

_MAX_CHARS = 4000
_NAME = re.compile(
    r"\b(?:[Yy]ou are|[Yy]ou're|[Yy]our name is|[Nn]amed|[Cc]alled|[Aa]ct as)"
    r" (?:called |named )?([A-Z][\w'-]{1,20})\b"
)
_NO_NAMES = word_set("A An The Not Now Speaking Helpful Talking ChatGPT GPT AI English")
_BRIEF = re.compile(
    r"\b(?:one|a single|1) (?:short )?sentence\b|\b(?:be|keep (?:it|(?:your )?answers)|answer)"
    r" (?:very )?(?:brief|short|concise|terse)(?:ly)?\b",
    re.IGNORECASE,
)
_EXACTLY = re.compile(
    r"(?:^|\n|[.!] )\s*(?:please )?(?:you must )?(?:always )?"
    r"(?:say|reply|respond|answer|speak|read)"
    r"(?: out loud| aloud| to the user| with)?"
    r"(?: exactly| verbatim| word for word| only| the following| this)"
    r"(?: text| words?| sentence| and nothing else| to the user){0,3}\s*:?\s*(.{1,3000})",
    re.IGNORECASE | re.DOTALL,
)
_QUOTED = re.compile(r"^[\"'“\u2018](.{1,2000}?)[\"'”\u2019](?=\s|[.!]|$)", re.DOTALL)
_SAY = re.compile(
    r"^(?:please )?say\s*:?\s*[\"'“\u2018](.{1,2000}?)[\"'”\u2019][.!]?\s*$", re.I | re.DOTALL
)
_TELL = re.compile(
    r"^(?:please )?(?:tell|inform|remind|let) (?:the )?(?:user|caller|customer|them)"
    r"(?: know)?,?(?: that| of| about)? (.{1,500}?)[.!]?$",
    re.IGNORECASE,
)
_ASK = re.compile(
    r"^(?:please )?ask (?:the )?(?:user|caller|customer|them)(?: for)? (.{1,300}?)[.?!]?$",
    re.IGNORECASE,
)
_OTHER_PERSON = {
    "they": "you",
    "them": "you",
    "their": "your",
    "theirs": "yours",
    "themselves": "yourself",
    "he/she": "you",
}


@dataclass(frozen=True, slots=True)
class Manners:
    """How to answer. `exactly` is a text to be said as it stands; `text` what was instructed."""

    name: str | None = None
    brief: bool = False
    exactly: str | None = None
    text: str = ""

    @classmethod
    def of(cls, instructions: str) -> Self:
        text = instructions[:_MAX_CHARS].strip()
        names = (m[1] for m in _NAME.finditer(text))
        name = next((n for n in names if n not in _NO_NAMES), None)
        return cls(name, _BRIEF.search(text) is not None, _exactly(text), text)

    def shorten(self, text: str) -> str:
        """Only the first sentence, where brevity is asked for."""
        if not self.brief:
            return text
        return re.split(r"(?<=[^.][.!?])\s", text, maxsplit=1)[0]

    @property
    def said_for_the_user(self) -> str | None:
        """The sentence that an instruction "ask/tell the user ..." wants said."""
        first = self.text.split("\n", 1)[0]
        if match := _ASK.match(first):
            asked = _turned(match[1])
            if asked.split(" ", 1)[0].lower() in ("their", "your", "a", "an", "the"):
                return f"May I ask for {asked}?"
            if (head := asked.split(" ", 1))[0].lower() in ("if", "whether", "to") and len(
                head
            ) > 1:
                return f"May I ask {asked}?" if head[0] != "to" else f"Could you please {head[1]}?"
            return f"May I ask {asked}?"
        if match := _TELL.match(first):
            told = _turned(match[1])
            return f"{told[0].upper()}{told[1:]}."
        return None


def _exactly(text: str) -> str | None:
    if match := _SAY.match(text):
        return match[1].strip()
    match = _EXACTLY.search(text)
    if match is None:
        return None
    wanted = match[1].strip()
    quoted = _QUOTED.match(wanted)
    return (quoted[1] if quoted else wanted).strip() or None


def _turned(text: str) -> str:
    return " ".join(_OTHER_PERSON.get(w.lower(), w) for w in text.split())
