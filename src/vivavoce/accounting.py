"""Composes prices and the store of accounts from the settings."""

import hashlib
import ipaddress
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec
from yarl import URL

from vivavoce.api.auth import Auth
from vivavoce.errors import SettingsError
from vivavoce.limits.accounts import ApiKey, Directory
from vivavoce.limits.connections import is_loopback
from vivavoce.limits.prices import ModelPrice, Price, PriceEntry, PriceTable, price_of, read_prices
from vivavoce.models import BuiltModels, Selected
from vivavoce.runtime.places import Locations, Place
from vivavoce.runtime.resume import Resumption
from vivavoce.secret import Secret
from vivavoce.settings import Settings
from vivavoce.store.base import AccountStore, SessionStore, StoreSettings
from vivavoce.store.buffered import BufferedAccounts
from vivavoce.store.journal import Journal
from vivavoce.store.sqlite import SQLiteStore
from vivavoce.telemetry.metering import Metering
from vivavoce.telemetry.rating import PriceRef, Tariff
from vivavoce.telemetry.spend import SpendComparison

if TYPE_CHECKING:
    from prometheus_client import Gauge

log = logging.getLogger(__name__)
T = TypeVar("T")


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


def open_store(settings: Settings, environment: Mapping[str, str]) -> AccountStore:
    """The store of [store], not entered yet. Raises SettingsError."""
    url = settings.store.url
    text = Secret(url).reveal()
    scheme, _, path = text.partition(":")
    if not text:
        file = _state_folder(environment) / "vivavoce.db"
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise SettingsError(
                f"[store] url: {file.parent} cannot be made: {exc.strerror}; name another place, "
                f"such as sqlite:/var/lib/vivavoce.db, or memory"
            ) from exc
        return SQLiteStore(file)
    if text == "memory":
        return SQLiteStore(":memory:")
    if scheme == "sqlite" and path.strip("/"):
        return SQLiteStore(Path(path.removeprefix("//")).expanduser())
    if scheme in ("redis", "rediss", "unix"):

        def made() -> AccountStore:
            from vivavoce.store.redis import RedisStore

            return RedisStore(Secret(text))

        return redis_client(made, "[store] url")
    raise SettingsError(
        "[store] url is none of sqlite:PATH, redis://HOST:PORT, rediss://HOST:PORT, unix://PATH "
        "and memory"
    )


def redis_client(made: Callable[[], T], setting: str) -> T:
    """What `made` returns, which imports the client of Redis. setting: where the URL was read.

    Raises SettingsError: the client is not installed, or the URL is not valid.
    """
    try:
        return made()
    except ModuleNotFoundError as exc:
        raise SettingsError(
            f"{setting} needs the client of Redis; install it with: pip install 'vivavoce[redis]'"
        ) from exc
    except ValueError as exc:
        raise SettingsError(f"{setting} is not a URL of Redis") from exc


def _state_folder(environment: Mapping[str, str]) -> Path:
    home = environment.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(home).expanduser() / "vivavoce"


@asynccontextmanager
async def _buffered(
    store: AccountStore, settings: StoreSettings, environment: Mapping[str, str]
) -> AsyncIterator[BufferedAccounts]:
    """The store with what it takes to go on without it."""
    folder = _journal_folder(settings, environment)
    if folder is None:
        async with BufferedAccounts(store, settings) as accounts:
            yield accounts
        return
    async with (
        Journal(folder) as journal,
        BufferedAccounts(store, settings, journal=journal) as accounts,
    ):
        yield accounts


def _journal_folder(settings: StoreSettings, environment: Mapping[str, str]) -> Path | None:
    """None: there is no journal."""
    url = Secret(settings.url).reveal()
    if url == "memory" or os.name != "posix":  # it is locked as on POSIX
        return None
    named = Path(settings.journal).expanduser() if settings.journal else None
    folder = named or _state_folder(environment) / "journal"
    return folder / hashlib.sha256(url.encode()).hexdigest()[:12]  # of this store, and no other


