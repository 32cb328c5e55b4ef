"""Greetings and other courtesies, cards, commands to move, and what is said when all else fails."""

import re

from vivavoce.engines.builtin import about, memory
from vivavoce.engines.builtin.situation import Situation
from vivavoce.engines.builtin.words import Utterance, content, listing, pick

_HELLO = re.compile(
    r"^(?:(?:well|oh|okay|so|yes|and) )?(?:hello|hi|hey|hallo|howdy|greetings|good (?:morning"
    r"|afternoon|evening|day)|welcome|hiya)\b|\b(?:hello|hi) (?:world|there|again)\b"
)
_BYE = re.compile(
    r"\b(?:goodbye|good bye|bye|bye bye|see you|see ya|farewell|good night|talk to you later"
    r"|have a (?:nice|good) (?:day|evening|one)|so long|hang up|that is all)\b"
)
_THANKS = re.compile(r"\b(?:thanks|thank you|thank|cheers|much appreciated|thankyou)\b")
_HOW = re.compile(
    r"\bhow (?:are|is|have) (?:you|it going|things|your day|life)\b"
    r"|\bhow do you do\b|\bwhat is up\b"
)
_HEAR = re.compile(
    r"\b(?:can|do) you (?:hear|understand) me\b|\bare you (?:there|listening|still there)\b"
    r"|^(?:testing|test|mic check|one two three testing|check check)\b"
)
_JOKE = re.compile(r"\b(?:joke|jokes|make me laugh|something funny)\b")
_PRAISE = re.compile(
    r"^(?:(?:that|this|it) (?:is|was) |you are |very |so ){0,4}"
    r"(?:great|nice|cool|good|awesome|wonderful"
    r"|perfect|amazing|funny|excellent|well done|good job|fantastic|lovely)(?: \w+)?$"
)
_SORRY = re.compile(r"\b(?:sorry|my bad|i apologi[sz]e|pardon|excuse me)\b")
_NOT_TO_DO = re.compile(r"^(?:please )?(?:do not|never) (?!mind)\w+")
_YES = re.compile(r"^(?:yes|yeah|yep|yup|sure|okay|ok|right|of course|alright|all right)(?: \w+)?$")
_NO = re.compile(r"^(?:no|nope|nah|not really|never mind|nothing|no thanks)(?: \w+)?$")
_AGAIN = re.compile(
    r"^(?:(?:can|could) you )?(?:(?:please )?(?:say|repeat) (?:that|it)(?: again)?|what did you say"
    r"|come again|once more|pardon(?: me)?|say again|again|repeat)(?: please)?$"
)
_FEELING = re.compile(
    r"\bi (?:am|feel|am feeling) (?:so |very |really |a bit |a little )?"
    r"(sad|tired|happy|bored|lonely|angry|sick|hungry|excited|afraid|scared|stressed|ill|fine|good"
    r"|great|nervous|thirsty|cold|hot|busy)\b"
)
_LIKING = re.compile(r"\bi (?:really |also )?(like|love|hate|enjoy|prefer|miss) (.{2,60})")
_RANKS = (
    "ace|king|queen|jack|two|three|four|five|six|seven|eight|nine|ten|to|for|ate|[2-9]|10|deuce|sex"
)
_CARD = re.compile(rf"\b({_RANKS}) of (clubs?|spades?|hearts?|diamonds?)\b")
_RANK_HEARD = {"to": "two", "for": "four", "ate": "eight", "sex": "six", "deuce": "two"}
_MOVE = re.compile(
    r"\b(?:go|move|drive|walk|turn|roll|run|step|rotate|fly|march)\b.{0,20}"
    r"\b(?:forward|forwards|backward|backwards|back|left|right|ahead|straight|up|down|north|south"
    r"|east|west|around|faster|slower|meters?|metres?|feet|steps?|degrees)\b"
    r"|^(?:stop|halt|forward|backward|left|right|faster|slower)(?: \w+){0,3}$"
)
_JOKES = (
    "Why did the microphone blush? Somebody had turned it on.",
    "My favourite sport is running. I have been running since the server started.",
    "A sound wave walks into a bar, and then straight back out of it.",
    "I wanted to tell you a joke about silence, but you would have interrupted me.",
)


