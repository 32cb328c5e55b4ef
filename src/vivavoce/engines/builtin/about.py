"""What the partner says about itself, the server, and how to connect a real model."""

import re

from vivavoce.engines.builtin.situation import Situation
from vivavoce.engines.builtin.words import pick

CAPABILITIES = (
    "tell the time and the date",
    "do sums",
    "count",
    "spell a word",
    "repeat what you say",
    "tell a story",
    "call the functions of your app",
)
_CONNECT = re.compile(
    r"\b(?:how|where|can|could|connect|use|set|configure|want|add|switch)\b.{0,60}"
    r"\b(?:(?:real|other|another|better|different|own|language|proper|smarter|bigger|local|actual)"
    r" (?:\w+ )?(?:models?|llm|ai)|llm|ollama|l l m|openai|open ai|llama|vllm|lm studio|connect"
    r" (?:a |the |my )?model|api key)\b"
)
_MODEL = re.compile(
    r"\b(?:are|is this|is it) (?:you |a |an |the |just |really |actually |talking to ){0,4}"
    r"(?:ai|a i|artificial|robot|machine|human|person|real|computer|bot|chatbot|alive|gpt"
    r"|chat gpt|chatgpt|program|conscious|language model)\b"
    r"|\b(?:which|what) (?:\w+ )?(?:model|llm|ai|engine)\b|\bwhat kind of (?:ai|bot|model)\b"
    r"|\bhow (?:do|are) you (?:work|made|built)\b|\bam i (?:talking|speaking) to\b"
)
_WHO = re.compile(
    r"\b(?:who|what) (?:are|r) you\b|\byour name\b|\bintroduce yourself\b|\babout yourself\b"
    r"|\bwho is (?:this|there|speaking)\b"
)
_ABLE = re.compile(
    r"\bwhat (?:can|could|do|else can) (?:you|i|we) (?:do|ask|say|know|help)\b|\bhelp\b(?! me with)"
    r"|^say (?:something|anything)"
    r"|\bhow can you help\b|\byour (?:skills|abilities|capabilities|functions|features)\b"
    r"|\bwhat are you (?:able|good|capable)\b"
)
_SERVER = re.compile(
    r"\b(?:what|explain|about|tell)\b.{0,30}\b(?:this (?:server|service|thing|demo|program|app"
    r"|software)|vivavoce|viva voce|the server|server)\b|\bwhat is this\b$"
)


def answer(situation: Situation) -> str | None:
    """An answer to a question about the partner or the server, else None."""
    plain = situation.said.plain
    if _CONNECT.search(plain):
        return (
            "To connect a language model, set CHAT_COMPLETION_BASE_URL and CHAT_COMPLETION_MODEL,"
            " with CHAT_COMPLETION_API_KEY if it needs a key, or just OPENAI_API_KEY."
            " A local Ollama, llama.cpp, LM Studio or vLLM is found by itself."
        )
    if _MODEL.search(plain):
        return (
            f"I'm {_self(situation)} that works by rules: no language model is behind me."
            " I'm here so that the server can talk at once. Ask me how to connect a real model."
        )
    if _WHO.search(plain):
        if situation.manners.name:
            return f"I'm {situation.manners.name}. {able(plain)}"
        who = "I'm the built-in partner of Vivavoce, a small program that works by rules."
        return f"{who} {able(plain)}"
    if _SERVER.search(plain):
        return (
            "This is Vivavoce, a real-time voice server that you host yourself. It hears you,"
            " finds an answer and speaks it, and any client of the Realtime protocol can use it."
        )
    if _ABLE.search(plain):
        return able(plain)
    return None


def able(seed: str) -> str:
    """One sentence on what it can do, varied by the seed."""
    first = pick(CAPABILITIES, seed)
    at = CAPABILITIES.index(first)
    turned = CAPABILITIES[at:] + CAPABILITIES[:at]
    return f"I can {turned[0]}, {turned[1]} or {turned[3]}."


def _self(situation: Situation) -> str:
    name = situation.manners.name
    return f"{name}, a small program" if name else "a small program"
