"""Requests and answers of the HTTP endpoints for audio, in the shapes of OpenAI's API. Data only.

Optional fields have the value that is used when a client does not send them.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from vivavoce.protocol.logprobs import TokenLogprob
from vivavoce.protocol.responses import DurationUsage
from vivavoce.protocol.session import CustomVoice, Keywords, hint_of
from vivavoce.protocol.validation import refusal

MAX_INPUT_CHARACTERS = 65_536
"""The most characters of one request. OpenAI's limit is 4096; here a long text is streamed as
well."""

TranscriptFormat: TypeAlias = Literal["json", "text", "srt", "verbose_json", "vtt", "diarized_json"]
MAX_KNOWN_SPEAKERS = 16
"""Speakers with a reference recording. OpenAI allows four."""
Granularity: TypeAlias = Literal["word", "segment"]
MillisecondsOrZero: TypeAlias = Annotated[int, Meta(ge=0)]
Probability: TypeAlias = Annotated[float, Meta(ge=0.0, le=1.0)]
F = TypeVar("F", bound=msgspec.Struct)


class SpeechRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Body of POST /v1/audio/speech."""

    input: Annotated[
        str, Meta(max_length=MAX_INPUT_CHARACTERS, extra_json_schema={"pattern": r"\S"})
    ]
    model: str = ""
    voice: str | CustomVoice = ""
    response_format: Literal["mp3", "opus", "aac", "flac", "wav", "pcm"] = "mp3"
    speed: Annotated[float, Meta(ge=0.25, le=4.0)] = 1.0
    instructions: str = ""
    stream_format: Literal["audio", "sse"] = "audio"

    @property
    def voice_id(self) -> str:
        return self.voice if isinstance(self.voice, str) else self.voice.id


class SpeechUsage(msgspec.Struct, frozen=True):
    """The usage of a speech request."""

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0


class SpeechDelta(msgspec.Struct, frozen=True, tag_field="type", tag="speech.audio.delta"):
    """The next part of the file. Only with `stream_format` sse."""

    audio: bytes  # base64 on the wire


class SpeechDone(msgspec.Struct, frozen=True, tag_field="type", tag="speech.audio.done"):
    """The file is complete; the last event."""

    usage: SpeechUsage = SpeechUsage()


class ServerVadChunking(
    msgspec.Struct, frozen=True, tag_field="type", tag="server_vad", forbid_unknown_fields=True
):
    """How a recording is split at its pauses."""

    threshold: Probability = 0.5
    silence_duration_ms: MillisecondsOrZero = 200
    prefix_padding_ms: MillisecondsOrZero = 300


KnownNames: TypeAlias = Annotated[tuple[str, ...], Meta(max_length=MAX_KNOWN_SPEAKERS)]


class TranscriptionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of POST /v1/audio/transcriptions and /translations, without the file."""

    model: str = ""
    language: str | None = None
    prompt: str = ""
    response_format: TranscriptFormat = "json"
    temperature: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.0
    timestamp_granularities: tuple[Granularity, ...] = ("segment",)
    include: tuple[Literal["logprobs"], ...] = ()
    stream: bool = False
    keywords: Keywords = ()
    """Names and words to expect; put before the prompt."""
    chunking_strategy: Literal["auto"] | ServerVadChunking = "auto"
    known_speaker_names: KnownNames = ()
    known_speaker_references: KnownNames = ()
    """A recording of each of them, as a data URL."""

    @property
    def hint(self) -> str:
        """What the recogniser gets as its prompt."""
        return hint_of(self.keywords, self.prompt)


class DiarizationRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields of POST /v1/audio/diarization, without the file, as in speaches."""

    model: str = ""
    response_format: Literal["json", "rttm"] = "json"
    known_speaker_names: KnownNames = ()
    known_speaker_references: KnownNames = ()


class EmbeddingRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The field of POST /v1/audio/speech/embedding, without the file."""

    model: str = ""


class TimestampsRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields of POST /v1/audio/speech/timestamps, without the file, as in speaches."""

    model: str = ""
    threshold: Probability = 0.75
    """The probability of speech from which a window starts a segment of speech."""
    neg_threshold: Probability | None = None
    """The probability below which a window is silence; between the two, the state does not change.
    null: `threshold` less 0.15."""
    min_speech_duration_ms: MillisecondsOrZero = 0
    """Shorter segments are dropped."""
    max_speech_duration_s: Annotated[float, Meta(gt=0.0)] | None = None
    """Longer segments are split, in their last pause if there is one."""
    min_silence_duration_ms: MillisecondsOrZero = 1000
    """Shorter silence does not end a segment."""
    speech_pad_ms: MillisecondsOrZero = 0
    """Added at both ends of a segment, as far as there is silence."""


class SpeechTimestamp(msgspec.Struct, frozen=True):
    """A segment of speech, in milliseconds from the start of the recording."""

    start: int
    end: int


_LISTS = {
    *("timestamp_granularities", "include", "keywords"),
    *("known_speaker_names", "known_speaker_references"),
}
_NESTED = re.compile(r"(\w+)\[(\w+)\]")


def form_request(fields: Mapping[str, Sequence[str]], shape: type[F]) -> F:
    """Read a form: the values of each field, whose name comes without the `[]` of a list; that of a
    field within another is `outer[inner]`.

    An empty value is none; of several, where one is wanted, the last counts. Raises InvalidRequest
    with the field as its `param`; an unknown field is one where the shape forbids it.
    """
    given: dict[str, Any] = {}
    for name, values in fields.items():
        if not (filled := [value for value in values if value]):
            continue
        if (nested := _NESTED.fullmatch(name)) and nested[1] in shape.__struct_fields__:
            inner = given.setdefault(nested[1], {})
            if isinstance(inner, dict):
                inner[nested[2]] = filled[-1]
        else:
            given[name] = filled if name in _LISTS else filled[-1]
    try:
        return msgspec.convert(given, shape, strict=False)
    except msgspec.ValidationError as exc:
        raise refusal(str(exc), shape, None, None) from exc


class InputTokenDetails(msgspec.Struct, frozen=True):
    """The input tokens by kind."""

    text_tokens: int = 0
    audio_tokens: int = 0


class TokenUsage(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="tokens"):
    """The usage of a transcription, in tokens."""

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    input_token_details: InputTokenDetails = InputTokenDetails()


class DetectedLanguage(msgspec.Struct, frozen=True):
    """A language that is spoken in the recording."""

    code: str


