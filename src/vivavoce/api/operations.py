"""All routes of the HTTP API, as its description tells them."""

from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from vivavoce.api.chat.request import ChatCompletion, ChatCompletionRequest
from vivavoce.api.client_secrets import (
    BetaSecretWish,
    ClientSecret,
    ClientSecretRequest,
    ClientSecretResponse,
)
from vivavoce.api.models import AudioModelList, ModelList, ModelObject, VoiceList
from vivavoce.api.openapi import Answer, Content, Operation, Parameter, Schema
from vivavoce.media.encoding import CONTENT_TYPES
from vivavoce.protocol.beta_client import BetaSessionPatch, BetaTranscriptionSessionPatch
from vivavoce.protocol.beta_shapes import BetaSession, BetaTranscriptionSession
from vivavoce.protocol.rest_audio import (
    SpeechRequest,
    TranscriptionJson,
    TranscriptionRequest,
    TranscriptionVerbose,
)

ABOUT = (
    "The HTTP side of a voice server that OpenAI's clients use unmodified. Models and voices that "
    "there are not are served by the defaults. Conversations go over the WebSocket `/v1/realtime`."
)
_JSON = "application/json"
_FORM = "multipart/form-data"
_EVENTS = "text/event-stream"
_LISTS = {"timestamp_granularities", "include"}  # fields that a form gives the names of lists


class HealthAnswer(msgspec.Struct):
    status: Literal["ok"]
    version: str
    sessions: int


class ReadyAnswer(msgspec.Struct):
    status: Literal["ready", "not ready"]
    sessions: int


class BetaSessionRequest(BetaSessionPatch, frozen=True, kw_only=True):
    """Settings of the session, flat, and how long the key lives."""

    client_secret: BetaSecretWish | UnsetType | None = UNSET


class BetaTranscriptionSessionRequest(BetaTranscriptionSessionPatch, frozen=True, kw_only=True):
    """Settings of the session, flat, and how long the key lives."""

    client_secret: BetaSecretWish | UnsetType | None = UNSET


class BetaSessionAnswer(BetaSession, frozen=True, kw_only=True):
    """The session that the key would open, and the key."""

    client_secret: ClientSecret  # type: ignore[assignment]  # null in events, the key here


class BetaTranscriptionSessionAnswer(BetaTranscriptionSession, frozen=True, kw_only=True):
    """The session that the key would open, and the key."""

    client_secret: ClientSecret  # type: ignore[assignment]  # null in events, the key here


def _recording_form() -> Schema:
    """The fields of a transcription as a form has them, and the file."""
    (_,), components = msgspec.json.schema_components([TranscriptionRequest])
    schema: Schema = dict(components["TranscriptionRequest"])
    fields: Schema = {
        f"{name}[]" if name in _LISTS else name: kind for name, kind in schema["properties"].items()
    }
    fields["language"] = {"type": "string"}  # a form has no null
    file = {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}
    return {**schema, "properties": {"file": file, **fields}, "required": ["file"]}


def _recording_answer() -> Content:
    return {
        _JSON: (TranscriptionJson, TranscriptionVerbose),
        "text/plain": {"type": "string"},
        "text/vtt": {"type": "string"},
        _EVENTS: None,
    }


def _recording(path: str, id_: str, summary: str, about: str) -> Operation:
    return Operation(
        "post",
        f"/v1/audio/{path}",
        id_,
        "Audio",
        summary,
        about,
        body={_FORM: _recording_form()},
        answers={200: Answer("The words, in the format that was asked for.", _recording_answer())},
        problems=(408, 413, 415, 503),
    )


def _secret(path: str, id_: str, summary: str, body: Any, answer: Any) -> Operation:
    return Operation(
        "post",
        f"/v1/realtime/{path}",
        id_,
        "Realtime",
        summary,
        "The key opens Realtime sessions, which begin with these settings, and nothing else.",
        body={_JSON: body},
        body_required=False,
        answers={200: Answer("The key, and the session that it opens.", {_JSON: answer})},
        problems=(413,),
    )


