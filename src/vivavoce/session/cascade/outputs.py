"""What a response puts out: a message, in audio or in text, and function calls.

Rules:
1. Every item that was announced is ended, however the response ends.
2. In the default conversation the items of a response are items of the conversation from the
   moment they are announced. Out of band there are no conversation events.
3. A function call is `completed` only if its arguments are a JSON object. Clients must not run any
   other call.
"""

from typing import Any, TypeAlias

import msgspec

from vivavoce.audio.formats import Encoder, Format
from vivavoce.protocol import server
from vivavoce.protocol.items import FunctionCall, Item, Message, OutputAudio, OutputText, Status
from vivavoce.session.conversation import Conversation, Entry
from vivavoce.session.effects import EffectBuffer
from vivavoce.session.facts import SpokenWord
from vivavoce.session.ledger import Ledger
from vivavoce.session.usage import words_of


class OutputPlace(msgspec.Struct, frozen=True):
    """The place of an output: its response, its item, and its index."""

    response_id: str
    item_id: str
    index: int


class _Part:
    """Sends the events of the one content part of a message."""

    def __init__(self, place: OutputPlace, effects: EffectBuffer) -> None:
        self._place = place
        self._effects = effects

    def send(self, event: type[server.PartEvent], **fields: Any) -> None:
        made: Any = event(
            event_id=self._effects.event_id(),
            response_id=self._place.response_id,
            item_id=self._place.item_id,
            output_index=self._place.index,
            **fields,
        )
        self._effects.send(made)


class SpokenMessage:
    """A message in audio, with its transcript and the ledger of the words and their samples."""

    def __init__(self, place: OutputPlace, effects: EffectBuffer, format_: Format) -> None:
        self.place = place
        self.ledger = Ledger()
        self._effects = effects
        self._part = _Part(place, effects)
        self._encoder = None if format_ == "audio/pcm" else Encoder(format_)

    def item(self, status: Status) -> Item:
        content = () if status == "in_progress" else (OutputAudio(transcript=self.ledger.text),)
        return Message(id=self.place.item_id, status=status, role="assistant", content=content)

    def begin(self) -> None:
        part = server.ShownPart(type="audio", transcript="")
        self._part.send(server.ContentPartAdded, part=part)

    def add(self, audio: bytes, words: tuple[SpokenWord, ...], *, send: bool = True) -> None:
        """Send more PCM, and before it the words that begin in it.

        send: False where the server plays the audio itself.
        """
        self.ledger.add(audio, words)
        if words and (text := "".join(word.text for word in words)):
            self._part.send(server.OutputTranscriptDelta, delta=text)
        if send:
            self._send_audio(self._encoder.feed(audio) if self._encoder else audio)

    def finish(self, status: Status) -> None:
        """End the part.

        The audio that the encoder still holds is not sent for an interrupted message.
        """
        if status == "completed" and self._encoder:
            self._send_audio(self._encoder.flush())
        text = self.ledger.text
        self._part.send(server.OutputAudioDone)
        self._part.send(server.OutputTranscriptDone, transcript=text)
        part = server.ShownPart(type="audio", transcript=text)
        self._part.send(server.ContentPartDone, part=part)

    def _send_audio(self, audio: bytes) -> None:
        if not audio:
            return
        place, effects = self.place, self._effects
        effects.send(
            server.OutputAudioDelta(
                event_id=effects.event_id(),
                response_id=place.response_id,
                item_id=place.item_id,
                output_index=place.index,
                delta=audio,
            )
        )


class WrittenMessage:
    """A message in text."""

    def __init__(self, place: OutputPlace, effects: EffectBuffer) -> None:
        self.place = place
        self._texts: list[str] = []
        self._part = _Part(place, effects)

    @property
    def text(self) -> str:
        return "".join(self._texts)

    def item(self, status: Status) -> Item:
        content = () if status == "in_progress" else (OutputText(text=self.text),)
        return Message(id=self.place.item_id, status=status, role="assistant", content=content)

    def begin(self) -> None:
        self._part.send(server.ContentPartAdded, part=server.ShownPart(type="text", text=""))

    def add(self, text: str) -> None:
        self._texts.append(text)
        self._part.send(server.OutputTextDelta, delta=text)

    def finish(self, status: Status) -> None:
        self._part.send(server.OutputTextDone, text=self.text)
        part = server.ShownPart(type="text", text=self.text)
        self._part.send(server.ContentPartDone, part=part)


