"""[voices.rules]: which voice a session begins with."""

from dataclasses import replace
from typing import Any

import pytest

from tests.runtime.stage import ScriptedEngines, make_context
from vivavoce.errors import SettingsError
from vivavoce.limits.accounts import Owner
from vivavoce.protocol.codec import opening_of
from vivavoce.protocol.session import AudioOutputPatch, AudioPatch, RealtimePatch, RealtimeSession
from vivavoce.protocol.wire import Opening
from vivavoce.runtime.sessions import Sessions
from vivavoce.runtime.voice_rules import VoiceRule, VoiceSettings
from vivavoce.settings_sources import load_tree

RULES = VoiceSettings(
    {
        "vip": VoiceRule(voice="coral", segments=("vip",), languages=("de",)),
        "team": VoiceRule(voice="ash", teams=("sales", "support")),
        "key": VoiceRule(voice="echo", keys=("kiosk",), models=("other",)),
        "user": VoiceRule(voice="no-such-voice", users=("ada",)),
    }
)
OWNERS = {
    "desk": Owner("desk", "bob", "support"),
    "kiosk": Owner("kiosk"),
    "laptop": Owner("laptop", "ada"),
}


def voice_of(opening: Opening, rules: VoiceSettings = RULES) -> str:
    """The voice that a session of that opening begins with."""
    context = make_context(ScriptedEngines())
    context = replace(
        context,
        models=context.catalog.available(),
        voices=rules,
        owner_of=lambda key: OWNERS.get(key, Owner(key)),
    )
    session = Sessions(context).initial_settings(opening)
    assert isinstance(session, RealtimeSession)
    return session.audio.output.voice


def traced(metadata: Any) -> RealtimePatch:
    return RealtimePatch(tracing={"metadata": metadata})


ELSE = voice_of(Opening(), VoiceSettings())


@pytest.mark.parametrize(
    ("opening", "voice"),
    [
        (Opening(), ELSE),
        (opening_of({"segment": "vip", "language": "de-AT"}), "coral"),
        (opening_of({"segment": "vip"}), ELSE),
        (opening_of({"language": "de"}), ELSE),
        (Opening(who="desk"), "ash"),
        (Opening(who="desk", segment="vip", language="de"), "coral"),
        (Opening(who="kiosk"), ELSE),
        (Opening(who="kiosk", model="other"), "echo"),
        (Opening(who="laptop"), ELSE),
        (Opening(patch=traced({"segment": "vip"}), language="de"), "coral"),
        (Opening(patch=traced({"segment": "basic"}), segment="vip", language="de"), ELSE),
        (Opening(patch=traced("vip"), segment="vip", language="de"), "coral"),
        (Opening(who="desk", voice="shimmer"), "shimmer"),
        (
            Opening(
                who="desk",
                patch=RealtimePatch(audio=AudioPatch(output=AudioOutputPatch(voice="sage"))),
            ),
            "sage",
        ),
    ],
    ids=lambda each: None if isinstance(each, str) else "opening",
)
def test_first_rule_that_fits_picks_the_voice_unless_the_client_names_one(
    opening: Opening, voice: str
) -> None:
    assert voice_of(opening) == voice


def test_rules_are_read_from_the_settings_in_their_order() -> None:
    tree = {"voices": {"rules": {"b": {"voice": "ash"}, "a": {"voice": "coral", "keys": ["x"]}}}}
    settings, _ = load_tree(tree, "vivavoce.toml", {}, {})
    assert list(settings.voices.rules) == ["b", "a"]
    assert voice_of(Opening(), settings.voices) == "ash"


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        ({"voice": "ash", "country": ["it"]}, r"\[voices\.rules\.vip\] .*country"),
        ({"keys": ["x"]}, r"\[voices\.rules\.vip\] .*voice"),
        ({"voice": "ash", "keys": "x"}, r"\[voices\.rules\.vip\] .*keys"),
    ],
)
def test_rule_with_a_mistake_is_refused_by_its_place(rule: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        load_tree({"voices": {"rules": {"vip": rule}}}, "vivavoce.toml", {}, {})
