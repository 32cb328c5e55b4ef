"""`vivavoce run` and `vivavoce clips`."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.table import Table

from vivavoce.cli.console import err, give_up, out
from vivavoce.errors import AudioError, EngineError, SettingsError
from vivavoce.scenarios.command import RunOptions, run_scenarios
from vivavoce.testing.clips import ENGINE, LIBRARY, VOICES, make_clips

RUN_EPILOGUE = """\
For example, against a server on this machine, with reports for CI and for people:

    vivavoce run flows/*.toml --server http://localhost:8080 --junit run.xml --html run.html

    vivavoce run flows/booking.toml --judge --llm http://localhost:11434/v1 --llm-model qwen3

Exit status: 0 if all scenarios passed, 1 if some did not, 2 if a file is wrong or the server cannot
be reached."""

run = App(name="run", help_format="plaintext", help_epilogue=RUN_EPILOGUE)


@run.default
def _run(files: tuple[Path, ...] = (), /, *, options: RunOptions = RunOptions()) -> None:
    """Run conversations from scenario files against a Realtime server, and judge them.

    Parameters
    ----------
    files
        Scenario files, TOML.
    """
    sys.exit(run_scenarios(files, options, out, err))


CLIPS_EPILOGUE = """\
For example:

    vivavoce clips make tests/clips

    vivavoce clips make tests/clips --voices alloy --voices onyx

Exit status: 0, or 2 if no voice is installed or the folder cannot be written."""

clips = App(
    name="clips",
    help="Spoken test audio, made by a voice of this machine.",
    help_format="plaintext",
    help_epilogue=CLIPS_EPILOGUE,
)


@clips.command(name="make")
def _make(
    folder: Annotated[Path, Parameter(show_default=True)] = Path("clips"),
    /,
    *,
    voices: Annotated[tuple[str, ...], Parameter(negative="")] = VOICES,
    engine: str = ENGINE,
) -> None:
    """Write the clip library: WAV files, and index.json with their texts.

    Parameters
    ----------
    folder
        Where to.
    voices
        The voices; may be given several times.
    engine
        The engine that speaks.
    """
    try:
        index = asyncio.run(make_clips(folder, voices, engine))
    except (SettingsError, EngineError, AudioError) as exc:
        give_up(exc)
    seconds = sum(clip.seconds for clip in index.clips)
    out.print(f"wrote {len(index.clips)} clips, {seconds:.0f} s, to {folder}", highlight=False)


@clips.command(name="list")
def _list() -> None:
    """List the kinds of clips and what is said in them."""
    table = Table("kind", "about", "text", box=None)
    for kind in LIBRARY:
        table.add_row(kind.name, kind.about, kind.text)
    out.print(table)
