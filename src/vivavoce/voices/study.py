"""A study: the voices, what they have spoken, the raters, and their answers. Kept in a folder.

study.json: voices, clips and raters. clips/: WAV files. ratings.jsonl: one answer a line, appended.
"""

import random
import secrets
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeAlias

import msgspec
from msgspec import Meta

from vivavoce.errors import SettingsError
from vivavoce.voices.measures import VoiceMeasures, mean_of
from vivavoce.voices.ranking import Comparison

STUDY: Final = "study.json"
RATINGS: Final = "ratings.jsonl"
CLIPS: Final = "clips"
SCALES: Final = ("clarity", "trust", "fit")
MAX_ITEMS: Final = 200
MAX_ITEM_CHARACTERS: Final = 2_000
MAX_TASKS: Final = 500
StudyMode: TypeAlias = Literal["pairs", "scales"]


class TextItem(NamedTuple):
    """Something to speak: its lines, each by the voice that is rated or by a partner."""

    lines: tuple[tuple[bool, str], ...]
    """(whether the rated voice says it, the words)."""

    @property
    def rated(self) -> str:
        """What the rated voice says."""
        return " ".join(words for own, words in self.lines if own)


def read_items(path: Path) -> list[TextItem]:
    """Texts between empty lines. A text whose lines begin with `user:` and `assistant:` is a
    dialogue, in which the rated voice is the assistant. Raises SettingsError.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8"
        raise SettingsError(f"--texts {path} cannot be read: {why}") from exc
    items = [_item(block) for block in text.split("\n\n") if block.strip()]
    if not 0 < len(items) <= MAX_ITEMS:
        raise SettingsError(f"--texts {path} has {len(items)} texts; 1 to {MAX_ITEMS} are possible")
    for number, item in enumerate(items, 1):
        if not item.rated:
            raise SettingsError(f"--texts {path}: dialogue {number} has no line `assistant: …`")
        if len(item.rated) > MAX_ITEM_CHARACTERS:
            raise SettingsError(
                f"--texts {path}: text {number} is longer than {MAX_ITEM_CHARACTERS} characters"
            )
    return items


def _item(block: str) -> TextItem:
    lines = [line.strip() for line in block.strip().splitlines() if line.strip()]
    speakers = [line.partition(":")[0].lower() for line in lines]
    if not all(speaker in ("user", "assistant") for speaker in speakers):
        return TextItem(((True, " ".join(lines)),))
    said = [line.partition(":")[2].strip() for line in lines]
    return TextItem(tuple((s == "assistant", w) for s, w in zip(speakers, said, strict=True)))


class RatedClip(msgspec.Struct, frozen=True, kw_only=True):
    """One item, spoken by one voice."""

    voice: int
    """Its place in the voices of the study."""
    item: int
    file: str
    measures: VoiceMeasures


class StudyVoice(msgspec.Struct, frozen=True, kw_only=True):
    """A voice that is rated."""

    engine: str
    voice: str

    @property
    def label(self) -> str:
        return f"{self.engine}:{self.voice}"


class StudyRater(msgspec.Struct, frozen=True, kw_only=True):
    """A person with a link."""

    name: str
    token: str


class StudyFile(msgspec.Struct, frozen=True, kw_only=True):
    """study.json."""

    mode: StudyMode
    items: tuple[str, ...]
    voices: tuple[StudyVoice, ...]
    clips: tuple[RatedClip, ...]
    raters: tuple[StudyRater, ...]
    results_token: str
    tasks: Annotated[int, Meta(ge=1)]
    """That each rater is given."""


class StudyAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the page sends. choice: of a pair; scores: 1 to 5 by scale."""

    task: Annotated[int, Meta(ge=0)]
    choice: Literal["first", "second", "same", ""] = ""
    scores: dict[Literal["clarity", "trust", "fit"], Annotated[int, Meta(ge=1, le=5)]] = {}


class StudyRating(msgspec.Struct, frozen=True, kw_only=True):
    """A line of ratings.jsonl: an answer, and what was heard."""

    rater: str
    task: int
    clips: tuple[int, ...]
    choice: str = ""
    scores: dict[str, int] = {}