class TranscriptionJson(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer in `response_format` json."""

    text: str
    logprobs: tuple[TokenLogprob, ...] | UnsetType = UNSET
    """With `include[]=logprobs`, of a recogniser that knows them."""
    languages: tuple[DetectedLanguage, ...] | UnsetType = UNSET
    usage: DurationUsage | TokenUsage | UnsetType = UNSET


class TranscriptionWord(msgspec.Struct, frozen=True, kw_only=True):
    """A word, in seconds from the start of the recording."""

    word: str
    start: float
    end: float


class VerboseSegment(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the transcript, in seconds from the start of the recording.

    Fields that only a Whisper model can fill have the value of full confidence.
    """

    id: int
    seek: int
    """The start of the window of audio in which this was recognised, in hundredths of a second."""
    start: float
    end: float
    text: str
    tokens: tuple[int, ...] = ()
    temperature: float = 0.0
    avg_logprob: float = 0.0
    compression_ratio: float
    no_speech_prob: float = 0.0


class TranscriptionVerbose(msgspec.Struct, frozen=True, kw_only=True):
    """The answer in `response_format` verbose_json."""

    task: Literal["transcribe", "translate"] = "transcribe"
    language: str
    """Its English name in small letters."""
    duration: float
    """Seconds."""
    text: str
    segments: tuple[VerboseSegment, ...] | UnsetType = UNSET
    words: tuple[TranscriptionWord, ...] | UnsetType = UNSET
    usage: DurationUsage | UnsetType = UNSET


class DiarizedSegment(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="transcript.text.segment"
):
    """What one speaker said without a long pause, in seconds from the start of the recording.

    Also an event, once its text is complete.
    """

    id: str
    start: float
    end: float
    speaker: str
    """The name of a known speaker, else A, B and so on."""
    text: str


class TranscriptionDiarized(msgspec.Struct, frozen=True, kw_only=True):
    """The answer in `response_format` diarized_json."""

    task: Literal["transcribe"] = "transcribe"
    duration: float
    """Seconds."""
    text: str
    segments: tuple[DiarizedSegment, ...]
    usage: DurationUsage | UnsetType = UNSET


class DiarizationSegment(msgspec.Struct, frozen=True):
    """A turn of a speaker, in seconds from the start of the recording."""

    start: float
    end: float
    speaker: str


class DiarizationJson(msgspec.Struct, frozen=True):
    """The answer of POST /v1/audio/diarization."""

    duration: float
    """Seconds."""
    segments: tuple[DiarizationSegment, ...]


class VoiceEmbedding(msgspec.Struct, frozen=True):
    """The embedding of a voice: a vector of length 1."""

    embedding: tuple[float, ...]
    index: int = 0
    object: Literal["embedding"] = "embedding"


class EmbeddingUsage(msgspec.Struct, frozen=True):
    """In the tokens of Realtime sessions: one for 100 ms."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of POST /v1/audio/speech/embedding, in the shape of text embeddings."""

    object: Literal["list"] = "list"
    data: tuple[VoiceEmbedding, ...]
    model: str
    usage: EmbeddingUsage


class TranscriptDelta(
    msgspec.Struct, frozen=True, tag_field="type", tag="transcript.text.delta", omit_defaults=True
):
    """More of the transcript. All deltas together are its text."""

    delta: str
    logprobs: tuple[TokenLogprob, ...] | UnsetType = UNSET
    segment_id: str | UnsetType = UNSET
    """With diarized_json: the id of the segment that this belongs to."""


class TranscriptDone(
    msgspec.Struct, frozen=True, tag_field="type", tag="transcript.text.done", omit_defaults=True
):
    """The transcript is complete; the last event."""

    text: str
    logprobs: tuple[TokenLogprob, ...] | UnsetType = UNSET
    languages: tuple[DetectedLanguage, ...] | UnsetType = UNSET
    usage: TokenUsage | UnsetType = UNSET


# ISO 639-1, with two of 639-3: those that Whisper knows.
_LANGUAGES = """
af:afrikaans am:amharic ar:arabic as:assamese az:azerbaijani ba:bashkir be:belarusian
bg:bulgarian bn:bengali bo:tibetan br:breton bs:bosnian ca:catalan cs:czech cy:welsh
da:danish de:german el:greek en:english es:spanish et:estonian eu:basque fa:persian
fi:finnish fo:faroese fr:french gl:galician gu:gujarati ha:hausa haw:hawaiian he:hebrew
hi:hindi hr:croatian ht:haitian hu:hungarian hy:armenian id:indonesian is:icelandic
it:italian ja:japanese jw:javanese jv:javanese ka:georgian kk:kazakh km:khmer kn:kannada
ko:korean la:latin lb:luxembourgish ln:lingala lo:lao lt:lithuanian lv:latvian
mg:malagasy mi:maori mk:macedonian ml:malayalam mn:mongolian mr:marathi ms:malay
mt:maltese my:burmese ne:nepali nl:dutch nn:nynorsk no:norwegian oc:occitan pa:punjabi
pl:polish ps:pashto pt:portuguese ro:romanian ru:russian sa:sanskrit sd:sindhi
si:sinhala sk:slovak sl:slovenian sn:shona so:somali sq:albanian sr:serbian su:sundanese
sv:swedish sw:swahili ta:tamil te:telugu tg:tajik th:thai tk:turkmen tl:tagalog
tr:turkish tt:tatar uk:ukrainian ur:urdu uz:uzbek vi:vietnamese yi:yiddish yo:yoruba
yue:cantonese zh:chinese
"""
_LANGUAGE_NAMES = dict(pair.split(":") for pair in _LANGUAGES.split())


def language_name(tag: str) -> str:
    """The English name, in small letters, of the language of a tag such as en-US; else the tag."""
    tag = tag.lower().replace("_", "-")
    return _LANGUAGE_NAMES.get(tag.partition("-")[0], tag)
