"""Uploads of bare samples, which nothing in the bytes gives away: whoever sends them must say so.

As with `audio/pcm;rate=16000` or a name such as call.pcm; what has the head of a file is one.
"""

import re

from vivavoce.audio.formats import RATE, Format
from vivavoce.media.decoding import MAX_RATE, MIN_RATE, Raw

_BY_TYPE: dict[str, Format] = {
    "audio/pcm": "audio/pcm",
    "audio/raw": "audio/pcm",
    "audio/x-raw": "audio/pcm",
    "audio/pcmu": "audio/pcmu",
    "audio/pcma": "audio/pcma",
}
_BY_ENDING: dict[str, Format] = {
    "pcm": "audio/pcm",
    "raw": "audio/pcm",
    "s16le": "audio/pcm",
    "ulaw": "audio/pcmu",
    "alaw": "audio/pcma",
}
_HEADS = (
    *(b"RIFF", b"RF64", b"OggS", b"fLaC", b"ID3", b"FORM", b"caff", b".snd", b"riff"),
    *(b"\x1aE\xdf\xa3", b"#!AMR", b"FLV", b"0&\xb2u", b"PK\x03\x04"),
)
_MP4 = b"ftyp"  # from the fifth byte on
_RATE = re.compile(r";\s*rate=(\d{4,6})\b", re.IGNORECASE)


def described(content_type: str, name: str, start: bytes) -> Raw | None:
    """How an upload with these first bytes is to be read, if it is bare samples; else None."""
    if start.startswith(_HEADS) or start[4:8] == _MP4:
        return None
    kind = content_type.partition(";")[0].strip().lower()
    ending = name.rpartition(".")[2].lower()
    format_ = _BY_TYPE.get(kind) or _BY_ENDING.get(ending)
    if format_ is None:
        return None
    told = _RATE.search(content_type)
    rate = int(told[1]) if told else RATE
    return Raw(format_, rate if MIN_RATE <= rate <= MAX_RATE else RATE)
