"""The settings with which a session begins: of the server, of the client, and of its key."""

import msgspec
from msgspec import UNSET

from vivavoce.protocol.session import (
    AudioInputPatch,
    AudioOutputPatch,
    AudioPatch,
    RealtimePatch,
    RealtimeSession,
    SessionObject,
    SessionPatch,
    TranscriptionAudio,
    TranscriptionAudioPatch,
    TranscriptionPatch,
    TranscriptionSession,
    TranscriptionSessionPatch,
)
from vivavoce.protocol.wire import Kind, Opening
from vivavoce.session.options import AvailableModels, Options

TRANSCRIPTION_MODEL = "whisper-1"
"""Used if a query asks for transcripts and names no model."""


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
            audio=TranscriptionAudio(template.audio.input),
        )
    else:
        model = opening.model or offer.default_model
        served = offer.served_by(model, template.audio.output.voice)
        output = msgspec.structs.replace(template.audio.output, voice=served.voice)
        session = msgspec.structs.replace(
            template,
            id=f"sess_{salt}",
            expires_at=expires_at,
            model=model,
            audio=msgspec.structs.replace(template.audio, output=output),
        )
    options = Options(session, offer)
    options.pin()
    for given in (_choices(opening, kind), opening.patch):
        if given is not None:
            patch = options.rules.settings(given, options.session, opening=True)
            options.update(patch, pristine=True, has_spoken=False)
    return options.session


def opening_again(opening: Opening, session: SessionObject) -> Opening:
    """The request of a client that comes back to a session."""
    if isinstance(session, RealtimeSession):
        return msgspec.structs.replace(opening, kind="realtime", model=session.model, patch=None)
    return msgspec.structs.replace(opening, kind="transcription", patch=None)


def with_voice(template: RealtimeSession, voice: str) -> RealtimeSession:
    """The settings of the server with another voice."""
    output = msgspec.structs.replace(template.audio.output, voice=voice)
    audio = msgspec.structs.replace(template.audio, output=output)
    return msgspec.structs.replace(template, audio=audio)


def asked_model(opening: Opening) -> str:
    """The model that a client names: a short-lived key's settings take precedence."""
    model = opening.patch.model if isinstance(opening.patch, RealtimePatch) else UNSET
    return opening.model if model is UNSET else model


def _choices(opening: Opening, kind: Kind) -> SessionPatch | None:
    """The settings that the query names, besides the model; None: none."""
    heard = AudioInputPatch()
    if opening.transcription_model or opening.language:
        asked = opening.transcription_model or TRANSCRIPTION_MODEL
        heard = AudioInputPatch(
            transcription=TranscriptionPatch(model=asked, language=opening.language or UNSET)
        )
    elif not (opening.speech_model or opening.voice):
        return None
    if kind == "transcription":
        return TranscriptionSessionPatch(audio=TranscriptionAudioPatch(heard))
    output = AudioOutputPatch(voice=opening.voice or UNSET)
    return RealtimePatch(
        speech_model=opening.speech_model or UNSET, audio=AudioPatch(heard, output)
    )
