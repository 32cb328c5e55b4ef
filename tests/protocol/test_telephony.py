"""Media streams of telephone providers: their messages, marks and clears, without a connection."""

import base64
import json
from typing import Any

import msgspec
import numpy as np
import pytest

from tests.protocol.telephony_samples import (
    CONNECTED,
    STREAM,
    digit_of,
    media_of,
    name_of_mark,
    phone_sound,
    returned,
    start_of,
    stop_of,
)
from vivavoce.errors import InvalidRequest, LimitReached, Unauthorized, VoiceError
from vivavoce.protocol import client as asks
from vivavoce.protocol import server as says
from vivavoce.protocol.items import InputText, Message
from vivavoce.protocol.responses import Response, ResponseAudio, ResponseAudioOutput
from vivavoce.protocol.session import (
    PCM,
    AudioInput,
    RealtimePatch,
    RealtimeSession,
    ServerVad,
    TranscriptionSession,
)
from vivavoce.protocol.telephony import DIGIT_PAUSE_S, MAX_DIGITS, TelephonyProtocol
from vivavoce.protocol.telephony_messages import PROVIDERS, Provider, call_of, read_message
from vivavoce.protocol.wire import (
    CarriesKey,
    CloseRequest,
    ConnectRequest,
    Frame,
    Opening,
    Reply,
)

SECOND = (np.sin(np.arange(24_000) / 9) * 8000).astype("<i2").tobytes()
PART: dict[str, Any] = {"event_id": "e", "response_id": "r", "output_index": 0}


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Line:
    """A protocol with its clock; messages are objects."""

    def __init__(self, **query: str) -> None:
        self.clock = Clock()
        self.protocol = TelephonyProtocol(self.clock)
        self.protocol.opening(ConnectRequest("/telephony/ws", query))

    def take(self, message: Any) -> list[Any]:
        return list(self.protocol.decode(Frame("text", json.dumps(message).encode())))

    def send(self, event: says.AnyServerEvent) -> list[Any]:
        return [json.loads(frame.data) for frame in self.protocol.encode(event)]

    def speak(self, pcm: bytes, item: str = "i", *, ends: bool = False) -> list[Any]:
        part = {**PART, "item_id": item, "content_index": 0}
        sent = self.send(says.OutputAudioDelta(**part, delta=pcm))
        return sent + (self.send(says.OutputAudioDone(**part)) if ends else [])

    def started(self) -> list[Any]:
        return self.send(says.SpeechStarted(event_id="e", audio_start_ms=0, item_id="u"))


def on_call(provider: Provider, media: Any = None, **parameters: str) -> Line:
    line = Line()
    line.take(start_of(provider, media, **parameters))
    return line


def sound_in(sent: list[Any]) -> bytes:
    return b"".join(base64.b64decode(m["media"]["payload"]) for m in sent if "media" in m)


def marks_in(sent: list[Any]) -> list[str]:
    return [name_of_mark(m) for m in sent if m["event"] in ("mark", "checkpoint")]


def opened(line: Line, message: Any) -> Opening:
    first = line.take(message)[0]
    assert isinstance(first, Opening)
    return first


@pytest.mark.parametrize("provider", PROVIDERS)
def test_start_message_opens_the_session_with_its_parameters(provider: Provider) -> None:
    line = Line()
    if provider in CONNECTED:
        assert line.take(CONNECTED[provider]) == []
    message = start_of(provider, model="m", voice="coral", language="de", token="ek_x")
    opening, log = line.take(message)
    assert (opening.model, opening.key.reveal()) == ("m", "ek_x")
    patch = opening.patch
    assert isinstance(patch, RealtimePatch)
    audio: Any = patch.audio
    assert audio.output.voice == "coral"
    assert audio.input.transcription.language == "de"
    assert isinstance(log, Reply)
    assert provider in log.log
    assert "ek_x" not in log.log + repr(opening)


def test_options_of_the_address_are_parameters_and_those_of_the_stream_overrule_them() -> None:
    line = Line(provider="Plivo", token="ek_1", voice="ash", instructions="Be brief.")
    opening = opened(line, start_of("plivo", voice="coral"))
    patch: Any = opening.patch
    assert opening.key.reveal() == "ek_1"
    assert (patch.audio.output.voice, patch.instructions) == ("coral", "Be brief.")


@pytest.mark.parametrize(
    ("extra", "voice"),
    [
        ("voice=coral,x=1", "coral"),
        ('{"voice": "ash"}', "ash"),
        ('{"voice": ', None),
        ("[1]", None),
        ('{"a": 1}', None),
        (7, None),
    ],
)
def test_extra_headers_of_plivo_are_read_in_every_form(extra: Any, voice: str | None) -> None:
    patch: Any = opened(Line(), start_of("plivo") | {"extra_headers": extra}).patch
    assert (patch.audio.output.voice or None) == voice


