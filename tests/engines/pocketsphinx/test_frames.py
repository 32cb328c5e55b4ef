import pytest

from vivavoce.engines.pocketsphinx import frames as frames


@pytest.mark.parametrize(
    "order",
    [frames.Open(1), frames.Feed(2, b"\x00\xff"), frames.End(3), frames.Cancel(4)],
)
def test_an_order_arrives_as_it_was_sent(order: frames.Order) -> None:
    packed = frames.packed(order)
    header, body = packed[: frames.HEADER_BYTES], packed[frames.HEADER_BYTES :]
    assert frames.body_bytes(header) == len(body)
    assert frames.order(body) == order


@pytest.mark.parametrize(
    "report",
    [
        frames.Ready(),
        frames.Taken(1, 3200),
        frames.Heard(2, (frames.HeardWord("ten", 120, 340),), 1, True),
    ],
)
def test_a_report_arrives_as_it_was_sent(report: frames.Report) -> None:
    assert frames.report(frames.packed(report)[frames.HEADER_BYTES :]) == report
