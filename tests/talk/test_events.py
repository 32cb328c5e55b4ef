import msgspec
import pytest

from tests.talk.stage import tone
from vivavoce.protocol import codec
from vivavoce.talk import events
from vivavoce.talk.events import Event, read


@pytest.mark.parametrize("frame", [b"", b"{", b"[1]", b'"x"', b"\xff", b"{}", b'{"type":7}'])
def test_whatever_comes_is_an_event(frame: bytes) -> None:
    assert read(frame).type == events.UNREADABLE


def test_what_is_absent_or_of_another_type_reads_as_empty() -> None:
    event = read(b'{"type":"error","error":{"message":null,"code":7},"delta":5}')
    assert event.text("error", "message") == event.text("error", "code") == ""
    assert event.text("delta", "deeper") == event.text("nothing") == ""
    assert event.get("error", "code") == 7
    assert event.sound() == b""


def test_sound_is_read_from_base64() -> None:
    assert read(b'{"type":"response.output_audio.delta","delta":"AQI="}').sound() == b"\1\2"
    assert read(b'{"type":"response.output_audio.delta","delta":"%"}').sound() == b""


@pytest.mark.parametrize(
    "event",
    [
        events.append(tone(40)),
        events.user_text("hello"),
        events.response_create(),
        events.truncate("item_1", 0, 120),
        events.session_update(voice="cedar", instructions="x", spoken=True, transcription=True),
    ],
)
def test_a_server_understands_what_is_sent(event: Event) -> None:
    codec.decode(events.written(event))


def test_sound_that_is_sent_arrives_whole() -> None:
    pcm = tone(40)
    assert read(events.written(events.append(pcm))).sound() == pcm


def test_only_what_was_asked_for_is_set() -> None:
    def update(**wanted: object) -> object:
        settings = {"voice": "", "instructions": "", "spoken": False, "transcription": True}
        event = events.session_update(**settings | wanted)  # type: ignore[arg-type]
        return None if event is None else msgspec.to_builtins(event.fields)["session"]

    assert update() is None
    assert update(voice="v") == {"type": "realtime", "audio": {"output": {"voice": "v"}}}
    assert update(instructions="i") == {"type": "realtime", "instructions": "i"}
    assert update(spoken=True, transcription=False) == {
        "type": "realtime",
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": 24000},
                "turn_detection": {"type": "server_vad"},
            }
        },
    }
