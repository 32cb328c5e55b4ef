"""Speakers whom a client names, each with a reference: a recording as a data URL (RFC 2397)."""

from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Sequence
from io import BytesIO
from urllib.parse import unquote_to_bytes

from vivavoce.api.uploads import sentence
from vivavoce.engines.speaker_model import SpeakerModel
from vivavoce.errors import AudioError, InvalidRequest
from vivavoce.media.decoding import Bounds, SoundFile
from vivavoce.runtime.diarization import KnownSpeaker, voice_of
from vivavoce.runtime.vad_batcher import VadBatcher

MAX_REFERENCE_SECONDS = 60.0
"""OpenAI wants two to ten."""
NAMES, REFERENCES = "known_speaker_names", "known_speaker_references"


async def known_speakers(
    names: Sequence[str], references: Sequence[str], vad: VadBatcher, model: SpeakerModel
) -> list[KnownSpeaker]:
    """The speakers with their voices. Raises InvalidRequest, EngineError."""
    if len(names) != len(references):
        raise InvalidRequest(
            f"There are {len(names)} names of speakers and {len(references)} references; send one "
            f"reference for each name.",
            code="invalid_value",
            param=REFERENCES,
        )
    known = []
    for number, (name, reference) in enumerate(zip(names, references, strict=True)):
        param = f"{REFERENCES}[{number}]"
        file = SoundFile(
            BytesIO(_data_of(reference, param)),
            f"the reference of {name[:50]!r}",
            bounds=Bounds(max_seconds=MAX_REFERENCE_SECONDS),
        )
        try:
            voice = await voice_of(file, vad, model)
        except AudioError as exc:
            raise InvalidRequest(sentence(exc), code="invalid_audio", param=param) from exc
        if voice is None:
            raise InvalidRequest(
                f"There is no speech in the reference of {name[:50]!r}.",
                code="invalid_audio",
                param=param,
            )
        known.append(KnownSpeaker(name, voice))
    return known


def _data_of(url: str, param: str) -> bytes:
    """The bytes of a data URL. Raises InvalidRequest."""
    head, comma, body = url.partition(",")
    if not comma or not head.lower().startswith("data:"):
        raise InvalidRequest(
            f"Invalid '{param}': expected a data URL such as data:audio/wav;base64,UklGR….",
            code="invalid_value",
            param=param,
        )
    if not head.lower().endswith(";base64"):
        return unquote_to_bytes(body)
    try:
        return b64decode(unquote_to_bytes(body), validate=True)
    except Base64Error as exc:
        raise InvalidRequest(
            f"Invalid '{param}': the data URL is not valid base64.",
            code="invalid_value",
            param=param,
        ) from exc
