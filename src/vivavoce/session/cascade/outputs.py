"""The items that a response puts out: a message in sound or in words, and calls of functions."""

from dataclasses import dataclass
from typing import TypeAlias

from vivavoce.audio.formats import Encoder, Format
from vivavoce.protocol import server as says
from vivavoce.protocol.items import FunctionCall, Item, Message, OutputAudio, OutputText, Status
from vivavoce.session.effect_buffer import EffectBuffer
from vivavoce.session.facts import SpokenWord
from vivavoce.session.ledger import Ledger


@dataclass(frozen=True, slots=True)
class OutputPlace:
    """Where an output stands: in which response, as which item, at which index."""

    response_id: str
    item_id: str
    index: int


class SpokenMessage:
    """A message in sound, with its transcript and the ledger that joins the two."""

    def __init__(self, place: OutputPlace, outbox: EffectBuffer, format_: Format) -> None:
        self.place = place
        self.ledger = Ledger()
        self._outbox = outbox
        self._encoder = Encoder(format_)

    def item(self, status: Status) -> Item:
        content = () if status == "in_progress" else (OutputAudio(transcript=self.ledger.text),)
        return Message(id=self.place.item_id, status=status, role="assistant", content=content)

    def begin(self) -> None:
        self._tell(says.ContentPartAdded, part=says.ShownPart(type="audio", transcript=""))

    def speak(self, audio: bytes, words: tuple[SpokenWord, ...], *, send: bool = True) -> None:
        """Words first, then their sound, unless that goes to the ear by another way."""
        self.ledger.add(audio, words)
        if text := "".join(word.text for word in words):
            self._tell(says.OutputTranscriptDelta, delta=text)
        if send:
            self._send_audio(self._encoder.feed(audio))

    def finish(self, status: Status) -> None:
        """Nothing more is said; a cut-off message sends not even what the encoder still holds."""
        if status == "completed":
            self._send_audio(self._encoder.flush())
        text = self.ledger.text
        self._tell(says.OutputAudioDone)
        self._tell(says.OutputTranscriptDone, transcript=text)
        self._tell(says.ContentPartDone, part=says.ShownPart(type="audio", transcript=text))

    def _send_audio(self, audio: bytes) -> None:
        if audio:
            self._tell(says.OutputAudioDelta, delta=audio)

    def _tell(self, event: type[says.PartEvent], **fields: object) -> None:
        _tell_part(self._outbox, self.place, event, fields)


class WrittenMessage:
    """A message in words."""

    def __init__(self, place: OutputPlace, outbox: EffectBuffer) -> None:
        self.place = place
        self.text = ""
        self._outbox = outbox

    def item(self, status: Status) -> Item:
        content = () if status == "in_progress" else (OutputText(text=self.text),)
        return Message(id=self.place.item_id, status=status, role="assistant", content=content)

    def begin(self) -> None:
        self._tell(says.ContentPartAdded, part=says.ShownPart(type="text", text=""))

    def write(self, text: str) -> None:
        self.text += text
        self._tell(says.OutputTextDelta, delta=text)

    def finish(self, status: Status) -> None:
        self._tell(says.OutputTextDone, text=self.text)
        self._tell(says.ContentPartDone, part=says.ShownPart(type="text", text=self.text))

    def _tell(self, event: type[says.PartEvent], **fields: object) -> None:
        _tell_part(self._outbox, self.place, event, fields)


class CallOutput:
    """A call of a function. One that broke off is never told as done: nobody must run it."""

    def __init__(self, place: OutputPlace, outbox: EffectBuffer, call_id: str, name: str) -> None:
        self.place = place
        self.arguments = ""
        self._call_id = call_id
        self._name = name
        self._outbox = outbox

    def item(self, status: Status) -> Item:
        return FunctionCall(
            id=self.place.item_id,
            status=status,
            call_id=self._call_id,
            name=self._name,
            arguments=self.arguments,
        )

    def begin(self) -> None:
        """There are no parts to announce."""

    def argue(self, arguments: str) -> None:
        self.arguments += arguments
        self._outbox.send(
            says.FunctionArgumentsDelta(
                event_id=self._outbox.event_id(),
                response_id=self.place.response_id,
                item_id=self.place.item_id,
                output_index=self.place.index,
                call_id=self._call_id,
                delta=arguments,
            )
        )

    def finish(self, status: Status) -> None:
        if status == "completed":
            self._outbox.send(
                says.FunctionArgumentsDone(
                    event_id=self._outbox.event_id(),
                    response_id=self.place.response_id,
                    item_id=self.place.item_id,
                    output_index=self.place.index,
                    call_id=self._call_id,
                    name=self._name,
                    arguments=self.arguments,
                )
            )


Output: TypeAlias = SpokenMessage | WrittenMessage | CallOutput


def _tell_part(
    outbox: EffectBuffer, place: OutputPlace, event: type[says.PartEvent], fields: dict[str, object]
) -> None:
    made: says.AnyServerEvent = event(  # type: ignore[assignment]
        event_id=outbox.event_id(),
        response_id=place.response_id,
        item_id=place.item_id,
        output_index=place.index,
        **fields,  # type: ignore[arg-type]
    )
    outbox.send(made)
