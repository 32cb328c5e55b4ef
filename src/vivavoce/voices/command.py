"""`vivavoce voices`: speaks the texts, serves the page of the raters, and reports."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from aiohttp import web
from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape

from vivavoce.errors import AudioError, EngineError, SettingsError
from vivavoce.settings import Settings
from vivavoce.standard_streams import print_error
from vivavoce.voices.report import as_csv, as_html, print_ranking
from vivavoce.voices.speaking import Speakers, spoken_clips
from vivavoce.voices.study import (
    CLIPS,
    STUDY,
    RatedClip,
    StudyMode,
    StudyVoice,
    VoiceStudy,
    new_study,
    read_items,
)
from vivavoce.voices.web import RatingRoutes

DONE, REFUSED, INTERRUPTED = 0, 2, 130
"""Exit statuses."""
MIN_VOICES: Final = 2
CLOSE_TIMEOUT_S: Final = 2.0
EVERY_ADDRESS: Final = ("0.0.0.0", "::")
"""Addresses that stand for all of this machine: links contain the machine's name instead."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RateOptions:
    """The options of `vivavoce voices rate`."""

    texts: Path | None = None
    """A text file: what the voices speak, with empty lines between the texts."""
    folder: Path = Path("voice-study")
    """Where the study is kept. With a study in it that one goes on, and nothing is spoken anew."""
    mode: StudyMode = "pairs"
    """pairs: which of two voices is better; scales: clarity, trust and fit of one, 1 to 5."""
    raters: Annotated[tuple[str, ...], Parameter(negative="")] = ("rater-1",)
    """A rater, who gets a link. May be given several times."""
    tasks: int = 0
    """How many each rater is given; 0: every pair of voices, or every clip, once."""
    voices: Annotated[tuple[str, ...], Parameter(negative="")] = ()
    """Only this voice, VOICE or ENGINE:VOICE. May be given several times."""
    engines: Annotated[tuple[str, ...], Parameter(negative="")] = ()
    """Only this engine, by its name in the settings. May be given several times."""
    language: str = "en"
    """That is spoken."""
    recogniser: str = ""
    """The engine by which intelligibility is measured; by default that of the default model; none:
    it is not measured."""
    host: str = "127.0.0.1"
    """The address to listen on: another one for raters on other machines."""
    port: int = 8090
    """The port; 0 for any free one."""
    list_voices: Annotated[bool, Parameter(name="--list", negative="")] = False
    """List the voices that would be rated, and do nothing."""
    serve: bool = True
    """Serve the page after the texts are spoken."""


def rate_voices(settings: Settings, options: RateOptions, console: Console, notes: Console) -> int:
    """Make a study or go on with one, and serve its page until Ctrl-C. Returns the exit status.

    0: it was made, or served to the end. 2: wrong usage, or nothing can speak. 130: interrupted
    while the voices spoke. Runs an event loop.
    """
    try:
        return asyncio.run(_rate(settings, options, console, notes))
    except (SettingsError, EngineError, AudioError) as exc:
        return _refuse(exc, notes)
    except KeyboardInterrupt:
        return INTERRUPTED


def report_voices(
    folder: Path, csv: Path | None, html: Path | None, console: Console, notes: Console
) -> int:
    """Print the ranking of a study, and write it. Returns the exit status."""
    try:
        study = VoiceStudy.read(folder)
        print_ranking(study, console)
        for path, text in ((csv, as_csv), (html, as_html)):
            if path is not None:
                path.write_text(text(study), encoding="utf-8")
    except OSError as exc:
        return _refuse(SettingsError(f"{exc.filename} cannot be written: {exc.strerror}"), notes)
    except SettingsError as exc:
        return _refuse(exc, notes)
    return DONE


def _refuse(exc: Exception, notes: Console) -> int:
    print_error(notes, exc)
    return REFUSED


async def _rate(settings: Settings, options: RateOptions, console: Console, notes: Console) -> int:
    if options.list_voices or not (options.folder / STUDY).exists():
        async with AsyncExitStack() as stack:
            speakers = Speakers(settings, stack)
            await speakers.enter_all(options.engines)
            voices = speakers.voices(options.voices, options.language)
            _note_left_out(speakers, notes)
            if options.list_voices:
                for voice in voices:
                    names = ", ".join(speakers.aliases(voice.engine, voice.voice))
                    line = f"{voice.label} (also named {names})" if names else voice.label
                    console.print(line, markup=False, highlight=False, soft_wrap=True)
                return DONE
            await _make(options, speakers, voices, notes)
    study = VoiceStudy.read(options.folder)
    if options.serve:
        await _serve_until_stopped(study, options, console)
    return DONE


def _note_left_out(speakers: Speakers, notes: Console) -> None:
    for sentence in speakers.left_out:
        notes.print(escape(sentence), highlight=False, soft_wrap=True)
    speakers.left_out.clear()


async def _make(
    options: RateOptions, speakers: Speakers, voices: list[StudyVoice], notes: Console
) -> None:
    """Speak, measure, and write the study. Raises SettingsError, EngineError, AudioError."""
    if options.texts is None:
        raise SettingsError("what shall the voices speak? Give a text file: --texts my.txt")
    if len(voices) < MIN_VOICES:
        raise SettingsError(f"voices to rate: {len(voices)}; two are needed: see --list")
    if len(set(options.raters)) != len(options.raters):
        raise SettingsError("--raters: a name is given twice; each rater has a name of its own")
    items = read_items(options.texts)
    try:
        (options.folder / CLIPS).mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise SettingsError(f"--folder {options.folder} cannot be made: {exc.strerror}") from exc
    recogniser = await speakers.recogniser(options.recogniser)
    _note_left_out(speakers, notes)

    def progress(label: str) -> None:
        notes.print(f"  {label}", markup=False, highlight=False)

    speaking = spoken_clips(
        speakers, voices, items, options.folder, recogniser, options.language, progress
    )
    clips: list[RatedClip] = [clip async for clip in speaking]
    file = new_study(options.mode, items, voices, clips, options.raters, options.tasks)
    VoiceStudy(options.folder, file).write()


@asynccontextmanager
async def serving(study: VoiceStudy, host: str, port: int) -> AsyncIterator[str]:
    """The page of a study; yields the beginning of its addresses. Raises SettingsError."""
    runner = web.AppRunner(
        RatingRoutes(study).application(), access_log=None, shutdown_timeout=CLOSE_TIMEOUT_S
    )
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as exc:
            raise SettingsError(
                f"--host {host} --port {port} cannot be listened on: {exc.strerror}"
            ) from exc
        bound = runner.addresses[0][1]
        shown = socket.gethostname() if host in EVERY_ADDRESS else host
        yield f"http://{f'[{shown}]' if ':' in shown else shown}:{bound}"
    finally:
        await runner.cleanup()


async def _serve_until_stopped(study: VoiceStudy, options: RateOptions, console: Console) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # Windows, where Ctrl-C is a KeyboardInterrupt
            loop.add_signal_handler(number, stop.set)
    async with serving(study, options.host, options.port) as home:
        for name, address in links(study, home):
            console.print(f"{name}: {address}", markup=False, highlight=False, soft_wrap=True)
        console.file.flush()
        await stop.wait()
    print_ranking(study, console)


def links(study: VoiceStudy, home: str) -> list[tuple[str, str]]:
    """A link for each rater, and that of the results."""
    found = [(rater.name, f"{home}/r/{rater.token}") for rater in study.file.raters]
    return [*found, ("results", f"{home}/results/{study.file.results_token}")]
