"""The life of one response, from response.created to response.done.

Rules:
1. What opens closes: every item and part that was announced is ended, whatever the end, and
   response.done comes once, after all of it. It is written in one place, end().
2. In the default conversation the items of a response are items of the conversation from the
   moment they are announced. Out of band there are no conversation events.
3. A response has one message at the most.
"""

import dataclasses
from dataclasses import dataclass
from typing import Literal, TypeAlias

from vivavoce.protocol import server as says
from vivavoce.protocol.items import Status
from vivavoce.protocol.responses import (
    Response,
    ResponseAudio,
    ResponseAudioOutput,
    ResponseStatus,
    StatusDetails,
    Usage,
)
from vivavoce.protocol.session import AudioFormat, Modality
from vivavoce.session.cascade.outputs import (
    CallOutput,
    Output,
    OutputPlace,
    SpokenMessage,
    WrittenMessage,
)
from vivavoce.session.conversation import Conversation, Entry, shown
from vivavoce.session.effect_buffer import EffectBuffer
from vivavoce.session.effects import Generate, Prompt
from vivavoce.session.facts import GenerationFinished, SpokenWord, Stage
from vivavoce.session.options import format_name
from vivavoce.session.usage import estimate, response_usage, words_of

Ending: TypeAlias = Literal["completed", "cancelled", "incomplete", "failed"]


@dataclass(frozen=True, slots=True)
class ResponsePlan:
    """What is settled about a response when it is created."""

    prompt: Prompt  # without items: they come when the user's words are known
    listed: tuple[Entry, ...] | None  # its own context; None: the conversation
    inline: tuple[Entry, ...]  # of these, the ones that stand nowhere else
    modalities: tuple[Modality, ...]
    max_output_tokens: int | Literal["inf"]
    format: AudioFormat
    voice: str  # as the client named it
    metadata: dict[str, str] | None
    conversation_id: str | None  # None: out of band


