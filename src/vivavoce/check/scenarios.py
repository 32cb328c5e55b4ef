"""What is sent to the server on a WebSocket of the GA protocol, without speech."""

import msgspec

from vivavoce.check.connection import CheckConnection, CheckTarget, connected
from vivavoce.check.recording import CheckRecording, EventFields, at
from vivavoce.check.tables import INVALID, SETTINGS, TOOL

LONG_ANSWER = "Please tell me a long story about a fox."
METADATA = {"purpose": "conformance", "number": "1"}


def user_text(text: str, **fields: str) -> EventFields:
    """A message of the user."""
    content = [{"type": "input_text", "text": text}]
    return {"type": "message", "role": "user", "content": content, **fields}


async def say(line: CheckConnection, text: str) -> EventFields:
    """Add a message of the user, and wait for its item or an error."""
    event_id = await line.send("conversation.item.create", item=user_text(text))
    return await line.reply(event_id, "conversation.item.added", "conversation.item.done")


async def update(line: CheckConnection, **session: object) -> EventFields:
    """Update the session; returns session.updated or the error."""
    event_id = await line.send("session.update", session={"type": "realtime", **session})
    return await line.reply(event_id, "session.updated")


async def connect(target: CheckTarget, recording: CheckRecording) -> None:
    """Connect and wait; offer the subprotocols that browsers offer."""
    key = target.api_key.reveal() or "none"
    offered = ("realtime", f"openai-insecure-api-key.{key}", "openai-agents-sdk.1.0.0")
    async with connected(target, recording, headers={}, protocols=offered) as line:
        await line.until("session.created")
        await line.settle()


async def settings(target: CheckTarget, recording: CheckRecording) -> None:
    """Each setting for itself, a refused update, and a partial one."""
    notes = recording.notes
    async with connected(target, recording) as line:
        await line.until("session.created")
        for row in SETTINGS:
            reply = await update(line, **row.patch)
            notes[f"setting_{row.id}"] = next(
                e.event for e in reversed(recording.entries) if e.sent
            )
            notes[f"reply_{row.id}"] = reply
        notes["before"] = await update(line, instructions="First.")
        notes["refused"] = await update(line, instructions="Second.", no_such_setting=1)
        notes["after"] = await update(line, max_output_tokens=300)
        notes["other_model"] = await update(line, model=target.model)
        await line.settle()


async def errors(target: CheckTarget, recording: CheckRecording) -> None:
    """Each invalid event for itself; afterwards the session still works."""
    notes = recording.notes
    async with connected(target, recording) as line:
        await line.until("session.created")
        notes["manual"] = await update(line, audio={"input": {"turn_detection": None}})
        for row in INVALID:
            event = {**row.event, "event_id": f"invalid_{row.id}"}
            notes[event["event_id"]] = event
            await line.send_raw(msgspec.json.encode(event), event)
        await line.send_raw(b'{"type": ', {"type": "(not JSON)"})
        await line.send_raw(b"[1, 2]", {"type": "(an array)"})
        await line.send_raw(b'{"event_id": "no_type"}', {"event_id": "no_type"})
        notes["sent_all"] = len(recording.received)
        await line.settle()
        notes["alive"] = await update(line, instructions="Still here.")


CREATED_ITEMS: tuple[tuple[str, EventFields, str | None], ...] = (
    ("first", user_text("First.", id="check_first"), None),
    ("last", user_text("Last.", id="check_last"), None),
    ("root", user_text("Root.", id="check_root"), "root"),
    ("middle", user_text("Middle.", id="check_middle"), "check_first"),
    (
        "system",
        {
            "type": "message",
            "role": "system",
            "content": [{"type": "input_text", "text": "Be kind."}],
        },
        None,
    ),
    (
        "assistant",
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Hello."}],
        },
        None,
    ),
    (
        "call",
        {
            "type": "function_call",
            "name": "get_weather",
            "call_id": "call_check",
            "arguments": "{}",
        },
        None,
    ),
    (
        "output",
        {
            "type": "function_call_output",
            "call_id": "call_check",
            "output": '{"sky": "clear"}',
        },
        None,
    ),
)
"""(name of the note, item, `previous_item_id`)"""


async def items(target: CheckTarget, recording: CheckRecording) -> None:
    """Create items at every place, retrieve, delete."""
    notes = recording.notes
    async with connected(target, recording) as line:
        await line.until("session.created")
        for name, item, previous in CREATED_ITEMS:
            fields = (
                {"item": item} if previous is None else {"item": item, "previous_item_id": previous}
            )
            event_id = await line.send("conversation.item.create", **fields)
            notes[name] = await line.reply(event_id, "conversation.item.done")
        event_id = await line.send("conversation.item.retrieve", item_id="check_middle")
        notes["retrieved"] = await line.reply(event_id, "conversation.item.retrieved")
        event_id = await line.send(
            "conversation.item.truncate", item_id="check_middle", content_index=0, audio_end_ms=0
        )
        notes["truncated_text"] = await line.reply(event_id, "conversation.item.truncated")
        event_id = await line.send("conversation.item.delete", item_id="check_middle")
        notes["deleted"] = await line.reply(event_id, "conversation.item.deleted")
        for name, kind, answer in (
            ("deleted_twice", "conversation.item.delete", "conversation.item.deleted"),
            ("retrieved_deleted", "conversation.item.retrieve", "conversation.item.retrieved"),
        ):
            event_id = await line.send(kind, item_id="check_middle")
            notes[name] = await line.reply(event_id, answer)
        event_id = await line.send("input_audio_buffer.clear")
        notes["cleared"] = await line.reply(event_id, "input_audio_buffer.cleared")
        await line.settle()


