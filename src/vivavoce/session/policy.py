"""Restrictions that the operator of a model sets for its clients: on settings, items and audio.

The shell applies them to the events of a client, of any protocol, before a brain gets them. Hidden
settings are never part of the session object: see Options.in_force.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET, Meta

from vivavoce.audio.formats import RATE
from vivavoce.errors import InvalidRequest
from vivavoce.protocol.client import AnyClientEvent, ResponseCreate
from vivavoce.protocol.items import FunctionTool, InputImage, Item, ItemReference, Message, Tools
from vivavoce.protocol.session import (
    AudioInputPatch,
    AudioOutputPatch,
    AudioPatch,
    RealtimePatch,
    SessionObject,
    SessionPatch,
    TranscriptionPatch,
    with_transcription,
)

T = TypeVar("T")
ClientEventName: TypeAlias = Literal[
    "session.update",
    "input_audio_buffer.append",
    "input_audio_buffer.commit",
    "input_audio_buffer.clear",
    "output_audio_buffer.clear",
    "conversation.item.create",
    "conversation.item.retrieve",
    "conversation.item.truncate",
    "conversation.item.delete",
    "response.create",
    "response.cancel",
]
MAX_THROTTLE_S = 5.0
"""The longest pause in reading from a client: its pings are answered between pauses."""
MAX_AUDIO_AHEAD_S = 60.0
"""Audio is refused if, at the allowed speed, the client's earlier audio lasts longer than this."""
_NESTED = (AudioPatch, AudioInputPatch, AudioOutputPatch)


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[policies.NAME]: restrictions on the clients of a model. The model names its policy."""

    pinned: RealtimePatch = RealtimePatch()
    """Settings as in a session.update.

    Clients cannot change them, not even in a response.create.
    """
    show_instructions: bool = False
    """Whether clients see pinned instructions."""
    strict: bool = False
    """Whether a request for a pinned or forbidden setting is refused; otherwise the setting is
    ignored."""
    voices: tuple[str, ...] = ()
    """Voices that clients may choose; empty: any."""
    transcription_models: tuple[str, ...] = ()
    """Transcription models that clients may choose; empty: any."""
    client_tools: tuple[str, ...] = ("*",)
    """Functions that clients may declare; "*" is any."""
    max_output_tokens: Annotated[int, Meta(ge=0, le=4096)] = 0
    """The highest limit of one response; 0: no limit of its own."""
    audio_speed: Annotated[float, Meta(ge=0, le=1000)] = 3.0
    """How many times faster than real time a client's audio is read at most; 0: at any speed."""
    audio_burst_seconds: Annotated[float, Meta(ge=0, le=3600)] = 5.0
    """How much audio is read at any speed first."""
    system_items: bool = False
    """Whether clients may add messages of the system."""
    assistant_items: bool = False
    """Whether clients may add messages of the assistant."""
    tools: tuple[str, ...] = ()
    """Functions of [tools.NAME], which run on this server and are hidden from clients."""
    moderation: str = ""
    """The check of [moderation.NAME] that is applied to what is said; empty: none."""
    images: bool = False
    """Whether clients may send pictures."""
    prompt: bool = False
    """Whether clients may name a prompt that is stored at the provider."""
    blocked_events: tuple[ClientEventName, ...] = ()
    """Events of clients that are refused."""

    def __post_init__(self) -> None:
        voice = self._pinned_voice
        if voice and self.voices and voice not in self.voices:
            raise ValueError(f"pinned voice {voice!r} is none of `voices`")

    @property
    def _pinned_voice(self) -> str:
        audio = self.pinned.audio
        output = audio.output if isinstance(audio, AudioPatch) else UNSET
        voice = output.voice if isinstance(output, AudioOutputPatch) else UNSET
        return voice if isinstance(voice, str) else ""