class VoiceStudy:
    """A study in its folder."""

    def __init__(self, folder: Path, file: StudyFile) -> None:
        self.folder, self.file = folder, file
        self.ratings: list[StudyRating] = []
        self._clip_at = {(clip.voice, clip.item): n for n, clip in enumerate(file.clips)}
        self._tasks = {rater.name: self._tasks_of(rater) for rater in file.raters}

    @classmethod
    def read(cls, folder: Path) -> "VoiceStudy":
        """Raises SettingsError: there is none, or a file in it is broken."""
        try:
            study = cls(folder, msgspec.json.decode((folder / STUDY).read_bytes(), type=StudyFile))
        except OSError as exc:
            raise SettingsError(
                f"there is no study in {folder}: begin one with `vivavoce voices rate --texts FILE "
                f"--folder {folder}`"
            ) from exc
        except msgspec.MsgspecError as exc:
            raise SettingsError(f"{folder / STUDY} is not a study: {exc}") from exc
        ratings = folder / RATINGS
        if ratings.exists():
            lines = ratings.read_bytes().splitlines()
            try:
                study.ratings = [
                    msgspec.json.decode(line, type=StudyRating) for line in lines if line
                ]
            except msgspec.MsgspecError as exc:
                raise SettingsError(f"{ratings}, line {len(study.ratings) + 1}: {exc}") from exc
        return study

    def write(self) -> None:
        """Write study.json. Raises SettingsError."""
        try:
            (self.folder / STUDY).write_bytes(
                msgspec.json.format(msgspec.json.encode(self.file), indent=1)
            )
        except OSError as exc:
            raise SettingsError(f"{self.folder / STUDY} cannot be written: {exc.strerror}") from exc

    @property
    def labels(self) -> list[str]:
        """The voices by name."""
        return [voice.label for voice in self.file.voices]

    def rater_of(self, token: str) -> StudyRater | None:
        """The rater whose link has that token."""
        for rater in self.file.raters:
            if secrets.compare_digest(rater.token.encode(), token.encode()):
                return rater
        return None

    def _tasks_of(self, rater: StudyRater) -> list[tuple[int, ...]]:
        """The clips of each task: pairs of voices, or single clips, in an order of the rater's own.

        Each pair of voices comes once before any comes again; items take turns, sides are random.
        """
        chance = random.Random(rater.token)
        voices, items = range(len(self.file.voices)), len(self.file.items)
        every: list[tuple[int, ...]]
        if self.file.mode == "scales":
            every = [(n,) for n in range(len(self.file.clips))]
            chance.shuffle(every)
            return every[: self.file.tasks]
        found: list[tuple[int, ...]] = []
        shift = chance.randrange(items)
        while len(found) < self.file.tasks:
            pairs = list(combinations(voices, 2))
            chance.shuffle(pairs)
            for pair in pairs:
                item = (len(found) + shift) % items
                sides = chance.sample(pair, 2)
                found.append(tuple(self._clip_at[voice, item] for voice in sides))
        return found[: self.file.tasks]

    def answered(self, rater: StudyRater) -> set[int]:
        """The numbers of the tasks that a rater has done."""
        return {rating.task for rating in self.ratings if rating.rater == rater.name}

    def next_task(self, rater: StudyRater) -> int | None:
        """The number of the rater's next task; None: all are done."""
        done = self.answered(rater)
        return next((n for n in range(len(self._tasks[rater.name])) if n not in done), None)

    def task(self, rater: StudyRater, number: int) -> tuple[int, ...] | None:
        """The clips of a task; None: there is no such task."""
        tasks = self._tasks[rater.name]
        return tasks[number] if 0 <= number < len(tasks) else None

    def count(self, rater: StudyRater) -> int:
        """How many tasks a rater has."""
        return len(self._tasks[rater.name])

    def add(self, rater: StudyRater, answer: StudyAnswer) -> str:
        """Keep an answer. Returns why it is refused, or "". Blocks shortly: a line is written."""
        clips = self.task(rater, answer.task)
        if clips is None:
            return f"there is no task {answer.task}"
        if answer.task in self.answered(rater):
            return f"task {answer.task} was answered already"
        if self.file.mode == "pairs" and not answer.choice:
            return "an answer about a pair has a choice: first, second or same"
        if self.file.mode == "scales" and set(answer.scores) != set(SCALES):
            return f"an answer has a score from 1 to 5 for each of {', '.join(SCALES)}"
        scores: dict[str, int] = {str(scale): score for scale, score in answer.scores.items()}
        rating = StudyRating(
            rater=rater.name, task=answer.task, clips=clips, choice=answer.choice, scores=scores
        )
        with (self.folder / RATINGS).open("ab") as file:
            file.write(msgspec.json.encode(rating) + b"\n")
        self.ratings.append(rating)
        return ""

    def comparisons(self) -> list[Comparison]:
        """The answers about pairs; of scores, those of a rater about the same item."""
        if self.file.mode == "scales":
            return list(_from_scores(self))
        worth = {"first": 1.0, "second": 0.0, "same": 0.5}
        found = []
        for each in self.ratings:
            if each.choice in worth:
                one, other = (self._label(clip) for clip in each.clips)
                found.append(Comparison(one, other, worth[each.choice], each.rater))
        return found

    def scores(self) -> list[tuple[str, dict[str, int]]]:
        """The answers on scales: a voice, and its scores."""
        return [(self._label(r.clips[0]), r.scores) for r in self.ratings if r.scores]

    def _label(self, clip: int) -> str:
        return self.file.voices[self.file.clips[clip].voice].label

    def measures(self) -> dict[str, VoiceMeasures]:
        """The means of each voice over all items."""
        of: dict[int, list[VoiceMeasures]] = {}
        for clip in self.file.clips:
            of.setdefault(clip.voice, []).append(clip.measures)
        return {self.file.voices[voice].label: mean_of(clips) for voice, clips in of.items()}


