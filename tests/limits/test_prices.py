"""Usage into money, against figures worked out by hand."""

from decimal import Decimal
from pathlib import Path

import pytest

import vivavoce.limits.prices as prices
from vivavoce.limits.prices import (
    FREE,
    NANO,
    Cost,
    Price,
    PriceEntry,
    PriceTable,
    Quantities,
    Rates,
    price_of,
    quantities_of,
    rate,
    read_prices,
    usd,
)
from vivavoce.protocol.responses import CachedTokens, InputTokens, OutputTokens, Usage

FILE = Path(prices.__file__).with_name("prices.json")
TABLE = PriceTable(read_prices(FILE.read_bytes()))
NOW = 1_796_000_000.0


def rates(model: str, provider: str = "") -> Rates:
    price = TABLE.find(model, NOW, provider=provider)
    assert price is not None
    return price.rates


def nano(dollars: str) -> int:
    exact = Decimal(dollars) * NANO
    assert exact == int(exact)
    return int(exact)


RECORDED = Usage(
    total_tokens=1_513,
    input_tokens=1_211,
    output_tokens=302,
    input_token_details=InputTokens(
        text_tokens=811,
        audio_tokens=300,
        image_tokens=100,
        cached_tokens=913,
        cached_tokens_details=CachedTokens(text_tokens=703, audio_tokens=147, image_tokens=63),
    ),
    output_token_details=OutputTokens(text_tokens=51, audio_tokens=251),
)
"""text 108 fresh + 703 cached, audio 153 + 147, image 37 + 63; out 51 text, 251 audio."""


@pytest.mark.parametrize(
    ("model", "dollars"),
    [
        # 108*4 + 703*0.40 + 153*32 + 147*0.40 + 37*5 + 63*0.50 + 51*24 + 251*64 USD per million
        ("gpt-realtime-2.1", "0.0231725"),
        # 108*0.60 + 703*0.06 + 153*10 + 147*0.30 + 37*0.80 + 63*0.08 + 51*2.40 + 251*20
        ("gpt-realtime-2.1-mini", "0.00685812"),
        # as 2.1, text out at 16
        ("gpt-realtime-1.5", "0.0227645"),
    ],
)
def test_recorded_response_costs_what_the_hand_calculation_says(model: str, dollars: str) -> None:
    used, consistent = quantities_of(RECORDED)
    assert consistent
    assert rate(used, rates(model)) == Cost(nano(dollars))


def test_cached_audio_costs_its_own_rate_and_reasoning_is_part_of_the_text() -> None:
    used = Quantities(audio_input=1_000_000, audio_cached=1_000_000, text_output=29)
    # of 29 text tokens 19 may be reasoning: 29 are billed
    assert rate(used, rates("gpt-realtime-2.1")).nano_usd == nano("0.40") + nano("0.000696")


@pytest.mark.parametrize(
    ("used", "model", "dollars"),
    [
        (Quantities(audio_input=600), "gpt-realtime-2.1", "0.0192"),  # a minute of the user
        (Quantities(audio_output=1200), "gpt-realtime-2.1", "0.0768"),  # and of the assistant
        (Quantities(audio_input=600), "gpt-realtime-2.1-mini", "0.006"),
        (Quantities(audio_output=1200), "gpt-realtime-2.1-mini", "0.024"),
        (Quantities(audio_ms=60_000), "gpt-realtime-whisper", "0.017"),
        (Quantities(audio_ms=60_000), "gpt-transcribe", "0.0045"),
        (Quantities(audio_ms=60_000), "whisper-1", "0.006"),
        (Quantities(audio_input=100, text_output=20), "gpt-4o-transcribe", "0.00045"),
        (Quantities(audio_ms=60_000), "gpt-realtime-translate", "0.034"),
        (Quantities(session_ms=60_000), "gpt-live-1", "0.05"),
        (Quantities(session_ms=60_000, messages=2), "grok-voice-3.0", "0.088"),
        (Quantities(characters=1_000_000), "tts-1", "15"),
        (Quantities(characters=300), "tts-1-hd", "0.009"),
        (
            Quantities(text_input=2_000, text_cached=500, text_output=100),
            "gpt-4o-mini",
            "0.0003225",
        ),
        (Quantities(text_input=1_000_000, text_output=1_000_000), "gpt-6-luna", "0.60"),
    ],
)
def test_published_price_is_charged(used: Quantities, model: str, dollars: str) -> None:
    assert rate(used, rates(model)) == Cost(nano(dollars))


def test_amount_is_rounded_once_half_up() -> None:
    third = Rates(text_input=500_000)  # 0.5 nano-USD a token
    assert [rate(Quantities(text_input=n), third).nano_usd for n in (1, 2, 3)] == [1, 1, 2]


def test_percent_scales_the_list_price() -> None:
    used = Quantities(text_input=1_000_000)
    assert rate(used, rates("gpt-realtime-2.1"), percent=110).nano_usd == nano("4.4")


def test_quantity_without_a_price_costs_the_dearest_tokens_and_is_named() -> None:
    chat = rates("gpt-4o-mini")
    cost = rate(Quantities(audio_input=10, audio_output=10, image_input=1, other_input=2), chat)
    assert cost.nano_usd == 13 * 150 + 10 * 600
    assert cost.unpriced == ("audio_input", "image_input", "audio_output", "other_input")
    assert rate(Quantities(characters=5, audio_ms=5), chat) == Cost(0, ("characters", "audio_ms"))


