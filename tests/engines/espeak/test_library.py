"""The real library, in a process of its own: it must not come into the one of the tests."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import msgspec

TEXT = "Hello there, world. This is fine."


def order(number: int, text: str, **changes: object) -> dict[str, object]:
    return {
        "speak": number,
        "text": text,
        "voice": "gmw/en-US",
        "words_per_minute": 175,
        "pitch": 50,
        "pitch_range": 50,
        "room": 10**9,
    } | changes


class Conversation:
    """With a running espeak process."""

    def __init__(self, to: IO[bytes], source: IO[bytes]) -> None:
        self._to = to
        self._source = source
        self.hello = msgspec.json.decode(source.readline())

    def say(self, *orders: dict[str, object]) -> None:
        self._to.write(b"".join(msgspec.json.encode(one) + b"\n" for one in orders))
        self._to.flush()

    def replies(self) -> list[dict[str, Any]]:
        """Those to one order, each with its "audio"."""
        found: list[dict[str, Any]] = []
        while not (found and found[-1].get("ended")):
            reply = msgspec.json.decode(self._source.readline())
            found.append(reply | {"audio": self._source.read(reply.get("bytes", 0))})
        return found


@contextmanager
def conversation() -> Iterator[Conversation]:
    command = [sys.executable, "-m", "vivavoce.engines.espeak.process"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdin
        assert process.stdout
        yield Conversation(process.stdin, process.stdout)
        process.stdin.close()
        assert process.wait() == 0, "the end of stdin ends it"


def samples(replies: list[dict[str, Any]]) -> int:
    return sum(len(reply["audio"]) for reply in replies) // 2


def test_it_says_hello_with_its_rate_and_its_languages() -> None:
    with conversation() as espeak:
        languages = espeak.hello["languages"]
    assert espeak.hello["sample_rate"] == 22050
    assert ["gmw/de", "German", [["de", 5]]] in languages
    assert len(languages) > 100


def test_a_language_without_its_dictionary_is_not_listed() -> None:
    with conversation() as espeak:
        listed = {identifier for identifier, _, _ in espeak.hello["languages"]}
    assert listed & {"gmq/nb", "gmq/fo", "ine/hyw"} == {"gmq/nb", "ine/hyw"}


def test_words_are_counted_in_characters_and_samples() -> None:
    with conversation() as espeak:
        espeak.say(order(1, "Größe über ß, naïve 日本 end"))
        replies = espeak.replies()
    words = [word for reply in replies for word in reply.get("words", ())]
    first = {position: sample for position, _, sample in reversed(words)}
    assert {0, 6, 11, 14, 20, 23} <= set(first)
    assert list(first.values()) == sorted(first.values(), reverse=True)
    assert 0 < first[23] < samples(replies)


def test_for_want_of_room_it_stops_at_a_clause_and_says_where() -> None:
    with conversation() as espeak:
        espeak.say(order(1, TEXT, room=1))
        first = espeak.replies()
        espeak.say(order(2, TEXT[first[-1]["next"] :]))
        rest = espeak.replies()
        espeak.say(order(3, TEXT))
        whole = espeak.replies()
    assert TEXT[first[-1]["next"] :] == "world. This is fine."
    assert abs(samples(first) + samples(rest) - samples(whole)) < 500
    assert whole[-1]["next"] is None


def test_cancelling_stops_it_in_the_middle_and_it_goes_on_with_the_next() -> None:
    with conversation() as espeak:
        espeak.say(order(1, "word " * 20_000), {"cancel": 1})
        cut = espeak.replies()
        espeak.say(order(2, TEXT))
        whole = espeak.replies()
    assert samples(cut) < 20_000 * 22050 * 0.2 / 4
    assert 22050 < samples(whole) < 5 * 22050
    assert {reply["number"] for reply in whole} == {2}


def test_a_voice_that_does_not_exist_is_an_error_and_not_the_end() -> None:
    with conversation() as espeak:
        espeak.say(order(1, TEXT, voice="xx/none"))
        (refusal,) = espeak.replies()
        espeak.say(order(2, TEXT))
        assert samples(espeak.replies()) > 22050
    assert "cannot load the voice 'xx/none'" in refusal["error"]


def test_it_speaks_faster_than_the_450_words_a_minute_of_its_manual() -> None:
    with conversation() as espeak:
        espeak.say(order(1, TEXT, words_per_minute=450))
        fast = samples(espeak.replies())
        espeak.say(order(2, TEXT, words_per_minute=900))
        fastest = samples(espeak.replies())
    assert 0.4 < fastest / fast < 0.65
