import pytest

from vivavoce.api.raw_sound import described
from vivavoce.media.decoding import Raw


@pytest.mark.parametrize(
    ("content_type", "name", "raw"),
    [
        ("audio/pcm", "", Raw("audio/pcm", 24_000)),
        ("audio/pcm; rate=8000", "", Raw("audio/pcm", 8_000)),
        ("AUDIO/PCM;RATE=16000;channels=1", "", Raw("audio/pcm", 16_000)),
        ("audio/pcm;rate=999999", "", Raw("audio/pcm", 24_000)),
        ("audio/x-raw", "", Raw("audio/pcm", 24_000)),
        ("audio/pcma", "", Raw("audio/pcma", 24_000)),
        ("", "a.b.PCM", Raw("audio/pcm", 24_000)),
        ("application/octet-stream", "call.ulaw", Raw("audio/pcmu", 24_000)),
        ("audio/wav", "call.wav", None),
        ("", "", None),
        ("", "pcm.wav", None),
    ],
)
def test_bare_samples_are_what_the_client_says(
    content_type: str, name: str, raw: Raw | None
) -> None:
    assert described(content_type, name, bytes(16)) == raw


@pytest.mark.parametrize(
    "start", [b"RIFF\0\0\0\0WAVE", b"OggS", b"fLaC", b"\0\0\0\x20ftypM4A ", b"PK\x03\x04"]
)
def test_what_has_the_head_of_a_file_is_one(start: bytes) -> None:
    assert described("audio/pcm", "call.pcm", start) is None
