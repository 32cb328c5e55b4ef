"""What is under way for one session: tasks, each under a name by which it can be dropped."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Self

from vivavoce.runtime.transcription import AudioFeed


@dataclass(frozen=True, slots=True)
class Job:
    """A task, and the sound that is fed to it."""

    task: asyncio.Task[None]
    sound: AudioFeed | None


class Jobs:
    """Leaving it drops all tasks and waits until they are gone."""

    def __init__(self, fail: Callable[[Exception], None], ended: Callable[[], None]) -> None:
        """`fail` is told of what a task raises; `ended` is called whenever one is over."""
        self._fail = fail
        self._ended = ended
        self._group = asyncio.TaskGroup()
        self._jobs: dict[str, Job] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(self, *exc: Any) -> None:
        for key in tuple(self._jobs):
            self.drop(key)
        await self._group.__aexit__(*exc)

    @property
    def waiting_bytes(self) -> int:
        """Of sound that no engine has taken yet."""
        return sum(job.sound.waiting_bytes for job in self._jobs.values() if job.sound)

    def start(
        self, key: str, work: Coroutine[Any, Any, None], sound: AudioFeed | None = None
    ) -> None:
        """Begin a task; one of the same name is dropped."""
        self.drop(key)
        task = self._group.create_task(self._guarded(work))
        self._jobs[key] = Job(task, sound)
        task.add_done_callback(lambda done: self._over(key, done))
        task.add_done_callback(lambda _: work.close())  # dropped before it began, it never ran

    def drop(self, key: str) -> None:
        if job := self._jobs.pop(key, None):
            job.task.cancel()
            self._ended()

    def sound(self, key: str) -> AudioFeed | None:
        """The sound of that name, while somebody still listens to it."""
        job = self._jobs.get(key)
        return job.sound if job else None

    def unheard(self) -> list[str]:
        """The names under which sound waits that no engine has taken yet."""
        return [key for key, job in self._jobs.items() if job.sound and job.sound.waiting_bytes]

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as exc:  # noqa: BLE001  a bug; it is told and ends the session
            self._fail(exc)

    def _over(self, key: str, task: asyncio.Task[None]) -> None:
        if (job := self._jobs.get(key)) and job.task is task:
            del self._jobs[key]
            self._ended()
