"""Composes prices and the store of accounts from the settings."""

import hashlib
from importlib import resources

import msgspec

from vivavoce.errors import SettingsError
from vivavoce.limits.prices import Price, PriceEntry, PriceTable, price_of, read_prices
from vivavoce.settings import ModelPrice, Settings


def price_table(settings: Settings) -> PriceTable:
    """The built-in prices and those of [prices]. Raises SettingsError."""
    file = resources.files("vivavoce.limits").joinpath("prices.json")
    own = [_own_price(name, price) for name, price in settings.prices.items()]
    return PriceTable([*read_prices(file.read_bytes()), *own])


def _own_price(name: str, given: ModelPrice) -> Price:
    figures: dict[str, object] = {
        field: value for field, value in msgspec.structs.asdict(given).items() if value is not None
    }
    begin = str(figures.pop("effective_from"))
    rates = {field: f"{value:.9f}" for field, value in figures.items()}
    digest = hashlib.sha256(msgspec.json.encode((name, rates, begin))).hexdigest()[:8]
    try:
        entry = PriceEntry(name, rates, source="[prices]", effective_from=begin)
        return price_of(entry, f"settings-{digest}")
    except ValueError as exc:
        raise SettingsError(f"[prices] {exc}") from exc