def _call(path: str, id_: str, summary: str) -> Operation:
    offer = {"type": "string", "description": "The offer, which begins with v=0."}
    session = {"type": "string", "description": "JSON: the settings of the session."}
    form = {"type": "object", "properties": {"sdp": offer, "session": session}, "required": ["sdp"]}
    return Operation(
        "post",
        path,
        id_,
        "Realtime",
        summary,
        "The body is an SDP offer, the answer is in SDP, too. The events of the session go over "
        "the data channel `oai-events`.",
        parameters=(Parameter("model", "query", "The model that answers."),),
        body={"application/sdp": offer, _FORM: form},
        answers={201: Answer("`Location` is the call.", {"application/sdp": {"type": "string"}})},
        problems=(413, 503),
    )


def _file(path: str, id_: str, summary: str, content_type: str) -> Operation:
    return Operation(
        "get",
        path,
        id_,
        "Server",
        summary,
        answers={
            200: Answer("The file.", {content_type: None}),
            304: Answer("It is still the same."),
        },
        needs_key=False,
    )


_PAGE_TYPES = ("text/html", "text/css", "text/javascript", "image/svg+xml")
_SOUND: Content = dict.fromkeys(kind.partition(";")[0] for kind in CONTENT_TYPES.values())
_VOICE = Parameter("voice", "path", "Its id.")
_MODEL = Parameter("model", "query", "The model that speaks; the default one if not given.")

