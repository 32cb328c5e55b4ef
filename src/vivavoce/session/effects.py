"""What a session asks of the world. Names are orders, in the imperative."""

from dataclasses import dataclass
from typing import TypeAlias

from vivavoce.protocol.items import FunctionTool, Item, ToolChoice
from vivavoce.protocol.server import AnyServerEvent


@dataclass(frozen=True, slots=True)
class Send:
    """Tell the client."""

    event: AnyServerEvent


@dataclass(frozen=True, slots=True)
class RunVad:
    """Is this speech? Whole windows of PCM from position `at` on. Report Judged, in order."""

    at: int
    audio: bytes


@dataclass(frozen=True, slots=True)
class StartTranscription:
    """Begin to write an item down. Report Transcribed as words come, or Unheard once."""

    item_id: str
    model: str
    language: str | None
    prompt: str


@dataclass(frozen=True, slots=True)
class FeedAudio:
    """More sound of that item."""

    item_id: str
    audio: bytes


@dataclass(frozen=True, slots=True)
class EndAudio:
    """That was all of its sound: report the final Transcribed."""

    item_id: str


@dataclass(frozen=True, slots=True)
class CancelTranscription:
    """Drop the item. Report nothing more for it."""

    item_id: str


@dataclass(frozen=True, slots=True)
class ScoreTurn:
    """Has the user finished, by these words? Report Assessed once."""

    item_id: str
    text: str
    language: str | None


@dataclass(frozen=True, slots=True)
class Prompt:
    """All that an answer is made of."""

    model: str
    instructions: str
    items: tuple[Item, ...]
    tools: tuple[FunctionTool, ...]
    tool_choice: ToolChoice
    parallel_tool_calls: bool
    max_output_tokens: int | None
    language: str | None
    spoken: bool
    voice: str
    speed: float


@dataclass(frozen=True, slots=True)
class Generate:
    """Make an answer.

    Report Thinking, Thought, Called, Argued, Spoke as it goes, Concluded when the model is
    through, and Ended or Failed once, last.
    """

    response_id: str
    prompt: Prompt


@dataclass(frozen=True, slots=True)
class CancelGeneration:
    """Drop an answer. Report nothing more for it."""

    response_id: str


@dataclass(frozen=True, slots=True)
class PlayAudio:
    """Play that, 16-bit mono PCM at 24 kHz, behind what waits. Report Played as it leaves."""

    item_id: str
    audio: bytes


@dataclass(frozen=True, slots=True)
class ClearPlayback:
    """Drop what was not played yet, at once."""


@dataclass(frozen=True, slots=True)
class Close:
    """End the connection. Feed the session nothing more."""

    code: int
    reason: str


Effect: TypeAlias = (
    Send
    | RunVad
    | StartTranscription
    | FeedAudio
    | EndAudio
    | CancelTranscription
    | ScoreTurn
    | Generate
    | CancelGeneration
    | PlayAudio
    | ClearPlayback
    | Close
)