def test_greeting_is_spoken_first() -> None:
    *_, greeting = Line().take(start_of("twilio", greeting="Welcome to Acme."))
    assert isinstance(greeting, asks.ResponseCreate)
    assert "Welcome to Acme." in repr(greeting)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (media_of("twilio", b"\xff"), "'connected' or 'start'"),
        ({"event": "start"}, "'connected' or 'start'"),
        ({"event": "start", "start": {}}, "no known provider"),
        ({"event": 1}, "not a message"),
        (start_of("telnyx", {"encoding": "OPUS", "sample_rate": 8000}), "'OPUS'"),
        (start_of("plivo", {"encoding": "audio/x-l16", "sampleRate": 7000}), "'7000'"),
        (start_of("twilio", **{f"p{n}": "" for n in range(60)}), "too many parameters"),
        (start_of("twilio", allow_interruptions="perhaps"), "'allow_interruptions'"),
    ],
)
def test_bad_beginning_is_refused_with_a_reason(message: Any, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        Line().take(message)


def test_unknown_provider_in_the_address_is_refused_by_name() -> None:
    with pytest.raises(InvalidRequest, match=r"'acme'.*twilio, telnyx, plivo, exotel"):
        Line(provider="acme")


def test_binary_messages_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="/ws"):
        list(TelephonyProtocol(Clock()).decode(Frame("binary", b"\0")))


@pytest.mark.parametrize(
    ("error", "code"),
    [(LimitReached("full"), 1013), (Unauthorized("no"), 3000), (InvalidRequest("bad"), 1008)],
)
def test_refusal_has_its_reason_in_the_close_frame(error: VoiceError, code: int) -> None:
    assert Line().protocol.refuse(error) == ((), code, str(error))
    assert isinstance(Line().protocol, CarriesKey)


# --- sound


@pytest.mark.parametrize("provider", PROVIDERS)
def test_sound_of_the_caller_becomes_pcm_at_24_khz(provider: Provider) -> None:
    line = on_call(provider)
    sound = phone_sound(SECOND, provider)
    assert line.take(media_of(provider, sound[:0])) == []
    (append,) = line.take(media_of(provider, sound))
    assert isinstance(append, asks.InputAudioAppend)
    assert abs(len(append.audio) - len(SECOND)) < 400
    error = np.frombuffer(append.audio[2000:20_000], "<i2")
    assert 5000 < np.abs(error.astype(int)).max() < 9500


def test_sound_of_the_bot_itself_is_left_out() -> None:
    assert on_call("telnyx").take(media_of("telnyx", b"\xff" * 160, "outbound")) == []


def test_media_message_that_is_too_large_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="too large"):
        on_call("twilio").take(media_of("twilio", bytes(270_000)))


@pytest.mark.parametrize(
    ("provider", "encoding", "rate"),
    [
        ("telnyx", "PCMA", 8000),
        ("telnyx", "L16", 16_000),
        ("plivo", "audio/x-l16", 16_000),
        ("exotel", "audio/x-mulaw", "8000"),
        ("exotel", "raw/slin", "24000"),
    ],
)
def test_other_codecs_are_understood(provider: Provider, encoding: str, rate: Any) -> None:
    line = on_call(provider, {"encoding": encoding, "sample_rate": rate, "sampleRate": rate})
    samples = np.full(int(rate), 1000, ">i2" if provider == "telnyx" else "<i2")
    sound = samples.tobytes() if "x-l16" in encoding or encoding in ("L16", "raw/slin") else b""
    if not sound:
        (append,) = line.take(media_of(provider, b"\x55" * 8000))
        assert abs(len(append.audio) - 48_000) < 400
        return
    (append,) = line.take(media_of(provider, sound + b"\0"))
    assert set(np.frombuffer(append.audio, "<i2")[2000:-2000]) == {1000}


def test_answer_goes_to_twilio_in_pieces_each_with_a_mark() -> None:
    sent = on_call("twilio").speak(SECOND, ends=True)
    assert [m["event"] for m in sent[:2]] == ["media", "mark"]
    assert {m["streamSid"] for m in sent} == {STREAM}
    assert len(marks_in(sent)) == len(set(marks_in(sent))) >= 5
    assert len(sound_in(sent)) == 8000
    assert all(len(sound_in([m])) <= 1600 for m in sent)