OPERATIONS = (
    Operation(
        "post",
        "/v1/audio/speech",
        "createSpeech",
        "Audio",
        "Speak a text.",
        "The sound is sent from the first clause on, while the next ones are spoken. A client that "
        "hangs up stops the work. With `stream_format` sse it comes in events: "
        "`speech.audio.delta`, whose `audio` is base64, and at last `speech.audio.done`. "
        "`instructions` reach engines that can use them.",
        body={_JSON: SpeechRequest},
        answers={200: Answer("The sound, as it is made.", {**_SOUND, _EVENTS: None})},
        problems=(408, 413, 503),
    ),
    _recording(
        "transcriptions",
        "createTranscription",
        "Write down what is said in a recording.",
        "wav, mp3, m4a, ogg, opus, flac, webm and many more, told by their bytes; bare samples as "
        "`audio/pcm;rate=16000`. A long file is decoded, cut at its pauses and recognised piece by "
        "piece. With `stream` the words come in events: `transcript.text.delta`, and at last "
        '`transcript.text.done`. A recording in which nobody speaks has the text "".',
    ),
    _recording(
        "translations",
        "createTranslation",
        "Write down what is said in a recording, in English where the engine can.",
        "The engines there are now only write down what they hear; the embedded one hears English.",
    ),
    Operation(
        "get",
        "/v1/audio/models",
        "listAudioModels",
        "Audio",
        "The models, as Open WebUI asks for them.",
        answers={200: Answer("All of them.", {_JSON: AudioModelList})},
    ),
    Operation(
        "get",
        "/v1/audio/voices",
        "listVoices",
        "Audio",
        "The voices of every engine.",
        parameters=(_MODEL,),
        answers={200: Answer("All of them.", {_JSON: VoiceList})},
    ),
    Operation(
        "get",
        "/v1/audio/voices/{voice}/sample",
        "sampleVoice",
        "Audio",
        "Hear a voice.",
        parameters=(_VOICE, _MODEL),
        answers={200: Answer("A sentence.", {"audio/mpeg": None})},
        problems=(404, 503),
    ),
    Operation(
        "post",
        "/v1/chat/completions",
        "createChatCompletion",
        "Chat",
        "Answer a conversation, with speech in, speech out, or both.",
        "Recordings in the messages are transcribed; the words go to the configured language "
        "model, whose answer comes back as text, or as text and speech. With `stream` it comes in "
        "events, `chat.completion.chunk`, and a last one `[DONE]`.",
        body={_JSON: ChatCompletionRequest},
        answers={200: Answer("The answer.", {_JSON: ChatCompletion, _EVENTS: None})},
        problems=(404, 408, 413, 422, 429, 503),
    ),
    _secret(
        "client_secrets",
        "createClientSecret",
        "Make a short-lived key for a browser.",
        ClientSecretRequest,
        ClientSecretResponse,
    ),
    _secret(
        "sessions",
        "createRealtimeSession",
        "The same, as the beta asked for it.",
        BetaSessionRequest,
        BetaSessionAnswer,
    ),
    _secret(
        "transcription_sessions",
        "createTranscriptionSession",
        "The same for transcription, as the beta asked for it.",
        BetaTranscriptionSessionRequest,
        BetaTranscriptionSessionAnswer,
    ),
    _call("/v1/realtime/calls", "createCall", "Begin a WebRTC call."),
    _call("/v1/realtime", "createBetaCall", "The same, as the beta asked for it."),
    Operation(
        "post",
        "/v1/realtime/calls/{call_id}/hangup",
        "hangUpCall",
        "Realtime",
        "End a call.",
        parameters=(Parameter("call_id", "path", "As `Location` told it."),),
        answers={200: Answer("It is over.", {"application/octet-stream": None})},
        problems=(404,),
    ),
    Operation(
        "get",
        "/v1/realtime",
        "connectRealtime",
        "Realtime",
        "A WebSocket that carries a conversation.",
        "See docs/protocol.md. Keys are also taken as a subprotocol, "
        "`openai-insecure-api-key.KEY`; a bad one closes the socket.",
        parameters=(
            Parameter("model", "query", "The model that answers."),
            Parameter("call_id", "query", "A call to listen in to, instead of a new session."),
        ),
        answers={101: Answer("Connected.")},
        problems=(404, 426, 503),
    ),
    Operation(
        "get",
        "/v1/models",
        "listModels",
        "Models",
        "The models of the settings.",
        answers={200: Answer("All of them.", {_JSON: ModelList})},
    ),
    Operation(
        "get",
        "/v1/models/{model}",
        "retrieveModel",
        "Models",
        "One of them.",
        parameters=(Parameter("model", "path", "Its id."),),
        answers={200: Answer("The model.", {_JSON: ModelObject})},
        problems=(404,),
    ),
    Operation(
        "get",
        "/health",
        "health",
        "Server",
        "Whether the server lives.",
        answers={200: Answer("It does.", {_JSON: HealthAnswer})},
        needs_key=False,
    ),
    Operation(
        "get",
        "/ready",
        "ready",
        "Server",
        "Whether the server takes sessions.",
        answers={
            200: Answer("It does.", {_JSON: ReadyAnswer}),
            503: Answer("It is full, or shutting down.", {_JSON: ReadyAnswer}),
        },
        needs_key=False,
    ),
    Operation(
        "get",
        "/openapi.json",
        "openapi",
        "Server",
        "This description.",
        answers={200: Answer("OpenAPI 3.1.", {_JSON: {"type": "object"}})},
        needs_key=False,
    ),
    Operation(
        "get",
        "/docs",
        "docs",
        "Server",
        "This description, to read.",
        answers={200: Answer("A page.", {"text/html": None})},
        needs_key=False,
    ),
    _file("/", "console", "A console in the browser.", "text/html"),
    _file("/client.js", "clientModule", "Its client, for other pages.", "text/javascript"),
    Operation(
        "get",
        "/console/{name}",
        "consoleFile",
        "Server",
        "A file of the console.",
        parameters=(Parameter("name", "path", "As the page asks for it."),),
        answers={
            200: Answer("The file.", dict.fromkeys(_PAGE_TYPES)),
            304: Answer("It is still the same."),
        },
        problems=(404,),
        needs_key=False,
    ),
)
