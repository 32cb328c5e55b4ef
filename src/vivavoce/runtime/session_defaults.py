"""What a session begins with: the server's template, the client's choice, and its key's."""

import msgspec
from msgspec import UNSET

from vivavoce.protocol.session import (
    Audio,
    AudioInput,
    RealtimeSession,
    SessionObject,
    Transcription,
    TranscriptionAudio,
    TranscriptionSession,
    TranscriptionSessionPatch,
)
from vivavoce.protocol.wire import Opening
from vivavoce.session.options import AvailableModels, Options

TRANSCRIPTION_MODEL = "whisper-1"
"""Named where a query asks for transcripts and for no model."""


def begin(
    opening: Opening,
    template: RealtimeSession,
    offer: AvailableModels,
    *,
    salt: str,
    expires_at: int,
) -> SessionObject:
    """The session object of a new session. Raises InvalidRequest where the patch is refused."""
    session: SessionObject
    kind = opening.kind
    if opening.patch is not None:
        kind = "realtime"
        if isinstance(opening.patch, TranscriptionSessionPatch):
            kind = "transcription"
    if kind == "transcription":
        session = TranscriptionSession(
            id=f"sess_{salt}",
            expires_at=expires_at,
            audio=TranscriptionAudio(_heard(template.audio.input, opening)),
        )
    else:
        model = opening.model or offer.default_model
        speech = opening.speech_model
        served = offer.served_by(model, template.audio.output.voice, speech=speech)
        output = msgspec.structs.replace(template.audio.output, voice=opening.voice or served.voice)
        session = msgspec.structs.replace(
            template,
            id=f"sess_{salt}",
            expires_at=expires_at,
            model=model,
            speech_model=speech or UNSET,
            audio=Audio(_heard(template.audio.input, opening), output),
        )
    options = Options(session, offer)
    if opening.patch is not None:
        options.update(opening.patch, pristine=True, has_spoken=False)
    return options.session


def _heard(template: AudioInput, opening: Opening) -> AudioInput:
    """The input with the model of transcription and the language that the query names."""
    if not (opening.transcription_model or opening.language):
        return template
    asked = template.transcription or Transcription(model=TRANSCRIPTION_MODEL)
    return msgspec.structs.replace(
        template,
        transcription=msgspec.structs.replace(
            asked,
            model=opening.transcription_model or asked.model,
            language=opening.language or asked.language,
        ),
    )