def test_answer_goes_to_plivo_as_play_audio_with_checkpoints() -> None:
    first, second = on_call("plivo").speak(SECOND)[:2]
    assert first["event"] == "playAudio"
    assert (first["media"]["contentType"], first["media"]["sampleRate"]) == ("audio/x-mulaw", 8000)
    assert (second["event"], "name" in second) == ("checkpoint", True)
    wide = {"encoding": "audio/x-l16", "sampleRate": 16_000}
    media = on_call("plivo", wide).speak(SECOND)[0]["media"]
    assert (media["contentType"], media["sampleRate"]) == ("audio/x-l16", 16_000)


def test_answer_goes_to_exotel_in_multiples_of_320_bytes_of_at_least_3200() -> None:
    line = on_call("exotel")
    sent = [m for n in range(0, 47_000, 1000) for m in line.speak(SECOND[n : n + 1000])]
    sent += line.speak(SECOND[47_000:], ends=True)
    sizes = [len(sound_in([m])) for m in sent if "media" in m]
    assert all(size >= 3200 and size % 320 == 0 for size in sizes)
    assert 16_000 <= sum(sizes) < 16_000 + 3200
    assert line.speak(b"", "j", ends=True) == []


def test_answer_goes_to_telnyx_in_pieces_of_20_ms_or_more() -> None:
    line = on_call("telnyx", {"encoding": "PCMA", "sample_rate": 8000})
    assert line.speak(SECOND[:600]) == []
    sent = line.speak(SECOND[600:5000], ends=True)
    assert all("stream_id" not in m for m in sent)
    assert min(len(sound_in([m])) for m in sent if "media" in m) >= 160
    # PCMU, whatever the caller's network sends
    assert np.frombuffer(phone_sound(SECOND[:2400], "telnyx"), np.uint8).tolist()[:300] == list(
        sound_in(sent)[:300]
    )


def test_telnyx_gets_l16_big_endian_where_the_stream_says_so() -> None:
    line = on_call("telnyx", output_format="L16", output_rate="16000")
    loud = np.full(24_000, 1000, "<i2").tobytes()
    played = np.frombuffer(sound_in(line.speak(loud)), ">i2")
    assert set(played[2000:-2000]) == {1000}


# --- what was heard


@pytest.mark.parametrize("provider", PROVIDERS)
def test_interrupted_answer_is_cleared_and_cut_where_its_marks_say(provider: Provider) -> None:
    line = on_call(provider)
    marks = marks_in(line.speak(SECOND * 3, ends=True))
    line.clock.now += 1.1
    assert line.take(returned(provider, marks[4])) == []
    line.clock.now += 0.05
    (clear,) = line.started()
    assert clear["event"] == ("clearAudio" if provider == "plivo" else "clear")
    for mark in marks[5:]:  # providers return the marks that were cleared, too
        cut = line.take(returned(provider, mark))
        if mark == marks[5]:
            (truncate,) = cut
            assert truncate == asks.ItemTruncate(
                item_id="i", content_index=0, audio_end_ms=truncate.audio_end_ms
            )
            assert truncate.audio_end_ms == 1050
        else:
            assert cut == []
    assert line.started() == line.speak(b"", ends=True) == []


def test_answer_that_was_played_whole_is_not_cut() -> None:
    line = on_call("twilio")
    marks = marks_in(line.speak(SECOND, ends=True))
    line.take(returned("twilio", marks[-1]))
    assert line.started() == []
    assert line.take(media_of("twilio", b"\xff" * 160))[0].__class__ is asks.InputAudioAppend


def test_position_by_the_clock_does_not_pass_the_next_mark() -> None:
    line = on_call("twilio")
    first = marks_in(line.speak(SECOND))
    line.take(returned("twilio", first[-1]))
    line.clock.now += 10
    line.speak(SECOND, "j")
    line.clock.now += 0.03
    line.started()
    (cut,) = line.take({"event": "clearedAudio"})
    assert (cut.item_id, cut.audio_end_ms) == ("j", 30)
    marks = marks_in(line.speak(SECOND, "k"))
    line.take(returned("twilio", marks[0]))
    line.clock.now += 10
    line.started()
    (cut,) = line.take({"event": "clearedAudio"})
    assert cut.audio_end_ms == 400


def test_answers_that_wait_behind_the_first_are_cut_to_nothing() -> None:
    line = on_call("twilio")
    marks = marks_in(line.speak(SECOND) + line.speak(SECOND, "j"))
    line.take(returned("twilio", marks[0]))
    line.started()
    cuts = line.take({"event": "clearedAudio"})
    assert [(cut.item_id, cut.audio_end_ms) for cut in cuts] == [("i", 200), ("j", 0)]


