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
def test_invalid_field_is_named_by_its_path(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        parsed(**fields)
    assert raised.value.param == param


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"messages": [], "x": "\xff"}'])
def test_body_that_is_not_a_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest) as raised:
        parse(body)
    assert raised.value.code == "invalid_json"


def test_request_without_messages_is_refused() -> None:
    with pytest.raises(InvalidRequest) as raised:
        parse(b"{}")
    assert (raised.value.param, raised.value.code) == ("messages", "missing_required_parameter")


def test_audio_options_need_the_audio_modality() -> None:
    audio = {"voice": "ash", "format": "mp3"}
    assert parsed(audio=audio).audio is None
    assert parsed(audio=audio, modalities=["text"]).audio is None
    assert parsed(audio=audio, modalities=["text", "audio"]).audio == AudioOptions("ash", "mp3")
    assert parsed(audio={"voice": {"id": "v"}}, modalities=["audio"]).audio == AudioOptions(
        "v", "wav"
    )
    assert parsed(audio={}, modalities=["audio"], stream=True).audio == AudioOptions("", "pcm16")
    assert parsed(audio={"format": "pcm"}, modalities=["audio"]).audio == AudioOptions("", "pcm16")


def test_unchanged_request_is_the_same_bytes() -> None:
    body = b'{"n": null, "messages":[{"content" : "H\\u00e9"} ], "x": 1.50e0,"model":"m"}'
    assert parse(body).rewritten({}, {}, model="m") is body
    assert parse(body).rewritten({}, {}, model="other") == (
        b'{"n":null,"messages":[{"content" : "H\\u00e9"} ],"x":1.50e0,"model":"other"}'
    )


def test_own_fields_are_not_forwarded() -> None:
    call = parsed(
        modalities=["text"], audio=None, transcription_model="t", speech_model="s", seed=1
    )
    assert (call.transcription_model, call.speech_model) == ("t", "s")
    assert msgspec.json.decode(call.rewritten({}, {})) == {"messages": [HELLO], "seed": 1}


def test_transcripts_replace_recordings() -> None:
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


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_max_tokens_of_minus_one_is_no_limit(name: str) -> None:
    call = parsed(**{name: -1})
    assert call.fields((name,)) == {}
    assert name.encode() not in call.rewritten({}, {})
    assert parsed(**{name: 7}).fields((name,)) == {name: 7}
    assert parsed(**{name: None}).fields((name,)) == {name: None}


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("tokens", [0, -2, -100, 0.5])
def test_max_tokens_below_one_is_refused(name: str, tokens: float) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parsed(**{name: tokens})
    assert refused.value.param == name


def test_lone_surrogates_are_replaced_and_pairs_are_kept() -> None:
    half = b'{"messages": [{"role": "user", "content": "a\\ud83d b \\ud83d\\ude00"}]}'
    (message,) = parse(half).plain_messages({}, {})
    assert message["content"] == "a\ufffd b \U0001f600"
    whole = b'{"messages": [{"role": "user", "content": "\\ud83d\\ude00"}]}'
    assert parse(whole).rewritten({}, {}) == whole


def test_number_that_no_float_holds_is_refused_with_its_place() -> None:
    huge = (
        b'{"messages":[{"role":"user","content":"a"},{"role":"user","content":1e999}],'
        b'"tools":[1e999]}'
    )
    call = parse(huge)
    with pytest.raises(InvalidRequest, match="Number out of range") as refused:
        call.plain_messages({}, {})
    assert str(refused.value.param).startswith("messages[1]")
    with pytest.raises(InvalidRequest, match="Number out of range") as refused:
        call.fields(("tools",))
    assert str(refused.value.param).startswith("tools")
