"""What the engines of a recorded call answered, so that they can be asked again at other times."""

import re
from bisect import bisect_right
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from vivavoce.replay.levels import facts_of
from vivavoce.session.facts import (
    AnticipationEnded,
    AudioGenerated,
    DraftTranscribed,
    Fact,
    GenerationFinished,
    OutputFinished,
    TextGenerated,
    ToolFinished,
    TranscriptUpdated,
    TurnScored,
    VadScores,
)
from vivavoce.telemetry.recording import CallRecording, RecordedEntry

SPEECH = 0.5
"""A window with at least that probability is speech, where words are laid out in time."""
USUAL_DELAY_S = 0.3
"""The delay of a final transcript if none was recorded."""
CANCELLED_END_S = 2.0
"""An answer that was cancelled ends so long after its last part, where it is not cancelled now."""
NOT_RECORDED = "(no answer was recorded)"


@dataclass(slots=True)
class RecordedOrder:
    """One order to an engine, and what came of it: seconds after the order, and the fact."""

    at: float
    answers: list[tuple[float, Fact]] = field(default_factory=list)

    def add(self, at: float, fact: Fact) -> None:
        self.answers.append((at - self.at, fact))


class WordTimeline:
    """The words of the user, each at the moment at which it was spoken, as far as that is known.

    The words of a recording are laid over its speech evenly.
    """

    def __init__(self) -> None:
        self._words: list[tuple[float, str]] = []

    def add(self, text: str, speech: list[float], begin: float, end: float) -> None:
        """The text of a recording that began and ended then; speech: times of its windows."""
        words = text.split()
        spoken = [at for at in speech if begin - 1.0 <= at <= end] or [begin]
        for number, word in enumerate(words):
            self._words.append((spoken[number * len(spoken) // len(words)], word))

    def between(self, begin: float, end: float) -> str:
        """The words after `begin`, up to `end`."""
        times = [at for at, _ in self._words]
        chosen = self._words[bisect_right(times, begin) : bisect_right(times, end)]
        return " ".join(word for _, word in chosen)


class RecordedAnswers:
    """The answers of a recording, by the kind and the number of the order that they are for."""

    def __init__(self, recording: CallRecording) -> None:
        """Raises RecordingError."""
        self.words = WordTimeline()
        self.updates: list[float] = []
        """When more words of the user were recognised."""
        self.external: list[tuple[float, Fact | RecordedEntry]] = []
        """What did not follow from an order: the client, scores of voice activity, upstream."""
        self.fallback = ""
        """The model that took over in the recording."""
        self._delays: list[float] = []  # of final transcripts
        self._orders: dict[str, deque[RecordedOrder]] = defaultdict(deque)
        self._scores: dict[str, float] = {}  # by text
        self._by_id: dict[str, RecordedOrder] = {}
        self._began: dict[str, float] = {}  # of recordings, by item
        self._ended: dict[str, float] = {}
        self._speech: list[float] = []
        self._texts: dict[str, str] = {}  # that ScoreTurn was asked about, by item
        for entry, fact in facts_of(recording):
            self._read(entry, fact)

    def next(self, kind: str) -> RecordedOrder | None:
        """What came of the next order of that kind; None: there was none."""
        orders = self._orders[kind]
        return orders.popleft() if orders else None

    def generation(self, response_id: str) -> list[tuple[float, Fact]]:
        """The facts of the next generation, for that response."""
        order = self.next("generation")
        if order is None:
            silence = AudioGenerated(response_id, bytes(48_000), (), ends=True)
            return [
                (0.0, TextGenerated(response_id, NOT_RECORDED)),
                (0.0, silence),
                (0.0, GenerationFinished(response_id, "stop")),
                (0.0, OutputFinished(response_id)),
            ]
        facts = [(delay, _renamed(fact, response_id)) for delay, fact in order.answers]
        kinds = {type(fact).__name__ for _, fact in facts}
        last = facts[-1][0] if facts else 0.0
        if not kinds & {"GenerationFailed", "OutputFinished"}:  # it was cancelled; now it may not
            last += CANCELLED_END_S
            if "GenerationFinished" not in kinds:
                facts.append((last, GenerationFinished(response_id, "stop")))
            facts.append((last, OutputFinished(response_id)))
        return facts

    def final_delay(self) -> float:
        """Seconds from the end of a recording to its final transcript, in the order of the call."""
        if len(self._delays) > 1:
            return self._delays.pop(0)
        return self._delays[0] if self._delays else USUAL_DELAY_S

    def turn_score(self, text: str) -> float | None:
        """The score that the text had; None: it was never scored."""
        return self._scores.get(text)

    def _read(self, entry: RecordedEntry, fact: Fact | None) -> None:
        if entry.passed or entry.brain == "relay":
            self.external.append((entry.at, entry))
        if entry.brain == "cascade":
            self.fallback = entry.model
        if fact is not None:
            self._read_fact(entry.at, fact)
        for name, fields in entry.effects:
            self._read_effect(entry.at, name, fields)

    def _read_effect(self, at: float, name: str, fields: dict[str, Any]) -> None:
        match name:
            case "StartTranscription":
                self._began[fields["key"][0]] = at
            case "EndAudio":
                self._ended[fields["key"][0]] = at
            case "Generate" | "Say":
                self._order("generation", fields["response_id"], at)
            case "DraftTranscript":
                self._order("draft", fields["draft_id"], at)
            case "Speculate":
                self._order("speculation", fields["speculation_id"], at)
            case "RunTool":
                self._order("tool", fields["call_id"], at)
            case "ScoreTurn":
                self._texts[fields["item_id"]] = fields["text"]

    def _order(self, kind: str, name: str, at: float) -> None:
        self._by_id[name] = order = RecordedOrder(at)
        self._orders[kind].append(order)

    def _read_fact(self, at: float, fact: Fact) -> None:
        match fact:
            case TranscriptUpdated(key=key, text=text, final=final):
                self._read_transcript(at, key.item_id, text, final=final)
            case TurnScored(item_id=item_id, likelihood=likelihood):
                self._scores[self._texts.get(item_id, "")] = likelihood
            case DraftTranscribed(draft_id=name) | AnticipationEnded(id=name):
                self._answer(name, at, fact)
            case ToolFinished(call_id=name):
                self._answer(name, at, fact)
            case VadScores(speech=speech):
                if max(speech, default=0.0) >= SPEECH:
                    self._speech.append(at)
                self.external.append((at, fact))
            case _ if (response_id := getattr(fact, "response_id", None)) is not None:
                self._answer(response_id, at, fact)
            case _ if type(fact).__name__ not in ("TimerFired", "AudioPlayed"):
                self.external.append((at, fact))

    def _read_transcript(self, at: float, item_id: str, text: str, *, final: bool) -> None:
        if not final:
            self.updates.append(at)
            return
        ended = self._ended.get(item_id, at)
        self._delays.append(max(0.0, at - ended))
        self.words.add(text, self._speech, self._began.get(item_id, ended), ended)

    def _answer(self, name: str, at: float, fact: Fact) -> None:
        if (order := self._by_id.get(name)) is not None:
            order.add(at, fact)


def _renamed(fact: Any, response_id: str) -> Any:
    return replace(fact, response_id=response_id)


class IdMap:
    """Which id of the session stands for which id of the recording: by kind and order."""

    def __init__(self, salt: str) -> None:
        self._ids = re.compile(rf"\b(item|resp)_{re.escape(salt)}[0-9a-f]{{5,}}")
        self._recorded: dict[str, tuple[str, int]] = {}
        self._known: dict[str, list[str]] = {"item": [], "resp": []}
        self._counts = {"item": 0, "resp": 0}

    def note_recorded(self, text: str) -> None:
        """Take the ids of an effect of the recording."""
        for found in self._ids.finditer(text):
            if found[0] not in self._recorded:
                self._recorded[found[0]] = (found[1], self._counts[found[1]])
                self._counts[found[1]] += 1

    def note(self, text: str) -> None:
        """Take the ids of an effect of now."""
        for found in self._ids.finditer(text):
            if found[0] not in self._known[found[1]]:
                self._known[found[1]].append(found[0])

    def translated(self, text: str) -> str:
        """A text of the recording with the ids of now."""
        return self._ids.sub(lambda found: self._of(found[0]), text)

    def _of(self, name: str) -> str:
        kind, number = self._recorded.get(name, ("item", -1))
        known = self._known[kind]
        return known[number] if 0 <= number < len(known) else name
