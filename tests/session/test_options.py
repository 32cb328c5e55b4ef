from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from tests.session.stage import MODELS, settings, transcription_settings
from vivavoce.errors import InvalidRequest
from vivavoce.protocol.items import FunctionTool
from vivavoce.protocol.session import (
    PCM,
    PCMA,
    PCMU,
    AudioInput,
    NoiseReduction,
    RealtimePatch,
    RealtimeSession,
    SemanticVad,
    ServedBy,
    ServerVad,
    SessionObject,
    SessionPatch,
    TranscribedBy,
    Transcription,
    TranscriptionSession,
    TurnDetection,
)
from vivavoce.session.options import AvailableModels, ModelInfo, Options
from vivavoce.session.policy import Rules


def wants(body: dict[str, Any]) -> SessionPatch:
    """The `session` of a session.update, as a client writes it."""
    made: SessionPatch = msgspec.convert({"type": "realtime"} | body, type=SessionPatch)
    return made


def hears(**fields: Any) -> SessionPatch:
    """An update of what comes from the user."""
    return wants({"audio": {"input": fields}})


def speaks(**fields: Any) -> SessionPatch:
    """An update of what goes to the user."""
    return wants({"audio": {"output": fields}})


def options(
    opening: SessionObject | None = None, offer: AvailableModels = MODELS, **chosen: Any
) -> Options:
    return Options(opening or settings(**chosen), offer)


def changed(
    update: SessionPatch,
    opening: SessionObject | None = None,
    *,
    pristine: bool = False,
    **chosen: Any,
) -> Options:
    """Settings after one update."""
    made = options(opening, **chosen)
    made.update(update, pristine=pristine, has_spoken=False)
    return made


def heard_with(update: SessionPatch, **chosen: Any) -> AudioInput:
    """What is in force for the user's sound after one update."""
    return changed(update, **chosen).session.audio.input


def refused(
    made: Options, update: SessionPatch, *, pristine: bool = False, has_spoken: bool = False
) -> tuple[str | None, str | None, str]:
    """Code, param and message of the refusal, which must have changed nothing."""
    before = made.session
    with pytest.raises(InvalidRequest) as problem:
        made.update(update, pristine=pristine, has_spoken=has_spoken)
    assert made.session is before
    return problem.value.code, problem.value.param, problem.value.message


def test_absent_keeps_what_is_in_force() -> None:
    opening = settings(
        instructions="Be kind.",
        transcription=Transcription(model="whisper-1", language="de"),
        turn_detection=SemanticVad(eagerness="low"),
    )
    assert changed(wants({}), opening).session == options(opening).session


def test_update_with_read_only_fields_ignores_them() -> None:
    mine = {"id": "sess_x", "object": "o", "expires_at": 1, "served_by": {"model": "m"}}
    assert changed(wants(mine)).session == options().session


def test_null_and_empty_clear_instructions_and_tools() -> None:
    tool = FunctionTool(name="dial")
    for update in ({"instructions": None, "tools": None}, {"instructions": "", "tools": []}):
        session = changed(wants(update), settings(instructions="Be kind.", tools=(tool,))).realtime
        assert (session.instructions, session.tools) == ("", ())


def test_null_switches_off() -> None:
    assert heard_with(
        hears(transcription=None, noise_reduction=None, turn_detection=None),
        transcription=Transcription(model="whisper-1"),
    ) == AudioInput(turn_detection=None)
    session = changed(wants({"tracing": None, "prompt": None}), settings(tracing="auto")).realtime
    assert (session.tracing, session.prompt) == (None, None)


def test_free_form_settings_are_echoed() -> None:
    update = {
        "tracing": {"workflow_name": "w"},
        "prompt": {"id": "p"},
        "include": ["item.input_audio_transcription.logprobs"],
        "truncation": {"type": "retention_ratio", "retention_ratio": 0.8},
        "reasoning": {"effort": "low"},
        "parallel_tool_calls": False,
        "max_output_tokens": 7,
        "tools": [{"type": "function", "name": "dial"}],
        "tool_choice": {"type": "function", "name": "dial"},
    }
    session = msgspec.json.decode(msgspec.json.encode(changed(wants(update)).session))
    assert {name: session[name] for name in update} == update


