"""Scores how likely it is that a turn is finished: by words, sound, and a language model."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing

from vivavoce.engines.base import AudioTurnModel, ChatEnded, ChatRequest, TextDelta
from vivavoce.errors import EngineError
from vivavoce.protocol.items import InputText, Message
from vivavoce.runtime.catalog import Cascade
from vivavoce.runtime.tasks import Tasks
from vivavoce.runtime.text_generation import token_counts
from vivavoce.session.effects import ScoreTurn
from vivavoce.session.facts import TokenCounts, TurnScored, TurnSource

log = logging.getLogger(__name__)

SCORE_TIMEOUT_S = (
    0.5  # a later score would hold up a finished turn, which ends after 0.4 s of silence
)
UNDECIDED = 0.5
"""The likelihood if an engine fails, or a language model answers neither yes nor no."""
ASK_WHETHER_FINISHED = """\
Somebody talks to a voice assistant and pauses. Say whether the person has finished, so that the \
assistant may answer, or will probably go on. Answer with one word: yes (finished) or no."""
LIKELY = {"yes": 0.9, "no": 0.1}
"""The likelihood of a finished turn, by the first word of the answer."""
MAX_JUDGED_TOKENS = 8


class TurnScorer:
    """Scores the turns of one session."""

    def __init__(self, cascade: Cascade, tasks: Tasks, post: Callable[[TurnScored], None]) -> None:
        self._cascade = cascade
        self._tasks = tasks
        self._post = post
        self._failing: set[TurnSource] = set()  # the sources that failed in the last attempt

    def score(self, order: ScoreTurn) -> None:
        """Post a TurnScored for each source; a later request replaces this one."""
        by_sound = order.audio and isinstance(self._cascade.turn, AudioTurnModel)
        if order.text or not by_sound:
            self._tasks.start("score words", self._score(order, "words"))
        if by_sound:
            self._tasks.start("score sound", self._score(order, "sound"))
        if order.llm_timeout_s:
            self._tasks.start("score llm", self._score(order, "llm"))

    async def _score(self, order: ScoreTurn, source: TurnSource) -> None:
        turn, text, language = self._cascade.turn, order.text, order.language
        tokens: TokenCounts | None = None
        seconds = order.llm_timeout_s if source == "llm" else SCORE_TIMEOUT_S
        try:
            async with asyncio.timeout(seconds):
                if source == "llm":
                    likelihood, tokens = await _score_with_llm(self._cascade, order)
                elif source == "sound" and isinstance(turn, AudioTurnModel):
                    likelihood = await turn.score_audio(order.audio, text, language=language)
                else:
                    likelihood = await turn.score(text, language=language)
            self._failing.discard(source)
        except (EngineError, TimeoutError) as exc:
            if source not in self._failing:
                reason = str(exc) or f"no score came within {seconds:g} s"
                log.warning("turn detection fails, turns end without the %s: %s", source, reason)
            self._failing.add(source)
            likelihood = UNDECIDED
        self._post(TurnScored(order.item_id, likelihood, source, tokens))


async def _score_with_llm(cascade: Cascade, order: ScoreTurn) -> tuple[float, TokenCounts | None]:
    """The likelihood of a finished turn according to the language model, and the tokens used, if it
    reports them. Raises EngineError."""
    asked = f"The assistant: {order.before}\nThe person: {order.text}"
    request = ChatRequest(
        instructions=ASK_WHETHER_FINISHED,
        items=(Message(role="user", content=(InputText(asked),)),),
        tool_choice="none",
        max_output_tokens=MAX_JUDGED_TOKENS,
        language=order.language,
        model=cascade.choice.model(""),
    )
    text, tokens = "", None
    async with cascade.use_llm("") as llm, aclosing(llm.generate(request)) as events:
        async for event in events:
            match event:
                case TextDelta(text=more):
                    text += more
                case ChatEnded(usage=usage):
                    tokens = token_counts(usage)
    word = text.strip().lower().rstrip(".!")
    return LIKELY.get(word, UNDECIDED), tokens
