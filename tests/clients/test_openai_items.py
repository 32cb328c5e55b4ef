"""The official client: items put in, asked back, moved and taken out; responses on the side."""

import base64

import numpy as np
from numpy.typing import NDArray

from tests.clients.line import calling, context
from tests.clients.loop import awaited
from tests.clients.sound import TURN, tone
from tests.server import scripted, serving
from vivavoce.audio.formats import decode, encode
from vivavoce.protocol.items import InputImage, Message

PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAC"
    "hwGA60e6kgAAAABJRU5ErkJggg=="
)
SLOW = {"text": "A long answer, word by word, that takes its time.", "tokens_per_second": 20}


@awaited
async def test_items_are_inserted_after_previous_item_id() -> None:
    async with serving() as server, calling(server) as line:
        await line.write("second", item={"id": "mine_2"})
        await line.write("fourth", item={"id": "mine_4"})
        await line.write("first", previous_item_id="root")
        await line.write("third", previous_item_id="mine_2")
        befores = [frame["previous_item_id"] for frame in line.of("conversation.item.added")]
        assert befores == [None, "mine_2", None, "mine_2"]
        await line.to.response.create()
        await line.answer()
        words = ["user: first", "user: second", "user: third", "user: fourth"]
        assert context(server) == words


@awaited
async def test_item_after_an_unknown_item_is_refused() -> None:
    async with serving() as server, calling(server) as line:
        part = {"type": "input_text", "text": "lost"}
        await line.to.conversation.item.create(
            item={"type": "message", "role": "user", "content": [part], "id": "lost"},
            previous_item_id="nobody",
            event_id="misplaced",
        )
        refused = (await line.until("error")).error
        assert refused.code == "item_create_invalid_previous_item_id"
        assert refused.event_id == "misplaced"
        await line.to.conversation.item.retrieve(item_id="lost")
        assert (await line.until("error")).error.code == "item_retrieve_invalid_item_id"


@awaited
async def test_retrieved_audio_equals_the_sent_audio() -> None:
    async with serving() as server, calling(server) as line:
        await line.update(audio={"input": {"turn_detection": None}})
        sent = tone(500)
        await line.say(sent)
        await line.to.input_audio_buffer.commit()
        item = (await line.until("conversation.item.done")).item
        assert item.content[0].audio is None
        await line.to.conversation.item.retrieve(item_id=item.id)
        part = (await line.until("conversation.item.retrieved")).item.content[0]
        assert (part.type, base64.b64decode(part.audio)) == ("input_audio", sent)


def pcm(sound: bytes) -> NDArray[np.int32]:
    return np.frombuffer(decode(sound, "audio/pcma"), "<i2").astype(np.int32)


@awaited
async def test_retrieved_g711_audio_is_g711() -> None:
    async with serving() as server, calling(server) as line:
        audio = {"turn_detection": None, "format": {"type": "audio/pcma"}}
        await line.update(audio={"input": audio})
        sent = encode(tone(500), "audio/pcma")
        await line.say(sent)
        await line.to.input_audio_buffer.commit()
        item = (await line.until("conversation.item.done")).item
        await line.to.conversation.item.retrieve(item_id=item.id)
        part = (await line.until("conversation.item.retrieved")).item.content[0]
        got = pcm(base64.b64decode(part.audio))
        assert len(got) == len(pcm(sent))
        late = (pcm(sent)[6000 - n : 9000 - n] for n in range(100))  # by what the filters take
        assert min(abs(got[6000:9000] - it).max() for it in late) < 1000  # of 20,000


@awaited
async def test_retrieved_answer_has_its_audio() -> None:
    async with serving() as server, calling(server) as line:
        await line.say(TURN)
        answer = await line.answer()
        await line.to.conversation.item.retrieve(item_id=answer.output[0].id)
        part = (await line.until("conversation.item.retrieved")).item.content[0]
        assert base64.b64decode(part.audio) == line.audio()


@awaited
async def test_retrieved_user_item_has_its_transcript() -> None:
    script = scripted(stt={"transcripts": ["hello"]})
    async with serving(script) as server, calling(server) as line:
        await line.update(audio={"input": {"transcription": {"model": "whisper-1"}}})
        await line.say(TURN)
        await line.answer()
        item_id = line.of("input_audio_buffer.committed")[0]["item_id"]
        await line.to.conversation.item.retrieve(item_id=item_id)
        part = (await line.until("conversation.item.retrieved")).item.content[0]
        assert part.transcript == "hello"


