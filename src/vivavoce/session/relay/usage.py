"""Usage of a response or a transcription, as an upstream server reports it."""

import math
from typing import Any

import msgspec

from vivavoce.protocol.responses import DurationUsage, InputTokens, OutputTokens, Usage
from vivavoce.protocol.upstream import UpstreamResponse


def usage_of(response: UpstreamResponse) -> Usage | None:
    """The usage as the upstream server counted it; None where it is missing or malformed."""
    if not response.usage:
        return None
    try:
        return msgspec.convert(response.usage, Usage)
    except msgspec.ValidationError:
        return None


class _TranscriptionTokens(msgspec.Struct):
    """The usage of a transcription that is billed by tokens."""

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    input_token_details: InputTokens = InputTokens()


class _TranscriptionDuration(msgspec.Struct):
    seconds: float


def transcription_usage_of(usage: Any) -> Usage | DurationUsage | None:
    """The usage of a transcription; None where it is malformed."""
    try:
        if isinstance(usage, dict) and "seconds" in usage:
            seconds = msgspec.convert(usage, _TranscriptionDuration).seconds
            return DurationUsage(max(0, math.ceil(seconds)))
        tokens = msgspec.convert(usage, _TranscriptionTokens)
    except (msgspec.ValidationError, ValueError, OverflowError):
        return None
    return Usage(
        tokens.total_tokens,
        tokens.input_tokens,
        tokens.output_tokens,
        tokens.input_token_details,
        OutputTokens(text_tokens=tokens.output_tokens),
    )
