"""Runs functions that an upstream server's model calls on this server, hidden from the client.

Rules:
1. The client sees no event of such a call. Output indexes are dense without it, and no
   previous_item_id names it.
2. A response that consists of such calls only is hidden, too.
3. When every call of a completed response is answered, one response.create follows. If the client
   has calls of the same response to answer, its own response.create takes that place.
4. Results of a response that did not complete are discarded.
5. A call in the background is answered at once. Its result comes as a message of the system, and a
   response is requested for it when nobody speaks.
"""

from typing import Any

import msgspec

from vivavoce.protocol.client import ItemCreate
from vivavoce.protocol.items import FunctionCallOutput, InputText, Item, Message
from vivavoce.protocol.upstream import UpstreamEvent, UpstreamItem
from vivavoce.session.brain import Shared
from vivavoce.session.effects import CALL_RUNS, TOO_MANY_CALLS, CancelTool, RunTool
from vivavoce.session.facts import ToolFinished
from vivavoce.session.limits import MAX_BACKGROUND_CALLS
from vivavoce.session.relay.items import with_fields
from vivavoce.session.relay.outbox import Outbox

MAX_ROUNDS = 8
"""How many responses in a row may call such functions; the next one may not."""
_ITEM_EVENTS = ("conversation.item.created", "conversation.item.added", "conversation.item.done")


class _Seen(msgspec.Struct):
    """The parts of a response that the client has been sent."""

    created: bytes | None
    """Its response.created, held back until the response has something that is not hidden."""
    in_conversation: bool
    hidden: list[int] = msgspec.field(default_factory=list)
    """Output indexes of hidden calls."""
    calls: list[str] = msgspec.field(default_factory=list)
    """The call ids of those that are complete."""
    client_calls: bool = False
    """Whether it has calls that the client has to answer."""


class _Round(msgspec.Struct):
    """The calls of a completed response, some of which still run."""

    running: set[str]
    goes_on: bool
    """Whether this server requests the next response."""