def test_provider_that_returns_no_marks_leaves_the_position_to_the_session() -> None:
    line = on_call("exotel")
    line.speak(SECOND)
    assert [m["event"] for m in line.started()] == ["clear"]
    assert line.take(media_of("exotel", b"")) == []


@pytest.mark.parametrize("name", ["theirs", "vv-x", "vv-1²", "vv-" + "9" * 20, ""])
def test_marks_of_others_are_ignored(name: str) -> None:
    line = on_call("twilio")
    line.speak(SECOND)
    line.take(returned("twilio", name))
    line.started()
    assert line.take({"event": "mark"}) == []


def test_speech_clears_nothing_where_interruptions_are_off() -> None:
    line = on_call("twilio")
    line.speak(SECOND)
    off = ServerVad(interrupt_response=False)
    for turns in (off, None):
        session = RealtimeSession(audio=replace_input(AudioInput(turn_detection=turns)))
        line.send(says.SessionUpdated(event_id="e", session=session))
        assert line.started() == []
    line.send(says.SessionCreated(event_id="e", session=TranscriptionSession()))
    assert line.started() == []
    line.send(says.SessionUpdated(event_id="e", session=RealtimeSession()))
    assert len(line.started()) == 1


def replace_input(audio_input: AudioInput) -> Any:
    return msgspec.structs.replace(RealtimeSession().audio, input=audio_input)


def test_cancelled_response_is_cleared_and_a_completed_one_is_not() -> None:
    line = on_call("twilio")
    line.speak(SECOND)
    audio = ResponseAudio(ResponseAudioOutput(PCM(), "marin"))
    done = Response(
        id="r",
        status="completed",
        conversation_id=None,
        output_modalities=("audio",),
        audio=audio,
        max_output_tokens="inf",
    )
    assert line.send(says.ResponseDone(event_id="e", response=done)) == []
    done = msgspec.structs.replace(done, status="cancelled")
    cancelled = says.ResponseDone(event_id="e", response=done)
    assert [m["event"] for m in line.send(cancelled)] == ["clear"]


# --- keys, the end, and the rest


def test_keys_that_are_pressed_become_one_turn() -> None:
    line = on_call("plivo")
    line.speak(SECOND)
    first = line.take(digit_of("plivo", "4"))
    assert json.loads(first[0].frames[0].data)["event"] == "clearAudio"
    assert isinstance(first[1], asks.ResponseCancel)
    assert line.take(digit_of("plivo", "2")) == []
    line.clock.now += DIGIT_PAUSE_S
    item, create, _ = line.take(media_of("plivo", b"\xff" * 160))
    assert item.item == Message(role="user", content=(InputText("DTMF: 42"),))
    assert isinstance(create, asks.ResponseCreate)


def test_hash_key_ends_the_keys_at_once_and_alone_it_only_interrupts() -> None:
    line = on_call("twilio")
    line.take(digit_of("twilio", "7"))
    item, _ = line.take(digit_of("twilio", "#"))
    assert item.item.content[0].text == "DTMF: 7"
    assert [type(e) for e in line.take(digit_of("twilio", "#"))] == [asks.ResponseCancel]


def test_keys_are_bounded() -> None:
    line = on_call("twilio")
    taken = [e for _ in range(MAX_DIGITS) for e in line.take(digit_of("twilio", "1"))]
    assert sum(isinstance(e, asks.ItemCreate) for e in taken) == 1


@pytest.mark.parametrize("provider", PROVIDERS)
def test_hang_up_of_the_caller_ends_the_session(provider: Provider) -> None:
    assert on_call(provider).take(stop_of(provider)) == [CloseRequest()]


def test_error_of_telnyx_is_logged() -> None:
    payload = {"code": 100002, "title": "unknown_error", "detail": "Unknown media"}
    (reply,) = on_call("telnyx").take({"event": "error", "payload": payload})
    assert reply.log == "the provider reports: unknown_error: Unknown media"


@pytest.mark.parametrize("event", ["connected", "start", "clearedAudio", "dance", "media", "dtmf"])
def test_other_messages_during_a_call_change_nothing(event: str) -> None:
    assert on_call("twilio").take({"event": event}) == []


def test_events_without_a_message_and_before_the_call_are_not_sent() -> None:
    line = on_call("twilio")
    assert line.send(says.SpeechStopped(event_id="e", audio_end_ms=0, item_id="u")) == []
    early = Line()
    assert early.speak(SECOND[:200]) == early.started() == []
    assert list(line.protocol.encode_audio(SECOND)) == []


def test_call_does_not_show_its_parameters() -> None:
    start = read_message(json.dumps(start_of("twilio", token="ek_secret")).encode())
    assert "ek_secret" not in repr(call_of(start, "", {}))