async def text_response(target: CheckTarget, recording: CheckRecording) -> None:
    """A written answer with metadata, and one that is limited to few tokens."""
    async with connected(target, recording) as line:
        await line.until("session.created")
        await update(line, output_modalities=["text"])
        await say(line, "Hello, who are you?")
        await line.response("text", metadata=METADATA)
        await say(line, LONG_ANSWER)
        await line.response("limited", max_output_tokens=5)
        await line.settle()


async def audio_response(target: CheckTarget, recording: CheckRecording) -> None:
    """A spoken answer, retrieved and truncated; one in G.711."""
    notes = recording.notes
    async with connected(target, recording) as line:
        await line.until("session.created")
        await say(line, "Hello, who are you?")
        done = await line.response("audio")
        item_id = at(done, "response", "output", 0, "id")
        for name, kind, fields in (
            ("retrieved", "retrieved", {}),
            ("too_far", "truncated", {"content_index": 0, "audio_end_ms": 10_000_000}),
            ("truncated", "truncated", {"content_index": 0, "audio_end_ms": 100}),
        ):
            verb = kind.removesuffix("d")
            event_id = await line.send(f"conversation.item.{verb}", item_id=item_id, **fields)
            notes[name] = await line.reply(event_id, f"conversation.item.{kind}")
        await update(line, audio={"output": {"format": {"type": "audio/pcmu"}}})
        await say(line, "And what can you do?")
        await line.response("pcmu")
        await line.settle()


async def cancellation(target: CheckTarget, recording: CheckRecording) -> None:
    """A second response beside the first is refused; the first is cancelled, twice."""
    notes = recording.notes
    async with connected(target, recording) as line:
        await line.until("session.created")
        await say(line, LONG_ANSWER)
        created = await line.begin_response("cancelled")
        notes["second"] = {"event_id": await line.send("response.create")}
        await line.send("response.cancel", response_id=notes["cancelled"])
        await line.response_end(created)
        event_id = await line.send("response.cancel")
        notes["cancelled_twice"] = await line.reply(event_id, "response.done")
        await line.settle()


async def out_of_band(target: CheckTarget, recording: CheckRecording) -> None:
    """Responses outside the conversation: with input of their own, a reference, and none."""
    notes = recording.notes
    async with connected(target, recording) as line:
        await line.until("session.created")
        await update(line, output_modalities=["text"])
        item = await say(line, "My name is Ada.")
        beside = {"conversation": "none", "output_modalities": ["text"]}
        await line.response(
            "own_input", **beside, metadata=METADATA, input=[user_text("Say hello.")]
        )
        reference = [{"type": "item_reference", "id": at(item, "item", "id")}]
        await line.response("reference", **beside, input=reference)
        await line.response("no_input", **beside, input=[], instructions="Say hello.")
        done = [
            e
            for e in recording.all("response.done")
            if at(e, "response", "id") == notes["own_input"]
        ]
        item_id = at(done[0], "response", "output", 0, "id") if done else None
        if isinstance(item_id, str):
            event_id = await line.send("conversation.item.retrieve", item_id=item_id)
            notes["retrieved"] = await line.reply(event_id, "conversation.item.retrieved")
        await line.response("default")
        await line.settle()


async def tools(target: CheckTarget, recording: CheckRecording) -> None:
    """A function call and its answer; then `tool_choice` none."""
    notes = recording.notes
    async with connected(target, recording) as line:
        await line.until("session.created")
        await update(line, output_modalities=["text"], tools=[TOOL])
        await say(line, "What is the weather in Rome?")
        choice = {"type": "function", "name": "get_weather"}
        done = await line.response("call", tool_choice=choice)
        await line.settle()
        notes["after_call"] = len(recording.received)
        calls = [i for i in at(done, "response", "output") or () if "call_id" in i]
        if calls:
            output = {
                "type": "function_call_output",
                "call_id": calls[0]["call_id"],
                "output": '{"sky": "clear", "degrees": 21}',
            }
            event_id = await line.send("conversation.item.create", item=output)
            notes["output"] = await line.reply(event_id, "conversation.item.done")
            await line.settle()
            notes["after_output"] = len(recording.received)
            await line.response("answer")
        await say(line, "What is the weather in Paris?")
        await line.response("no_tools", tool_choice="none")
        await say(line, "What is the weather in Oslo?")
        await line.response("required", tool_choice="required")
        await line.settle()
