"""Log lines as JSON, one object a line, for a log collector."""

import logging
import re
from datetime import UTC, datetime

import msgspec

_IDS = {
    "session": re.compile(r"\bsess_\w+"),
    "call": re.compile(r"\brtc_\w+"),
    "response": re.compile(r"\bresp_\w+"),
    "item": re.compile(r"\bitem_\w+"),
    "request": re.compile(r"\breq_\w+"),
}
"""Ids that a message names, by the field that repeats them."""


class JsonFormatter(logging.Formatter):
    """time (UTC), level, logger, message, the ids that the message names, and a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        line: dict[str, str] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message,
        }
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
