"""An upstream Realtime server in virtual facts: what it says, as frames."""

from dataclasses import replace
from typing import Any

import msgspec

from tests.session.stage import MODELS, settings, the
from vivavoce.protocol.client import AnyClientEvent
from vivavoce.protocol.items import InputText, Message
from vivavoce.protocol.session import SessionObject
from vivavoce.protocol.upstream import read_upstream
from vivavoce.session.brain import BrainFactory
from vivavoce.session.cascade.brain import CascadeBrain
from vivavoce.session.effects import Effect, RequestFallback, SendRaw, SendUpstream
from vivavoce.session.facts import (
    Fact,
    Received,
    UpstreamConnected,
    UpstreamEventReceived,
    UpstreamLost,
)
from vivavoce.session.limits import SessionLimits
from vivavoce.session.options import AvailableModels, ModelInfo, Options
from vivavoce.session.policy import Rules
from vivavoce.session.relay.brain import RelayBrain
from vivavoce.session.shell import Session
from vivavoce.session.usage import Costs

FAR = ModelInfo(voices=None, default_voice="marin")
RELAYED = AvailableModels(models={**MODELS.models, "far": FAR}, default_model=MODELS.default_model)
LIMITS = SessionLimits()


def frame(kind: str, **fields: Any) -> UpstreamEventReceived:
    """A server event of the upstream server."""
    raw = msgspec.json.encode({"type": kind, "event_id": "up_1", **fields})
    return UpstreamEventReceived(read_upstream(raw), raw)


class Relay:
    """A session whose brain is a relay, and its upstream server."""

    def __init__(
        self,
        *,
        brain: BrainFactory = RelayBrain,
        connected: bool = True,
        server_plays: bool = False,
        limits: SessionLimits = LIMITS,
        opening: SessionObject | None = None,
        rules: Rules | None = None,
        costs: Costs | None = None,
        **fields: Any,
    ) -> None:
        self.now = 0.0
        opening = opening or settings(**{"model": "far", "instructions": "Be brief.", **fields})
        offer = replace(RELAYED, rules=rules, costs=costs)
        options = Options(opening, offer)
        options.pin()
        self.session = Session(
            options.session,
            offer,
            limits,
            salt="t",
            now=0.0,
            brain=brain,
            server_plays=server_plays,
        )
        self.first = self.session.begin()
        if connected:
            self.first += self.take(UpstreamConnected())

    def take(self, *facts: Fact) -> list[Effect]:
        return [effect for fact in facts for effect in self.session.handle(fact, self.now)]

    def send(self, event: AnyClientEvent, raw: bytes | None = None) -> list[Effect]:
        return self.take(Received(event, raw))

    def say(self, kind: str, **fields: Any) -> list[Effect]:
        """The upstream server sends an event."""
        return self.take(frame(kind, **fields))

    def turn(self, item_id: str, transcript: str | None) -> list[Effect]:
        """The upstream server takes a turn of the user."""
        item = {"id": item_id, "type": "message", "role": "user"}
        item |= {"content": [{"type": "input_audio"}]}  # type: ignore[dict-item]
        effects = self.say("input_audio_buffer.speech_started", item_id=item_id)
        effects += self.say("input_audio_buffer.speech_stopped", item_id=item_id)
        effects += self.say("input_audio_buffer.committed", item_id=item_id)
        effects += self.say("conversation.item.added", item=item, previous_item_id=None)
        effects += self.say("conversation.item.done", item={**item, "status": "completed"})
        if transcript is not None:
            effects += self.say(
                "conversation.item.input_audio_transcription.completed",
                item_id=item_id,
                content_index=0,
                transcript=transcript,
            )
        return effects

    def open_response(self, response_id: str = "r", **fields: Any) -> list[Effect]:
        response = {"id": response_id, "status": "in_progress", "conversation_id": "c", **fields}
        return self.say("response.created", response=response)

    def open_item(
        self, item_id: str, response_id: str = "r", *, index: int = 0, **fields: Any
    ) -> list[Effect]:
        item = {"id": item_id, "type": "message", "role": "assistant", "content": [], **fields}
        effects = self.say(
            "response.output_item.added", response_id=response_id, output_index=index, item=item
        )
        return effects + self.say("conversation.item.added", item=item)

    def open_part(self, item_id: str, kind: str = "audio", response_id: str = "r") -> list[Effect]:
        return self.say(
            "response.content_part.added",
            response_id=response_id,
            item_id=item_id,
            part={"type": kind},
        )

    def speak(self, item_id: str, words: str, *, ms: int = 100) -> list[Effect]:
        """Each word has its transcript, then its audio of so many milliseconds."""
        place = {"response_id": "r", "item_id": item_id, "output_index": 0, "content_index": 0}
        effects: list[Effect] = []
        for word in words.split():
            effects += self.say("response.output_audio_transcript.delta", delta=f"{word} ", **place)
            audio = msgspec.to_builtins(b"\1\0" * 24 * ms)
            effects += self.say("response.output_audio.delta", delta=audio, **place)
        return effects


def raw_types(effects: list[Effect]) -> list[str]:
    """The types of the events that were passed on as they came."""
    return [msgspec.json.decode(e.data)["type"] for e in effects if isinstance(e, SendRaw)]


def sent_upstream(effects: list[Effect]) -> list[dict[str, Any]]:
    """The client events that were sent to the upstream server, without the ids of our own."""
    sent = [msgspec.json.decode(e.data) for e in effects if isinstance(e, SendUpstream)]
    for event in sent:
        if str(event.get("event_id", "")).startswith("relay_"):
            del event["event_id"]
    return sent


HELLO = Message(id="hi", role="user", content=(InputText(text="hello"),))


def lost(relay: Relay, model: str = "local") -> list[Any]:
    """The upstream server is lost, and the cascade of that model takes over."""
    the(RequestFallback, relay.take(UpstreamLost("gone")))
    last, first = relay.session.swap(CascadeBrain, relay.now, model=model)
    return last + first
