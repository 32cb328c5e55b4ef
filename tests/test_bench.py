"""The measurements can be begun: a change of what they measure must not leave them behind."""

import asyncio
import importlib

import pytest
from bench import cluster, cluster_sim, overlaps, quality, search, turn_ends, turns, webrtc
from bench.__main__ import MODULES
from bench.dialogues import Scenario, half
from bench.figures import Figure
from bench.report import parser_of
from bench.turns_plot import drawn
from bench.upstream import Upstream

from vivavoce.session.interruption import Overlap
from vivavoce.session.interruption_model import WEIGHTS

ALONE = (
    "engines",
    "herd",
    "loop_blocking",
    "quality",
    "relay",
    "relay_frames",
    "soak",
    "speech_first_byte",
    "transcription",
    "turns",
    "turns_replay",
    "workers",
    "ws",
)  # too long for `make bench`


@pytest.mark.parametrize("name", [*MODULES, *ALONE])
def test_bench_has_every_measurement(name: str) -> None:
    assert asyncio.iscoroutinefunction(importlib.import_module(f"bench.{name}").measure)


def test_help_shows_the_text_of_a_module_as_it_is_written() -> None:
    assert str(cluster.__doc__).strip() in parser_of("cluster", cluster.__doc__).format_help()


def test_judge_is_fitted_to_recorded_sounds_and_compared() -> None:
    def recorded(kind: str, level_db: float) -> overlaps.Recorded:
        moments = [
            overlaps.Moment(ms + 9.0, Overlap(ms, level_db=level_db, early=True))
            for ms in range(96, 704, 32)
        ]
        end = Overlap(704, 200, level_db, complete=True, early=True)
        return overlaps.Recorded("a", kind, kind, [*moments, overlaps.Moment(950.0, end)])

    every = [recorded("interruption", 2.0), recorded("backchannel", -6.0)] * 20
    weights = overlaps.fitted(every)
    assert weights["level"] > 0
    assert list(weights) == list(WEIGHTS)
    values = {f.measure: f.value for f in overlaps.figures(every, overlaps.RULES, "rules")}
    assert values["rules: yields to an interruption, of 20"] == 100
    assert values["… stop, median"] == 169
    assert values["… backchannel selectivity, of 20"] == 1.0


def test_call_returns_an_echo() -> None:
    delays = asyncio.run(webrtc.echo(3.0))
    assert delays
    assert min(delays) > 0


HANDSHAKE = (
    b"GET /v1/realtime HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Authorization: Bearer sk-upstream\r\nUpgrade: websocket\r\n\r\n"
)  # RFC 6455, 1.3


@pytest.mark.parametrize("size", [1, 76, 120, len(HANDSHAKE)])
def test_upstream_accepts_a_handshake_in_parts(size: int) -> None:
    sent = answers_of_upstream(HANDSHAKE, size)
    assert sent.startswith(b"HTTP/1.1 101 ")
    assert b"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in sent


def test_upstream_refuses_a_request_that_is_no_websocket() -> None:
    request = b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    assert answers_of_upstream(request, len(request)).startswith(b"HTTP/1.1 404 ")


def answers_of_upstream(request: bytes, size: int) -> bytes:
    """What it sends when a request comes in parts of so many bytes."""
    transport, connection = Written(), Upstream([])
    connection.connection_made(transport)
    for at in range(0, len(request), size):
        connection.data_received(request[at : at + size])
    return bytes(transport.data)


