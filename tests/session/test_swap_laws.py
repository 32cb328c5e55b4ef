"""The laws of a session hold when its brain is swapped in the middle of anything."""

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.hypothesis_examples import examples
from tests.session import test_laws
from tests.session.histories import (
    FROM_CLIENTS,
    LIMITS,
    OPENINGS,
    TALK,
    Step,
    World,
    pick,
    scene,
    steps,
)
from vivavoce.protocol import server as says
from vivavoce.protocol.items import (
    FunctionCall,
    InputAudio,
    Item,
    Message,
    OutputAudio,
    OutputText,
    Part,
)
from vivavoce.protocol.responses import Response, ResponseAudio, ResponseAudioOutput
from vivavoce.protocol.session import PCM, SessionObject
from vivavoce.protocol.upstream import read_upstream
from vivavoce.session.cascade.brain import CascadeBrain
from vivavoce.session.facts import (
    Disconnected,
    Fact,
    UpstreamConnected,
    UpstreamEventReceived,
    UpstreamLost,
)
from vivavoce.session.relay.brain import RelayBrain

UPSTREAM = ("up open", "up item", "up item", "up call", "up say", "up say", "up end", "up done")
TURNS = ("up start", "up turn", "up turn", "up connect", "up noise")
# what a cascade would answer itself, a relay leaves to the upstream server
CLIENTS = tuple({*FROM_CLIENTS} - {"invalid", "reserved id"})
SCENES = st.sampled_from(
    [
        scene("up open", "up item", "up say", "up say", "up done", n=1, m=4),
        scene("up open", "up item", "up say", "up say", n=1, m=4),
        scene("up open", "up item", "up say", "up end", "up call", "up say", n=1, m=5),
        scene("append", "up turn", "up open", m=4),
        scene("append", "up start", "append"),
    ]
)
RELAYED = st.lists(
    st.one_of(SCENES, steps(*UPSTREAM, *TURNS, *CLIENTS)), min_size=2, max_size=15
).map(lambda scenes: [step for one in scenes for step in one])
LAWS = (
    test_laws.answers_open_and_close_in_pairs,
    test_laws.outputs_of_a_response_begin_and_end_once,
    test_laws.response_lists_its_outputs_in_order,
    test_laws.conversation_equals_the_items_that_the_client_was_sent,
    test_laws.deltas_add_up,
    test_laws.numbers_are_never_negative,
)