@pytest.mark.parametrize(
    ("before", "update", "after"),
    [
        (ServerVad(threshold=0.7), {"silence_duration_ms": 900}, ServerVad(0.7, 300, 900)),
        (SemanticVad(eagerness="low"), {"silence_duration_ms": 900}, ServerVad(0.5, 300, 900)),
        (None, {}, ServerVad(0.5, 300, 500, True, True, None)),
        (ServerVad(idle_timeout_ms=6000), {"idle_timeout_ms": None}, ServerVad()),
        (ServerVad(0.7, 100, 900), {}, ServerVad(0.7, 100, 900)),
    ],
)
def test_turn_detection_merges_within_its_type_and_starts_afresh_in_another(
    before: TurnDetection | None, update: dict[str, Any], after: TurnDetection
) -> None:
    detection = {"type": "server_vad"} | update
    assert heard_with(hears(turn_detection=detection), turn_detection=before) == AudioInput(
        turn_detection=after
    )


def test_semantic_vad_is_shown_with_its_eagerness() -> None:
    heard = heard_with(hears(turn_detection={"type": "semantic_vad"}))
    assert heard.turn_detection == SemanticVad("auto", True, True)
    merged = hears(turn_detection={"type": "semantic_vad", "create_response": False})
    assert heard_with(merged, turn_detection=SemanticVad("low")).turn_detection == SemanticVad(
        "low", create_response=False
    )


def test_transcription_merges_and_only_keys_in_use_are_kept() -> None:
    update = hears(
        transcription={"language": "it", "languages": ["it"], "keywords": ["ciao"], "delay": "low"}
    )
    heard = heard_with(update, transcription=Transcription(model="whisper-1", prompt="names"))
    assert heard.transcription == Transcription("whisper-1", "it", "names", ("ciao",))
    off = heard_with(
        hears(transcription={"language": None}),
        transcription=Transcription(model="whisper-1", language="it"),
    )
    assert off.transcription == Transcription("whisper-1")
    assert heard_with(hears(transcription={"model": "m"})).transcription == Transcription("m")


def test_noise_reduction_keeps_its_strength() -> None:
    near = {"type": "near_field", "strength": 0.4}
    made = changed(hears(noise_reduction=near))
    made.update(hears(noise_reduction={"type": "far_field"}), pristine=False, has_spoken=False)
    assert made.session.audio.input.noise_reduction == NoiseReduction("far_field", 0.4)


@pytest.mark.parametrize(
    ("update", "param"),
    [
        (hears(transcription={}), "session.audio.input.transcription.model"),
        (hears(transcription={"prompt": "x"}), "session.audio.input.transcription.model"),
        (hears(noise_reduction={"strength": 0.5}), "session.audio.input.noise_reduction.type"),
    ],
)
def test_transcription_that_is_switched_on_needs_its_model(
    update: SessionPatch, param: str
) -> None:
    assert refused(options(), update) == (
        "missing_required_parameter",
        param,
        f"Missing required parameter: '{param}'.",
    )


def test_update_with_one_bad_field_is_refused_whole() -> None:
    update = wants({"instructions": "New.", "tools": [], "audio": {"input": {"transcription": {}}}})
    refused(options(instructions="Old."), update)


@pytest.mark.parametrize(
    ("name", "kind"), [("audio/pcm", PCM()), ("audio/pcmu", PCMU()), ("audio/pcma", PCMA())]
)
def test_sound_comes_and_goes_in_the_format_asked_for(name: Any, kind: Any) -> None:
    for before in (PCM(), PCMU(), PCMA()):
        heard = changed(hears(format={"type": name}), input_format=before)
        assert (heard.session.audio.input.format, heard.input_format) == (kind, name)
        spoken = changed(speaks(format={"type": name}), output_format=before)
        assert spoken.realtime.audio.output.format == kind


@pytest.mark.parametrize("modalities", [("audio", "text"), (), ("text", "text")])
def test_response_is_text_or_audio_and_never_both(modalities: Any) -> None:
    assert refused(options(), wants({"output_modalities": modalities})) == (
        "invalid_value",
        "session.output_modalities",
        f"Invalid modalities: {list(modalities)}. "
        "Supported combinations are: ['text'] and ['audio'].",
    )
    for one in ("text", "audio"):
        assert changed(wants({"output_modalities": [one]})).realtime.output_modalities == (one,)


