"""What the endpoints for sound answer, held against the types of the official client library."""

from typing import Any, get_args

import msgspec
import pytest
from openai.types import audio as official
from openai.types import audio_response_format as official_formats
from openai.types.audio import speech_create_params, transcription_create_params
from pydantic import TypeAdapter, ValidationError

from vivavoce.errors import InvalidRequest
from vivavoce.protocol.codec import Reader
from vivavoce.protocol.responses import DurationUsage
from vivavoce.protocol.rest_audio import (
    MAX_INPUT_CHARACTERS,
    DetectedLanguage,
    ServerVadChunking,
    SpeechDelta,
    SpeechDone,
    SpeechRequest,
    SpeechUsage,
    TimestampsRequest,
    TokenUsage,
    TranscriptDelta,
    TranscriptDone,
    TranscriptFormat,
    TranscriptionJson,
    TranscriptionRequest,
    TranscriptionVerbose,
    form_request,
    language_name,
)
from vivavoce.protocol.session import CustomVoice
from vivavoce.protocol.subtitles import Timed, segments, words_in_seconds

speech: Reader[SpeechRequest] = Reader(SpeechRequest)

SHOWN = [Timed("Go forward.", 100, 900), Timed("Ten metres.", 1_000, 2_000)]
TOKENS = TokenUsage(input_tokens=14, output_tokens=45, total_tokens=59)


def sent(struct: msgspec.Struct) -> Any:
    return msgspec.json.decode(msgspec.json.encode(struct))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (TranscriptionJson(text="Go."), official.Transcription),
        (TranscriptionJson(text="Go.", usage=DurationUsage(3)), official.Transcription),
        (
            TranscriptionJson(text="", usage=TOKENS, languages=(DetectedLanguage("en"),)),
            official.Transcription,
        ),
        (TranscriptionJson(text="Go."), official.Translation),
        (
            TranscriptionVerbose(
                language="english",
                duration=2.5,
                text="Go forward. Ten metres.",
                segments=segments(SHOWN),
                words=words_in_seconds(SHOWN),
                usage=DurationUsage(3),
            ),
            official.TranscriptionVerbose,
        ),
        (
            TranscriptionVerbose(language="italian", duration=0.0, text=""),
            official.TranscriptionVerbose,
        ),
        (
            TranscriptionVerbose(
                task="translate",
                language="english",
                duration=2.5,
                text="Go.",
                segments=segments(SHOWN),
            ),
            official.TranslationVerbose,
        ),
        (TranscriptDelta("Go"), official.TranscriptionTextDeltaEvent),
        (TranscriptDone("Go."), official.TranscriptionTextDoneEvent),
        (
            TranscriptDone("Go.", languages=(DetectedLanguage("en"),), usage=TOKENS),
            official.TranscriptionTextDoneEvent,
        ),
    ],
)
def test_official_type_validates_each_event_without_extra_fields(
    ours: msgspec.Struct, theirs: type
) -> None:
    wire = sent(ours)
    read = TypeAdapter[Any](theirs).validate_python(wire, strict=True)
    known = read.model_dump(exclude_unset=True)
    # The library's types have no `task`, though the API sends it.
    assert known | {key: wire[key] for key in ("task",) if key in wire} == wire


def test_official_type_refuses_an_event_with_a_missing_field() -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(official.TranscriptionVerbose).validate_python({"text": "Go."})


def test_official_union_selects_the_type_of_each_event() -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(official.TranscriptionStreamEvent)
    assert type(adapter.validate_python(sent(TranscriptDelta("Go")))).__name__.endswith(
        "DeltaEvent"
    )
    assert type(adapter.validate_python(sent(TranscriptDone("Go")))).__name__.endswith("DoneEvent")


def test_speech_events_carry_base64_audio_and_usage() -> None:
    assert sent(SpeechDelta(b"\xff\xfb")) == {"type": "speech.audio.delta", "audio": "//s="}
    assert sent(SpeechDone(SpeechUsage(14, 101, 115))) == {
        "type": "speech.audio.done",
        "usage": {"input_tokens": 14, "output_tokens": 101, "total_tokens": 115},
    }


def test_speech_request_without_options_has_the_defaults_of_the_api() -> None:
    wish = speech.read(b'{"model": "tts-1", "input": "Hello", "voice": "nova"}')
    assert wish == SpeechRequest(model="tts-1", input="Hello", voice="nova")
    assert (wish.response_format, wish.speed, wish.stream_format) == ("mp3", 1.0, "audio")
    assert wish.voice_id == "nova"