class Rules:
    """A policy as it applies to one session.

    models: the names of models that the key of the session allows; None: all. tools: the functions
    of this server that the policy names; background: of these, the names of those that run in the
    background. takes_images: False if pictures have no price and the owner has a budget in money.
    """

    def __init__(
        self,
        policy: Policy | None = None,
        models: frozenset[str] | None = None,
        tools: tuple[FunctionTool, ...] = (),
        background: frozenset[str] = frozenset(),
        *,
        takes_images: bool = True,
    ) -> None:
        self.tools = tools
        self.background_tools = background
        self._takes_images = takes_images
        self.tool_names = frozenset(tool.name for tool in tools)
        self._policy = policy
        self._models = models
        # when all audio so far would have been spoken, at the allowed speed
        self._audio_until = float("-inf")
        blocked = policy.blocked_events if policy else ()
        self._audio_passes = "input_audio_buffer.append" not in blocked
        speed = policy.audio_speed if policy else 0.0
        self._samples_a_second = RATE * speed  # read at most; 0: no limit
        self.takes_all_audio = self._audio_passes and not speed
        """Whether audio is neither blocked nor limited."""
        self._burst_s = policy.audio_burst_seconds / speed if policy and speed else 0.0

    @property
    def source(self) -> tuple[Policy | None, frozenset[str] | None]:
        """The policy and the models that these rules were made from, for a recorder."""
        return self._policy, self._models

    @property
    def pinned(self) -> RealtimePatch | None:
        """The pinned settings that clients see; None: nothing is pinned."""
        policy = self._policy
        if policy is None:
            return None
        pinned = policy.pinned
        if self.hidden_instructions is not None:
            pinned = msgspec.structs.replace(pinned, instructions="")
        if policy.max_output_tokens and pinned.max_output_tokens is UNSET:
            pinned = msgspec.structs.replace(pinned, max_output_tokens=policy.max_output_tokens)
        return pinned

    @property
    def hidden_instructions(self) -> str | None:
        """The pinned settings in force, where clients see others; None: clients see all of them."""
        policy = self._policy
        if policy is None or policy.show_instructions or policy.pinned.instructions is UNSET:
            return None
        return policy.pinned.instructions or ""

    def check_model(self, model: str, param: str = "model") -> None:
        """Raise InvalidRequest for a model that the key does not allow."""
        if self._models is not None and model not in self._models:
            raise _no_model(model, param)

    def check_served(self, asked: str, served: str | None, own: str, param: str) -> None:
        """Raise InvalidRequest for a speech model that the key does not allow.

        served: the engine or model that the name stands for; None: an upstream server decides.
        own: the engine of the session's own model, which is allowed with it.
        """
        if self._models is None or not asked or served == own:
            return
        if not self._models & {asked, served}:
            raise _no_model(asked, param)

    def check_event(self, event: AnyClientEvent) -> None:
        """Raise InvalidRequest for an event that is blocked."""
        kind = type(event).__struct_config__.tag
        if self._policy is not None and kind in self._policy.blocked_events:
            raise InvalidRequest(
                f"Events of the type '{kind}' are not allowed.", param="type", rule="blocked_events"
            )

    def settings(
        self, patch: SessionPatch, current: SessionObject, *, opening: bool = False
    ) -> SessionPatch:
        """The settings of a client's request that are allowed. Raises InvalidRequest.

        opening: the session has not begun, so they may name its model.
        """
        patch = with_transcription(patch)
        if isinstance(patch, RealtimePatch) and patch.model is not UNSET:
            self.check_model(patch.model, "session.model")
            if self._policy is not None and not opening:
                patch = self._without_model(patch, current)
        if self._policy is None:
            return patch
        patch = self._without_pinned(patch, self._policy.pinned, "session", current)
        return self._within_bounds(patch, "session")

    def response(self, event: ResponseCreate) -> ResponseCreate:
        """The allowed part of a request for a response: the same object if all of it is.

        Raises InvalidRequest.
        """
        policy, params = self._policy, event.response
        if params is None:
            return event
        for n, item in enumerate(params.input or ()):
            if not isinstance(item, ItemReference):
                self.check_item(item, f"response.input[{n}]")
        if policy is None:
            return event
        allowed = self._without_pinned(params, policy.pinned, "response", None)
        allowed = self._within_bounds(allowed, "response")
        if allowed is params:
            return event
        return msgspec.structs.replace(event, response=allowed)

    def check_item(self, item: Item, param: str = "item") -> None:
        """Raise InvalidRequest for an item that clients may not add."""
        policy = self._policy
        if not isinstance(item, Message):
            return
        if not self._takes_images:
            self._check_images(item, param, "they have no price for this model")
        if policy is None:
            return
        if not policy.images:
            self._check_images(item, param)
        allowed = {"system": policy.system_items, "assistant": policy.assistant_items}
        if not allowed.get(item.role, True):
            raise InvalidRequest(
                f"Items with the role '{item.role}' are not allowed.",
                param=f"{param}.role",
                rule="items",
            )

    def allows_message(self, role: str, *, images: bool) -> bool:
        """Whether a client may have added a message of that role, with or without pictures."""
        policy = self._policy
        if images and not (self._takes_images and (policy is None or policy.images)):
            return False
        if policy is None:
            return True
        return {"system": policy.system_items, "assistant": policy.assistant_items}.get(role, True)

    def breach(self, settings: Mapping[str, Any], in_force: Mapping[str, Any]) -> str:
        """The first setting that a client has changed against the policy; "": none.

        For an upstream session that its client can reach directly: compares its present settings
        with those that this server has set. Settings that are not named have not changed.
        """
        policy, tools = self._policy, settings.get("tools")
        tools = tools if isinstance(tools, list) else None
        named = [tool.get("name") for tool in tools or () if isinstance(tool, dict)]
        if any(isinstance(tool, dict) and tool.get("type") == "mcp" for tool in tools or ()):
            return "tools"
        if policy is None:
            return ""
        allowed = {*policy.client_tools, *self.tool_names}
        unknown = "*" not in policy.client_tools and not allowed.issuperset(named)
        if tools is not None and (unknown or not self.tool_names.issubset(named)):
            return "tools"
        pinned = msgspec.to_builtins(policy.pinned)
        if place := _differing(pinned, in_force, settings, ""):
            return place
        most = settings.get("max_output_tokens")
        if policy.max_output_tokens and (
            most == "inf" or (isinstance(most, int) and most > policy.max_output_tokens)
        ):
            return "max_output_tokens"
        if settings.get("prompt") is not None and not policy.prompt:
            return "prompt"
        voice = _at(settings, "audio", "output", "voice")
        voice = voice.get("id") if isinstance(voice, dict) else voice
        if voice is not None and policy.voices and voice not in policy.voices:
            return "audio.output.voice"
        heard = _at(settings, "audio", "input", "transcription", "model")
        models = policy.transcription_models
        return "audio.input.transcription.model" if models and heard not in (None, *models) else ""

    def _check_images(self, item: Message, param: str, why: str = "") -> None:
        """Raise InvalidRequest where there is one."""
        for n, part in enumerate(item.content):
            if isinstance(part, InputImage):
                raise InvalidRequest(
                    f"Images are not allowed{': ' if why else ''}{why}.",
                    param=f"{param}.content[{n}]",
                    rule="images",
                )

    def take_audio(self, samples: int, now: float) -> None:
        """Count audio that was received, in samples at 24 kHz.

        Raises InvalidRequest for far too much.
        """
        if not self._samples_a_second:
            return
        if self._audio_until - now - self._burst_s > MAX_AUDIO_AHEAD_S:
            raise InvalidRequest(
                f"Audio comes faster than {self._samples_a_second / RATE:g} times real time.",
                code="rate_limit_exceeded",
                param="audio",
                rule="audio_speed",
            )
        self._audio_until = max(self._audio_until, now) + samples / self._samples_a_second

    def lets_audio_pass(self, samples: int, now: float) -> bool:
        """Whether audio may pass: neither blocked nor too early. If so, it is counted."""
        if not self._audio_passes:
            return False
        if self._samples_a_second:
            until = self._audio_until
            if until - now > self._burst_s:
                return False
            self._audio_until = (until if until > now else now) + samples / self._samples_a_second
        return True

    def throttle_s(self, now: float) -> float:
        """For so many seconds the client should not be read."""
        if not self._samples_a_second:
            return 0.0
        return min(MAX_THROTTLE_S, max(0.0, self._audio_until - now - self._burst_s))

    def _without_pinned(self, given: T, pinned: Any, path: str, current: Any) -> T:
        """A request without the settings that are pinned. `current`: what the client sees now.

        A client that sends a value back as it sees it requests nothing.
        """
        changes: dict[str, Any] = {}
        for name in pinned.__struct_fields__:
            fixed, asked = getattr(pinned, name), getattr(given, name, UNSET)
            place = f"{path}.{name}"
            if fixed is UNSET or asked is UNSET or (asked is None and path.startswith("response")):
                continue
            seen = getattr(current, name, UNSET)
            if isinstance(fixed, _NESTED):
                if not hasattr(asked, "__struct_fields__"):
                    continue
                left = self._without_pinned(asked, fixed, place, seen)
                if left is not asked:
                    changes[name] = left
                continue
            if self._is_strict and asked != fixed and not _shows(asked, seen):
                raise _fixed(place)
            changes[name] = UNSET
        return _changed(given, changes)

    def _without_model(self, patch: RealtimePatch, current: SessionObject) -> RealtimePatch:
        if self._is_strict and patch.model != getattr(current, "model", ""):
            raise _fixed("session.model")
        return msgspec.structs.replace(patch, model=UNSET)

    def _within_bounds(self, given: T, path: str) -> T:
        """A request whose voice, functions and so on are allowed. Raises InvalidRequest."""
        assert self._policy is not None
        changes: dict[str, Any] = {}
        if getattr(given, "prompt", None) not in (UNSET, None) and not self._policy.prompt:
            raise InvalidRequest(
                "Stored prompts are not allowed.", param=f"{path}.prompt", rule="prompt"
            )
        tools = getattr(given, "tools", UNSET)
        if tools is not UNSET and tools is not None:
            kept = self._allowed_tools(tools, f"{path}.tools")
            if len(kept) < len(tools):
                changes["tools"] = kept
        limit = self._policy.max_output_tokens
        asked = getattr(given, "max_output_tokens", UNSET)
        if limit and asked not in (UNSET, None) and (asked == "inf" or asked > limit):
            if self._is_strict:
                raise InvalidRequest(
                    f"Invalid '{path}.max_output_tokens': at most {limit} are allowed.",
                    param=f"{path}.max_output_tokens",
                    rule="max_output_tokens",
                )
            changes["max_output_tokens"] = limit
        audio = getattr(given, "audio", UNSET)
        if hasattr(audio, "__struct_fields__"):
            allowed = self._allowed_audio(audio, f"{path}.audio")
            if allowed is not audio:
                changes["audio"] = allowed
        return _changed(given, changes)

    def _allowed_tools(self, tools: Tools, path: str) -> Tools:
        assert self._policy is not None
        names = self._policy.client_tools
        kept = tuple(
            tool
            for tool in tools
            if ("*" in names or tool.name in names) and tool.name not in self.tool_names
        )
        if len(kept) < len(tools) and self._is_strict:
            other = next(tool.name for tool in tools if tool not in kept)
            raise InvalidRequest(
                f"The function '{other}' is not allowed.", param=path, rule="client_tools"
            )
        return kept

    def _allowed_audio(self, audio: T, path: str) -> T:
        assert self._policy is not None
        changes: dict[str, Any] = {}
        output: Any = getattr(audio, "output", UNSET)
        voice = getattr(output, "voice", UNSET)
        name = getattr(voice, "id", voice)
        voices = self._policy.voices
        if isinstance(name, str) and voices and name not in voices:
            if self._is_strict:
                raise InvalidRequest(
                    f"Invalid '{path}.output.voice': '{name:.100}' is not allowed. Allowed are: "
                    f"{', '.join(voices)}.",
                    param=f"{path}.output.voice",
                    rule="voices",
                )
            changes["output"] = msgspec.structs.replace(output, voice=UNSET)
        asked = getattr(getattr(audio, "input", UNSET), "transcription", UNSET)
        models = self._policy.transcription_models
        asked_model = asked.model if isinstance(asked, TranscriptionPatch) else UNSET
        if models and asked_model is not UNSET and asked_model not in models:
            raise _no_model(asked_model, f"{path}.input.transcription.model")
        return _changed(audio, changes)

    @property
    def _is_strict(self) -> bool:
        return self._policy is not None and self._policy.strict


