"""The text of answers as messages of RTVI: sentences as generated, and as spoken."""

import re
from collections import deque
from collections.abc import Iterator
from typing import Any

import msgspec

from vivavoce.audio.formats import RATE
from vivavoce.protocol.rtvi_messages import write

SPEECH_RATE = 15.0  # characters a second, until an answer was measured
_SENTENCE_END = re.compile(r"(?<=[.!?…])\s+|(?<=[\u3002\uff01\uff1f])")


class AnswerSentence(msgspec.Struct):
    """A sentence of an answer."""

    id: int
    response_id: str
    text: str
    begins: int
    """Characters of the answer before this sentence."""
    shown: bool = False


class AnswerText:
    """The text of the response that is being generated, sentence by sentence."""

    def __init__(self) -> None:
        self.characters = 0
        """Characters of the answer before the sentence that has begun."""
        self._rest = ""  # the beginning of the next sentence
        self._count = 0

    def begin(self) -> None:
        """Another response begins."""
        self._rest, self.characters = "", 0

    def add(self, response_id: str, delta: str) -> Iterator[AnswerSentence]:
        """The sentences that these characters complete."""
        *whole, self._rest = _SENTENCE_END.split(self._rest + delta)
        yield from self._sentences(response_id, whole)

    def end(self, response_id: str) -> Iterator[AnswerSentence]:
        """The rest, as a sentence."""
        rest, self._rest = self._rest, ""
        yield from self._sentences(response_id, _SENTENCE_END.split(rest))

    def _sentences(self, response_id: str, texts: list[str]) -> Iterator[AnswerSentence]:
        for text in filter(None, map(str.strip, texts)):
            self._count += 1
            sentence = AnswerSentence(self._count, response_id, text, self.characters)
            self.characters += len(text) + 1
            yield sentence


class SpokenText:
    """The sentences of the answers that are played.

    Which sentence is being spoken is estimated, from the speech rate of the answer before.
    """

    def __init__(self) -> None:
        self.playing_id = ""
        """The response that is being played."""
        self._cleared = ""  # the last response that was cleared
        self._played = 0  # of its audio
        self._rate = SPEECH_RATE
        self._sentences: deque[AnswerSentence] = deque()

    def add(self, sentence: AnswerSentence) -> None:
        """It will be spoken, unless its response was cleared."""
        if sentence.response_id != self._cleared:
            self._sentences.append(sentence)

    def started(self, response_id: str) -> None:
        self.playing_id, self._played = response_id, 0

    def played(self, samples: int) -> Iterator[bytes]:
        """So many samples of the answer go out now."""
        self._played += samples
        characters = self._played / RATE * self._rate
        own = self._of(self.playing_id)
        for index, sentence in enumerate(own):
            if sentence.begins > characters:
                break
            if index:
                yield from self._complete(own[index - 1])
            if not sentence.shown:
                sentence.shown = True
                yield bot_output(sentence, "new", spoken=True)

    def stopped(self, response_id: str) -> Iterator[bytes]:
        """The whole answer was played."""
        own = self._of(response_id)
        for sentence in own:
            if not sentence.shown:
                yield bot_output(sentence, "new", spoken=True)
            yield from self._complete(sentence)
        if own and self._played:
            spoken = own[-1].begins + len(own[-1].text)
            self._rate = spoken / (self._played / RATE)
        self.playing_id = ""

    def cleared(self, response_id: str) -> None:
        """The rest of the answer is not played; the sentences in it are not completed."""
        self._cleared, self.playing_id = response_id, ""
        self._sentences = deque(e for e in self._sentences if e.response_id != response_id)

    def _of(self, response_id: str) -> list[AnswerSentence]:
        return [each for each in self._sentences if each.response_id == response_id]

    def _complete(self, sentence: AnswerSentence) -> Iterator[bytes]:
        self._sentences.remove(sentence)
        yield bot_output(sentence, "completed", spoken=True)
        yield write("bot-tts-text", {"text": sentence.text})


def bot_output(sentence: AnswerSentence, status: str, *, spoken: bool) -> bytes:
    """`spoken`: whether the text is spoken at all."""
    completed = status == "completed"
    data: dict[str, Any] = {
        "text": sentence.text,
        "output_type": "sentence",
        "text_type": "sentence",
        "aggregated_by": "sentence",
        "segment_id": sentence.id,
        "spoken": completed,
        "will_be_spoken": spoken,
        "spoken_status": status,
    }
    if spoken:
        said, left = (sentence.text, "") if completed else ("", sentence.text)
        data["spoken_progress"] = {"accumulated_text": said, "remaining_text": left}
    return write("bot-output", data)
