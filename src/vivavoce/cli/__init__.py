"""The command line: parses, calls, prints."""

import os
import sys

# one thread for small matrices: more of them cost twice the time and all the cores; numpy reads
# this when it is first imported
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from cyclopts import App

from vivavoce.cli.console import err, give_up, out, stdout
from vivavoce.errors import SettingsError
from vivavoce.standard_streams import keep_standard_descriptors

cli = App(
    name="vivavoce",
    help="A self-hosted real-time voice server.",
    console=out,
    error_console=err,
)

for name, module, what in (
    (
        "serve",
        "serving",
        "Serve until SIGINT or SIGTERM; SIGHUP reads the settings again, or ends it in a terminal.",
    ),
    (
        "talk",
        "talking",
        "Talk to a Realtime server, this one or another.\n\nWithout a file, a text or the "
        "microphone the standard input is read.",
    ),
    ("demo", "talking", "Start a server, ask it a spoken question, and show every step."),
    ("config", "serving", "Print the effective settings with secrets masked, and their sources."),
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


def main() -> None:
    """The entry point of the `vivavoce` command."""
    keep_standard_descriptors()
    failure = stdout.run(cli)
    if isinstance(failure, BrokenPipeError):
        sys.exit(1)  # the reader has closed the pipe
    if failure:
        give_up(SettingsError(f"the standard output cannot be written: {failure.strerror}"))