def test_unknown_names_are_kept_and_served_by_the_defaults() -> None:
    made = options(model="gpt-99", voice="nova")
    assert (made.realtime.model, made.realtime.audio.output.voice) == ("gpt-99", "nova")
    assert made.served_by == made.realtime.served_by == ServedBy(model="local", voice="ash")
    assert (made.voice("marin"), made.voice("nova")) == ("marin", "ash")


def test_new_model_and_voice_are_served_from_now_on() -> None:
    made = options()
    assert made.served_by == ServedBy(model="gpt-realtime", voice="marin")
    update = wants({"model": "local", "audio": {"output": {"voice": {"id": "ash"}}}})
    made.update(update, pristine=False, has_spoken=True)
    assert made.realtime.served_by == ServedBy(model="local", voice="ash")
    assert made.realtime.audio.output.voice == "ash"  # shown as a plain name


def test_voices_of_two_models_are_kept_apart() -> None:
    """A voice is looked up in the model that speaks, whichever model is the default."""
    deep = ModelInfo(voices=frozenset({"bass", "tenor"}), default_voice="bass")
    offer = AvailableModels({**MODELS.models, "deep": deep}, default_model="local")
    made = options(offer=offer, model="deep", voice="tenor")
    assert (made.voice("tenor"), made.voice("marin")) == ("tenor", "bass")
    assert made.served_by == ServedBy(model="deep", voice="tenor")
    made.update(wants({"model": "local"}), pristine=False, has_spoken=False)
    assert made.served_by == ServedBy(model="local", voice="ash")


def test_voice_is_locked_after_it_spoke_where_the_settings_say_so() -> None:
    offer = AvailableModels(MODELS.models, MODELS.default_model, lock_voice=True)
    made = options(offer=offer)
    assert refused(made, speaks(voice="ash", speed=1.2), has_spoken=True) == (
        "cannot_update_voice",
        None,
        "Cannot update a conversation's voice if assistant audio is present.",
    )
    for update in (speaks(voice={"id": "marin"}), speaks(speed=1.2), hears(), wants({})):
        made.update(update, pristine=False, has_spoken=True)
    assert made.realtime.audio.output.speed == 1.2
    made.update(speaks(voice="ash"), pristine=False, has_spoken=False)
    assert made.realtime.audio.output.voice == "ash"


def test_conversation_can_become_a_transcription_session_before_anything_has_happened() -> None:
    opening = settings(transcription=Transcription(model="whisper-1"), expires_at=99)
    update = wants(
        {"type": "transcription", "audio": {"input": {"turn_detection": None}, "output": {}}}
    )
    made = changed(update, opening, pristine=True)
    assert made.transcribes_only
    assert made.session == msgspec.structs.replace(
        transcription_settings(turn_detection=None), expires_at=99
    )


def test_session_does_not_change_its_type_later() -> None:
    assert refused(options(), wants({"type": "transcription"})) == (
        "invalid_parameter",
        "session.type",
        "Passing a transcription session update event to a realtime session is not allowed.",
    )
    assert refused(options(transcription_settings()), wants({}), pristine=True) == (
        "invalid_parameter",
        "session.type",
        "Passing a realtime session update event to a transcription session is not allowed.",
    )


def test_transcription_session_has_no_response_settings() -> None:
    made = options(transcription_settings(turn_detection=ServerVad(threshold=0.7)))
    assert isinstance(made.session, TranscriptionSession)
    assert msgspec.to_builtins(made.session)["audio"]["input"]["turn_detection"] == {
        "type": "server_vad",
        "threshold": 0.7,
        "prefix_padding_ms": 300,
        "silence_duration_ms": 500,
    }
    keys = {"type": "semantic_vad", "create_response": True, "interrupt_response": True}
    body = {"type": "transcription", "model": "x", "audio": {"input": {"turn_detection": keys}}}
    made.update(wants(body), pristine=False, has_spoken=False)
    assert made.turn_detection == SemanticVad("auto", UNSET, UNSET)
    assert made.transcription == Transcription("whisper-1")


def test_transcription_session_is_served_by_the_default_model() -> None:
    made = options(transcription_settings())
    assert made.realtime == RealtimeSession(model="local")
    assert made.served_by.model == "local"


