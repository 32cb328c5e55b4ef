"""The scripts of the scripted engines: their settings, as they stand in vivavoce.toml.

[engines.stt.scripted]
transcripts = ["hello there", {text = "what is the weather", delay_seconds = 0.2}]

[engines.llm.scripted]
answers = [{text = "One moment.", calls = [{name = "weather", arguments = {city = "Rome"}}]}]
"""

from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from vivavoce.engines.base import ChatUsage

DelaySeconds: TypeAlias = Annotated[float, msgspec.Meta(ge=0)]
Rate: TypeAlias = Annotated[float, msgspec.Meta(ge=0)]
PositiveMilliseconds: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
Hertz: TypeAlias = Annotated[int, msgspec.Meta(ge=1000, le=192_000)]
Likelihood: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=1)]

OPENAI_VOICES = (
    "alloy",
    "ash",
    "ballad",
    "cedar",
    "coral",
    "echo",
    "fable",
    "marin",
    "nova",
    "onyx",
    "sage",
    "shimmer",
    "verse",
)


class VADScript(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A loud window is speech."""

    level: Likelihood = 0.05
    """A window with a sample beyond this, of a full scale of 1, is speech."""
    window_samples: Annotated[int, msgspec.Meta(ge=1)] = 512
    sample_rate: Hertz = 16_000


class TurnScript(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Probabilities of finished turns."""

    table: dict[str, Likelihood] = {}
    """Text, stripped, to probability."""
    default: Likelihood = 0.5
    """Of any other text."""
    delay_seconds: DelaySeconds = 0.0


class ScriptedTranscript(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The transcript of one utterance, and how it is given."""

    text: str = ""
    delay_seconds: DelaySeconds = 0.0
    """From the end of the audio to the final transcript, or to the error."""
    partials: bool = False
    """One more word for each `word_ms` of audio; all but the newest are stable."""
    error: str | None = None
    """Fail with this EngineError instead of a final."""
    stall: bool = False
    """Never give a final."""


class STTScript(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Transcripts, in the order in which the audio begins, over all sessions."""

    transcripts: Annotated[tuple[str | ScriptedTranscript, ...], msgspec.Meta(min_length=1)] = (
        "hello",
    )
    repeat: bool = True
    """Begin again after the last one. Else that is an EngineError."""
    hears_silence: bool = True
    """Audio of nothing but zeros takes the next transcript, too. Else it is "" and takes none."""
    word_ms: PositiveMilliseconds = 300
    """Audio for one word of a partial transcript."""
    word_times: bool = False
    """Whether transcripts have word times, each word `word_ms` long or less."""
    logprob: Annotated[float, msgspec.Meta(le=0)] | None = None
    """Of each word, where there are word times: the logarithm of its probability."""
    sample_rate: Hertz = 16_000


class SpeakerScript(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A voice is the pitch of its sound."""

    error: str = ""
    """Every request is an EngineError with this text."""
    sample_rate: Hertz = 16_000


class ScriptedCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A function call in an answer."""

    name: str
    arguments: dict[str, Any] | str = {}
    """A string goes out as it is, JSON or not."""
    call_id: str = ""
    """"": call_7, if it is the seventh call in the engine's life."""


class ScriptedAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One answer, and its timing. A word counts as a token."""

    text: str = ""
    calls: tuple[ScriptedCall, ...] = ()
    """Made after the text."""
    first_token_seconds: DelaySeconds = 0.0
    tokens_per_second: Rate = 0.0
    """0: all at once."""
    chunk: Literal["word", "all"] = "word"
    """How much text one delta holds. "all" does not wait for tokens_per_second."""
    error: str | None = None
    """Fail with this EngineError after `fail_after_words`."""
    stall: bool = False
    """Stop after `fail_after_words`, and never end."""
    fail_after_words: Count = 0
    reason: Literal["stop", "length", "content_filter"] = "stop"
    usage: ChatUsage | None = None
    echo: bool = False
    """Repeat the user's last message, after `text`."""


class LLMScript(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Answers, in the order of the requests, over all sessions."""

    answers: Annotated[tuple[str | ScriptedAnswer, ...], msgspec.Meta(min_length=1)] = (
        "Hello! This answer stands in a script.",
    )
    repeat: bool = True
    """Begin again after the last one. Else that is an EngineError."""
    sees: bool = True


class TTSScript(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A hum as long as the text, one pitch a voice."""

    ms_per_character: Annotated[float, msgspec.Meta(gt=0)] = 60.0
    sample_rate: Hertz = 24_000
    chunk_ms: PositiveMilliseconds = 40
    first_audio_seconds: DelaySeconds = 0.0
    realtime_factor: Rate = 0.0
    """Seconds to make one second of audio. 0: all at once; 1: as fast as it is heard."""
    marks: bool = True
    """Whether words have marks."""
    fail_on: str = ""
    """A text that holds this fails with an EngineError, after `fail_after_ms` of audio."""
    stall_on: str = ""
    """A text that holds this stops after `fail_after_ms` of audio, and never ends."""
    fail_after_ms: Count = 0
    voices: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] = OPENAI_VOICES
    default_voice: str = ""
    """"": the first of `voices`."""

    def __post_init__(self) -> None:
        if self.default_voice and self.default_voice not in self.voices:
            raise ValueError(f"default_voice {self.default_voice!r} is not one of voices")
