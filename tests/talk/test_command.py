"""`vivavoce talk` with a scripted server: exit status, output and files."""

import asyncio
import os
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from tests.talk.scripted_server import (
    OPENING,
    RESPONSE,
    STARTED,
    STOPPED,
    Script,
    done,
    error,
    heard,
    port_that_refuses,
    serving,
    silence,
    sound,
    tone,
    word,
)
from vivavoce.media import files
from vivavoce.secret import Secret
from vivavoce.talk.client import ConnectionLost
from vivavoce.talk.command import LineReader, talk
from vivavoce.talk.options import TalkOptions, Timeouts

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


def talk_to(
    script: Script, options: TalkOptions, stdin: str = "", timeouts: Timeouts = Timeouts()
) -> tuple[int, str]:
    """Talk to a scripted server: the exit status, and what was written."""

    async def main() -> tuple[int, str]:
        page = StringIO()
        console = Console(file=page, width=120, color_system=None)
        async with serving(script) as server:
            there = replace(options, url=server.url)
            status = await asyncio.to_thread(talk, there, console, StringIO(stdin), timeouts)
            return status, page.getvalue()

    return asyncio.run(main())


def test_talk_with_texts_makes_turns_and_saves_audio_and_events(tmp_path: Path) -> None:
    wav, log = tmp_path / "reply.wav", tmp_path / "events.jsonl"
    status, page = talk_to(TYPED, TalkOptions(texts=("hello", "bye"), save=wav, events=log))
    assert status == 0
    assert "assistant: Hi.\n" in page
    assert "assistant: Bye.\n" in page
    assert "turn 2: ms after the question" in page
    assert files.read(wav) == tone(40) + tone(20)
    lines = [msgspec.json.decode(line) for line in log.read_bytes().splitlines()]
    assert lines[0]["event"] == OPENING["", 1][0][1]
    assert [line["sent"] for line in lines[-4:]] == [False] * 4


def test_talk_with_a_file_makes_a_spoken_turn(tmp_path: Path) -> None:
    question = tmp_path / "question.wav"
    files.write_wav(question, tone(120) + silence(40))
    status, page = talk_to(SPOKEN, TalkOptions(files=(question,)))
    assert status == 0
    assert "you: hello\n" in page
    assert "speech end" in page


def test_talk_without_options_reads_the_standard_input() -> None:
    status, page = talk_to(TYPED, TalkOptions(timeline=False), stdin="hello\n")
    assert (status, "assistant: Hi.\n" in page) == (0, True)


@pytest.mark.parametrize(
    ("script", "words", "quiet"),
    [
        (
            {**OPENING, ("response.create", 1): [(0, RESPONSE), (0, done("failed"))]},
            "the response was failed: no reason",
            60.0,
        ),
        (
            {**OPENING, ("response.create", 1): [(0, RESPONSE), (0, ConnectionLost("gone"))]},
            "the server closed the connection (1011): gone",
            60.0,
        ),
        ({("", 1): [(0, error("wrong key")), (0, ConnectionLost("bye"))]}, "wrong key", 60.0),
        (OPENING, "nothing came from the server for 0.1 s", 0.1),
    ],
)
def test_talk_with_a_failing_server_returns_1(script: Script, words: str, quiet: float) -> None:
    status, page = talk_to(script, TalkOptions(texts=("hello",)), timeouts=Timeouts(quiet=quiet))
    assert status == 1
    assert words in page.splitlines()


def test_talk_with_wrong_options_returns_2_and_one_line(tmp_path: Path) -> None:
    lacking = tmp_path / "lacking.wav"
    with port_that_refuses() as port:
        _refused(lacking, f"ws://127.0.0.1:{port}", tmp_path)


def _refused(lacking: Path, nowhere: str, folder: Path) -> None:
    for options, words in [
        (TalkOptions(files=(lacking,)), f"{lacking} cannot be read: No such file or directory"),
        (TalkOptions(url="ftp://h", texts=("a",)), "ftp:// is none of ws, wss, http, https"),
        (TalkOptions(texts=("a",), mic=True), "--file, --text and --mic exclude each other"),
        (TalkOptions(texts=(" ",)), "no input; give"),
        (TalkOptions(), "no input; give"),
        (TalkOptions(texts=("a",), events=folder), "cannot be written: Is a directory"),
        (TalkOptions(url=nowhere, texts=("a",)), "connection refused; start one with `vivavoce"),
    ]:
        page = StringIO()
        assert talk(options, Console(file=page, width=120), StringIO()) == 2
        assert words in page.getvalue()
        assert page.getvalue().count("\n") == 1


def test_talk_with_an_unwritable_reply_file_returns_2(tmp_path: Path) -> None:
    reply = tmp_path / "no" / "r.wav"
    status, page = talk_to(TYPED, TalkOptions(texts=("hello",), save=reply))
    assert (status, f"{reply} cannot be written" in " ".join(page.split())) == (2, True)


@pytest.mark.skipif(not FULL.is_char_device(), reason="there is no device that is always full")
def test_talk_with_a_full_disk_stops_recording_and_continues() -> None:
    status, page = talk_to(TYPED, TalkOptions(texts=("hello", "bye"), events=FULL))
    assert status == 0
    assert page.count("no more events are recorded: No space left on device") == 1


def test_talk_shows_the_key_nowhere() -> None:
    options = TalkOptions(texts=("hello",), api_key=Secret("sk-hidden"))
    assert "sk-hidden" not in repr(options)
    assert "sk-hidden" not in talk_to(TYPED, options)[1]


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    os.close(ends[0])


def test_line_reader_returns_lines_and_none_at_the_end(pipe: tuple[int, int]) -> None:
    os.write(pipe[1], b" hello \n\nhow are you\nlast")
    os.close(pipe[1])

    async def main() -> list[str | None]:
        prompt = LineReader(pipe[0])
        return [await prompt.line() for _ in range(6)]

    assert asyncio.run(main()) == ["hello", "", "how are you", "last", None, None]


def test_line_reader_when_cancelled_keeps_what_was_typed(pipe: tuple[int, int]) -> None:
    async def main() -> str | None:
        prompt = LineReader(pipe[0])
        waiting = asyncio.ensure_future(prompt.line())
        os.write(pipe[1], b"hel")
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        os.write(pipe[1], b"lo\n")
        os.close(pipe[1])
        return await prompt.line()

    assert asyncio.run(main()) == "hello"