@awaited
async def test_deleted_item_cannot_be_retrieved() -> None:
    async with serving() as server, calling(server) as line:
        await line.write("forget this", item={"id": "mine"})
        await line.write("keep this")
        await line.to.conversation.item.delete(item_id="mine")
        assert (await line.until("conversation.item.deleted")).item_id == "mine"
        await line.to.conversation.item.delete(item_id="mine", event_id="twice")
        refused = (await line.until("error")).error
        assert (refused.code, refused.event_id) == ("item_delete_invalid_item_id", "twice")
        await line.to.response.create()
        await line.answer()
        assert context(server) == ["user: keep this"]


@awaited
async def test_out_of_band_response_reads_its_input_and_changes_no_conversation() -> None:
    script = scripted(llm={"answers": [SLOW, {"text": "Topic:", "echo": True}]})
    async with serving(script) as server, calling(server) as line:
        written = await line.write("Let us talk about ships")
        await line.write("And about harbours")
        await line.to.response.create()
        main = (await line.until("response.created")).response
        part = {"type": "input_text", "text": "Name the topic in one word."}
        await line.to.response.create(
            response={
                "conversation": "none",
                "metadata": {"purpose": "topic"},
                "output_modalities": ["text"],
                "instructions": "Classify.",
                "input": [
                    {"type": "item_reference", "id": written.id},
                    {"type": "message", "role": "user", "content": [part]},
                ],
            }
        )
        beside = await line.answer()
        assert beside.id != main.id
        assert (beside.conversation_id, beside.metadata) == (None, {"purpose": "topic"})
        assert beside.output[0].content[0].text == "Topic:Name the topic in one word."
        request = server.llm.requests[-1]
        assert request.instructions == "Classify."
        assert context(server) == [
            "user: Let us talk about ships",
            "user: Name the topic in one word.",
        ]
        answer = await line.answer()
        assert (answer.id, answer.status) == (main.id, "completed")
        assert answer.conversation_id is not None


@awaited
async def test_second_concurrent_response_is_refused() -> None:
    async with serving(scripted(llm={"answers": [SLOW]})) as server, calling(server) as line:
        await line.write("Hello")
        await line.to.response.create()
        await line.to.response.create(event_id="second")
        refused = (await line.until("error")).error
        assert refused.code == "conversation_already_has_active_response"
        assert refused.event_id == "second"
        assert (await line.answer()).status == "completed"


@awaited
async def test_audio_item_is_transcribed_and_answered() -> None:
    async with serving(scripted(stt={"transcripts": ["from a file"]})) as server:
        async with calling(server) as line:
            await line.update(audio={"input": {"transcription": {"model": "whisper-1"}}})
            sound = base64.b64encode(tone(700)).decode()
            item = {
                "type": "message",
                "role": "user",
                "content": [{"type": "input_audio", "audio": sound}],
            }
            await line.to.conversation.item.create(item=item)
            await line.to.response.create()
            assert (await line.answer()).status == "completed"
            (completed,) = line.of("conversation.item.input_audio_transcription.completed")
            assert completed["transcript"] == "from a file"
            assert line.of("conversation.item.added")[0]["item"]["content"][0] == {
                "type": "input_audio",
                "transcript": None,
            }
        assert context(server) == ["user: from a file"]
        assert server.stt.heard == [16 * 700]


@awaited
async def test_image_item_reaches_the_llm() -> None:
    async with serving() as server, calling(server) as line:
        item = {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "What is this?"},
                {"type": "input_image", "image_url": PIXEL, "detail": "low"},
            ],
        }
        await line.to.conversation.item.create(item=item)
        await line.to.response.create(response={"output_modalities": ["text"]})
        assert (await line.answer()).status == "completed"
        (message,) = server.llm.requests[-1].items
        assert isinstance(message, Message)
        assert message.content[1] == InputImage(image_url=PIXEL, detail="low")


@awaited
async def test_conversation_is_restored_from_its_items() -> None:
    async with serving() as server, calling(server) as line:
        history = [
            ("system", {"type": "input_text", "text": "Be brief."}),
            ("user", {"type": "input_text", "text": "Hello"}),
            ("assistant", {"type": "output_text", "text": "Good day."}),
            ("user", {"type": "input_text", "text": "Who are you?"}),
        ]
        for role, part in history:
            item = {"type": "message", "role": role, "content": [part]}
            await line.to.conversation.item.create(item=item)
        await line.to.response.create()
        await line.answer()
        assert context(server) == [f"{role}: {part['text']}" for role, part in history]
