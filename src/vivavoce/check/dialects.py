"""Checks of the beta protocol, of HTTP and of WebRTC calls."""

from typing import Any, Final

from vivavoce.check.items_behaviour import CLIENT, ERRORS, EVENTS, SETTINGS, START
from vivavoce.check.recording import (
    CheckList,
    CheckRecording,
    EventFields,
    NotApplicable,
    at,
    require,
)
from vivavoce.check.scenarios import METADATA

CALL: Final = "webrtc.md: What differs from a WebSocket"
HTTP: Final = "http.md: "
checks = CheckList()


@checks.add("beta.session", SETTINGS, "beta")
def _(recording: CheckRecording) -> None:
    """The session of the beta is flat: `modalities`, `voice`, `input_audio_format`."""
    event = recording.need("session.created")
    for key in (
        "modalities",
        "voice",
        "input_audio_format",
        "output_audio_format",
        "turn_detection",
        "temperature",
        "max_response_output_tokens",
    ):
        require(key in event["session"], f"session.{key} is missing", event)


@checks.add("beta.updated", SETTINGS, "beta")
def _(recording: CheckRecording) -> None:
    """An update without `session.type` is accepted, and echoed flat."""
    event = recording.note("updated")
    require(event.get("type") == "session.updated", "it was refused", event)
    for key, value in (
        ("instructions", "Be brief."),
        ("turn_detection", None),
        ("input_audio_format", "g711_ulaw"),
        ("max_response_output_tokens", 400),
    ):
        found = at(event, "session", key)
        require(found == value, f"session.{key} is {found!r}", event)


@checks.add("beta.item_created", EVENTS, "beta")
def _(recording: CheckRecording) -> None:
    """An item is reported by `conversation.item.created`, not by `added` and `done`."""
    recording.note("created")
    for kind in ("conversation.item.added", "conversation.item.done"):
        events = recording.all(kind)
        require(not events, f"{kind} came", *events)


@checks.add("beta.text_events", EVENTS, "beta")
def _(recording: CheckRecording) -> None:
    """A written answer streams `response.text.delta` and `.done`."""
    _, events = recording.response("text")
    _streams(events, "response.text.delta", "response.text.done")


@checks.add("beta.audio_events", EVENTS, "beta")
def _(recording: CheckRecording) -> None:
    """A spoken answer streams `response.audio` and `response.audio_transcript`."""
    _, events = recording.response("audio")
    _streams(
        events,
        "response.audio.delta",
        "response.audio.done",
        "response.audio_transcript.delta",
        "response.audio_transcript.done",
    )


@checks.add("beta.no_ga_names", EVENTS, "beta")
def _(recording: CheckRecording) -> None:
    """No event has a GA name."""
    recording.need("session.created")
    for event in recording.received:
        kind = str(event.get("type"))
        require(
            not kind.startswith("response.output_") or kind.startswith("response.output_item"),
            f"{kind} came",
            event,
        )


@checks.add("beta.response_flat", EVENTS, "beta")
def _(recording: CheckRecording) -> None:
    """The response of the beta is flat: `modalities`, `voice`, `output_audio_format`."""
    done, _ = recording.response("audio")
    for key in ("modalities", "voice", "output_audio_format", "usage", "status_details"):
        require(key in done["response"], f"response.{key} is missing", done)


@checks.add("beta.content_types", CLIENT, "beta")
def _(recording: CheckRecording) -> None:
    """An assistant's parts are `text` and `audio`."""
    for name in ("text", "audio"):
        done, _ = recording.response(name)
        kind = at(done, "response", "output", 0, "content", 0, "type")
        require(kind == name, f"the part is {kind!r}", done)


@checks.add("beta.metadata", CLIENT, "beta")
def _(recording: CheckRecording) -> None:
    """`metadata` of a response is echoed."""
    done, _ = recording.response("text")
    found = at(done, "response", "metadata")
    require(found == METADATA, f"metadata is {found!r}", done)


