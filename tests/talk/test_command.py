import asyncio
from dataclasses import replace
from io import StringIO
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from tests.talk.stage import (
    OPENING,
    RESPONSE,
    STARTED,
    STOPPED,
    Script,
    done,
    error,
    heard,
    serving,
    silence,
    sound,
    tone,
    word,
)
from vivavoce.media import files
from vivavoce.secret import Secret
from vivavoce.talk import TalkOptions, Waits, talk
from vivavoce.talk.connection import Lost
from vivavoce.talk.server_process import free_port

FULL = Path("/dev/full")
APPEND = "input_audio_buffer.append"
TYPED: Script = {
    **OPENING,
    ("response.create", 1): [(0, RESPONSE), (0, word("Hi.")), (0, sound(tone(40))), (0, done())],
    ("response.create", 2): [(0, RESPONSE), (0, word("Bye.")), (0, sound(tone(20))), (0, done())],
}
SPOKEN: Script = {
    **OPENING,
    (APPEND, 2): [(0, STARTED)],
    (APPEND, 5): [(0, STOPPED), (0, heard("hello")), (0, RESPONSE), (0, word("Hi.")), (0, done())],
}


def told(script: Script, options: TalkOptions, stdin: str = "") -> tuple[int, str]:
    """Talk to a scripted server: the exit status, and what was written."""

    async def main() -> tuple[int, str]:
        page = StringIO()
        console = Console(file=page, width=120, color_system=None)
        async with serving(script) as server:
            there = replace(options, url=server.url)
            status = await asyncio.to_thread(talk, there, console, StringIO(stdin))
            return status, page.getvalue()

    return asyncio.run(main())


def test_texts_are_turns_and_the_reply_and_the_events_are_kept(tmp_path: Path) -> None:
    wav, log = tmp_path / "reply.wav", tmp_path / "events.jsonl"
    status, page = told(TYPED, TalkOptions(texts=("hello", "bye"), save=wav, events=log))
    assert status == 0
    assert "assistant: Hi.\n" in page
    assert "assistant: Bye.\n" in page
    assert "turn 2: ms after the question" in page
    assert files.read(wav) == tone(40) + tone(20)
    lines = [msgspec.json.decode(line) for line in log.read_bytes().splitlines()]
    assert lines[0]["event"] == OPENING["", 1][0][1]
    assert [line["sent"] for line in lines[-4:]] == [False] * 4


def test_a_sound_file_is_a_spoken_turn(tmp_path: Path) -> None:
    question = tmp_path / "question.wav"
    files.write_wav(question, tone(120) + silence(40))
    status, page = told(SPOKEN, TalkOptions(files=(question,)))
    assert status == 0
    assert "you: hello\n" in page
    assert "speech end" in page


def test_the_standard_input_is_a_text() -> None:
    status, page = told(TYPED, TalkOptions(timeline=False), stdin="hello\n")
    assert (status, "assistant: Hi.\n" in page) == (0, True)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (
            {**OPENING, ("response.create", 1): [(0, RESPONSE), (0, done("failed"))]},
            "the response was failed: no reason",
        ),
        (
            {**OPENING, ("response.create", 1): [(0, RESPONSE), (0, Lost("gone"))]},
            "the server closed the connection (1011): gone",
        ),
        ({("", 1): [(0, error("wrong key")), (0, Lost("bye"))]}, "wrong key"),
        (OPENING, "nothing came from the server for 0.1 s"),
    ],
)
def test_a_server_that_fails_makes_the_status_1(script: Script, words: str) -> None:
    status, page = told(script, TalkOptions(texts=("hello",), waits=Waits(quiet=0.1)))
    assert status == 1
    assert words in page.splitlines()


def test_what_is_not_there_makes_the_status_2(tmp_path: Path) -> None:
    lacking = tmp_path / "lacking.wav"
    nowhere = f"ws://127.0.0.1:{free_port()}"
    for options, words in [
        (TalkOptions(files=(lacking,)), f"{lacking} cannot be read: No such file or directory"),
        (TalkOptions(url="ftp://h", texts=("a",)), "ftp:// is none of ws, wss, http, https"),
        (TalkOptions(texts=("a",), mic=True), "--file, --text and --mic exclude each other"),
        (TalkOptions(texts=(" ",)), "there is nothing to say"),
        (TalkOptions(), "there is nothing to say"),
        (TalkOptions(texts=("a",), events=tmp_path), "cannot be written: Is a directory"),
        (TalkOptions(url=nowhere, texts=("a",)), "connection refused; start one with `vivavoce"),
    ]:
        page = StringIO()
        assert talk(options, Console(file=page, width=120), StringIO()) == 2
        assert words in page.getvalue()
        assert page.getvalue().count("\n") == 1


def test_a_reply_that_cannot_be_written_makes_the_status_2(tmp_path: Path) -> None:
    status, page = told(TYPED, TalkOptions(texts=("hello",), save=tmp_path / "no" / "r.wav"))
    assert (status, "r.wav cannot be written" in page) == (2, True)


@pytest.mark.skipif(not FULL.is_char_device(), reason="there is no device that is always full")
def test_a_disk_that_is_full_of_events_ends_the_record_and_not_the_conversation() -> None:
    status, page = told(TYPED, TalkOptions(texts=("hello", "bye"), events=FULL))
    assert status == 0
    assert page.count("no more events are recorded: No space left on device") == 1


def test_the_key_is_seen_nowhere() -> None:
    options = TalkOptions(texts=("hello",), api_key=Secret("sk-hidden"))
    assert "sk-hidden" not in repr(options)
    assert "sk-hidden" not in told(TYPED, options)[1]
