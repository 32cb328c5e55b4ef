"""Decides whether speech is that of a speaker whom the session accepts. Pure functions.

The more speech there is, the better two voices can be distinguished: with a second or two most of
them, with a short word hardly any. So the required similarity grows with the length of the speech,
and speech that is too short to decide is accepted, so that nothing of the user is lost.
"""

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

GateMode: TypeAlias = Literal["off", "first", "enrolled"]
Likeness: TypeAlias = Annotated[float, Meta(ge=-1, le=1)]

CHECK_MS = 1_000
"""In a turn that goes on, the voice is checked after this much speech, and again at its end."""
MIN_CHECKED_MS = 320
"""Shorter speech is accepted unchecked."""
SURE_MS = 1_600
"""From this much speech on the full similarity is required."""
SHORT_SHARE = 0.66
"""The share of the similarity that is required of the shortest speech that is checked."""


class SpeakerGateSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[speaker_gate]: speech of other speakers neither interrupts an answer nor is answered."""

    mode: GateMode = "off"
    """first: the first speaker of a session is accepted; enrolled: those of `recordings`."""
    recordings: tuple[str, ...] = ()
    """Files with the voice of each accepted speaker, some seconds of speech in each."""
    likeness: Likeness = 0.0
    """Cosine of two embeddings from which on they are one voice; 0: the value of the speaker
    model."""

    def __post_init__(self) -> None:
        if (self.mode == "enrolled") != bool(self.recordings):
            raise ValueError('mode = "enrolled" and `recordings` go together: set both or neither')


def is_speaker(likeness: float, speech_ms: int, same_voice: float) -> bool:
    """Whether a voice is accepted as the speaker's.

    likeness: its cosine with the speaker's voice, for speech of that length. same_voice: the cosine
    from which on two long clips are one voice.
    """
    if speech_ms < MIN_CHECKED_MS:
        return True
    share = min(1.0, (speech_ms - MIN_CHECKED_MS) / (SURE_MS - MIN_CHECKED_MS))
    return likeness >= same_voice * (SHORT_SHARE + (1 - SHORT_SHARE) * share)