class ResponseState:
    """One response. Its methods tell the client what came of it."""

    def __init__(
        self,
        response_id: str,
        plan: ResponsePlan,
        outbox: EffectBuffer,
        conversation: Conversation | None,
    ) -> None:
        self.id = response_id
        self.plan = plan
        self.answer: Generate | None = None  # what was asked of the brain, once it was
        self.reads: tuple[Entry, ...] = ()  # what it answers
        self.stage: Stage = "stt"
        self.stalls_at = float("inf")
        self.concluded: GenerationFinished | None = None
        self._outbox = outbox
        self._conversation = conversation
        self._outputs: list[Output] = []
        self._ended: dict[int, Status] = {}  # by output index
        self._calls: dict[int, CallOutput] = {}  # by the model's own index

    def begin(self) -> None:
        event_id = self._outbox.event_id()
        self._outbox.send(
            says.ResponseCreated(event_id=event_id, response=self._shown("in_progress"))
        )

    def ask(self) -> None:
        """All words that it reads are known: have the answer made."""
        prompt = dataclasses.replace(self.plan.prompt, items=shown(self.reads))
        self.answer = Generate(self.id, prompt)
        self.stage = "llm"
        self._outbox.add(self.answer)

    @property
    def spoken(self) -> SpokenMessage | None:
        """Its message in sound, once there is one."""
        return next((o for o in self._outputs if isinstance(o, SpokenMessage)), None)

    def think(self, text: str) -> None:
        message = self._message()
        if isinstance(message, WrittenMessage):
            message.write(text)
        else:
            self.stage = "tts"

    def sounding(self) -> OutputPlace | None:
        """Where its sound belongs: that message is announced by now. None if it is written."""
        message = self._message()
        return message.place if isinstance(message, SpokenMessage) else None

    def speak(self, audio: bytes, words: tuple[SpokenWord, ...], *, send: bool = True) -> None:
        """The answer's sound grew. Not to be sent: the playout is ours."""
        message = self._message()
        if isinstance(message, SpokenMessage):
            message.speak(audio, words, send=send)

    def call(self, index: int, call_id: str, name: str) -> None:
        """A call begins; so the one before it is complete."""
        self._finish_calls("completed")
        output = CallOutput(self._place(), self._outbox, call_id, name)
        self._calls[index] = output
        self._announce(output, Entry(output.item("in_progress")))

    def argue(self, index: int, arguments: str) -> None:
        output = self._calls.get(index)
        if output and output.place.index not in self._ended:
            output.argue(arguments)

    def conclude(self, fact: GenerationFinished) -> None:
        """The model is through. Calls can be run now, while sound may still come."""
        self.concluded = fact
        self._finish_calls("completed" if fact.reason == "stop" else "incomplete")

    def end(self, ending: Ending, details: StatusDetails | None) -> Usage:
        """Close all that is open and send response.done, once."""
        for output in self._open():
            self._finish(output, "completed" if ending == "completed" else "incomplete")
        usage = Usage() if ending == "failed" else self._usage()
        shown = self._shown(ending, details, usage)
        self._outbox.send(says.ResponseDone(event_id=self._outbox.event_id(), response=shown))
        self._outbox.send(says.RateLimitsUpdated(event_id=self._outbox.event_id()))
        return usage

    def _message(self) -> SpokenMessage | WrittenMessage:
        for output in self._outputs:
            if not isinstance(output, CallOutput):
                return output
        if not self.plan.prompt.spoken:
            written = WrittenMessage(self._place(), self._outbox)
            self._announce(written, Entry(written.item("in_progress")))
            return written
        spoken = SpokenMessage(self._place(), self._outbox, format_name(self.plan.format))
        self._announce(spoken, Entry(spoken.item("in_progress"), ledger=spoken.ledger))
        return spoken

    def _place(self) -> OutputPlace:
        return OutputPlace(self.id, self._outbox.ids.next("item"), len(self._outputs))

    def _announce(self, output: Output, entry: Entry) -> None:
        self._outputs.append(output)
        item = entry.item
        self._outbox.send(
            says.OutputItemAdded(
                event_id=self._outbox.event_id(),
                response_id=self.id,
                output_index=output.place.index,
                item=item,
            )
        )
        if self._conversation is not None:
            previous = self._conversation.add(entry)
            self._outbox.send(
                says.ItemAdded(
                    event_id=self._outbox.event_id(), previous_item_id=previous, item=item
                )
            )
        output.begin()

    def _finish_calls(self, status: Status) -> None:
        for output in self._open():
            if isinstance(output, CallOutput):
                self._finish(output, status)

    def _open(self) -> list[Output]:
        return [output for output in self._outputs if output.place.index not in self._ended]

    def _finish(self, output: Output, status: Status) -> None:
        self._ended[output.place.index] = status
        output.finish(status)
        item = output.item(status)
        self._outbox.send(
            says.OutputItemDone(
                event_id=self._outbox.event_id(),
                response_id=self.id,
                output_index=output.place.index,
                item=item,
            )
        )
        if self._conversation is not None and self._conversation.find(item.id):
            self._conversation.replace(item)
            self._outbox.send(
                says.ItemDone(
                    event_id=self._outbox.event_id(),
                    previous_item_id=self._conversation.previous(item.id),
                    item=item,
                )
            )

    def _usage(self) -> Usage:
        items = self.answer.prompt.items if self.answer else ()
        said = " ".join(words_of(output.item("completed")) for output in self._outputs)
        spoken = sum(o.ledger.samples for o in self._outputs if isinstance(o, SpokenMessage))
        context = estimate(self.plan.prompt.instructions) + sum(
            estimate(words_of(item)) for item in items
        )
        return response_usage(
            self.concluded.tokens if self.concluded else None,
            context=context if self.answer else 0,
            heard=sum(entry.samples for entry in self.reads) if self.answer else 0,
            said=said,
            spoken=spoken,
        )

    def _shown(
        self,
        status: ResponseStatus,
        details: StatusDetails | None = None,
        usage: Usage | None = None,
    ) -> Response:
        output = tuple(o.item(self._ended[o.place.index]) for o in self._outputs)
        return Response(
            id=self.id,
            status=status,
            status_details=details,
            output=output,
            conversation_id=self.plan.conversation_id,
            output_modalities=self.plan.modalities,
            max_output_tokens=self.plan.max_output_tokens,
            audio=ResponseAudio(ResponseAudioOutput(self.plan.format, self.plan.voice)),
            usage=usage,
            metadata=self.plan.metadata,
        )
