"""A language model that judges a conversation, and one that speaks for its user.

Any endpoint that speaks OpenAI's chat completions, this server's included.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import aiohttp

from vivavoce.errors import SettingsError
from vivavoce.scenarios.files import ScenarioUser
from vivavoce.secret import Secret

TIMEOUT_S: Final = 120.0
OVER: Final = "[DONE]"
"""What the model says in place of the user's words when the conversation is over."""
MAX_ERROR_CHARACTERS: Final = 300
JUDGE: Final = """\
You check conversations between a user and a voice assistant. You are given a transcript and a \
numbered list of statements. For each statement decide whether the transcript shows that it is \
true. Judge only by the transcript. Answer with JSON and nothing else: \
{"verdicts": [{"true": true, "reason": "one short sentence"}, ...]}, one verdict for each \
statement, in their order."""
USER: Final = """\
You play the user of a voice assistant in a test. Your goal: {goal}{manner}
Answer with the next words that the user says aloud, one or two short spoken sentences, and \
nothing else. Give facts only when they are asked for, or needed.
As soon as the goal is reached, or it is \
clear that it cannot be reached, answer with {over} alone."""


class JudgedStatement(NamedTuple):
    """What the model says of one statement."""

    statement: str
    holds: bool
    reason: str


@dataclass(frozen=True, slots=True)
class ChatClient:
    """A model behind POST /chat/completions."""

    base_url: str
    """http://localhost:8080/v1"""
    model: str
    api_key: Secret = Secret()

    async def ask(self, messages: list[dict[str, str]]) -> str:
        """The text of its answer. Raises SettingsError: there is none."""
        headers = {"Authorization": f"Bearer {self.api_key.reveal()}"} if self.api_key else {}
        url = f"{self.base_url.rstrip('/')}/chat/completions"
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, headers=headers) as http,
                http.post(url, json={"model": self.model, "messages": messages}) as reply,
            ):
                text = await reply.text()
                if reply.status != 200:
                    why = f"status {reply.status}: {text[:MAX_ERROR_CHARACTERS]}"
                    raise SettingsError(f"the language model at {url} answers with {why}")
        except (aiohttp.ClientError, TimeoutError, ValueError) as exc:
            why = str(exc) or "it takes too long"
            raise SettingsError(
                f"the language model at {url} cannot be asked: {why}; check --llm"
            ) from exc
        try:
            content = json.loads(text)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError) as exc:
            raise SettingsError(f"what answers at {url} is no chat completion") from exc
        return str(content or "")


def transcript_of(said: Iterable[tuple[str, str]]) -> str:
    """A conversation as text: pairs of what the user and the assistant have said."""
    lines = []
    for user, answer in said:
        lines.append(f"User: {user}")
        lines.append(f"Assistant: {answer or '(says nothing)'}")
    return "\n".join(lines)


async def judged(
    endpoint: ChatClient,
    said: Sequence[tuple[str, str]],
    statements: Sequence[str],
    calls: Sequence[str] = (),
) -> list[JudgedStatement]:
    """A verdict for each statement. calls: functions that were called, as text.

    Raises SettingsError: the model cannot be asked, or its answer has no verdicts.
    """
    numbered = "\n".join(f"{number}. {text}" for number, text in enumerate(statements, 1))
    called = f"\n\nFunctions that the assistant called:\n{chr(10).join(calls)}" if calls else ""
    request = f"Transcript:\n{transcript_of(said)}{called}\n\nStatements:\n{numbered}"
    answer = await endpoint.ask(
        [{"role": "system", "content": JUDGE}, {"role": "user", "content": request}]
    )
    found = _verdicts(answer)
    if len(found) != len(statements):
        raise SettingsError(
            f"the judge {endpoint.model} gave {len(found)} verdicts for {len(statements)} "
            f"statements: {answer[:MAX_ERROR_CHARACTERS]!r}; try another --llm-model"
        )
    return [
        JudgedStatement(statement, verdict.get("true") is True, str(verdict.get("reason") or ""))
        for statement, verdict in zip(statements, found, strict=True)
    ]


def _verdicts(answer: str) -> list[dict[str, Any]]:
    """The verdicts in an answer, which may have text around its JSON."""
    start, end = answer.find("{"), answer.rfind("}")
    try:
        found = json.loads(answer[start : end + 1])["verdicts"]
    except (ValueError, LookupError, TypeError):
        return []
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


async def next_words(
    endpoint: ChatClient, user: ScenarioUser, said: Sequence[tuple[str, str]]
) -> str:
    """What the user says next; "": the conversation is over. Raises SettingsError."""
    manner = f"\nHow you speak: {user.manner}" if user.manner else ""
    system = USER.format(goal=user.goal, manner=manner, over=OVER)
    messages = [{"role": "system", "content": system}]
    for words, answer in said:  # the user is the model's own side
        messages.append({"role": "assistant", "content": words})
        messages.append({"role": "user", "content": answer or "(The assistant says nothing.)"})
    if not said:
        messages.append({"role": "user", "content": "(The call begins. Speak first.)"})
    answer = (await endpoint.ask(messages)).strip()
    return "" if OVER in answer else answer