def test_free_model_costs_nothing_and_lacks_no_price() -> None:
    assert rate(Quantities(text_input=10, audio_ms=99), FREE) == Cost(0)


# usage that does not add up


def test_tokens_of_no_modality_cost_the_dearest() -> None:
    used, consistent = quantities_of(Usage(input_tokens=5, output_tokens=7, total_tokens=12))
    assert not consistent
    assert (used.other_input, used.other_output, used.tokens) == (5, 7, 12)
    assert rate(used, rates("gpt-realtime-2.1")).nano_usd == 5 * 32_000 + 7 * 64_000


def test_cached_tokens_of_no_modality_count_as_text() -> None:
    details = InputTokens(text_tokens=10, audio_tokens=90, cached_tokens=30)
    used, consistent = quantities_of(
        Usage(input_tokens=100, total_tokens=100, input_token_details=details)
    )
    assert not consistent
    assert (used.text_cached, used.audio_cached) == (10, 0)


@pytest.mark.parametrize(
    "details",
    [
        InputTokens(text_tokens=-5, audio_tokens=3, cached_tokens=-2),
        InputTokens(
            audio_tokens=3, cached_tokens=9, cached_tokens_details=CachedTokens(audio_tokens=9)
        ),
    ],
)
def test_usage_that_contradicts_itself_is_never_negative(details: InputTokens) -> None:
    usage = Usage(input_tokens=3, total_tokens=3, input_token_details=details)
    used, consistent = quantities_of(usage)
    assert not consistent
    assert rate(used, rates("gpt-realtime-2.1")).nano_usd >= 0
    assert all(value >= 0 for value in (used.text_input, used.audio_cached, used.other_input))
    assert used.audio_cached <= used.audio_input


def test_quantities_add_up_field_by_field() -> None:
    sum_ = Quantities(text_input=1, audio_ms=5) + Quantities(text_input=2, characters=3)
    assert sum_ == Quantities(text_input=3, audio_ms=5, characters=3)
    assert (sum_.input_tokens, sum_.output_tokens, sum_.cached_tokens) == (3, 0, 0)


# the table


def test_table_names_its_version_and_the_source_of_every_price() -> None:
    for price in TABLE:
        assert price.version == "2026-11-28"
        assert price.source
        assert price.as_of
        assert price.rates != FREE, price.model


def test_provider_chooses_between_prices_of_the_same_model() -> None:
    assert rates("gpt-4o-transcribe").audio_input == nano("2.5")
    assert rates("gpt-4o-transcribe", "azure").audio_input == nano("6")
    assert rates("azure/gpt-4o-transcribe").audio_input == nano("6")
    assert rates("gpt-4o-transcribe", "nobody").audio_input == nano("2.5")


def test_dated_name_has_the_price_of_the_plain_one() -> None:
    assert rates("gpt-realtime-2025-08-28") == rates("gpt-realtime")


def test_unknown_model_has_no_price() -> None:
    assert TABLE.find("nobody-knows-it", NOW) is None


def test_price_counts_from_its_date_and_the_operators_own_comes_first() -> None:
    old = Price("m", Rates(text_input=1), "1", "openai")
    new = Price("m", Rates(text_input=2), "2", "openai", effective_from=100.0)
    table = PriceTable([old, new])
    assert table.find("m", 99.9) is old
    assert table.find("m", 100.0) is new
    own = Price("m", Rates(text_input=3), "own", effective_from=50.0)
    table = PriceTable([old, new, own])
    assert table.find("m", 49.0) is old
    assert table.find("m", 200.0) is own


def test_entry_is_read_into_integers() -> None:
    entry = PriceEntry(
        "m", {"text_input": "0.0375", "message": "0.004"}, effective_from="2026-12-01"
    )
    price = price_of(entry, "v")
    assert price.rates == Rates(text_input=37_500_000, message=4_000_000)
    assert price.effective_from == 1_796_083_200.0


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        (PriceEntry("m", {"text": "1"}), "m: unknown rate 'text'; there are: text_input, "),
        (PriceEntry("m", {"message": "-1"}), "m: message '-1' is not an amount of USD from 0"),
        (PriceEntry("m", {"message": "nan"}), "m: message 'nan' is not an amount of USD from 0"),
        (PriceEntry("m", {"message": "a lot"}), "m: message 'a lot' is not an amount of USD"),
        (PriceEntry("m", {"message": "0.0000000001"}), "at most 9 decimals"),
        (PriceEntry("m", {}, effective_from="soon"), "m: effective_from 'soon' is not an ISO date"),
    ],
)
def test_mistake_in_an_entry_is_named(entry: PriceEntry, problem: str) -> None:
    with pytest.raises(ValueError, match=problem.replace("'", ".")):
        price_of(entry, "v")


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0, "0.00"), (1, "0.000000001"), (1_500_000_000, "1.50"), (-20_000, "-0.00002")],
)
def test_amount_as_text_is_exact(amount: int, text: str) -> None:
    assert usd(amount) == text
