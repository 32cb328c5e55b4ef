"""What a session begins with: the server's template, the client's choice, and its key's."""

import msgspec

from vivavoce.protocol.session import (
    RealtimeSession,
    SessionObject,
    TranscriptionAudio,
    TranscriptionSession,
    TranscriptionSessionPatch,
)
from vivavoce.protocol.wire import Opening
from vivavoce.session.options import AvailableModels, Options


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
    if opening.patch is not None:
        patch = options.rules.settings(opening.patch, options.session, opening=True)
        options.update(patch, pristine=True, has_spoken=False)
    return options.session
