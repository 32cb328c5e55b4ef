"""Takes the place of a language model: fixed rules, no weights, no network."""

import asyncio
import json
import re
import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from vivavoce.engines import base
from vivavoce.engines.builtin import replies
from vivavoce.errors import SettingsError
from vivavoce.protocol import items
from vivavoce.protocol.items import FunctionTool, Item, Message

_MAX_TOOLS, _MAX_PARAMETERS = 64, 20
_MAX_ITEMS = 200  # of the conversation, the newest
_MAX_CALL_CHARS = 200  # of a sentence that arguments are taken from
_WORD = re.compile(r"\S+\s*|\s+")
_KEYWORD = re.compile(r"[^\W\d_]+")
_ENDING = re.compile(r"(?<=\w{3})(?:ing|ed|es|s|e)$")
_COMMON = frozenset(
    _KEYWORD.findall(
        "a an the i me my you your it its this that and or of to in for at by with from is are was"
        " be do does can could will would please what which who how get set tell show give let"
        " call function user want need know if there like now today tomorrow outside about whats"
        " hello hi hey ok okay just some any"
    )
)
_PHRASE = re.compile(
    r"\b(?:in|near|for|at|to|from|about|called|named|of|with)\s+(?:(?:the|a|an|my)\s+)?"
    r"((?:(?!(?:in|near|for|at|to|from|about|of|with|please|now|today|tomorrow)\b)[\w'-]+[ ,]*)+)",
    re.IGNORECASE,
)
_NO_CALL = re.compile(r"\W*(?:please )?(?:do not|don't|never|say|repeat)\b", re.IGNORECASE)
_FLAG = re.compile(r"\b(?:(on|yes|true)|off|no|false)\b", re.IGNORECASE)
_EMPTY = {"integer": 0, "number": 0, "boolean": False, "array": [], "object": {}, "null": None}


class BuiltinSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings of `llm:builtin`."""

    words_per_second: Annotated[float, msgspec.Meta(ge=0)] = 0
    """How fast words come, as from a model that needs time; 0: at once."""
    timezone: str = ""
    """An IANA name such as `Europe/Rome`, for time and date; "": that of this machine."""


class _Call(NamedTuple):
    name: str
    arguments: dict[str, Any]


class BuiltinLLM(base.BaseEngine):
    """Answers by rule. An LLM as engines.base has it; one object serves any number of sessions.

    The same request at the same time gives the same answer, but for the ids of calls. `now` gives
    the time, for tests; it takes the place of the clock and of `timezone`.
    """

    Settings = BuiltinSettings
    capabilities = base.Capabilities(languages=("en",), licence="Apache-2.0")
    sees = False

    def __init__(
        self, settings: BuiltinSettings, now: Callable[[], datetime] | None = None
    ) -> None:
        self._settings = settings
        self._now = now or _clock(settings.timezone)

    async def generate(self, request: base.ChatRequest) -> AsyncGenerator[base.ChatEvent]:
        """See engines.base.LLM. A call that does not fit into max_output_tokens is not begun."""
        told = [request.instructions, *map(_text, request.items)]
        told += [text for tool in request.tools for text in (tool.name, tool.description or "")]
        exchange = _read(request.items[-_MAX_ITEMS:])
        made = _choose(request, exchange)
        await asyncio.sleep(0)
        limit = 2**31 if request.max_output_tokens is None else request.max_output_tokens
        reason: Literal["stop", "length"] = "stop"
        spent = 0
        if isinstance(made, _Call):
            arguments = json.dumps(made.arguments, ensure_ascii=False)
            cost = tokens(made.name) + tokens(arguments)
            if cost > limit:
                reason = "length"
            else:
                spent = cost
                yield base.CallStarted(0, f"call_{uuid.uuid4().hex[:24]}", made.name)
                yield base.CallDelta(0, arguments)
        else:
            for word in _WORD.findall(made or replies.answer(exchange, self._now())):
                if spent + tokens(word) > limit:
                    reason = "length"
                    break
                spent += tokens(word)
                yield base.TextDelta(word)
                pace = self._settings.words_per_second
                await asyncio.sleep(1 / pace if pace else 0)
        yield base.ChatEnded(reason, base.ChatUsage(sum(map(tokens, told)), spent))


def tokens(text: str) -> int:
    """Estimated tokens of an English text: its characters over five, rounded up."""
    return -(-len(text) // 5)


def _clock(timezone: str) -> Callable[[], datetime]:
    if not timezone:
        return lambda: datetime.now().astimezone()
    try:
        zone = ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError) as exc:
        raise SettingsError(
            f"[llm.builtin] unknown timezone {timezone!r}; use a name such as Europe/Rome"
        ) from exc
    return lambda: datetime.now(zone)


def _text(item: Item) -> str:
    if isinstance(item, items.FunctionCall):
        return f"{item.name} {item.arguments}"
    if isinstance(item, items.FunctionCallOutput):
        return item.output
    texts = (getattr(p, "text", None) or getattr(p, "transcript", None) for p in item.content)
    return " ".join(text for text in texts if text)


def _read(history: Sequence[Item]) -> replies.Exchange:
    """The message that awaits an answer, and what came before it."""
    said: str | None = None
    earlier: list[str] = []
    last_answer, called = "", False
    for item in history:
        if isinstance(item, items.FunctionCall):
            called = True
        elif isinstance(item, Message) and item.role != "system":
            text = _text(item)[: replies.MAX_CHARS].strip()
            if item.role != "user":
                last_answer = f"{last_answer} {text}".strip() if said is None else text
            earlier += [] if said is None else [said]
            said = text if item.role == "user" else None
            called = False
    last = history[-1] if history else None
    result = last.output if isinstance(last, items.FunctionCallOutput) else None
    return replies.Exchange(said, earlier, last_answer, called, result)


def _choose(request: base.ChatRequest, exchange: replies.Exchange) -> _Call | str:
    """The call to be made, as tool_choice has it, else a question for a value, else ""."""
    choice, tools = request.tool_choice, request.tools[:_MAX_TOOLS]
    said = (exchange.said or "".join(exchange.earlier[-1:]))[:_MAX_CALL_CHARS]
    if isinstance(choice, items.ToolName):
        tools = tuple(tool for tool in request.tools if tool.name == choice.name)
    declined = exchange.said is None or exchange.called or _NO_CALL.match(said)
    if not tools or choice == "none" or (choice == "auto" and declined):
        return ""
    spoken = _keywords(said)
    tool = max(tools, key=lambda tool: _score(tool, spoken))
    if choice == "auto" and not _score(tool, spoken):
        return ""
    arguments, missing = _arguments(tool, said)
    if missing and choice == "auto":
        needed = " and the ".join(name.replace("_", " ") for name in missing)
        return f"For {replies.spaced(tool.name)} I need the {needed}. Please ask again with it."
    return _Call(tool.name, arguments | missing)


def _keywords(text: str) -> set[str]:
    """Words that carry meaning, without their commonest endings."""
    return {_ENDING.sub("", w) for w in _KEYWORD.findall(text.lower()) if w not in _COMMON}


def _score(tool: FunctionTool, spoken: set[str]) -> int:
    """0 where neither half of the name's keywords nor two of the description's were said."""
    name = _keywords(replies.spaced(tool.name))
    named = len(name & spoken)
    described = len(_keywords((tool.description or "")[:100]) & spoken)
    enough = described >= 2 or (named and 2 * named >= len(name))
    return 2 * named + described if enough else 0


def _arguments(tool: FunctionTool, said: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments from the sentence or their defaults; stand-ins for required ones without either.

    Optional arguments are given where one of their enum was said.
    """
    schema = tool.parameters if isinstance(tool.parameters, dict) else {}
    fields, required = schema.get("properties"), schema.get("required")
    fields = fields if isinstance(fields, dict) else {}
    required = [n for n in required if isinstance(n, str)] if isinstance(required, list) else []
    given: dict[str, Any] = {}
    missing: dict[str, Any] = {}
    asking = {*replies.spaced(tool.name).split(), *_COMMON}
    for name in list(dict.fromkeys([*required, *fields]))[:_MAX_PARAMETERS]:
        field = fields[name] if isinstance(fields.get(name), dict) else {}
        choices, kind = field.get("enum"), field.get("type", "string")
        choices = choices[:50] if isinstance(choices, list) else []
        kind = "enum" if choices else next(iter(kind), "") if isinstance(kind, list) else kind
        if name not in required and not choices:
            continue
        value, words = _value(kind, choices, said, asking)
        if value is not None:
            given[name], said = value, said.replace(words, " ", 1)
        elif name in required and "default" in field:
            given[name] = field["default"]
        elif name in required and kind in ("array", "object", "null"):
            given[name] = _EMPTY[kind]
        elif name in required:
            missing[name] = choices[0] if choices else _EMPTY.get(str(kind), said)
    return given, missing


def _value(kind: object, choices: list[Any], said: str, asking: set[str]) -> tuple[Any, str]:
    """The value that the sentence gives, and its words; None: no value.

    A string is the words after a preposition, else those that are not in `asking`.
    """
    for choice in choices:
        words = re.escape(str(choice)[:100].replace("_", " "))
        if found := re.search(rf"\b{words}\b", said, re.IGNORECASE):
            return choice, found[0]
    if kind in ("integer", "number") and (found := replies.NUMBER.search(said)):
        value = replies.number(found[0])
        return round(value) if kind == "integer" else float(value), found[0]
    if kind == "boolean" and (found := _FLAG.search(said)):
        return found[1] is not None, found[0]
    if kind != "string":
        return None, ""
    for phrase in (found[1].strip(" ,") for found in _PHRASE.finditer(said)):
        if _other_words(phrase, asking):
            return phrase, phrase
    words = " ".join(_other_words(said, asking))
    return words or None, words


def _other_words(text: str, asking: set[str]) -> list[str]:
    words = re.findall(r"\w[\w'-]*", text)
    return [word for word in words if word.lower().partition("'")[0] not in asking]
