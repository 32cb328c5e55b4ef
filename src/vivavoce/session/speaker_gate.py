"""Whether speech is that of the speaker whom a session serves. Pure functions.

How alike two voices are is known the better the more of a voice is heard: of a second or two most
voices are told apart, of a short word hardly any. So the likeness that is required grows with the
length of the speech, and what is too short to tell is let in: nothing that the user says is lost.
"""

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

GateMode: TypeAlias = Literal["off", "first", "enrolled"]
Likeness: TypeAlias = Annotated[float, Meta(ge=-1, le=1)]

CHECK_MS = 1_000
"""Of speech in a turn that goes on, the voice is looked at after so much, and at its end."""
MIN_CHECKED_MS = 320
"""Shorter speech is let in."""
SURE_MS = 1_600
"""From so much speech on the whole likeness is required."""
SHORT_SHARE = 0.66
"""Of the likeness that is required of the shortest speech that is checked."""


class SpeakerGateSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[speaker_gate]: speech of others neither interrupts an answer nor is answered."""

    mode: GateMode = "off"
    """first: the first who speaks in a session is its speaker; enrolled: those of `recordings`."""
    recordings: tuple[str, ...] = ()
    """Files with the voice of each speaker who is let in, some seconds of speech in each."""
    likeness: Likeness = 0.0
    """Cosine of two embeddings from which on they are one voice; 0: as the speaker model says."""

    def __post_init__(self) -> None:
        if (self.mode == "enrolled") != bool(self.recordings):
            raise ValueError('mode = "enrolled" and `recordings` go together: set both or neither')


def is_speaker(likeness: float, speech_ms: int, same_voice: float) -> bool:
    """Whether a voice is taken for that of the speaker.

    likeness: cosine with it, of speech of that length. same_voice: the cosine from which on two
    long clips are one voice.
    """
    if speech_ms < MIN_CHECKED_MS:
        return True
    share = min(1.0, (speech_ms - MIN_CHECKED_MS) / (SURE_MS - MIN_CHECKED_MS))
    return likeness >= same_voice * (SHORT_SHARE + (1 - SHORT_SHARE) * share)
