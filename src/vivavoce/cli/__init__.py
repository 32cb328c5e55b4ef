"""The command line: parses, calls, prints."""

import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

# one thread for small matrices: more of them cost twice the time and all the cores; numpy reads
# this when it is first imported
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from cyclopts import App, Parameter
from rich.console import Console
from rich.markup import escape

from vivavoce.cli.console import ConfigFile, err, give_up, load_settings, out, read_settings, stdout
from vivavoce.errors import SettingsError
from vivavoce.settings import LogLevel, Settings
from vivavoce.standard_streams import keep_standard_descriptors
from vivavoce.talk.options import DemoOptions, TalkOptions
from vivavoce.telemetry.logs import log_to_stderr
from vivavoce.voxray_config import VoxrayConfig

if TYPE_CHECKING:
    from vivavoce.workers.messages import BannerModel

cli = App(
    name="vivavoce",
    help="A self-hosted real-time voice server.",
    console=out,
    error_console=err,
)

for name, module, what in (
    ("keys", "accounts", "API keys."),
    ("users", "accounts", "Users and teams, to whom keys and budgets belong."),
    ("budgets", "accounts", "Limits of money, minutes and tokens."),
    ("usage", "accounts", "Print what was used, and what it cost."),
    ("prices", "accounts", "Print the prices by which usage is charged, in USD."),
    ("models", "packs", "Model packs: the weights of the engines on this machine."),
    ("doctor", "doctor", "Check what is installed, works and can be reached here, and how fast."),
    ("init", "init", "Ask a few questions and write a commented settings file."),
    ("check", "testkit", "Check whether a Realtime server keeps to the protocol."),
    ("bench", "testkit", "Measure how fast a Realtime server answers, and how many it carries."),
    ("replay", "recordings", "Run a recorded call again, compare it, make a test of it."),
    ("recordings", "recordings", "The calls that a server has recorded."),
    ("run", "scenarios", "Run conversations from scenario files, and judge them."),
    ("clips", "scenarios", "Spoken test audio, made by a voice of this machine."),
    ("voices", "voices", "Compare voices: blind ratings by people, and measures."),
):
    cli.command(f"vivavoce.cli.{module}:{name}", name=name, help=what)  # imported when it is used


@cli.command
def serve(
    *,
    config: ConfigFile = None,
    host: str | None = None,
    port: int | None = None,
    log_level: LogLevel | None = None,
    tls_certificate: str | None = None,
    tls_key: str | None = None,
    no_auth: Annotated[bool | None, Parameter(negative="")] = None,
    workers: int | Literal["auto"] | None = None,
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
    from vivavoce import app  # heavy imports, needed by this command alone
    from vivavoce.server import run_loop
    from vivavoce.workers.control import banner_of

    def announce(built: app.Built, address: str) -> None:
        _announce(voxray, banner_of(built.models, settings.default_model), address)

    try:
        run_loop(app.serve(settings, announce, lambda: load_settings(config, flags)[0]))
    except SettingsError as exc:
        give_up(exc)


def _worker_count(settings: Settings) -> int:
    """`workers`, and for `auto` the number of cores that this process may use."""
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


@cli.command
def talk(options: TalkOptions = TalkOptions()) -> None:
    """Talk to a Realtime server, this one or another.

    Without a file, a text or the microphone the standard input is read.
    """
    from vivavoce.talk.command import talk

    console = out if options.color else Console(file=out.file, no_color=True)
    sys.exit(talk(options, console))


@cli.command
def demo(options: DemoOptions = DemoOptions()) -> None:
    """Start a server, ask it a spoken question, and show every step."""
    from vivavoce.talk.demo import demo

    sys.exit(demo(options, out))


@cli.command(name="config")
def show_config(*, config: ConfigFile = None) -> None:
    """Print the effective settings with secrets masked, and their sources.

    Parameters
    ----------
    config
        The settings file; ./vivavoce.toml or ./config.json if there is one.
    """
    from vivavoce.app import described

    settings, sources, _ = read_settings(config, {})
    out.print_json(described(settings).decode())
    origin = f"from: {', '.join(sources) or 'the defaults alone'}"
    err.print(origin, highlight=False, soft_wrap=True)  # paths stay whole


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


def main() -> None:
    """The entry point of the `vivavoce` command."""
    keep_standard_descriptors()
    failure = stdout.run(cli)
    if isinstance(failure, BrokenPipeError):
        sys.exit(1)  # the reader has closed the pipe
    if failure:
        give_up(SettingsError(f"the standard output cannot be written: {failure.strerror}"))
