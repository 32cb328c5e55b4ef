"""The command line: parses, calls, prints."""

import asyncio
import contextlib
import logging
import os
import secrets
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, NoReturn, cast

# one thread for small matrices: more of them cost twice the time and all the cores; numpy reads
# this when it is first imported
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from cyclopts import App, Parameter
from rich.console import Console
from rich.markup import escape

from vivavoce.errors import SettingsError
from vivavoce.limits.keys import KEY_BYTES, hash_of, key_of
from vivavoce.secret import Secret
from vivavoce.settings import LogLevel, Settings, load

if TYPE_CHECKING:
    from vivavoce.app import Built


class Unwritable(Exception):
    """The standard output takes no more. It is not told by SystemExit: that tears down a loop."""


class StandardOutput:
    """The standard output, whose failures nobody takes for those of something else."""

    def __init__(self) -> None:
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        try:
            return sys.stdout.write(text)
        except OSError as exc:
            raise self._given_up(exc) from exc

    def flush(self) -> None:
        try:
            sys.stdout.flush()
        except OSError as exc:
            raise self._given_up(exc) from exc

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stdout, name)

    def _given_up(self, exc: OSError) -> Unwritable:
        self.failure = exc
        with open(os.devnull, "wb") as nowhere:  # for what is said on the way out
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        return Unwritable(exc.strerror)


stdout = StandardOutput()
out = Console(file=cast(IO[str], stdout))
err = Console(stderr=True)
cli = App(
    name="vivavoce",
    help="A self-hosted real-time voice server.",
    console=out,
    error_console=err,
)

DEFAULT_URL = "ws://localhost:8080/v1/realtime"
ConfigFile = Annotated[Path | None, Parameter(name=["--config", "-c"])]


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
) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP.

    Parameters
    ----------
    config
        The settings file; ./vivavoce.toml if there is one.
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
    """
    flags: dict[str, Any] = {
        "server.host": host,
        "server.port": port,
        "server.log_level": log_level,
        "server.tls_certificate": tls_certificate,
        "server.tls_key": tls_key,
        "server.no_auth": no_auth,
    }
    settings, _ = _settings(config, flags)
    logging.basicConfig(
        level=settings.server.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    from vivavoce import app  # heavy imports, needed by this command alone

    try:
        _run(app.serve(settings, _announce))
    except SettingsError as exc:
        _give_up(exc)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Talk:
    """The options of `talk`."""

    url: str = DEFAULT_URL
    """ws(s):// or http(s)://, with or without /v1/realtime and ?model=."""
    model: str = ""
    """The model to ask for."""
    voice: str = ""
    """The voice to ask for."""
    instructions: str = ""
    """What the model is told."""
    file: Annotated[tuple[Path, ...], Parameter(negative="")] = ()
    """A sound file that is spoken to the server in real time. Several are several turns."""
    text: Annotated[tuple[str, ...], Parameter(negative="")] = ()
    """A typed turn. Several are several turns."""
    mic: Annotated[bool, Parameter(negative="")] = False
    """Talk by microphone and speaker until Ctrl-C. Needs the extra `mic`."""
    save: Path | None = None
    """A WAV file for all that the assistant says."""
    events: Path | None = None
    """A JSON Lines file for every event."""
    api_key: Annotated[str, Parameter(env_var="OPENAI_API_KEY", show_env_var=False)] = field(
        default="", repr=False
    )
    """The key, if the server wants one; else that in OPENAI_API_KEY."""
    timeline: bool = True
    """Show every event as it comes."""
    color: bool = True
    """Show colours."""


@cli.command
def talk(given: Talk = Talk()) -> None:
    """Talk to a Realtime server: ours, or another.

    Without a file, a text or the microphone the standard input is read.
    """
    from vivavoce import talk as terminal

    options = terminal.TalkOptions(
        url=given.url,
        model=given.model,
        voice=given.voice,
        instructions=given.instructions,
        files=given.file,
        texts=given.text,
        mic=given.mic,
        save=given.save,
        events=given.events,
        api_key=Secret(given.api_key),
        timeline=given.timeline,
    )
    console = out if given.color else Console(file=out.file, no_color=True)
    sys.exit(terminal.talk(options, console))