class HiddenCalls:
    """The hidden calls of one session, and the responses that contain them."""

    def __init__(self, shared: Shared, outbox: Outbox) -> None:
        self._shared = shared
        self._outbox = outbox
        self._items: dict[str, str | None] = {}  # hidden items, each with the item before it
        self._seen: dict[str, _Seen] = {}  # by response
        self._running: set[str] = set()  # call ids
        self._background: dict[str, RunTool] = {}  # calls that are running
        self.result_due = False
        """Whether a background function has finished since the last response began."""
        # items with results that the upstream server has not confirmed
        self._unseen: set[str] = set()
        # outputs that were not sent upstream yet, by call id
        self._outputs: dict[str, str] = {}
        self._rounds: list[_Round] = []
        self._deferred: bytes | None = None  # a response.create of the client that is held back
        self._count = 0  # responses in a row with such calls

    @property
    def waiting(self) -> bool:
        """Whether calls are running that a further response depends on."""
        return bool(self._rounds)

    def takes(self, event: UpstreamEvent) -> bool:
        """Whether an event is about a hidden call, so that only this class handles it."""
        names = self._shared.options.rules.tool_names
        if not names:
            return False
        item = event.item
        if item is not None:
            self._unseen.discard(item.id)
        if item is not None and (item.id in self._items or self._is_call(item, names)):
            self._take_item(event, item)
            return True
        return event.item_id in self._items

    def shown(self, event: UpstreamEvent, raw: bytes) -> tuple[bytes, ...]:
        """The frames that the client gets for an event that is not hidden."""
        if not self._shared.options.rules.tool_names:
            return (raw,)
        if event.type == "response.created" and event.response:
            in_conversation = event.response.conversation_id is not None
            self._seen[event.response.id] = _Seen(raw, in_conversation)
            return ()
        if event.type == "response.done" and event.response:
            return self._done(event.response.id, event.response.status, raw)
        if (seen := self._seen.get(event.response_id)) is not None:
            if event.item is not None and event.item.type == "function_call":
                seen.client_calls = True
            before = sum(index < event.output_index for index in seen.hidden)
            if before:
                raw = with_fields(raw, output_index=event.output_index - before)
            return (*self._release(seen), raw)
        if event.type in _ITEM_EVENTS or event.previous_item_id in self._items:
            raw = self._linked(event, raw)
        return (raw,)

    def release(self, response_id: str) -> tuple[bytes, ...]:
        """The frames that were held back of a response that this server ends."""
        seen = self._seen.pop(response_id, None)
        self._cancel(seen.calls if seen else ())
        return () if seen is None else self._release(seen)

    def answer(self, fact: ToolFinished) -> None:
        """Take the result of a call."""
        if (order := self._background.pop(fact.call_id, None)) is not None:
            text = f"{order.name}({order.arguments}) has returned: {fact.output}"
            item_id = self._shared.effects.ids.next("item")
            self._queue(Message(id=item_id, role="system", content=(InputText(text),)))
            self._unseen.add(item_id)
            self.result_due = True
            return
        if fact.call_id not in self._running:
            return
        self._running.discard(fact.call_id)
        self._outputs[fact.call_id] = fact.output
        self._send_outputs()

    def defer(self, request: bytes) -> bool:
        """Whether a response.create of the client is held back until the calls are answered."""
        if self._rounds:
            self._deferred = request
        return bool(self._rounds)

    def another_began(self, *, in_conversation: bool) -> None:
        """The upstream server responds to something else: this server need not request a
        response."""
        if in_conversation and not self._unseen:  # the results are in its context
            self.result_due = False
        for each in self._rounds:
            each.goes_on = False

    def result_request(self) -> bytes:
        """The response.create for the result of a background call."""
        self.result_due = False
        return self._outbox.own({"type": "response.create", **self._follow_up()})

    def next_request(self) -> bytes | None:
        """Return the response.create that is due, once; None: none is."""
        due = [each for each in self._rounds if not each.running]
        if not due:
            return None
        self._rounds = [each for each in self._rounds if each.running]
        if self._rounds:
            self._rounds[0].goes_on |= any(each.goes_on for each in due)
            return None
        request, self._deferred = self._deferred, None
        if request is None and any(each.goes_on for each in due):
            request = self._outbox.own({"type": "response.create", **self._follow_up()})
        return request

    def stop(self) -> None:
        """Discard all results that are still to come."""
        self._cancel((*self._running, *self._background))
        self.result_due = False
        self._rounds.clear()
        self._deferred = None

    def _is_call(self, item: UpstreamItem, names: frozenset[str]) -> bool:
        return item.type == "function_call" and item.name in names

    def _take_item(self, event: UpstreamEvent, item: UpstreamItem) -> None:
        if event.type in _ITEM_EVENTS and event.previous_item_id is not None:
            self._items[item.id] = event.previous_item_id
        else:
            self._items.setdefault(item.id, None)
        seen = self._seen.get(event.response_id)
        if seen is None or item.type != "function_call":
            return
        if event.output_index not in seen.hidden:
            seen.hidden.append(event.output_index)
        done = event.type == "response.output_item.done" and item.status == "completed"
        if done and seen.in_conversation and item.call_id and item.call_id not in seen.calls:
            seen.calls.append(item.call_id)
            self._run(RunTool(item.call_id, item.name or "", item.arguments or ""))

    def _run(self, order: RunTool) -> None:
        if order.name not in self._shared.options.rules.background_tools:
            self._running.add(order.call_id)
        elif len(self._background) < MAX_BACKGROUND_CALLS:
            self._background[order.call_id] = order
            self._outputs[order.call_id] = CALL_RUNS
        else:
            self._outputs[order.call_id] = TOO_MANY_CALLS
            return
        self._shared.effects.add(order)

    def _done(self, response_id: str, status: str, raw: bytes) -> tuple[bytes, ...]:
        seen = self._seen.pop(response_id, None)
        if seen is None:
            return (raw,)
        unseen = seen.created is not None and bool(seen.hidden)
        if status != "completed":
            self._cancel(seen.calls)
        elif seen.calls:
            running = self._running.intersection(seen.calls)
            self._rounds.append(_Round(set(seen.calls), not seen.client_calls))
            self._count += 1
            if len(running) < len(seen.calls):
                self._send_outputs()
        else:
            self._count = 0
        if unseen and status == "completed":
            return ()
        if seen.hidden:
            raw = self._without_hidden_output(raw)
        return (*self._release(seen), raw)

    def _send_outputs(self) -> None:
        """Answer the calls whose response has completed."""
        effects = self._shared.effects
        for each in self._rounds:
            for call_id in sorted(each.running & self._outputs.keys()):
                each.running.discard(call_id)
                item_id, output = effects.ids.next("item"), self._outputs.pop(call_id)
                self._queue(FunctionCallOutput(id=item_id, call_id=call_id, output=output))

    def _queue(self, item: Item) -> None:
        """Add an item upstream that is hidden from the client."""
        self._items[item.id] = None
        self._outbox.queue(ItemCreate(item=item))

    def _follow_up(self) -> dict[str, Any]:
        """tool_choice for the next response: a function that must be called would be called for
        ever."""
        if self._count >= MAX_ROUNDS:
            return {"response": {"tool_choice": "none"}}
        if self._shared.options.realtime.tool_choice in ("auto", "none"):
            return {}
        return {"response": {"tool_choice": "auto"}}

    def _cancel(self, call_ids: list[str] | tuple[str, ...]) -> None:
        for call_id in call_ids:
            self._outputs.pop(call_id, None)
            if call_id in self._running or call_id in self._background:
                self._running.discard(call_id)
                self._background.pop(call_id, None)
                self._shared.effects.add(CancelTool(call_id))

    def _release(self, seen: _Seen) -> tuple[bytes, ...]:
        created, seen.created = seen.created, None
        return () if created is None else (created,)

    def _linked(self, event: UpstreamEvent, raw: bytes) -> bytes:
        """An event in which previous_item_id names the last item that the client knows."""
        previous = event.previous_item_id
        if previous not in self._items:
            return raw
        while previous in self._items:
            previous = self._items[previous]
        return with_fields(raw, previous_item_id=previous)

    def _without_hidden_output(self, raw: bytes) -> bytes:
        fields = msgspec.json.decode(raw)
        output = fields["response"].get("output")
        if isinstance(output, list):
            fields["response"]["output"] = [
                item
                for item in output
                if not (isinstance(item, dict) and item.get("id") in self._items)
            ]
        return msgspec.json.encode(fields)