DETECTIONS = st.none() | st.one_of(
    st.fixed_dictionaries(
        {"type": st.just("server_vad")},
        optional={
            "threshold": st.floats(0, 1),
            "silence_duration_ms": st.integers(0, 1000),
            "idle_timeout_ms": st.none() | st.integers(5000, 30_000),
            "interrupt_response": st.booleans(),
        },
    ),
    st.fixed_dictionaries(
        {"type": st.just("semantic_vad")},
        optional={"eagerness": st.sampled_from(["low", "high"]), "create_response": st.booleans()},
    ),
)
FORMATS = st.sampled_from([{"type": f"audio/{name}"} for name in ("pcm", "pcmu", "pcma")])
INPUTS = st.fixed_dictionaries(
    {},
    optional={
        "format": FORMATS,
        "turn_detection": DETECTIONS,
        "transcription": st.none()
        | st.fixed_dictionaries(
            {}, optional={"model": st.sampled_from("ab"), "language": st.none() | st.just("de")}
        ),
        "noise_reduction": st.none()
        | st.fixed_dictionaries(
            {}, optional={"type": st.just("far_field"), "strength": st.floats(0, 1)}
        ),
    },
)
OUTPUTS = st.fixed_dictionaries(
    {},
    optional={
        "format": FORMATS,
        "voice": st.sampled_from(["ash", "nova", {"id": "marin"}]),
        "speed": st.floats(0.25, 1.5),
    },
)
BODIES: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"type": st.sampled_from(["realtime", "realtime", "transcription"])},
    optional={
        "model": st.sampled_from(["gpt-realtime", "other"]),
        "include": st.none() | st.just([]),
        "audio": st.fixed_dictionaries({}, optional={"input": INPUTS}),
    },
)
TALK = st.fixed_dictionaries(
    {},
    optional={
        "instructions": st.none() | st.text(max_size=3),
        "tools": st.none() | st.just([{"type": "function", "name": "dial"}]),
        "output_modalities": st.lists(st.sampled_from(["text", "audio"]), max_size=2),
        "tracing": st.none() | st.just("auto"),
    },
)


@st.composite
def patches(draw: st.DrawFn) -> SessionPatch:
    body = draw(BODIES)
    if body["type"] == "realtime":
        body |= draw(TALK)
        if draw(st.booleans()):
            body["audio"] = body.get("audio", {}) | {"output": draw(OUTPUTS)}
    return wants(body)


def tried(made: Options, update: SessionPatch, *, pristine: bool) -> bool:
    """Whether the update was taken; one that was refused must have changed nothing."""
    before = made.session
    try:
        made.update(update, pristine=pristine, has_spoken=False)
    except InvalidRequest:
        assert made.session is before
        return False
    return True


@given(st.lists(patches(), max_size=4), patches(), st.booleans())
def test_update_counts_once_when_sent_twice_and_not_when_refused(
    history: list[SessionPatch], update: SessionPatch, pristine: bool
) -> None:
    made = options()
    for earlier in history:
        tried(made, earlier, pristine=pristine)
    if tried(made, update, pristine=pristine):
        once = made.session
        assert tried(made, update, pristine=pristine)
        assert made.session == once
    for wire in (msgspec.json, msgspec.msgpack):
        written = wire.decode(wire.encode(made.session), type=SessionObject)
        assert options(written).session == made.session


@given(patches())
def test_update_keeps_the_fields_that_it_does_not_name(update: SessionPatch) -> None:
    made = options(settings(instructions="Old.", transcription=Transcription("whisper-1")))
    before = made.realtime
    if isinstance(update, RealtimePatch) and tried(made, update, pristine=False):
        for name in ("model", "instructions", "tools", "tracing", "output_modalities", "audio"):
            if getattr(update, name) is UNSET:
                assert getattr(made.realtime, name) == getattr(before, name)


def test_transcription_model_of_speaches_gives_way_to_the_setting_of_ga() -> None:
    both = {"transcription_model": "b", "audio": {"input": {"transcription": {"model": "a"}}}}
    assert changed(wants(both)).transcription == Transcription(model="a")
    assert changed(wants({"transcription_model": "b"})).transcription == Transcription(model="b")


def test_transcription_model_of_speaches_is_taken_by_a_transcription_session() -> None:
    patch = {"type": "transcription", "transcription_model": "b"}
    update: SessionPatch = msgspec.convert(patch, type=SessionPatch)
    made = changed(update, transcription_settings())
    assert made.transcription is not None
    assert made.transcription.model == "b"


