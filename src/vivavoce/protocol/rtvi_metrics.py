"""The `metrics` of RTVI: times and amounts of one response, in the lists of Pipecat's server."""

from collections.abc import Callable, Iterator
from typing import Any

from vivavoce.protocol.responses import Response
from vivavoce.protocol.rtvi_messages import write
from vivavoce.protocol.rtvi_user import UserMessages


class ResponseMetrics:
    """Measures the response that is being generated. `clock` gives unix seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.model = ""
        self._clock = clock
        self._response_id = ""
        self._began = 0.0
        self._first: dict[str, float] = {}  # seconds to the first output, by processor

    def begin(self, response_id: str) -> None:
        self._response_id, self._began = response_id, self._clock()
        self._first = {}

    def first(self, processor: str, response_id: str) -> None:
        """The first output of "llm" or "tts". Later outputs of the same response do not count."""
        if response_id == self._response_id:
            self._first.setdefault(processor, self._elapsed)

    def report(self, response: Response, user: UserMessages, characters: int) -> Iterator[bytes]:
        """The message for a response that has ended. characters: the length of its spoken text."""
        lists: dict[str, list[dict[str, Any]]] = {}

        def add(name: str, processor: str, **values: Any) -> None:
            item = {"processor": processor, "model": self.model, **values}
            lists.setdefault(name, []).append(item)

        if user.transcript_delay is not None:
            add("ttfb", "stt", value=round(user.transcript_delay, 6))
            user.transcript_delay = None
        if user.heard_seconds:
            add("stt_usage", "stt", value={"audio_seconds": user.heard_seconds})
            user.heard_seconds = 0
        if response.id == self._response_id:
            for processor, seconds in self._first.items():
                add("ttfb", processor, value=seconds)
            add("processing", "llm", value=self._elapsed)
        if usage := response.usage:
            add(
                "tokens",
                "llm",
                prompt_tokens=usage.input_tokens,
                completion_tokens=usage.output_tokens,
                total_tokens=usage.total_tokens,
            )
        if characters:
            add("characters", "tts", value=characters)
        if lists:
            yield write("metrics", lists)

    @property
    def _elapsed(self) -> float:
        return max(0.0, round(self._clock() - self._began, 6))
