"""What of a request concerns speech, what is refused, and what stays as it came."""

from typing import Any

import msgspec
import pytest

from tests.api.chat.stage import recording, user
from vivavoce.api.chat.request import AudioOptions, parse
from vivavoce.errors import InvalidRequest

HELLO: Any = {"role": "user", "content": "Hello"}


def parsed(**fields: Any) -> Any:
    return parse(msgspec.json.encode({"messages": [HELLO], **fields}))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": 3}, "messages"),
        ({"messages": [3]}, "messages[0]"),
        ({"messages": [HELLO, user(3)]}, "messages[1].content[0]"),
        ({"messages": [user({"type": "input_audio"})]}, "messages[0].content[0].input_audio.data"),
        (
            {"messages": [user(HELLO, {"type": "input_audio", "input_audio": {"data": ""}})]},
            "messages[0].content[1].input_audio.data",
        ),
        (
            {"messages": [user({"type": "input_audio", "input_audio": {"data": 3}})]},
            "messages[0].content[0].input_audio.data",
        ),
        (
            {"messages": [HELLO, user(recording(b"x", "midi"))]},
            "messages[1].content[0].input_audio.format",
        ),
        ({"messages": [{"role": "assistant", "audio": {"id": 3}}]}, "messages[0].audio.id"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"n": "2"}, "n"),
        ({"stream": 1}, "stream"),
        ({"modalities": ["smell"]}, "modalities[0]"),
        ({"modalities": ["text", "audio"]}, "audio"),
        ({"modalities": ["audio"], "audio": {"format": "midi"}}, "audio.format"),
        ({"modalities": ["audio"], "audio": {"voice": 3}}, "audio.voice"),
    ],
)
def test_a_mistake_names_its_place(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        parsed(**fields)
    assert raised.value.param == param


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"messages": [], "x": "\xff"}'])
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest) as raised:
        parse(body)
    assert raised.value.code == "invalid_json"


def test_a_request_without_messages_is_refused() -> None:
    with pytest.raises(InvalidRequest) as raised:
        parse(b"{}")
    assert (raised.value.param, raised.value.code) == ("messages", "missing_required_parameter")


def test_speech_is_wanted_only_with_the_modality() -> None:
    audio = {"voice": "ash", "format": "mp3"}
    assert parsed(audio=audio).wish is None
    assert parsed(audio=audio, modalities=["text"]).wish is None
    assert parsed(audio=audio, modalities=["text", "audio"]).wish == AudioOptions("ash", "mp3")
    assert parsed(audio={"voice": {"id": "v"}}, modalities=["audio"]).wish == AudioOptions(
        "v", "wav"
    )
    assert parsed(audio={}, modalities=["audio"], stream=True).wish == AudioOptions("", "pcm16")
    assert parsed(audio={"format": "pcm"}, modalities=["audio"]).wish == AudioOptions("", "pcm16")


def test_what_is_not_touched_stays_as_it_was_written() -> None:
    body = b'{"n": null, "messages":[{"content" : "H\\u00e9"} ], "x": 1.50e0,"model":"m"}'
    assert parse(body).rewritten({}, {}, model="m") is body
    assert parse(body).rewritten({}, {}, model="other") == (
        b'{"n":null,"messages":[{"content" : "H\\u00e9"} ],"x":1.50e0,"model":"other"}'
    )


def test_what_is_meant_for_us_is_taken_out() -> None:
    call = parsed(
        modalities=["text"], audio=None, transcription_model="t", speech_model="s", seed=1
    )
    assert (call.transcription_model, call.speech_model) == ("t", "s")
    assert msgspec.json.decode(call.rewritten({}, {})) == {"messages": [HELLO], "seed": 1}


def test_words_take_the_place_of_sound() -> None:
    earlier = {"role": "assistant", "audio": {"id": "audio_1", "transcript": "yes"}, "name": "x"}
    kept = {"role": "assistant", "audio": {"id": "audio_2"}, "content": "already"}
    text = {"type": "text", "text": "and this"}
    call = parsed(messages=[HELLO, user(recording(), text), earlier, kept, {"audio": None}])
    assert set(call.recordings) == {(1, 0)}
    assert call.recordings[1, 0].param == "messages[1].content[0].input_audio"
    assert {n: (e.id, e.transcript) for n, e in call.earlier.items()} == {
        2: ("audio_1", "yes"),
        3: ("audio_2", None),
    }
    rewritten = msgspec.json.decode(call.rewritten({(1, 0): "this"}, {2: "yes", 3: "no"}))
    assert rewritten["messages"] == [
        HELLO,
        user({"type": "text", "text": "this"}, text),
        {"role": "assistant", "name": "x", "content": "yes"},
        {"role": "assistant", "content": "already"},
        {"audio": None},
    ]
