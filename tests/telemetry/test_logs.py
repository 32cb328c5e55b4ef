"""Log lines as JSON."""

import logging
import sys

import msgspec

from vivavoce.telemetry.logs import JsonFormatter


def line(message: str, *args: object, failed: bool = False) -> dict[str, str]:
    exc_info = None
    if failed:
        try:
            raise ValueError("no")
        except ValueError:
            exc_info = sys.exc_info()
    record = logging.LogRecord("vivavoce.x", logging.INFO, "x.py", 1, message, args, exc_info)
    record.created = 1_796_000_000.25
    text = JsonFormatter().format(record)
    assert "\n" not in text
    return msgspec.json.decode(text, type=dict[str, str])


def test_line_has_time_level_logger_and_message() -> None:
    assert line("%d sessions", 3) == {
        "time": "2026-11-30T00:53:20.250+00:00",
        "level": "info",
        "logger": "vivavoce.x",
        "message": "3 sessions",
    }


def test_ids_in_the_message_are_fields_of_their_own() -> None:
    found = line("%s: response %s of item %s failed", "sess_1a", "resp_2b", "item_3c")
    assert (found["session"], found["response"], found["item"]) == ("sess_1a", "resp_2b", "item_3c")


def test_traceback_is_one_field_and_lone_surrogates_are_replaced() -> None:
    found = line("bad path %s", "\udcff", failed=True)
    assert found["message"] == "bad path ?"
    assert found["traceback"].endswith("ValueError: no")
