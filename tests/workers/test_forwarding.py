"""The worker that must answer a request is known by the ids in it."""

import pytest

from vivavoce.workers.forwarding import worker_of


@pytest.mark.parametrize(
    ("id_", "worker"),
    [
        ("rtc_w0_00ff", 0),
        ("sess_w12_00ff", 12),
        ("rtc_00ff", None),
        ("sess_w_00ff", None),
        ("resp_w1_00ff", None),
        ("", None),
    ],
)
def test_id_of_a_call_or_session_names_its_worker(id_: str, worker: int | None) -> None:
    assert worker_of(id_) == worker