@checks.add("beta.error", ERRORS, "beta")
def _(recording: CheckRecording) -> None:
    """An unknown setting is refused with its flat path."""
    event = recording.note("refused")
    require(event.get("type") == "error", "it was accepted", event)
    code, param = at(event, "error", "code"), at(event, "error", "param")
    require(code == "unknown_parameter", f"the code is {code!r}", event)
    require(param == "session.no_such_setting", f"param is {param!r}", event)


@checks.add("beta.commit_empty", ERRORS, "beta")
def _(recording: CheckRecording) -> None:
    """A commit of an empty buffer is refused."""
    event = recording.note("commit")
    code = at(event, "error", "code")
    require(code == "input_audio_buffer_commit_empty", f"the code is {code!r}", event)


@checks.add("beta.subprotocol", START, "beta_subprotocol")
def _(recording: CheckRecording) -> None:
    """The subprotocol `openai-beta.realtime-v1` requests the beta; `realtime` is selected."""
    event = recording.need("session.created")
    require("modalities" in event["session"], "the session is that of GA", event)
    selected = recording.note("subprotocol")
    require(selected == "realtime", f"the selected subprotocol is {selected!r}", event)


@checks.add("beta.transcription", EVENTS, "beta_transcription")
def _(recording: CheckRecording) -> None:
    """`transcription_session.update` is answered by `transcription_session.updated`."""
    event = recording.note("updated")
    kind = event.get("type")
    require(kind == "transcription_session.updated", f"{kind} came", event)
    require("input_audio_format" in event["session"], "the session is not flat", event)


@checks.add("webrtc.answer", "webrtc.md: Calls from the browser: WebRTC", "webrtc")
def _(recording: CheckRecording) -> None:
    """An offer is answered with 201, an SDP answer and the `Location` of the call."""
    offer = recording.note("offer")
    require(offer["status"] == 201, f"the status is {offer['status']}", offer)
    require(offer["content_type"] == "application/sdp", "it is not application/sdp", offer)
    location = offer["location"]
    require("/realtime/calls/" in location, f"Location is {location!r}", offer)


@checks.add("webrtc.greets", CALL, "webrtc")
def _(recording: CheckRecording) -> None:
    """`session.created` comes on the data channel when it opens."""
    recording.note("offer")
    recording.expect("session.created", "no session.created came on the data channel")


@checks.add("webrtc.audio_on_the_track", CALL, "webrtc")
def _(recording: CheckRecording) -> None:
    """The answer is heard on the audio track."""
    recording.response("spoken")
    frames = recording.note("loud_frames")
    require(frames > 0, "the track is silent")


@checks.add("webrtc.no_audio_deltas", CALL, "webrtc")
def _(recording: CheckRecording) -> None:
    """No `response.output_audio.delta` comes on the data channel."""
    recording.need("response.created")
    events = recording.all("response.output_audio.delta")
    require(not events, f"{len(events)} came", *events[:1])


@checks.add("webrtc.transcript", CALL, "webrtc")
def _(recording: CheckRecording) -> None:
    """The transcript of the answer comes on the data channel."""
    _, events = recording.response("spoken")
    _streams(
        events, "response.output_audio_transcript.delta", "response.output_audio_transcript.done"
    )


@checks.add("webrtc.playout_started", CALL, "webrtc")
def _(recording: CheckRecording) -> None:
    """`output_audio_buffer.started` names the response, after its first part was added."""
    key = recording.note("spoken")
    event = recording.expect("output_audio_buffer.started", "it did not come", response_id=key)
    part = recording.need("response.content_part.added")
    require(recording.place(event) > recording.place(part), "it came before the part", event)


@checks.add("webrtc.playout_stopped", CALL, "webrtc")
def _(recording: CheckRecording) -> None:
    """`output_audio_buffer.stopped` comes after `response.done`, when all is played."""
    done, _ = recording.response("spoken")
    key = recording.note("spoken")
    event = recording.expect("output_audio_buffer.stopped", "it did not come", response_id=key)
    require(recording.place(event) > recording.place(done), "it came before the end", event)


@checks.add("webrtc.playout_cleared", CALL, "webrtc")
def _(recording: CheckRecording) -> None:
    """`output_audio_buffer.clear` ends the playback: `cleared` names the response."""
    recording.need("response.created")
    key = recording.note("cleared")
    recording.expect("output_audio_buffer.cleared", "it did not come", response_id=key)


