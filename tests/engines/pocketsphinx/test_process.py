import asyncio
import subprocess
import sys

import pytest

from vivavoce.engines.pocketsphinx import frames as frames
from vivavoce.engines.pocketsphinx.process import COMMAND, RecogniserProcess, Stream
from vivavoce.errors import EngineError


async def ready_error(code: str, seconds: float = 20) -> str:
    process = RecogniserProcess((sys.executable, "-c", code))
    with pytest.raises(EngineError) as caught:
        await process.ready(seconds)
    await process.close()
    return str(caught.value)


async def final(stream: Stream) -> frames.Heard:
    while True:
        heard = await stream.hear()
        if heard is not None and heard.final:
            return heard


def test_a_process_that_cannot_load_says_why() -> None:
    said = asyncio.run(ready_error("raise SystemExit('no model here')"))
    assert "ended with code 1 (no model here)" in said


def test_a_process_that_takes_too_long_is_not_waited_for() -> None:
    said = asyncio.run(ready_error("import sys; sys.stdin.read()", seconds=0.01))
    assert "not ready within 0.01 s; raise start_seconds" in said


def test_a_command_that_does_not_exist_is_an_engine_error() -> None:
    async def main() -> None:
        process = RecogniserProcess(("/nonexistent/python",))
        with pytest.raises(EngineError, match="could not be started: No such file"):
            await process.ready(20)
        await process.close()

    asyncio.run(main())


def test_an_utterance_in_a_process_that_is_killed_is_an_engine_error() -> None:
    async def main() -> None:
        process = await RecogniserProcess().ready(20)
        with process.listen() as stream:
            await stream.feed(bytes(32_000))
            process.kill()
            with pytest.raises(
                EngineError, match="killed by signal 9; the next utterance gets a new one"
            ):
                await final(stream)
        await process.close()

    asyncio.run(main())


def test_forgotten_utterances_leave_the_others_alone() -> None:
    async def main() -> frames.Heard:
        process = await RecogniserProcess().ready(20)
        with process.listen() as other:
            with process.listen() as stream:
                await other.feed(bytes(20_000))
                await stream.feed(bytes(frames.WINDOW_BYTES))
                stream.cancel()
                await stream.feed(b"unheard.")
                stream.end()
            other.end()
            heard = await final(other)
        await process.close()
        return heard

    assert asyncio.run(main()) == frames.Heard(1, (), 0, True)


def test_closing_twice_and_before_it_has_started_is_harmless() -> None:
    async def main() -> None:
        process = RecogniserProcess()
        await process.close()
        await process.close()

    asyncio.run(main())


@pytest.mark.parametrize("busy_seconds", [0, 60])
def test_the_process_ends_with_its_server_even_in_the_middle_of_work(busy_seconds: int) -> None:
    with subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        size = frames.body_bytes(process.stdout.read(frames.HEADER_BYTES))
        assert frames.report(process.stdout.read(size)) == frames.Ready()
        process.stdin.write(frames.packed(frames.Open(1)))
        process.stdin.write(frames.packed(frames.Feed(1, bytes(32_000 * busy_seconds))))
        process.stdin.close()
        assert process.wait(20) == 0