class Renamed:
    """Serves every name by one that says so."""

    def transcription_model(self, asked: str) -> str:
        return f"stt for {asked}"

    def other_language(self, asked: str, language: str) -> str:
        return "" if language == "en" else "en"

    def speech_model(self, asked: str) -> str:
        return f"tts for {asked}"

    def voice(self, name: str, speech_model: str = "") -> str:
        return f"{name} of {speech_model or 'the default'}"


def test_names_of_speech_models_are_served_by_what_the_engines_say() -> None:
    renaming = ModelInfo(voices=None, default_voice="", names=Renamed())
    offer = AvailableModels({"default": renaming}, "default")
    plain = options(offer=offer).realtime.served_by
    assert plain == ServedBy(model="default", voice="marin of the default")
    asked = options(
        offer=offer, transcription=Transcription(model="whisper-1"), speech_model="tts-1"
    )
    assert asked.realtime.served_by == ServedBy(
        model="default",
        voice="marin of tts-1",
        transcription_model="stt for whisper-1",
        speech_model="tts for tts-1",
    )
    written = options(transcription_settings(), offer)
    assert written.session.served_by == TranscribedBy("default", "stt for whisper-1")


def test_language_that_is_not_recognised_is_noted_with_the_one_that_is() -> None:
    renaming = ModelInfo(voices=None, default_voice="", names=Renamed())
    offer = AvailableModels({"default": renaming}, "default")
    german = hears(transcription={"model": "", "language": "de"})
    served = changed(german, offer=offer).realtime.served_by
    assert isinstance(served, ServedBy)
    assert (served.transcription_model, served.transcription_language) == (UNSET, "en")
    english = hears(transcription={"model": "a", "language": "en"})
    served = changed(english, offer=offer).realtime.served_by
    assert isinstance(served, ServedBy)
    assert served.transcription_language is UNSET
    patch = {"type": "transcription", "audio": {"input": {"transcription": {"language": "de"}}}}
    written = changed(
        msgspec.convert(patch, type=SessionPatch), transcription_settings(), offer=offer
    )
    assert written.session.served_by == TranscribedBy("default", "stt for whisper-1", "en")


def test_keywords_are_kept_and_cleared_by_null() -> None:
    made = changed(hears(transcription={"model": "a", "keywords": ["Zelda", "Hyrule"]}))
    assert made.transcription == Transcription(model="a", keywords=("Zelda", "Hyrule"))
    assert made.transcription.hint == "Zelda, Hyrule"
    made.update(hears(transcription={"prompt": "Games."}), pristine=False, has_spoken=False)
    assert made.transcription.hint == "Zelda, Hyrule Games."
    made.update(hears(transcription={"keywords": None}), pristine=False, has_spoken=False)
    assert made.transcription == Transcription(model="a", prompt="Games.")


@pytest.mark.parametrize("far", [False, True], ids=["cascade", "relay"])
def test_key_that_is_limited_to_models_is_held_to_them_for_models_of_speech(far: bool) -> None:
    info = ModelInfo(voices=None, default_voice="", names=None if far else Renamed())
    rules = Rules(models=frozenset({"default", "whisper-base", "stt for spoken"}))
    made = options(offer=AvailableModels({"default": info}, "default", rules=rules))
    before = made.session
    for patch, param in (
        (hears(transcription={"model": "whisper-1"}), "session.audio.input.transcription.model"),
        (wants({"transcription_model": "whisper-1"}), "session.audio.input.transcription.model"),
        (wants({"speech_model": "tts-1"}), "session.speech_model"),
    ):
        with pytest.raises(InvalidRequest, match="does not exist or you do not have") as refused:
            made.update(patch, pristine=True, has_spoken=False)
        assert refused.value.param == param
        assert made.session is before
    made.update(hears(transcription={"model": "whisper-base"}), pristine=True, has_spoken=False)
    if not far:  # what serves the name is allowed
        made.update(hears(transcription={"model": "spoken"}), pristine=True, has_spoken=False)
    written = Options(
        transcription_settings(), AvailableModels({"default": info}, "default", rules=rules)
    )
    refusable = {"type": "transcription", "transcription_model": "whisper-1"}
    with pytest.raises(InvalidRequest, match="whisper-1"):
        written.update(
            msgspec.convert(refusable, type=SessionPatch), pristine=True, has_spoken=False
        )


def test_speech_model_of_null_is_the_one_of_the_server() -> None:
    opening = settings(speech_model="tts-1")
    assert changed(wants({"speech_model": None}), opening).realtime.speech_model is UNSET
