"""`vivavoce serve` and `vivavoce config`."""

from vivavoce.starting import heavy_imports

with heavy_imports():
    from vivavoce.settings import LogLevel, Settings  # with most of what follows

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, TypeVar

import msgspec
from cyclopts import Parameter, Token, convert
from rich.markup import escape

from vivavoce.cli.console import ConfigFile, err, give_up, load_settings, out, read_settings
from vivavoce.errors import SettingsError
from vivavoce.telemetry.logs import log_to_stderr
from vivavoce.voxray_config import VoxrayConfig

if TYPE_CHECKING:
    from vivavoce.workers.messages import BannerModel


def _given(type_: Any, tokens: Sequence[Token]) -> Any:
    """The value of an option. The words none and null are no values, as they would be for a type
    that has None in it."""
    return convert(type_, tokens)


T = TypeVar("T")
Option: TypeAlias = Annotated[T | None, Parameter(converter=_given)]
"""None: it is not given, and leaves the setting as it is."""


def serve(
    *,
    config: ConfigFile = None,
    host: Option[str] = None,
    port: Option[int] = None,
    log_level: Option[LogLevel] = None,
    tls_certificate: Option[str] = None,
    tls_key: Option[str] = None,
    no_auth: Annotated[bool | None, Parameter(negative="")] = None,
    workers: Option[int | Literal["auto"]] = None,
) -> None:
    """Serve until SIGINT or SIGTERM; SIGHUP reads the settings again, or ends it in a terminal.

    Parameters
    ----------
    config
        The settings file; ./vivavoce.toml or ./config.json if there is one.
    host
        The address to listen on.
    port
        The port to listen on; 0 for any free one.
    log_level
        How much to log: debug, info, warning or error.
    tls_certificate
        A certificate (PEM), for https and wss.
    tls_key
        Its key (PEM).
    no_auth
        Allow unauthenticated access on a public address.
    workers
        Processes that serve together on the port; auto: one for each core.
    """
    flags: dict[str, Any] = {
        "server.host": host,
        "server.port": port,
        "server.log_level": log_level,
        "server.tls_certificate": tls_certificate,
        "server.tls_key": tls_key,
        "server.no_auth": no_auth,
        "server.workers": workers,
    }
    settings, _, voxray = read_settings(config, flags)
    log_to_stderr(settings.server.log_level, settings.server.log_format)
    if (count := _worker_count(settings)) > 1:
        _serve_together(config, flags, settings, voxray, count)
        return
    with heavy_imports():  # that only this command needs
        from vivavoce import app
        from vivavoce.server import run_loop
        from vivavoce.workers.control import banner_of

    def announce(built: app.Built, address: str) -> None:
        _announce(voxray, banner_of(built.models, settings.default_model), address)

    try:
        run_loop(app.serve(settings, announce, lambda: load_settings(config, flags)[0]))
    except SettingsError as exc:
        give_up(exc)


def _worker_count(settings: Settings) -> int:
    """`workers`; for `auto`, the number of cores that this process may use."""
    if settings.server.workers != "auto":
        return settings.server.workers
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _serve_together(
    config: Path | None,
    flags: dict[str, Any],
    settings: Settings,
    voxray: VoxrayConfig | None,
    count: int,
) -> None:
    """Serve in several processes."""
    from vivavoce.server import run_loop
    from vivavoce.workers.supervisor import Launch, supervise

    launch = Launch(settings, None if config is None else str(config), flags, count)
    try:
        run_loop(supervise(launch, partial(_announce, voxray)))
    except SettingsError as exc:
        give_up(exc)


def config(*, config: ConfigFile = None) -> None:
    """Print the effective settings with secrets masked, and their sources.

    Parameters
    ----------
    config
        The settings file; ./vivavoce.toml or ./config.json if there is one.
    """
    settings, sources, _ = read_settings(config, {})
    out.print_json(described(settings).decode())
    origin = f"from: {', '.join(sources) or 'the defaults alone'}"
    err.print(origin, highlight=False, soft_wrap=True)  # do not shorten paths


def described(settings: Settings) -> bytes:
    """The settings as JSON, secrets masked."""
    return msgspec.json.format(msgspec.json.encode(settings, enc_hook=str), indent=2)


def _announce(
    voxray: VoxrayConfig | None,
    models: "tuple[BannerModel, ...]",
    address: str,
    workers: int = 1,
) -> None:
    if voxray:
        port = int(address.rpartition(":")[2].partition("/")[0])
        out.print(voxray.banner(port), highlight=False, soft_wrap=True)
        if voxray.notes:
            notes = "; ".join(voxray.notes)
            err.print(
                f"{voxray.path}, to be noted: {escape(notes)}", highlight=False, soft_wrap=True
            )
    beside = f", {workers} workers" if workers > 1 else ""
    out.print(f"[bold]Vivavoce[/bold] listens at [bold]{address}[/bold]{beside}")
    for model in models:
        mark = " (default)" if model.is_default else ""
        out.print(f"  model [bold]{escape(model.name)}[/bold]{mark}", highlight=False)
        for kind, text in model.engines:
            out.print(f"    {kind:<8}{escape(text)}", highlight=False, soft_wrap=True)
        if model.relay_url:
            out.print(f"    relay {escape(model.relay_url)}", highlight=False, soft_wrap=True)
    out.file.flush()
