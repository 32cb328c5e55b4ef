"""One response, from response.created to response.done.

Rules:
1. response.done comes once, after the end of every output. It is written in one place, end().
2. A response has one message at the most.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from vivavoce.protocol import server
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
from vivavoce.session.cascade.outputs import CallOutput, Outputs, SpokenMessage, WrittenMessage
from vivavoce.session.conversation import Conversation, Entry, shown
from vivavoce.session.effects import EffectBuffer, Filler, Generate, Prompt
from vivavoce.session.facts import GenerationFinished, Stage
from vivavoce.session.options import format_name
from vivavoce.session.usage import estimate, response_usage, words_of

Ending: TypeAlias = Literal["completed", "cancelled", "incomplete", "failed"]


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
        self._outputs = Outputs(response_id, effects, conversation)
        self._message: SpokenMessage | WrittenMessage | None = None
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
            place = self._outputs.next_place()
            if self.plan.prompt.spoken:
                format_ = format_name(self.plan.format)
                self._message = SpokenMessage(place, self._effects, format_)
            else:
                self._message = WrittenMessage(place, self._effects)
            self._outputs.begin(self._message)
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
        self._outputs.finish_calls("completed")
        output = CallOutput(self._outputs.next_place(), self._effects, call_id, name)
        self._calls[index] = output
        self._outputs.begin(output)

    def add_arguments(self, index: int, arguments: str) -> None:
        self._characters += len(arguments)
        output = self._calls.get(index)
        if output and self._outputs.is_open(output):
            output.add(arguments)

    def finish_generation(self, fact: GenerationFinished) -> None:
        """The model has ended. Calls can be run now, although audio may still follow."""
        self.finished = fact
        self._outputs.finish_calls("completed" if fact.reason == "stop" else "incomplete")

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
        return len(words_of(self.spoken.item("completed"))) if self.spoken else 0

    def end(
        self,
        ending: Ending,
        details: StatusDetails | None,
        count: Callable[[Usage], SessionUsage | UnsetType] = lambda _: UNSET,
    ) -> Usage:
        """End everything that is open, send response.done once, and return the usage of the
        response. count: called with the usage before that; returns the usage of the session that
        the client is shown."""
        self._outputs.finish("completed" if ending == "completed" else "incomplete")
        usage = Usage() if ending == "failed" else self._usage()
        shown_, so_far, effects = self._shown(ending, details, usage), count(usage), self._effects
        effects.send(
            server.ResponseDone(event_id=effects.event_id(), response=shown_, x_usage=so_far)
        )
        effects.send(server.RateLimitsUpdated(event_id=effects.event_id()))
        return usage

    def _usage(self) -> Usage:
        items = self._order.prompt.items if self._order else ()
        output_text = " ".join(self._outputs.words())
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
        return Response(
            id=self.id,
            status=status,
            status_details=details,
            output=self._outputs.items(),
            conversation_id=self.plan.conversation_id,
            output_modalities=self.plan.modalities,
            max_output_tokens=self.plan.max_output_tokens,
            audio=ResponseAudio(ResponseAudioOutput(self.plan.format, self.plan.voice)),
            usage=usage,
            metadata=self.plan.metadata,
        )
