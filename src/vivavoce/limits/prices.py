"""Prices of models, and the one function that turns usage into money.

Money is an integer number of nano-USD (1e-9 USD). A price is nano-USD for a million tokens or
characters, for an hour, or for one message; each row of usage is rounded once, half up.
"""

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from vivavoce.protocol.responses import Usage

NANO = 10**9
MILLION = 10**6
MS_PER_HOUR = 3_600_000
_DENOMINATOR = 18 * MILLION  # the least common multiple of MILLION and MS_PER_HOUR
_DATED = re.compile(r"-\d{4}-\d{2}-\d{2}$")
MAX_USD = 1_000_000
"""The highest price that is accepted, for a million tokens, an hour or a message."""
Usd: TypeAlias = Annotated[float, Meta(ge=0, le=MAX_USD)]


class Quantities(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one response, transcription, synthesis or completion has used.

    Cached tokens are part of the input tokens of the same modality, reasoning tokens part of
    `text_output`. Times are milliseconds.
    """

    text_input: int = 0
    text_cached: int = 0
    text_output: int = 0
    audio_input: int = 0
    audio_cached: int = 0
    audio_output: int = 0
    image_input: int = 0
    image_cached: int = 0
    other_input: int = 0
    """Input tokens of a modality that was not reported."""
    other_output: int = 0
    characters: int = 0
    """Characters spoken by a synthesiser that charges by them."""
    audio_ms: int = 0
    """Audio recognised by a recogniser that charges by time."""
    session_ms: int = 0
    """The duration, if a service charges by it."""
    messages: int = 0

    @property
    def tokens(self) -> int:
        """All tokens, in and out."""
        text = self.text_input + self.text_output
        audio = self.audio_input + self.audio_output
        return text + audio + self.image_input + self.other_input + self.other_output

    @property
    def input_tokens(self) -> int:
        return self.text_input + self.audio_input + self.image_input + self.other_input

    @property
    def cached_tokens(self) -> int:
        return self.text_cached + self.audio_cached + self.image_cached

    @property
    def output_tokens(self) -> int:
        return self.text_output + self.audio_output + self.other_output

    def __add__(self, other: "Quantities") -> "Quantities":
        names = self.__struct_fields__
        return Quantities(**{name: getattr(self, name) + getattr(other, name) for name in names})


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Prices in nano-USD; None: the model has no such price."""

    text_input: int | None = None
    text_cached: int | None = None
    text_cache_write: int | None = None
    text_output: int | None = None
    audio_input: int | None = None
    audio_cached: int | None = None
    audio_output: int | None = None
    image_input: int | None = None
    image_cached: int | None = None
    characters: int | None = None
    audio_hour: int | None = None
    session_hour: int | None = None
    standby_hour: int | None = None
    message: int | None = None

    @property
    def dearest_input(self) -> int:
        """For a million tokens of any modality."""
        return max(self.text_input or 0, self.audio_input or 0, self.image_input or 0)

    @property
    def dearest_output(self) -> int:
        return max(self.text_output or 0, self.audio_output or 0)


FREE = Rates()


class Price(msgspec.Struct, frozen=True):
    """The rates of a model from a point in time on."""

    model: str
    rates: Rates
    version: str
    provider: str = ""
    effective_from: float = 0.0
    """Unix seconds."""
    source: str = ""
    as_of: str = ""


class Cost(msgspec.Struct, frozen=True):
    """The cost of a row of usage."""

    nano_usd: int
    unpriced: tuple[str, ...] = ()
    """Quantities for which the model has no price.

    Tokens among them are charged at the model's highest price for that direction, other quantities
    not at all.
    """


def rate(used: Quantities, rates: Rates, *, percent: int = 100) -> Cost:
    """The cost of usage. Pure: admission, settlement and reports all use it.

    percent: of the list price, for regional surcharges and discounts.
    """
    sum_, unpriced = 0, []
    free = rates == FREE

    def add(name: str, count: int, price: int | None, fallback: int, unit: int) -> None:
        nonlocal sum_
        if count and price is None and not free:
            unpriced.append(name)
        sum_ += count * (fallback if price is None else price) * (_DENOMINATOR // unit)

    for kind in ("text", "audio", "image"):
        full: int | None = getattr(rates, f"{kind}_input")
        cached_rate: int | None = getattr(rates, f"{kind}_cached")
        cached: int = getattr(used, f"{kind}_cached")
        fresh: int = max(0, getattr(used, f"{kind}_input") - cached)
        add(f"{kind}_input", fresh, full, rates.dearest_input, MILLION)
        if cached:
            cached_price = full if cached_rate is None else cached_rate
            add(f"{kind}_cached", cached, cached_price, rates.dearest_input, MILLION)
    add("text_output", used.text_output, rates.text_output, rates.dearest_output, MILLION)
    add("audio_output", used.audio_output, rates.audio_output, rates.dearest_output, MILLION)
    add("other_input", used.other_input, None, rates.dearest_input, MILLION)
    add("other_output", used.other_output, None, rates.dearest_output, MILLION)
    add("characters", used.characters, rates.characters, 0, MILLION)
    add("audio_ms", used.audio_ms, rates.audio_hour, 0, MS_PER_HOUR)
    add("session_ms", used.session_ms, rates.session_hour, 0, MS_PER_HOUR)
    add("messages", used.messages, rates.message, 0, 1)
    whole = _DENOMINATOR * 100
    return Cost((sum_ * percent + whole // 2) // whole, tuple(unpriced))


def quantities_of(usage: Usage) -> tuple[Quantities, bool]:
    """The quantities of a response, and whether its counts add up.

    Tokens without a modality are counted as such. Cached tokens without a modality count as text,
    up to the number of text tokens. If the counts do not add up, the row is an estimate, and is
    never negative.
    """
    given, cached = usage.input_token_details, usage.input_token_details.cached_tokens_details
    made = usage.output_token_details
    inputs = [max(0, n) for n in (given.text_tokens, given.audio_tokens, given.image_tokens)]
    split = [max(0, n) for n in (cached.text_tokens, cached.audio_tokens, cached.image_tokens)]
    outputs = [max(0, n) for n in (made.text_tokens, made.audio_tokens)]
    consistent = (
        sum(inputs) == usage.input_tokens
        and sum(outputs) == usage.output_tokens
        and sum(split) == given.cached_tokens
        and all(part <= whole for part, whole in zip(split, inputs, strict=True))
        and usage.total_tokens == usage.input_tokens + usage.output_tokens
    )
    split[0] += max(0, given.cached_tokens - sum(split))
    split = [min(part, whole) for part, whole in zip(split, inputs, strict=True)]
    used = Quantities(
        text_input=inputs[0],
        audio_input=inputs[1],
        image_input=inputs[2],
        text_cached=split[0],
        audio_cached=split[1],
        image_cached=split[2],
        text_output=outputs[0],
        audio_output=outputs[1],
        other_input=max(0, usage.input_tokens - sum(inputs)),
        other_output=max(0, usage.output_tokens - sum(outputs)),
    )
    return used, consistent


class PriceEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model of a price table, figures in USD: as the file and the settings hold it."""

    model: str
    rates: dict[str, str]
    provider: str = ""
    as_of: str = ""
    source: str = ""
    effective_from: str = ""
    """An ISO date or time, UTC where it names no zone; "": always."""


class PriceFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: str
    models: tuple[PriceEntry, ...]


def price_of(entry: PriceEntry, version: str) -> Price:
    """The price in integers. Raises ValueError, which names the model and the field."""
    unknown = entry.rates.keys() - set(Rates.__struct_fields__)
    if unknown:
        known = ", ".join(Rates.__struct_fields__)
        raise ValueError(f"{entry.model}: unknown rate {min(unknown)!r}; there are: {known}")
    rates = Rates(**{name: _nano(entry.model, name, usd) for name, usd in entry.rates.items()})
    try:
        begin = _timestamp(entry.effective_from) if entry.effective_from else 0.0
    except ValueError as exc:
        raise ValueError(
            f"{entry.model}: effective_from {entry.effective_from!r} is not an ISO date"
        ) from exc
    return Price(entry.model, rates, version, entry.provider, begin, entry.source, entry.as_of)


def read_prices(data: bytes) -> tuple[Price, ...]:
    """The prices of a file, JSON. Raises ValueError."""
    file = msgspec.json.decode(data, type=PriceFile)
    return tuple(price_of(entry, file.version) for entry in file.models)


class PriceTable:
    """Prices by model name."""

    def __init__(self, prices: Iterable[Price]) -> None:
        """Of several prices of a model that are in effect, the latest `effective_from` counts, and
        one without a provider, which is the operator's own, before all others."""
        self._prices = tuple(prices)
        self._by_name: dict[str, list[Price]] = {}
        for price in self._prices:
            for name in {price.model, f"{price.provider}/{price.model}"}:
                self._by_name.setdefault(name, []).append(price)

    def __iter__(self) -> Iterator[Price]:
        return iter(self._prices)

    def find(self, model: str, at: float, *, provider: str = "") -> Price | None:
        """The price of a model at a time, Unix seconds; None: it has none.

        A dated name such as gpt-realtime-2025-08-28 has the price of the name without its date.
        """
        plain = _DATED.sub("", model)
        names = [model, plain]
        if provider:
            names = [f"{provider}/{model}", f"{provider}/{plain}", *names]
        for name in names:
            valid = [one for one in self._by_name.get(name, ()) if one.effective_from <= at]
            if valid:
                first = {"", valid[0].provider}  # openai before azure, where none is named
                candidates = [one for one in valid if one.provider in first]
                return max(candidates, key=lambda one: (not one.provider, one.effective_from))
        return None


def _nano(model: str, name: str, usd: str) -> int:
    try:
        nano = Decimal(usd) * NANO
    except InvalidOperation as exc:
        raise ValueError(f"{model}: {name} {usd!r} is not an amount of USD") from exc
    if not nano.is_finite() or nano % 1 or not 0 <= nano <= MAX_USD * NANO:
        raise ValueError(
            f"{model}: {name} {usd!r} is not an amount of USD from 0 to {MAX_USD} with at most "
            f"9 decimals"
        )
    return int(nano)


def _timestamp(text: str) -> float:
    at = datetime.fromisoformat(text)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def usd(nano_usd: int) -> str:
    """An amount as text, exact, with at least two decimals: 1.50, 0.000012."""
    sign, rest = ("-" if nano_usd < 0 else ""), abs(nano_usd)
    whole, part = divmod(rest, NANO)
    digits = f"{part:09d}".rstrip("0").ljust(2, "0")
    return f"{sign}{whole}.{digits}"


# --- settings


class ModelPrice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[prices.NAME]: what a model costs, in USD, in place of the built-in price table.

    Tokens and characters are priced by the million, audio and sessions by the hour.
    """

    text_input: Usd | None = None
    text_cached: Usd | None = None
    text_output: Usd | None = None
    audio_input: Usd | None = None
    audio_cached: Usd | None = None
    audio_output: Usd | None = None
    image_input: Usd | None = None
    image_cached: Usd | None = None
    characters: Usd | None = None
    """Characters that a synthesiser speaks."""
    audio_hour: Usd | None = None
    """The price of an hour of recognised audio."""
    session_hour: Usd | None = None
    """The time that a session lasts."""
    message: Usd | None = None
    """A text message of a client."""
    effective_from: str = ""
    """A date, 2026-12-01, or a time; before it the built-in price counts."""
