"""Joins lists of which each process has a part."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from vivavoce.api.packs import LoadedModel, LoadedModels
from vivavoce.api.sessions import LiveSessionList
from vivavoce.runtime.live_sessions import LiveSessionObject
from vivavoce.telemetry.recorder import CallSummary


class CallList(msgspec.Struct, frozen=True):
    """The answer to GET /v1/admin/recordings."""

    data: list[CallSummary]
    object: str = "list"


class JoinedList(NamedTuple):
    """How the answers of several processes become one."""

    type: Any
    join: Callable[[Sequence[Any]], object]
    """The first answer is that of the process that got the request."""
    of_all_nodes: bool = True
    """False: of the workers of one machine."""


def _sessions(lists: Sequence[LiveSessionList]) -> LiveSessionList:
    return msgspec.structs.replace(
        lists[0],
        data=sorted((one for each in lists for one in each.data), key=_opened_at),
        max_sessions=sum(each.max_sessions for each in lists),
        cpu=sum(each.cpu for each in lists),
        failures=sum(each.failures for each in lists),
    )


def _calls(lists: Sequence[CallList]) -> CallList:
    return CallList(sorted((one for each in lists for one in each.data), key=_began_last))


def _models(lists: Sequence[LoadedModels]) -> LoadedModels:
    found: dict[str, LoadedModel] = {}
    for model in (one for each in lists for one in each.data):
        known = found.get(model.id)
        found[model.id] = model if known is None else _model(known, model)
    loaded = [model.id for model in found.values() if model.state == "loaded"]
    return LoadedModels(loaded, list(found.values()))


def _model(one: LoadedModel, other: LoadedModel) -> LoadedModel:
    """A model that two workers share is listed once, because its memory is that of the same
    processes."""
    states = (one.state, other.state)
    return msgspec.structs.replace(
        one,
        state=next(state for state in ("loaded", "loading", "unloaded") if state in states),
        users=one.users + other.users,
        loaded_seconds=_of(max, one.loaded_seconds, other.loaded_seconds),
        idle_seconds=_of(min, one.idle_seconds, other.idle_seconds),
        memory_bytes=_of(max, one.memory_bytes, other.memory_bytes),
    )


def _of(choose: Callable[..., Any], one: float | None, other: float | None) -> Any:
    known = [value for value in (one, other) if value is not None]
    return choose(known) if known else None


def _opened_at(session: LiveSessionObject) -> float:
    return session.opened_at


def _began_last(call: CallSummary) -> float:
    return -call.began_at


LISTS: Mapping[str, JoinedList] = {
    "/v1/sessions": JoinedList(LiveSessionList, _sessions),
    "/v1/admin/recordings": JoinedList(CallList, _calls),
    "/api/ps": JoinedList(LoadedModels, _models, of_all_nodes=False),
}
"""By path, of GET."""
