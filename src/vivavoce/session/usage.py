"""Usage of responses and transcriptions, in the units of the protocol."""

from typing import Protocol, assert_never

import msgspec

from vivavoce.audio.formats import RATE
from vivavoce.protocol.items import FunctionCall, FunctionCallOutput, Item, Message
from vivavoce.protocol.responses import (
    CachedTokens,
    DurationUsage,
    InputTokens,
    OutputTokens,
    SessionUsage,
    Usage,
)
from vivavoce.session.effects import EffectBuffer, RecordUsage
from vivavoce.session.facts import TokenCounts

HEARD_TOKEN = RATE // 10  # samples of a user's speech: 1 token per 100 ms
SPOKEN_TOKEN = RATE // 20  # samples of an answer: 1 token per 50 ms
CHARACTERS_PER_TOKEN = 4  # where the model does not count them


def estimate(text: str) -> int:
    """The estimated tokens of a text."""
    return tokens_in(len(text))


def tokens_in(characters: int) -> int:
    """The estimated tokens of this many characters."""
    return -(-characters // CHARACTERS_PER_TOKEN)


def words_of(item: Item) -> str:
    """All text of an item."""
    match item:
        case Message(content=content):
            parts = (getattr(p, "text", None) or getattr(p, "transcript", None) for p in content)
            return " ".join(part for part in parts if part)
        case FunctionCall(name=name, arguments=arguments):
            return f"{name} {arguments}"
        case FunctionCallOutput(output=output):
            return output
        case _:
            assert_never(item)


def response_usage(
    tokens: TokenCounts | None, *, context: int, heard: int, said: str, spoken: int
) -> Usage:
    """The usage of a response.

    tokens: the model's own count of text tokens, where it gave one. context: estimated text tokens
    of the prompt. heard, spoken: samples of user audio in the prompt and of audio in the answer.
    """
    text_in = tokens.input if tokens else context
    text_out = tokens.output if tokens else estimate(said)
    cached = min(tokens.cached, text_in) if tokens else 0
    audio_in, audio_out = -(-heard // HEARD_TOKEN), -(-spoken // SPOKEN_TOKEN)
    return Usage(
        total_tokens=text_in + audio_in + text_out + audio_out,
        input_tokens=text_in + audio_in,
        output_tokens=text_out + audio_out,
        input_token_details=InputTokens(
            text_tokens=text_in,
            audio_tokens=audio_in,
            cached_tokens=cached,
            cached_tokens_details=CachedTokens(text_tokens=cached),
        ),
        output_token_details=OutputTokens(text_tokens=text_out, audio_tokens=audio_out),
    )


def transcription_usage(samples: int) -> DurationUsage:
    """Whole seconds, rounded up, silence included."""
    return DurationUsage(seconds=-(-samples // RATE))


def tokens_of(usage: Usage | DurationUsage) -> int:
    """All tokens; a second of transcribed audio counts as many as in a prompt."""
    if isinstance(usage, Usage):
        return usage.total_tokens
    return usage.seconds * RATE // HEARD_TOKEN


class UsageTotals(msgspec.Struct):
    """The usage of a session so far. It only grows."""

    responses: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    transcribed_seconds: int = 0
    speculative_tokens: int = 0
    """Tokens of work that was begun early and not used, ten for a second of audio.

    They count in the cost, and in no other sum.
    """
    nano_usd: int = 0

    def add(self, record: RecordUsage, nano_usd: int = 0) -> None:
        """Add the usage of one response or transcription, and its cost."""
        self.nano_usd += nano_usd
        if record.kind == "speculative":
            self.speculative_tokens += tokens_of(record.usage)
            return
        self.responses += record.kind == "response"
        if isinstance(record.usage, Usage):
            self.input_tokens += record.usage.input_tokens
            self.output_tokens += record.usage.output_tokens
        else:
            self.transcribed_seconds += record.usage.seconds


class Costs(Protocol):
    """The cost of a session's usage, in nano-USD."""

    def cost(self, record: RecordUsage) -> int: ...

    def time_cost(self, seconds: float) -> int:
        """The cost of a session of this length."""
        ...


class UsageMeter:
    """Adds up the usage of a session, and reports each response and transcription to observers."""

    def __init__(
        self,
        effects: EffectBuffer,
        totals: UsageTotals | None = None,
        costs: Costs | None = None,
        begun_at: float = 0.0,
    ) -> None:
        """costs: None: nothing has a price. begun_at: by the clock of facts."""
        self.totals = msgspec.structs.replace(totals) if totals else UsageTotals()
        self._effects = effects
        self._costs = costs
        self._begun_at = begun_at
        self._last_nano_usd = 0  # of a response

    def add(self, record: RecordUsage) -> None:
        """Add the usage of one response or transcription."""
        cost = self._costs.cost(record) if self._costs else 0
        if record.kind == "response":
            self._last_nano_usd = cost
        self.totals.add(record, cost)
        self._effects.add(record)

    def so_far(self, now: float) -> SessionUsage:
        """The usage of the session, as a client sees it."""
        totals, seconds = self.totals, now - self._begun_at
        return SessionUsage(
            responses=totals.responses,
            input_tokens=totals.input_tokens,
            output_tokens=totals.output_tokens,
            transcribed_seconds=totals.transcribed_seconds,
            seconds=round(seconds, 3),
            nano_usd=totals.nano_usd + (self._costs.time_cost(seconds) if self._costs else 0),
            response_nano_usd=self._last_nano_usd,
        )