class Relayed(World):
    """A world whose brain may be a relay; its upstream server keeps the protocol."""

    def __init__(self, opening: SessionObject) -> None:
        super().__init__(opening, limits=LIMITS)
        self._ids = 0
        self._response: str | None = None
        self._outputs: list[Item] = []  # of the open response
        self._open: dict[str, str] = {}  # its open items: all text so far
        self._turn: str | None = None

    def swap(self, brain: Any, *, model: str) -> None:
        last, first = self.session.swap(brain, self.now, model=model)
        self.record(UpstreamLost("swapped"), last + first)
        self._response, self._turn = None, None
        self._outputs.clear()
        self._open.clear()

    def _fact(self, step: Step) -> Fact | None:
        match step.kind:
            case "up open" if self._response is None:
                self._response = self._id("resp")
                self._say(says.ResponseCreated, response=self._shown("in_progress"))
            case "up item" | "up call" if self._response:
                self._begin(step)
            case "up say":
                self._grow(pick([*self._open], step.n), step.m)
            case "up end":
                self._end(pick([*self._open], step.n))
            case "up done" if self._response:
                for item_id in [*self._open]:
                    self._end(item_id)
                self._say(says.ResponseDone, response=self._shown("completed"))
                self._response = None
                self._outputs.clear()
            case "up start" if self._turn is None:
                self._start_turn()
            case "up turn":
                self._take_turn(step)
            case "up connect":
                return UpstreamConnected()
            case "up noise":
                self._say(says.RateLimitsUpdated)
        return None if step.kind.startswith("up ") else super()._fact(step)

    def _id(self, kind: str) -> str:
        self._ids += 1
        return f"{kind}_up{self._ids}"

    def _say(self, kind: Any, **fields: Any) -> None:
        raw = msgspec.json.encode(kind(event_id=self._id("event"), **fields))
        self.tell(UpstreamEventReceived(read_upstream(raw), raw))

    def _shown(self, status: Any) -> Response:
        assert self._response
        return Response(
            id=self._response,
            status=status,
            output=tuple(self._outputs) if status == "completed" else (),
            conversation_id="conv_1",
            output_modalities=("audio",),
            max_output_tokens="inf",
            audio=ResponseAudio(ResponseAudioOutput(PCM(), "marin")),
        )

    def _last(self) -> str | None:
        entries = self.session.checkpoint(self.now).entries
        return entries[-1].item.id if entries else None

    def _add(self, item: Item) -> None:
        self._say(says.ItemAdded, previous_item_id=self._last(), item=item)

    def _end_item(self, item: Item) -> None:
        ids = [entry.item.id for entry in self.session.checkpoint(self.now).entries]
        if item.id in ids:
            place = ids.index(item.id)
            before = ids[place - 1] if place else None
            self._say(says.ItemDone, previous_item_id=before, item=item)

    def _begin(self, step: Step) -> None:
        item: Item
        if step.kind == "up call":
            item = FunctionCall(id=self._id("item"), status="in_progress", call_id="c", name="wave")
        else:
            item_id = self._id("text" if step.m % 2 else "item")
            item = Message(id=item_id, status="in_progress", role="assistant", content=())
        index = len(self._outputs)
        self._outputs.append(item)
        self._open[item.id] = ""
        self._say(says.OutputItemAdded, response_id=self._response, output_index=index, item=item)
        self._add(item)
        if isinstance(item, Message):
            part = says.ShownPart(type="audio", transcript="")
            if item.id.startswith("text"):
                part = says.ShownPart(type="text", text="")
            self._say(says.ContentPartAdded, **self._place(item), part=part)

    def _place(self, item: Item) -> dict[str, Any]:
        index = [output.id for output in self._outputs].index(item.id)
        return {"response_id": self._response, "item_id": item.id, "output_index": index}

    def _grow(self, item_id: str | None, m: int) -> None:
        if item_id is None:
            return
        item = next(output for output in self._outputs if output.id == item_id)
        delta = "word " * (m % 3)
        self._open[item_id] += delta
        place = self._place(item)
        if isinstance(item, FunctionCall):
            self._say(says.FunctionArgumentsDelta, **place, call_id="c", delta=delta)
        elif item_id.startswith("text"):
            self._say(says.OutputTextDelta, **place, delta=delta)
        else:
            self._say(says.OutputTranscriptDelta, **place, delta=delta)
            self._say(says.OutputAudioDelta, **place, delta=b"\1\0" * 480 * m)

    def _end(self, item_id: str | None) -> None:
        if item_id is None:
            return
        item = next(output for output in self._outputs if output.id == item_id)
        place, text = self._place(item), self._open.pop(item_id)
        part: Part
        if isinstance(item, FunctionCall):
            call = {"call_id": "c", "name": "wave", "arguments": text}
            self._say(says.FunctionArgumentsDone, **place, **call)
            item = msgspec.structs.replace(item, status="completed", arguments=text)
        else:
            if item_id.startswith("text"):
                self._say(says.OutputTextDone, **place, text=text)
                shown, part = says.ShownPart(type="text", text=text), OutputText(text)
            else:
                self._say(says.OutputAudioDone, **place)
                self._say(says.OutputTranscriptDone, **place, transcript=text)
                shown, part = says.ShownPart(type="audio", transcript=text), OutputAudio(text)
            self._say(says.ContentPartDone, **place, part=shown)
            assert isinstance(item, Message)
            item = msgspec.structs.replace(item, status="completed", content=(part,))
        index = place["output_index"]
        self._outputs[index] = item
        self._say(says.OutputItemDone, response_id=self._response, output_index=index, item=item)
        self._end_item(item)

    def _start_turn(self) -> None:
        self._turn = self._id("item")
        self._say(says.SpeechStarted, item_id=self._turn, audio_start_ms=0)

    def _take_turn(self, step: Step) -> None:
        if self._turn is None:
            self._start_turn()
        item_id, self._turn = self._turn or "", None
        self._say(says.SpeechStopped, item_id=item_id, audio_end_ms=0)
        self._say(says.InputAudioCommitted, previous_item_id=self._last(), item_id=item_id)
        item = Message(id=item_id, role="user", content=(InputAudio(),))
        self._add(item)
        self._end_item(item)
        if step.m % 2:
            place = {"item_id": item_id, "content_index": 0}
            self._say(says.TranscriptionDelta, **place, delta="hi")
            self._say(
                says.TranscriptionCompleted,
                **place,
                transcript="hi",
                usage={"type": "duration", "seconds": 1},
            )


@settings(max_examples=examples(60))
@given(st.sampled_from(OPENINGS), TALK, RELAYED, TALK)
def test_laws_hold_when_the_brain_is_swapped_twice(
    opening: SessionObject, before: list[Step], relayed: list[Step], after: list[Step]
) -> None:
    world = Relayed(opening)
    world.play(before)
    world.swap(RelayBrain, model="gpt-realtime")
    world.play(relayed)
    world.tell(UpstreamLost("gone"))
    world.swap(CascadeBrain, model="local")
    world.play(after)
    world.tell(Disconnected())
    for law in LAWS:
        law(world)