class CallOutput:
    """A function call. An interrupted one gets no `function_call_arguments.done`."""

    def __init__(self, place: OutputPlace, effects: EffectBuffer, call_id: str, name: str) -> None:
        self.place = place
        self.name = name
        self._arguments: list[str] = []
        self._call_id = call_id
        self._effects = effects

    @property
    def arguments(self) -> str:
        return "".join(self._arguments)

    @property
    def problem(self) -> str | None:
        """Why this call must not be run; None: its arguments are a JSON object."""
        try:
            arguments = msgspec.json.decode(self.arguments or "{}")
        except (msgspec.DecodeError, RecursionError, UnicodeError) as exc:
            return f"the arguments of its call of '{self.name}' are not valid JSON: {exc}"
        if not isinstance(arguments, dict):
            return f"the arguments of its call of '{self.name}' are not a JSON object"
        return None

    def item(self, status: Status) -> Item:
        return FunctionCall(
            id=self.place.item_id,
            status=status,
            call_id=self._call_id,
            name=self.name,
            arguments=self.arguments,
        )

    def begin(self) -> None:
        """A function call has no parts."""

    def add(self, arguments: str) -> None:
        self._arguments.append(arguments)
        self._effects.send(
            server.FunctionArgumentsDelta(
                event_id=self._effects.event_id(),
                response_id=self.place.response_id,
                item_id=self.place.item_id,
                output_index=self.place.index,
                call_id=self._call_id,
                delta=arguments,
            )
        )

    def finish(self, status: Status) -> None:
        if status == "completed":
            self._effects.send(
                server.FunctionArgumentsDone(
                    event_id=self._effects.event_id(),
                    response_id=self.place.response_id,
                    item_id=self.place.item_id,
                    output_index=self.place.index,
                    call_id=self._call_id,
                    name=self.name,
                    arguments=self.arguments,
                )
            )


Output: TypeAlias = SpokenMessage | WrittenMessage | CallOutput


class Outputs:
    """The outputs of one response, in order. Sends the events of their items."""

    def __init__(
        self, response_id: str, effects: EffectBuffer, conversation: Conversation | None
    ) -> None:
        """conversation: gets the items; None: the response is out of band."""
        self._response_id = response_id
        self._effects = effects
        self._conversation = conversation
        self._all: list[Output] = []
        self._open: list[Output] = []
        self._ended: dict[int, Status] = {}  # by output index

    def next_place(self) -> OutputPlace:
        ids, conversation = self._effects.ids, self._conversation
        item_id = conversation.new_id(ids) if conversation is not None else ids.next("item")
        return OutputPlace(self._response_id, item_id, len(self._all))

    def begin(self, output: Output) -> None:
        """Announce an output in the next place."""
        ledger = output.ledger if isinstance(output, SpokenMessage) else None
        entry = Entry(output.item("in_progress"), ledger=ledger)
        self._all.append(output)
        self._open.append(output)
        self._effects.send(
            server.OutputItemAdded(
                event_id=self._effects.event_id(),
                response_id=self._response_id,
                output_index=output.place.index,
                item=entry.item,
            )
        )
        if self._conversation is not None:
            previous = self._conversation.add(entry)
            self._effects.send(
                server.ItemAdded(
                    event_id=self._effects.event_id(), previous_item_id=previous, item=entry.item
                )
            )
        output.begin()

    def is_open(self, output: Output) -> bool:
        return output in self._open

    def finish_calls(self, status: Status) -> None:
        """End the function calls that are open."""
        for output in tuple(self._open):
            if isinstance(output, CallOutput):
                self._finish(output, status)

    def finish(self, status: Status) -> None:
        """End every output that is open."""
        for output in tuple(self._open):
            self._finish(output, status)

    def items(self) -> tuple[Item, ...]:
        """Once all outputs have ended: their items."""
        return tuple(output.item(self._ended[output.place.index]) for output in self._all)

    def words(self) -> list[str]:
        """The words of each output so far."""
        return [words_of(output.item("completed")) for output in self._all]

    def _finish(self, output: Output, status: Status) -> None:
        if isinstance(output, CallOutput) and output.problem:
            status = "incomplete"
        self._ended[output.place.index] = status
        self._open.remove(output)
        output.finish(status)
        item = output.item(status)
        self._effects.send(
            server.OutputItemDone(
                event_id=self._effects.event_id(),
                response_id=self._response_id,
                output_index=output.place.index,
                item=item,
            )
        )
        if self._conversation is not None and self._conversation.find(item.id):
            self._conversation.replace(item)
            self._effects.send(
                server.ItemDone(
                    event_id=self._effects.event_id(),
                    previous_item_id=self._conversation.previous(item.id),
                    item=item,
                )
            )
