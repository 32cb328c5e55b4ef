"""How calls are reached, from the settings to the servers that are asked."""

from pathlib import Path

import pytest

from vivavoce.errors import SettingsError
from vivavoce.settings import load
from vivavoce.transports.webrtc.ice import servers
from vivavoce.transports.webrtc.reach import Reach


def test_nothing_is_set_and_nobody_is_asked() -> None:
    settings, _ = load(None, {}, {})
    assert settings.webrtc == Reach()
    assert servers(settings.webrtc) == []


def test_what_the_operator_sets_is_used(tmp_path: Path) -> None:
    file = tmp_path / "vivavoce.toml"
    file.write_text(
        '[webrtc]\nice_servers = ["stun:a.example:3478", "turn:b.example"]\n'
        'turn_username = "me"\nturn_password = "hush"\nudp_ports = "40000-40099"\n'
    )
    variables = {"VIVAVOCE_WEBRTC_ANNOUNCE_ADDRESS": "203.0.113.7, 2001:db8::7"}
    reach = load(file, variables, {})[0].webrtc
    assert reach.port_range == (40000, 40099)
    assert reach.announce_address == ("203.0.113.7", "2001:db8::7")
    assert "hush" not in repr(reach)
    stun, turn = servers(reach)
    assert (stun.urls, stun.username) == ("stun:a.example:3478", None)
    assert (turn.urls, turn.username, turn.credential) == ("turn:b.example", "me", "hush")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('udp_ports = "40000"', "udp_ports"),
        ('udp_ports = "40099-40000"', "no range"),
        ('udp_ports = "80-90"', "no range"),
        ('announce_address = ["here.example"]', "here.example"),
        ('ice_servers = ["https://a.example"]', "ice_servers"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, line: str, why: str) -> None:
    file = tmp_path / "vivavoce.toml"
    file.write_text(f"[webrtc]\n{line}\n")
    with pytest.raises(SettingsError, match=why) as caught:
        load(file, {}, {})
    assert "[webrtc]" in str(caught.value)
