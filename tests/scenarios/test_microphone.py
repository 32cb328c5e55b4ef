"""The microphone of a scenario, in virtual time."""

import asyncio

from vivavoce.scenarios.conversation import CHUNK_BYTES, CHUNK_MS, ScenarioMicrophone
from vivavoce.talk.client import Event
from vivavoce.testing.virtual_time import run

SPEECH = [b"\1" * CHUNK_BYTES, b"\1" * (CHUNK_BYTES // 2)]


def test_speech_is_sent_in_real_time_with_silence_around_it() -> None:
    sent: list[tuple[int, bytes]] = []

    async def send(event: Event) -> None:
        sent.append((round(1000 * asyncio.get_running_loop().time()), event.pcm()))

    async def main() -> None:
        microphone = ScenarioMicrophone(send)
        running = asyncio.create_task(microphone.run())
        await asyncio.sleep(1.5 * CHUNK_MS / 1000)
        await microphone.speak(SPEECH)
        await asyncio.sleep(CHUNK_MS / 1000)
        running.cancel()

    run(main())
    silence = bytes(CHUNK_BYTES)
    padded = SPEECH[1] + bytes(CHUNK_BYTES // 2)
    chunks = [silence, SPEECH[0], padded, silence]
    assert sent == [(CHUNK_MS * (n + 1), chunk) for n, chunk in enumerate(chunks)]


def test_speech_after_the_connection_is_lost_is_not_waited_for() -> None:
    async def send(event: Event) -> None:
        pass

    async def main() -> None:
        microphone = ScenarioMicrophone(send)
        microphone.close()
        await microphone.run()
        await microphone.speak(SPEECH)

    run(main())
