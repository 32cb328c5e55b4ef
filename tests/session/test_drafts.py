from typing import Literal

import pytest

from vivavoce.audio.formats import decode
from vivavoce.errors import InvalidRequest
from vivavoce.protocol.items import (
    FunctionCall,
    FunctionCallOutput,
    InputAudio,
    InputImage,
    InputText,
    Item,
    Message,
    OutputAudio,
    OutputText,
    Part,
)
from vivavoce.session.conversation import Entry
from vivavoce.session.effects import Ids
from vivavoce.session.item_validation import entry_of

PICTURE = InputImage(image_url="data:image/png;base64,AA==")


def taken(item: Item) -> Entry:
    return entry_of(item, "audio/pcm", Ids("s"), "item")


def refused(item: Item, path: str = "item") -> tuple[str | None, str | None, str]:
    """Code, param and message of the refusal."""
    with pytest.raises(InvalidRequest) as problem:
        entry_of(item, "audio/pcm", Ids("s"), path)
    return problem.value.code, problem.value.param, problem.value.message


def said(*parts: Part) -> Message:
    return Message(id="u", role="user", content=parts)


def test_item_without_an_id_gets_one() -> None:
    assert taken(Message(role="user", content=())).item.id == "item_s00001"
    assert taken(said(InputText(text="hi"))) == Entry(said(InputText(text="hi")))


def test_id_longer_than_openai_takes_is_accepted_up_to_a_bound() -> None:
    longest = FunctionCallOutput(id="x" * 64, call_id="call_1", output="")
    assert taken(longest).item.id == "x" * 64
    assert refused(FunctionCallOutput(id="x" * 65, call_id="call_1", output="")) == (
        "string_above_max_length",
        "item.id",
        "Invalid 'item.id': string too long. Expected a string with maximum length 64, "
        "but got a string with length 65 instead.",
    )


def test_item_of_the_client_is_complete_whatever_its_status() -> None:
    item = taken(Message(id="a", status="in_progress", role="system", content=())).item
    assert item.status == "completed"


def test_sound_is_taken_out_of_an_item() -> None:
    entry = taken(said(InputText(text="listen:"), InputAudio(audio=b"\x01\x02\x03\x04")))
    assert entry == Entry(
        said(InputText(text="listen:"), InputAudio()),
        recordings={1: b"\x01\x02\x03\x04"},
        samples=2,
    )


def test_audio_with_a_transcript_is_not_transcribed() -> None:
    entry = taken(said(InputAudio(audio=bytes(4), transcript="hello")))
    assert entry == Entry(
        said(InputAudio(transcript="hello")), {0: bytes(4)}, words={0: "hello"}, samples=2
    )


def test_words_may_come_without_their_sound() -> None:
    entry = taken(said(InputAudio(transcript="hello")))
    assert entry == Entry(said(InputAudio(transcript="hello")), words={0: "hello"})


def test_sound_of_all_parts_counts() -> None:
    entry = taken(said(InputAudio(audio=bytes(4)), InputAudio(audio=bytes(6))))
    assert (entry.samples, sorted(entry.recordings)) == (5, [0, 1])


def test_sound_comes_in_the_format_of_the_session() -> None:
    law = bytes(range(80))
    entry = entry_of(said(InputAudio(audio=law)), "audio/pcma", Ids("s"), "item")
    assert entry.recordings == {0: decode(law, "audio/pcma")}
    assert entry.samples == 240


def test_part_with_neither_sound_nor_words_is_refused() -> None:
    assert refused(said(InputText(text="a"), InputAudio())) == (
        "missing_required_parameter",
        "item.content[1].audio",
        "Missing required parameter: 'item.content[1].audio'.",
    )


def test_half_a_sample_in_an_item_is_refused() -> None:
    code, param, message = refused(said(InputAudio(audio=b"\x01\x02\x03")))
    assert (code, param) == ("invalid_value", "item.content[0].audio")
    assert "odd number of bytes" in message


def test_every_byte_is_a_sample_where_the_format_has_one_byte_a_sample() -> None:
    entry = entry_of(said(InputAudio(audio=b"\xff\xff\xff")), "audio/pcmu", Ids("s"), "item")
    assert entry.samples == 9


@pytest.mark.parametrize(
    ("role", "part"),
    [
        ("system", InputText(text="be brief")),
        ("user", InputText(text="hi")),
        ("user", PICTURE),
        ("assistant", OutputText(text="hello")),
    ],
)
def test_each_role_has_its_parts(role: Literal["system", "user", "assistant"], part: Part) -> None:
    item = Message(id="a", role=role, content=(part,))
    assert taken(item) == Entry(item)


@pytest.mark.parametrize(
    ("role", "part", "message"),
    [
        (
            "system",
            PICTURE,
            "Invalid value: 'input_image'. Supported values for a message of the system are: "
            "'input_text'.",
        ),
        (
            "user",
            OutputText(text="x"),
            "Invalid value: 'output_text'. Supported values for a message of the user are: "
            "'input_text' and 'input_audio' and 'input_image'.",
        ),
        (
            "assistant",
            OutputAudio(transcript="x"),
            "Invalid value: 'output_audio'. Supported values for a message of the assistant are: "
            "'output_text'.",
        ),
    ],
)
def test_part_that_its_role_does_not_allow_is_refused(
    role: Literal["system", "user", "assistant"], part: Part, message: str
) -> None:
    item = Message(role=role, content=(part,))
    assert refused(item, "response.input[3]") == (
        "invalid_value",
        "response.input[3].content[0].type",
        message,
    )


def test_call_from_history_gets_an_id_where_it_has_none() -> None:
    call = FunctionCall(id="f", call_id="call_1", name="dial", arguments="{}")
    assert taken(call) == Entry(call)
    nameless = taken(FunctionCall(id="f", name="dial")).item
    assert nameless == FunctionCall(id="f", call_id="call_s00001", name="dial")


@pytest.mark.parametrize("call_id", ["", "call 1", "call_ä", "call_1\n"])
def test_id_of_a_call_is_letters_digits_dashes_and_underscores(call_id: str) -> None:
    assert refused(FunctionCallOutput(call_id=call_id, output="")) == (
        "invalid_value",
        "item.call_id",
        "Invalid 'item.call_id': string does not match pattern. Expected a string that matches "
        "the pattern '^[a-zA-Z0-9_-]+$'.",
    )


@pytest.mark.parametrize("url", ["file:///etc/passwd", "/etc/passwd", "data:text/html,x", ""])
def test_picture_is_a_data_or_web_url_and_never_a_file(url: str) -> None:
    code, param, _ = refused(said(InputText(text="look"), InputImage(image_url=url)))
    assert (code, param) == ("invalid_value", "item.content[1].image_url")


def test_item_id_root_is_refused() -> None:
    assert refused(Message(id="root", role="user", content=())) == (
        "invalid_value",
        "item.id",
        "Invalid 'item.id': 'root' stands for the beginning of the conversation.",
    )
