"""[voices.rules]: the voice with which a session begins, by its user, key and purpose."""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta

from vivavoce.limits.accounts import Owner
from vivavoce.protocol.session import RealtimePatch
from vivavoce.protocol.wire import Opening


class VoiceRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[voices.rules.NAME]: a voice, and the sessions that begin with it.

    A session matches if every condition that is set holds. Without conditions every session
    matches.
    """

    voice: Annotated[str, Meta(min_length=1)]
    segments: tuple[str, ...] = ()
    """Segments of users, as the application names them: see segment_of()."""
    keys: tuple[str, ...] = ()
    """Names of API keys."""
    users: tuple[str, ...] = ()
    """Users who own the key."""
    teams: tuple[str, ...] = ()
    """Teams of these users, or of the key."""
    models: tuple[str, ...] = ()
    """Models, as clients name them."""
    languages: tuple[str, ...] = ()
    """The languages that the client says are spoken: "de" matches "de-AT", too."""


class VoiceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[voices]: rules in the order of the file. The first that matches decides."""

    rules: dict[str, VoiceRule] = {}


def segment_of(opening: Opening) -> str:
    """The segment of the user, as set by the application; "": none.

    It is `tracing.metadata.segment` of a short-lived key, whose settings its user cannot change, or
    else the query parameter `segment`.
    """
    tracing: Any = opening.patch.tracing if isinstance(opening.patch, RealtimePatch) else UNSET
    metadata = tracing.get("metadata") if isinstance(tracing, Mapping) else None
    found = metadata.get("segment") if isinstance(metadata, Mapping) else None
    return found if isinstance(found, str) else opening.segment


def ruled_voice(rules: VoiceSettings, opening: Opening, owner: Owner, model: str) -> str:
    """The voice of the first rule that matches a session; "": none does.

    model: the one that the client names, or the default. Used only for a session that names no
    voice.
    """
    language = opening.language.lower()
    for rule in rules.rules.values():
        conditions = (
            (rule.segments, {segment_of(opening)}),
            (rule.keys, {owner.key}),
            (rule.users, {owner.user}),
            (rule.teams, {owner.team}),
            (rule.models, {model}),
            (rule.languages, {language, language.partition("-")[0]}),
        )
        if all(not wanted or {*wanted} & (given - {""}) for wanted, given in conditions):
            return rule.voice
    return ""