def _differing(pinned: Any, in_force: Any, settings: Any, path: str) -> str:
    """The first pinned setting that differs from what is in force; "": none does."""
    for name, fixed in pinned.items():
        if name in ("type", "model", "tools") or not isinstance(settings, Mapping):
            continue  # a session keeps its type and model; of functions the names are compared
        place = f"{path}{name}"
        expected = in_force.get(name, fixed) if isinstance(in_force, Mapping) else fixed
        if name not in settings:
            continue
        if isinstance(fixed, Mapping) and isinstance(settings[name], Mapping):
            if found := _differing(fixed, expected, settings[name], f"{place}."):
                return found
        elif settings[name] != expected:
            return place
    return ""


def _at(settings: Any, *path: str) -> Any:
    """A setting by its path; None: it is not named."""
    for name in path:
        settings = settings.get(name) if isinstance(settings, Mapping) else None
    return settings


def _changed(given: T, changes: dict[str, Any]) -> T:
    return msgspec.structs.replace(given, **changes) if changes else given  # type: ignore[type-var]


def _shows(asked: Any, seen: Any) -> bool:
    """Whether a value equals the one in the session object: a client that sends it back requests
    nothing."""
    same: bool = (
        msgspec.to_builtins(asked) == msgspec.to_builtins(seen) if seen is not UNSET else False
    )
    return same


def _fixed(place: str) -> InvalidRequest:
    message = f"'{place}' is set by the server and cannot be changed."
    return InvalidRequest(message, param=place, rule="pinned")


def _no_model(name: str, param: str) -> InvalidRequest:
    return InvalidRequest(
        f"The model '{name:.100}' does not exist or you do not have access to it.",
        code="model_not_found",
        param=param,
        rule="models",
    )