def _streams(events: list[EventFields], *kinds: str) -> None:
    found = {e.get("type") for e in events}
    for kind in kinds:
        require(kind in found, f"no {kind} came", events[-1])


def _http(
    name: str, note: str, heading: str, statement: str, statuses: tuple[int, ...], *rest: Any
) -> None:
    """Declare a check of an HTTP answer: its status, then (path, wanted) of its fields."""

    def judge(recording: CheckRecording) -> None:
        answer = recording.note(note)
        if answer["status"] in (404, 405, 501) and 404 not in statuses:
            raise NotApplicable(f"the server answers {answer['status']}")
        require(answer["status"] in statuses, f"the status is {answer['status']}", answer)
        for path, wanted in rest:
            found = at(answer, *path)
            right = isinstance(found, wanted) if isinstance(wanted, type) else found == wanted
            require(right, f"{'.'.join(map(str, path))} is {found!r}", answer)

    judge.__doc__ = statement
    checks.add(f"http.{name}", HTTP + heading, "http")(judge)


_SPEECH: Final = "`POST /v1/audio/speech`"
_FILES: Final = "`POST /v1/audio/transcriptions`, `/translations`"
_ERROR: Final = (("json", "error", "message"), str)
_http(
    "models",
    "models",
    "`GET /v1/models`, `/v1/audio/models`",
    "`GET /models` lists models.",
    (200,),
    (("json", "object"), "list"),
    (("json", "data"), list),
)
_http(
    "not_found",
    "not_found",
    "HTTP: recordings, speech, models",
    "An unknown path is answered 404 with an error in JSON.",
    (404,),
    _ERROR,
)
_http(
    "client_secret",
    "client_secret",
    "HTTP: recordings, speech, models",
    "`POST /realtime/client_secrets` gives a short-lived key and its session.",
    (200,),
    (("json", "value"), str),
    (("json", "expires_at"), int),
    (("json", "session", "instructions"), "Be brief."),
)
_http(
    "client_secret_limits",
    "client_secret_too_long",
    "HTTP: recordings, speech, models",
    "A life of a key beyond 7200 s is refused with 400.",
    (400,),
    _ERROR,
)
_http(
    "beta_session",
    "beta_session",
    "HTTP: recordings, speech, models",
    "`POST /realtime/sessions` gives a key as the beta does.",
    (200,),
    (("json", "client_secret", "value"), str),
)
_http(
    "speech_wav",
    "speech_wav",
    _SPEECH,
    "Speech comes as a WAV file.",
    (200,),
    (("begins",), b"RIFF".hex()),
)
_http("speech_pcm", "speech_pcm", _SPEECH, "Speech comes as PCM.", (200,), (("bytes",), int))
_http(
    "speech_invalid",
    "speech_without_input",
    _SPEECH,
    "A request without `input` is answered 400 or 422 with an error in JSON.",
    (400, 422),
    _ERROR,
)
_http(
    "transcription",
    "transcription",
    _FILES,
    "An audio file is transcribed.",
    (200,),
    (("json", "text"), str),
)
_http(
    "transcription_invalid",
    "transcription_without_file",
    _FILES,
    "A request without a file is answered 400, 415 or 422 with an error in JSON.",
    (400, 415, 422),
    _ERROR,
)
_http(
    "chat",
    "chat",
    "`POST /v1/chat/completions`",
    "A chat is completed.",
    (200,),
    (("json", "choices", 0, "message", "role"), "assistant"),
)
_http(
    "bad_json",
    "bad_json",
    "`POST /v1/chat/completions`",
    "A body that is not JSON is answered 400 or 422 with an error in JSON.",
    (400, 422),
    _ERROR,
)


@checks.add("http.client_secret_opens", HTTP + "HTTP: recordings, speech, models", "http")
def _(recording: CheckRecording) -> None:
    """A short-lived key opens a session with the settings that it was created with."""
    event = recording.note("secret_session")
    found = at(event, "session", "instructions")
    require(found == "Be brief.", f"instructions is {found!r}", event)
