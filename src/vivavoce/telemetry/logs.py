"""Log lines on stderr: as text, or as JSON, one object a line, for a log collector."""

import logging
import re
from datetime import UTC, datetime
from typing import Literal

import msgspec

_IDS = {
    "session": re.compile(r"\bsess_\w+"),
    "call": re.compile(r"\brtc_\w+"),
    "response": re.compile(r"\bresp_\w+"),
    "item": re.compile(r"\bitem_\w+"),
    "request": re.compile(r"\breq_\w+"),
}
"""Ids that a message names, by the field that repeats them."""


def log_to_stderr(level: str, form: Literal["text", "json"], worker: str = "") -> None:
    """Log from that level on. worker: the name of this process among several, in each line."""
    handler = logging.StreamHandler()
    if form == "json":
        handler.setFormatter(JsonFormatter(worker))
    else:
        name = f"{worker} " if worker else ""
        text = f"%(asctime)s %(levelname)s {name}%(name)s: %(message)s"
        handler.setFormatter(logging.Formatter(text))
    logging.basicConfig(level=level.upper(), handlers=[handler])


class JsonFormatter(logging.Formatter):
    """time (UTC), level, logger, message, the ids that the message names, and a traceback.

    worker: the name of the process among several; "" is left out.
    """

    def __init__(self, worker: str = "") -> None:
        super().__init__()
        self._worker = worker

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        line: dict[str, str] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message,
        }
        if self._worker:
            line["worker"] = self._worker
        for name, pattern in _IDS.items():
            if found := pattern.search(message):
                line[name] = found[0]
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        text = msgspec.json.encode({key: _plain(value) for key, value in line.items()})
        return text.decode()


def _plain(text: str) -> str:
    """Without lone surrogates, which JSON in UTF-8 cannot hold: a path may have them."""
    return text.encode(errors="replace").decode()
