"""One response, from response.created to response.done, and the items that it puts out.

Rules:
1. Every item and part that was announced is ended, however the response ends, and response.done
   comes once, after all of it. It is written in one place, end().
2. In the default conversation the items of a response are items of the conversation from the
   moment they are announced. Out of band there are no conversation events.
3. A response has one message at the most.
4. A function call is `completed` only if its function was declared and its arguments are a JSON
   object. Clients must not run any other call.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from vivavoce.audio.formats import Encoder, Format
from vivavoce.protocol import server
from vivavoce.protocol.items import FunctionCall, Item, Message, OutputAudio, OutputText, Status
from vivavoce.protocol.responses import (
    Response,
    ResponseAudio,
    ResponseAudioOutput,
    ResponseStatus,
    SessionUsage,
    StatusDetails,
    Usage,
)
from vivavoce.protocol.session import AudioFormat, Modality
from vivavoce.session.conversation import Conversation, Entry, shown
from vivavoce.session.effects import EffectBuffer, Filler, Generate, Prompt
from vivavoce.session.facts import GenerationFinished, SpokenWord, Stage
from vivavoce.session.ledger import Ledger
from vivavoce.session.options import format_name
from vivavoce.session.usage import estimate, response_usage, words_of

Ending: TypeAlias = Literal["completed", "cancelled", "incomplete", "failed"]


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


class ResponsePlan(msgspec.Struct, frozen=True):
    """What is decided about a response when it is created."""

    prompt: Prompt  # without items: those are read once the user's words are known
    listed: tuple[Entry, ...] | None  # a context of its own; None: the conversation
    inline: tuple[Entry, ...]  # the entries of it that are not in the conversation
    modalities: tuple[Modality, ...]
    max_output_tokens: int | Literal["inf"]
    format: AudioFormat
    voice: str  # as the client gave it
    metadata: dict[str, str] | None
    conversation_id: str | None  # None: out of band


class ResponseState:
    """One response in progress. Its methods send the client's events."""

    def __init__(
        self,
        response_id: str,
        plan: ResponsePlan,
        effects: EffectBuffer,
        conversation: Conversation | None,
    ) -> None:
        self.id = response_id
        self.plan = plan
        self.reads: tuple[Entry, ...] = ()  # the context from which it is generated
        self.stage: Stage = "stt"
        self.stalls_at = float("inf")
        self.finished: GenerationFinished | None = None
        self.speech_problem: str | None = None  # the error that ended speech synthesis
        self.filler: Filler | None = None
        self._order: Generate | None = None
        self._effects = effects
        self._conversation = conversation
        self._outputs: list[Output] = []
        self._message: SpokenMessage | WrittenMessage | None = None
        self._open: list[Output] = []  # those that were not ended
        self._ended: dict[int, Status] = {}  # by output index
        self._calls: dict[int, CallOutput] = {}  # by the model's own index
        self._characters = 0  # of text and arguments
        self._spoken_characters: int | None = None  # spoken before speech synthesis failed

    def begin(self) -> None:
        event_id = self._effects.event_id()
        self._effects.send(
            server.ResponseCreated(event_id=event_id, response=self._shown("in_progress"))
        )

    def generate(
        self, begun: Callable[[Prompt], str] = lambda _: "", filler: Filler | None = None
    ) -> None:
        """Request the answer, as all words of its context are known. begun: see Responses."""
        prompt = dataclasses.replace(self.plan.prompt, items=shown(self.reads))
        self.filler = filler
        self._order = Generate(self.id, prompt, begun(prompt), filler)
        self.stage = "llm"
        self._effects.add(self._order)

    def resume(self, text: str) -> None:
        """Continue an answer that was cut off although nothing interrupted it."""
        prompt = dataclasses.replace(self.plan.prompt, items=shown(self.reads))
        self._order = Generate(self.id, prompt, text=text)
        self.stage = "tts"
        self._effects.add(self._order)

    @property
    def generating(self) -> bool:
        """Whether the answer was requested."""
        return self._order is not None

    @property
    def calls(self) -> int:
        """How many functions the response has called."""
        return len(self._calls)

    @property
    def spoken(self) -> SpokenMessage | None:
        """Its message in audio, once it has begun."""
        return self._message if isinstance(self._message, SpokenMessage) else None

    @property
    def text_tokens(self) -> int:
        """Estimated tokens of the text so far."""
        return self._characters // 4

    @property
    def audio_samples(self) -> int:
        """Samples of its audio so far."""
        return self.spoken.ledger.samples if self.spoken else 0

    def open_message(self) -> SpokenMessage | WrittenMessage:
        """Its message, which is announced at the first use."""
        if self._message is None:
            if self.plan.prompt.spoken:
                format_ = format_name(self.plan.format)
                spoken = SpokenMessage(self._place(), self._effects, format_)
                self._message = spoken
                self._announce(spoken, Entry(spoken.item("in_progress"), ledger=spoken.ledger))
            else:
                written = WrittenMessage(self._place(), self._effects)
                self._message = written
                self._announce(written, Entry(written.item("in_progress")))
        return self._message

    def fail_speech(self, reason: str) -> None:
        """The words that come from now on have no audio."""
        if self.speech_problem is None:
            self._spoken_characters = self.spoken_characters
            self.speech_problem = reason

    def add_text(self, text: str) -> None:
        self._characters += len(text)
        message = self.open_message()
        if isinstance(message, WrittenMessage):
            message.add(text)
        else:
            self.stage = "tts"

    def start_call(self, index: int, call_id: str, name: str) -> None:
        """A call begins, so the call before it is complete."""
        self._finish_calls("completed")
        output = CallOutput(self._place(), self._effects, call_id, name)
        self._calls[index] = output
        self._announce(output, Entry(output.item("in_progress")))

    def add_arguments(self, index: int, arguments: str) -> None:
        self._characters += len(arguments)
        output = self._calls.get(index)
        if output and output.place.index not in self._ended:
            output.add(arguments)

    def finish_generation(self, fact: GenerationFinished) -> None:
        """The model has ended. Calls can be run now, although audio may still follow."""
        self.finished = fact
        self._finish_calls("completed" if fact.reason == "stop" else "incomplete")

    @property
    def call_problem(self) -> str | None:
        """Why a call must not be run although the model ended normally."""
        for call in self._calls.values():
            if call.problem:
                return call.problem
        return None

    @property
    def spoken_characters(self) -> int:
        """The part of a text that a synthesiser has spoken."""
        if self._spoken_characters is not None:
            return self._spoken_characters
        spoken = [output for output in self._outputs if isinstance(output, SpokenMessage)]
        return sum(len(words_of(output.item("completed"))) for output in spoken)

    def end(
        self,
        ending: Ending,
        details: StatusDetails | None,
        count: Callable[[Usage], SessionUsage | UnsetType] = lambda _: UNSET,
    ) -> Usage:
        """End everything that is open, send response.done once, and return the usage of the
        response. count: called with the usage before that; returns the usage of the session that
        the client is shown."""
        for output in tuple(self._open):
            self._finish(output, "completed" if ending == "completed" else "incomplete")
        usage = Usage() if ending == "failed" else self._usage()
        shown_, so_far, effects = self._shown(ending, details, usage), count(usage), self._effects
        effects.send(
            server.ResponseDone(event_id=effects.event_id(), response=shown_, x_usage=so_far)
        )
        effects.send(server.RateLimitsUpdated(event_id=effects.event_id()))
        return usage

    def _place(self) -> OutputPlace:
        ids, conversation = self._effects.ids, self._conversation
        item_id = conversation.new_id(ids) if conversation is not None else ids.next("item")
        return OutputPlace(self.id, item_id, len(self._outputs))

    def _announce(self, output: Output, entry: Entry) -> None:
        self._outputs.append(output)
        self._open.append(output)
        item = entry.item
        self._effects.send(
            server.OutputItemAdded(
                event_id=self._effects.event_id(),
                response_id=self.id,
                output_index=output.place.index,
                item=item,
            )
        )
        if self._conversation is not None:
            previous = self._conversation.add(entry)
            self._effects.send(
                server.ItemAdded(
                    event_id=self._effects.event_id(), previous_item_id=previous, item=item
                )
            )
        output.begin()

    def _finish_calls(self, status: Status) -> None:
        for output in tuple(self._open):
            if isinstance(output, CallOutput):
                self._finish(output, status)

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
                response_id=self.id,
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

    def _usage(self) -> Usage:
        items = self._order.prompt.items if self._order else ()
        output_text = " ".join(words_of(output.item("completed")) for output in self._outputs)
        context = estimate(self.plan.prompt.instructions) + sum(
            estimate(words_of(item)) for item in items
        )
        return response_usage(
            self.finished.tokens if self.finished else None,
            context=context if self._order else 0,
            heard=sum(entry.samples for entry in self.reads) if self._order else 0,
            said=output_text,
            spoken=self.audio_samples,
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
