"""`vivavoce voices`."""

import sys
from pathlib import Path

from cyclopts import App

from vivavoce.cli.console import ConfigFile, err, out, read_settings
from vivavoce.voices.command import RateOptions, rate_voices, report_voices

VOICES_EPILOGUE = """\
For example, three raters and all voices of the engines in vivavoce.toml, then the ranking:

    vivavoce voices rate --texts my.txt --raters Ann --raters Bob --raters Cem

    vivavoce voices report voice-study --csv voices.csv --html voices.html

Exit status: 0, or 2 if nothing can speak, or a file is wrong."""

voices = App(
    name="voices",
    help="Compare voices: blind ratings by people, and measures.",
    help_format="plaintext",
    help_epilogue=VOICES_EPILOGUE,
)


@voices.command(name="rate")
def _rate(*, config: ConfigFile = None, options: RateOptions = RateOptions()) -> None:
    """Let all voices speak your texts, and serve a page on which people rate them blind.

    Parameters
    ----------
    config
        The settings file, which names the engines.
    """
    settings, _, _ = read_settings(config, {})
    sys.exit(rate_voices(settings, options, out, err))


@voices.command(name="report")
def _report(
    folder: Path = Path("voice-study"),
    /,
    *,
    csv: Path | None = None,
    html: Path | None = None,
) -> None:
    """Print the ranking of a study with its intervals, and the measures.

    Parameters
    ----------
    folder
        The folder of the study.
    csv
        A file for the ranking and the measures, one line a voice.
    html
        A file for the report as a page with plots.
    """
    sys.exit(report_voices(folder, csv, html, out, err))