def _from_scores(study: VoiceStudy) -> Iterable[Comparison]:
    """Of two voices that a rater has scored for the same item, the one with the higher sum wins."""
    by_item: dict[tuple[str, int], list[tuple[str, int]]] = {}
    for rating in study.ratings:
        clip = study.file.clips[rating.clips[0]]
        label, total = study.file.voices[clip.voice].label, sum(rating.scores.values())
        by_item.setdefault((rating.rater, clip.item), []).append((label, total))
    for (rater, _), scored in by_item.items():
        for (one, a), (other, b) in combinations(scored, 2):
            yield Comparison(one, other, 0.5 if a == b else float(a > b), rater)


def new_study(
    mode: StudyMode,
    items: Sequence[TextItem],
    voices: Sequence[StudyVoice],
    clips: Sequence[RatedClip],
    raters: Sequence[str],
    tasks: int,
) -> StudyFile:
    """A study with new links. tasks: for each rater; 0: each pair of voices, or each clip, once."""
    pairs = len(voices) * (len(voices) - 1) // 2
    every = pairs if mode == "pairs" else len(clips)
    return StudyFile(
        mode=mode,
        items=tuple(item.rated for item in items),
        voices=tuple(voices),
        clips=tuple(clips),
        raters=tuple(StudyRater(name=name, token=secrets.token_urlsafe(12)) for name in raters),
        results_token=secrets.token_urlsafe(12),
        tasks=min(tasks or every, MAX_TASKS),
    )


def task_view(study: VoiceStudy, rater: StudyRater) -> dict[str, Any]:
    """What the page shows next. No name of a voice is in it."""
    number = study.next_task(rater)
    view: dict[str, Any] = {
        "mode": study.file.mode,
        "scales": list(SCALES),
        "done": len(study.answered(rater)),
        "total": study.count(rater),
        "task": number,
    }
    clips = None if number is None else study.task(rater, number)
    if clips is not None:
        view["text"] = study.file.items[study.file.clips[clips[0]].item]
        view["clips"] = [f"/r/{rater.token}/clip/{number}/{side}" for side in range(len(clips))]
    return view
