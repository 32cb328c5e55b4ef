"""`vivavoce bench`: the options, the reports and the exit status."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from vivavoce.accounting import price_table
from vivavoce.errors import AudioError, SettingsError
from vivavoce.limits.connections import is_loopback
from vivavoce.scorecard.caller import STAGES, BenchTarget
from vivavoce.scorecard.load import LoadBounds, Scorecard, measured
from vivavoce.scorecard.page import page
from vivavoce.secret import Secret
from vivavoce.settings import Settings
from vivavoce.standard_streams import print_error
from vivavoce.talk.client import ServerLost, endpoint
from vivavoce.talk.demo import spoken_sentence

MEASURED, MISSED, REFUSED = 0, 1, 2
"""Exit statuses."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """The options of `vivavoce bench`."""

    model: str = ""
    """The model to ask for."""
    api_key: Annotated[Secret, Parameter(env_var="OPENAI_API_KEY", show_env_var=False)] = Secret()
    """The API key, if the server wants one; by default the one in OPENAI_API_KEY."""
    speech: Path | None = None
    """An audio file with one spoken sentence; by default the embedded voice speaks one."""
    written: Annotated[bool, Parameter(negative="")] = False
    """Write the turns in place of speaking them."""
    max_sessions: int = 64
    """The load curve ends there: 1, 2, 4, 8 and so on."""
    level_seconds: float = 10.0
    """The duration of each level of the load curve."""
    max_seconds: float = 180.0
    """The limit for the whole load curve: no level begins that would exceed it."""
    limit_ms: float = 2000.0
    """A server is taken to be broken where 95 % of its answers begin later than that."""
    want_sessions: int = 0
    """Exit with status 1 where a server carries fewer; for CI."""
    want_ms: float = 0.0
    """Exit with status 1 where one session's median latency is above that; for CI."""
    prices_of: str = "gpt-realtime"
    """Whose prices the tokens of a turn are charged by."""
    timeout: float = 30.0
    """Seconds to wait for an answer."""
    html: Path | None = None
    """A file for the page with plots."""
    json: Path | None = None
    """A file for all figures."""
    yes: Annotated[bool, Parameter(negative="")] = False
    """Measure a server on another machine; its answers may cost money."""


def bench_servers(
    urls: tuple[str, ...], options: BenchOptions, console: Console, notes: Console
) -> int:
    """Measure one server or two. 0: done. 1: less than is wanted. 2: wrong usage, or no answer."""
    try:
        addresses = checked_addresses(urls, options)
        cards = asyncio.run(_measure(addresses, options, notes))
        print_cards(cards, console)
        if options.html:
            _write(options.html, page(cards), "--html")
        if options.json:
            text = msgspec.json.format(msgspec.json.encode(cards), indent=2).decode()
            _write(options.json, text, "--json")
    except (SettingsError, AudioError, ServerLost) as exc:
        print_error(notes, exc)
        return REFUSED
    missed = missing(cards, options)
    for sentence in missed:
        notes.print(escape(sentence), highlight=False, soft_wrap=True)
    return MISSED if missed else MEASURED


def checked_addresses(urls: tuple[str, ...], options: BenchOptions) -> list[str]:
    """The WebSocket addresses. Raises SettingsError."""
    if not 1 <= len(urls) <= 2:
        raise SettingsError("bench measures one server or two: vivavoce bench URL [URL]")
    for name in ("max_sessions", "level_seconds", "max_seconds", "limit_ms", "timeout"):
        if getattr(options, name) <= 0:
            raise SettingsError(f"--{name.replace('_', '-')} is a number above 0")
    addresses = [endpoint(url, options.model) for url in urls]
    for address in addresses:
        host = urlsplit(address).hostname or ""
        if not (options.yes or is_loopback(host)):
            raise SettingsError(
                f"{host} is another machine: a load may disturb others and cost money; say --yes"
            )
    return addresses


async def _measure(addresses: list[str], options: BenchOptions, notes: Console) -> list[Scorecard]:
    speech = b"" if options.written else await spoken_sentence(options.speech)
    if not speech and not options.written:
        notes.print("no voice is installed here, so turns are written: see --speech")
    bounds = LoadBounds(
        options.max_sessions, options.level_seconds, options.max_seconds, options.limit_ms
    )
    prices = price_table(Settings())
    cards = []
    for address in addresses:
        target = BenchTarget(address, options.api_key, speech, options.timeout)
        shown = address.partition("?")[0]

        def note(text: str, shown: str = shown) -> None:
            notes.print(f"  {shown}: {text}", highlight=False, soft_wrap=True)

        try:
            cards.append(await measured(target, bounds, prices, options.prices_of, note))
        except ServerLost as exc:
            raise ServerLost(f"{shown} is not measured: {exc}") from exc
    return cards


def missing(cards: list[Scorecard], options: BenchOptions) -> list[str]:
    """What the servers do not reach of --want-sessions and --want-ms."""
    found = []
    for card in cards:
        median = card.levels[0].latency.p50
        if options.want_sessions and card.carried < options.want_sessions:
            found.append(f"{card.url} carries {card.carried} of {options.want_sessions} sessions")
        if options.want_ms and (median is None or median > options.want_ms):
            found.append(f"{card.url} answers after {median} ms, not {options.want_ms:g}")
    return found


def print_cards(cards: list[Scorecard], console: Console) -> None:
    """Print the load curves, the waterfalls and the rest."""
    for card in cards:
        table = Table("sessions", "turns", "failed", "median", "95 %", "99 %", box=None)
        for level in card.levels:
            times = (level.latency.p50, level.latency.p95, level.latency.p99)
            shown = ["—" if value is None else f"{value:.0f} ms" for value in times]
            table.add_row(str(level.sessions), str(level.turns), str(level.failed), *shown)
        console.print(f"[bold]{escape(card.url)}[/bold]", highlight=False)
        console.print(table)
        console.print(escape(f"ends at {card.stopped}"), highlight=False, soft_wrap=True)
        for name, label in STAGES:
            if (found := card.waterfall[name]).n:
                console.print(f"  {label:<18}{found.p50:7.0f} ms  95 % {found.p95:7.0f} ms")
        if card.interruption.n:
            console.print(f"  {'interruption':<18}{card.interruption.p50:7.0f} ms")
        if card.cost.usd_per_turn:
            console.print(
                f"  a turn at the prices of {card.cost.model}: {card.cost.usd_per_turn} USD"
            )


def _write(path: Path, text: str, option: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise SettingsError(f"{option} {path} cannot be written: {exc.strerror}") from exc