class Written(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.data = bytearray()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.data += data

    def close(self) -> None:
        pass


def test_words_are_compared_alike_and_errors_are_the_least_number_of_changes() -> None:
    assert quality.words_of("Mr. Grey's 42 cups, ten-fold!") == (
        *("mister", "grey's", "forty", "two", "cups", "ten", "fold"),
    )
    assert quality.errors(["a", "b", "c"], ["a", "b", "c"]) == 0
    assert quality.errors(["a", "b", "c"], []) == 3
    assert quality.errors([], ["x", "y"]) == 2
    said, heard = "go forward ten meters", "go four ward ten meter"
    assert quality.errors(said.split(), heard.split()) == 3


def test_sentences_are_many_distinct_and_free_of_figures() -> None:
    every = quality.sentences(10_000)
    assert len(every) >= 300
    assert len(set(every)) == len(every)
    assert not any(character.isdigit() for line in every for character in line)
    assert quality.sentences(3) == [every[0], every[len(every) // 3], every[2 * len(every) // 3]]


@pytest.mark.parametrize("limit", [0, 4, 7, 35, 36, 61, 200, 1000])
def test_bisection_finds_the_maximum_from_both_sides(limit: int) -> None:
    asked = []

    async def carried(number: int) -> bool:
        asked.append(number)
        return number <= limit

    found = asyncio.run(search.most_carried(carried, first=35, step=5, most=500))
    assert asked[0] == 35
    assert max(asked) <= 500
    assert found <= limit
    assert limit >= 500 or limit - found <= 5


def test_turn_figures_count_cuts_yields_backchannels_and_false_starts() -> None:
    outcomes = [
        turns.Outcome("a", "complete sentence", decided_ms=300.0, answered_ms=420.0),
        turns.Outcome("b", "hesitation", cut=True),
        turns.Outcome("c", "interruption", stopped_ms=250.0),
        turns.Outcome("d", "backchannel"),
        turns.Outcome("e", "backchannel", stopped_ms=200.0),
        turns.Outcome("f", "music"),
        turns.Outcome("g", "echo", problem="no answer came"),
    ]
    values = {figure.measure.split(",")[0]: figure.value for figure in turns.figures(outcomes)}
    assert values["premature cuts"] == 50.0
    assert values["yields to an interruption"] == 100.0
    assert values["backchannel selectivity"] == 0.5
    assert values["scenarios that failed"] == 1
    svg = drawn(outcomes)
    assert svg.count("<circle") == len(outcomes)
    assert "a: 420 ms" in svg


def test_scenarios_are_halved_by_kind() -> None:
    every = [Scenario(str(n), ("cough", "music")[n % 2], b"", 0.0, 0.0) for n in range(8)]
    assert [one.name for one in half(every, "tune")] == ["0", "1", "4", "5"]
    assert [one.name for one in half(every, "report")] == ["2", "3", "6", "7"]
    assert half(every, "both") == every


def test_simulated_cluster_of_two_nodes_is_as_busy_as_its_load_and_loses_nobody() -> None:
    costs = cluster_sim.Costs(engine_places=0, turn_seconds=10.0, session_seconds=1e9)
    found = cluster_sim.Simulation(240, 2, 1, costs).run(60.0)
    steady = 240 / costs.sessions_per_core  # all of them, once one of the nodes has died
    assert steady < found.worker_busy < steady + 0.05
    turns = 240 / costs.turn_seconds
    expected = (
        turns * cluster_sim.Operations().turn + 240 * cluster_sim.Operations().renewals_second
    )
    assert abs(found.redis_ops / expected - 1) < 0.15
    assert 0.9 < found.back_s < 3
    assert found.engine_p99 < 0.001
    assert cluster_sim.Simulation(240, 2, 1, costs).run(60.0) == found


def test_simulated_engines_are_the_first_limit_where_they_have_too_few_places() -> None:
    costs = cluster_sim.Costs(engine_places=1, engine_ms=400.0)
    found = cluster_sim.Simulation(100, 2, 1, costs).run(40.0)
    assert found.first_limit.startswith("engines")
    assert cluster_sim.nodes_for(100_000, 8, costs) == 71


def test_figure_of_nothing_has_no_verdict() -> None:
    figure = Figure(measure="stops", value=float("nan"), unit="ms", target=300)
    assert (figure.measured, figure.verdict) == ("— ms", "")


def test_halves_of_the_ends_of_turns_have_no_voice_and_no_text_in_common() -> None:
    assert not {*turn_ends.VOICES["tune"]} & {*turn_ends.VOICES["report"]}
    for texts in turn_ends.TEXTS.values():
        assert len({*texts}) == len(texts)
        assert len(texts) % 2 == 0
