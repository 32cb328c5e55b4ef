"""Drafts and held answers: what they save, and that nothing of them is seen before it is needed."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.runtime.stage import (
    LOUD,
    SOFT,
    RecordingPeer,
    ScriptedEngines,
    make_runner,
    speech,
    template,
)
from vivavoce.audio.formats import RATE
from vivavoce.protocol.session import ServerVad
from vivavoce.runtime.anticipation import AnticipationWork, HeldAnswer
from vivavoce.runtime.tasks import Tasks
from vivavoce.session.cascade.turn_detection import WINDOW
from vivavoce.session.effects import DraftTranscript, Prompt, Speculate, StartTranscription
from vivavoce.session.endpointing import Anticipation, TurnSettings
from vivavoce.session.facts import (
    AnticipationEnded,
    AudioGenerated,
    Disconnected,
    DraftTranscribed,
    Fact,
    GenerationFailed,
    GenerationFinished,
    OutputFinished,
    TextGenerated,
    TokenCounts,
    ToolCallArguments,
    TranscriptionKey,
    TranscriptUpdated,
)
from vivavoce.session.limits import SessionLimits
from vivavoce.session.options import AvailableModels, ModelInfo
from vivavoce.session.shell import Session
from vivavoce.testing.virtual_time import run

WINDOW_S = WINDOW / RATE
SPOKEN = 40  # windows: 1.28 s
WORDS = "what time is it now"
SLOW: dict[str, Any] = {
    "turn": {"table": {WORDS: 0.9}, "default": 0.2},
    "stt": {"transcripts": [{"text": WORDS, "delay_seconds": 0.3}]},
    "llm": {"answers": [{"text": "It is late. Good night.", "first_token_seconds": 0.5}]},
    "tts": {"first_audio_seconds": 0.3},
}
PARTLY: dict[str, Any] = {
    "stt": {
        "transcripts": [{"text": WORDS, "delay_seconds": 0.3, "partials": True}],
        "word_ms": 200,
    }
}
KEY = TranscriptionKey("item_1")
DRAFT = DraftTranscript("draft_1", StartTranscription(KEY, "default", None, ""))
PROMPT = Prompt("default", "", (), (), "auto", True, None, None, True, "alloy", 1.0)


class Heard:
    """A conversation in real time: when the first audio came after the end of speech."""

    def __init__(self) -> None:
        self.peer = RecordingPeer()
        self.after_s = 0.0
        self.wasted = 0
        self.requests = 0


def first_audio(level: Anticipation, *, at_end: bool, **scripts: Any) -> Heard:
    """The user speaks for 1.28 s and is answered."""
    scripted = ScriptedEngines(**(SLOW | scripts))

    async def main() -> Heard:
        heard, clock = Heard(), asyncio.get_running_loop().time
        models = AvailableModels(
            {"default": ModelInfo(frozenset({"alloy"}), "alloy", transcribes_at_end=at_end)},
            "default",
            turns=TurnSettings(anticipation=level),
        )
        opening = template(ServerVad())
        session = Session(opening, models, SessionLimits(), salt="t", now=clock())
        runner = make_runner(session, heard.peer, scripted.catalog)
        running = asyncio.create_task(runner.run())
        await asyncio.sleep(0)
        for piece in speech(LOUD * SPOKEN):
            await asyncio.sleep(WINDOW_S)
            runner.post(piece)
        ended = clock()

        async def be_quiet() -> None:
            for piece in speech(SOFT * 200):
                await asyncio.sleep(WINDOW_S)
                runner.post(piece)

        quiet = asyncio.create_task(be_quiet())
        await heard.peer.until("response.output_audio.delta")
        heard.after_s = clock() - ended
        await heard.peer.until("response.done")
        quiet.cancel()
        heard.wasted = session.usage.speculative_tokens
        heard.requests = len(scripted.llm.requests)
        runner.post(Disconnected())
        await running
        assert scripted.running.count == 0
        return heard

    return run(main())


@pytest.mark.parametrize(
    ("level", "at_end", "scripts", "ms"),
    [
        # 512 ms of silence, then recognition, model and voice, which begins 50 ms after a word
        ("off", True, {}, 512 + 300 + 500 + 300),
        ("transcript", True, {}, 224 + 300 + 500 + 300),
        ("llm", True, {}, 224 + 300 + 500 + 300),
        ("speech", True, {}, 224 + 300 + 500 + 300),
        ("off", False, PARTLY, 512 + 300 + 500 + 300),
        # the words are complete 280 ms before the user stops; their final form comes at 224 + 300
        ("transcript", False, PARTLY, 512 + 300 + 500 + 300),
        ("llm", False, PARTLY, 224 + 300 + 300),
        ("speech", False, PARTLY, 224 + 300),
    ],
)
def test_first_audio_comes_so_long_after_the_end_of_speech(
    level: Anticipation, at_end: bool, scripts: dict[str, Any], ms: int
) -> None:
    heard = first_audio(level, at_end=at_end, **scripts)
    assert heard.after_s * 1000 == pytest.approx(ms, abs=60)
    assert heard.requests == 1
    assert heard.wasted == 0


class Work:
    """Early work beside scripted engines, and the facts that came of it."""

    def __init__(self, group: asyncio.TaskGroup, busy: bool = False, **scripts: Any) -> None:
        self.scripted = ScriptedEngines(**scripts)
        self.facts: list[Fact] = []
        self.taken: list[str | None] = []
        self.tasks = Tasks(group, self._fail, lambda: None)
        self.early = AnticipationWork(
            self.scripted.catalog, self.facts.append, self._writable, self.tasks, lambda: busy
        )

    def take(self, final: TranscriptUpdated | None) -> None:
        self.taken.append(None if final is None else final.text)

    @staticmethod
    def _fail(exc: Exception) -> None:
        raise exc

    async def _writable(self) -> None:
        pass


def with_work(script: Callable[[Work], Any], **how: Any) -> Work:
    async def main() -> Work:
        async with asyncio.TaskGroup() as group:
            work = Work(group, **how)
            await script(work)
            work.tasks.cancel_all()
        assert work.scripted.running.count == 0
        return work

    return run(main())


def test_draft_is_reported_and_then_taken() -> None:
    async def script(work: Work) -> None:
        work.early.draft(DRAFT, LOUD)
        await asyncio.sleep(1)
        work.early.take_draft(KEY, "draft_1", work.take)
        work.early.take_draft(KEY, "draft_1", work.take)  # there is none any more

    work = with_work(script)
    assert work.facts == [DraftTranscribed("draft_1", "hello")]
    assert work.taken == ["hello", None]


def test_draft_that_is_not_ready_is_taken_when_it_is() -> None:
    async def script(work: Work) -> None:
        work.early.draft(DRAFT, LOUD)
        work.early.take_draft(KEY, "draft_0", work.take)
        work.early.take_draft(KEY, "draft_1", work.take)
        assert work.taken == [None]
        await asyncio.sleep(1)

    work = with_work(script)
    assert (work.facts, work.taken) == ([], [None, "hello"])


def test_draft_that_fails_is_reported_or_gives_nothing_when_it_is_taken() -> None:
    async def script(work: Work) -> None:
        work.early.draft(DRAFT, LOUD)
        await asyncio.sleep(1)
        work.early.draft(DRAFT, LOUD)
        work.early.take_draft(KEY, "draft_1", work.take)
        await asyncio.sleep(1)

    work = with_work(script, stt={"transcripts": [{"error": "it is broken"}]})
    assert work.facts == [AnticipationEnded("draft_1", refused=True)]
    assert work.taken == [None]


def test_dropped_draft_reports_nothing() -> None:
    async def script(work: Work) -> None:
        work.early.draft(DRAFT, LOUD)
        await asyncio.sleep(0.1)
        work.early.drop("draft_1")
        await asyncio.sleep(1)

    assert with_work(script, stt=SLOW["stt"]).facts == []


def test_nothing_begins_early_under_load_or_without_the_audio() -> None:
    async def script(work: Work) -> None:
        work.early.draft(DRAFT, LOUD)
        work.early.speculate(Speculate("spec_1", PROMPT, speak=True))
        assert len(work.tasks) == 0

    assert with_work(script, busy=True).facts == [
        AnticipationEnded("draft_1", refused=True),
        AnticipationEnded("spec_1", refused=True),
    ]

    async def without_audio(work: Work) -> None:
        work.early.draft(DRAFT, None)

    assert with_work(without_audio).facts == [AnticipationEnded("draft_1", refused=True)]


LONG = {"answers": ["One, and then another one. Two, which is longer. Three."]}


def test_held_answer_speaks_one_clause_and_goes_on_under_the_id_of_the_response() -> None:
    async def script(work: Work) -> None:
        work.early.speculate(Speculate("spec_1", PROMPT, speak=True))
        await asyncio.sleep(5)
        assert work.facts == []
        assert work.early.adopt("spec_1", "resp_1")
        at_once = [fact for fact in work.facts if isinstance(fact, AudioGenerated)]
        assert at_once
        assert not any(isinstance(fact, OutputFinished) for fact in work.facts)
        assert len([f for f in work.facts if isinstance(f, TextGenerated)]) == 1
        await asyncio.sleep(5)
        assert not work.early.adopt("spec_1", "resp_2")

    work = with_work(script, llm=LONG)
    assert {getattr(fact, "response_id", "") for fact in work.facts} == {"resp_1"}
    assert isinstance(work.facts[-1], OutputFinished)
    text = "".join(fact.text for fact in work.facts if isinstance(fact, TextGenerated))
    assert text == LONG["answers"][0]


def test_adopted_answer_is_cancelled_as_that_response() -> None:
    async def script(work: Work) -> None:
        work.early.speculate(Speculate("spec_1", PROMPT, speak=False))
        await asyncio.sleep(0.1)
        work.early.adopt("spec_1", "resp_1")
        work.tasks.cancel("resp_1")
        count = len(work.facts)
        await asyncio.sleep(5)
        assert len(work.facts) == count

    with_work(script, llm=LONG)


def test_dropped_answer_reports_what_it_has_used() -> None:
    async def script(work: Work) -> None:
        work.early.speculate(Speculate("spec_1", PROMPT, speak=True))
        await asyncio.sleep(5)
        work.early.drop("spec_1")

    (ended,) = with_work(script, llm=LONG, tts={"ms_per_character": 10}).facts
    assert isinstance(ended, AnticipationEnded)
    assert ended.characters == len(LONG["answers"][0])
    assert 0 < ended.spoken_characters < ended.characters
    assert ended.samples == ended.spoken_characters * 240


def test_held_answer_that_fails_is_reported_as_ended() -> None:
    async def script(work: Work) -> None:
        work.early.speculate(Speculate("spec_1", PROMPT, speak=True))
        await asyncio.sleep(5)
        assert not work.early.adopt("spec_1", "resp_1")

    failing = {"answers": [{"text": "One moment.", "error": "it is broken"}]}
    work = with_work(script, llm=failing)
    assert [type(fact) for fact in work.facts] == [AnticipationEnded]


def test_use_of_a_held_answer_has_its_calls_and_the_tokens_of_the_model() -> None:
    held = HeldAnswer("spec_1", lambda _: None, lambda: asyncio.sleep(0), clauses=0)
    held.gate.characters = 5
    for fact in (
        TextGenerated("spec_1", "hello"),
        ToolCallArguments("spec_1", 0, "{}"),
        GenerationFinished("spec_1", "stop", TokenCounts(9, 3)),
    ):
        held.post(fact)
    assert held.used() == AnticipationEnded("spec_1", TokenCounts(9, 3), 7)
    assert not held.failed
    held.post(GenerationFailed("spec_1", "llm", "it is broken"))
    assert held.failed


def test_held_answer_waits_for_the_client_only_once_it_is_adopted() -> None:
    waited: list[str] = []

    async def wait() -> None:
        waited.append("waited")

    async def main() -> None:
        held = HeldAnswer("spec_1", lambda _: None, wait, clauses=0)
        await held.writable()
        assert waited == []
        held.adopt("resp_1")
        await held.writable()

    run(main())
    assert waited == ["waited"]