def courtesy(situation: Situation) -> str | None:
    """Hello, goodbye, thanks and their kin; None where nothing of it was said."""
    said, plain = situation.said, situation.said.plain
    if _AGAIN.search(plain):
        last = next(situation.past.by("assistant"), "")
        return last or "I haven't said anything yet."
    if _JOKE.search(plain):
        return pick(_JOKES, plain + str(len(situation.past.turns)))
    if _HOW.search(plain):
        return pick(
            ("I'm well, thank you. How are you?", "All my rules are in order. And how are you?"),
            plain,
        )
    if _HEAR.search(plain):
        return pick(("Yes, I can hear you.", "I'm here, and I can hear you well."), plain)
    if _THANKS.search(plain):
        return pick(("You're welcome.", "My pleasure.", "Any time."), plain)
    if _BYE.search(plain):
        return _named(situation, pick(("Goodbye", "See you soon", "Take care"), plain), "!")
    if _HELLO.search(plain):
        if "hello world" in plain:
            return "Hello, world! What can I do for you?"
        return greeting(situation)
    if _SORRY.search(plain):
        return "No harm done."
    if _PRAISE.search(plain):
        return pick(("I'm glad to hear it.", "Thank you, that is kind."), plain)
    if _NOT_TO_DO.search(plain):
        return "All right, I won't."
    return _feeling(said) or _yes_or_no(plain)


def greeting(situation: Situation) -> str:
    """Hello, by name where it is known."""
    hello = _named(situation, "Hello", "!")
    if situation.manners.name and not any(situation.past.by("assistant")):
        hello = f"{hello} I'm {situation.manners.name}."
    asks = ("What can I do for you?", "How can I help?", "What would you like to do?")
    return f"{hello} {pick(asks, situation.said.plain)}"


def _named(situation: Situation, text: str, end: str) -> str:
    name = memory.name(situation)
    return f"{text}, {name}{end}" if name else text + end


def _feeling(said: Utterance) -> str | None:
    if match := _FEELING.search(said.plain):
        glad = match[1] in ("happy", "excited", "fine", "good", "great")
        lead = "I'm glad that you feel" if glad else "I'm sorry that you feel"
        return f"{lead} {match[1]}. Shall I tell you a story?"
    if match := _LIKING.search(said.plain):
        words = [w for w in match[2].split() if w not in ("very", "much", "too")][:8]
        if words and content(words):
            what = memory.mirrored(" ".join(words))
            return f"You {match[1]} {what}. What is it about {what} that makes you say so?"
    return None


def _yes_or_no(plain: str) -> str | None:
    if _YES.search(plain):
        return pick(("Good. What would you like to do?", "All right. Go ahead."), plain)
    if _NO.search(plain):
        return pick(("All right. Tell me if you need anything.", "Fine by me."), plain)
    return None


def cards(situation: Situation) -> str | None:
    """Playing cards that were called out, at most ten."""
    found = [m.groups() for m in _CARD.finditer(situation.said.plain)][:10]
    if not found:
        return None
    named = [f"the {_RANK_HEARD.get(r, r)} of {s.removesuffix('s')}s" for r, s in found]
    if len(named) == 1:
        return f"{named[0][0].upper()}{named[0][1:]}, a fine card. What is your next one?"
    return f"I have {listing(named)}. What is your next card?"


def movement(situation: Situation) -> str | None:
    """A command to move, acknowledged."""
    if not _MOVE.search(situation.said.plain):
        return None
    return (
        f"I heard: {situation.said.part(0, 14)}. But I have no wheels, and your app has declared"
        " no function for moving, so I stay where I am."
    )


def out_of_reach(situation: Situation) -> str:
    """An honest answer to what no rule covers. It refers to what was said."""
    said = situation.said
    if not said.words:
        return pick(
            ("I didn't catch that. Could you say it again?", "Sorry, could you say that again?"),
            str(len(situation.past.turns)),
        )
    heard = " ".join(said.text.split()[:12]).rstrip(".!?,;:")
    if len(said.text.split()) > 12:
        heard += ", and so on"
    able = about.able(said.plain)
    subject = max(content(said.words), key=len, default=said.words[0])
    return pick(
        (
            f"I heard: {heard}. That is beyond my rules. {able}",
            f"I don't know enough about {subject} to say anything useful. {able}",
            f"You said: {heard}. I have no answer to that. {able}",
            f"I'm only a small program, and {subject} is out of my reach. {able}",
            f"If I heard you well, you said: {heard}. No rule of mine covers that. {able}",
        ),
        said.plain,
    )
