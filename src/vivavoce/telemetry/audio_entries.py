"""Entries of audio that goes on, in seven values each: nine of ten entries of a call are such.

They are scores of one window, appends, and pieces of an answer, each with the one effect that most
of them have. What has more in it is kept as any other entry.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias

from vivavoce.protocol.client import InputAudioAppend
from vivavoce.protocol.server import OutputAudioDelta
from vivavoce.session.effects import FeedAudio, RunVad, Send
from vivavoce.session.facts import (
    AudioGenerated,
    Received,
    TranscriptionKey,
    VadScores,
)

AudioEntry: TypeAlias = tuple[int, float, Any, Any, Any, Any, Any]
"""Which fact it is, its time, and five values of fact and effect; audio is its number of bytes."""
WIDTH: Final = 7
SCORE, APPEND, PIECE = range(3)
"""Entries of the facts VadScores, Received and AudioGenerated."""


def _score(fact: Any, effect: Any, now: float) -> AudioEntry | None:
    if len(fact.speech) != 1:
        return None
    if effect is None:
        return SCORE, now, fact.at, fact.speech[0], None, 0, 0
    if type(effect) is not FeedAudio:
        return None
    return SCORE, now, fact.at, fact.speech[0], *effect.key, len(effect.audio)


def _append(fact: Any, effect: Any, now: float) -> AudioEntry | None:
    event = fact.event
    if type(event) is not InputAudioAppend:
        return None
    if effect is None:
        return APPEND, now, event.event_id, len(event.audio), None, 0, 0
    if type(effect) is not RunVad:
        return None
    return APPEND, now, event.event_id, len(event.audio), effect.at, len(effect.audio), 0


def _piece(fact: Any, effect: Any, now: float) -> AudioEntry | None:
    if fact.words or fact.ends or type(effect) is not Send:
        return None
    event, size = effect.event, len(fact.audio)
    if type(event) is not OutputAudioDelta or event.content_index or len(event.delta) != size:
        return None
    return PIECE, now, event.response_id, size, event.event_id, event.item_id, event.output_index


AUDIO_ENTRY: Final[dict[type, Callable[[Any, Any, float], AudioEntry | None]]] = {
    VadScores: _score,
    Received: _append,
    AudioGenerated: _piece,
}
"""By type of fact: makes the entry of a fact and its one effect, or None; None: there is more in
it."""


def entries_of(
    run: list[Any],
) -> Iterator[tuple[float, str, Any, tuple[tuple[str, Any], ...], Any]]:
    """Of the values of several entries, one after the other: what is kept of any other entry."""
    for kind, now, *values in zip(*[iter(run)] * WIDTH, strict=True):
        fact, effect = _RESTORED[kind](*values)
        effects = () if effect is None else ((type(effect).__name__, effect),)
        yield now, type(fact).__name__, fact, effects, ()


def _scored(at: Any, speech: Any, item_id: Any, index: Any, size: Any) -> tuple[Any, Any]:
    fact = VadScores(at, (speech,))
    return fact, None if item_id is None else FeedAudio(TranscriptionKey(item_id, index), size)


def _appended(event_id: Any, size: Any, at: Any, scored: Any, _: Any) -> tuple[Any, Any]:
    fact = Received(InputAudioAppend(event_id=event_id, audio=size))
    return fact, None if at is None else RunVad(at, scored)


def _spoken(response: Any, size: Any, event: Any, item: Any, index: Any) -> tuple[Any, Any]:
    delta = OutputAudioDelta(
        event_id=event, response_id=response, item_id=item, output_index=index, delta=size
    )
    return AudioGenerated(response, size), Send(delta)


_RESTORED = {SCORE: _scored, APPEND: _appended, PIECE: _spoken}
