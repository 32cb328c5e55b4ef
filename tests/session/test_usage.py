from dataclasses import replace

import msgspec
import pytest

from tests.session.stage import (
    MODELS,
    Priced,
    a_session,
    answered,
    receive,
    settings,
    tell,
    the,
)
from vivavoce.protocol.client import ResponseCreate
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
)
from vivavoce.protocol.responses import (
    CachedTokens,
    DurationUsage,
    InputTokens,
    OutputTokens,
    SessionUsage,
    Usage,
)
from vivavoce.protocol.server import ResponseDone
from vivavoce.session.effects import EffectBuffer, Ids, RecordUsage
from vivavoce.session.facts import (
    GenerationFinished,
    OutputFinished,
    TextGenerated,
    TokenCounts,
)
from vivavoce.session.shell import Session
from vivavoce.session.usage import (
    UsageMeter,
    estimate,
    response_usage,
    transcription_usage,
    words_of,
)


def test_token_is_about_four_characters() -> None:
    assert [estimate(text) for text in ("", "a", "four", "five!")] == [0, 1, 1, 2]


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (Message(role="user", content=(InputText(text="hi"), InputText(text="you"))), "hi you"),
        (Message(role="user", content=(InputAudio(transcript="spoken"),)), "spoken"),
        (Message(role="user", content=(InputAudio(), InputImage(image_url="data:x"))), ""),
        (Message(role="assistant", content=(OutputText(text="well"),)), "well"),
        (Message(role="assistant", content=(OutputAudio(transcript="aloud"),)), "aloud"),
        (FunctionCall(name="dial", arguments='{"to":1}'), 'dial {"to":1}'),
        (FunctionCallOutput(call_id="call_1", output="ringing"), "ringing"),
    ],
)
def test_text_of_an_item_counts_whole(item: Item, words: str) -> None:
    assert words_of(item) == words


def test_sound_counts_by_its_length_and_text_as_the_model_counted() -> None:
    usage = response_usage(
        TokenCounts(input=119, output=30, cached=64),
        context=999,
        heard=2400 * 13,  # 1 token per 100 ms
        said="not counted again",
        spoken=1200 * 91,  # 1 token per 50 ms
    )
    assert usage == Usage(
        total_tokens=253,
        input_tokens=132,
        output_tokens=121,
        input_token_details=InputTokens(
            text_tokens=119,
            audio_tokens=13,
            cached_tokens=64,
            cached_tokens_details=CachedTokens(text_tokens=64),
        ),
        output_token_details=OutputTokens(text_tokens=30, audio_tokens=91),
    )


def test_text_tokens_without_counts_of_the_model_are_estimated() -> None:
    usage = response_usage(None, context=7, heard=0, said="four", spoken=0)
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (7, 1, 8)
    assert usage.input_token_details.cached_tokens == 0


def test_started_unit_of_sound_is_a_whole_token() -> None:
    usage = response_usage(None, context=0, heard=2401, said="", spoken=1)
    assert usage.input_token_details.audio_tokens == 2
    assert usage.output_token_details.audio_tokens == 1


def test_cached_tokens_are_bounded_by_the_input() -> None:
    usage = response_usage(
        TokenCounts(input=5, output=1, cached=9), context=0, heard=0, said="", spoken=0
    )
    assert usage.input_token_details.cached_tokens == 5


@pytest.mark.parametrize(
    ("samples", "seconds"), [(0, 0), (1, 1), (24_000, 1), (24_001, 2), (47_999, 2)]
)
def test_transcription_costs_started_seconds(samples: int, seconds: int) -> None:
    assert transcription_usage(samples) == DurationUsage(seconds=seconds)


def test_usage_meter_adds_up_and_reports_each_use() -> None:
    effects = EffectBuffer(Ids("t"))
    meter = UsageMeter(effects)
    used = [
        RecordUsage("r1", "local", Usage(input_tokens=3, output_tokens=4, total_tokens=7)),
        RecordUsage("r2", "local", Usage(input_tokens=10, output_tokens=19, total_tokens=29)),
        RecordUsage("i1:0", "local", DurationUsage(seconds=5), "transcription"),
        RecordUsage("i2:0", "local", DurationUsage(seconds=2), "transcription"),
        RecordUsage("i3:0", "asr", Usage(output_tokens=1), "transcription"),
    ]
    for record in used:
        meter.add(record)
    assert effects.drain() == used
    total = meter.totals
    assert (
        total.responses,
        total.input_tokens,
        total.output_tokens,
        total.transcribed_seconds,
    ) == (
        2,
        13,
        24,
        7,
    )


def asked_for_usage(session: Session) -> SessionUsage:
    """The x_usage of a written answer that the model counts as 7 tokens."""
    effects = receive(session, ResponseCreate(), 5.0)
    response_id = answered(effects)
    tell(session, TextGenerated(response_id, "Hello."), now=5.0)
    finished = GenerationFinished(response_id, "stop", TokenCounts(3, 4))
    effects = tell(session, finished, OutputFinished(response_id), now=6.0)
    shown = the(ResponseDone, effects).x_usage
    assert isinstance(shown, SessionUsage)
    return shown


def test_client_that_includes_usage_gets_it_with_each_response() -> None:
    opening = settings(include=("x_usage",), output_modalities=("text",))
    session = a_session(opening, offer=replace(MODELS, costs=Priced()), now=2.0)
    first = asked_for_usage(session)
    assert (first.responses, first.input_tokens, first.output_tokens) == (1, 3, 4)
    assert (first.seconds, first.nano_usd, first.response_nano_usd) == (4.0, 7 + 8, 7)
    second = asked_for_usage(session)
    assert (second.responses, second.nano_usd, second.response_nano_usd) == (2, 14 + 8, 7)


def test_usage_without_prices_costs_nothing_and_is_not_sent_unasked() -> None:
    session = a_session(include=("x_usage",), output_modalities=("text",))
    assert asked_for_usage(session).nano_usd == 0
    plain = a_session(output_modalities=("text",))
    response_id = answered(receive(plain, ResponseCreate()))
    effects = tell(plain, GenerationFinished(response_id, "stop"), OutputFinished(response_id))
    assert b"x_usage" not in msgspec.json.encode(the(ResponseDone, effects))
