"""What holds in every session, whatever happens."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec

from tests.session.histories import World
from tests.session.laws import effects, events, every_history_keeps, of_response
from vivavoce.protocol import server as says
from vivavoce.protocol.client import ItemCreate
from vivavoce.protocol.items import FunctionCall
from vivavoce.protocol.responses import ResponseError
from vivavoce.session.effects import (
    RunVad,
    Send,
)
from vivavoce.session.facts import Received


def answers_open_and_close_in_pairs(world: World) -> None:
    opened: set[str] = set()
    closed: set[str] = set()
    for event in events(world):
        response_id = of_response(event)
        if response_id is None:
            continue
        if isinstance(event, says.ResponseCreated):
            assert response_id not in opened
            opened.add(response_id)
        assert response_id in opened
        assert response_id not in closed
        if isinstance(event, says.ResponseDone):
            closed.add(response_id)
    assert opened == closed


def answers_of_the_conversation_do_not_overlap(world: World) -> None:
    active: str | None = None
    for event in events(world):
        match event:
            case says.ResponseCreated(response=response) if response.conversation_id:
                assert active is None
                active = response.id
            case says.ResponseDone(response=response) if response.conversation_id:
                assert active == response.id
                active = None


def outputs_of_a_response_begin_and_end_once(world: World) -> None:
    begun: Counter[tuple[str, str]] = Counter()
    ended: Counter[tuple[str, str]] = Counter()
    for event in events(world):
        match event:
            case says.OutputItemAdded(item=item):
                begun["item", item.id] += 1
            case says.OutputItemDone(item=item):
                ended["item", item.id] += 1
                assert item.status in ("completed", "incomplete")
            case says.ContentPartAdded(item_id=item_id, part=part):
                names = ("part", "sound", "words") if part.type == "audio" else ("part", "text")
                begun.update((name, item_id) for name in names)
            case says.ContentPartDone(item_id=item_id):
                ended["part", item_id] += 1
            case says.OutputAudioDone(item_id=item_id):
                ended["sound", item_id] += 1
            case says.OutputTranscriptDone(item_id=item_id):
                ended["words", item_id] += 1
            case says.OutputTextDone(item_id=item_id):
                ended["text", item_id] += 1
            case says.ResponseDone(response=response):
                assert [item.id for item in response.output] == list(
                    {item.id: None for item in response.output}
                )
    assert begun == ended
    assert set(begun.values()) <= {1}


def response_lists_its_outputs_in_order(world: World) -> None:
    put_out: dict[str, list[str]] = {}
    for event in events(world):
        match event:
            case says.OutputItemAdded(response_id=response_id, output_index=index, item=item):
                output = put_out.setdefault(response_id, [])
                assert index == len(output)
                output.append(item.id)
            case says.ResponseDone(response=response):
                assert [item.id for item in response.output] == put_out.get(response.id, [])
                assert all(item.status != "in_progress" for item in response.output)


def arguments_done_is_sent_only_for_complete_calls(world: World) -> None:
    sent = {
        e.item_id: e.arguments for e in events(world) if isinstance(e, says.FunctionArgumentsDone)
    }
    complete = {
        event.item.id: event.item.arguments
        for event in events(world)
        if isinstance(event, says.OutputItemDone)
        and isinstance(event.item, FunctionCall)
        and event.item.status == "completed"
    }
    assert sent == complete


def conversation_equals_the_items_that_the_client_was_sent(world: World) -> None:
    """A mirror that is kept by the events alone, as clients keep one."""
    mirror: list[str] = []
    done: Counter[str] = Counter()
    added: Counter[str] = Counter()
    deleted: set[str] = set()
    for event in events(world):
        match event:
            case says.ItemAdded(previous_item_id=before, item=item):
                assert item.id not in mirror
                mirror.insert(mirror.index(before) + 1 if before else 0, item.id)
                added[item.id] += 1
            case says.ItemDone(previous_item_id=before, item=item):
                place = mirror.index(item.id)
                assert before == (mirror[place - 1] if place else None)
                done[item.id] += 1
            case says.ItemDeleted(item_id=item_id):
                mirror.remove(item_id)
                deleted.add(item_id)
            case says.InputAudioCommitted(previous_item_id=before):
                assert before == (mirror[-1] if mirror else None)
    assert [entry.item.id for entry in world.session.checkpoint(0.0).entries] == mirror
    assert {item_id: n for item_id, n in added.items() if item_id not in deleted} == {
        item_id: n for item_id, n in done.items() if item_id not in deleted
    }
    assert all(done[item_id] <= added[item_id] for item_id in deleted)


def items_of_the_session_are_added_at_the_end(world: World) -> None:
    mirror: list[str] = []
    for moment in world.history:
        for effect in moment.effects:
            match effect:
                case Send(event=says.ItemAdded(previous_item_id=before, item=item)):
                    asked = moment.fact.event if isinstance(moment.fact, Received) else None
                    if not isinstance(asked, ItemCreate):
                        assert before == (mirror[-1] if mirror else None)
                    elif asked.previous_item_id not in (None, "", "root"):
                        assert before == asked.previous_item_id
                    mirror.insert(mirror.index(before) + 1 if before else 0, item.id)
                case Send(event=says.ItemDeleted(item_id=item_id)):
                    mirror.remove(item_id)


def generated_ids_are_unique(world: World) -> None:
    """But for an item that the client puts back after it has deleted it."""
    event_ids = [msgspec.to_builtins(event)["event_id"] for event in events(world)]
    assert len(set(event_ids)) == len(event_ids)
    put_back = {
        moment.fact.event.item.id
        for moment in world.history
        if isinstance(moment.fact, Received) and isinstance(moment.fact.event, ItemCreate)
    }
    made = [
        event.item.id
        for event in events(world)
        if isinstance(event, says.OutputItemAdded)
        or (isinstance(event, says.ItemAdded) and event.item.id not in put_back)
    ]
    committed = [e.item_id for e in events(world) if isinstance(e, says.InputAudioCommitted)]
    assert max(Counter(committed).values(), default=1) == 1
    assert max(Counter(made).values(), default=1) <= 2  # in the response and in the conversation


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from numbers(inner)
    elif isinstance(value, int | float):
        yield value


def numbers_are_never_negative(world: World) -> None:
    for event in events(world):
        assert min(numbers(msgspec.to_builtins(event)), default=0) >= 0
    for effect in effects(world):
        assert not isinstance(effect, RunVad) or effect.at >= 0
    for entry in world.session.checkpoint(0.0).entries:
        assert entry.samples >= 0
        assert entry.ledger is None or 0 <= (entry.ledger.heard or 0) <= entry.ledger.samples


def times_of_the_sound_only_grow(world: World) -> None:
    last = 0
    for event in events(world):
        match event:
            case says.SpeechStopped(audio_end_ms=ms):
                assert ms >= last
                last = ms
            case says.SpeechStarted(audio_start_ms=ms):
                assert ms >= last
            case says.TimeoutTriggered(audio_start_ms=start, audio_end_ms=ms):
                assert last <= ms
                assert start <= ms


def deltas_add_up(world: World) -> None:
    grown: dict[tuple[str, str], str] = {}
    for event in events(world):
        match event:
            case says.OutputTextDelta(item_id=item_id, delta=delta):
                grown["text", item_id] = grown.get(("text", item_id), "") + delta
            case says.OutputTextDone(item_id=item_id, text=text):
                assert grown.get(("text", item_id), "") == text
            case says.OutputTranscriptDelta(item_id=item_id, delta=delta):
                grown["said", item_id] = grown.get(("said", item_id), "") + delta
            case says.OutputTranscriptDone(item_id=item_id, transcript=text):
                assert grown.get(("said", item_id), "") == text
            case says.FunctionArgumentsDelta(item_id=item_id, delta=delta):
                grown["args", item_id] = grown.get(("args", item_id), "") + delta
            case says.FunctionArgumentsDone(item_id=item_id, arguments=text):
                assert grown.get(("args", item_id), "") == text
            case says.TranscriptionDelta(item_id=item_id, content_index=n, delta=delta):
                key = (f"heard {n}", item_id)
                grown[key] = grown.get(key, "") + delta
            case says.TranscriptionCompleted(item_id=item_id, content_index=n, transcript=text):
                assert grown.pop((f"heard {n}", item_id), "") == text
            case says.TranscriptionFailed(item_id=item_id, content_index=n):
                grown.pop((f"heard {n}", item_id), None)
            case says.ItemDeleted(item_id=item_id):
                for n in range(2):
                    grown.pop((f"heard {n}", item_id), None)
            case _:
                pass


def failed_response_is_followed_by_one_error_with_its_reason(world: World) -> None:
    for moment in world.history:
        sent = [effect.event for effect in moment.effects if isinstance(effect, Send)]
        failed = [
            (event.response.status_details.error.code, event.response.status_details.error.message)
            for event in sent
            if isinstance(event, says.ResponseDone)
            and event.response.status == "failed"
            and event.response.status_details
            and isinstance(event.response.status_details.error, ResponseError)
        ]
        errors = [
            (event.error.code, event.error.message)
            for event in sent
            if isinstance(event, says.ErrorEvent) and event.error.type == "server_error"
        ]
        assert errors == failed


test_history_keeps_the_laws_of_events = every_history_keeps(
    answers_open_and_close_in_pairs,
    answers_of_the_conversation_do_not_overlap,
    outputs_of_a_response_begin_and_end_once,
    response_lists_its_outputs_in_order,
    arguments_done_is_sent_only_for_complete_calls,
    conversation_equals_the_items_that_the_client_was_sent,
    items_of_the_session_are_added_at_the_end,
    generated_ids_are_unique,
    numbers_are_never_negative,
    times_of_the_sound_only_grow,
    deltas_add_up,
    failed_response_is_followed_by_one_error_with_its_reason,
)
