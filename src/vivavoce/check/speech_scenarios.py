"""What is spoken to the server: turns, interruptions, transcription sessions."""

import base64

from vivavoce.audio.formats import BYTES_PER_MS
from vivavoce.check.connection import CheckConnection, CheckTarget, connected
from vivavoce.check.recording import CheckRecording, EventFields, at
from vivavoce.check.scenarios import LONG_ANSWER, say, update

TRANSCRIPTION = {"model": "gpt-4o-mini-transcribe", "language": "en"}
SERVER_VAD: EventFields = {
    "type": "server_vad",
    "threshold": 0.5,
    "prefix_padding_ms": 300,
    "silence_duration_ms": 500,
}
_COMPLETED = "conversation.item.input_audio_transcription.completed"
_FAILED = "conversation.item.input_audio_transcription.failed"


def _detection(**fields: object) -> EventFields:
    return {"input": {"turn_detection": {**SERVER_VAD, **fields}, "transcription": TRANSCRIPTION}}


async def manual_turn(target: CheckTarget, recording: CheckRecording) -> None:
    """Without turn detection: append, commit, ask; retrieve the audio; append and clear."""
    notes = recording.notes
    async with connected(target, recording) as line:
        await line.until("session.created")
        await update(
            line, audio={"input": {"turn_detection": None, "transcription": TRANSCRIPTION}}
        )
        notes["spoken_ms"] = len(target.speech) // BYTES_PER_MS
        await line.speak(target.speech, 0)
        commit = await line.send("input_audio_buffer.commit")
        committed = await line.reply(commit, "input_audio_buffer.committed")
        notes["item"] = committed.get("item_id")
        await line.until(_COMPLETED, _FAILED)
        await line.settle()
        notes["before_response"] = len(recording.received)
        await line.response("manual")
        event_id = await line.send("conversation.item.retrieve", item_id=notes["item"])
        notes["retrieved"] = await line.reply(event_id, "conversation.item.retrieved")
        await line.speak(target.speech, 0)
        await line.send("input_audio_buffer.clear")
        await line.until("input_audio_buffer.cleared")
        event_id = await line.send("input_audio_buffer.commit")
        notes["commit_after_clear"] = await line.reply(event_id, "input_audio_buffer.committed")
        await line.settle()


async def spoken_turn(target: CheckTarget, recording: CheckRecording) -> None:
    """Server VAD: a turn is detected, transcribed and answered."""
    await _turn(target, recording, _detection())


async def semantic_turn(target: CheckTarget, recording: CheckRecording) -> None:
    """The same with semantic_vad."""
    detection = {"type": "semantic_vad", "eagerness": "high"}
    audio = {"input": {"turn_detection": detection, "transcription": TRANSCRIPTION}}
    await _turn(target, recording, audio, silence_ms=5000)


async def turn_without_response(target: CheckTarget, recording: CheckRecording) -> None:
    """`create_response: false`: a turn is detected and not answered."""
    async with connected(target, recording) as line:
        await line.until("session.created")
        await update(line, audio=_detection(create_response=False))
        await line.speak(target.speech)
        await line.until("input_audio_buffer.committed")
        await line.until(_COMPLETED, _FAILED)
        await line.settle()


async def interruption(target: CheckTarget, recording: CheckRecording) -> None:
    """Speech during a long answer ends it."""
    async with connected(target, recording) as line:
        await line.until("session.created")
        await update(line, audio=_detection())
        await say(line, LONG_ANSWER)
        created = await line.begin_response("interrupted")
        await line.until("response.output_audio.delta")
        await line.speak(target.speech)
        await line.response_end(created)
        await line.until("input_audio_buffer.committed")
        second = await line.until("response.created", "response.done")
        if second.get("type") == "response.created":
            recording.notes["next"] = at(second, "response", "id")
            await line.response_end(second)
        await line.settle()


async def no_interruption(target: CheckTarget, recording: CheckRecording) -> None:
    """`interrupt_response: false`: speech during a long answer lets it go on."""
    async with connected(target, recording) as line:
        await line.until("session.created")
        detection = _detection(interrupt_response=False, create_response=False)
        await update(line, audio=detection)
        await say(line, LONG_ANSWER)
        created = await line.begin_response("continued")
        await line.until("response.output_audio.delta")
        await line.speak(target.speech)
        await line.until("input_audio_buffer.committed", where=lambda _: True)
        if not recording.all("response.done"):
            await line.response_end(created)
        await line.settle()


async def transcription(target: CheckTarget, recording: CheckRecording) -> None:
    """A transcription session: one committed turn, one that is detected."""
    notes = recording.notes
    async with connected(target, recording, query={"intent": "transcription"}) as line:
        created = await line.until("session.created", "error")
        if created.get("type") == "error" or at(created, "session", "type") != "transcription":
            recording.unsupported = "?intent=transcription opens no transcription session"
            return
        reply = await _update_transcription(line, None)
        notes["updated"] = reply
        await line.speak(target.speech, 0)
        event_id = await line.send("input_audio_buffer.commit")
        committed = await line.reply(event_id, "input_audio_buffer.committed")
        notes["item"] = committed.get("item_id")
        await line.until(_COMPLETED, _FAILED)
        event_id = await line.send("response.create")
        notes["response_create"] = await line.reply(event_id, "response.created")
        await _update_transcription(line, SERVER_VAD)
        await line.speak(target.speech)
        await line.until(_COMPLETED, _FAILED)
        await line.settle()


async def _update_transcription(line: CheckConnection, detection: object) -> EventFields:
    audio = {"input": {"transcription": TRANSCRIPTION, "turn_detection": detection}}
    session = {"type": "transcription", "audio": audio}
    event_id = await line.send("session.update", session=session)
    return await line.reply(event_id, "session.updated")


async def _turn(
    target: CheckTarget, recording: CheckRecording, audio: EventFields, silence_ms: int = 1500
) -> None:
    async with connected(target, recording) as line:
        await line.until("session.created")
        reply = await update(line, audio=audio)
        if reply.get("type") == "error":
            recording.unsupported = f"turn detection was refused: {at(reply, 'error', 'message')}"
            return
        await line.speak(target.speech, silence_ms)
        created = await line.until("response.created")
        recording.notes["spoken"] = at(created, "response", "id")
        await line.response_end(created)
        if not (recording.all(_COMPLETED) or recording.all(_FAILED)):
            await line.until(_COMPLETED, _FAILED)
        await line.settle()


async def g711_turn(target: CheckTarget, recording: CheckRecording) -> None:
    """Input in G.711: half a second of silence is long enough to commit."""
    async with connected(target, recording) as line:
        await line.until("session.created")
        reply = await update(
            line, audio={"input": {"format": {"type": "audio/pcmu"}, "turn_detection": None}}
        )
        if reply.get("type") == "error":
            recording.unsupported = f"G.711 was refused: {at(reply, 'error', 'message')}"
            return
        for ms in (40, 500):
            audio = base64.b64encode(b"\xff" * (8 * ms)).decode()
            await line.send("input_audio_buffer.append", audio=audio)
            event_id = await line.send("input_audio_buffer.commit")
            answer = await line.reply(event_id, "input_audio_buffer.committed")
            recording.notes[f"commit_{ms}_ms"] = answer
        await line.settle()