@asynccontextmanager
async def metering(
    settings: Settings,
    models: BuiltModels,
    store: AccountStore,
    environment: Mapping[str, str],
) -> AsyncIterator[Metering]:
    """The accounts of a server on a store that is entered. Raises SettingsError, StoreError."""
    before = time.time() - settings.store.usage_days * 86_400
    if forgotten := await store.forget_usage(before):
        log.info("%d rows of usage older than usage_days were deleted", forgotten)
    keys = settings_keys(settings)
    async with (
        _buffered(store, settings.store, environment) as accounts,
        Metering(accounts, price_table(settings), tariffs(settings, models), keys=keys) as service,
    ):
        service.warn_at = settings.session.warn_at
        yield service


@asynccontextmanager
async def resuming(
    settings: Settings, store: SessionStore, place: Place | None = None
) -> AsyncIterator[Resumption | None]:
    """What lets clients come back to their conversations; None where it is switched off.

    place: of this process among several.
    """
    if not settings.resume.enabled:
        yield None
        return
    owner = "" if place is None else place.name
    locations = None if place is None else Locations(store, place)
    async with Resumption(store, settings.resume, owner=owner, locations=locations) as resumption:
        yield resumption


def spend_comparison(settings: Settings, meter: Metering, ratio: "Gauge") -> SpendComparison:
    """Compares what is booked with what OpenAI has billed, where [spend] has a key for that."""

    def models() -> frozenset[str]:
        return billed_by("openai", meter.rater.tariffs)

    return SpendComparison(settings.spend, meter.store.usage, models, ratio, meter.wall_clock)


def settings_keys(settings: Settings) -> list[ApiKey]:
    """The keys of [keys]."""
    return [ApiKey(name=name, hash=hash_) for name, hash_ in settings.keys.items()]


def tariffs(settings: Settings, models: BuiltModels) -> dict[str, Tariff]:
    """The prices of each configured model; "" is the default one."""
    found: dict[str, Tariff] = {}
    for name, relay in models.catalog.relays.items():
        provider = _provider(relay.url)
        found[name] = Tariff("relay", PriceRef(relay.model, provider), provider=provider)
    for name, selected in models.selected.items():
        refs: dict[str, PriceRef | None] = {}
        for engine in selected:  # the first of a kind, and then those that stand in for it
            refs.setdefault(engine.kind, price_ref(settings, engine))
        found[name] = Tariff("local", refs.get("llm"), refs.get("stt"), refs.get("tts"))
    found[""] = found[settings.default_model]
    return found


def billed_by(provider: str, found: Mapping[str, Tariff]) -> frozenset[str]:
    """The models of which that provider is paid for everything that costs money."""
    return frozenset(
        name
        for name, tariff in found.items()
        if {part.provider for part in (tariff.brain, tariff.stt, tariff.tts) if part} == {provider}
    )


def price_ref(settings: Settings, engine: Selected) -> PriceRef | None:
    """The model that an engine pays for; None: it runs on this machine or network."""
    options = {**settings.engines.get(engine.kind, {}).get(engine.name, {}), **engine.options}
    model, url = options.get("model"), str(options.get("base_url") or options.get("url") or "")
    if not isinstance(model, str) or not model:
        return None
    host = URL(url).host if url else ""
    if host and (is_loopback(host) or _is_private(host)):
        return None
    return PriceRef(model, _provider(url) if url else str(options.get("engine", engine.name)))


_PROVIDERS = {
    "openai.com": "openai",
    "azure.com": "azure",
    "x.ai": "xai",
    "groq.com": "groq",
    "cerebras.ai": "cerebras",
    "deepgram.com": "deepgram",
    "elevenlabs.io": "elevenlabs",
}


def _provider(url: str) -> str:
    """The provider in the price table of a service at an address; "" for an unknown one."""
    host = URL(url).host or ""
    return next((name for end, name in _PROVIDERS.items() if f".{host}".endswith(f".{end}")), "")


def _is_private(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host


def follow_keys(auth: Auth, meter: Metering) -> None:
    """Accept the keys of the store, too, as they are added, revoked and removed."""

    def update(directory: Directory) -> None:
        if directory.keys:  # a server that has had keys never becomes an open one
            auth.keys.replace({key.name: key.hash for key in directory.keys.values()})

    def problem(name: str) -> str | None:
        if name and name not in meter.directory.keys:
            return "the key was revoked"
        return meter.directory.problem(name, meter.wall_clock())

    update(meter.directory)
    meter.on_change, auth.key_problem = update, problem
