"""A study: texts, tasks, answers, the page in Chromium, and the command."""

import asyncio
import csv
import socket
from contextlib import AsyncExitStack
from io import StringIO
from itertools import combinations
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from playwright.async_api import Browser, async_playwright, expect
from rich.console import Console

from tests.console.browser import CHROMIUM, FLAGS, TIMEOUT_MS, awaited, needs_chromium
from tests.server import scripted
from vivavoce.engines.base import OPENAI_VOICES, Voice
from vivavoce.errors import SettingsError
from vivavoce.settings import Settings
from vivavoce.testing import ScriptedTTS, TTSScript
from vivavoce.voices.command import RateOptions, links, rate_voices, report_voices, serving
from vivavoce.voices.speaking import Speakers
from vivavoce.voices.study import StudyAnswer, StudyVoice, VoiceStudy, read_items

AUTOPLAY = "--autoplay-policy=no-user-gesture-required"
PLANTED = ("ida", "ben", "cleo", "dan", "eve", "finn", "gus", "hal")
"""The voices of the scripted engine, the best first."""


def settings(*voices: str) -> Settings:
    return scripted(
        tts={"voices": voices, "ms_per_character": 5}, stt={"transcripts": ["good morning"]}
    )


def consoles() -> tuple[Console, Console]:
    out, notes = (Console(file=StringIO(), width=160, no_color=True, record=True) for _ in "12")
    return out, notes


def study_of(folder: Path, voices: tuple[str, ...] = PLANTED, **options: Any) -> VoiceStudy:
    """A study whose texts were spoken by scripted voices."""
    folder.mkdir(exist_ok=True)
    texts = folder / "my.txt"
    texts.write_text("Good morning.\n\nuser: Hello?\nassistant: Good evening.\n", encoding="utf-8")
    out, notes = consoles()
    given = RateOptions(
        **{
            "texts": texts,
            "folder": folder / "study",
            "serve": False,
            "raters": ("Ann", "Bob"),
            **options,
        }
    )
    assert rate_voices(settings(*voices), given, out, notes) == 0, notes.export_text()
    return VoiceStudy.read(folder / "study")


@pytest.fixture(autouse=True)
def no_partner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vivavoce.voices.speaking.PARTNER", "tone")


