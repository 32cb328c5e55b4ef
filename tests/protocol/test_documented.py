"""docs/protocol.md names everything a client can meet."""

import re
from pathlib import Path
from typing import get_args

from vivavoce.protocol.beta_client import AnyBetaEvent, BetaSessionPatch
from vivavoce.protocol.client import AnyClientEvent
from vivavoce.protocol.server import AnyServerEvent
from vivavoce.protocol.session import RealtimePatch, SemanticVadPatch, ServerVadPatch

PAGE = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()


def test_docs_name_every_client_event() -> None:
    events = get_args(AnyClientEvent) + get_args(AnyBetaEvent)
    tags = {event.__struct_config__.tag for event in events}
    assert {tag for tag in tags if f"`{tag}`" not in PAGE} == set()


def is_documented(tag: str) -> bool:
    """In full, by its family (`a.b.*`), or by its last word after another of its family."""
    family, _, verb = tag.rpartition(".")
    if f"`{tag}`" in PAGE or f"`{family}.*`" in PAGE or f"`….{verb}`" in PAGE:
        return True
    return any(f"`{family}." in row and f"`.{verb}`" in row for row in PAGE.splitlines())


def test_docs_name_every_server_event() -> None:
    tags = {event.__struct_config__.tag for event in get_args(AnyServerEvent)}
    assert {tag for tag in tags if not is_documented(tag)} == set()


def test_docs_name_every_setting() -> None:
    patches = (RealtimePatch, BetaSessionPatch, ServerVadPatch, SemanticVadPatch)
    names = {name for patch in patches for name in patch.__struct_fields__}
    assert names - set(re.findall(r"[`.]([a-z_]+)`", PAGE)) == set()
