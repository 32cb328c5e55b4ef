"""Computes what the usage of a configured model costs."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import msgspec

from vivavoce.limits.accounts import Owner
from vivavoce.limits.prices import (
    FREE,
    MILLION,
    Cost,
    PriceTable,
    Quantities,
    Rates,
    quantities_of,
    rate,
)
from vivavoce.protocol.responses import DurationUsage, Usage
from vivavoce.session.effects import RecordUsage
from vivavoce.store.base import RatingProblem, UsageKind, UsageRow

TOKEN_MS = 100  # of recognised audio, if a recogniser charges by tokens
SPOKEN_TOKEN_MS = 50
DEFAULT_CONTEXT = 2_000
"""Tokens that the first response of a session is expected to have in its prompt."""
TURN_TOKENS = 700
"""A minute of speech and some words: the tokens that a user may add before the next response."""
DEFAULT_OUTPUT = 4_096
"""Tokens of a response that has no limit of its own."""


class PriceRef(msgspec.Struct, frozen=True):
    """A model of the price table."""

    model: str
    provider: str = ""


class Tariff(msgspec.Struct, frozen=True):
    """The prices of a configured model.

    A part without a price runs on this machine and costs nothing.
    """

    mode: Literal["local", "relay"] = "local"
    brain: PriceRef | None = None
    """The upstream model of a relay, or the language model of a cascade."""
    stt: PriceRef | None = None
    tts: PriceRef | None = None
    provider: str = ""
    """The provider of the recognisers that sessions of a relay name."""
    percent: int = 100
    """What is charged, in percent of the list price."""


class Rated(NamedTuple):
    """Usage and what it costs."""

    used: Quantities
    nano_usd: int
    price_version: str
    problem: RatingProblem = ""
    """Why the cost is an estimate."""

    def row(
        self,
        id_: str,
        kind: UsageKind,
        model: str,
        owner: Owner,
        at: float,
        *,
        session: str = "",
        confirmed: bool = True,
        mode: Literal["local", "relay"] = "local",
    ) -> UsageRow:
        """The usage as a row of the store; see UsageRow."""
        return UsageRow(
            id=id_,
            at=at,
            kind=kind,
            model=model,
            key=owner.key,
            user=owner.user,
            team=owner.team,
            session=session,
            used={name: n for name, n in msgspec.structs.asdict(self.used).items() if n},
            nano_usd=self.nano_usd,
            price_version=self.price_version,
            estimated=bool(self.problem),
            problem=self.problem,
            confirmed=confirmed,
            mode=mode,
        )


class Rater:
    """Computes the cost of usage by the tariff of its model."""

    def __init__(self, prices: PriceTable, tariffs: Mapping[str, Tariff]) -> None:
        self.prices = prices
        self.tariffs = tariffs

    def tariff(self, model: str) -> Tariff:
        return self.tariffs.get(model, Tariff())

    def is_priced(self, model: str, at: float) -> bool:
        """Whether all parts of a model that cost money have a price."""
        tariff = self.tariff(model)
        parts = (tariff.brain, tariff.stt, tariff.tts)
        found = [self._rates(part, at) for part in parts if part is not None]
        return None not in found and not (tariff.mode == "relay" and tariff.brain is None)

    def prices_images(self, model: str, at: float) -> bool:
        """Whether pictures have a price; for a relay, a price of their own."""
        tariff = self.tariff(model)
        found = self._rates(tariff.brain, at)
        return tariff.mode == "local" or (found is not None and found[0].image_input is not None)

    def by_clock(self, model: str, at: float) -> bool:
        """Whether a session of a model is charged by time."""
        found = self._rates(self.tariff(model).brain, at)
        return found is not None and found[0].session_hour is not None

    def record(self, record: RecordUsage, at: float) -> Rated:
        """The cost of what a session reports."""
        tariff = self.tariff(record.model)
        if record.kind == "transcription" or isinstance(record.usage, DurationUsage):
            upstream = PriceRef(record.recogniser, tariff.provider)
            ref = upstream if tariff.mode == "relay" else tariff.stt
            if isinstance(record.usage, DurationUsage):
                return self.recognised(ref, record.usage.seconds * 1000, at, tariff.percent)
            used, consistent = quantities_of(record.usage)
            return self._rated(used, ref, at, tariff.percent, consistent=consistent)
        assert isinstance(record.usage, Usage)
        used, consistent = quantities_of(record.usage)
        if tariff.mode == "relay":
            return self._rated(used, tariff.brain, at, tariff.percent, consistent=consistent)
        text = Quantities(
            text_input=used.text_input,
            text_cached=used.text_cached,
            text_output=used.text_output,
        )
        written = self._rated(text, tariff.brain, at, tariff.percent, consistent=consistent)
        spoken_ms = used.audio_output * SPOKEN_TOKEN_MS
        spoken = self.spoken(tariff, record.characters, spoken_ms, at)
        all_used = msgspec.structs.replace(used, characters=record.characters)
        return _together(all_used, written, spoken)

    def recognised(self, ref: PriceRef | None, ms: int, at: float, percent: int = 100) -> Rated:
        """The cost of recognising audio, by time or by tokens, whichever the recogniser charges."""
        found = self._rates(ref, at)
        by_tokens = found is not None and found[0].audio_hour is None
        if by_tokens and found is not None and found[0] != FREE:
            used = Quantities(audio_input=-(-ms // TOKEN_MS))
        else:
            used = Quantities(audio_ms=ms)
        return self._rated(used, ref, at, percent)._replace(used=Quantities(audio_ms=ms))

    def spoken(self, tariff: Tariff, characters: int, ms: int, at: float) -> Rated:
        """The cost of speech, by characters, tokens or time, whichever the synthesiser charges."""
        found = self._rates(tariff.tts, at)
        rates = found[0] if found else FREE
        if rates.characters is None and rates.audio_output is not None:
            used = Quantities(
                text_input=-(-characters // 4), audio_output=-(-ms // SPOKEN_TOKEN_MS)
            )
        else:
            used = Quantities(characters=characters)
        rated = self._rated(used, tariff.tts, at, tariff.percent)
        return rated._replace(used=Quantities(characters=characters))

    def completed(self, model: str, used: Quantities, at: float, asked: str = "") -> Rated:
        """The cost of a chat completion. asked: another model of the same endpoint."""
        tariff = self.tariff(model)
        ref = tariff.brain
        if ref is not None and asked:
            other = PriceRef(asked, ref.provider)
            ref = ref if self._rates(other, at) is None else other
        return self._rated(used, ref, at, tariff.percent)

    def lasted(self, model: str, ms: int, at: float, messages: int = 0) -> Rated:
        """The cost of a session that is charged by time, and of the messages that were typed
        in it."""
        tariff, used = self.tariff(model), Quantities(session_ms=ms)
        if not self.by_clock(model, at):
            return Rated(used, 0, "")
        used = msgspec.structs.replace(used, messages=messages)
        return self._rated(used, tariff.brain, at, tariff.percent)

    def bound(self, model: str, context: int, output: int, at: float) -> int:
        """The highest cost of a response, in nano-USD, with nothing cached.

        context: tokens of the conversation so far. output: the limit of the response.
        """
        tariff, total = self.tariff(model), 0
        found = self._rates(tariff.brain, at)
        if found is not None:
            rates = found[0]
            sum_ = (context + TURN_TOKENS) * rates.dearest_input + output * rates.dearest_output
            total += -(-sum_ * tariff.percent // (100 * MILLION))
        if tariff.mode == "local":
            total += self.spoken(tariff, output * 4, output * SPOKEN_TOKEN_MS, at).nano_usd
        return total

    def _rated(
        self,
        used: Quantities,
        ref: PriceRef | None,
        at: float,
        percent: int,
        *,
        consistent: bool = True,
    ) -> Rated:
        problem: RatingProblem = "" if consistent else "inconsistent"
        if ref is None:
            return Rated(used, 0, "", problem)
        found = self._rates(ref, at)
        if found is None:
            return Rated(used, 0, "", "no_price")
        rates, version = found
        cost: Cost = rate(used, rates, percent=percent)
        return Rated(used, cost.nano_usd, version, problem or ("no_rate" if cost.unpriced else ""))

    def _rates(self, ref: PriceRef | None, at: float) -> tuple[Rates, str] | None:
        if ref is None:
            return None
        price = self.prices.find(ref.model, at, provider=ref.provider)
        return None if price is None else (price.rates, price.version)


def _together(used: Quantities, *parts: Rated) -> Rated:
    versions = dict.fromkeys(part.price_version for part in parts if part.price_version)
    return Rated(
        used,
        sum(part.nano_usd for part in parts),
        "+".join(versions),
        next((part.problem for part in parts if part.problem), ""),
    )