def test_texts_are_read_between_empty_lines_and_dialogues_by_their_speakers(tmp_path: Path) -> None:
    path = tmp_path / "my.txt"
    path.write_text("One text,\non two lines.\n\n\nUser: Hi.\nAssistant: Hello: you!\n")
    first, second = read_items(path)
    assert first.lines == ((True, "One text, on two lines."),)
    assert second.lines == ((False, "Hi."), (True, "Hello: you!"))
    assert second.rated == "Hello: you!"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (" \n", "has 0 texts"),
        ("user: Hello?", "dialogue 1 has no line `assistant: …`"),
        ("a" * 2001, "text 1 is longer than 2000 characters"),
    ],
)
def test_texts_that_cannot_be_spoken_are_refused(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "my.txt"
    path.write_text(text)
    with pytest.raises(SettingsError, match=sentence):
        read_items(path)


def test_rater_gets_every_pair_once_in_an_order_of_the_raters_own(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    ann, bob = study.file.raters
    tasks = {
        name: [study.task(r, n) for n in range(study.count(r))]
        for name, r in (("ann", ann), ("bob", bob))
    }
    assert tasks["ann"] != tasks["bob"]
    for given in tasks.values():
        clips = [[study.file.clips[clip] for clip in task] for task in given if task]
        assert all(one.item == other.item for one, other in clips)
        pairs = sorted(tuple(sorted((one.voice, other.voice))) for one, other in clips)
        assert pairs == list(combinations(range(8), 2))
        assert {one.item for one, _ in clips} == {0, 1}
    assert VoiceStudy.read(study.folder).task(ann, 0) == tasks["ann"][0]


def test_measures_of_every_voice_are_in_the_study(tmp_path: Path) -> None:
    study = study_of(tmp_path, ("one", "two"))
    measures = study.measures()
    assert list(measures) == ["scripted:one", "scripted:two"]
    assert measures["scripted:one"].word_error_rate == pytest.approx(0.25)  # of the second text
    assert measures["scripted:one"].words_per_minute > 0


def test_answer_is_kept_once_and_checked(tmp_path: Path) -> None:
    study = study_of(tmp_path, ("one", "two", "three"))
    ann, bob = study.file.raters
    assert study.add(ann, StudyAnswer(0, "first")) == ""
    assert study.add(ann, StudyAnswer(0, "second")) == "task 0 was answered already"
    assert study.add(ann, StudyAnswer(3, "first")) == "there is no task 3"
    assert "has a choice" in study.add(ann, StudyAnswer(1))
    assert study.add(bob, StudyAnswer(2, "same")) == ""
    again = VoiceStudy.read(study.folder)
    assert again.comparisons() == study.comparisons()
    assert [each.score for each in again.comparisons()] == [1.0, 0.5]
    assert (again.next_task(ann), again.next_task(bob)) == (1, 0)


def test_scores_on_scales_rank_voices_by_their_sums(tmp_path: Path) -> None:
    study = study_of(tmp_path, ("good", "bad"), mode="scales")
    ann = study.file.raters[0]
    for number in range(study.count(ann)):
        (clip,) = study.task(ann, number) or ()
        best = study.file.voices[study.file.clips[clip].voice].voice == "good"
        scores = dict.fromkeys(("clarity", "trust", "fit"), 5 if best else 2)
        assert "a score from 1 to 5" in study.add(ann, StudyAnswer(number, scores={"fit": 3}))
        assert study.add(ann, StudyAnswer(number, scores=scores)) == ""  # type: ignore[arg-type]
    assert {each.score for each in study.comparisons()} <= {0.0, 1.0}
    out, notes = consoles()
    assert report_voices(study.folder, None, tmp_path / "r.html", out, notes) == 0
    assert "Trust" in (tmp_path / "r.html").read_text("utf-8")
    lines = [line for line in out.export_text().splitlines() if "scripted:" in line]
    assert lines[0].strip().startswith("scripted:good")


@awaited
async def test_page_refuses_strangers_and_names_no_voice(tmp_path: Path) -> None:
    study = await asyncio.to_thread(study_of, tmp_path)
    token = study.file.raters[0].token
    async with serving(study, "127.0.0.1", 0) as home, aiohttp.ClientSession(home) as http:
        for path in ("/r/none", "/r/none/next", f"/results/{token}", f"/r/{token}/clip/99/0"):
            async with http.get(path) as reply:
                assert reply.status == 404
        async with http.get(f"/r/{token}/next") as reply:
            shown = await reply.json()
        assert shown.keys() == {"mode", "scales", "done", "total", "task", "text", "clips"}
        assert shown["clips"] == [f"/r/{token}/clip/0/{side}" for side in (0, 1)]
        async with http.get(f"/r/{token}/clip/0/1") as reply:
            assert (await reply.read())[:4] == b"RIFF"
            assert "content-disposition" not in {name.lower() for name in reply.headers}
        async with http.post(f"/r/{token}/answer", data=b"{") as reply:
            assert reply.status == 400
        async with http.post(f"/r/{token}/answer", json={"task": 0}) as reply:
            assert reply.status == 409


CONTRARY = {("ida", "dan"), ("ben", "eve"), ("cleo", "finn")}
"""Pairs about which the third rater disagrees: not enough to change the order."""
RATE_ALL = """async (answers) => {
  const until = async (holds) => {
    while (!holds()) await new Promise((done) => setTimeout(done, 5));
  };
  for (const [number, answer] of answers.entries()) {
    const count = `${number} of ${answers.length}`;
    await until(() => document.getElementById("count").textContent === count);
    const button = document.querySelector(`#pair button[value=${answer}]`);
    if (!button.disabled) throw new Error("an answer is taken from somebody who has not listened");
    for (const player of document.querySelectorAll("audio")) player.play().catch(() => {});
    await until(() => !button.disabled);
    button.click();
  }
}"""
"""Starts both voices of every task, and gives the answer: the second stops the first."""


def answers_of(study: VoiceStudy, number: int) -> list[str]:
    """The better one of each pair, by the planted order."""
    rater, found = study.file.raters[number], []
    for task in range(study.count(rater)):
        clips = [study.file.clips[clip] for clip in study.task(rater, task) or ()]
        first, second = (PLANTED.index(study.file.voices[clip.voice].voice) for clip in clips)
        better, worse = sorted((PLANTED[first], PLANTED[second]), key=PLANTED.index)
        contrary = number == 2 and (better, worse) in CONTRARY
        found.append("first" if (first < second) != contrary else "second")
    return found


@awaited
async def test_links_of_a_page_on_every_address_name_the_machine(tmp_path: Path) -> None:
    study = await asyncio.to_thread(study_of, tmp_path, ("one", "two"))
    async with serving(study, "0.0.0.0", 0) as home:
        assert home.startswith(f"http://{socket.gethostname()}:")
        ((rater, first), *_, (owner, last)) = links(study, home)
    assert (rater, owner) == ("Ann", "results")
    assert first == f"{home}/r/{study.file.raters[0].token}"
    assert last.startswith(f"{home}/results/")


async def rate_on_scales(browser: Browser, study: VoiceStudy) -> None:
    """One answer of a rater who gives scores."""
    async with serving(study, "127.0.0.1", 0) as home:
        page = await browser.new_page()
        await page.goto(links(study, home)[0][1])
        await page.get_by_label("Voice A").evaluate("(player) => { player.play(); }")
        for scale, score in (("clear", "5"), ("trust", "4"), ("fit", "3")):
            group = page.get_by_role("group").filter(has_text=scale)
            await group.get_by_label(score).check()
        await page.get_by_role("button", name="Next").click()
        await expect(page.locator("#count")).to_have_text("1 of 4")
        await page.close()
    assert study.scores()[0][1] == {"clarity": 5, "trust": 4, "fit": 3}


@needs_chromium
@pytest.mark.timeout(240)  # 84 answers, each with two sounds that Chromium opens
@awaited
async def test_three_raters_of_eight_voices_recover_a_planted_order(tmp_path: Path) -> None:
    raters = ("Ann", "Bob", "Cem")
    study = await asyncio.to_thread(study_of, tmp_path, raters=raters)
    async with serving(study, "127.0.0.1", 0) as home, async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=[*FLAGS, AUTOPLAY], timeout=TIMEOUT_MS
        )
        try:
            addresses = dict(links(study, home))
            problems: list[str] = []
            for number, name in enumerate(raters):
                page = await browser.new_page()
                page.set_default_timeout(TIMEOUT_MS)
                page.on("pageerror", lambda error: problems.append(str(error)))
                await page.goto(addresses[name])
                await page.evaluate(RATE_ALL, answers_of(study, number))
                await expect(page.locator("#end")).to_be_visible()
                await page.close()
            await rate_on_scales(
                browser,
                await asyncio.to_thread(
                    study_of, tmp_path / "scales", ("one", "two"), mode="scales"
                ),
            )
            page = await browser.new_page()
            await page.goto(addresses["results"])
            await expect(page.locator("h1")).to_have_text("Voices, ranked")
            ranked = await page.locator("table").first.locator("td:first-child").all_inner_texts()
            async with (
                aiohttp.ClientSession() as http,
                http.get(addresses["results"] + "/voices.csv") as reply,
            ):
                rows = list(csv.DictReader(StringIO(await reply.text())))
        finally:
            await browser.close()
    assert problems == []
    assert ranked == [f"scripted:{voice}" for voice in PLANTED]
    assert [row["voice"] for row in rows] == ranked
    assert all(float(row["low"]) < float(row["strength"]) < float(row["high"]) for row in rows)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "what shall the voices speak? Give a text file: --texts my.txt"),
        ({"voices": ("zoe",)}, "--voices: no engine has a voice 'zoe'; see --list"),
        ({"voices": ("ida",), "texts": Path("x")}, "voices to rate: 1; two are needed"),
        ({"texts": Path("/none.txt")}, "--texts /none.txt cannot be read: No such file"),
        ({"texts": Path("x"), "raters": ("a", "a")}, "--raters: a name is given twice"),
        ({"engines": ("none-such",)}, "no engine can speak: none-such:"),
    ],
)
def test_wrong_usage_of_rate_is_one_sentence_and_status_2(
    tmp_path: Path, options: dict[str, Any], sentence: str
) -> None:
    out, notes = consoles()
    given = RateOptions(**{"folder": tmp_path / "study", "serve": False, **options})
    assert rate_voices(settings(*PLANTED), given, out, notes) == 2
    assert sentence in notes.export_text().replace("\n", " ")
    assert report_voices(tmp_path / "study", None, None, out, notes) == 2