def test_speech_request_with_a_voice_object_or_null_is_read() -> None:
    wish = speech.read(b'{"input": "a", "voice": {"id": "v1"}, "instructions": null, "speed": 2}')
    assert wish == SpeechRequest(input="a", voice=CustomVoice("v1"), speed=2.0)
    assert wish.voice_id == "v1"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ('{"voice": "nova"}', "input"),
        ('{"input": 1}', "input"),
        (f'{{"input": "{"a" * (MAX_INPUT_CHARACTERS + 1)}"}}', "input"),
        ('{"input": "a", "response_format": "mp4"}', "response_format"),
        ('{"input": "a", "speed": 0.2}', "speed"),
        ('{"input": "a", "speed": 4.1}', "speed"),
        ('{"input": "a", "stream_format": "video"}', "stream_format"),
        ('{"input": "a", "voice": 3}', "voice"),
    ],
)
def test_speech_request_with_a_bad_value_names_its_field(body: str, param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        speech.read(body)
    assert refused.value.param == param


def test_form_is_read_with_the_defaults_of_the_api() -> None:
    assert form_request({}, TranscriptionRequest) == TranscriptionRequest()
    assert TranscriptionRequest().response_format == "json"
    assert TranscriptionRequest().timestamp_granularities == ("segment",)


def test_form_fields_are_all_read() -> None:
    fields = {
        "model": ["whisper-1"],
        "language": ["en", "it"],
        "prompt": ["Vivavoce"],
        "response_format": ["verbose_json"],
        "temperature": ["0.2"],
        "timestamp_granularities": ["word", "segment"],
        "include": ["logprobs"],
        "stream": ["true"],
        "chunking_strategy[type]": ["server_vad"],
        "chunking_strategy[threshold]": ["0.4"],
        "keywords": ["Ada", "Byron"],
        "known_speaker_names": ["agent"],
        "known_speaker_references": ["data:,"],
    }
    assert form_request(fields, TranscriptionRequest) == TranscriptionRequest(
        model="whisper-1",
        language="it",
        prompt="Vivavoce",
        response_format="verbose_json",
        temperature=0.2,
        timestamp_granularities=("word", "segment"),
        include=("logprobs",),
        stream=True,
        keywords=("Ada", "Byron"),
        chunking_strategy=ServerVadChunking(threshold=0.4),
        known_speaker_names=("agent",),
        known_speaker_references=("data:,",),
    )
    assert form_request(fields, TranscriptionRequest).hint == "Ada, Byron Vivavoce"


def test_form_with_an_empty_field_reads_it_as_absent() -> None:
    fields = {"language": [""], "temperature": [""], "timestamp_granularities": [""], "stream": []}
    assert form_request(fields, TranscriptionRequest) == TranscriptionRequest()


@pytest.mark.parametrize(("said", "meant"), [("True", True), ("false", False), ("0", False)])
def test_boolean_of_a_form_is_read_in_every_spelling(said: str, meant: bool) -> None:
    assert form_request({"stream": [said]}, TranscriptionRequest).stream is meant


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": ["mp3"]}, "response_format"),
        ({"temperature": ["hot"]}, "temperature"),
        ({"temperature": ["1.1"]}, "temperature"),
        ({"timestamp_granularities": ["word", "letter"]}, "timestamp_granularities[1]"),
        ({"include": ["everything"]}, "include[0]"),
        ({"chunking_strategy": ["manual"]}, "chunking_strategy"),
        ({"chunking_strategy[type]": ["clock"]}, "chunking_strategy.type"),
        (
            {"chunking_strategy": ["manual"], "chunking_strategy[type]": ["server_vad"]},
            "chunking_strategy",
        ),
        ({"known_speaker_names": ["a"] * 17}, "known_speaker_names"),
        ({"stream": ["perhaps"]}, "stream"),
    ],
)
def test_form_with_a_bad_value_names_its_field(fields: dict[str, list[str]], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        form_request(fields, TranscriptionRequest)
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("threshold", "1.5", "invalid_value"),
        ("threshold", "loud", "invalid_type"),
        ("neg_threshold", "-1", "invalid_value"),
        ("min_speech_duration_ms", "-5", "invalid_value"),
        ("min_silence_duration_ms", "2.5", "invalid_type"),
        ("max_speech_duration_s", "0", "invalid_value"),
        ("speech_pad_ms", "-1", "invalid_value"),
        ("min_silence", "100", "unknown_parameter"),
    ],
)
def test_timestamps_request_with_an_invalid_field_names_it(
    name: str, value: str, code: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        form_request({name: [value]}, TimestampsRequest)
    assert (refused.value.param, refused.value.code) == (name, code)


def test_formats_are_those_of_the_official_library() -> None:
    assert set(get_args(official_formats.AudioResponseFormat)) == set(get_args(TranscriptFormat))
    known = speech_create_params.SpeechCreateParams.__annotations__.keys()
    assert set(SpeechRequest.__struct_fields__) == set(known)
    form = transcription_create_params.TranscriptionCreateParamsBase.__annotations__.keys()
    assert set(TranscriptionRequest.__struct_fields__) - {"stream"} <= set(form)


@pytest.mark.parametrize(
    ("tag", "name"),
    [
        ("en", "english"),
        ("en-US", "english"),
        ("pt_BR", "portuguese"),
        ("ZH", "chinese"),
        ("yue", "cantonese"),
        ("tlh", "tlh"),
        ("english", "english"),
    ],
)
def test_language_tag_has_an_english_name(tag: str, name: str) -> None:
    assert language_name(tag) == name
