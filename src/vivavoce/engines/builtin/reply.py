"""What the partner answers: the order in which its skills are asked."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from vivavoce.engines.base import ChatRequest
from vivavoce.engines.builtin import (
    about,
    arithmetic,
    calls,
    conversation,
    dates,
    memory,
    recital,
    results,
    smalltalk,
    story,
)
from vivavoce.engines.builtin.calls import Call, Question
from vivavoce.engines.builtin.conversation import Exchange
from vivavoce.engines.builtin.manners import Manners
from vivavoce.engines.builtin.situation import Situation
from vivavoce.engines.builtin.tools import Tool
from vivavoce.engines.builtin.words import Utterance
from vivavoce.protocol.items import ToolName

_SENTENCE = re.compile(r"(?<=[^\d.][.?!])\s+")
_REFUSED = re.compile(r"^(?:no\b(?! \w+ \w)|nothing|never mind|forget it|cancel|stop|i do not)")
_MAX_SENTENCES = 4
_SHORT_INSTRUCTION = 240

Skill = Callable[[Situation], str | None]

# They look at the utterance as a whole.
_WHOLE: tuple[Skill, ...] = (
    lambda s: recital.repeat(s.said),
    lambda s: story.answer(s.said, s.max_tokens),
    smalltalk.cards,
)
# They answer each sentence by itself.
_KNOWING: tuple[Skill, ...] = (
    lambda s: recital.spell(s.said),
    lambda s: recital.count(s.said),
    memory.answer_name,
    memory.answer_topic,
    lambda s: arithmetic.answer(s.said),
    lambda s: dates.answer(s.said, s.now),
)
_SKILLS: tuple[Skill, ...] = (
    *_KNOWING,
    about.answer,
    smalltalk.movement,
    smalltalk.courtesy,
)


@dataclass(frozen=True, slots=True)
class Reply:
    """What is said, or else called."""

    text: str = ""
    calls: tuple[Call, ...] = ()


def reply(request: ChatRequest, tools: Sequence[Tool], now: datetime) -> Reply:
    """Answer a request. `tools` are those of the request, read."""
    past = conversation.read(request.items)
    manners = Manners.of(request.instructions)
    said = Utterance.of(past.said or "")
    situation = Situation(said, past, manners, now, request.max_output_tokens)
    if made := _calls(request, tools, situation):
        return made
    if past.fresh_outputs:
        return Reply(manners.shorten(_results(past)))
    if manners.exactly is not None:
        return Reply(manners.exactly)
    if past.said is None:
        return Reply(_unasked(situation))
    text = _answer(situation) or ""
    if past.shown_image:
        text = f"I can't see pictures, so I can't say what is in yours. {text}".strip()
    return Reply(manners.shorten(text or smalltalk.out_of_reach(situation)))


def _calls(request: ChatRequest, tools: Sequence[Tool], situation: Situation) -> Reply | None:
    choice, past = request.tool_choice, situation.past
    if choice == "none" or not tools:
        return None
    many = calls.MAX_CALLS if request.parallel_tool_calls else 1
    if isinstance(choice, ToolName):
        named = [tool for tool in tools if tool.name == choice.name]
        if not named:
            return None
        return Reply(calls=(calls.forced(_to_call_for(situation), named[0], situation.now),))
    if choice == "required":
        said = _to_call_for(situation)
        made = [c for c in calls.wanted(said, tools, situation.now) if isinstance(c, Call)]
        forced = [calls.forced(said, calls.best(said, tools), situation.now)]
        return Reply(calls=tuple((made or forced)[:many]))
    if past.said is None:
        return None
    return _voluntary(tools, situation, many)


def _to_call_for(situation: Situation) -> Utterance:
    """The last thing the user said, even if it was answered."""
    if situation.past.said is not None:
        return situation.said
    return Utterance.of(next(situation.past.by("user"), ""))


def _voluntary(tools: Sequence[Tool], situation: Situation, many: int) -> Reply | None:
    """Calls under "auto": never the same function twice for one utterance."""
    past = situation.past
    called = {call.name for call in past.calls}
    if not called and (call := _completed(tools, situation)) is not None:
        return Reply(calls=(call,))
    if recital.asked(situation.said) and not any(recital.VERBS & set(t.stems) for t in tools):
        return None
    wishes = calls.wanted(situation.said, tools, situation.now)
    made = [w for w in wishes if isinstance(w, Call) and w.name not in called]
    if made:
        return Reply(calls=tuple(made[:many]))
    question = next((w for w in wishes if isinstance(w, Question)), None)
    if question is None or called or _covered(situation):
        return None
    return Reply(situation.manners.shorten(question.text))


def _covered(situation: Situation) -> bool:
    """A skill knows the answer, so there is no need to ask for a function's values."""
    return any(skill(situation) for skill in (*_WHOLE, *_KNOWING))


def _completed(tools: Sequence[Tool], situation: Situation) -> Call | None:
    """The call that the assistant had asked a value for, if this utterance gives it."""
    past = situation.past
    asked, before = next(past.by("assistant"), ""), next(past.by("user"), "")
    if not asked.startswith("For ") or not before or _covered(situation):
        return None
    if _REFUSED.search(situation.said.plain) or not situation.said.words:
        return None
    earlier = Utterance.of(before)
    for wish in calls.wanted(earlier, tools, situation.now):
        if isinstance(wish, Question) and wish.text.startswith(asked.split(".")[0]):
            return calls.answered(wish, earlier, situation.said, situation.now)
    return None


def _results(past: Exchange) -> str:
    arguments = {call.call_id: call.arguments for call in past.calls}
    told = [results.tell(o.output, arguments.get(o.call_id, "")) for o in past.outputs[:8]]
    return " ".join(dict.fromkeys(told))


def _skilled(situation: Situation) -> str | None:
    """The answer of the skills to the utterance, None where none has one."""
    for skill in _WHOLE:
        if text := skill(situation):
            return text
    told: list[str] = []
    for part in _SENTENCE.split(situation.said.text)[:_MAX_SENTENCES]:
        alone = Situation(
            Utterance.of(part),
            situation.past,
            situation.manners,
            situation.now,
            situation.max_tokens,
        )
        text = next((t for skill in _SKILLS if (t := skill(alone))), None)
        if text is not None:
            told.append(text)
    if len(told) > 1 and told[0].startswith("Hello"):
        told[0] = told[0].partition("!")[0] + "!"  # what to do has been said already
    return " ".join(dict.fromkeys(told)) or None


def _answer(situation: Situation) -> str | None:
    return _skilled(situation) if situation.said.words else None


def _unasked(situation: Situation) -> str:
    """Nobody waits for an answer: what the instructions, or the system, want said."""
    manners, past = situation.manners, situation.past
    if past.told:
        manners = Manners.of(past.told)
        if manners.exactly is not None:
            return manners.exactly
    if (wanted := manners.said_for_the_user) is not None:
        return wanted
    if len(manners.text) <= _SHORT_INSTRUCTION and (
        manners.text and not _is_greeting(manners.text)
    ):
        order = Situation(
            Utterance.of(manners.text), past, manners, situation.now, situation.max_tokens
        )
        if (text := _answer(order)) is not None:
            return manners.shorten(text)
    if any(past.by("assistant")) and not _is_greeting(manners.text):
        return manners.shorten("I'm listening. Is there anything I can do for you?")
    return manners.shorten(smalltalk.greeting(situation))


def _is_greeting(instructions: str) -> bool:
    return (
        re.search(r"\b(?:greet|welcome|say (?:hello|hi))\b", instructions[:1000], re.I) is not None
    )