def test_voices_are_listed_without_speaking(tmp_path: Path) -> None:
    out, notes = consoles()
    given = RateOptions(folder=tmp_path / "study", list_voices=True)
    assert rate_voices(settings("one", "two"), given, out, notes) == 0
    assert out.export_text().split() == ["scripted:one", "scripted:two"]
    assert not (tmp_path / "study").exists()


def test_voice_with_several_names_is_rated_once() -> None:
    tts = ScriptedTTS(TTSScript())
    tts.voices = (Voice("heart", ("en",)), Voice("alloy", ("en",), alias_of="heart"))
    speakers = Speakers(settings("one"), AsyncExitStack(), engines={"own": tts})
    for wanted in ((), ("alloy",), ("own:alloy", "heart")):
        assert speakers.voices(wanted, "en") == [StudyVoice(engine="own", voice="heart")]


def test_voice_with_several_names_is_listed_with_them(tmp_path: Path) -> None:
    pytest.importorskip("hibari")
    out, notes = consoles()
    given = RateOptions(folder=tmp_path / "study", list_voices=True, engines=("hibari",))
    assert rate_voices(settings("one"), given, out, notes) == 0
    names = ", ".join(OPENAI_VOICES)
    assert out.export_text().splitlines() == [f"hibari:heart (also named {names})"]
