"""The terminal client: talks to any Realtime server, and demonstrates ours.

`talk` and `demo` take all that the user chose, write to the console that is handed in (colours are
its business), run an event loop of their own, and return the exit status of the command.
"""

from vivavoce.talk.command import talk
from vivavoce.talk.demonstration import demo
from vivavoce.talk.options import DEFAULT_URL, DemoOptions, TalkOptions, Waits

__all__ = ["DEFAULT_URL", "DemoOptions", "TalkOptions", "Waits", "demo", "talk"]
