"""What the user told about themselves, found again in the conversation."""

import re

from vivavoce.engines.builtin.situation import Situation
from vivavoce.engines.builtin.words import FUNCTION_WORDS, Utterance, content, pick

_NAME_TOLD = re.compile(
    r"\b(?:my name is|my name's|call me|i am called|name is) ([^\W\d_][\w']*(?: [^\W\d_][\w']*)?)"
)
_NAME_ASKED = re.compile(
    r"\b(?:what|do you|remember|who|say|tell|know)\b.{0,30}"
    r"\b(?:my name|who i am|who am i|am i called)\b"
    r"|\bwho am i\b"
)
_TOPIC_TOLD = re.compile(
    r"\b(?:let us|can we|could we|want to|like to|going to|to)"
    r" (?:talk|speak|chat|discuss|converse)(?: about| of)? (.{2,60})"
)
_TOPIC_ASKED = re.compile(
    r"\b(?:what|which|remind|where)\b.{0,20}\b(?:we|i)\b.{0,20}"
    r"\b(?:talking|speaking|talk|chatting|discussing|saying|topic|talked|discussed|were we)\b"
    r"|\bwhat(?: is| was) (?:the|our) (?:topic|subject)\b|\bwhere were we\b"
)
_NO_NAMES = FUNCTION_WORDS | {"is", "later", "back", "tomorrow", "again", "what", "maybe", "when"}
_BACK = 40  # of the user's utterances; each costs a regular expression


def name_told(said: Utterance) -> str | None:
    """The name that an utterance gives, with capitals."""
    found = said.find(_NAME_TOLD)
    if found is None:
        return None
    kept: list[str] = []
    for word in found.split():
        if word.lower() in _NO_NAMES:
            break
        kept.append(word if not word.islower() else word.capitalize())
    return " ".join(kept) or None


def topic_told(said: Utterance) -> str | None:
    """What the user wants to talk about."""
    found = said.find(_TOPIC_TOLD)
    if found is None:
        return None
    words = found.split()
    while words and words[-1].lower() in ("please", "now", "then", "okay", "instead", "today"):
        words.pop()
    return " ".join(words[:8]) if content(w.lower() for w in words) else None


def name(situation: Situation) -> str | None:
    """The user's name, if it was ever told."""
    utterances = (Utterance.of(text) for text in _back(situation))
    return name_told(situation.said) or next(filter(None, map(name_told, utterances)), None)


def answer_name(situation: Situation) -> str | None:
    """Greets a name, or gives it back."""
    said = situation.said
    if _NAME_ASKED.search(said.plain):
        known = name(situation)
        if known is None:
            return "You haven't told me your name yet. What is it?"
        return f"Your name is {known}."
    if told := name_told(said):
        return pick((f"Nice to meet you, {told}!", f"Hello, {told}! Good to meet you."), said.plain)
    return None


def answer_topic(situation: Situation) -> str | None:
    """Takes up a topic, or says what it was."""
    said = situation.said
    if _TOPIC_ASKED.search(said.plain):
        utterances = [Utterance.of(text) for text in _back(situation)]
        topic = next(filter(None, map(topic_told, utterances)), None)
        if topic is not None:
            return f"We were talking about {mirrored(topic)}."
        for past in utterances:
            if content(past.words):
                return f"You last said: {' '.join(past.text.split()[:20]).rstrip('.!?')}."
        return "We have only just begun to talk."
    if topic := topic_told(said):
        topic = mirrored(topic)
        return pick(
            (
                f"Gladly, let's talk about {topic}. What do you like best about it?",
                f"All right, {topic} it is. What would you like to say about it?",
            ),
            said.plain,
        )
    return None


def _back(situation: Situation) -> list[str]:
    return [text[:400] for text, _ in zip(situation.past.by("user"), range(_BACK), strict=False)]


_OTHER_SIDE = {
    "my": "your",
    "me": "you",
    "i": "you",
    "mine": "yours",
    "am": "are",
    "myself": "yourself",
}
_OTHER_SIDE |= {"your": "my", "yours": "mine", "you": "me", "yourself": "myself"}


def mirrored(text: str) -> str:
    """As seen from the other side: "my dog" becomes "your dog"."""
    return " ".join(_OTHER_SIDE.get(w.lower(), w) for w in text.split())
