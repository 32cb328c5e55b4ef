"""Usage by model and key name, logged when a session ends."""

import logging

import pytest

from tests.session.stage import settings
from vivavoce.protocol.responses import DurationUsage, Usage
from vivavoce.protocol.server import ErrorBody, ErrorEvent
from vivavoce.session.effects import Close, RecordUsage, Send
from vivavoce.telemetry.usage import UsageLog

CLOSE = Close(1000, "the client left")


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_usage_is_logged_by_model_at_the_close(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "vivavoce.telemetry.usage")
    usage = UsageLog(settings(), "alice")
    usage.on(
        None, [RecordUsage("0", "a", Usage(30, 10, 20)), RecordUsage("1", "b", Usage(3, 1, 2))], 0.0
    )
    usage.on(
        None,
        [
            RecordUsage("2", "a", Usage(7, 3, 4)),
            RecordUsage("3", "a", DurationUsage(5), "transcription"),
        ],
        1.0,
    )
    other = Send(ErrorEvent(event_id="e", error=ErrorBody(type="x", message="no")))
    usage.on(None, [RecordUsage("4", "a", DurationUsage(2), "transcription"), other], 2.0)
    assert lines(caplog) == []
    usage.on(None, [CLOSE], 3.0)
    assert lines(caplog) == [
        "sess_1: used by alice of a: 2 responses, 13 tokens in, 24 out, 7 s transcribed",
        "sess_1: used by alice of b: 1 responses, 1 tokens in, 2 out, 0 s transcribed",
    ]


def test_usage_recorded_with_the_close_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "vivavoce.telemetry.usage")
    UsageLog(settings(), "").on(None, [RecordUsage("0", "a", Usage(3, 1, 2)), CLOSE], 0.0)
    assert lines(caplog) == [
        "sess_1: used by anonymous of a: 1 responses, 1 tokens in, 2 out, 0 s transcribed"
    ]


def test_session_that_used_nothing_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "vivavoce.telemetry.usage")
    UsageLog(settings(), "alice").on(None, [CLOSE], 0.0)
    assert lines(caplog) == []
