"""Lists to which each process has a part."""

from vivavoce.api.packs import LoadedModel, LoadedModels
from vivavoce.telemetry.recorder import CallSummary
from vivavoce.workers.lists import LISTS, CallList


def model(id_: str, state: str, users: int, **known: float | None) -> LoadedModel:
    times = {"loaded_seconds": None, "idle_seconds": None, "memory_bytes": None} | known
    return LoadedModel(
        id=id_,
        kind="stt",
        model="",
        state=state,  # type: ignore[arg-type]
        users=users,
        idle_unload_seconds=0.0,
        **times,  # type: ignore[arg-type]
    )


def test_model_in_two_workers_is_one_whose_memory_is_counted_once() -> None:
    here = LoadedModels(
        [], [model("whisper", "unloaded", 0), model("piper", "loaded", 1, memory_bytes=5)]
    )
    there = LoadedModels(
        ["whisper", "piper"],
        [
            model("whisper", "loaded", 2, loaded_seconds=9.0, idle_seconds=1.0),
            model("piper", "loaded", 1, loaded_seconds=3.0, idle_seconds=7.0, memory_bytes=5),
        ],
    )
    joined = LISTS["/api/ps"].join([here, there])
    assert joined == LoadedModels(
        ["whisper", "piper"],
        [
            model("whisper", "loaded", 2, loaded_seconds=9.0, idle_seconds=1.0),
            model("piper", "loaded", 2, loaded_seconds=3.0, idle_seconds=7.0, memory_bytes=5),
        ],
    )


def call(id_: str, began_at: float) -> CallSummary:
    return CallSummary(
        id=id_, began_at=began_at, seconds=1.0, live=False, bytes=1, dropped=0, faults=()
    )


def test_recordings_of_all_processes_are_sorted_the_newest_first() -> None:
    joined = LISTS["/v1/admin/recordings"].join(
        [CallList([call("a", 1.0)]), CallList([call("b", 3.0), call("c", 0.0)])]
    )
    assert isinstance(joined, CallList)
    assert [each.id for each in joined.data] == ["b", "a", "c"]
