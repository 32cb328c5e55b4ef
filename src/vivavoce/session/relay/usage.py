"""Usage of a response or a transcription, as an upstream server reports it."""

import math
from typing import Any

import msgspec

from vivavoce.protocol.responses import DurationUsage, InputTokens, OutputTokens, Usage
from vivavoce.protocol.upstream import UpstreamEvent, UpstreamResponse
from vivavoce.session.brain import Shared
from vivavoce.session.effects import RecordUsage


class RelayUsage:
    """Records the usage of a relayed session."""

    __slots__ = ("_shared",)

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    def add(self, response_id: str, usage: Usage | None) -> None:
        """That of a response. None: the upstream server has not reported it."""
        model = self._shared.options.served_by.model
        record = RecordUsage(response_id, model, usage or Usage(), confirmed=usage is not None)
        self._shared.usage.add(record)

    def add_transcription(self, event: UpstreamEvent) -> None:
        """Transcription is billed in addition to the response, at the recogniser's own price."""
        usage = transcription_usage_of(event.usage)
        if usage is not None:
            asked, model = self._shared.options.transcription, self._shared.options.served_by.model
            record_id = f"{event.item_id}:{event.content_index}"
            recogniser = asked.model if asked else model
            self._shared.usage.add(
                RecordUsage(record_id, model, usage, "transcription", recogniser=recogniser)
            )


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