@cli.command
def demo(
    *,
    config: ConfigFile = None,
    save: Path = Path("demo-reply.wav"),
    question: str = "What can you do?",
    keep: Annotated[bool, Parameter(negative="")] = False,
    timeline: bool = True,
) -> None:
    """Start a server, ask it a spoken question, and show every step.

    Parameters
    ----------
    config
        The settings file of the server; ./vivavoce.toml if there is one.
    save
        The WAV file for the answer.
    question
        What is asked, by the embedded voice.
    keep
        Leave the server running afterwards, until Ctrl-C.
    timeline
        Show every event as it comes.
    """
    from vivavoce import talk as terminal

    options = terminal.DemoOptions(
        save=save, keep=keep, config=config, question=question, timeline=timeline
    )
    sys.exit(terminal.demo(options, out))


@cli.command(name="config")
def show_config(*, config: ConfigFile = None) -> None:
    """Print the settings in force, where they come from, and secrets masked.

    Parameters
    ----------
    config
        The settings file; ./vivavoce.toml if there is one.
    """
    from vivavoce.app import described

    settings, sources = _settings(config, {})
    out.print_json(described(settings).decode())
    err.print(f"from: {', '.join(sources) or 'the defaults alone'}", highlight=False)


keys = App(name="keys", help="API keys.")
cli.command(keys)


@keys.command(name="new")
def new_key(name: str) -> None:
    """Make an API key, show it once, and print the line for the settings.

    Parameters
    ----------
    name
        The name of the key, for example its owner's.
    """
    key = key_of(secrets.token_bytes(KEY_BYTES))
    out.print(key.reveal(), highlight=False)
    err.print("Keep it: it is shown this once. In the settings:", highlight=False)
    err.print(f'\\[keys]\n{name} = "{hash_of(key)}"', highlight=False, soft_wrap=True)


def _settings(config: Path | None, flags: dict[str, Any]) -> tuple[Settings, list[str]]:
    try:
        return load(config, os.environ, flags)
    except SettingsError as exc:
        _give_up(exc)


def _announce(built: "Built", address: str) -> None:
    out.print(f"[bold]Vivavoce[/bold] listens at [bold]{address}[/bold]")
    for model, engines in built.models.selected.items():
        default = " (default)" if model == built.models.catalog.default else ""
        out.print(f"  model [bold]{escape(model)}[/bold]{default}", highlight=False)
        for engine in engines:
            text = f"{engine.name}: {engine.reason}" if engine.reason else engine.name
            out.print(f"    {engine.kind:<6}{escape(text)}", highlight=False, soft_wrap=True)
    for model, relay in built.models.relays.items():
        out.print(f"  model [bold]{escape(model)}[/bold]", highlight=False)
        out.print(f"    relay {escape(relay.url)}", highlight=False, soft_wrap=True)
    out.file.flush()


def _run(main: Any) -> None:
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    with contextlib.suppress(ModuleNotFoundError):  # there is none for Windows
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main)


def _give_up(exc: Exception) -> NoReturn:
    text = escape(str(exc))  # names of tables, [server], are not markup
    err.print(f"[bold red]vivavoce:[/bold red] {text}", highlight=False, soft_wrap=True)
    sys.exit(2)


def keep_standard_streams() -> None:
    """Put nothing where a stream was closed (`>&-`), so that no socket gets its number.

    uvloop aborts the process when it closes a socket that is number 0, 1 or 2.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


def main() -> None:
    """The entry point of the `vivavoce` command."""
    keep_standard_streams()
    try:
        cli()
    except* Unwritable:  # alone, or from tasks
        pass
    if isinstance(stdout.failure, BrokenPipeError):
        sys.exit(1)  # whoever read it has seen enough
    if stdout.failure:
        _give_up(SettingsError(f"the standard output cannot be written: {stdout.failure.strerror}"))
