"""The settings of WebRTC calls, from the file to the ICE servers."""

from pathlib import Path

import pytest

from vivavoce.errors import SettingsError
from vivavoce.settings_sources import load
from vivavoce.transports.webrtc.ice import ice_servers
from vivavoce.transports.webrtc.settings import WebRTCSettings


def test_default_settings_name_no_ice_server() -> None:
    settings, _ = load(None, {}, {})
    assert settings.webrtc == WebRTCSettings()
    assert ice_servers(settings.webrtc) == []


def test_settings_of_file_and_environment_are_used(tmp_path: Path) -> None:
    file = tmp_path / "vivavoce.toml"
    file.write_text(
        '[webrtc]\nice_servers = ["stun:a.example:3478", "turn:b.example"]\n'
        'turn_username = "me"\nturn_password = "hush"\nudp_ports = "40000-40099"\n'
    )
    variables = {"VIVAVOCE_WEBRTC_ANNOUNCE_ADDRESS": "203.0.113.7, 2001:db8::7"}
    webrtc = load(file, variables, {})[0].webrtc
    assert webrtc.port_range == (40000, 40099)
    assert webrtc.announce_address == ("203.0.113.7", "2001:db8::7")
    assert "hush" not in repr(webrtc)
    stun, turn = ice_servers(webrtc)
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
def test_invalid_setting_is_refused_by_name(tmp_path: Path, line: str, why: str) -> None:
    file = tmp_path / "vivavoce.toml"
    file.write_text(f"[webrtc]\n{line}\n")
    with pytest.raises(SettingsError, match=why) as caught:
        load(file, {}, {})
    assert "[webrtc]" in str(caught.value)
