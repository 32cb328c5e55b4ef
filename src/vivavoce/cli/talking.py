"""`vivavoce talk` and `vivavoce demo`."""

import sys

from rich.console import Console

from vivavoce.cli.console import out
from vivavoce.talk.options import DemoOptions, TalkOptions


def talk(options: TalkOptions = TalkOptions()) -> None:
    """Talk to a Realtime server, this one or another.

    Without a file, a text or the microphone the standard input is read.
    """
    from vivavoce.talk.command import talk

    console = out if options.color else Console(file=out.file, no_color=True)
    sys.exit(talk(options, console))


def demo(options: DemoOptions = DemoOptions()) -> None:
    """Start a server, ask it a spoken question, and show every step."""
    from vivavoce.talk.demo import demo

    sys.exit(demo(options, out))
